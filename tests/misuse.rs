//! Safe code that uses the public types of the core in every wrong way there is.
//!
//! What such code reads may be useless. It must not be freed memory, a data race or an entry that was never there:
//! this program is to be run under the address sanitizer (`tests/all.sh sanitizers`), which sees what the assertions
//! here do not.

#![forbid(unsafe_code)]

use std::mem;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, Once};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Buf;
use ringmain::internals::ring::{self, Batch, Cursor, FIRST, Limits, Ring, Step};
use ringmain::internals::sse::{Events, Frame, Series, StreamName};
use ringmain::internals::stream::{Clock, Delivery, LagPolicy, Moment, Stream, Subscriber};
use ringmain::internals::wake::duty::{Duty, Work};
use ringmain::internals::wake::{Bell, Waiter, Waiters};
use ringmain::session::{Sessions, Settings};

/// Keeps the panics that belong to the scenarios out of the output.
fn quietly() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let said = info.payload().downcast_ref::<&str>().copied().unwrap_or_default();
            if !said.ends_with("that panics") {
                report(info);
            }
        }));
    });
}

/// A sequence of numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }

    /// Takes one out of `all`, if there is one.
    fn draw<T>(&mut self, all: &mut Vec<T>) -> Option<T> {
        (!all.is_empty()).then(|| all.swap_remove(self.roll(all.len())))
    }
}

/// How often each scenario is repeated.
const ROUNDS: u64 = 20;

/// An entry that knows whether it is intact, and how many there are.
struct Entry {
    check: u64,
    number: u64,
    live: Arc<AtomicUsize>,
    held: Mutex<Vec<Box<dyn Held>>>,
}

/// What an entry may hold: parts of the ring that it stands in.
trait Held: Send {
    /// Uses it once more.
    fn part(&mut self);
}

impl Held for Cursor<Box<Entry>> {
    fn part(&mut self) {
        // From a ring that has nothing to do with it.
        read(self, &Ring::new());
    }
}

impl Held for Batch<Box<Entry>> {
    fn part(&mut self) {
        self.iter().for_each(|entry| entry.check());
    }
}

const CHECK: u64 = 0x1234_5678_9abc_def0;

impl Entry {
    fn new(number: u64, live: &Arc<AtomicUsize>) -> Box<Self> {
        live.fetch_add(1, Ordering::Relaxed);
        Box::new(Self { check: CHECK ^ number, number, live: live.clone(), held: Mutex::default() })
    }

    fn check(&self) {
        assert_eq!(self.check, CHECK ^ self.number, "an entry that is not one");
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.check();
        self.check = 0;
        self.live.fetch_sub(1, Ordering::Relaxed);
        mem::take(self.held.get_mut().unwrap()).iter_mut().for_each(|held| held.part());
    }
}

/// Reads until there is nothing more, and a bit of it twice.
fn read(cursor: &mut Cursor<Box<Entry>>, ring: &Ring<Box<Entry>>) {
    for _ in 0..200 {
        cursor.warm();
        match cursor.next(ring) {
            Step::Item(entry) => entry.check(),
            Step::Lagged { .. } => {}
            Step::Empty | Step::Ended => return,
        }
    }
}

/// Limits that make chunks end in every way.
fn limits(dice: &mut Dice) -> Limits {
    let capacity = [0, 1, 2, 5, 20, 100, usize::MAX][dice.roll(7)];
    Limits {
        capacity,
        max_weight: [0, 1, u64::MAX][dice.roll(3)],
        max_age_ms: [0, 1, 50, u32::MAX][dice.roll(4)],
    }
}

/// A moment, now and then of another clock.
fn moment(dice: &mut Dice) -> u64 {
    [0, 1, 49, 1000, 1 << 31, u64::from(u32::MAX), u64::MAX][dice.roll(7)]
}

