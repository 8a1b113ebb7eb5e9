//! Questions to the client that wait for their answers.
//!
//! A question is a request of the server's. It goes out on the stream of the client's request that it belongs to, and
//! its answer comes back in a message of its own. So somebody who outlives the connection keeps the questions that are
//! open: a session. A request without one cannot ask ([`AskError::NoSession`]).

use core::fmt;

use futures_channel::oneshot;
use serde_json::value::RawValue;

use crate::protocol::Outcome;

/// Why a question to the client has no result.
///
/// # Examples
///
/// ```
/// use ringmain::handler::{AskError, Context, RpcError};
/// use serde_json::json;
///
/// async fn roots(context: Context) {
///     match context.ask("roots/list", &json!({})).await {
///         Ok(roots) => context.respond(&roots),
///         Err(AskError::Refused(error)) => context.fail(&RpcError::internal(error.get())),
///         Err(error) => context.fail(&RpcError::internal(error.to_string())),
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum AskError {
    /// The client answered with an error: its `code`, `message` and `data`.
    Refused(Box<RawValue>),
    /// The request or the session that the question belongs to ended first.
    Closed,
    /// The client accepts JSON alone as the answer to the request, which leaves no way to ask it anything.
    NotAccepted,
    /// The request has no session, through which an answer could come back.
    NoSession,
    /// The question is larger than its stream may retain: see
    /// [`PublishError::TooLarge`](super::PublishError::TooLarge).
    TooLarge,
    /// The parameters of the question cannot be serialised, and it was not asked.
    Unserialisable(serde_json::Error),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "the client answered with an error: {error}"),
            Self::Closed => f.write_str("the client is gone"),
            Self::NotAccepted => f.write_str("the client accepts only the response, and cannot be asked"),
            Self::NoSession => f.write_str("the request has no session, and the client cannot be asked"),
            Self::TooLarge => f.write_str("the question is larger than its stream may retain"),
            Self::Unserialisable(_) => f.write_str("the parameters of the question cannot be serialised"),
        }
    }
}

impl std::error::Error for AskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unserialisable(error) => Some(error),
            _ => None,
        }
    }
}

/// What a question comes to.
type Answered = Result<Box<RawValue>, AskError>;

/// A question to the client that waits for its answer. Dropped, it tells whoever asked that there will be none, and
/// wakes them: it is dropped under no lock.
#[derive(Debug)]
pub(crate) struct Ask {
    id: i64,
    /// Number of the stream it was asked on.
    stream: u32,
    answer: oneshot::Sender<Answered>,
}

impl Ask {
    /// Makes a question, and where its answer comes out.
    pub(crate) fn new(id: i64, stream: u32) -> (Self, oneshot::Receiver<Answered>) {
        let (answer, answered) = oneshot::channel();
        (Self { id, stream, answer }, answered)
    }

    /// Hands the client's answer to whoever asked. False if nobody waits for it any more.
    pub(crate) fn answer(self, outcome: Outcome<'_>) -> bool {
        let answer = match outcome {
            Outcome::Result(result) => Ok(result.to_owned()),
            Outcome::Error(error) => Err(AskError::Refused(error.to_owned())),
        };
        self.answer.send(answer).is_ok()
    }
}

/// The questions that are open.
#[derive(Debug, Default)]
pub(crate) struct Asks(Vec<Ask>);

impl Asks {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn insert(&mut self, ask: Ask) {
        self.0.push(ask);
    }

    /// Forgets those that nobody waits for any more.
    pub(crate) fn forget_abandoned(&mut self) {
        self.0.retain(|ask| !ask.answer.is_canceled());
    }

    /// Takes out the one with this ID.
    pub(crate) fn take(&mut self, id: i64) -> Option<Ask> {
        let index = self.0.iter().position(|ask| ask.id == id)?;
        Some(self.0.swap_remove(index))
    }

    /// Takes out those that were asked on a stream.
    pub(crate) fn take_of(&mut self, stream: u32) -> Vec<Ask> {
        self.0.extract_if(.., |ask| ask.stream == stream).collect()
    }
}
