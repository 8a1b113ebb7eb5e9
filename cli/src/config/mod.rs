//! Reads the options of the program from command-line flags, environment variables and one TOML file.
//!
//! Every option is a [`Key`] of one table: the same name is a key of the file (`max_body_bytes`), a flag
//! (`--max-body-bytes`) and a variable of the environment (`RINGMAIN_MAX_BODY_BYTES`).
//! Flags win over the environment, the environment over the file, the file over the defaults.
//!
//! [`load`] checks everything before it returns, so that one attempt shows all errors. It opens no file and does not
//! read the environment: its caller passes both.
//!
//! # Examples
//!
//! ```
//! use ringmain_cli::config::{Sources, load};
//!
//! let text = "idle = \"10m\"\nmax_body = \"1MiB\"\n";
//! let sources = Sources { file: Some(("ringmain.toml", text)), ..Sources::default() };
//! let problems = load(&sources).unwrap_err();
//! assert_eq!(
//!     problems.to_string(),
//!     "ringmain.toml:2: unknown key `max_body`; did you mean `max_body_bytes`?"
//! );
//! ```

mod file;
mod flags;
mod machine;
mod table;
mod value;

pub use flags::{arguments, given};
pub use machine::memory;
pub use table::{KEYS, Key, Reload};
pub use value::Kind;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::HeaderName;
use tracing_subscriber::EnvFilter;

use ringmain::adapter::REST_AFTER;
use ringmain::identity::{Algorithm, JwtConfig, KeySource};
use ringmain::protocol::AllowList;
use ringmain::server::{Allowed, Config, Proxies};
use value::Raw;

/// The options of the program.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Address to listen on. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// Address for the operator. Default: none.
    pub admin: Option<SocketAddr>,
    /// File with the [`AdminToken`](ringmain::server::AdminToken) required to publish there. Default: none required.
    pub admin_token_file: Option<String>,
    /// See [`Proxies::trusted`].
    pub trusted_proxies: Vec<String>,
    /// Certificate file, read by [`Tls`](ringmain::server::Tls). Default: none, and no TLS.
    pub tls_cert: Option<String>,
    /// Its private key. Default: none.
    pub tls_key: Option<String>,
    /// See [`Allowed::hosts`].
    pub allow_host: Vec<String>,
    /// See [`Allowed::origins`].
    pub allow_origin: Vec<String>,
    /// See [`Allowed::cors`].
    pub cors_origin: Vec<String>,
    /// See [`Allowed::cors_headers`].
    pub cors_header: Vec<String>,
    /// File of bearer tokens, read by [`Tokens`](ringmain::identity::Tokens). Default: none, and clients need no token.
    pub tokens_file: Option<String>,
    /// Key set of [`Jwt`](ringmain::identity::Jwt), by URL or file. Default: none, and no signed tokens.
    pub jwks: Option<String>,
    /// See [`JwtConfig::issuer`](ringmain::identity::JwtConfig::issuer).
    pub issuer: Option<String>,
    /// See [`JwtConfig::audiences`](ringmain::identity::JwtConfig::audiences).
    pub audiences: Vec<String>,
    /// See [`JwtConfig::algorithms`](ringmain::identity::JwtConfig::algorithms). Empty: all of them.
    pub algorithms: Vec<String>,
    /// See [`JwtConfig::leeway`](ringmain::identity::JwtConfig::leeway).
    pub jwt_leeway: Duration,
    /// See [`JwtConfig::remembered`](ringmain::identity::JwtConfig::remembered).
    pub jwt_remembered: usize,
    /// See [`JwtConfig::refresh`](ringmain::identity::JwtConfig::refresh).
    pub jwks_refresh: Duration,
    /// See [`JwtConfig::fetch_interval`](ringmain::identity::JwtConfig::fetch_interval).
    pub jwks_fetch_interval: Duration,
    /// See [`JwtConfig::max_stale`](ringmain::identity::JwtConfig::max_stale).
    pub jwks_max_stale: Duration,
    /// URL of the endpoint as clients see it. Default: none.
    pub resource: Option<String>,
    /// Issuers of tokens for it. Default: none.
    pub authorization_servers: Vec<String>,
    /// Scopes that every token needs. Default: none.
    pub scopes: Vec<String>,
    /// Scopes that the metadata names. Empty: those of `scopes`.
    pub scopes_supported: Vec<String>,
    /// Filter of the log. Default `ringmain=info,rmcp=error`.
    pub log: String,
    /// Format of the log. Default: text.
    pub log_format: LogFormat,
    /// See [`Rmcp::rest_after`](ringmain::adapter::Rmcp::rest_after).
    pub rest_after: Option<Duration>,
    /// Options of the server itself.
    pub server: Config,
}

