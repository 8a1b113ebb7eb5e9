//! One connection of a standalone stream: what it is given next.

use core::fmt;
use core::task::{Context, Poll};

use super::lines::{Line, LockLines};
use super::positions::Positions;
use super::replay::{Heard, Replay};
use super::stream::Standalone;
use crate::ring::{Cursor, Position, Step};
use crate::sse::{Frame, Log, PendingEvents, Series};
use crate::stream::{Generation, LagPolicy, MAX_BYTES, MAX_FRAMES, Stream, Terms};
use crate::sync::Arc;
use crate::topic::{Topic, Watch};
use crate::wake::{Bell, Waiter};

/// One connection of a standalone stream.
///
/// Methods take the stream they were attached to. Whoever owns the listener calls [`Standalone::detach`] when its
/// connection ends, for whatever reason; else the stream stays attached.
pub struct Listener {
    cursor: Cursor<Frame>,
    waiter: Waiter,
    aside: Option<Box<Aside>>,
    pub(super) generation: Generation,
    lineage: u32,
    pub(super) policy: LagPolicy,
    /// It took something.
    begun: bool,
    /// The last look saw the end of what is published.
    drained: bool,
    /// Somebody else watches the topic for it.
    is_rung: bool,
    /// It was given something of the session's own, and the topic was not looked at since.
    topic_first: bool,
}

/// What most listeners have nothing of.
#[derive(Default)]
struct Aside {
    watch: Option<Watch>,
    replay: Option<Replay>,
    /// Its client is to go and come back, and is given what was published up to here.
    leaves_at: Option<Positions>,
}

/// How a listener stands to its stream.
enum Standing {
    Holds(Terms),
    /// It is given nothing for the time being.
    StandsBy,
    HungUp,
    Superseded,
    Ended,
}

impl Listener {
    /// Makes the connection `generation` of a lineage, which goes on behind `own` once `replay` is done.
    pub(super) fn new(
        generation: Generation,
        lineage: u32,
        own: Position,
        replay: Option<Replay>,
        policy: LagPolicy,
    ) -> Self {
        Self {
            cursor: Cursor::at(own + 1),
            waiter: Waiter::new(),
            aside: replay.map(|replay| Box::new(Aside { replay: Some(replay), ..Aside::default() })),
            generation,
            lineage,
            policy,
            begun: false,
            drained: false,
            is_rung: false,
            topic_first: false,
        }
    }

    /// From now on `bell` rings with `key` when there may be something of the session's own, whoever polls. Whoever
    /// owns the bell watches the topic as well, for all its listeners together.
    pub fn ring(&mut self, bell: Arc<dyn Bell>, key: u32) {
        self.waiter = Waiter::ringing(bell, key);
        self.is_rung = true;
        if let Some(aside) = &mut self.aside {
            aside.watch = None;
        }
    }

    /// Number of this connection of the stream.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The lineage that it carries on.
    #[must_use]
    pub fn lineage(&self) -> u32 {
        self.lineage
    }

    /// Where the client is before anything is delivered.
    #[must_use]
    pub fn start(&self, standalone: &Standalone) -> Positions {
        let replay = self.aside.as_ref().and_then(|aside| aside.replay.as_ref());
        replay.map_or_else(
            || Positions {
                own: self.cursor.position() - 1,
                broadcast: standalone.broadcasts.terms().delivered(),
            },
            |replay| replay.at,
        )
    }

    /// Reads what the next poll will look at; see [`Cursor::warm`].
    #[inline]
    pub fn warm(&self, standalone: &Standalone) -> bool {
        standalone.stream.terms().is_attached() ^ self.cursor.warm() ^ self.waiter.warm()
    }

    /// What there is to do now, if there is anything.
    pub fn try_next(
        &mut self,
        standalone: &Standalone,
        topic: &Topic,
        lines: &impl LockLines,
    ) -> Option<Heard> {
        loop {
            let terms = match self.standing(standalone, lines) {
                Standing::Holds(terms) => Some(terms),
                Standing::StandsBy => None,
                Standing::HungUp => return Some(Heard::HungUp),
                Standing::Superseded => return Some(Heard::Superseded),
                Standing::Ended => return Some(Heard::Ended),
            };
            if let Some(heard) = self.replay(standalone, topic) {
                self.begun = true;
                return Some(heard);
            }
            let terms = terms?;
            // Otherwise another connection took over, and this one looks where it stands now.
            if let Ok(heard) = self.live(standalone, topic, terms) {
                return heard;
            }
        }
    }

