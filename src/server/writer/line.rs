//! The shared side of a reactor: its inbox, its queue of entries with work, and the rule who drives them.

use std::net::TcpStream;
use std::ptr;
use std::time::{Duration, Instant};

use crossbeam_queue::SegQueue;

use crate::server::connection::gate::Admitted;
use crate::server::connection::prefixed::Prefixed;
use crate::server::metrics::latency::Probe;
use crate::session::Connection;
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, try_lock};
use crate::wake::Bell;
use crate::wake::duty::{Duty, Work};

/// A reactor without work for this long is quiet.
const QUIET: Duration = Duration::from_micros(100);
/// The key that rings when something was published to all sessions. No entry has it.
pub(super) const BROADCAST: u32 = u32::MAX;

/// The state that all reactors of one server share.
pub(super) struct Reactors {
    pub(super) duty: Duty<Queue>,
    /// Connections are closed at the end of their stream.
    pub(super) draining: AtomicBool,
    /// No further stream will be handed over.
    pub(super) finishing: AtomicBool,
}

/// The work of one reactor.
pub(super) struct Queue {
    /// Streams that the reactor has not taken in yet.
    inbox: flume::Sender<Handed>,
    /// Receives what is left in the inbox when the reactor has ended.
    left: flume::Receiver<Handed>,
    /// The reactor has ended, and does not read its inbox any more.
    gone: AtomicBool,
    /// Keys of entries with work.
    pub(super) keys: SegQueue<u32>,
}

impl Queue {
    pub(super) fn new((inbox, left): (flume::Sender<Handed>, flume::Receiver<Handed>)) -> Self {
        Self { inbox, left, gone: AtomicBool::new(false), keys: SegQueue::new() }
    }

    /// Whether its reactor has ended.
    pub(super) fn is_gone(&self) -> bool {
        // Acquire: pairs with `leave`.
        self.gone.load(Ordering::Acquire)
    }
}

impl Work for Queue {
    fn is_left(&self) -> bool {
        !self.keys.is_empty() || !self.inbox.is_empty()
    }
}

/// A stream on its way from hyper to a reactor.
pub(in crate::server) struct Handed {
    pub(in crate::server) socket: Prefixed<TcpStream>,
    /// The bytes of the head of the answer.
    pub(in crate::server) head: Vec<u8>,
    pub(in crate::server) connection: Connection,
    /// Whether the client may send another request on the connection.
    pub(in crate::server) keep_alive: bool,
    pub(in crate::server) admitted: Admitted,
}

impl Reactors {
    /// Hands a stream to the first reactor from `first` on that has not ended.
    pub(super) fn hand_over(&self, first: usize, handed: Handed) {
        let duty = &self.duty;
        let count = duty.members();
        let Some(member) =
            (first..first + count).map(|member| member % count).find(|member| !duty.work(*member).is_gone())
        else {
            tracing::warn!("no reactor is left; a stream ends and its client has to resume it");
            return;
        };
        let queue = duty.work(member);
        // It cannot fail: the queue has a receiver of its own.
        let _ = queue.inbox.send(handed);
        duty.call(member, here());
        // The reactor may have ended meanwhile. The lock of the inbox orders the two: if it was read for the last
        // time before this was sent, its end is seen here.
        if queue.is_gone() {
            self.pass_on(member);
        }
    }

    /// Hands the streams in the inbox of an ended reactor to others.
    fn pass_on(&self, member: usize) {
        while let Ok(handed) = self.duty.work(member).left.try_recv() {
            self.hand_over(member + 1, handed);
        }
    }

    /// Marks a reactor as ended.
    pub(super) fn leave(&self, member: usize) {
        // Release: pairs with `Queue::is_gone`.
        self.duty.work(member).gone.store(true, Ordering::Release);
        self.pass_on(member);
        self.duty.leave(member, here());
    }

    /// Whether `mark` is set.
    pub(super) fn reads(mark: &AtomicBool) -> bool {
        // Acquire: a reader of the mark sees what was done before it was set. Pairs with `Writer::tell`.
        mark.load(Ordering::Acquire)
    }
}