impl Default for Options {
    fn default() -> Self {
        // The defaults do not depend on the arguments.
        let jwt = JwtConfig::new("", "", KeySource::from(""));
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            admin: None,
            admin_token_file: None,
            trusted_proxies: Vec::new(),
            tls_cert: None,
            tls_key: None,
            allow_host: Vec::new(),
            allow_origin: Vec::new(),
            cors_origin: Vec::new(),
            cors_header: Vec::new(),
            tokens_file: None,
            jwks: None,
            issuer: None,
            audiences: Vec::new(),
            algorithms: Vec::new(),
            jwt_leeway: jwt.leeway,
            jwt_remembered: jwt.remembered,
            jwks_refresh: jwt.refresh,
            jwks_fetch_interval: jwt.fetch_interval,
            jwks_max_stale: jwt.max_stale,
            resource: None,
            authorization_servers: Vec::new(),
            scopes: Vec::new(),
            scopes_supported: Vec::new(),
            log: "ringmain=info,rmcp=error".to_owned(),
            log_format: LogFormat::Text,
            rest_after: Some(REST_AFTER),
            server: Config::default(),
        }
    }
}

/// Format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines of text. The default.
    #[default]
    Text,
    /// Lines of JSON.
    Json,
}

/// The inputs that options are read from.
#[derive(Clone, Debug)]
pub struct Sources<'a> {
    /// Name of the file, and its text.
    pub file: Option<(&'a str, &'a str)>,
    /// Names and values. Names that do not begin with `RINGMAIN_` are ignored, and so are empty values.
    pub environment: &'a [(String, String)],
    /// Names of keys and the values of their flags, one entry for each occurrence of a flag.
    pub flags: &'a [(&'static str, String)],
    /// Memory of the machine in bytes. No limit may be larger. Default: unlimited.
    pub memory: u64,
}

impl Default for Sources<'_> {
    fn default() -> Self {
        Self { file: None, environment: &[], flags: &[], memory: u64::MAX }
    }
}

/// Options, and the origin of each.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The options.
    pub options: Options,
    /// One for each key, in the order of [`KEYS`].
    origins: Vec<Origin>,
    /// Variables that begin with `RINGMAIN_` and are no option.
    pub unknown_variables: Vec<String>,
}