/// Waits until what was evicted is freed, so that a scenario can tell whether anything was lost.
fn settle(live: &AtomicUsize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while live.load(Ordering::SeqCst) > 0 {
        assert!(Instant::now() < deadline, "{} entries are never dropped", live.load(Ordering::SeqCst));
        ring::collect();
        thread::yield_now();
    }
}

/// Does something with one of the rings, cursors and batches.
fn act(
    dice: &mut Dice,
    rings: &mut [Arc<Ring<Box<Entry>>>],
    cursors: &mut Vec<Cursor<Box<Entry>>>,
    batches: &mut Vec<Batch<Box<Entry>>>,
    live: &Arc<AtomicUsize>,
) {
    let ring = rings[dice.roll(rings.len())].clone();
    let (limits, now) = (limits(dice), moment(dice));
    match dice.roll(18) {
        0..=5 => (0..=dice.roll(30)).for_each(|n| {
            if let Err(closed) = ring.publish(Entry::new(n as u64, live), now, &limits) {
                closed.0.check();
            }
        }),
        6 => _ = ring.evict_older(now, &limits),
        7 => _ = ring.trim(0, now, &limits),
        8 if dice.roll(4) == 0 => _ = ring.close(now, &limits),
        9 if dice.roll(4) == 0 => drop(ring.publish_last(Entry::new(0, live), now, &limits)),
        10 => {
            let position = [0, FIRST, ring.oldest(), ring.tail(), ring.tail() + 5, u64::MAX][dice.roll(6)];
            cursors.push(Cursor::at(position));
        }
        11..=13 => {
            if let Some(mut cursor) = dice.draw(cursors) {
                read(&mut cursor, &ring);
                cursors.push(cursor);
            }
        }
        14 | 15 => {
            if let Some(mut cursor) = dice.draw(cursors) {
                if let Step::Item(batch) = cursor.take(&ring, 1 + dice.roll(40), usize::MAX) {
                    batches.push(batch);
                }
                cursors.push(cursor);
            }
        }
        16 => {
            if let Some(batch) = dice.draw(batches) {
                batch.iter().for_each(|entry| entry.check());
                assert_eq!(batch.iter_from(1).count() + 1, batch.len());
            }
        }
        _ => {
            // The others go on with a new one. Somebody else may hold the old one for a while.
            let index = dice.roll(rings.len());
            rings[index] = Arc::new(Ring::new());
        }
    }
}

#[test]
fn cursors_and_batches_go_from_ring_to_ring_and_outlive_them() {
    for seed in 1..=ROUNDS {
        let (mut dice, live) = (Dice(seed), Arc::default());
        let mut rings: Vec<_> = (0..3).map(|_| Arc::new(Ring::new())).collect();
        let (mut cursors, mut batches) = (Vec::new(), Vec::new());
        for _ in 0..400 {
            act(&mut dice, &mut rings, &mut cursors, &mut batches, &live);
        }
        drop(rings);
        let other = Ring::new();
        cursors.iter_mut().for_each(|cursor| read(cursor, &other));
        batches.iter().for_each(|batch| batch.iter().for_each(|entry| entry.check()));
        drop((cursors, batches));
        settle(&live);
    }
}

#[test]
fn threads_hand_cursors_to_one_another_while_rings_are_dropped() {
    for seed in 1..=ROUNDS {
        let live = Arc::default();
        let rings: Mutex<Vec<Arc<Ring<Box<Entry>>>>> =
            Mutex::new((0..3).map(|_| Arc::new(Ring::new())).collect());
        let shared = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for thread in 1..=4_u64 {
                let (rings, shared, live) = (&rings, &shared, &live);
                scope.spawn(move || {
                    let (mut dice, mut batches) = (Dice(seed << 8 | thread), Vec::new());
                    for _ in 0..150 {
                        let mut own = rings.lock().unwrap().clone();
                        let mut cursors: Vec<_> = shared.lock().unwrap().pop().into_iter().collect();
                        let before = own.clone();
                        act(&mut dice, &mut own, &mut cursors, &mut batches, live);
                        // If a ring was given up here, it is given up for all.
                        let mut rings = rings.lock().unwrap();
                        for (index, ring) in own.into_iter().enumerate() {
                            if !Arc::ptr_eq(&ring, &before[index]) {
                                rings[index] = ring;
                            }
                        }
                        drop(rings);
                        shared.lock().unwrap().append(&mut cursors);
                        drop(before);
                    }
                });
            }
        });
        drop((rings, shared));
        settle(&live);
    }
}

