//! Finds who sends a request, and the session that it names.

use std::net::IpAddr;

use http::HeaderMap;

use crate::handler::Handler;
use crate::protocol::{Refusal, headers};
use crate::server::endpoint::Endpoint;
use crate::session::{Holder, PrincipalId, Session};
use crate::sync::Arc;

/// The sender of a request.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The client's address, as far as trusted proxies state it.
    pub(super) address: IpAddr,
    /// The owner of the caller's sessions; `None` is anyone who knows their ID.
    pub(super) principal: Option<PrincipalId>,
    /// Keeps the principal's number in use.
    pub(super) holder: Holder,
}

/// The session that the request names. The version header is checked on the way.
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/security_best_practices#session-hijacking
//# MCP Servers MUST NOT use sessions for authentication.
pub(super) fn session<H: Handler>(
    endpoint: &Endpoint<H>,
    headers: &HeaderMap,
    caller: Caller,
) -> Result<Arc<Session>, Refusal> {
    headers::protocol_version(headers)?;
    let id = headers::session_id(headers)?.ok_or(Refusal::MissingSession)?;
    let session = endpoint.sessions.find(id, caller.principal)?;
    // The session may have ended since it was found.
    if session.hear() { Ok(session) } else { Err(Refusal::UnknownSession) }
}

/// The session that the request names, if `initialize` is complete.
pub(super) fn initialized_session<H: Handler>(
    endpoint: &Endpoint<H>,
    headers: &HeaderMap,
    caller: Caller,
) -> Result<Arc<Session>, Refusal> {
    let session = session(endpoint, headers, caller)?;
    if session.version().is_none() { Err(Refusal::NotInitialized) } else { Ok(session) }
}
