//! One ordered sequence of events to one client: a ring, those who wait for it, and the lease.
//!
//! The session room publishes here and hands connections out; the edge polls a [`Subscriber`] for what to
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
//! An untouched stream is 32 bytes. A waiting subscriber adds its waiter, 48 bytes; published frames add the
//! chunks of the ring.

mod clock;
mod lease;
mod subscriber;

pub use clock::{Clock, Moment};
pub use lease::{GENERATIONS, Generation, Terms};
pub use subscriber::{Delivery, Subscriber};

use core::task::{Context, Poll};

use crate::ring::{Closed, FIRST, Limits, Position, Ring};
use crate::sse::Frame;
use crate::sync::epoch;
use crate::wake::{Waiter, Waiters};
use lease::Lease;

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

/// See the [module documentation](self).
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

    /// Appends `frame` and wakes who waits. Never waits for a reader.
    ///
    /// # Errors
    ///
    /// [`Closed`] with the frame, if the stream was finished.
    #[inline]
    pub fn publish(&self, frame: Frame, now: Moment, limits: &Limits) -> Result<Position, Closed<Frame>> {
        let position = self.ring.publish(frame, now.stamp(), limits)?;
        self.waiters.wake();
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

    /// Bytes of the frames that are retained, as they go over the wire. Others may publish and evict meanwhile.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.ring.weight()
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
