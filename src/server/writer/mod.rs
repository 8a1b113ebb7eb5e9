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
//!   reactor's queue and wakes the reactor, which is one task; a burst rings once.
//! - *Drive*: take what is pending, all of it, frame it as chunks, and send it with one call. What the socket
//!   does not take is kept, and nothing more is taken from the stream until it is gone.
//! - *End*: the last chunk, then the connection goes back to hyper for its next request, or is closed if the
//!   client or the drain wants that.
//!
//! # Memory use
//!
//! About 190 bytes a stream: the entry 112, its place in the slab 16, its waiter 56. The kernel's
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

use bytes::Bytes;
use crossbeam_queue::SegQueue;

use super::metrics::{Latency, Probe};
use super::serve::Visit;
use crate::session::Connection;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering};
use crate::wake::{Bell, Waiters};

pub(super) use head::write_head;
pub(super) use reactor::{GiveBack, Reactor};

/// The way to the reactors.
pub(super) struct Writer {
    reactors: Box<[Line]>,
    next: AtomicUsize,
    shared: Arc<Shared>,
}

/// The way to one reactor.
struct Line {
    inbox: flume::Sender<Handed>,
    ready: Arc<Ready>,
}

/// What all reactors of one server are told.
#[derive(Default)]
struct Shared {
    /// Connections are closed at the end of their stream.
    draining: AtomicBool,
    /// No further stream will be handed over.
    finishing: AtomicBool,
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
    /// Makes `count` reactors and the way to them.
    pub(super) fn new(
        count: usize,
        latency: &Arc<Latency>,
    ) -> (Self, Vec<(flume::Receiver<Handed>, ReactorSide)>) {
        let shared = Arc::new(Shared::default());
        let (mut lines, mut sides) = (Vec::new(), Vec::new());
        for _ in 0..count.max(1) {
            let (inbox, handed) = flume::unbounded();
            let ready = Arc::new(Ready {
                queue: SegQueue::new(),
                waiters: Waiters::new(),
                probe: Probe::new(latency.clone()),
            });
            sides.push((handed, ReactorSide { ready: ready.clone(), shared: shared.clone() }));
            lines.push(Line { inbox, ready });
        }
        (Self { reactors: lines.into(), next: AtomicUsize::new(0), shared }, sides)
    }

    /// Hands a stream to a reactor. Without one left, the stream's connection ends here.
    pub(super) fn hand_over(&self, handed: Handed) {
        // Relaxed: it only spreads the streams.
        let line = &self.reactors[self.next.fetch_add(1, Ordering::Relaxed) % self.reactors.len()];
        if line.inbox.send(handed).is_ok() {
            line.ready.waiters.wake();
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
        for line in &self.reactors {
            line.ready.waiters.wake();
        }
    }
}

/// What a reactor shares with those who wake it.
pub(super) struct ReactorSide {
    ready: Arc<Ready>,
    shared: Arc<Shared>,
}

impl Shared {
    fn reads(mark: &AtomicBool) -> bool {
        // Acquire: whoever sees the mark sees what was done before it was set. Pairs with `Writer::tell`.
        mark.load(Ordering::Acquire)
    }
}

/// Entries that have something to do, and the reactor that waits for them.
struct Ready {
    queue: SegQueue<u32>,
    waiters: Waiters,
    /// Times an event now and then.
    probe: Probe,
}

impl Bell for Ready {
    /// Late, for an entry that is gone, this costs a look at whoever has the key now.
    fn ring(&self, key: u32) {
        self.probe.rang(key);
        self.queue.push(key);
        self.waiters.wake();
    }
}
