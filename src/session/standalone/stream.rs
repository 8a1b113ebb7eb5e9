//! The stream itself: the session's own log, and how far the topic was delivered.

use super::lines::LockLines;
use super::positions::Positions;
use crate::ring::{Closed, Limits, Position};
use crate::sse::Frame;
use crate::stream::{Lease, Moment, Stream};

/// The standalone stream of one session.
#[derive(Debug)]
pub struct Standalone {
    pub(super) stream: Stream,
    /// Which connection may take events of the topic, and how far they were delivered.
    pub(super) broadcasts: Lease,
}

impl Standalone {
    /// Makes the stream of a session to which the events for all sessions from `first_broadcast` on belong. Owns no
    /// memory of its own yet.
    #[must_use]
    pub fn new(first_broadcast: Position) -> Self {
        Self { stream: Stream::new(), broadcasts: Lease::behind(first_broadcast - 1) }
    }

    /// The session's own events.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// How far events were delivered.
    #[must_use]
    pub fn delivered(&self) -> Positions {
        Positions {
            own: self.stream.lease().terms().delivered(),
            broadcast: self.broadcasts.terms().delivered(),
        }
    }

    /// Wakes the connections, so that they look where they stand, and publishers that wait for space. Not under the lock
    /// of the lines.
    pub fn wake(&self) {
        self.stream.waiters().wake();
    }

    /// The same, from a destructor.
    pub(in crate::session) fn wake_in_drop(&self) {
        self.stream.waiters().wake_in_drop();
    }

    /// Asks all connected clients to go and come back: their connections end after what is published by then. False
    /// if nobody is connected.
    pub fn hang_up(&self, lines: &impl LockLines) -> bool {
        let asked = lines.with_lines(|lines| {
            lines.connections.iter_mut().for_each(|line| line.hung_up = true);
            self.stream.lease().hang_up()
        });
        self.wake();
        asked
    }

    /// Appends an event of the session's own. See [`Stream::publish`].
    ///
    /// # Errors
    ///
    /// The session ended.
    pub fn publish(&self, frame: Frame, now: Moment, limits: &Limits) -> Result<Position, Closed<Frame>> {
        self.stream.publish(frame, now, limits)
    }
}
