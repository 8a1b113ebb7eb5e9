//! A server on a socket: binding it, looking at it, running it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;

use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::timeout;

use super::accept::Acceptor;
#[cfg(feature = "tls")]
use super::certificate::{Identity, TlsError};
use super::descriptor::watch_reads;
use super::drain::{Abandon, Drained, finish};
use super::hand_over::start_reactors;
use super::listen::{give_up_after, listen, needs_runtime};
use super::stage::Stage;
use super::state::ServerState;
use crate::handler::Handler;
use crate::identity::Denials;
use crate::server::config::{Allowed, Config};
use crate::server::metrics::connections::ConnectionCounters;
use crate::server::metrics::handle::{Metrics, Readiness};
use crate::server::upkeep;
use crate::session::Sessions;
use crate::sync::Arc;

/// An endpoint on a socket.
pub struct Server<H> {
    state: Arc<ServerState<H>>,
    listener: AsyncFd<mio::net::TcpListener>,
}

impl<H: Handler> Server<H> {
    /// Listens on `address` for messages to `handler`. Call it within a tokio runtime that has time and I/O.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, a setting cannot work, the certificate cannot be used, or there is no such
    /// runtime. The text names the address's fault, the setting or the file.
    pub fn bind(address: SocketAddr, handler: H, config: Config) -> io::Result<Self> {
        needs_runtime()?;
        if let Some(fault) = config.fault() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, fault));
        }
        let state = Arc::new(ServerState::new(handler, config)?);
        state.endpoint.tell_handler_of_ends();
        let listener = listen(address)?;
        give_up_after(&listener, state.patience.of_the_system())?;
        // Not tokio's: that one has the runtime watch a socket before it can be turned away.
        let listener = watch_reads(mio::net::TcpListener::from_std(listener))?;
        Ok(Self { state, listener })
    }

    /// The address it listens on.
    ///
    /// # Errors
    ///
    /// The operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.get_ref().local_addr()
    }

    /// The sessions of this endpoint: to publish to, to look at.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.state.endpoint.sessions.clone()
    }

    /// What happened to its connections.
    #[must_use]
    pub fn connection_counters(&self) -> Arc<ConnectionCounters> {
        self.state.gate.counters().clone()
    }

    /// How often requests were denied because of who sent them, by reason.
    #[must_use]
    pub fn denials(&self) -> Arc<Denials> {
        self.state.endpoint.denials.clone()
    }

    /// Its numbers, and whether it is ready: for [`Admin`](crate::server::Admin), or an endpoint of one's own.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.state.endpoint.metrics.clone()
    }

    /// A way to replace who may talk to the endpoint while it runs.
    pub fn allow(&self) -> impl Fn(Allowed) + Send + Sync + use<H> {
        let endpoint = self.state.endpoint.clone();
        move |allowed| endpoint.allowed.store(Arc::new(allowed))
    }

    /// A way to read the certificate and its key again while the server runs. Connections that are open go on;
    /// those that come see the new one. Without [`Config::tls`] it does nothing. It reads files: a moment's work.
    ///
    /// The closure fails if they cannot be used; then the old ones stay.
    #[cfg(feature = "tls")]
    pub fn reload_tls(&self) -> impl Fn() -> Result<(), TlsError> + Send + Sync + use<H> {
        let state = self.state.clone();
        move || state.identity.as_ref().map_or(Ok(()), Identity::reload)
    }

    /// Serves until `shutdown` resolves, and for [`Config::drain_delay`] after that. Then it drains: accepts nothing
    /// new, tells standalone streams to come back, lets requests in flight finish, and cuts off what is left at the
    /// deadline. A request whose body is still on its way then has two seconds at most.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the server at once: its connections are cut off, and its sessions end.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Drained {
        let Self { state, listener } = self;
        let endpoint = &state.endpoint;
        endpoint.tell_time();
        let stage = watch::Sender::new(Stage::Serving);
        let mut abandon = Abandon { endpoint: endpoint.clone(), stage: stage.clone(), is_done: false };
        let _upkeep = upkeep::start(endpoint);
        let reactors = start_reactors(&state, &stage);
        let mut shutdown = pin!(shutdown);
        endpoint.metrics.set_readiness(Readiness::Serving);
        let mut acceptor = Acceptor::new(&state, &stage);
        tokio::select! {
            biased;
            () = &mut shutdown => {}
            () = acceptor.run(&listener) => {}
        }
        let delay = endpoint.config.drain_delay;
        if !delay.is_zero() {
            // Whoever asks is told not to send anybody, and whoever was sent meanwhile is served.
            endpoint.metrics.set_readiness(Readiness::Draining);
            tracing::info!(?delay, "not ready any more; the listener closes after the delay");
            let _ = timeout(delay, acceptor.run(&listener)).await;
        }
        drop(listener);
        let drained = finish(&state, &stage, reactors).await;
        abandon.is_done = true;
        drained
    }
}

impl<H> std::fmt::Debug for Server<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}
