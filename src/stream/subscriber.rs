//! One connection's side of a stream.

use core::fmt;
use core::task::{Context, Poll};

use super::lease::{Generation, Terms};
use super::{LagPolicy, Stream};
use crate::ring::{Batch, Cursor, Position, Step};
use crate::sse::Frame;
use crate::sync::Arc;
use crate::wake::{Bell, Waiter};

/// What a connection does next.
#[derive(Debug)]
pub enum Delivery {
    /// Write these.
    Frames(Batch<Frame>),
    /// Tell the client that it missed so many events.
    Lagged {
        /// How many.
        missed: u64,
        /// The position it goes on at.
        oldest: Position,
        /// Whether the connection ends here, by [`LagPolicy::End`].
        ends: bool,
    },
    /// End: a later connection took the stream over.
    Superseded,
    /// End, and the client shall come back.
    HungUp,
    /// End: the stream is finished and everything was delivered.
    Ended,
}

/// A cursor with the lease of its stream.
///
/// Methods take the stream they were attached to. Whoever owns the subscriber calls [`detach`](Self::detach)
/// when its connection ends, for whatever reason.
pub struct Subscriber {
    cursor: Cursor<Frame>,
    waiter: Waiter,
    generation: Generation,
    policy: LagPolicy,
    /// It took something.
    begun: bool,
    /// The last look saw the end of what is published.
    drained: bool,
}

/// A batch has no more frames and bytes than this, so that one client's backlog is handed to the socket in pieces
/// that others can run between. Large enough that a resume rarely needs a second batch.
pub(crate) const MAX_FRAMES: usize = 256;
pub(crate) const MAX_BYTES: usize = 256 << 10;

impl Subscriber {
    pub(super) fn new(terms: Terms, policy: LagPolicy) -> Self {
        let (cursor, waiter) = (Cursor::at(terms.delivered() + 1), Waiter::new());
        Self { cursor, waiter, generation: terms.generation(), policy, begun: false, drained: false }
    }

    /// From now on `bell` rings with `key` when there may be something, whoever polls.
    pub fn ring(&mut self, bell: Arc<dyn Bell>, key: u32) {
        self.waiter = Waiter::ringing(bell, key);
    }

    /// Number of this connection of the stream.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The position of the latest event this connection took; before the first, the position it started behind.
    #[must_use]
    pub fn position(&self) -> Position {
        self.cursor.position() - 1
    }

    /// Whether a later connection took the stream over.
    #[must_use]
    pub fn is_superseded(&self, stream: &Stream) -> bool {
        stream.lease.terms().generation() != self.generation
    }

    /// Reads what the next poll will look at; see [`Cursor::warm`].
    #[inline]
    pub fn warm(&self, stream: &Stream) -> bool {
        stream.terms().is_attached() ^ self.cursor.warm() ^ self.waiter.warm()
    }

    /// What there is to do now, if there is anything.
    pub fn try_next(&mut self, stream: &Stream) -> Option<Delivery> {
        let terms = stream.lease.terms();
        if terms.generation() != self.generation {
            return Some(Delivery::Superseded);
        }
        match self.cursor.take(&stream.ring, MAX_FRAMES, MAX_BYTES) {
            Step::Item(frames) if self.claim(stream, self.cursor.position() - 1) => {
                self.begun = true;
                self.drained = frames.is_newest();
                Some(Delivery::Frames(frames))
            }
            Step::Item(_) => Some(Delivery::Superseded),
            Step::Ended => Some(Delivery::Ended),
            Step::Empty if terms.is_hung_up() => Some(Delivery::HungUp),
            Step::Empty => None,
            Step::Lagged { missed } => {
                let oldest = self.cursor.position();
                // A gap right at the start of a connection is told even where lag ends connections: otherwise
                // each reconnect would meet it again.
                let ends = self.policy == LagPolicy::End && self.begun;
                if ends {
                    return Some(Delivery::Lagged { missed, oldest, ends });
                }
                if !self.claim(stream, oldest - 1) {
                    return Some(Delivery::Superseded);
                }
                self.begun = true;
                Some(Delivery::Lagged { missed, oldest, ends })
            }
        }
    }

    /// Takes everything up to `delivered` for this connection; false if it was superseded.
    fn claim(&self, stream: &Stream, delivered: Position) -> bool {
        let claimed = stream.lease.claim(self.generation, delivered);
        if claimed && self.policy == LagPolicy::Wait {
            // Publishers may be waiting for this space.
            stream.waiters.wake();
        }
        claimed
    }

    /// What there is to do, or `Pending` until there may be something.
    pub fn poll_next(&mut self, stream: &Stream, context: &mut Context<'_>) -> Poll<Delivery> {
        // Behind the last frame there is hardly ever another by now.
        if !core::mem::take(&mut self.drained)
            && let Some(delivery) = self.try_next(stream)
        {
            return Poll::Ready(delivery);
        }
        stream.waiters.register(&mut self.waiter, context.waker());
        // Once more: what was published before the registration woke nobody.
        self.try_next(stream).map_or(Poll::Pending, Poll::Ready)
    }

    /// Ready when anything was ever published to the stream, or it was closed.
    pub fn poll_started(&mut self, stream: &Stream, context: &mut Context<'_>) -> Poll<()> {
        if stream.is_untouched() {
            stream.waiters.register(&mut self.waiter, context.waker());
        }
        if stream.is_untouched() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Ends this connection's hold of the stream. Nothing happens if a later connection has it.
    pub fn detach(&mut self, stream: &Stream) {
        if stream.lease.release(self.generation) {
            // Publishers that wait for space need wait no longer for a reader that is gone.
            if self.policy == LagPolicy::Wait {
                stream.waiters.wake();
            }
        }
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber")
            .field("cursor", &self.cursor)
            .field("generation", &self.generation)
            .finish()
    }
}
