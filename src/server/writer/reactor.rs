//! Drives the entries of a slab, in a task, or on the thread of a publisher.

use std::future::Future;
use std::hint::black_box;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use slab::Slab;
use tokio::io::unix::AsyncFd;
use tokio::time::{Interval, MissedTickBehavior};

use super::entry::{Drive, StreamEntry};
use super::line::{BROADCAST, Drives, Handed, Queue, ReactorLine, Reactors, here};
use crate::ring::Position;
use crate::server::connection::descriptor::watch_reads;
use crate::server::connection::gate::Admitted;
use crate::server::connection::patience::Patience;
use crate::server::connection::prefixed::Prefixed;
use crate::server::metrics::connections::ConnectionCounters;
use crate::server::metrics::latency::Pace;
use crate::stream::Stream;
use crate::sync::{Arc, lock, try_lock};
use crate::topic::{Topic, Watch};
use crate::wake::Waiter;
use crate::wake::duty::Duty;

/// Entries driven before other tasks of the runtime get their turn.
const TURN: usize = 256;
/// Entries whose memory is loaded together before the first of them is driven.
const AHEAD: usize = 16;
/// Number of parts into which the entries are divided for comments.
const ROUNDS: usize = 64;
/// Socket events read in one call.
const EVENTS: usize = 256;
/// Places of the slab that a sweep visits before entries are driven.
const LOOKED_AT: usize = 256;

/// What happens to a connection whose stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Next {
    /// Its next request is read.
    Request,
    /// It is closed.
    Close,
}

/// Receives a connection whose stream ended, with what the client sent meanwhile.
pub(in crate::server) type GiveBack = Arc<dyn Fn(Prefixed<TcpStream>, Admitted, Next) + Send + Sync>;

/// A pass over all entries, in a circle of their keys. One that is requested while another is in progress continues
/// from the current place, for a whole round.
#[derive(Debug, Default)]
struct Sweep {
    /// The next place.
    at: usize,
    /// Places left.
    left: usize,
}

impl Sweep {
    fn begin(&mut self, keys: usize) {
        self.left = keys;
    }

    /// Returns the next place, of `keys` in all.
    fn next(&mut self, keys: usize) -> Option<usize> {
        // Entries may have been removed since the pass began.
        self.left = self.left.min(keys).checked_sub(1)?;
        let at = if self.at < keys { self.at } else { 0 };
        self.at = at + 1;
        Some(at)
    }
}

/// A reactor's side of what it shares with its callers.
pub(in crate::server) struct ReactorSide(pub(super) Arc<ReactorLine<Reactor>>);

/// The task of a [`Reactor`]. The reactor ends with it.
pub(in crate::server) struct ReactorTask(Arc<ReactorLine<Reactor>>);

/// See the [module documentation](super).
pub(super) struct Reactor {
    line: Arc<ReactorLine<Self>>,
    waiter: Waiter,
    handed: flume::Receiver<Handed>,
    sockets: AsyncFd<mio::Poll>,
    events: Events,
    entries: Slab<Box<StreamEntry>>,
    /// All keys are lower than this.
    keys: usize,
    /// Rings once for all entries when a message to all sessions was published.
    broadcasts: Watch,
    /// The end of that log when the last sweep began.
    swept: Position,
    sweep: Sweep,
    beat: Interval,
    round: usize,
    /// When to time the next event.
    pace: Pace,
    /// The patience with clients that read nothing.
    patience: Patience,
    scratch: Vec<u8>,
    /// Entries that a publisher drove, and what they wait for. The task continues from there.
    driven: Vec<(usize, Drive)>,
    give_back: GiveBack,
    counters: Arc<ConnectionCounters>,
}

impl ReactorTask {
    /// Creates a reactor whose quiet streams get a comment every `keep_alive`, and whose stalled ones end when
    /// `patience` does.
    pub(in crate::server) fn new(
        handed: flume::Receiver<Handed>,
        side: ReactorSide,
        broadcasts: &Arc<Topic>,
        keep_alive: Duration,
        patience: Patience,
        give_back: GiveBack,
        counters: Arc<ConnectionCounters>,
    ) -> io::Result<Self> {
        let mut beat = tokio::time::interval((keep_alive / ROUNDS as u32).max(Duration::from_millis(1)));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let line = side.0;
        let mut broadcasts = Watch::ringing(broadcasts.clone(), line.clone(), BROADCAST);
        broadcasts.register(Waker::noop());
        let reactor = Reactor {
            line: line.clone(),
            waiter: Waiter::new(),
            handed,
            sockets: watch_reads(mio::Poll::new()?)?,
            events: Events::with_capacity(EVENTS),
            entries: Slab::new(),
            keys: 0,
            // There are no entries yet. Each reads the log when it is taken in.
            swept: broadcasts.topic().tail(),
            broadcasts,
            sweep: Sweep::default(),
            beat,
            round: 0,
            pace: Pace::default(),
            patience,
            scratch: Vec::new(),
            driven: Vec::new(),
            give_back,
            counters,
        };
        *lock(&line.reactor) = Some(reactor);
        Ok(Self(line))
    }
}

