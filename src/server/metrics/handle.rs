//! The metrics of one server, and whether it is ready.

use http::{Method, Response, StatusCode};
use scc::HashIndex;

use super::connections::ConnectionCounters;
use super::latency::Latency;
use crate::identity::Denials;
use crate::protocol::Refusal;
use crate::session::Sessions;
use crate::sync::{Arc, AtomicU32, AtomicU64, Ordering, Tally};

/// The counters of one server, and whether it is ready. Cheap to clone; clones are of the same server.
///
/// # Examples
///
/// ```
/// # use ringmain::handler::{Context, Handler, Request};
/// # async fn serve(handler: impl Handler) -> Result<(), Box<dyn std::error::Error>> {
/// use ringmain::server::{Config, Readiness, Server};
///
/// let server = Server::bind("127.0.0.1:0".parse()?, handler, Config::default())?;
/// let metrics = server.handle().metrics();
/// // It listens, and accepts nobody until it runs.
/// assert_eq!(metrics.readiness(), Readiness::Starting);
/// assert_eq!((metrics.connections().open(), metrics.denials().total()), (0, 0));
/// // In the text format of Prometheus.
/// assert!(metrics.text().contains("ringmain_sessions 0"));
/// # Ok(())
/// # }
/// # struct Nothing;
/// # impl Handler for Nothing {
/// #     async fn request(&self, _: Request, _: Context) {}
/// # }
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(serve(Nothing)).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Numbers>);

#[derive(Debug)]
struct Numbers {
    sessions: Sessions,
    connections: Arc<ConnectionCounters>,
    denials: Arc<Denials>,
    requests: Tally<{ METHODS.len() * STATUSES.len() }>,
    /// By kind. All kinds are there from the start.
    refusals: HashIndex<&'static str, RefusalCount>,
    latency: Arc<Latency>,
    stage: AtomicU32,
}

/// The number of requests refused for one reason.
#[derive(Debug)]
pub(super) struct RefusalCount {
    pub(super) status: u16,
    pub(super) count: AtomicU64,
}

/// Whether a server accepts clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It listens, and does not accept connections yet.
    Starting,
    /// It accepts connections.
    Serving,
    /// It was asked to stop. It ends when [`Config::drain_delay`](crate::server::Config::drain_delay) is over and what
    /// is in flight has finished.
    Draining,
}

impl Readiness {
    /// A short label.
    pub(in crate::server) const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// Labels of methods. The last one stands for all others.
pub(super) const METHODS: [&str; 5] = ["POST", "GET", "DELETE", "OPTIONS", "other"];
/// Statuses of answers. The last one, 0, stands for all others.
pub(super) const STATUSES: [u16; 24] = [
    200, 202, 204, 400, 401, 403, 404, 405, 406, 408, 409, 410, 411, 413, 414, 415, 421, 422, 429, 431, 500,
    501, 503, 0,
];

/// A method, as an index of [`METHODS`].
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct MethodClass(usize);

impl MethodClass {
    pub(in crate::server) fn of(method: &Method) -> Self {
        let class = METHODS.iter().position(|label| *label == method.as_str());
        Self(class.unwrap_or(METHODS.len() - 1))
    }

    /// Its label.
    pub(in crate::server) fn as_str(self) -> &'static str {
        METHODS[self.0]
    }
}

/// The kind of a refusal, kept with its answer.
#[derive(Clone, Copy, Debug)]
struct RefusalKind(&'static str);

/// Adds the kind of the refusal to its answer, to be counted.
pub(in crate::server) fn mark<B>(answer: &mut Response<B>, refusal: &Refusal) {
    answer.extensions_mut().insert(RefusalKind(refusal.kind()));
}

impl Metrics {
    pub(in crate::server) fn new(
        sessions: Sessions,
        connections: Arc<ConnectionCounters>,
        denials: Arc<Denials>,
    ) -> Self {
        let refusals = HashIndex::with_capacity(Refusal::KINDS.len());
        for (kind, status) in Refusal::KINDS {
            let _ = refusals.insert_sync(*kind, RefusalCount { status: *status, count: AtomicU64::new(0) });
        }
        Self(Arc::new(Numbers {
            sessions,
            connections,
            denials,
            requests: Tally::new(),
            refusals,
            latency: Arc::new(Latency::new()),
            stage: AtomicU32::new(Readiness::Starting as u32),
        }))
    }

    /// Whether the server accepts clients.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        // Acquire: pairs with `set_readiness`.
        match self.0.stage.load(Ordering::Acquire) {
            0 => Readiness::Starting,
            1 => Readiness::Serving,
            _ => Readiness::Draining,
        }
    }

    /// Number of requests refused for this reason, a label of the metric `ringmain_refusals_total`.
    #[must_use]
    pub fn refused(&self, kind: &str) -> u64 {
        let read = |_: &&'static str, refused: &RefusalCount| {
            // Relaxed: a counter that orders nothing.
            refused.count.load(Ordering::Relaxed)
        };
        self.0.refusals.peek_with(kind, read).unwrap_or(0)
    }

    /// The sessions of the server.
    pub(in crate::server) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// The counters of its connections.
    #[must_use]
    pub fn connections(&self) -> &ConnectionCounters {
        &self.0.connections
    }

    /// The counters of requests that were denied because of their sender, by reason.
    #[must_use]
    pub fn denials(&self) -> &Denials {
        &self.0.denials
    }

    /// The counters of refused requests, by kind.
    pub(super) fn refusals(&self) -> &HashIndex<&'static str, RefusalCount> {
        &self.0.refusals
    }

    pub(in crate::server) fn set_readiness(&self, stage: Readiness) {
        // Release: a reader of the stage sees what was done before. Pairs with `readiness`.
        self.0.stage.store(stage as u32, Ordering::Release);
    }

    pub(in crate::server) fn latency(&self) -> &Arc<Latency> {
        &self.0.latency
    }

    /// Counts an answer.
    pub(in crate::server) fn count<B>(&self, method: MethodClass, answer: &Response<B>) {
        let status = answer.status();
        self.0.requests.add(method.0 * STATUSES.len() + index_of(status.as_u16()), 1);
        if let Some(RefusalKind(kind)) = answer.extensions().get::<RefusalKind>() {
            self.count_refusal(kind, status);
        }
    }

    fn count_refusal(&self, kind: &'static str, status: StatusCode) {
        let add = |_: &&'static str, refused: &RefusalCount| {
            // Relaxed: a counter that orders nothing.
            refused.count.fetch_add(1, Ordering::Relaxed);
        };
        if self.0.refusals.peek_with(kind, add).is_none() {
            // Another thread may insert it first; then its counter is used.
            let _ = self
                .0
                .refusals
                .insert_sync(kind, RefusalCount { status: status.as_u16(), count: AtomicU64::new(0) });
            self.0.refusals.peek_with(kind, add);
        }
    }

    /// Requests of the method at one place of [`METHODS`] that were answered with the status at one of [`STATUSES`].
    pub(super) fn requests(&self, method: usize, status: usize) -> u64 {
        self.0.requests.sum(method * STATUSES.len() + status)
    }
}

fn index_of(status: u16) -> usize {
    STATUSES.iter().position(|listed| *listed == status).unwrap_or(STATUSES.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_that_means_something_has_a_place() {
        let mut sorted = STATUSES[..STATUSES.len() - 1].to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted, STATUSES[..STATUSES.len() - 1], "each once, in order");
        assert_eq!(STATUSES[index_of(404)], 404);
        assert_eq!(STATUSES[index_of(418)], 0);
    }
}
