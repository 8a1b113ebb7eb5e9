//! Who sends a request: the question, and ready answers to it.
//!
//! An [`Authenticator`] is asked once for every request to the endpoint, before its body is read and before a session
//! is looked for. It says who sends it, a [`Principal`], or why the request is not served, a [`Denial`]. What it says
//! holds for that one request: a session is not a proof of anything.
//!
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/security_best_practices#session-hijacking
//! > MCP servers that implement authorization MUST verify all inbound requests. MCP Servers MUST NOT use sessions for
//! > authentication.
//!
//! A session belongs to the principal that began it. To any other it does not exist: POST, GET, DELETE and resuming
//! are answered with the very 404 that an ID gets that was never given out.
//!
//! - `Tokens`: bearer tokens from a file (feature `tokens`)
//! - `Jwt`: signed tokens of an authorization server, checked against its key set (feature `auth`)
//! - [`Resource`]: where clients learn who gives out tokens for this server
//!
//! # What is not promised
//!
//! A token that expires, or is taken out of the file, ends no stream that is open: a stream is the answer to one
//! request, which was allowed when it came. Every later request is refused. An operator who wants an end sooner limits
//! the age of sessions or of connections.
//!
//! # Examples
//!
//! ```
//! use ringmain::identity::{Authenticator, Checked, Denial, Head, bearer};
//! use ringmain::session::Principal;
//!
//! /// Lets in whoever knows the word.
//! struct Word;
//!
//! impl Authenticator for Word {
//!     fn authenticate<'a>(&'a self, head: Head<'a>) -> Checked<'a> {
//!         let checked = bearer(head.headers).and_then(|token| match token {
//!             "swordfish" => Ok(Principal::new("word", "whoever-knows-it")),
//!             _ => Err(Denial::UNKNOWN),
//!         });
//!         checked.into()
//!     }
//! }
//! ```

mod bearer;
mod denial;
#[cfg(feature = "auth")]
mod jwks;
#[cfg(feature = "auth")]
mod jwt;
#[cfg(feature = "auth")]
mod keys;
mod resource;
#[cfg(feature = "tokens")]
mod tokens;

pub use bearer::bearer;
pub use denial::{Denial, Denials, Flaw};
#[cfg(feature = "auth")]
pub use jwks::KeySource;
#[cfg(feature = "auth")]
pub use jwt::{Jwt, JwtConfig, JwtError};
#[cfg(feature = "auth")]
pub use keys::{Algorithm, UnknownAlgorithm};
#[cfg(feature = "server")]
pub(crate) use resource::is_same_path;
pub use resource::{Resource, ResourceError};
#[cfg(feature = "tokens")]
pub use tokens::{Tokens, TokensError};

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use std::net::IpAddr;

use http::{HeaderMap, Method};

use crate::session::Principal;

/// Says who sends a request. See the [module documentation](self).
pub trait Authenticator: Send + Sync + 'static {
    /// Looks at the head of a request.
    ///
    /// It is asked for POST, GET and DELETE to the endpoint, after `Host` and `Origin` were found to be allowed; not
    /// for the preflight of a browser, which carries no credentials, nor for the metadata of the [`Resource`]. A
    /// panic, or an answer that does not come within
    /// [`Config::read_timeout`](crate::server::Config::read_timeout), refuses the request with 503. A request with more
    /// than one `Authorization` is refused with 400, and nobody is asked.
    ///
    /// # Cancel safety
    ///
    /// The future of [`Checked::Later`] is dropped if the client goes away.
    fn authenticate<'a>(&'a self, head: Head<'a>) -> Checked<'a>;
}

impl fmt::Debug for dyn Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticator")
    }
}

/// What is known of a request when it is asked who sends it.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path, without the query.
    pub path: &'a str,
    /// The headers, credentials among them.
    pub headers: &'a HeaderMap,
    /// Where the client is: the connection's other side, or what the operator's proxies say
    /// ([`Config::proxies`](crate::server::Config::proxies)).
    pub address: IpAddr,
}

impl<'a> Head<'a> {
    /// Puts one together.
    #[must_use]
    pub const fn new(method: &'a Method, path: &'a str, headers: &'a HeaderMap, address: IpAddr) -> Self {
        Self { method, path, headers, address }
    }
}

/// Does not show the headers.
impl fmt::Debug for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head").field("method", self.method).finish_non_exhaustive()
    }
}

/// Who sends a request, or why it is not served.
pub type Verdict = Result<Principal, Denial>;

/// The answer of an [`Authenticator`], at once or later.
pub enum Checked<'a> {
    /// It is known already. Costs no allocation.
    Now(Verdict),
    /// Somebody has to be asked first.
    Later(Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>),
}

impl<'a> Checked<'a> {
    /// Answers when `verdict` is there.
    pub fn later(verdict: impl Future<Output = Verdict> + Send + 'a) -> Self {
        Self::Later(Box::pin(verdict))
    }
}

impl From<Verdict> for Checked<'_> {
    fn from(verdict: Verdict) -> Self {
        Self::Now(verdict)
    }
}

impl fmt::Debug for Checked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(verdict) => f.debug_tuple("Now").field(verdict).finish(),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}