impl Reactor {
    fn duty(&self) -> &Duty<Queue> {
        &self.line.reactors.duty
    }

    /// Takes a stream in, and sends its head with all pending events.
    fn take_in(&mut self, handed: Handed) {
        let Handed { socket, head, mut connection, keep_alive, admitted } = handed;
        if self.entries.len() == self.entries.capacity() {
            // Not by doubling: a place costs memory for each of very many streams.
            self.entries.reserve_exact((self.entries.len() / 8).max(64));
        }
        let vacant = self.entries.vacant_entry();
        let key = vacant.key();
        let Some(small) = u32::try_from(key).ok().filter(|small| *small != BROADCAST) else { return };
        let fd = socket.socket().as_raw_fd();
        let registry = self.sockets.get_ref().registry();
        if let Err(error) = registry.register(&mut SourceFd(&fd), Token(key), Interest::READABLE) {
            tracing::warn!(%error, "cannot register a socket with epoll");
            return;
        }
        connection.ring(self.line.clone(), small);
        vacant.insert(Box::new(StreamEntry::new(socket, connection, keep_alive, admitted)));
        self.keys = self.keys.max(key + 1);
        self.scratch.extend_from_slice(&head);
        self.drive(key);
    }

    fn drive(&mut self, key: usize) {
        if let Some(driven) = self.send_pending(key) {
            self.settle(key, driven);
        }
    }

    /// Sends what is pending for an entry, if the entry still exists.
    fn send_pending(&mut self, key: usize) -> Option<Drive> {
        let entry = self.entries.get_mut(key)?;
        let driven = entry.drive(&mut self.scratch);
        let probe = &self.line.probe;
        if probe.is_timing(key) || probe.is_timing(BROADCAST as usize) && entry.is_standalone() {
            probe.stop(matches!(driven, Drive::Waiting | Drive::Done));
        }
        if self.pace.step() {
            probe.arm();
        }
        Some(driven)
    }

    /// Acts on what an entry waits for.
    fn settle(&mut self, key: usize, driven: Drive) {
        match driven {
            Drive::Waiting => {}
            Drive::Blocked => {
                let entry = &mut self.entries[key];
                if !entry.watched {
                    entry.watched = true;
                    let fd = entry.socket.as_raw_fd();
                    let both = Interest::READABLE | Interest::WRITABLE;
                    let registry = self.sockets.get_ref().registry();
                    // Reports at once if the socket is writable by now.
                    if registry.reregister(&mut SourceFd(&fd), Token(key), both).is_err() {
                        self.remove(key);
                    }
                }
            }
            Drive::Broken => drop(self.remove(key)),
            Drive::Done => {
                let (socket, admitted, keep_alive) = self.remove(key).into_socket();
                let fd = socket.socket().as_raw_fd();
                if self.sockets.get_ref().registry().deregister(&mut SourceFd(&fd)).is_err() {
                    return;
                }
                let goes_on = keep_alive && !Reactors::reads(&self.line.reactors.draining);
                (self.give_back)(socket, admitted, if goes_on { Next::Request } else { Next::Close });
            }
        }
    }

    fn remove(&mut self, key: usize) -> StreamEntry {
        let entry = *self.entries.remove(key);
        if self.entries.is_empty() {
            // Memory that many entries needed is released when they are gone.
            self.entries = Slab::new();
            self.keys = 0;
        }
        entry
    }

