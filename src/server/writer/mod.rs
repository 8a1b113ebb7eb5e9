//! Event streams over plain HTTP/1.1, written without hyper.
//!
//! hyper keeps two buffers of 8 KiB and a task for each connection, which a quiet stream does not need.
//! So once hyper has read the request, the stream's socket is taken out of it and handed to the
//! writer: an entry in a slab, served by one of a few reactors. Streams over HTTP/2, and those whose
//! connection has not finished an earlier answer, stay inside hyper and carry the same bytes.
//!
//! # Algorithm
//!
//! - *Hand over*: the socket, the head of the answer and the [`Connection`](crate::session::Connection) go to a
//!   reactor's inbox.
//! - *Ring*: an entry waits for its stream with a [`Bell`](crate::wake::Bell) in place of a waker. Ringing puts the
//!   entry's key on the reactor's queue and calls the reactor, which is one task. Of those that one thread calls, one
//!   is woken, and wakes the next when it is done, or all of them when it needs longer (see [`Duty`]).
//! - *Ring when all is quiet*: if no reactor has work, and this one had none for
//!   100 µs, the publisher drives the entry itself, on its own thread. A lone event is then in its socket before
//!   `publish` returns. The events of a burst behind it go to the reactor and leave together.
//! - *Drive*: take all pending events, frame them as chunks, and send them with one call. What the socket
//!   does not take is kept, and nothing more is taken from the stream until it is sent.
//! - *End*: the last chunk, then the connection goes back to hyper for its next request, or is closed if the
//!   client or the drain wants that.
//!
//! # Memory use
//!
//! About 180 bytes a stream: the entry 104, its place in the slab 16, its waiter 56. The kernel's
//! own 2.5 to 5 KB a socket are additional.
//!
//! # Trade-offs
//!
//! Reactors are tasks of the runtime that the server runs on, with an epoll of their own inside the runtime's:
//! a publisher on the same thread reaches its readers without waking another thread, and there is no thread
//! that the application does not know of.
//!
//! Publishing to a quiet stream may take as long as one non-blocking send. In return its client does not wait for what
//! the publisher does next, nor for another thread to wake up.

mod entry;
mod head;
mod line;
mod reactor;

use crate::server::metrics::latency::{Latency, Probe};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering};
use crate::wake::duty::Duty;

pub(super) use head::write_head;
pub(super) use line::Handed;
use line::{Queue, ReactorLine, Reactors};
use reactor::ReactorSide;
pub(super) use reactor::{GiveBack, Next, ReactorTask};

/// Hands streams to the reactors.
pub(in crate::server) struct Writer {
    next: AtomicUsize,
    reactors: Arc<Reactors>,
}

impl Writer {
    /// Creates the writer, and the sides of `count` reactors.
    pub(in crate::server) fn new(
        count: usize,
        latency: &Arc<Latency>,
    ) -> (Self, Vec<(flume::Receiver<Handed>, ReactorSide)>) {
        let inboxes: Vec<_> = (0..count.max(1)).map(|_| flume::unbounded()).collect();
        let handed: Vec<_> = inboxes.iter().map(|(_, handed)| handed.clone()).collect();
        let reactors = Arc::new(Reactors {
            duty: Duty::new(inboxes.into_iter().map(Queue::new)),
            draining: AtomicBool::new(false),
            finishing: AtomicBool::new(false),
        });
        let side = |member| {
            ReactorSide(Arc::new(ReactorLine::new(reactors.clone(), member, Probe::new(latency.clone()))))
        };
        let sides = handed.into_iter().enumerate().map(|(member, handed)| (handed, side(member))).collect();
        (Self { next: AtomicUsize::new(0), reactors }, sides)
    }

    /// Whether some reactor has not ended.
    pub(in crate::server) fn is_alive(&self) -> bool {
        let duty = &self.reactors.duty;
        (0..duty.members()).any(|member| !duty.work(member).is_gone())
    }

    /// Hands a stream to a reactor. If all have ended, the stream's connection ends here.
    pub(in crate::server) fn hand_over(&self, handed: Handed) {
        // Relaxed: it only spreads the streams.
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.reactors.hand_over(next % self.reactors.duty.members(), handed);
    }

