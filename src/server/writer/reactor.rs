//! The task that drives the entries of a slab.

use std::future::Future;
use std::hint::black_box;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use slab::Slab;
use tokio::io::unix::AsyncFd;
use tokio::time::{Interval, MissedTickBehavior};

use super::entry::{Drive, Entry, close};
use super::{Handed, Line, ReactorSide, Shared, here};
use crate::server::ConnectionCounters;
use crate::server::metrics::Pace;
use crate::server::serve::Visit;
use crate::server::watch::watch;
use crate::sync::Arc;
use crate::wake::Waiter;

/// Entries driven before others on the runtime get their turn.
const TURN: usize = 256;
/// Of those, so many are looked at together before the first is driven.
const AHEAD: usize = 16;
/// Comments go to one entry in so many at a time.
const ROUNDS: usize = 64;
/// Events of sockets looked at in one go.
const EVENTS: usize = 256;

/// Takes a connection whose stream ended, with what the client sent meanwhile.
pub(in crate::server) type GiveBack = Arc<dyn Fn(TcpStream, Visit, Bytes) + Send + Sync>;

/// See the [module documentation](super).
pub(in crate::server) struct Reactor {
    line: Arc<Line>,
    waiter: Waiter,
    handed: flume::Receiver<Handed>,
    sockets: AsyncFd<mio::Poll>,
    events: Events,
    entries: Slab<Box<Entry>>,
    /// No entry has this key or a higher one.
    keys: usize,
    beat: Interval,
    round: usize,
    /// When to time the next event.
    pace: Pace,
    /// Rounds for which a client may take nothing.
    patience: u8,
    scratch: Vec<u8>,
    give_back: GiveBack,
    counters: Arc<ConnectionCounters>,
}

impl Reactor {
    /// Makes a reactor whose quiet streams get a comment every `keep_alive`, and whose stalled ones end after
    /// `stalled_after`.
    pub(in crate::server) fn new(
        handed: flume::Receiver<Handed>,
        side: ReactorSide,
        keep_alive: Duration,
        stalled_after: Duration,
        give_back: GiveBack,
        counters: Arc<ConnectionCounters>,
    ) -> io::Result<Self> {
        let mut beat = tokio::time::interval((keep_alive / ROUNDS as u32).max(Duration::from_millis(1)));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            line: side.0,
            waiter: Waiter::new(),
            handed,
            sockets: watch(mio::Poll::new()?)?,
            events: Events::with_capacity(EVENTS),
            entries: Slab::new(),
            keys: 0,
            beat,
            round: 0,
            pace: Pace::default(),
            patience: u8::try_from(stalled_after.as_millis().div_ceil(keep_alive.as_millis().max(1)))
                .unwrap_or(u8::MAX),
            scratch: Vec::new(),
            give_back,
            counters,
        })
    }

    /// Takes a stream in and sends its head with whatever is pending.
    fn take_in(&mut self, handed: Handed) {
        let Handed { socket, unread, head, mut connection, keep_alive, visit } = handed;
        if self.entries.len() == self.entries.capacity() {
            // Not by doubling: a place counts for each of very many streams.
            self.entries.reserve_exact((self.entries.len() / 8).max(64));
        }
        let vacant = self.entries.vacant_entry();
        let key = vacant.key();
        let Ok(small) = u32::try_from(key) else { return };
        let fd = socket.as_raw_fd();
        let registry = self.sockets.get_ref().registry();
        if let Err(error) = registry.register(&mut SourceFd(&fd), Token(key), Interest::READABLE) {
            tracing::warn!(%error, "cannot watch a socket");
            return;
        }
        connection.ring(self.line.clone(), small);
        vacant.insert(Box::new(Entry::new(socket, connection, unread, keep_alive, visit)));
        self.keys = self.keys.max(key + 1);
        self.scratch.extend_from_slice(&head);
        self.drive(key);
    }

    fn drive(&mut self, key: usize) {
        if let Some(entry) = self.entries.get_mut(key) {
            let driven = entry.drive(&mut self.scratch);
            let probe = &self.line.probe;
            if probe.is_timing(key) {
                probe.stop(matches!(driven, Drive::Waiting | Drive::Done));
            }
            if self.pace.step() {
                probe.arm();
            }
            self.settle(key, driven);
        }
    }

    /// Does what follows from how far an entry got.
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
                    // Tells at once if the socket takes something again by now.
                    if registry.reregister(&mut SourceFd(&fd), Token(key), both).is_err() {
                        self.remove(key);
                    }
                }
            }
            Drive::Broken => drop(self.remove(key)),
            Drive::Done => {
                let (socket, visit, unread, keep_alive) = self.remove(key).into_socket();
                let fd = socket.as_raw_fd();
                let left = self.sockets.get_ref().registry().deregister(&mut SourceFd(&fd));
                if keep_alive && left.is_ok() && !Shared::reads(&self.line.shared.draining) {
                    (self.give_back)(socket, visit, unread);
                } else {
                    close(&socket);
                }
            }
        }
    }

    fn remove(&mut self, key: usize) -> Entry {
        let entry = *self.entries.remove(key);
        if self.entries.is_empty() {
            // What a crowd needed is given back when it is gone.
            self.entries = Slab::new();
            self.keys = 0;
        }
        entry
    }

    /// Looks at what epoll has to say.
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
                // What the client sends beyond its request waits in the kernel until the stream has ended.
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

    /// Gives comments to the quiet ones among one part of the entries.
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

    /// Drives whoever has something to do. False if there is more of it.
    fn turn(&mut self) -> bool {
        let mut keys = [0; AHEAD];
        for _ in 0..TURN / AHEAD {
            let mut count = 0;
            while count < AHEAD
                && let Some(key) = self.line.queue().keys.pop()
            {
                keys[count] = key as usize;
                count += 1;
            }
            let keys = &keys[..count];
            self.warm(keys);
            keys.iter().for_each(|key| self.drive(*key));
            if count == 0 {
                let Ok(handed) = self.handed.try_recv() else { return true };
                self.take_in(handed);
            }
        }
        false
    }

    /// Reads the memory that some entries are about to need, so that what the cache does not hold of it arrives
    /// together, not one after the other.
    fn warm(&self, keys: &[usize]) {
        if keys.len() > 1 {
            let entries = || keys.iter().filter_map(|key| self.entries.get(*key));
            black_box(entries().fold(false, |any, entry| any ^ entry.warm()));
            black_box(entries().fold(false, |any, entry| any ^ entry.warm_connection()));
        }
    }
}

impl Future for Reactor {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let reactor = &mut *self;
        while reactor.beat.poll_tick(context).is_ready() {
            reactor.comment();
        }
        reactor.look_at_sockets(context)?;
        let line = reactor.line.clone();
        let (duty, member) = (&line.shared.duty, line.member);
        duty.begin(member, here());
        if reactor.turn() {
            duty.register(member, &mut reactor.waiter, context.waker());
            // Once more: what came before the registration woke nobody.
            if reactor.turn() {
                duty.rest(member, here());
                let finishing = Shared::reads(&line.shared.finishing);
                return if finishing && reactor.entries.is_empty() {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                };
            }
        }
        // Others first, then the rest. Who else has work need not wait for it.
        duty.share(member);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.line.shared.duty.leave(self.line.member, here());
    }
}
