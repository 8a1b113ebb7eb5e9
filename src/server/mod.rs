//! The network edge: hyper and tokio around the core.
//!
//! [`Server`] accepts connections, reads requests, refuses what breaks a rule, hands messages to the
//! [`Handler`], and writes streams. HTTP/1.1 and HTTP/2 with prior knowledge, told apart by the first bytes; with
//! the feature `tls` and [`Config::tls`] over TLS, told apart in the handshake.
//!
//! # How a POST is answered
//!
//! The handler is polled once where the request was read. If its response is there by then, and nothing else
//! was published, it goes out as `application/json`. Otherwise the handler becomes a task of its own and the
//! answer is an event stream: head, priming and whatever is pending leave in one write. [`Answer::Stream`]
//! makes every answer to a request a stream, so that every response can be fetched again after a break.
//!
//! # Cancel safety
//!
//! A client that disconnects ends its connection and nothing else: the handler runs on, and its response waits
//! for the client to resume.
//!
//! # Examples
//!
//! ```no_run
//! # use ringmain::handler::{Context, Handler, Request};
//! # async fn run(handler: impl Handler) -> Result<(), Box<dyn std::error::Error>> {
//! use ringmain::server::{Config, Server};
//!
//! let server = Server::bind("127.0.0.1:8080".parse()?, handler, Config::default())?;
//! server.run(async { drop(tokio::signal::ctrl_c().await) }).await;
//! # Ok(())
//! # }
//! ```

mod accept;
mod admin;
mod body;
mod config;
mod cors;
mod door;
mod gate;
mod http1;
mod http2;
mod keep_alive;
mod meter;
mod metrics;
mod outbox;
mod plain;
mod post;
mod read;
mod route;
mod serve;
#[cfg(feature = "tls")]
mod tls;
mod watch;
mod writer;

pub use accept::{Drained, Server};
pub use admin::Admin;
pub use config::{Allowed, Answer, Config, Connections};
pub use gate::ConnectionCounters;
pub use metrics::{Metrics, Readiness};
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError};

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::handler::Handler;
use crate::identity::Denials;
use crate::session::{End, Session, Sessions};
use crate::stream::{Clock, Moment};
use crate::sync::{Arc, AtomicBool, OnceLock, Ordering};
use door::Warned;
use gate::Gate;
use keep_alive::KeepAlive;
use writer::Writer;

/// What every request of one endpoint needs.
struct Endpoint<H> {
    handler: H,
    sessions: Sessions,
    config: Config,
    /// Looked at by every request, replaced now and then.
    allowed: ArcSwap<Allowed>,
    keep_alive: KeepAlive,
    /// How often the authenticator said no; written now and then, and shared with whoever looks.
    denials: Arc<Denials>,
    /// When it was last said aloud that a host or an origin is not allowed.
    warned: Warned,
    gate: Gate,
    metrics: Metrics,
    pending: read::Pending,
    #[cfg(feature = "tls")]
    identity: Option<tls::Identity>,
    /// Set while the server runs, if streams are handed over.
    writer: OnceLock<Writer>,
    started: Instant,
    draining: AtomicBool,
}

impl<H: Handler> Endpoint<H> {
    fn new(handler: H, config: Config) -> std::io::Result<Self> {
        let sessions = Sessions::new(config.sessions.clone(), Clock::default());
        let gate = Gate::new(&config.connections, config.connections.max.unwrap_or_else(gate::room));
        let denials = Arc::<Denials>::default();
        Ok(Self {
            #[cfg(feature = "tls")]
            identity: config.tls.clone().map(tls::Identity::load).transpose()?,
            metrics: Metrics::new(sessions.clone(), gate.counters().clone(), denials.clone()),
            handler,
            sessions,
            allowed: ArcSwap::from_pointee(config.allowed.clone()),
            keep_alive: KeepAlive::new(),
            gate,
            denials,
            warned: Warned::default(),
            pending: read::Pending::default(),
            writer: OnceLock::new(),
            started: Instant::now(),
            draining: AtomicBool::new(false),
            config,
        })
    }

    /// Whether connections begin with a TLS handshake.
    fn is_encrypted(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.identity.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// Sets the core's clock to the time there is.
    fn tell_time(&self) {
        let passed = self.started.elapsed().as_millis();
        self.sessions.clock().advance(Moment(u64::try_from(passed).unwrap_or(u64::MAX)));
    }

    /// The time the core's clock shows.
    fn now(&self) -> Moment {
        self.sessions.clock().now()
    }

    /// Ends a session by the server's choice, and tells the handler if this is what ended it.
    fn terminate(&self, session: &Session) {
        self.end(session, End::Closed);
    }

    /// Ends a session, and tells the handler if this is what ended it.
    fn end(&self, session: &Session, why: End) {
        if self.sessions.end(session, why) {
            self.closed(session);
        }
    }

    /// Tells the handler that a session ended.
    fn closed(&self, session: &Session) {
        unwinding(|| self.handler.closed(session));
    }

    fn is_draining(&self) -> bool {
        // Acquire: whoever sees the mark sees what was done before it was set. Pairs with `start_draining`.
        self.draining.load(Ordering::Acquire)
    }

    fn start_draining(&self) {
        // Release: pairs with `is_draining`.
        self.draining.store(true, Ordering::Release);
        self.metrics.set_readiness(Readiness::Draining);
    }
}

/// Calls into a handler. If it panics, `None`: the connection lives on, which others may share, and so does the
/// task. The panic hook has said what happened.
fn unwinding<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}
