//! The state that all connections of one server share: the endpoint, and what concerns sockets.

#[cfg(feature = "tls")]
use super::certificate::Identity;
use super::gate::{self, Gate};
use super::patience::Patience;
use crate::error::Error;
use crate::handler::Handler;
use crate::server::config::Config;
use crate::server::endpoint::Endpoint;
use crate::server::writer::Writer;
use crate::sync::{Arc, OnceLock};

/// See the [module documentation](self).
pub(super) struct ServerState<H> {
    pub(super) endpoint: Arc<Endpoint<H>>,
    pub(super) gate: Gate,
    /// The patience with clients that read nothing.
    pub(super) patience: Patience,
    #[cfg(feature = "tls")]
    pub(super) identity: Option<Arc<Identity>>,
    /// Set while the server runs, if streams are handed over.
    pub(super) writer: OnceLock<Writer>,
}

impl<H: Handler> ServerState<H> {
    /// Reads the certificate, if one is configured.
    pub(super) fn new(handler: H, config: Config) -> Result<Self, Error> {
        let max = config.connections.max.unwrap_or_else(gate::default_max);
        let gate = Gate::new(&config.connections, config.proxies.clone(), max);
        Ok(Self {
            #[cfg(feature = "tls")]
            identity: config.tls.clone().map(Identity::load).transpose()?.map(Arc::new),
            patience: Patience::new(&config),
            endpoint: Arc::new(Endpoint::new(handler, config, gate.counters().clone())),
            gate,
            writer: OnceLock::new(),
        })
    }

    /// Whether connections begin with a TLS handshake.
    pub(super) fn is_encrypted(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.identity.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }
}
