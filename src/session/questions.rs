//! What a session asks its client.

use core::future::Future;

use serde_json::value::RawValue;

use super::open::STANDALONE;
use super::state::Session;
use crate::protocol::{Outcome, RequestId};
use crate::request::{Ask, AskError, PublishError, RequestStream};
use crate::sync::lock;

impl Session {
    /// Asks the client something, on the stream of `request`, or on the standalone stream. The future resolves
    /// with the client's result. `write` appends the request, given its ID.
    ///
    /// # Errors
    ///
    /// The future: the client answered with an error, or the request or the session ended first.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the question; a late answer to it is ignored.
    pub(crate) fn ask(
        &self,
        request: Option<&RequestStream>,
        write: impl FnOnce(&mut Vec<u8>, &RequestId),
    ) -> impl Future<Output = Result<Box<RawValue>, AskError>> + Send + 'static {
        let stream = request.map_or(STANDALONE, RequestStream::number);
        let (id, answered) = {
            let mut open = lock(&self.open);
            open.extras().asks.forget_abandoned();
            let id = open.next_question();
            let (ask, answered) = Ask::new(id, stream);
            // Otherwise its stream refuses the question, and that it is dropped here, where nobody waits for it yet, is
            // the news of that.
            if !self.is_closed() && !request.is_some_and(RequestStream::is_finished) {
                open.extras().asks.insert(ask);
            }
            (RequestId::from(id), answered)
        };
        let published = match request {
            Some(request) if request.is_response_only() => Err(PublishError::NotAccepted),
            Some(request) => self.publish_on(request, |out| write(out, &id)),
            None => self.publish(|out| write(out, &id)),
        };
        let unasked = match published {
            Err(PublishError::TooLarge { .. }) => Some(AskError::TooLarge),
            Err(PublishError::NotAccepted) => Some(AskError::NotAccepted),
            Ok(_) | Err(PublishError::Closed | PublishError::Unserialisable) => None,
        };
        if unasked.is_some()
            && let RequestId::Number(id) = id
        {
            drop(self.take_ask(id));
        }
        async move {
            match answered.await {
                Ok(answer) => answer,
                Err(_) => Err(unasked.unwrap_or(AskError::Closed)),
            }
        }
    }

    /// Hands the client's answer to whoever asked. False if nobody waits for an answer with this ID.
    pub(crate) fn answer(&self, id: &RequestId, outcome: Outcome<'_>) -> bool {
        let RequestId::Number(id) = *id else { return false };
        let Some(ask) = self.take_ask(id) else { return false };
        ask.answer(outcome)
    }

    fn take_ask(&self, id: i64) -> Option<Ask> {
        lock(&self.open).extras.as_mut()?.asks.take(id)
    }

    /// Takes an ID for a question to the client that somebody else keeps count of.
    #[cfg(feature = "rmcp")]
    pub(crate) fn next_question(&self) -> i64 {
        lock(&self.open).next_question()
    }
}
