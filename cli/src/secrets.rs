//! Reads the credentials that the configuration names by file or URL: bearer tokens, key sets, certificates.

use std::sync::Arc;

use ringmain::identity::{Jwt, JwtConfig, KeySource, Resource, Tokens};
use ringmain::server::{AdminToken, Config, Tls};
use ringmain_cli::config::Options;

/// The credentials in use. They can be read again while the server runs.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    tokens: Option<Arc<Tokens>>,
    jwt: Option<Arc<Jwt>>,
    /// Token of the admin address, and the file it came from.
    admin: Option<(AdminToken, String)>,
}

impl Secrets {
    /// Reads the files that `options` name, and sets up `server` with them.
    pub(crate) fn read(options: &Options, server: &mut Config) -> Result<Self, String> {
        let mut secrets = Self::default();
        if let Some(path) = &options.tokens_file {
            let tokens = Tokens::open(path).map_err(|error| format!("tokens_file: {error}"))?;
            let tokens = Arc::new(options.scopes.iter().fold(tokens, |tokens, scope| tokens.needing(scope)));
            server.authenticator = Some(tokens.clone());
            secrets.tokens = Some(tokens);
        }
        if let Some(path) = &options.admin_token_file {
            let token = AdminToken::new(&admin_token(path)?);
            let token = token.map_err(|error| format!("admin_token_file: {path}: {error}"))?;
            secrets.admin = Some((token, path.clone()));
        }
        if let (Some(certificates), Some(key)) = (&options.tls_cert, &options.tls_key) {
            let tls = Tls { certificates: certificates.into(), key: key.into() };
            tls.check().map_err(|error| crate::operate::with_cause(&error))?;
            server.tls = Some(tls);
        }
        if let Some(uri) = &options.resource {
            let resource = Resource::new(uri, &options.authorization_servers)
                .and_then(|resource| {
                    options.scopes.iter().try_fold(resource, |all, scope| all.with_scope(scope))
                })
                .and_then(|resource| {
                    let mut supported = options.scopes_supported.iter();
                    supported.try_fold(resource, |all, scope| all.with_supported_scope(scope))
                })
                .map_err(|error| error.to_string())?;
            server.resource = Some(resource);
        }
        Ok(secrets)
    }

    /// Does the same as [`read`](Self::read), and starts to fetch the key set if one is configured.
    pub(crate) async fn start(options: &Options, server: &mut Config) -> Result<Self, String> {
        let mut secrets = Self::read(options, server)?;
        if let (Some(keys), Some(issuer)) = (&options.jwks, &options.issuer) {
            let mut config = JwtConfig::new(issuer, "", KeySource::from(keys.as_str()));
            config.audiences.clone_from(&options.audiences);
            config.scopes.clone_from(&options.scopes);
            if !options.algorithms.is_empty() {
                // `config::load` has rejected unknown names.
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

    /// The token that the admin address requires, if any.
    pub(crate) fn admin_token(&self) -> Option<AdminToken> {
        self.admin.as_ref().map(|(token, _)| token.clone())
    }

    /// Reads all of them again. A credential that cannot be read stays as it was.
    pub(crate) fn read_again(&self) {
        if let Some(jwt) = &self.jwt {
            jwt.renew();
        }
        match self.tokens.as_ref().map(|tokens| tokens.reload()) {
            Some(Ok(count)) => tracing::info!("reloaded the tokens: {count}"),
            Some(Err(error)) => {
                tracing::error!("cannot reload the tokens, the current ones stay in use: {error}")
            }
            None => {}
        }
        if let Some((token, path)) = &self.admin {
            let replaced =
                admin_token(path).and_then(|text| token.replace(&text).map_err(|error| error.to_string()));
            match replaced {
                Ok(()) => tracing::info!("reloaded the admin token"),
                Err(error) => {
                    tracing::error!("cannot reload the admin token, the current one stays in use: {error}")
                }
            }
        }
    }
}

fn admin_token(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("admin_token_file: cannot read {path}: {error}"))
}
