//! Binds a server to an address, and runs it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;

use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::timeout;

use super::accept::Acceptor;
use super::descriptor::watch_reads;
use super::drain::{Abandon, Drained, finish};
use super::hand_over::start_reactors;
use super::handle::Handle;
use super::listen::{give_up_after, listen, needs_runtime};
use super::stage::Stage;
use super::state::ServerState;
use crate::error::Error;
use crate::handler::Handler;
use crate::server::config::Config;
use crate::server::metrics::handle::Readiness;
use crate::server::upkeep;
use crate::sync::Arc;

/// An endpoint on a socket.
pub struct Server<H> {
    state: Arc<ServerState<H>>,
    listener: AsyncFd<mio::net::TcpListener>,
    handle: Handle,
}

impl<H: Handler> Server<H> {
    /// Listens on `address` for messages to `handler`. Call it within a tokio runtime that has time and I/O.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, a setting cannot work, the certificate cannot be used, or there is no such
    /// runtime: [`Error`] tells them apart.
    pub fn bind(address: SocketAddr, handler: H, config: Config) -> Result<Self, Error> {
        needs_runtime()?;
        if let Some(fault) = config.fault() {
            return Err(Error::config(fault));
        }
        let state = Arc::new(ServerState::new(handler, config)?);
        state.endpoint.tell_handler_of_ends();
        let patience = state.patience.of_the_system();
        let listen = || {
            let listener = listen(address)?;
            give_up_after(&listener, patience)?;
            let address = listener.local_addr()?;
            // Not tokio's listener, which registers a socket with the runtime before it can be rejected.
            Ok((watch_reads(mio::net::TcpListener::from_std(listener))?, address))
        };
        let (listener, address) = listen().map_err(|error: io::Error| Error::address(address, error))?;
        let endpoint = &state.endpoint;
        let handle = Handle::new(
            address,
            endpoint.metrics.clone(),
            endpoint.allowed.clone(),
            #[cfg(feature = "tls")]
            state.identity.clone(),
        );
        Ok(Self { state, listener, handle })
    }

    /// Returns a handle to the server, to be used while it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until `shutdown` resolves or [`Handle::drain`] is called, and for [`Config::drain_delay`] after that.
    /// Then it drains: it accepts nothing new, tells standalone streams to reconnect, lets requests in flight finish,
    /// and cuts off the rest at the deadline. A request whose body is still arriving then has two seconds at most.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the server at once: connections are cut off, and sessions end.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Drained {
        let Self { state, listener, handle } = self;
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
            () = handle.drain_is_asked_for() => {}
            () = acceptor.run(&listener) => {}
        }
        let delay = endpoint.config.drain_delay;
        if !delay.is_zero() {
            // Health checks fail, and clients that still arrive are served.
            endpoint.metrics.set_readiness(Readiness::Draining);
            tracing::info!(?delay, "no longer ready; the listener closes after the delay");
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
