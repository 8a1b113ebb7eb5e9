//! A batch: several messages in one POST, which `2025-03-26` allows.
//!
//! Messages are processed in the order of the array, and requests run concurrently. What they publish goes on
//! one stream, which ends when each of them has its response. If all of it is there at once and nothing else was
//! published, or the client accepts JSON alone, the responses go out as an array.
//!
//! A faulty message does not affect the others: it has an error among the responses, as JSON-RPC requires.

use std::future::poll_fn;
use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::answer::{Answered, empty, json};
use super::caller::{self, Caller};
use super::deliver::stream;
use super::run::{notify, respond, run};
use crate::handler::{Context, Handler, Incoming};
use crate::protocol::headers::{self, Forms};
use crate::protocol::{self, REQUEST_CANCELLED, Refusal};
use crate::server::config::Answer;
use crate::server::endpoint::Endpoint;
use crate::session::{Holder, Session};
use crate::sync::Arc;

/// Answers a POST whose body is an array.
//= https://modelcontextprotocol.io/specification/2025-03-26/basic/transports#sending-messages-to-the-server
//# The body of the POST request MUST be one of the following: [...] An array batching one or more requests and/or
//# notifications; An array batching one or more responses
pub(super) async fn answer<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    headers: &HeaderMap,
    caller: Caller,
    body: Bytes,
    forms: Forms,
) -> Result<Answered<H>, Refusal> {
    if headers::session_id(headers)?.is_none() {
        return Err(without_session(&body));
    }
    let (address, holder) = (caller.address, caller.holder.clone());
    let session = caller::session(endpoint, headers, caller)?;
    let version = session.version().ok_or(Refusal::NotInitialized)?;
    if !version.has_batches() {
        return Err(Refusal::Batch);
    }
    let messages = Incoming::parse_batch(&body)?;
    if !messages.iter().any(is_request) {
        return Ok(without_requests(endpoint, &session, messages));
    }
    let batch = session.open_batch(version)?;
    if forms == Forms::Json {
        batch.carrier().want_response_only();
    }
    let mut connection = session.connect_request(batch.carrier().clone());
    let mut responses = 0;
    let mut is_counted = true;
    for message in messages {
        let (id, refusal) = match message {
            Ok(Incoming::Request { request, id, progress_token, wants: None }) => {
                // The first one was counted with the POST.
                let counted = match std::mem::replace(&mut is_counted, false) {
                    true => Ok(()),
                    false => count(endpoint, address, &holder),
                };
                match counted.and_then(|()| session.open_in_batch(&batch, id.clone(), progress_token)) {
                    Ok(stream) => {
                        responses += 1;
                        run(endpoint, request, Context::new(session.clone(), stream));
                        continue;
                    }
                    Err(refusal) => (Some(id), refusal),
                }
            }
            other => match take(endpoint, &session, other) {
                Some(refused) => refused,
                None => continue,
            },
        };
        responses += 1;
        // If the session ended meanwhile, the stream did.
        let _ = session.respond_in_batch(&batch, |out| out.extend(refusal.body(id.as_ref())));
    }
    session.leave_batch(&batch);
    if forms == Forms::Json {
        let mut responses = Vec::new();
        poll_fn(|context| connection.poll_responses(context, &mut responses)).await;
        return match responses.is_empty() {
            false => Ok(json(array(&responses))),
            true if session.is_closed() => Err(Refusal::UnknownSession),
            true => {
                let mut body = Vec::new();
                let message = "the requests were cancelled";
                protocol::write_error(&mut body, None, REQUEST_CANCELLED, message, None);
                Ok(json(body))
            }
        };
    }
    if endpoint.config.answer == Answer::Auto
        && forms == Forms::Both
        && let Some(responses) = connection.take_responses(responses)
    {
        return Ok(json(array(&responses)));
    }
    Ok(stream(endpoint, connection).await)
}

/// Counts one more request for the rate of its principal.
fn count<H>(endpoint: &Endpoint<H>, address: IpAddr, holder: &Holder) -> Result<(), Refusal> {
    endpoint.rates.check_address(address)?;
    endpoint.rates.check_principal(holder)
}

/// Why a batch without a session is refused.
//= https://modelcontextprotocol.io/specification/2025-03-26/basic/lifecycle#initialization
//# The initialize request MUST NOT be part of a JSON-RPC batch, as other requests and notifications are not possible
//# until initialization has completed.
fn without_session(body: &Bytes) -> Refusal {
    let initializes = |message: &_| matches!(message, Ok(Incoming::Request { wants: Some(_), .. }));
    match Incoming::parse_batch(body) {
        Ok(messages) if messages.iter().any(initializes) => Refusal::InitializeInBatch,
        Ok(_) => Refusal::MissingSession,
        Err(refusal) => refusal,
    }
}

/// Whether the message is a request that a batch may contain.
fn is_request(message: &Result<Incoming, Refusal>) -> bool {
    matches!(message, Ok(Incoming::Request { wants: None, .. }))
}

/// Processes any other message of a batch. Returns its fault, if it has one, and its ID.
fn take<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    session: &Arc<Session>,
    message: Result<Incoming, Refusal>,
) -> Option<(Option<protocol::RequestId>, Refusal)> {
    match message {
        Ok(Incoming::Request { id, .. }) => return Some((Some(id), Refusal::InitializeInBatch)),
        Ok(Incoming::Notification { notification, cancels }) => {
            notify(endpoint, session.clone(), notification, cancels);
        }
        Ok(Incoming::Response(response)) => {
            respond(endpoint, session, response);
        }
        Err(refusal) => return Some((None, refusal)),
    }
    None
}

/// Answers a batch in which no request waits for a response: with an empty answer, or with the faults.
//= https://modelcontextprotocol.io/specification/2025-03-26/basic/transports#sending-messages-to-the-server
//# If the input consists solely of (any number of) JSON-RPC responses or notifications: If the server accepts the
//# input, the server MUST return HTTP status code 202 Accepted with no body.
fn without_requests<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    session: &Arc<Session>,
    messages: Vec<Result<Incoming, Refusal>>,
) -> Answered<H> {
    let faults: Vec<_> = messages
        .into_iter()
        .filter_map(|message| take(endpoint, session, message))
        .map(|(id, refusal)| Bytes::from(refusal.body(id.as_ref())))
        .collect();
    if faults.is_empty() {
        return empty(StatusCode::ACCEPTED);
    }
    let mut answer = json(array(&faults));
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    answer
}

/// An array of messages.
fn array(messages: &[Bytes]) -> Vec<u8> {
    [b"[", &messages.join(&b","[..])[..], b"]"].concat()
}