/// The origin of one option's value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Default,
    File { name: String, line: usize },
    Variable(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// All errors of a configuration: one line each, which names the file and line, the variable or the flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Problems {}

/// Reads options from all sources, and checks them.
///
/// # Errors
///
/// All errors, not only the first.
pub fn load(sources: &Sources<'_>) -> Result<Loaded, Problems> {
    let mut loading = Loading {
        loaded: Loaded {
            options: Options::default(),
            origins: vec![Origin::Default; KEYS.len()],
            unknown_variables: Vec::new(),
        },
        problems: Vec::new(),
        memory: sources.memory,
    };
    if let Some((name, text)) = sources.file {
        loading.take_file(name, text);
    }
    loading.take_environment(sources.environment);
    loading.take_flags(sources.flags);
    loading.check();
    if loading.problems.is_empty() { Ok(loading.loaded) } else { Err(Problems(loading.problems)) }
}

struct Loading {
    loaded: Loaded,
    problems: Vec<String>,
    memory: u64,
}

impl Loading {
    fn take_file(&mut self, name: &str, text: &str) {
        let file::Read { faults, entries } = file::read(text);
        let mut told: Vec<_> = faults
            .into_iter()
            .map(|file::Fault { line, message }| (line, format!("{name}:{line}: {message}")))
            .collect();
        for file::Entry { key, line, raw } in entries {
            let origin = Origin::File { name: name.to_owned(), line };
            if let Err(problem) = self.take(key, &raw, origin) {
                told.push((line, problem));
            }
        }
        told.sort_by_key(|(line, _)| *line);
        self.problems.extend(told.into_iter().map(|(_, problem)| problem));
    }

    fn note(&mut self, taken: Result<(), String>) {
        self.problems.extend(taken.err());
    }

    fn take_environment(&mut self, environment: &[(String, String)]) {
        for (name, value) in environment {
            if !name.starts_with("RINGMAIN_") || value.is_empty() {
                continue;
            }
            match KEYS.iter().find(|key| key.variable() == *name) {
                Some(key) => {
                    let taken = self.take(key, &Raw::Word(value.clone()), Origin::Variable(name.clone()));
                    self.note(taken);
                }
                None => self.loaded.unknown_variables.push(name.clone()),
            }
        }
    }

    fn take_flags(&mut self, flags: &[(&'static str, String)]) {
        for key in KEYS {
            let values: Vec<&String> =
                flags.iter().filter(|(name, _)| *name == key.name).map(|(_, value)| value).collect();
            let raw = match (key.kind, values.as_slice()) {
                (_, []) => continue,
                (Kind::List, values) => {
                    let parts = values.iter().flat_map(|value| value.split(','));
                    Raw::List(
                        parts.map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect(),
                    )
                }
                (_, [.., last]) => Raw::Word((*last).clone()),
            };
            let taken = self.take(key, &raw, Origin::Flag(key.flag()));
            self.note(taken);
        }
    }

    /// Checks one value and stores it in its option.
    fn take(&mut self, key: &'static Key, raw: &Raw, origin: Origin) -> Result<(), String> {
        let value = key.kind.parse(raw, self.memory).map_err(|message| blame(key.name, &origin, &message))?;
        (key.write)(&mut self.loaded.options, value);
        let index = KEYS.iter().position(|other| other.name == key.name);
        self.loaded.origins[index.unwrap_or_default()] = origin;
        Ok(())
    }

    /// Checks what concerns more than one option, and builds what the server takes.
    fn check(&mut self) {
        let Options { allow_host, allow_origin, cors_origin, cors_header, log, server, .. } =
            &self.loaded.options;
        let mut blamed = Vec::new();
        if let Err(error) = EnvFilter::builder().parse(log) {
            blamed.push(("log", format!("\"{log}\" is not a valid filter: {error}")));
        }
        let mut patterns = |name: &'static str, given: &[String], default: AllowList| match given {
            [] => default,
            given => AllowList::parse(given).unwrap_or_else(|error| {
                blamed.push((name, error.to_string()));
                AllowList::nothing()
            }),
        };
        let defaults = Allowed::default();
        let allowed = Allowed {
            hosts: patterns("allow_host", allow_host, defaults.hosts),
            origins: patterns("allow_origin", allow_origin, defaults.origins),
            cors: patterns("cors_origin", cors_origin, defaults.cors),
            cors_headers: cors_header.iter().filter_map(|name| name.parse().ok()).collect(),
        };
        if let Some(name) = cors_header.iter().find(|name| name.parse::<HeaderName>().is_err()) {
            blamed.push(("cors_header", format!("\"{name}\" is not a valid header name")));
        }
        if server.stalled_after < server.keep_alive {
            blamed.push((
                "stalled_after",
                "must be at least keep_alive, the interval at which it is checked".to_owned(),
            ));
        }
        if server.sessions.delivered_ttl_ms > server.sessions.response_ttl_ms {
            blamed.push(("delivered_ttl", "must not exceed response_ttl".to_owned()));
        }
        if self.loaded.options.tls_cert.is_some() != self.loaded.options.tls_key.is_some() {
            blamed.push(("tls_cert", "must be set together with tls_key".to_owned()));
        }
        if self.loaded.options.admin_token_file.is_some() && self.loaded.options.admin.is_none() {
            blamed.push(("admin_token_file", "requires admin".to_owned()));
        }
        let mut trusted = Vec::new();
        for text in &self.loaded.options.trusted_proxies {
            match Proxies::network(text) {
                Ok(network) => trusted.push(network),
                Err(_) => blamed.push((
                    "trusted_proxies",
                    format!("\"{text}\" is not a network; write 10.0.0.0/8, 2001:db8::/32 or an address"),
                )),
            }
        }
        if self.loaded.options.server.proxies.protocol && self.loaded.options.trusted_proxies.is_empty() {
            blamed.push(("proxy_protocol", "requires trusted_proxies: the proxies that send it".to_owned()));
        }
        let server = &self.loaded.options.server;
        // The endpoint is served with and without a slash at the end.
        let bare = |path: &str| path.strip_suffix('/').unwrap_or(path).to_owned();
        if server.health_path.as_deref().is_some_and(|path| bare(path) == bare(&server.path)) {
            blamed.push(("health_path", "must differ from path, the path of the endpoint".to_owned()));
        }
        let Options { tokens_file, jwks, issuer, audiences, algorithms, .. } = &self.loaded.options;
        if jwks.is_some() != (issuer.is_some() && !audiences.is_empty()) {
            blamed.push(("jwks", "must be set together with issuer and audiences".to_owned()));
        }
        if jwks.is_some() && tokens_file.is_some() {
            blamed.push(("jwks", "cannot be combined with tokens_file: set one of them".to_owned()));
        }
        if let Some(unknown) = algorithms.iter().find(|name| name.parse::<Algorithm>().is_err()) {
            let names = Algorithm::ALL.map(Algorithm::as_str).join(", ");
            blamed.push(("algorithms", format!("\"{unknown}\" is not one of {names}")));
        }
        if self.loaded.options.resource.is_some() == self.loaded.options.authorization_servers.is_empty() {
            blamed.push(("resource", "must be set together with authorization_servers".to_owned()));
        }
        if !self.loaded.options.scopes_supported.is_empty() && self.loaded.options.resource.is_none() {
            blamed.push(("scopes_supported", "requires resource, whose metadata lists them".to_owned()));
        }
        for (name, message) in blamed {
            self.problems.push(blame(name, self.loaded.origin(name), &message));
        }
        self.loaded.options.server.allowed = allowed;
        self.loaded.options.server.proxies.trusted = trusted;
    }
}

/// The message about the value of option `name`, with its origin in front.
fn blame(name: &str, origin: &Origin, message: &str) -> String {
    match origin {
        Origin::Variable(_) | Origin::Flag(_) => format!("{origin}: {message}"),
        Origin::File { .. } => format!("{origin}: {name}: {message}"),
        Origin::Default => format!("{name}: {message}"),
    }
}

impl Loaded {
    fn origin(&self, name: &str) -> &Origin {
        let index = KEYS.iter().position(|key| key.name == name);
        &self.origins[index.expect("only names of keys are asked for")]
    }

    /// Writes all options as a file with the same meaning, and the origin of each beside it.
    #[must_use]
    pub fn show(&self) -> String {
        let mut out = String::new();
        let mut heading = "";
        for (key, origin) in KEYS.iter().zip(&self.origins) {
            if key.heading != heading {
                heading = key.heading;
                out.push_str(&format!("\n# {heading}\n"));
            }
            let line = format!("{} = {}", key.name, key.show(&self.options));
            out.push_str(&format!("{line:<48} # {origin}\n"));
        }
        out.trim_start().to_owned()
    }

    /// Copies the values of the `wanted` keys from `other`. The rest still differs, and the next reload names it again.
    pub fn adopt(&mut self, other: Self, wanted: impl Fn(&Key) -> bool) {
        for (index, (key, origin)) in KEYS.iter().zip(other.origins).enumerate() {
            if wanted(key) {
                (key.write)(&mut self.options, (key.read)(&other.options));
                self.origins[index] = origin;
            }
        }
        self.options.server.allowed = other.options.server.allowed;
    }

    /// The keys whose values differ.
    #[must_use]
    pub fn changes(&self, other: &Self) -> Vec<&'static Key> {
        let differs = |key: &&'static Key| (key.read)(&self.options) != (key.read)(&other.options);
        KEYS.iter().filter(differs).collect()
    }
}

#[cfg(test)]
mod tests;
