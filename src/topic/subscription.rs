//! One reader of a topic.

use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_core::Stream;

use super::Topic;
use crate::ring::{Cursor, Position, Step};
use crate::sse::{EventHead, Frame, Series};
use crate::sync::Arc;
use crate::wake::{Bell, Waiter};

/// A place among those who wait for a topic, given back when it is dropped.
pub(crate) struct Watch {
    topic: Arc<Topic>,
    waiter: Waiter,
}

impl Watch {
    pub(crate) fn new(topic: Arc<Topic>) -> Self {
        Self::of(topic, Waiter::new())
    }

    /// A place for somebody who is told by `bell`, with `key`.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the edge's reactors use it"))]
    pub(crate) fn ringing(topic: Arc<Topic>, bell: Arc<dyn Bell>, key: u32) -> Self {
        Self::of(topic, Waiter::ringing(bell, key))
    }

    fn of(topic: Arc<Topic>, waiter: Waiter) -> Self {
        topic.join();
        Self { topic, waiter }
    }

    /// The topic.
    pub(crate) fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// Leaves `waker` to be woken by the next publish. Look again after this call: what was published before it may
    /// have woken nobody.
    pub(crate) fn register(&mut self, waker: &Waker) {
        self.topic.waiters.register(&mut self.waiter, waker);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.topic.leave(self.waiter.is_queued());
    }
}

/// What a subscription is given next.
#[derive(Debug)]
pub enum Received {
    /// An event.
    Event(Event),
    /// The subscription fell behind, and goes on at the oldest event that is retained.
    Lagged {
        /// How many events it missed.
        missed: u64,
    },
}

/// One event of a topic.
///
/// # Examples
///
/// ```
/// use ringmain::topic::{Clock, Event, Limits, Received, Topic};
///
/// # let topic = Topic::new(Limits::default(), Clock::default());
/// # let mut subscription = topic.subscribe();
/// topic.publish(|out| out.extend_from_slice(b"news"))?;
/// let Some(Some(Received::Event(event))) = subscription.try_next() else { panic!("an event is there") };
/// assert_eq!(event.to_sse(), "id: 0000000000000001\nevent: message\ndata: news\n\n");
/// assert_eq!(Event::position_of("0000000000000001"), Some(event.position()));
/// # Ok::<(), ringmain::topic::TopicError>(())
/// ```
#[derive(Clone)]
pub struct Event {
    position: Position,
    frame: Frame,
}

impl Event {
    /// Its position in the topic.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Its data.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.frame.data()
    }

    /// The event as server-sent events have it, with its position as the ID: 16 hexadecimal digits. A client that
    /// reconnects sends it as `Last-Event-ID`; [`Event::position_of`] reads it.
    #[must_use]
    pub fn to_sse(&self) -> Bytes {
        let mut head = EventHead::of(Series::Topic);
        [head.at(self.position), self.frame.as_bytes()].concat().into()
    }

    /// The position that an ID written by [`to_sse`](Self::to_sse) stands for; `None` if it is none.
    #[must_use]
    pub fn position_of(id: &str) -> Option<Position> {
        let is_canonical = id.len() == 16 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_canonical.then(|| Position::from_str_radix(id, 16).ok()).flatten()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("position", &self.position).finish_non_exhaustive()
    }
}

/// A reader of a topic, with a position of its own. It keeps the topic in memory, and leaves nothing behind when it is
/// dropped.
///
/// It is a [`futures_core::Stream`] as well, of [`Received`].
///
/// # Examples
///
/// ```
/// use ringmain::topic::{Clock, Limits, Received, Topic};
///
/// let topic = Topic::new(Limits { max_age_ms: 60_000, ..Limits::default() }, Clock::default());
/// let mut subscription = topic.subscribe();
/// topic.publish(|out| out.extend_from_slice(b"first"))?;
/// topic.close();
///
/// let Some(Some(Received::Event(event))) = subscription.try_next() else { panic!("an event is there") };
/// assert_eq!((event.position(), event.data()), (1, b"first".as_slice()));
/// assert!(matches!(subscription.try_next(), Some(None)), "the topic is closed");
/// # Ok::<(), ringmain::topic::TopicError>(())
/// ```
pub struct Subscription {
    watch: Watch,
    cursor: Cursor<Frame>,
}

impl Subscription {
    pub(super) fn new(topic: Arc<Topic>, next: Position) -> Self {
        Self { watch: Watch::new(topic), cursor: Cursor::at(next) }
    }

    /// The position of the latest event it was given; before the first, the position it started behind.
    #[must_use]
    pub fn position(&self) -> Position {
        self.cursor.position() - 1
    }

    /// What there is now: `None` if nothing is, `Some(None)` if the topic is closed and was read to its end.
    pub fn try_next(&mut self) -> Option<Option<Received>> {
        let received = match self.cursor.next(&self.watch.topic.ring) {
            Step::Item(frame) => {
                let frame = Frame::clone(&frame);
                Received::Event(Event { position: self.cursor.position() - 1, frame })
            }
            Step::Lagged { missed } => Received::Lagged { missed },
            Step::Empty => return None,
            Step::Ended => return Some(None),
        };
        Some(Some(received))
    }

    /// Polls for the next event, or for how many were missed; `None` is the end of the topic.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Received>> {
        if let Some(received) = self.try_next() {
            return Poll::Ready(received);
        }
        self.watch.register(context.waker());
        // Once more: what was published before the registration woke nobody.
        self.try_next().map_or(Poll::Pending, Poll::Ready)
    }

    /// Waits for the next event, or for how many were missed. `None` is the end of the topic.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped: the position moves only when an event is returned.
    #[allow(clippy::should_implement_trait, reason = "it is asynchronous, as in every stream")]
    pub fn next(&mut self) -> impl Future<Output = Option<Received>> + Send + '_ {
        poll_fn(|context| self.poll_next(context))
    }
}

impl Stream for Subscription {
    type Item = Received;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received>> {
        Self::poll_next(self.get_mut(), context)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("position", &self.position()).finish_non_exhaustive()
    }
}
