//! What the requests of one server share.

use super::error::PublishError;
use super::traffic::Traffic;
use crate::ring::{Closed, Entry, Limits, Position};
use crate::sse::Frame;
use crate::stream::{Clock, Moment};

/// What the requests of one server share: limits, time and counts.
#[derive(Debug)]
pub struct Environment {
    limits: Limits,
    clock: Clock,
    traffic: Traffic,
}

impl Environment {
    /// Makes the environment of requests whose streams retain what `limits` allow, each by itself, by `clock`.
    #[must_use]
    pub fn new(limits: Limits, clock: Clock) -> Self {
        Self { limits, clock, traffic: Traffic::default() }
    }

    /// What the stream of one request retains, its response included.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The time that the requests go by.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// What was published and delivered so far.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Refuses a frame that is larger than all that its stream may retain.
    #[inline]
    pub(crate) fn check_size(&self, frame: &Frame, limits: &Limits) -> Result<(), PublishError> {
        let (bytes, limit) = (frame.weight(), limits.max_weight);
        if bytes as u64 <= limit { Ok(()) } else { Err(self.too_large(bytes, limit)) }
    }

    #[cold]
    pub(super) fn too_large(&self, bytes: usize, limit: u64) -> PublishError {
        self.traffic.count_too_large();
        PublishError::TooLarge { bytes, limit }
    }

    /// Counts an event that a stream took.
    pub(crate) fn count(&self, published: Result<Position, Closed<Frame>>) -> Result<Position, PublishError> {
        if published.is_ok() {
            self.traffic.count_published(1);
        }
        Ok(published?)
    }
}