/// The last moment of a ring, seen by cursors that are reading another one.
#[test]
fn cursors_read_on_while_their_ring_is_dropped() {
    for seed in 1..=10 * ROUNDS {
        let (mut dice, live) = (Dice(seed), Arc::default());
        let (ring, other) = (Ring::new(), Ring::new());
        let limits = Limits { capacity: 1 << 20, ..Limits::default() };
        (0..200).for_each(|n| assert!(ring.publish(Entry::new(n, &live), n, &limits).is_ok()));
        let mut cursors: Vec<_> = (0..6).map(|_| Cursor::at(1 + dice.roll(200) as u64)).collect();
        cursors.iter_mut().for_each(|cursor| _ = cursor.next(&ring));
        if seed % 2 == 0 {
            ring.evict_older(100, &Limits { max_age_ms: 1, ..limits });
        }
        let barrier = Barrier::new(3);
        thread::scope(|scope| {
            let (barrier, other) = (&barrier, &other);
            scope.spawn(move || {
                barrier.wait();
                drop(ring);
                ring::collect();
            });
            for _ in 0..2 {
                let mut cursors = cursors.split_off(cursors.len() - 3);
                scope.spawn(move || {
                    barrier.wait();
                    cursors.iter_mut().for_each(|cursor| read(cursor, other));
                });
            }
        });
        settle(&live);
    }
}

#[test]
fn entries_hold_parts_of_their_own_ring() {
    let live = Arc::default();
    let limits = Limits { capacity: 1 << 20, ..Limits::default() };
    for kind in 0..3 {
        let ring = Ring::new();
        (0..100).for_each(|n| assert!(ring.publish(Entry::new(n, &live), n, &limits).is_ok()));
        // Each entry holds something further on, so that dropping one is the last use of the next.
        for at in 1..60 {
            let (mut holder, mut ahead) = (Cursor::at(at), Cursor::at(at + 17));
            let held: Box<dyn Held> = match ahead.take(&ring, 20, usize::MAX) {
                Step::Item(batch) if kind == 1 => Box::new(batch),
                _ => Box::new(ahead),
            };
            let Step::Item(entry) = holder.next(&ring) else { panic!("it is there") };
            entry.held.lock().unwrap().push(held);
        }
        if kind == 2 {
            ring.evict_older(60, &Limits { max_age_ms: 20, ..limits });
        }
        drop(ring);
        settle(&live);
    }
}

/// Entries whose drop panics may be leaked, and nothing else.
#[test]
fn an_entry_may_panic_when_it_is_dropped() {
    quietly();
    struct Bad(u64);
    impl Drop for Bad {
        fn drop(&mut self) {
            assert!(!self.0.is_multiple_of(3), "an entry that panics");
        }
    }
    let limits = Limits { capacity: 8, ..Limits::default() };
    for entries in [1, 4, 5, 30] {
        let ring = Ring::new();
        (1..=entries).for_each(|n| {
            drop(catch_unwind(AssertUnwindSafe(|| ring.publish(Box::new(Bad(n)), 0, &limits))))
        });
        let mut cursor = Cursor::at(entries);
        let _ = cursor.next(&ring);
        drop(catch_unwind(AssertUnwindSafe(|| drop(ring))));
        drop(catch_unwind(AssertUnwindSafe(|| _ = cursor.next(&Ring::new()))));
        drop(catch_unwind(AssertUnwindSafe(|| drop(cursor))));
    }
    // In the epoch, where nobody catches it, it would end whoever reclaims; so what is left is reclaimed here.
    (0..1000).for_each(|_| drop(catch_unwind(ring::collect)));
}

