//! What stands in files of its own because it is nobody's business: tokens, keys.

use std::sync::Arc;

use ringmain::config::Options;
use ringmain::identity::{Jwt, JwtConfig, KeySource, Resource, Tokens};
use ringmain::server::{Config, Tls};

/// What was read from such files, and can be read again.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    tokens: Option<Arc<Tokens>>,
    jwt: Option<Arc<Jwt>>,
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

    /// The same, and begins to fetch the key set if there is one.
    pub(crate) async fn start(options: &Options, server: &mut Config) -> Result<Self, String> {
        let mut secrets = Self::read(options, server)?;
        if let (Some(keys), Some(issuer)) = (&options.jwks, &options.issuer) {
            let mut config = JwtConfig::new(issuer, "", KeySource::from(keys.as_str()));
            config.audiences.clone_from(&options.audiences);
            config.scopes.clone_from(&options.scopes);
            if !options.algorithms.is_empty() {
                // Unknown names were refused before.
                config.algorithms = options.algorithms.iter().filter_map(|name| name.parse().ok()).collect();
            }
            config.leeway = options.jwt_leeway;
            config.remembered = options.jwt_remembered;
            config.refresh = options.jwks_refresh;
            config.fetch_interval = options.jwks_fetch_interval;
            config.max_stale = options.jwks_max_stale;
            let jwt = Arc::new(Jwt::start(config).await.map_err(|error| error.to_string())?);
            server.authenticator = Some(jwt.clone());
            secrets.jwt = Some(jwt);
        }
        Ok(secrets)
    }

    /// Reads them again. What is wrong with one changes nothing of it.
    pub(crate) fn read_again(&self) {
        if let Some(jwt) = &self.jwt {
            jwt.renew();
        }
        match self.tokens.as_ref().map(|tokens| tokens.reload()) {
            Some(Ok(count)) => tracing::info!("read {count} tokens"),
            Some(Err(error)) => tracing::error!("the tokens stay as they were: {error}"),
            None => {}
        }
    }
}
