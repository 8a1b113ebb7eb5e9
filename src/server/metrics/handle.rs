//! The numbers of one server, and whether it is ready.

use http::{Method, Response, StatusCode};
use scc::HashIndex;

use super::connections::ConnectionCounters;
use super::latency::Latency;
use crate::identity::Denials;
use crate::protocol::Refusal;
use crate::session::Sessions;
use crate::sync::{Arc, AtomicU32, AtomicU64, Ordering, Tally};

/// Numbers about one server, and whether it is ready. Cheap to clone; clones are of the same server.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Numbers>);

#[derive(Debug)]
struct Numbers {
    sessions: Sessions,
    connections: Arc<ConnectionCounters>,
    denials: Arc<Denials>,
    requests: Tally<{ METHODS.len() * STATUSES.len() }>,
    /// By kind: every kind there is, from the start.
    refusals: HashIndex<&'static str, RefusalCount>,
    latency: Arc<Latency>,
    stage: AtomicU32,
}

/// How often requests were refused for one reason.
#[derive(Debug)]
pub(super) struct RefusalCount {
    pub(super) status: u16,
    pub(super) count: AtomicU64,
}

/// How far a server has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It listens, and accepts nobody yet.
    Starting,
    /// It serves.
    Serving,
    /// It was told to stop: it ends when [`Config::drain_delay`](crate::server::Config::drain_delay) is over and what
    /// is in flight has finished.
    Draining,
}

impl Readiness {
    /// A short label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// Labels of methods. The last is of all others.
pub(super) const METHODS: [&str; 5] = ["POST", "GET", "DELETE", "OPTIONS", "other"];
/// Statuses that answers have. The last, 0, is of all others.
pub(super) const STATUSES: [u16; 24] = [
    200, 202, 204, 400, 401, 403, 404, 405, 406, 408, 409, 410, 411, 413, 414, 415, 421, 422, 429, 431, 500,
    501, 503, 0,
];

/// A method as it is counted.
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

/// The kind of a refusal, beside the answer that says so.
#[derive(Clone, Copy, Debug)]
struct RefusalKind(&'static str);

/// Notes beside an answer why it refuses.
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

    /// How far the server has come.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        // Acquire: pairs with `set_readiness`.
        match self.0.stage.load(Ordering::Acquire) {
            0 => Readiness::Starting,
            1 => Readiness::Serving,
            _ => Readiness::Draining,
        }
    }

    /// How many requests were answered with `status` (0: with one that is not listed), by any method.
    #[must_use]
    pub fn answered(&self, status: u16) -> u64 {
        (0..METHODS.len()).map(|method| self.requests(method, index_of(status))).sum()
    }

    /// How many requests were refused for this reason, by the label of [`Refusal::kind`].
    #[must_use]
    pub fn refused(&self, kind: &str) -> u64 {
        let read = |_: &&'static str, refused: &RefusalCount| {
            // Relaxed: a number that orders nothing.
            refused.count.load(Ordering::Relaxed)
        };
        self.0.refusals.peek_with(kind, read).unwrap_or(0)
    }

    /// The sessions of the server.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// Its connections.
    #[must_use]
    pub fn connections(&self) -> &ConnectionCounters {
        &self.0.connections
    }

    /// How often requests were denied because of who sent them.
    #[must_use]
    pub fn denials(&self) -> &Denials {
        &self.0.denials
    }

    /// How often requests were refused, by kind.
    pub(super) fn refusals(&self) -> &HashIndex<&'static str, RefusalCount> {
        &self.0.refusals
    }

    pub(in crate::server) fn set_readiness(&self, stage: Readiness) {
        // Release: whoever sees it sees what was done before. Pairs with `readiness`.
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
            // Relaxed: a number that orders nothing.
            refused.count.fetch_add(1, Ordering::Relaxed);
        };
        if self.0.refusals.peek_with(kind, add).is_none() {
            // Somebody else may be first; then there is one to add to.
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
