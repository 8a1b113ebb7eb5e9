//! Publishing on the stream of a request, and finishing it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::environment::Environment;
use super::error::PublishError;
use super::keeper::Keeper;
use super::stream::{BatchStream, EVERYTHING, RequestStream};
use crate::protocol;
use crate::ring::{Entry, Position};
use crate::sse::Frame;

impl RequestStream {
    /// Publishes a message before the response. If the client takes nothing but the response, the message is counted
    /// and dropped, and the position that it would have had is returned.
    ///
    /// # Errors
    ///
    /// The request is finished; or the message is too large for its stream.
    pub(crate) fn publish(
        &self,
        environment: &Environment,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Position, PublishError> {
        if self.is_response_only() {
            if self.is_finished() {
                return Err(PublishError::Closed);
            }
            environment.traffic().count_not_accepted();
            return Ok(self.stream().tail());
        }
        // The stream of a batch goes on behind the response to one of its requests.
        if self.batch().is_some() && self.is_finished() {
            return Err(PublishError::Closed);
        }
        let (frame, limits) = (self.frame(write), environment.limits());
        let limits = match self.batch() {
            None => {
                environment.check_size(&frame, limits)?;
                limits
            }
            Some(batch) => {
                // The rest is for the responses.
                batch.take_room_for(&frame, limits.max_weight / 2, environment)?;
                &EVERYTHING
            }
        };
        environment.count(self.stream().publish(frame, environment.now(), limits))
    }

    /// Publishes the response, which ends the stream. If the response is too large for the stream, the client gets an
    /// error in its place, so that it does not wait for ever.
    ///
    /// # Errors
    ///
    /// The request is finished; or the response is too large for its stream, in a batch with the responses that are
    /// there.
    pub(crate) fn respond(
        &self,
        keeper: &dyn Keeper,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Position, PublishError> {
        let environment = keeper.environment();
        let (stream, limits) = (self.stream(), environment.limits());
        let mut frame = self.frame(write);
        // The stream of a batch goes on behind it: only who marks the request finished publishes its response.
        if self.batch().is_some() && !self.mark_finished() {
            return Err(PublishError::Closed);
        }
        let (size, message) = match self.batch() {
            None => {
                let size = environment.check_size(&frame, limits);
                (size, "the response is larger than this server retains")
            }
            Some(batch) => {
                let size = batch.take_room_for(&frame, limits.max_weight, environment);
                (size, "the responses to this batch are larger together than this server retains")
            }
        };
        if size.is_err() {
            // Also where there is no space: each request has its response, and such errors are small.
            frame = self.frame(|out| {
                protocol::write_error(out, Some(self.id()), protocol::INTERNAL_ERROR, message, None);
            });
        }
        if self.initializes()
            && let Some(version) = protocol::negotiated_version(frame.data())
        {
            keeper.agree(version);
        }
        let published = if self.batch().is_none() {
            let publish = || stream.publish_last(frame, environment.now(), limits);
            and_always(publish, || self.finish(keeper))
        } else {
            let publish = || stream.publish(frame, environment.now(), &EVERYTHING);
            and_always(publish, || self.settle(keeper))
        };
        let published = environment.count(published);
        size?;
        published
    }

    /// Notes that nothing more comes on its stream, unless somebody did.
    pub(super) fn finish(&self, keeper: &dyn Keeper) {
        if self.mark_finished() {
            self.settle(keeper);
        }
    }

    /// Does what is to be done by the one who marked it finished.
    fn settle(&self, keeper: &dyn Keeper) {
        let asks = keeper.settle(self);
        if let Some(batch) = self.batch() {
            batch.leave(keeper);
        }
        // Last: it wakes who asked.
        drop(asks);
    }
}

impl BatchStream {
    /// Publishes a response to something that is no request to be answered otherwise.
    ///
    /// # Errors
    ///
    /// The stream has ended; or the response is too large for it.
    pub(crate) fn respond(
        &self,
        environment: &Environment,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Position, PublishError> {
        let carrier = self.carrier();
        let frame = carrier.frame(write);
        environment.check_size(&frame, environment.limits())?;
        // It counts, and is published in any case, as there is nothing in its place.
        self.take_room(frame.weight() as u64, u64::MAX);
        environment.count(carrier.stream().publish(frame, environment.now(), &EVERYTHING))
    }

    /// Notes that one thing fewer is to come on its stream, which ends behind the last.
    pub(crate) fn leave(&self, keeper: &dyn Keeper) {
        if self.leave_one() {
            let carrier = self.carrier();
            let close = || carrier.stream().close(keeper.environment().now(), &EVERYTHING);
            and_always(close, || carrier.finish(keeper));
        }
    }

    /// Refuses a frame that is larger than its stream may retain, with what is there.
    fn take_room_for(
        &self,
        frame: &Frame,
        limit: u64,
        environment: &Environment,
    ) -> Result<(), PublishError> {
        let bytes = frame.weight();
        if self.take_room(bytes as u64, limit) { Ok(()) } else { Err(environment.too_large(bytes, limit)) }
    }
}

/// Does `first`, which wakes others, and then `second`, even if a waker of theirs panics.
pub(super) fn and_always<T>(first: impl FnOnce() -> T, second: impl FnOnce()) -> T {
    let result = catch_unwind(AssertUnwindSafe(first));
    second();
    result.unwrap_or_else(|panic| resume_unwind(panic))
}
