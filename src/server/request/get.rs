//! GET: opens the standalone stream of a session, or resumes a stream.

use http::{HeaderMap, StatusCode};

use super::answer::{Answered, empty, stream};
use super::caller::{Caller, initialized_session};
use crate::handler::Handler;
use crate::protocol::{Refusal, headers};
use crate::server::config::Accept;
use crate::server::endpoint::Endpoint;
use crate::sync::Arc;

/// Opens the standalone stream, or resumes the one that `Last-Event-ID` names.
pub(super) fn answer<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    headers: &HeaderMap,
    caller: Caller,
) -> Result<Answered<H>, Refusal> {
    match endpoint.config.accept {
        Accept::Lenient => headers::accepts_stream(headers)?,
        Accept::Strict => headers::check_accept_get(headers)?,
    }
    let session = initialized_session(endpoint, headers, caller)?;
    if endpoint.is_draining() {
        return Err(Refusal::Draining);
    }
    let connection = session.connect(headers::last_event_id(headers)?)?;
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#listening-for-messages-from-the-server
    //# The server MUST either return `Content-Type: text/event-stream` in response to this HTTP GET, or else return
    //# HTTP 405 Method Not Allowed
    // A departure: a client that has received all of a finished stream gets 204, which in server-sent events means
    // "do not reconnect". An empty stream would be resumed again and again by clients that do not count a JSON-RPC
    // error as the end, and to 405 some of them answer with a retry.
    if connection.is_exhausted() {
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    Ok(stream(endpoint, connection))
}
