//! One log for many subscribers, each of which sees every event.
//!
//! A [`Topic`] keeps the latest events that were published to it. Each [`Subscription`] reads them at its own pace,
//! from the position it starts at: what was published before it started and what comes later are the same read. The
//! topic knows nothing of its subscribers, so publishing costs the same however many there are, plus one wake for
//! each that waits. Sessions read the messages that go to all of them from a topic. Nothing here needs a session, or
//! MCP.
//!
//! # Lag and closing
//!
//! A subscription that falls behind the oldest retained event is told once how many it missed
//! ([`Received::Lagged`]), and goes on at the oldest. After the last event of a closed topic it ends. Publishing never
//! waits for a subscriber.
//!
//! # Progress
//!
//! Publishing is lock-free, reading wait-free but for the look-up of a chunk.
//!
//! # Memory use
//!
//! A topic retains what its [`Limits`] allow, and is empty until the first publish. A subscription is 40 bytes, and 56
//! for its node, by which it waits. The node of one that left stays in the list of waiters until the next publish, or
//! until more have left than are there: then all who wait are woken once, and wait again.
//!
//! # Examples
//!
//! ```
//! use ringmain::topic::{Clock, Limits, Received, Topic};
//!
//! let topic = Topic::new(Limits::default(), Clock::default());
//! topic.publish(|out| out.extend_from_slice(b"first"))?;
//! let mut news = topic.subscribe();
//! let mut everything = topic.subscribe_after(0);
//! topic.publish(|out| out.extend_from_slice(b"second"))?;
//!
//! let mut read = |subscription: &mut ringmain::topic::Subscription| match subscription.try_next() {
//!     Some(Some(Received::Event(event))) => String::from_utf8_lossy(event.data()).into_owned(),
//!     other => panic!("{other:?}"),
//! };
//! assert_eq!(read(&mut news), "second");
//! assert_eq!(read(&mut everything), "first");
//! assert_eq!(read(&mut everything), "second");
//! # Ok::<(), ringmain::topic::TopicError>(())
//! ```

mod subscription;

pub(crate) use subscription::Watch;
pub use subscription::{Event, Received, Subscription};

pub use crate::ring::{Limits, Position};
pub use crate::stream::{Clock, Moment};

use core::fmt;

use crate::ring::{Closed, Cursor, Entry, Ring};
use crate::sse::Frame;
use crate::sync::{Arc, AtomicUsize, Ordering};
use crate::wake::Waiters;

/// A log that many subscribers read, each of them every event. See the module documentation.
#[derive(Debug)]
pub struct Topic {
    ring: Ring<Frame>,
    waiters: Waiters,
    limits: Limits,
    clock: Clock,
    /// How many may wait.
    watches: AtomicUsize,
    /// How many left while their node stood in the list of waiters, since it was last cleared for that reason.
    departed: AtomicUsize,
}

/// Why an event was not published to a topic.
///
/// # Examples
///
/// ```
/// use ringmain::topic::{Clock, Limits, Topic, TopicError};
///
/// let topic = Topic::new(Limits::default(), Clock::default());
/// topic.close();
/// assert_eq!(topic.publish(|out| out.extend_from_slice(b"late")), Err(TopicError::Closed));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicError {
    /// The topic was closed.
    Closed,
    /// The event alone is larger than all that the topic may retain.
    TooLarge {
        /// Size of the event in bytes.
        bytes: usize,
        /// What the topic may retain, in bytes.
        limit: u64,
    },
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the topic is closed"),
            Self::TooLarge { bytes, limit } => {
                write!(
                    f,
                    "an event of {bytes} bytes is larger than the {limit} bytes that its topic may retain"
                )
            }
        }
    }
}

impl std::error::Error for TopicError {}

impl<T> From<Closed<T>> for TopicError {
    fn from(_: Closed<T>) -> Self {
        Self::Closed
    }
}