/// What drives the entries behind a [`ReactorLine`].
pub(super) trait Drives: Send + 'static {
    /// Drives an entry on a publisher's thread. False if the task must continue: what follows may close the
    /// connection, and run code of the application.
    fn drive_for(&mut self, key: u32) -> bool;
}

/// The bell that an entry's stream rings: it leads to the entry's reactor.
pub(super) struct ReactorLine<R> {
    pub(super) reactors: Arc<Reactors>,
    /// The reactor's number.
    pub(super) member: usize,
    /// Times a sample of events.
    pub(super) probe: Probe,
    /// The reactor, while its task exists. Locked by the task while it is polled, and by a publisher that drives an
    /// entry itself. No thread waits for the lock: one that finds it taken leaves the entry to the task.
    pub(super) reactor: Mutex<Option<R>>,
    started: Instant,
    /// When the reactor last had work, in nanoseconds from `started`.
    busy: AtomicU64,
}

impl<R: Drives> ReactorLine<R> {
    pub(super) fn new(reactors: Arc<Reactors>, member: usize, probe: Probe) -> Self {
        let (reactor, started, busy) = (Mutex::new(None), Instant::now(), AtomicU64::new(0));
        Self { reactors, member, probe, reactor, started, busy }
    }

    /// The work of the reactor.
    pub(super) fn queue(&self) -> &Queue {
        self.reactors.duty.work(self.member)
    }

    /// Leaves an entry to the reactor.
    fn leave(&self, key: u32) {
        self.queue().keys.push(key);
        self.reactors.duty.call(self.member, here());
    }

    /// Notes that the reactor has work now.
    pub(super) fn note_busy(&self) {
        // Relaxed: a time that orders nothing.
        self.busy.store(self.nanoseconds(), Ordering::Relaxed);
    }

    /// Whether the reactor had no work for [`QUIET`].
    fn is_quiet(&self) -> bool {
        // Relaxed: as above.
        self.nanoseconds().saturating_sub(self.busy.load(Ordering::Relaxed)) >= QUIET.as_nanos() as u64
    }

    fn nanoseconds(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Drives an entry on this thread, if no reactor has work. False if it must be left to the reactor.
    fn drive_here(&self, key: u32) -> bool {
        let duty = &self.reactors.duty;
        if key == BROADCAST || !duty.is_idle() || !self.is_quiet() || !duty.take(self.member, here()) {
            return false;
        }
        // Gives the duty back, also after a panic.
        let mut taken = Taken { line: self, is_done: false };
        // `try_lock`: this thread may hold the lock, if a handler publishes while the reactor runs it.
        match try_lock(&self.reactor).and_then(|mut reactor| Some(reactor.as_mut()?.drive_for(key))) {
            Some(is_done) => taken.is_done = is_done,
            None => self.queue().keys.push(key),
        }
        true
    }
}

/// The duty of a reactor, taken by a publisher.
struct Taken<'a, R: Drives> {
    line: &'a ReactorLine<R>,
    /// Nothing is left for the reactor.
    is_done: bool,
}

impl<R: Drives> Drop for Taken<'_, R> {
    fn drop(&mut self) {
        // The time that sending took does not count as quiet: an event right after it goes to the reactor.
        self.line.note_busy();
        let (duty, member) = (&self.line.reactors.duty, self.line.member);
        if self.is_done { duty.retire(member, here()) } else { duty.give(member, here()) }
    }
}

impl<R: Drives> Bell for ReactorLine<R> {
    /// If the entry is gone, this costs one look at the entry that has the key now.
    fn ring(&self, key: u32) {
        self.probe.rang(key);
        self.leave(key);
    }

    fn ring_published(&self, key: u32) {
        self.probe.rang(key);
        if !self.drive_here(key) {
            self.leave(key);
        }
    }
}

thread_local! {
    static HERE: u8 = const { 0 };
}

/// A number for this thread: the address of its thread-local storage.
pub(super) fn here() -> u64 {
    HERE.with(|here| ptr::from_ref(here).addr() as u64)
}