    /// Has connections closed at the end of their stream from now on.
    pub(in crate::server) fn drain(&self) {
        self.tell(&self.reactors.draining);
    }

    /// Declares that nothing will be handed over any more: each reactor ends with its last stream.
    pub(in crate::server) fn finish(&self) {
        self.tell(&self.reactors.finishing);
    }

    fn tell(&self, mark: &AtomicBool) {
        // Release: pairs with the Acquire in `Reactors::reads`.
        mark.store(true, Ordering::Release);
        (0..self.reactors.duty.members()).for_each(|member| self.reactors.duty.wake(member));
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::server::config::{Config, Proxies};
    use crate::server::connection::gate::{Admitted, Gate};
    use crate::server::connection::patience::Patience;
    use crate::server::connection::prefixed::Prefixed;
    use crate::server::request::ends::Ends;
    use crate::session::{Creator, Sessions, Settings};
    use crate::stream::{Clock, LagPolicy};

    /// Makes streams to hand over.
    pub(in crate::server::writer) struct Source {
        sessions: Sessions,
        gate: Gate,
        listener: TcpListener,
        clients: Vec<TcpStream>,
    }

    impl Source {
        fn new() -> Self {
            Self::with(Settings::default())
        }

        /// Publishers wait for those who read its streams.
        pub(in crate::server::writer) fn waiting_for_readers() -> Self {
            Self::with(Settings { lag: LagPolicy::Wait, ..Settings::default() })
        }

        fn with(settings: Settings) -> Self {
            Self {
                sessions: Sessions::new(settings, Clock::default()),
                gate: Gate::new(&Config::default().connections, Proxies::default(), 100),
                listener: TcpListener::bind(("127.0.0.1", 0)).unwrap(),
                clients: Vec::new(),
            }
        }

        pub(in crate::server::writer) fn stream(&mut self) -> Handed {
            let address = self.listener.local_addr().unwrap();
            self.clients.push(TcpStream::connect(address).unwrap());
            let (socket, _) = self.listener.accept().unwrap();
            socket.set_nonblocking(true).unwrap();
            let session = self.sessions.admit(Creator::default()).unwrap();
            let permit = self.gate.admit(address.ip()).unwrap_or_else(|_| panic!("the limit is 100"));
            Handed {
                socket: Prefixed::new(socket, Bytes::new()),
                head: Vec::new(),
                connection: session.connect(None).unwrap(),
                keep_alive: true,
                admitted: Admitted { permit, ends: Ends::NEVER },
            }
        }

        pub(in crate::server::writer) fn reactor(
            &self,
            (handed, side): (flume::Receiver<Handed>, ReactorSide),
        ) -> ReactorTask {
            let patience = Patience::new(&Config::default());
            let give_back: GiveBack = Arc::new(|_, _, _| {});
            let counters = self.gate.counters().clone();
            let (broadcasts, keep_alive) = (self.sessions.broadcasts(), Duration::from_secs(15));
            ReactorTask::new(handed, side, broadcasts, keep_alive, patience, give_back, counters).unwrap()
        }
    }

    #[tokio::test]
    async fn streams_of_a_reactor_that_ended_go_to_a_living_one() {
        let mut source = Source::new();
        let (writer, sides) = Writer::new(2, &Arc::default());
        let [first, second] = <[_; 2]>::try_from(sides).ok().unwrap();
        let inbox = second.0.clone();
        let (first, second) = (source.reactor(first), source.reactor(second));
        // Two for each, of whom one ends before it has looked.
        (0..4).for_each(|_| writer.hand_over(source.stream()));
        assert_eq!(inbox.len(), 2);
        drop(first);
        assert_eq!(inbox.len(), 4, "what was left for it is passed on");
        (0..4).for_each(|_| writer.hand_over(source.stream()));
        assert_eq!(inbox.len(), 8);
        assert!(writer.is_alive());
        drop(second);
        assert!(!writer.is_alive(), "from now on streams stay inside hyper");
        writer.hand_over(source.stream());
        assert_eq!((inbox.len(), source.gate.counters().open()), (0, 0), "nothing is kept for nobody");
    }
}