    /// Gives what waits in either log to `put`, where it stands, if nothing else is to be done first and it is no more
    /// than `max_bytes`: the usual case, at a fraction of what [`try_next`](Self::try_next) costs. Returns how many
    /// events there were. After none, as after any, `try_next` tells what else there is.
    #[inline]
    pub(crate) fn put_pending(
        &mut self,
        standalone: &Standalone,
        topic: &Topic,
        tag: u32,
        max_bytes: usize,
        mut put: impl FnMut(&PendingEvents<'_>),
    ) -> usize {
        let (lease, generation, lineage) = (standalone.stream.lease(), self.generation, self.lineage);
        if self.aside.is_some() || lease.terms().generation() != generation {
            return 0;
        }
        let mut count = 0;
        if let Some(frames) = self.cursor.peek() {
            let broadcast = standalone.broadcasts.terms().delivered();
            let events = PendingEvents::new(frames, Series::Own { tag, lineage, broadcast });
            if events.wire_len() > max_bytes || !lease.claim(generation, events.end()) {
                return 0;
            }
            put(&events);
            count += events.len();
            self.cursor.pass(count);
            if self.policy == LagPolicy::Wait {
                // Publishers may be waiting for this space.
                standalone.stream.waiters().wake();
            }
        }
        let delivered = standalone.broadcasts.terms().delivered();
        let guard = Stream::pin();
        if let Some(frames) = topic.ring().peek_from(delivered + 1, &guard) {
            let own = self.cursor.position() - 1;
            let events = PendingEvents::new(frames, Series::Broadcast { tag, lineage, own });
            if events.wire_len() <= max_bytes && standalone.broadcasts.claim(generation, events.end()) {
                put(&events);
                count += events.len();
            }
        }
        if count > 0 {
            (self.begun, self.drained, self.topic_first) = (true, true, false);
        }
        count
    }

    fn standing(&mut self, standalone: &Standalone, lines: &impl LockLines) -> Standing {
        let terms = standalone.stream.lease().terms();
        if terms.generation() == self.generation {
            return Standing::Holds(terms);
        }
        lines.with_lines(|lines| {
            let Some(line) = lines.connections.iter_mut().find(|line| line.generation == self.generation)
            else {
                return Standing::Superseded;
            };
            if let Some(generation) = line.promoted.take() {
                (line.generation, self.generation) = (generation, generation);
                let terms = standalone.stream.lease().terms();
                if terms.generation() == generation {
                    // Only the holder moves what is delivered, so the cursor begins right behind it.
                    self.cursor = Cursor::at(terms.delivered() + 1);
                    self.drained = false;
                    return Standing::Holds(terms);
                }
            }
            match line {
                Line { ended: true, .. } => Standing::Ended,
                Line { hung_up: true, .. } => Standing::HungUp,
                _ => Standing::StandsBy,
            }
        })
    }

    fn replay(&mut self, standalone: &Standalone, topic: &Topic) -> Option<Heard> {
        let aside = self.aside.as_mut()?;
        let heard = aside.replay.as_mut()?.next(standalone.stream.ring(), topic.ring());
        if heard.is_none() {
            aside.replay = None;
            if aside.watch.is_none() && aside.leaves_at.is_none() {
                self.aside = None;
            }
        }
        heard
    }

    /// What the holder of the stream takes of either log.
    fn live(
        &mut self,
        standalone: &Standalone,
        topic: &Topic,
        terms: Terms,
    ) -> Result<Option<Heard>, NoLongerHolds> {
        if terms.is_hung_up() && self.has_what_it_leaves_with(standalone) {
            return Ok(Some(Heard::HungUp));
        }
        let topic_first = core::mem::take(&mut self.topic_first);
        for log in if topic_first { [Log::Broadcast, Log::Own] } else { [Log::Own, Log::Broadcast] } {
            let heard = match log {
                Log::Own => self.live_own(standalone)?,
                Log::Broadcast => self.live_broadcasts(standalone, topic)?,
            };
            if heard.is_some() {
                if terms.is_hung_up() {
                    self.leave_with_what_is_there(standalone, topic);
                }
                return Ok(heard);
            }
        }
        Ok(terms.is_hung_up().then_some(Heard::HungUp))
    }

    /// Notes how far a client is served that is to go and come back: up to what is published now. What is published
    /// later waits for its return. Without this, a stream that is written to all the time might never end.
    fn leave_with_what_is_there(&mut self, standalone: &Standalone, topic: &Topic) {
        let aside = self.aside.get_or_insert_default();
        aside.leaves_at.get_or_insert_with(|| Positions {
            own: standalone.stream.tail() - 1,
            broadcast: topic.tail() - 1,
        });
    }

    /// Whether the client was served as far as [`leave_with_what_is_there`](Self::leave_with_what_is_there) noted.
    fn has_what_it_leaves_with(&self, standalone: &Standalone) -> bool {
        let Some(end) = self.aside.as_ref().and_then(|aside| aside.leaves_at) else { return false };
        self.cursor.position() > end.own && standalone.broadcasts.terms().delivered() >= end.broadcast
    }

    fn live_own(&mut self, standalone: &Standalone) -> Result<Option<Heard>, NoLongerHolds> {
        if self.cursor.is_at_edge() || standalone.stream.is_untouched() {
            return Ok(None);
        }
        let step = self.cursor.take(standalone.stream.ring(), MAX_FRAMES, MAX_BYTES);
        let own = self.cursor.position() - 1;
        let broadcast = standalone.broadcasts.terms().delivered();
        match step {
            Step::Item(frames) => {
                self.claim(standalone, Log::Own, own)?;
                self.drained = frames.is_newest();
                self.topic_first = true;
                Ok(Some(Heard::Events { frames, log: Log::Own, other: broadcast }))
            }
            Step::Lagged { missed } => {
                self.topic_first = true;
                self.lagged(standalone, Log::Own, missed, Positions { own, broadcast }).map(Some)
            }
            Step::Ended => Ok(Some(Heard::Ended)),
            Step::Empty => Ok(None),
        }
    }

    fn live_broadcasts(
        &mut self,
        standalone: &Standalone,
        topic: &Topic,
    ) -> Result<Option<Heard>, NoLongerHolds> {
        let delivered = standalone.broadcasts.terms().delivered();
        // Reading the tail writes to no shared memory. A cursor would count itself on the chunk, in a cache line that
        // the connections of all sessions share.
        if topic.tail() <= delivered + 1 {
            return Ok(None);
        }
        let own = self.cursor.position() - 1;
        let mut cursor = Topic::cursor_at(delivered + 1);
        match cursor.take(topic.ring(), MAX_FRAMES, MAX_BYTES) {
            Step::Item(frames) => {
                self.claim(standalone, Log::Broadcast, cursor.position() - 1)?;
                self.drained = frames.is_newest();
                Ok(Some(Heard::Events { frames, log: Log::Broadcast, other: own }))
            }
            Step::Lagged { missed } => {
                let at = Positions { own, broadcast: cursor.position() - 1 };
                self.lagged(standalone, Log::Broadcast, missed, at).map(Some)
            }
            Step::Empty | Step::Ended => Ok(None),
        }
    }

    /// Reports a gap that begins behind what was delivered, and passes over it.
    fn lagged(
        &mut self,
        standalone: &Standalone,
        log: Log,
        missed: u64,
        at: Positions,
    ) -> Result<Heard, NoLongerHolds> {
        // A gap right at the start of a connection is told even where lag ends connections: otherwise each reconnect
        // would meet it again.
        let ends = self.policy == LagPolicy::End && self.begun;
        if !ends {
            self.claim(standalone, log, at.of(log))?;
        }
        Ok(Heard::Missed { missed, log, at, ends })
    }

    /// Takes everything of a log up to `delivered` for this connection.
    fn claim(&mut self, standalone: &Standalone, log: Log, delivered: Position) -> Result<(), NoLongerHolds> {
        let lease = match log {
            Log::Own => standalone.stream.lease(),
            Log::Broadcast => &standalone.broadcasts,
        };
        if !lease.claim(self.generation, delivered) {
            return Err(NoLongerHolds);
        }
        self.begun = true;
        if self.policy == LagPolicy::Wait && log == Log::Own {
            // Publishers may be waiting for this space.
            standalone.stream.waiters().wake();
        }
        Ok(())
    }

    /// What there is to do, or `Pending` until there may be something.
    pub fn poll_next(
        &mut self,
        standalone: &Standalone,
        topic: &Arc<Topic>,
        lines: &impl LockLines,
        context: &mut Context<'_>,
    ) -> Poll<Heard> {
        // Behind the last frame there is hardly ever another by now.
        if !core::mem::take(&mut self.drained)
            && let Some(heard) = self.try_next(standalone, topic, lines)
        {
            return Poll::Ready(heard);
        }
        standalone.stream.waiters().register(&mut self.waiter, context.waker());
        if !self.is_rung {
            let aside = self.aside.get_or_insert_default();
            let watch = aside.watch.get_or_insert_with(|| Watch::new(topic.clone()));
            watch.register(context.waker());
        }
        // Once more: what was published before the registration woke nobody.
        self.try_next(standalone, topic, lines).map_or(Poll::Pending, Poll::Ready)
    }
}

/// A later connection took the stream over before this one could claim what it read.
struct NoLongerHolds;

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("generation", &self.generation)
            .field("lineage", &self.lineage)
            .finish_non_exhaustive()
    }
}
