//! The rules of the transport as pure functions: versions, headers, ids, messages, and what a refusal looks
//! like.
//!
//! The `server` module calls them for each request; nothing here does I/O, reads a clock or keeps state. What differs
//! between protocol versions is decided here and nowhere else. Public are the names that handlers and operators use:
//!
//! - [`ProtocolVersion`], [`RequestId`], [`SessionId`]: what stands in headers and messages
//! - [`AllowList`]: the hosts and origins that may talk to this server
//! - [`ForwardedHeader`]: the header in which proxies say who the client is
//!
//! Every reason to refuse a request stands in one table, with its answer; `docs/operations.md` shows it.

mod authority;
pub(crate) mod batch;
mod forwarded;
pub(crate) mod headers;
mod json;
pub(crate) mod message;
pub(crate) mod origin;
pub(crate) mod proxy;
pub(crate) mod refusal;
mod request_id;
mod session_id;
mod version;
pub(crate) mod write;

pub use forwarded::ForwardedHeader;
pub use origin::{AllowList, PatternError};
pub use request_id::RequestId;
pub use session_id::SessionId;
pub use version::ProtocolVersion;

pub(crate) use batch::{is_batch, split_batch};
pub(crate) use message::{
    Message, Outcome, RequestMessage, another_spelling, cancelled_request_id, negotiated_version,
    progress_token, raw_cancelled_id, raw_client_token, raw_progress_token, requested_version,
};
pub(crate) use origin::{check_host, check_origin};
pub(crate) use proxy::ProxyHeader;
pub(crate) use refusal::{
    EnvelopeFault, INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, REQUEST_CANCELLED, Refusal,
};
pub(crate) use session_id::random_tag;
pub(crate) use write::{write_error, write_notification, write_request, write_result, write_single_line};
