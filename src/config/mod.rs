//! What an operator chooses: from flags, the environment and one TOML file to the rooms' own options.
//!
//! Only the binary uses it. Every option is a [`Key`] of one table: the same name is a key of the file
//! (`max_body_bytes`), a flag (`--max-body-bytes`) and a variable of the environment (`RINGMAIN_MAX_BODY_BYTES`).
//! Flags win over the environment, the environment over the file, the file over the defaults.
//!
//! [`load`] looks at everything before it answers, so that one attempt shows every mistake there is. What it reads
//! it is given: it opens no file and asks nothing of the environment.
//!
//! # Examples
//!
//! ```
//! use ringmain::config::{Sources, load};
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

use tracing_subscriber::EnvFilter;

use crate::adapter::REST_AFTER;
use crate::identity::{Algorithm, JwtConfig, KeySource};
use crate::protocol::AllowList;
use crate::server::{Allowed, Config};
use value::Raw;

/// What was chosen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Where to listen. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// Where to listen for the operator. Default: nowhere.
    pub admin: Option<SocketAddr>,
    /// A certificate, as [`Tls`](crate::server::Tls) reads it. Default: none, and no TLS.
    pub tls_cert: Option<String>,
    /// Its key. Default: none.
    pub tls_key: Option<String>,
    /// See [`Allowed::hosts`].
    pub allow_host: Vec<String>,
    /// See [`Allowed::origins`].
    pub allow_origin: Vec<String>,
    /// See [`Allowed::cors`].
    pub cors_origin: Vec<String>,
    /// A file of bearer tokens, as [`Tokens`](crate::identity::Tokens) reads it. Default: none, and nobody is asked who
    /// they are.
    pub tokens_file: Option<String>,
    /// The key set of [`Jwt`](crate::identity::Jwt): a URL or a file. Default: none, and no such tokens.
    pub jwks: Option<String>,
    /// See [`JwtConfig::issuer`](crate::identity::JwtConfig::issuer).
    pub issuer: Option<String>,
    /// See [`JwtConfig::audiences`](crate::identity::JwtConfig::audiences).
    pub audiences: Vec<String>,
    /// See [`JwtConfig::algorithms`](crate::identity::JwtConfig::algorithms). None: all of them.
    pub algorithms: Vec<String>,
    /// See [`JwtConfig::leeway`](crate::identity::JwtConfig::leeway).
    pub jwt_leeway: Duration,
    /// See [`JwtConfig::remembered`](crate::identity::JwtConfig::remembered).
    pub jwt_remembered: usize,
    /// See [`JwtConfig::refresh`](crate::identity::JwtConfig::refresh).
    pub jwks_refresh: Duration,
    /// See [`JwtConfig::fetch_interval`](crate::identity::JwtConfig::fetch_interval).
    pub jwks_fetch_interval: Duration,
    /// See [`JwtConfig::max_stale`](crate::identity::JwtConfig::max_stale).
    pub jwks_max_stale: Duration,
    /// The URL of the endpoint as clients see it. Default: none.
    pub resource: Option<String>,
    /// Who gives out tokens for it. Default: nobody.
    pub authorization_servers: Vec<String>,
    /// Scopes that every token needs. Default: none.
    pub scopes: Vec<String>,
    /// What is logged. Default `ringmain=info,rmcp=error`.
    pub log: String,
    /// How it is written. Default: as text.
    pub log_format: LogFormat,
    /// How long the loop of an rmcp service goes on with nothing to do. See
    /// [`Rmcp::rest_after`](crate::adapter::Rmcp::rest_after).
    pub rest_after: Option<Duration>,
    /// The server's part.
    pub server: Config,
}

impl Default for Options {
    fn default() -> Self {
        // Its defaults are the same for everybody.
        let jwt = JwtConfig::new("", "", KeySource::from(""));
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            admin: None,
            tls_cert: None,
            tls_key: None,
            allow_host: Vec::new(),
            allow_origin: Vec::new(),
            cors_origin: Vec::new(),
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
            log: "ringmain=info,rmcp=error".to_owned(),
            log_format: LogFormat::Text,
            rest_after: Some(REST_AFTER),
            server: Config::default(),
        }
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people. The default.
    #[default]
    Text,
    /// Lines of JSON.
    Json,
}