/// Counts, and panics now and then.
#[derive(Default)]
struct Caller {
    woken: AtomicUsize,
    panics: bool,
    /// What it does besides: it may use the waiters that wake it.
    also: Mutex<Option<Box<dyn FnMut() + Send>>>,
}

impl Caller {
    fn call(&self) {
        self.woken.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut also) = self.also.try_lock()
            && let Some(also) = also.as_mut()
        {
            also();
        }
        assert!(!self.panics, "a waker that panics");
    }
}

impl Wake for Caller {
    fn wake(self: Arc<Self>) {
        self.call();
    }
}

impl Bell for Caller {
    fn ring(&self, _key: u32) {
        self.call();
    }
}

fn caller(panics: bool) -> Arc<Caller> {
    Arc::new(Caller { panics, ..Caller::default() })
}

#[test]
fn waiters_are_given_to_several_and_dropped_at_odd_times() {
    quietly();
    for seed in 1..=ROUNDS {
        let all: Vec<_> = (0..3).map(|_| Arc::new(Waiters::new())).collect();
        thread::scope(|scope| {
            for thread in 1..=3_u64 {
                let mut all = all.clone();
                scope.spawn(move || {
                    let mut dice = Dice(seed << 8 | thread);
                    let callers = [caller(false), caller(true)];
                    let mut waiters: Vec<Waiter> = Vec::new();
                    for _ in 0..500 {
                        let (which, who) = (dice.roll(3), callers[usize::from(dice.roll(8) == 0)].clone());
                        match dice.roll(8) {
                            0 => waiters.push(Waiter::new()),
                            1 => waiters.push(Waiter::ringing(who, thread as u32)),
                            2 | 3 => {
                                if let Some(mut waiter) = dice.draw(&mut waiters) {
                                    waiter.warm();
                                    // A wake that comes meanwhile calls the waker on this thread.
                                    let waker = who.into();
                                    let register =
                                        AssertUnwindSafe(|| all[which].register(&mut waiter, &waker));
                                    drop(catch_unwind(register));
                                    waiters.push(waiter);
                                }
                            }
                            4 => drop(dice.draw(&mut waiters)),
                            5 => drop(catch_unwind(AssertUnwindSafe(|| all[which].wake()))),
                            6 => mem::forget(dice.draw(&mut waiters)),
                            _ if dice.roll(20) == 0 => {
                                let old = mem::replace(&mut all[which], Arc::new(Waiters::new()));
                                drop(catch_unwind(AssertUnwindSafe(|| drop(old))));
                            }
                            _ => {}
                        }
                    }
                    drop(catch_unwind(AssertUnwindSafe(|| drop(all))));
                });
            }
        });
        drop(catch_unwind(AssertUnwindSafe(|| drop(all))));
    }
}

#[test]
fn a_waker_uses_the_waiters_that_wake_it() {
    quietly();
    let waiters = Arc::new(Waiters::new());
    let (own, other) = (caller(false), caller(true));
    let (inner, mut waiter, again) = (waiters.clone(), Waiter::new(), Waker::from(other.clone()));
    *own.also.lock().unwrap() = Some(Box::new(move || {
        inner.register(&mut waiter, &again);
        drop(catch_unwind(AssertUnwindSafe(|| inner.wake())));
        waiter = Waiter::new();
        inner.register(&mut waiter, &again);
    }));
    let mut first = Waiter::new();
    for _ in 0..10 {
        waiters.register(&mut first, &own.clone().into());
        drop(catch_unwind(AssertUnwindSafe(|| waiters.wake())));
    }
    assert_eq!(own.woken.load(Ordering::Relaxed), 10);
    assert!(other.woken.load(Ordering::Relaxed) >= 10);
    // The last waiter of the closure is woken when it is dropped, with all that it holds.
    drop(catch_unwind(AssertUnwindSafe(move || drop((own, waiters)))));
}