impl Topic {
    /// Makes an empty topic that retains what `limits` allow; ages are counted by `clock`.
    #[must_use]
    pub fn new(limits: Limits, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            ring: Ring::new(),
            waiters: Waiters::new(),
            limits,
            clock,
            watches: AtomicUsize::new(0),
            departed: AtomicUsize::new(0),
        })
    }

    /// Publishes an event and returns its position: 1 for the first, and one more for each. `write` appends the data;
    /// line breaks in it become spaces. Never waits.
    ///
    /// # Errors
    ///
    /// The topic was closed, or the event is larger than all that the topic may retain.
    pub fn publish(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<Position, TopicError> {
        self.publish_frame(Frame::shared(write))
    }

    /// Publishes an event that was serialised before. The frame may be published to other topics as well: it is kept
    /// in memory once. Of a whole frame ([`Frame::whole`]), which has an ID of its own, the data is copied into a
    /// shared one.
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish).
    pub(crate) fn publish_frame(&self, mut frame: Frame) -> Result<Position, TopicError> {
        if frame.is_whole() {
            frame = Frame::shared(|out| out.extend_from_slice(frame.data()));
        }
        let (bytes, limit) = (frame.weight(), self.limits.max_weight);
        if bytes as u64 > limit {
            return Err(TopicError::TooLarge { bytes, limit });
        }
        let position = self.ring.publish(frame, self.clock.now().stamp(), &self.limits)?;
        self.waiters.wake();
        Ok(position)
    }

    /// Closes the topic: subscriptions end after its last event. False if it was closed before.
    pub fn close(&self) -> bool {
        let closed = self.ring.close(self.clock.now().stamp(), &self.limits);
        self.waiters.wake();
        closed
    }

    /// Subscribes to the events that are published from now on.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>) -> Subscription {
        Subscription::new(self.clone(), self.tail())
    }

    /// Subscribes to the events after the one at `position`; 0 is before the first. What of them was evicted is
    /// reported as missed. A position that was not published yet is waited for.
    #[must_use]
    pub fn subscribe_after(self: &Arc<Self>, position: Position) -> Subscription {
        Subscription::new(self.clone(), position.saturating_add(1))
    }

    /// The next position to be published. Another thread may publish it between this call and the next.
    #[must_use]
    pub fn tail(&self) -> Position {
        self.ring.tail()
    }

    /// The lowest position still retained. Another thread may evict it between this call and the next.
    #[must_use]
    pub fn oldest(&self) -> Position {
        self.ring.oldest()
    }

    /// Size of what is retained, in bytes.
    #[must_use]
    pub fn retained_bytes(&self) -> u64 {
        self.ring.weight()
    }

    /// Evicts the events that are older than the limit. Publishing does so by itself whenever the log grows by a chunk;
    /// call this now and then for a topic that may be quiet. Returns how many events were evicted.
    pub fn evict_older(&self) -> u64 {
        self.ring.evict_older(self.clock.now().stamp(), &self.limits)
    }

    /// Evicts the oldest events until no more than `max_bytes` are retained. Returns how many bytes were evicted.
    pub fn trim(&self, max_bytes: u64) -> u64 {
        self.ring.trim(max_bytes, self.clock.now().stamp(), &self.limits)
    }

    /// A cursor that reads the event at `position` first.
    pub(crate) fn cursor_at(position: Position) -> Cursor<Frame> {
        Cursor::at(position)
    }

    pub(crate) fn ring(&self) -> &Ring<Frame> {
        &self.ring
    }

    /// Notes that somebody may wait from now on.
    fn join(&self) {
        // Relaxed: a number that orders nothing. Likewise below.
        self.watches.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that somebody left, and whether their node stands in the list of waiters.
    ///
    /// Nodes cannot be taken out of the middle of the list. Waking everybody clears it; those who still wait come
    /// back. It is done when more have left than are there, so that it costs one wake for each that leaves. Who is
    /// woken and has much to look at compares the tail first.
    fn leave(&self, is_queued: bool) {
        let watches = self.watches.fetch_sub(1, Ordering::Relaxed) - 1;
        if is_queued && self.departed.fetch_add(1, Ordering::Relaxed) + 1 > watches {
            self.departed.store(0, Ordering::Relaxed);
            self.waiters.wake();
        }
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests;