    /// Handles the events of epoll.
    fn look_at_sockets(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while let Poll::Ready(ready) = self.sockets.poll_read_ready_mut(context) {
            let mut ready = ready?;
            ready.get_inner_mut().poll(&mut self.events, Some(Duration::ZERO))?;
            if self.events.is_empty() {
                ready.clear_ready();
                continue;
            }
            let keys: Vec<(usize, bool, bool)> = self
                .events
                .iter()
                .map(|event| {
                    let gone = event.is_read_closed() || event.is_error();
                    (event.token().0, gone, event.is_writable())
                })
                .collect();
            for (key, gone, writable) in keys {
                let Some(entry) = self.entries.get_mut(key) else { continue };
                // What the client sends ahead stays in the kernel until the stream has ended.
                if gone {
                    drop(self.remove(key));
                } else if writable {
                    entry.unblock();
                    self.drive(key);
                }
            }
        }
        Ok(())
    }

    /// Sends comments to the quiet streams of one part of the entries.
    fn comment(&mut self) {
        for key in (self.round..self.keys).step_by(ROUNDS) {
            if let Some(entry) = self.entries.get_mut(key) {
                let driven = entry.beat(&mut self.scratch, self.patience, &self.counters);
                self.settle(key, driven);
            }
        }
        self.round = (self.round + 1) % ROUNDS;
        self.line.probe.arm();
    }

    /// Continues with entries that publishers drove. Comes first, so that the keys still belong to those entries.
    fn settle_driven(&mut self) {
        for (key, driven) in std::mem::take(&mut self.driven) {
            if self.entries.contains(key) {
                self.settle(key, driven);
            }
        }
    }

    /// Drives entries with work. False if some is left.
    fn turn(&mut self) -> bool {
        let mut keys = [0; AHEAD];
        for _ in 0..TURN / AHEAD {
            let mut count = 0;
            while count < AHEAD
                && let Some(key) = self.line.queue().keys.pop()
            {
                if key == BROADCAST {
                    // Register first: what is published after this rings again.
                    self.broadcasts.register(Waker::noop());
                    // It also rings when other subscribers leave the topic, and when it is closed, which does not
                    // matter here.
                    let tail = self.broadcasts.topic().tail();
                    if std::mem::replace(&mut self.swept, tail) != tail {
                        self.sweep.begin(self.keys);
                    }
                    continue;
                }
                keys[count] = key as usize;
                count += 1;
            }
            let mut looked_at = 0;
            while count < AHEAD
                && looked_at < LOOKED_AT
                && let Some(key) = self.sweep.next(self.keys)
            {
                looked_at += 1;
                if self.entries.get(key).is_some_and(|entry| entry.is_standalone()) {
                    keys[count] = key;
                    count += 1;
                }
            }
            let keys = &keys[..count];
            self.warm(keys);
            // Each entry pins the epoch a few times; within an outer pin those are almost free.
            let pinned = Stream::pin();
            keys.iter().for_each(|key| self.drive(*key));
            drop(pinned);
            if count == 0 && looked_at < LOOKED_AT {
                let Ok(handed) = self.handed.try_recv() else { return true };
                self.take_in(handed);
            }
        }
        false
    }

    /// Loads the memory that some entries are about to need, so that their cache misses overlap
    /// instead of following one another.
    fn warm(&self, keys: &[usize]) {
        if keys.len() > 1 {
            let entries = || keys.iter().filter_map(|key| self.entries.get(*key));
            black_box(entries().fold(false, |any, entry| any ^ entry.warm()));
            black_box(entries().fold(false, |any, entry| any ^ entry.warm_connection()));
        }
    }
}

impl Reactor {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.settle_driven();
        while self.beat.poll_tick(context).is_ready() {
            self.comment();
        }
        self.look_at_sockets(context)?;
        let member = self.line.member;
        self.duty().begin(member, here());
        if self.turn() {
            self.line.reactors.duty.register(member, &mut self.waiter, context.waker());
            // Once more: what was pushed before the registration woke nobody.
            if self.turn() {
                self.line.note_busy();
                self.duty().retire(member, here());
                let finishing = Reactors::reads(&self.line.reactors.finishing);
                return if finishing && self.entries.is_empty() {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                };
            }
        }
        // Wake other reactors with work first, then continue with the rest of this one's.
        self.duty().share(member);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drives for Reactor {
    fn drive_for(&mut self, key: u32) -> bool {
        let key = key as usize;
        match catch_unwind(AssertUnwindSafe(|| self.send_pending(key))) {
            Ok(None | Some(Drive::Waiting)) => true,
            Ok(Some(driven)) => {
                self.driven.push((key, driven));
                false
            }
            Err(panic) => {
                // What was taken from the stream may not have been sent. The client reconnects and resumes.
                self.driven.push((key, Drive::Broken));
                resume_unwind(panic)
            }
        }
    }
}

impl Future for ReactorTask {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(mut reactor) = try_lock(&self.0.reactor) else {
            // A publisher drives an entry, which takes microseconds. Let other tasks run meanwhile.
            context.waker().wake_by_ref();
            return Poll::Pending;
        };
        reactor.as_mut().map_or(Poll::Ready(Ok(())), |reactor| reactor.poll(context))
    }
}