#[test]
fn the_duty_is_given_to_members_that_come_and_go_as_they_like() {
    quietly();
    struct Pile(AtomicU64);
    impl Work for Pile {
        fn is_left(&self) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(3)
        }
    }
    let duty = Duty::new((0..4).map(|_| Pile(AtomicU64::new(0))));
    thread::scope(|scope| {
        for thread in 1..=3_u64 {
            let duty = &duty;
            scope.spawn(move || {
                let (mut dice, mut waiter) = (Dice(thread), Waiter::new());
                for _ in 0..2000 {
                    let (member, here) = (dice.roll(4), [0, thread, u64::MAX][dice.roll(3)]);
                    let who = caller(dice.roll(10) == 0);
                    let act = AssertUnwindSafe(|| match dice.roll(8) {
                        0 => duty.call(member, here),
                        1 => duty.begin(member, here),
                        2 => duty.retire(member, here),
                        3 => duty.share(member),
                        4 if thread == 1 => duty.leave(member, here),
                        5 => duty.wake(member),
                        _ => duty.register(member, &mut waiter, &who.into()),
                    });
                    drop(catch_unwind(act));
                }
            });
        }
    });
    drop(catch_unwind(AssertUnwindSafe(|| drop(duty))));
}

/// A frame whose text is its length in digits, again and again.
fn frame(dice: &mut Dice) -> Frame {
    let text = dice.roll(300).to_string().repeat(1 + dice.roll(30));
    let write = |out: &mut Vec<u8>| out.extend_from_slice(text.as_bytes());
    if dice.roll(2) == 0 { Frame::shared(write) } else { Frame::whole(name(dice), write) }
}

fn name(dice: &mut Dice) -> StreamName {
    StreamName { tag: dice.roll(usize::MAX) as u32, stream: [0, 1, 9, u32::MAX][dice.roll(4)] }
}

fn series(dice: &mut Dice) -> Series {
    let StreamName { tag, stream } = name(dice);
    match dice.roll(3) {
        0 => Series::Topic,
        1 => Series::Own { tag, lineage: stream, broadcast: u64::MAX },
        _ => Series::Request(StreamName { tag, stream }),
    }
}

fn write_out(batch: Batch<Frame>, dice: &mut Dice) {
    // Under a name that the frames were not made for. The bytes are of no use then, nor is their number.
    let events = Events::new(batch, series(dice));
    let mut out = Vec::with_capacity(events.wire_len());
    events.append_to(&mut out);
    let mut buf = events.into_buf();
    while buf.has_remaining() && !buf.chunk().is_empty() {
        let step = buf.chunk().len().min(buf.remaining()).min(1 + dice.roll(100));
        out.extend_from_slice(&buf.chunk()[..step]);
        buf.advance(step);
    }
}

