//! Why a server cannot start, or cannot use what it is given while it runs.

use core::fmt;
use std::error::Error as StdError;
use std::net::SocketAddr;

/// An error of binding, of configuration or of TLS.
///
/// The text says what failed, and names the setting, the address or the file. [`source`](StdError::source) says why,
/// where another library or the operating system reported it; the text does not repeat it. Texts are for people, and
/// may change: programs ask with the methods below. No text contains a key or a token.
///
/// # Examples
///
/// ```
/// # use ringmain::handler::{Context, Handler, Request};
/// # async fn run(handler: impl Handler) {
/// use std::error::Error;
/// use std::time::Duration;
///
/// use ringmain::server::{Config, Server};
///
/// let mut config = Config::default();
/// config.sweep = Duration::ZERO;
/// let error = Server::bind(([127, 0, 0, 1], 0).into(), handler, config).unwrap_err();
/// assert!(error.is_config() && error.source().is_none());
/// assert_eq!(error.to_string(), "sweep is less than a millisecond");
/// # }
/// # struct Nothing;
/// # impl Handler for Nothing {
/// #     async fn request(&self, _: Request, _: Context) {}
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(Nothing));
/// ```
pub struct Error {
    kind: Kind,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

#[derive(Debug)]
enum Kind {
    /// Listening on an address failed.
    Address(SocketAddr),
    /// A setting cannot work.
    Config(&'static str),
    /// There is no runtime that can serve.
    Runtime(&'static str),
    /// A certificate cannot be used. The text says what was tried, with the files.
    Tls(String),
}

impl Error {
    pub(crate) fn address(address: SocketAddr, source: impl StdError + Send + Sync + 'static) -> Self {
        Self { kind: Kind::Address(address), source: Some(Box::new(source)) }
    }

    /// The text names the setting, and says why it cannot work.
    pub(crate) fn config(fault: &'static str) -> Self {
        Self { kind: Kind::Config(fault), source: None }
    }

    /// The text says what the runtime lacks.
    pub(crate) fn runtime(fault: &'static str) -> Self {
        Self { kind: Kind::Runtime(fault), source: None }
    }

    /// `doing` follows "cannot".
    #[cfg(feature = "tls")]
    pub(crate) fn tls(doing: String, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: Kind::Tls(doing), source: Some(source.into()) }
    }

    /// Whether listening on the address failed.
    #[must_use]
    pub fn is_address(&self) -> bool {
        matches!(self.kind, Kind::Address(_))
    }

    /// Whether a setting cannot work.
    #[must_use]
    pub fn is_config(&self) -> bool {
        matches!(self.kind, Kind::Config(_))
    }

    /// Whether the call was made outside a tokio runtime, or within one that lacks time or I/O.
    #[must_use]
    pub fn is_runtime(&self) -> bool {
        matches!(self.kind, Kind::Runtime(_))
    }

    /// Whether a certificate or its key cannot be read or used.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.kind, Kind::Tls(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Address(address) => write!(f, "cannot listen on {address}"),
            Kind::Config(fault) | Kind::Runtime(fault) => f.write_str(fault),
            Kind::Tls(doing) => write!(f, "cannot {doing}"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut error = f.debug_tuple("ringmain::Error");
        error.field(&self.kind);
        if let Some(source) = &self.source {
            error.field(source);
        }
        error.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
