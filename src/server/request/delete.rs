//! DELETE: ends a session.

use http::{HeaderMap, StatusCode};

use super::answer::{Answered, empty};
use super::caller::{Caller, session};
use crate::handler::Handler;
use crate::protocol::Refusal;
use crate::server::endpoint::Endpoint;
use crate::session::End;
use crate::sync::Arc;

/// Ends the session that the request names.
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#session-management
//# Clients that no longer need a particular session (e.g., because the user is leaving the client application)
//# SHOULD send an HTTP DELETE to the MCP endpoint with the `MCP-Session-Id` header, to explicitly terminate the
//# session.
pub(super) fn answer<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    headers: &HeaderMap,
    caller: Caller,
) -> Result<Answered<H>, Refusal> {
    let session = session(endpoint, headers, caller)?;
    endpoint.sessions.end(&session, End::Deleted);
    Ok(empty(StatusCode::NO_CONTENT))
}