#[test]
fn subscribers_are_given_foreign_streams() {
    for seed in 1..=ROUNDS {
        let mut streams: Vec<_> = (0..3).map(|_| Arc::new(Stream::new())).collect();
        let shared: Mutex<Vec<Subscriber>> = Mutex::default();
        thread::scope(|scope| {
            for thread in 1..=3_u64 {
                let (mut streams, shared) = (streams.clone(), &shared);
                scope.spawn(move || {
                    let (mut dice, mut kept) = (Dice(seed << 8 | thread), Vec::new());
                    let (who, mut waiter) = (caller(false), Waiter::new());
                    let waker = who.clone().into();
                    let mut context = Context::from_waker(&waker);
                    for _ in 0..300 {
                        let (stream, limits) = (streams[dice.roll(3)].clone(), limits(&mut dice));
                        let now = Moment(moment(&mut dice));
                        let subscriber = shared.lock().unwrap().pop();
                        match (dice.roll(16), subscriber) {
                            (0..=3, _) => {
                                let frame = frame(&mut dice);
                                // Of a whole frame there may be no second.
                                let twin = (!frame.is_whole()).then(|| frame.clone());
                                kept.push(frame.data_bytes());
                                drop(twin.map(|twin| stream.publish(twin, now, &limits)));
                                let publish = AssertUnwindSafe(|| stream.publish(frame, now, &limits));
                                drop(catch_unwind(publish));
                            }
                            (4, _) => {
                                let policy =
                                    [LagPolicy::Signal, LagPolicy::End, LagPolicy::Wait][dice.roll(3)];
                                let after = [None, Some(0), Some(3), Some(u64::MAX)][dice.roll(4)];
                                shared.lock().unwrap().push(stream.attach(after, policy));
                            }
                            (5, Some(mut subscriber)) => {
                                subscriber.detach(&stream);
                                shared.lock().unwrap().push(subscriber);
                            }
                            (6, Some(mut subscriber)) => {
                                subscriber.ring(who.clone(), 3);
                                shared.lock().unwrap().push(subscriber);
                            }
                            (7, subscriber) => drop(subscriber),
                            (8, _) => _ = stream.trim(0, now, &limits),
                            (9, _) => _ = stream.evict_older(now, &limits),
                            (10, _) => _ = stream.hang_up(),
                            (11, _) => _ = stream.poll_room(&mut waiter, dice.roll(3) as u64, &mut context),
                            (12, _) if dice.roll(6) == 0 => _ = stream.close(now, &limits),
                            (13, _) => streams[dice.roll(3)] = Arc::new(Stream::new()),
                            (_, Some(mut subscriber)) => {
                                subscriber.warm(&stream);
                                let _ = subscriber.poll_started(&stream, &mut context);
                                while let Poll::Ready(Delivery::Frames(batch)) =
                                    subscriber.poll_next(&stream, &mut context)
                                {
                                    write_out(batch, &mut dice);
                                }
                                shared.lock().unwrap().push(subscriber);
                            }
                            (_, None) => {}
                        }
                    }
                    // Bytes of frames whose streams are gone.
                    drop(streams);
                    kept.iter().for_each(|bytes| assert!(bytes.iter().all(u8::is_ascii_digit)));
                });
            }
        });
        streams.clear();
        let stream = Stream::new();
        for subscriber in shared.lock().unwrap().iter_mut() {
            drop(subscriber.try_next(&stream));
            subscriber.detach(&stream);
        }
    }
}

#[test]
fn connections_outlive_their_sessions_and_these_the_registry() {
    let clock = Clock::default();
    let sessions = Sessions::new(Settings::default(), clock.clone());
    let (mut context, mut connections, mut pieces) =
        (Context::from_waker(Waker::noop()), Vec::new(), Vec::new());
    for _ in 0..30 {
        let session = sessions.create(None);
        for n in 0..30 {
            let publish = |out: &mut Vec<u8>| out.extend_from_slice(format!("{{\"n\":{n}}}").as_bytes());
            session.publish(publish).unwrap();
        }
        // Each takes the stream from the one before it.
        for _ in 0..3 {
            let mut connection = session.connect(None).unwrap();
            if let Poll::Ready(Some(piece)) = connection.poll_next(&mut context) {
                pieces.push(piece);
            }
            connections.push(connection);
        }
        sessions.terminate(&session);
    }
    drop(sessions);
    for connection in &mut connections {
        while let Poll::Ready(Some(piece)) = connection.poll_next(&mut context) {
            pieces.push(piece);
        }
        clock.advance(Moment(u64::MAX));
        drop(connection.session().connect(Some("00000000-1-0000000000000001".parse().unwrap())));
        assert!(connection.session().publish(|out| out.push(b'1')).is_err());
    }
    drop(connections);
    ring::collect();
    for piece in pieces {
        let mut copied = Vec::new();
        piece.append_to(&mut copied);
        let mut buf = piece.into_buf();
        assert_eq!(buf.copy_to_bytes(buf.remaining()), copied);
    }
}
