//! Chooses the form of an answer: JSON if the response is ready at once and alone, otherwise a stream.

use std::future::poll_fn;

use super::answer::{self, Answered, json};
use crate::handler::Handler;
use crate::protocol::headers::Forms;
use crate::protocol::{self, REQUEST_CANCELLED, Refusal, RequestId};
use crate::server::config::Answer;
use crate::server::endpoint::Endpoint;
use crate::session::Connection;
use crate::sync::Arc;

/// Times that other tasks run before an answer becomes a stream that stays open.
const TURNS: usize = 2;

/// Answers as JSON or as a stream, whichever fits what was published by now.
///
/// A handler that works in tasks of its own, as rmcp's services do, gets the turns that these tasks need. A stream that
/// is finished by then is sent whole, and its socket does not go to the writer and back.
pub(super) async fn deliver<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    mut connection: Connection,
    forms: Forms,
) -> Answered<H> {
    if endpoint.config.answer == Answer::Auto
        && forms == Forms::Both
        && let Some(whole) = connection.take_answer()
    {
        return json(whole);
    }
    stream(endpoint, connection).await
}

/// Answers as a stream. A stream that finishes within [`TURNS`] is sent whole.
pub(super) async fn stream<H: Handler>(endpoint: &Arc<Endpoint<H>>, connection: Connection) -> Answered<H> {
    for _ in 0..TURNS {
        if connection.is_finished() {
            break;
        }
        tokio::task::yield_now().await;
    }
    answer::stream(endpoint, connection)
}

/// Answers a client that accepts only JSON, once the response is ready.
pub(super) async fn answer_whole<H>(
    mut connection: Connection,
    id: &RequestId,
) -> Result<Answered<H>, Refusal> {
    let mut responses = Vec::new();
    poll_fn(|context| connection.poll_responses(context, &mut responses)).await;
    match responses.pop() {
        Some(response) => Ok(json(response)),
        None if connection.session().is_closed() => Err(Refusal::UnknownSession),
        //= https://modelcontextprotocol.io/specification/2025-11-25/basic/utilities/cancellation#behavior-requirements
        //# Receivers of cancellation notifications SHOULD: [...] Not send a response for the cancelled request
        // A departure: an HTTP request must be answered, and here there is no stream that could end without a response.
        None => {
            let mut body = Vec::new();
            protocol::write_error(&mut body, Some(id), REQUEST_CANCELLED, "the request was cancelled", None);
            Ok(json(body))
        }
    }
}
