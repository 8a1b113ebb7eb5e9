//! A handle to a server: what can be asked of it and changed while it runs.

use std::net::SocketAddr;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

#[cfg(feature = "tls")]
use super::certificate::Identity;
#[cfg(feature = "tls")]
use crate::error::Error;
use crate::server::config::Allowed;
use crate::server::metrics::handle::Metrics;
use crate::session::Sessions;
use crate::sync::Arc;

/// A handle to a [`Server`](super::server::Server), from [`Server::handle`](super::server::Server::handle).
///
/// Cheap to clone, and usable from any thread, also after the server has ended. It does not keep the server running.
///
/// # Examples
///
/// ```
/// # use ringmain::handler::{Context, Handler, Request};
/// # async fn serve(handler: impl Handler) -> Result<(), Box<dyn std::error::Error>> {
/// use ringmain::server::{Config, Drained, Server};
///
/// let server = Server::bind("127.0.0.1:0".parse()?, handler, Config::default())?;
/// let handle = server.handle();
/// let running = tokio::spawn(server.run(std::future::pending()));
/// println!("serving http://{}/mcp", handle.local_addr());
///
/// let message = br#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
/// handle.sessions().publish(|out| out.extend_from_slice(message))?;
///
/// handle.drain();
/// assert_eq!(running.await?, Drained::Complete);
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
pub struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    metrics: Metrics,
    allowed: Arc<ArcSwap<Allowed>>,
    #[cfg(feature = "tls")]
    identity: Option<Arc<Identity>>,
    /// Has a permit once the drain was requested.
    drain: Notify,
}

impl Handle {
    pub(super) fn new(
        address: SocketAddr,
        metrics: Metrics,
        allowed: Arc<ArcSwap<Allowed>>,
        #[cfg(feature = "tls")] identity: Option<Arc<Identity>>,
    ) -> Self {
        let drain = Notify::new();
        Self(Arc::new(Shared {
            address,
            metrics,
            allowed,
            #[cfg(feature = "tls")]
            identity,
            drain,
        }))
    }

    /// The address that the server listens on. For port 0, the system chose the port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.0.address
    }

    /// The sessions of the endpoint: find them, publish to them, change their limits.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.0.metrics.sessions().clone()
    }

    /// The server's counters, and whether it is ready: for [`Admin`](crate::server::Admin), or an endpoint of your own.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.0.metrics.clone()
    }

    /// Replaces the hosts and origins that are allowed. Requests that are read from now on see the new lists.
    pub fn allow(&self, allowed: Allowed) {
        self.0.allowed.store(Arc::new(allowed));
    }

    /// Reads the certificate and its key again. Open connections go on; later handshakes use the new certificate.
    /// Without [`Config::tls`](crate::server::Config::tls) it does nothing. It reads files, which blocks for a moment.
    ///
    /// # Errors
    ///
    /// The files cannot be read or used ([`Error::is_tls`]). Then the certificate stays as it was.
    #[cfg(feature = "tls")]
    pub fn reload_tls(&self) -> Result<(), Error> {
        self.0.identity.as_ref().map_or(Ok(()), |identity| identity.reload())
    }

    /// Begins the drain, as if the `shutdown` of [`Server::run`](super::server::Server::run) had resolved.
    /// A server that does not run yet drains as soon as it does. Calling it again does nothing.
    pub fn drain(&self) {
        self.0.drain.notify_one();
    }

    /// Resolves when [`drain`](Self::drain) was called.
    pub(super) async fn drain_is_asked_for(&self) {
        self.0.drain.notified().await;
    }
}