/// Where options come from.
#[derive(Clone, Debug)]
pub struct Sources<'a> {
    /// The file's name, and what stands in it.
    pub file: Option<(&'a str, &'a str)>,
    /// Names and values; those that do not begin with `RINGMAIN_` are not looked at. An empty value counts as none.
    pub environment: &'a [(String, String)],
    /// Names of keys, with the values of their flags. One for each time a flag stands there.
    pub flags: &'a [(&'static str, String)],
    /// Bytes that the machine has: no limit may be larger. Default: no bound.
    pub memory: u64,
}

impl Default for Sources<'_> {
    fn default() -> Self {
        Self { file: None, environment: &[], flags: &[], memory: u64::MAX }
    }
}

/// Options, and where each of them comes from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What was chosen.
    pub options: Options,
    /// In the order of [`KEYS`].
    origins: Vec<Origin>,
    /// Names of variables that begin as ours do and are none.
    pub unknown_variables: Vec<String>,
}

/// Where the value of one option comes from.
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

/// Everything that is wrong with what was given: one line each, with the file and the line, the variable or the
/// flag it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Problems {}

/// Puts options together.
///
/// # Errors
///
/// Everything that is wrong, all at once.
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

    /// Puts one value in its place; the error is the problem with it.
    fn take(&mut self, key: &'static Key, raw: &Raw, origin: Origin) -> Result<(), String> {
        let value = key.kind.parse(raw, self.memory).map_err(|message| blame(key.name, &origin, &message))?;
        (key.write)(&mut self.loaded.options, value);
        let index = KEYS.iter().position(|other| other.name == key.name);
        self.loaded.origins[index.unwrap_or_default()] = origin;
        Ok(())
    }

    /// What no value by itself can tell.
    fn check(&mut self) {
        let Options { allow_host, allow_origin, cors_origin, log, server, .. } = &self.loaded.options;
        let mut blamed = Vec::new();
        if let Err(error) = EnvFilter::builder().parse(log) {
            blamed.push(("log", format!("\"{log}\" is no filter: {error}")));
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
        };
        if server.stalled_after < server.keep_alive {
            blamed.push((
                "stalled_after",
                "is shorter than keep_alive, which is how often it is looked at".to_owned(),
            ));
        }
        if server.sessions.delivered_ttl_ms > server.sessions.response_ttl_ms {
            blamed.push(("delivered_ttl", "is longer than response_ttl".to_owned()));
        }
        if self.loaded.options.tls_cert.is_some() != self.loaded.options.tls_key.is_some() {
            blamed.push(("tls_cert", "belongs with tls_key: give both or neither".to_owned()));
        }
        let Options { tokens_file, jwks, issuer, audiences, algorithms, .. } = &self.loaded.options;
        if jwks.is_some() != (issuer.is_some() && !audiences.is_empty()) {
            blamed.push(("jwks", "belongs with issuer and audiences: give all three or none".to_owned()));
        }
        if jwks.is_some() && tokens_file.is_some() {
            blamed.push(("jwks", "and tokens_file are two ways to the same: give one of them".to_owned()));
        }
        if let Some(unknown) = algorithms.iter().find(|name| name.parse::<Algorithm>().is_err()) {
            let names = Algorithm::ALL.map(Algorithm::as_str).join(", ");
            blamed.push(("algorithms", format!("\"{unknown}\" is none of {names}")));
        }
        if self.loaded.options.resource.is_some() == self.loaded.options.authorization_servers.is_empty() {
            blamed.push(("resource", "belongs with authorization_servers: give both or neither".to_owned()));
        }
        for (name, message) in blamed {
            self.problems.push(blame(name, self.loaded.origin(name), &message));
        }
        self.loaded.options.server.allowed = allowed;
    }
}

/// A problem with what `name` was set to, wherever that was.
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

    /// Every option as it is in effect, as a file that says the same; beside each, where it comes from.
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

    /// Takes over from `other` what `wanted` says: so that what is not in effect yet is named again next time.
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
