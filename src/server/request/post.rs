//! POST: takes one message or a batch, and answers it.

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body::Body;

use super::answer::{Answered, empty, refuse};
use super::caller::{Caller, session};
use super::deliver::{answer_whole, deliver};
use super::read::read;
use super::run::{self, Asked};
use super::{batch, initialize};
use crate::handler::{self, Context, Handler, Incoming, Notification};
use crate::protocol::headers::{self, Forms};
use crate::protocol::{self, Refusal, RequestId};
use crate::server::config::Accept;
use crate::server::endpoint::Endpoint;
use crate::session::Connection;
use crate::sync::Arc;

/// Answers a POST to the endpoint.
pub(super) async fn answer<H, B>(
    endpoint: &Arc<Endpoint<H>>,
    request: &mut Request<B>,
    caller: Caller,
) -> Answered<H>
where
    H: Handler,
    B: Body<Data = Bytes> + Unpin,
{
    let (forms, body) = match check_head(endpoint, request.headers()) {
        Ok(forms) => (forms, read(endpoint, request.body_mut()).await),
        Err(refusal) => (Forms::Both, Err(refusal)),
    };
    let headers = request.headers();
    let (id, answered) = match body.and_then(read_message) {
        // Boxed, because few clients send it.
        Ok(Content::Batch(body)) => {
            (None, Box::pin(batch::answer(endpoint, headers, caller, body, forms)).await)
        }
        Ok(Content::Message(message)) => match message {
            Incoming::Request { request, id, progress_token, wants } => {
                let asked = Asked { request, id: id.clone(), progress_token, forms };
                let answered = match wants {
                    // Boxed: it arrives once a session, and would make the future of every request larger.
                    Some(version) => {
                        Box::pin(initialize::answer(endpoint, headers, caller, asked, version)).await
                    }
                    None => match call(endpoint, headers, caller, asked) {
                        // Boxed, because few clients ask for it.
                        Ok(connection) if forms == Forms::Json => {
                            Box::pin(answer_whole(connection, &id)).await
                        }
                        Ok(connection) => Ok(deliver(endpoint, connection, forms).await),
                        Err(refusal) => Err(refusal),
                    },
                };
                (Some(id), answered)
            }
            Incoming::Notification { notification, cancels } => {
                (None, notify(endpoint, headers, caller, notification, cancels))
            }
            Incoming::Response(response) => (None, respond(endpoint, headers, caller, response)),
        },
        Err(refusal) => (None, Err(refusal)),
    };
    answered.unwrap_or_else(|refusal| {
        tracing::debug!(kind = refusal.kind(), "refused a message");
        refuse(&refusal, id.as_ref())
    })
}

/// The content of a body.
enum Content {
    Message(Incoming),
    Batch(Bytes),
}

fn read_message(body: Bytes) -> Result<Content, Refusal> {
    if protocol::is_batch(&body) {
        Ok(Content::Batch(body))
    } else {
        Incoming::parse(body).map(Content::Message)
    }
}

/// Checks the head, and returns the forms of an answer that the client accepts.
fn check_head<H: Handler>(endpoint: &Endpoint<H>, headers: &HeaderMap) -> Result<Forms, Refusal> {
    headers::check_transfer_encoding(headers)?;
    let declared = headers::content_length(headers)?;
    headers::check_content_type(headers)?;
    headers::check_content_encoding(headers)?;
    let forms = match endpoint.config.accept {
        Accept::Lenient => headers::accepted_forms(headers)?,
        Accept::Strict => headers::check_accept_post(headers).map(|()| Forms::Both)?,
    };
    let limit = endpoint.config.max_body_bytes;
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(Refusal::BodyTooLarge { limit });
    }
    Ok(forms)
}

/// Begins the answer to a request other than `initialize`.
fn call<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    headers: &HeaderMap,
    caller: Caller,
    asked: Asked,
) -> Result<Connection, Refusal> {
    let session = session(endpoint, headers, caller)?;
    let version = session.version().ok_or(Refusal::NotInitialized)?;
    let request = session.open_request(asked.id, asked.progress_token, version)?;
    if asked.forms == Forms::Json {
        request.want_response_only();
    }
    let connection = session.connect_request(request.clone());
    run::run(endpoint, asked.request, Context::new(session, request));
    Ok(connection)
}

/// Passes a notification on.
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
//# If the server accepts the input, the server MUST return HTTP status code 202 Accepted with no body.
fn notify<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    headers: &HeaderMap,
    caller: Caller,
    notification: Notification,
    cancels: Option<RequestId>,
) -> Result<Answered<H>, Refusal> {
    let session = session(endpoint, headers, caller)?;
    run::notify(endpoint, session, notification, cancels);
    Ok(empty(StatusCode::ACCEPTED))
}

/// Passes on the response to a request of the server.
fn respond<H: Handler>(
    endpoint: &Endpoint<H>,
    headers: &HeaderMap,
    caller: Caller,
    response: handler::Response,
) -> Result<Answered<H>, Refusal> {
    let session = session(endpoint, headers, caller)?;
    run::respond(endpoint, &session, response);
    Ok(empty(StatusCode::ACCEPTED))
}