impl Drop for ReactorTask {
    fn drop(&mut self) {
        let reactors = &self.0.reactors;
        // Dropped without the lock: its streams may ring again.
        let reactor = lock(&self.0.reactor).take();
        if !Reactors::reads(&reactors.finishing) {
            tracing::error!(
                streams = reactor.as_ref().map_or(0, |reactor| reactor.entries.len()),
                "a reactor ended; others take its new streams"
            );
        }
        reactors.leave(self.0.member);
        drop(reactor);
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use super::super::Writer;
    use super::super::tests::Source;
    use super::*;
    use crate::ring::Limits;
    use crate::server::Config;
    use crate::stream::Clock;

    #[test]
    fn a_sweep_looks_at_every_place_once_and_once_more_if_asked_again() {
        let mut sweep = Sweep::default();
        assert_eq!(sweep.next(3), None);
        sweep.begin(3);
        assert_eq!([sweep.next(3), sweep.next(3)], [Some(0), Some(1)]);
        sweep.begin(3);
        let round: Vec<_> = std::iter::from_fn(|| sweep.next(3)).collect();
        assert_eq!(round, [2, 0, 1]);
        sweep.begin(3);
        assert_eq!([sweep.next(1), sweep.next(1), sweep.next(0)], [Some(0), None, None]);
    }

    #[tokio::test]
    async fn events_of_a_client_whose_waker_panics_reach_nobody_else() {
        struct Panics;
        impl std::task::Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("a waker that panics");
            }
        }
        let mut source = Source::waiting_for_readers();
        let (writer, sides) = Writer::new(1, &Arc::default());
        let side = sides.into_iter().next().unwrap();
        let line = side.1.0.clone();
        let _task = source.reactor(side);
        let handed = source.stream();
        let session = handed.connection.session().clone();
        writer.hand_over(handed);
        let mut reactor = lock(&line.reactor);
        let reactor = reactor.as_mut().unwrap();
        assert!(reactor.turn() && reactor.entries.contains(0));
        // The reactor is locked, so what is published is left for later. The second event is read where it stands, and
        // is in the buffer when the waker is called.
        let publish = || assert!(session.publish(|out| out.extend_from_slice(b"own")).is_ok());
        publish();
        assert!(reactor.drive_for(0));
        publish();
        let mut waiter = Waiter::new();
        let waiters = session.standalone().waiters();
        waiters.register(&mut waiter, &Arc::new(Panics).into());
        assert!(catch_unwind(AssertUnwindSafe(|| reactor.drive_for(0))).is_err());
        assert!(reactor.scratch.is_empty());
        assert_eq!(reactor.driven, [(0, Drive::Broken)]);
        reactor.settle_driven();
        assert!(reactor.entries.is_empty(), "its client comes back and resumes");
    }

    #[tokio::test]
    async fn those_who_leave_the_topic_begin_no_sweep() {
        let (_writer, sides) = Writer::new(1, &Arc::default());
        let (handed, side) = sides.into_iter().next().unwrap();
        let (line, topic) = (side.0.clone(), Topic::new(Limits::default(), Clock::default()));
        let (patience, counters) = (Patience::new(&Config::default()), Arc::default());
        let give_back: GiveBack = Arc::new(|_, _, _| {});
        let keep_alive = Duration::from_secs(15);
        let _task =
            ReactorTask::new(handed, side, &topic, keep_alive, patience, give_back, counters).unwrap();
        let sweeps = || {
            assert!(!line.queue().keys.is_empty(), "it was rung");
            let mut reactor = lock(&line.reactor);
            let reactor = reactor.as_mut().unwrap();
            // More places than one turn visits.
            reactor.keys = 2 * TURN / AHEAD * LOOKED_AT;
            reactor.turn();
            reactor.sweep.left > 0
        };
        for _ in 0..3 {
            let mut passing = topic.subscribe();
            assert!(passing.poll_next(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert!(!sweeps());
        topic.publish(|out| out.push(b'x')).unwrap();
        assert!(sweeps());
    }
}
