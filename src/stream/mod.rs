//! One ordered sequence of events to one client: a ring, those who wait for it, and the lease.
//!
//! The session module publishes here and hands connections out; the edge polls a [`Subscriber`] for what to
//! write. A stream outlives its connections: nobody need be attached for an event to be retained.
//!
//! # Algorithm
//!
//! - *Publish*: append to the ring, then wake. Neither step waits for a reader.
//! - *Attach*: take the lease with a new generation, then wake, so that the connection that held it ends at
//!   once. The new one starts behind what was delivered, or where a resume says.
//! - *Poll*: look for frames; claim them for this generation; hand them out. If there are none: register, look
//!   once more, wait.
//! - *Detach*: give the lease back, unless a later connection holds it.
//!
//! # Lag and closing
//!
//! A subscriber that fell behind the oldest retained frame is told once how many it missed
//! ([`Delivery::Lagged`]), and goes on there; [`LagPolicy`] decides whether its connection does too. Behind the
//! last frame it gets [`Delivery::Ended`].
//!
//! # Memory use
//!
//! An untouched stream is 32 bytes. A subscriber adds itself, 40 bytes, and the node by which it waits, 56; published
//! frames add the chunks of the ring.

mod clock;
mod lease;
mod subscriber;

pub use clock::{Clock, Moment};
pub(crate) use lease::Lease;
pub use lease::{GENERATIONS, Generation, Terms};
pub use subscriber::{Delivery, Subscriber};
pub(crate) use subscriber::{MAX_BYTES, MAX_FRAMES};

use core::task::{Context, Poll};

use crate::ring::{Closed, Cursor, FIRST, Limits, Position, Ring, Step};
use crate::sse::Frame;
use crate::sync::epoch;
use crate::wake::{Waiter, Waiters};

/// What happens to a connection whose cursor fell behind the oldest retained frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LagPolicy {
    /// It is told how many events it missed, and goes on. The default.
    #[default]
    Signal,
    /// It ends, so that the client reconnects; the resumed connection is told.
    End,
    /// Publishers that ask [`Stream::poll_room`] wait for it, so that it does not happen. Publishers that do
    /// not ask make it happen all the same, and then it is told.
    Wait,
}

/// The events of one client, and who waits for them. See the module documentation.
#[derive(Debug)]
pub struct Stream {
    ring: Ring<Frame>,
    waiters: Waiters,
    lease: Lease,
}

impl Stream {
    /// Makes a stream that owns no memory of its own yet.
    #[must_use]
    pub fn new() -> Self {
        Self { ring: Ring::new(), waiters: Waiters::new(), lease: Lease::new() }
    }

    /// Appends `frame` and wakes who waits. Never waits for a reader, but may write the frame to its socket, if that
    /// takes it: the caller holds no lock of the session.
    ///
    /// # Errors
    ///
    /// [`Closed`] with the frame, if the stream was finished.
    #[inline]
    pub fn publish(&self, frame: Frame, now: Moment, limits: &Limits) -> Result<Position, Closed<Frame>> {
        let position = self.ring.publish(frame, now.stamp(), limits)?;
        self.waiters.wake_published();
        Ok(position)
    }

    /// Appends `frame` as the last one and finishes the stream, in one step.
    ///
    /// # Errors
    ///
    /// [`Closed`] with the frame, if the stream was finished.
    pub fn publish_last(
        &self,
        frame: Frame,
        now: Moment,
        limits: &Limits,
    ) -> Result<Position, Closed<Frame>> {
        let position = self.ring.publish_last(frame, now.stamp(), limits)?;
        self.waiters.wake();
        Ok(position)
    }

    /// Finishes the stream behind what is published. False if it was finished before.
    pub fn close(&self, now: Moment, limits: &Limits) -> bool {
        let closed = self.ring.close(now.stamp(), limits);
        self.waiters.wake();
        closed
    }

    /// Opens a connection: whoever was connected ends. It starts behind `after` if that is given (a resume),
    /// otherwise behind what was delivered before.
    #[must_use]
    pub fn attach(&self, after: Option<Position>, policy: LagPolicy) -> Subscriber {
        let terms = self.lease.attach(after, policy == LagPolicy::Wait);
        self.waiters.wake();
        Subscriber::new(terms, policy)
    }

    /// Asks the connected client to go and come back: its connection ends after what is published by then.
    /// False if nobody is connected.
    pub fn hang_up(&self) -> bool {
        let asked = self.lease.hang_up();
        self.waiters.wake();
        asked
    }

    /// Ready when the connected reader is less than `capacity` frames behind, or there is none that is waited
    /// for: nobody is connected, or the one that is was attached with another policy than [`LagPolicy::Wait`].
    /// Whoever bounds the wait sets the timer.
    pub fn poll_room(&self, waiter: &mut Waiter, capacity: u64, context: &mut Context<'_>) -> Poll<()> {
        if self.has_room(capacity) {
            return Poll::Ready(());
        }
        self.waiters.register(waiter, context.waker());
        if self.has_room(capacity) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn has_room(&self, capacity: u64) -> bool {
        let terms = self.lease.terms();
        !terms.is_awaited() || self.ring.tail().saturating_sub(FIRST + terms.delivered()) < capacity
    }

    /// Lets frames go that are older than the limit at `now`. The last frame of a finished stream stays.
    /// Returns how many positions were passed over.
    pub fn evict_older(&self, now: Moment, limits: &Limits) -> u64 {
        self.ring.evict_older(now.stamp(), limits)
    }

    /// Reads what the next publish will look at; see [`Ring::warm`].
    #[inline]
    pub fn warm(&self) -> bool {
        self.ring.warm()
    }

    /// How many bytes are retained.
    #[must_use]
    pub fn retained_bytes(&self) -> u64 {
        self.ring.weight()
    }

    /// What [`trim`](Self::trim) can let go, in bytes: everything retained, or, of a finished stream, what does not
    /// stand close before its last frame.
    #[must_use]
    pub fn spare_bytes(&self) -> u64 {
        self.ring.spare_weight()
    }

    /// Lets the oldest frames go until what can be let go is no more than `max_bytes`. The last frame of a
    /// finished stream stays. Returns how many bytes went.
    pub fn trim(&self, max_bytes: u64, now: Moment, limits: &Limits) -> u64 {
        self.ring.trim(max_bytes, now.stamp(), limits)
    }

    pub(crate) fn ring(&self) -> &Ring<Frame> {
        &self.ring
    }

    /// Whether the last frame is published.
    pub(crate) fn has_last(&self) -> bool {
        let last = Cursor::at(self.tail().saturating_sub(1).max(FIRST)).take(&self.ring, 1, usize::MAX);
        matches!(last, Step::Item(batch) if batch.is_last())
    }

    pub(crate) fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Who is connected, and what was delivered.
    #[must_use]
    pub fn terms(&self) -> Terms {
        self.lease.terms()
    }

    /// The next position to be published.
    #[must_use]
    pub fn tail(&self) -> Position {
        self.ring.tail()
    }

    /// The lowest position still retained.
    #[must_use]
    pub fn oldest(&self) -> Position {
        self.ring.oldest()
    }

    /// Whether nothing was published yet.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.ring.is_untouched()
    }

    /// Holds off reclamation while several streams are published to, which makes each publish cheaper.
    #[must_use]
    pub fn pin() -> epoch::Guard {
        epoch::pin()
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests;
