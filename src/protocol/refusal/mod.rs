//! Every reason for which a request is refused, and the answer each one gets.
//!
//! A refusal is an HTTP status with a JSON-RPC error as its body. All of them stand in one table, in `table.rs`: the
//! enum, its answers, the counters of the metrics and the table in `docs/operations.md` follow from it. The statuses
//! keep four meanings apart: `404` is gone for good, `503` is later, `429` is slow down, and the other `4xx` say that
//! the request is wrong.
//!
//! No message holds a session id, a header value or a part of a body, so that all of them may be logged.
//!
//! Whether the connection closes is not part of a refusal: HTTP/1.1 closes it behind every answer whose request body
//! was not read to its end, whatever the answer says.

mod code;
#[macro_use]
mod declare;
mod fault;
mod table;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;

use http::HeaderName;
use http::header::{ACCEPT_ENCODING, ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};

use super::request_id::RequestId;
use super::write::write_error;
use code::Code;
pub(crate) use code::{INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, REQUEST_CANCELLED};
pub use fault::EnvelopeFault;
pub use table::Refusal;

/// A header that the answer to a refusal carries besides those that every answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    /// `Retry-After`, in seconds.
    RetryAfter(u32),
    /// `Allow`: the methods of the endpoint.
    Allow,
    /// `Accept-Encoding`: a body is taken without any coding.
    AcceptEncoding,
    /// `WWW-Authenticate`: which token is needed. The identity layer writes it, as it knows what was wrong.
    Challenge,
}

impl Refusal {
    /// The value of the `Allow` header that a [`MethodNotAllowed`](Self::MethodNotAllowed) answer carries.
    pub const ALLOW: &'static str = "GET, POST, DELETE, OPTIONS";

    /// Returns the JSON-RPC error code of the answer.
    pub const fn code(&self) -> i32 {
        self.error().number()
    }

    /// Returns the name of the header that the answer carries besides those that every answer has.
    pub const fn header_name(&self) -> Option<HeaderName> {
        match self.header() {
            Some(Header::RetryAfter(_)) => Some(RETRY_AFTER),
            Some(Header::Allow) => Some(ALLOW),
            Some(Header::AcceptEncoding) => Some(ACCEPT_ENCODING),
            Some(Header::Challenge) => Some(WWW_AUTHENTICATE),
            None => None,
        }
    }

    /// Returns the value of the `Retry-After` header, in seconds, where waiting helps.
    pub const fn retry_after(&self) -> Option<u32> {
        match self.header() {
            Some(Header::RetryAfter(seconds)) => Some(seconds),
            _ => None,
        }
    }

    /// Returns the value of the `Allow` header, for the one refusal that needs it.
    pub const fn allow(&self) -> Option<&'static str> {
        match self.header() {
            Some(Header::Allow) => Some(Self::ALLOW),
            _ => None,
        }
    }

    /// Returns the value of the `Accept-Encoding` header, for the one refusal that needs it.
    pub const fn accept_encoding(&self) -> Option<&'static str> {
        match self.header() {
            Some(Header::AcceptEncoding) => Some("identity"),
            _ => None,
        }
    }

    //= https://modelcontextprotocol.io/specification/2025-11-25/basic#error-responses
    //# Error responses MUST include the same ID as the request they correspond to (except in error cases
    //# where the ID could not be read due a malformed request).
    /// Returns the body of the answer: a JSON-RPC error on a single line.
    ///
    /// Without an id the key is left out, as MCP's schema asks; plain JSON-RPC would write `null`.
    pub fn body(&self, id: Option<&RequestId>) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        write_error(&mut out, id, self.code(), &self.message(), None);
        out
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl Error for Refusal {}
