//! Event streams over plain HTTP/1.1, written without hyper.
//!
//! hyper keeps two buffers of 8 KiB and a task for each connection, which a stream that is silent for minutes
//! has no use for. So once hyper has read the request, the stream's socket is taken out of it and handed to the
//! writer: an entry in a slab, served by one of a few [`Reactor`]s. Streams over HTTP/2, and those whose
//! connection still owes an earlier answer, stay inside hyper and carry the same bytes.
//!
//! # Algorithm
//!
//! - *Hand over*: the socket, the head of the answer and the [`Connection`] go to a reactor's inbox.
//! - *Ring*: an entry waits for its stream with a [`Bell`] in place of a waker. Ringing puts the entry's key on the
//!   reactor's queue and calls the reactor, which is one task. Of those that one thread calls, one is woken, and
//!   wakes the next when it is done, or all of them when it needs longer (see [`Duty`]).
//! - *Drive*: take what is pending, all of it, frame it as chunks, and send it with one call. What the socket
//!   does not take is kept, and nothing more is taken from the stream until it is gone.
//! - *End*: the last chunk, then the connection goes back to hyper for its next request, or is closed if the
//!   client or the drain wants that.
//!
//! # Memory use
//!
//! About 170 bytes a stream: the entry 96, its place in the slab 16, its waiter 56. The kernel's
//! own 2.5 to 5 KB a socket come on top.
//!
//! # Trade-offs
//!
//! Reactors are tasks of the runtime that the server runs on, with an epoll of their own inside the runtime's:
//! a publisher on the same thread reaches its readers without waking another thread, and no thread is there
//! that the application does not know of.

mod entry;
mod head;
mod reactor;

use std::net::TcpStream;
use std::ptr;

use bytes::Bytes;
use crossbeam_queue::SegQueue;

use super::metrics::{Latency, Probe};
use super::serve::Visit;
use crate::session::Connection;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering};
use crate::wake::Bell;
use crate::wake::duty::{Duty, Work};

pub(super) use head::write_head;
pub(super) use reactor::{GiveBack, Reactor};

/// The way to the reactors.
pub(super) struct Writer {
    next: AtomicUsize,
    shared: Arc<Shared>,
}

/// What all reactors of one server share.
struct Shared {
    duty: Duty<Queue>,
    /// Connections are closed at the end of their stream.
    draining: AtomicBool,
    /// No further stream will be handed over.
    finishing: AtomicBool,
}

/// What one reactor has to do.
struct Queue {
    /// Streams that nobody has looked at yet.
    inbox: flume::Sender<Handed>,
    /// Entries that have something to do.
    keys: SegQueue<u32>,
}

impl Work for Queue {
    fn is_left(&self) -> bool {
        !self.keys.is_empty() || !self.inbox.is_empty()
    }
}

/// A stream on its way from hyper to a reactor.
pub(super) struct Handed {
    pub(super) socket: TcpStream,
    /// What hyper read beyond the request.
    pub(super) unread: Bytes,
    /// The head of the answer, as it goes over the wire.
    pub(super) head: Vec<u8>,
    pub(super) connection: Connection,
    /// Whether the client may send another request on the connection.
    pub(super) keep_alive: bool,
    pub(super) visit: Visit,
}

impl Writer {
    /// Makes `count` reactors' ends and the way to them.
    pub(super) fn new(
        count: usize,
        latency: &Arc<Latency>,
    ) -> (Self, Vec<(flume::Receiver<Handed>, ReactorSide)>) {
        let (inboxes, handed): (Vec<_>, Vec<_>) = (0..count.max(1)).map(|_| flume::unbounded()).unzip();
        let shared = Arc::new(Shared {
            duty: Duty::new(inboxes.into_iter().map(|inbox| Queue { inbox, keys: SegQueue::new() })),
            draining: AtomicBool::new(false),
            finishing: AtomicBool::new(false),
        });
        let side = |member| {
            let probe = Probe::new(latency.clone());
            ReactorSide(Arc::new(Line { shared: shared.clone(), member, probe }))
        };
        let sides = handed.into_iter().enumerate().map(|(member, handed)| (handed, side(member))).collect();
        (Self { next: AtomicUsize::new(0), shared }, sides)
    }

    /// Hands a stream to a reactor. Without one left, the stream's connection ends here.
    pub(super) fn hand_over(&self, handed: Handed) {
        let duty = &self.shared.duty;
        // Relaxed: it only spreads the streams.
        let member = self.next.fetch_add(1, Ordering::Relaxed) % duty.members();
        if duty.work(member).inbox.send(handed).is_ok() {
            duty.call(member, here());
        }
    }

    /// From now on connections are closed at the end of their stream.
    pub(super) fn drain(&self) {
        self.tell(&self.shared.draining);
    }

    /// From now on nothing is handed over: each reactor ends with its last stream.
    pub(super) fn finish(&self) {
        self.tell(&self.shared.finishing);
    }

    fn tell(&self, mark: &AtomicBool) {
        // Release: pairs with the Acquire in `Shared::reads`.
        mark.store(true, Ordering::Release);
        (0..self.shared.duty.members()).for_each(|member| self.shared.duty.wake(member));
    }
}

/// A reactor's end of what it shares with those who call it.
pub(super) struct ReactorSide(Arc<Line>);

impl Shared {
    fn reads(mark: &AtomicBool) -> bool {
        // Acquire: whoever sees the mark sees what was done before it was set. Pairs with `Writer::tell`.
        mark.load(Ordering::Acquire)
    }
}

/// The way from an entry's stream to its reactor.
struct Line {
    shared: Arc<Shared>,
    /// The reactor's number.
    member: usize,
    /// Times an event now and then.
    probe: Probe,
}

impl Line {
    fn queue(&self) -> &Queue {
        self.shared.duty.work(self.member)
    }
}

impl Bell for Line {
    /// Late, for an entry that is gone, this costs a look at whoever has the key now.
    fn ring(&self, key: u32) {
        self.probe.rang(key);
        self.queue().keys.push(key);
        self.shared.duty.call(self.member, here());
    }
}

thread_local! {
    static HERE: u8 = const { 0 };
}

/// A number for this thread: where it keeps what is its own.
fn here() -> u64 {
    HERE.with(|here| ptr::from_ref(here).addr() as u64)
}
