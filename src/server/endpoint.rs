//! What answering a request needs: the handler, the sessions, the limits and the metrics of one endpoint.
//!
//! It knows no socket. Connections hold it, and [`request`](super::request) answers with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::config::{Allowed, Config};
use super::metrics::connections::ConnectionCounters;
use super::metrics::handle::{Metrics, Readiness};
use super::request::keep_alive::KeepAlive;
use super::request::pending::Pending;
use super::request::record::Records;
use super::request::warned::Warned;
use crate::handler::Handler;
use crate::identity::Denials;
use crate::session::{RequestRates, Sessions};
use crate::stream::{Clock, Moment};
use crate::sync::{Arc, AtomicBool, Ordering};

/// The state that all requests of one endpoint share.
pub(super) struct Endpoint<H> {
    pub(super) handler: H,
    pub(super) sessions: Sessions,
    pub(super) config: Config,
    /// Read by every request, replaced rarely.
    pub(super) allowed: Arc<ArcSwap<Allowed>>,
    pub(super) keep_alive: KeepAlive,
    /// Counts what the authenticator denied.
    pub(super) denials: Arc<Denials>,
    /// When the operator was last warned that a host or an origin is not allowed.
    pub(super) warned: Warned,
    pub(super) metrics: Metrics,
    pub(super) pending: Pending,
    pub(super) records: Records,
    pub(super) rates: RequestRates,
    started: Instant,
    draining: AtomicBool,
    /// Wakes tasks that wait for the drain to begin.
    drain_begins: Notify,
}

impl<H: Handler> Endpoint<H> {
    pub(super) fn new(handler: H, config: Config, connections: Arc<ConnectionCounters>) -> Self {
        let sessions = Sessions::new(config.sessions.clone(), Clock::default());
        let (of_principals, from_addresses) =
            (config.request_rate_per_principal, config.request_rate_per_address);
        let denials = Arc::<Denials>::default();
        Self {
            metrics: Metrics::new(sessions.clone(), connections, denials.clone()),
            handler,
            allowed: Arc::new(ArcSwap::from_pointee(config.allowed.clone())),
            keep_alive: KeepAlive::new(),
            denials,
            warned: Warned::default(),
            pending: Pending::default(),
            records: Records::new(config.access_log, config.request_ids),
            rates: RequestRates::new(of_principals, from_addresses, sessions.clock()),
            started: Instant::now(),
            draining: AtomicBool::new(false),
            sessions,
            drain_begins: Notify::new(),
            config,
        }
    }

    /// Advances the core's clock to the present.
    pub(super) fn tell_time(&self) {
        let passed = self.started.elapsed().as_millis();
        self.sessions.clock().advance(Moment(u64::try_from(passed).unwrap_or(u64::MAX)));
    }

    /// The time of the core's clock.
    pub(super) fn now(&self) -> Moment {
        self.sessions.clock().now()
    }

    /// Calls [`Handler::closed`] for each session that ends, for any reason.
    pub(super) fn tell_handler_of_ends(self: &Arc<Self>) {
        // Weak: the application may keep the sessions longer than the endpoint.
        let endpoint = Arc::downgrade(self);
        self.sessions.on_end(move |session| {
            if let Some(endpoint) = endpoint.upgrade() {
                endpoint.handler.closed(session);
            }
        });
    }

    /// Resolves when the drain begins.
    pub(super) async fn drains(&self) {
        let mut begins = pin!(self.drain_begins.notified());
        // Register first, then check whether the drain began before.
        begins.as_mut().enable();
        if !self.is_draining() {
            begins.await;
        }
    }

    /// Ends every session.
    pub(super) fn terminate_all(&self) {
        self.sessions.for_each(|session| {
            self.sessions.terminate(session);
        });
    }

    /// Whether the drain has begun.
    pub(super) fn is_draining(&self) -> bool {
        // Acquire: a reader of the mark sees what was done before it was set. Pairs with `start_draining`.
        self.draining.load(Ordering::Acquire)
    }

    /// Begins the drain.
    pub(super) fn start_draining(&self) {
        // Release: pairs with `is_draining`.
        self.draining.store(true, Ordering::Release);
        self.drain_begins.notify_waiters();
        self.metrics.set_readiness(Readiness::Draining);
    }
}

/// Calls code of the application. `None` if it panics. The connection, which others may share, stays open, and so does
/// the task. The panic hook has reported the panic.
pub(super) fn catch_panic<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}
