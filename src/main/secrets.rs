//! What stands in files of its own because it is nobody's business: tokens, keys.

use std::sync::Arc;

use ringmain::config::Options;
use ringmain::identity::{Resource, Tokens};
use ringmain::server::{Config, Tls};

/// What was read from such files, and can be read again.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    tokens: Option<Arc<Tokens>>,
}

impl Secrets {
    /// Reads the files that `options` name; gives them to the server's options.
    pub(crate) fn read(options: &Options, server: &mut Config) -> Result<Self, String> {
        let mut secrets = Self::default();
        if let Some(path) = &options.tokens_file {
            let tokens = Tokens::open(path).map_err(|error| format!("tokens_file: {error}"))?;
            let tokens = Arc::new(options.scopes.iter().fold(tokens, |tokens, scope| tokens.needing(scope)));
            server.authenticator = Some(tokens.clone());
            secrets.tokens = Some(tokens);
        }
        if let (Some(certificates), Some(key)) = (&options.tls_cert, &options.tls_key) {
            let tls = Tls { certificates: certificates.into(), key: key.into() };
            tls.check().map_err(|error| error.to_string())?;
            server.tls = Some(tls);
        }
        if let Some(uri) = &options.resource {
            let resource = Resource::new(uri, &options.authorization_servers)
                .and_then(|resource| {
                    options.scopes.iter().try_fold(resource, |all, scope| all.with_scope(scope))
                })
                .map_err(|error| error.to_string())?;
            server.resource = Some(resource);
        }
        Ok(secrets)
    }

    /// Reads them again. What is wrong with one changes nothing of it.
    pub(crate) fn read_again(&self) {
        match self.tokens.as_ref().map(|tokens| tokens.reload()) {
            Some(Ok(count)) => tracing::info!("read {count} tokens"),
            Some(Err(error)) => tracing::error!("the tokens stay as they were: {error}"),
            None => {}
        }
    }
}
