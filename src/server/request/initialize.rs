//! `initialize`: begins a session, if the handler accepts it.

use std::future::poll_fn;

use http::HeaderMap;

use super::answer::{self, Answered};
use super::caller::Caller;
use super::deliver::answer_whole;
use super::run::{Asked, run};
use crate::handler::{Context, Handler};
use crate::protocol::headers::{self, Forms};
use crate::protocol::{ProtocolVersion, Refusal};
use crate::server::endpoint::Endpoint;
use crate::session::{Creator, Session};
use crate::sync::Arc;

/// Answers `initialize`. The session stays if the handler answers with a result.
pub(super) async fn answer<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    headers: &HeaderMap,
    caller: Caller,
    asked: Asked,
    version: ProtocolVersion,
) -> Result<Answered<H>, Refusal> {
    headers::protocol_version(headers)?;
    if endpoint.is_draining() {
        return Err(Refusal::Draining);
    }
    if let Some(id) = headers::session_id(headers)? {
        // The server chooses the ID. A session that exists is initialised already, and no other ID is adopted.
        let exists = endpoint.sessions.find(id, caller.principal).is_ok();
        return Err(if exists { Refusal::AlreadyInitialized } else { Refusal::SessionNotAllowed });
    }
    let creator = Creator { holder: caller.holder, address: Some(caller.address) };
    let session = endpoint.sessions.admit(creator)?;
    // The session ends with this guard unless the handler accepts it: after an error, or when the client disconnects
    // before it knows the ID.
    let mut tentative = Tentative { endpoint, session: &session, keep: false };
    let id = asked.id.clone();
    let request = session.open_initialize(asked.id, asked.progress_token, version)?;
    if asked.forms == Forms::Json {
        request.want_response_only();
    }
    let mut connection = session.connect_request(request.clone());
    run(endpoint, asked.request, Context::new(session.clone(), request.clone()));
    let mut answer = if asked.forms == Forms::Json {
        answer_whole(connection, &id).await?
    } else {
        poll_fn(|context| connection.poll_started(context)).await;
        // An error must not leave a session behind, so the answer is taken whole if it is ready.
        while connection.is_finishing() {
            tokio::task::yield_now().await;
        }
        let whole = if asked.forms == Forms::Both { connection.take_answer() } else { None };
        whole.map_or_else(|| answer::stream(endpoint, connection), answer::json)
    };
    if request.is_finished() && session.version().is_none() {
        return Ok(answer);
    }
    tentative.keep = true;
    answer.headers_mut().insert(headers::MCP_SESSION_ID, session.id().to_header_value());
    Ok(answer)
}

/// Ends a session that its client does not know yet.
struct Tentative<'a, H: Handler> {
    endpoint: &'a Endpoint<H>,
    session: &'a Session,
    keep: bool,
}

impl<H: Handler> Drop for Tentative<'_, H> {
    fn drop(&mut self) {
        if !self.keep {
            self.endpoint.sessions.terminate(self.session);
        }
    }
}
