//! The ring: publishing, reading, evicting and finishing, in every order.

#![cfg(ringmain_loom)]
#![allow(unsafe_code, reason = "an entry gives its pointer to a slot, and its cell is read by hand")]

use loom::alloc::Track;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};

use loom_tests::{BOUND, LARGE, SMALL, Thread, go, model, step};
use ringmain::internals::ring::{self, Batch, Cursor, Entry, FIRST, Limits, Position, Ref, Ring, Step};

/// An entry that loom watches: its position is written by the publisher and by the drop, and read by readers,
/// so that a missing order among them is a data race; and it must be dropped, once.
struct Event(Box<Body>);

struct Body {
    position: UnsafeCell<Position>,
    number: u64,
    weight: usize,
    /// Set when somebody asks what the entry weighs.
    weighed: Option<Arc<AtomicBool>>,
    _tracked: Track<()>,
}

// SAFETY: the cell is written before the entry is published and after the last reader gave it up; that this
// is so is what the models check.
unsafe impl Send for Body {}
// SAFETY: as above.
unsafe impl Sync for Body {}

impl Drop for Body {
    fn drop(&mut self) {
        // SAFETY: the drop has the cell to itself, or loom says that it has not.
        self.position.with_mut(|position| unsafe { *position = 0 });
    }
}

// SAFETY: the box's own.
unsafe impl Entry for Event {
    fn into_raw(self) -> *mut () {
        Entry::into_raw(self.0)
    }

    unsafe fn from_raw(raw: *mut ()) -> Self {
        // SAFETY: passed on.
        Self(unsafe { Entry::from_raw(raw) })
    }

    fn place(&mut self, position: Position) {
        // SAFETY: the publisher has the entry to itself, or loom says that it has not.
        self.0.position.with_mut(|own| unsafe { *own = position });
    }

    fn weight(&self) -> usize {
        if let Some(weighed) = &self.0.weighed {
            weighed.store(true, Ordering::Relaxed); // Relaxed: so that no model passes for the order it brings
        }
        self.0.weight
    }
}

impl Event {
    /// The entry that is told apart by `number`.
    fn new(number: u64) -> Self {
        Self::weighing(number, 0)
    }

    fn weighing(number: u64, weight: usize) -> Self {
        let (position, weighed) = (UnsafeCell::new(0), None);
        Self(Box::new(Body { position, number, weight, weighed, _tracked: Track::new(()) }))
    }

    fn position(&self) -> Position {
        // SAFETY: nobody writes what is published, or loom says that somebody does.
        self.0.position.with(|position| unsafe { *position })
    }
}

/// A ring and its limits, shared by the threads of a model.
type Shared = Arc<(Ring<Event>, Limits)>;

/// Entries are old after so many milliseconds.
const OLD: u64 = 1000;
/// A moment at which those published at moment 0 are not old yet, and at which one is published that is young
/// when they are.
const SOON: u64 = OLD - 1;

/// A ring of chunks of `capacity` slots, with entries numbered from 1 on published at moment 0.
fn ring(capacity: usize, published: u64) -> Shared {
    let shared = Arc::new((Ring::new(), Limits { capacity, max_age_ms: OLD as u32, ..Limits::default() }));
    (1..=published).for_each(|number| assert!(publish(&shared, number).is_some()));
    shared
}

fn publish(shared: &Shared, number: u64) -> Option<Position> {
    step();
    shared.0.publish(Event::new(number), 0, &shared.1).ok()
}

fn publish_last(shared: &Shared, number: u64) -> Option<Position> {
    step();
    shared.0.publish_last(Event::new(number), 0, &shared.1).ok()
}

fn publish_at(shared: &Shared, number: u64, now: u64) -> Option<Position> {
    step();
    shared.0.publish(Event::new(number), now, &shared.1).ok()
}

/// Makes a thread of the model that runs `act`.
fn spawn<R: 'static>(shared: &Shared, act: impl FnOnce(&Shared) -> R + 'static) -> Thread<R> {
    let shared = shared.clone();
    loom_tests::spawn(move || act(&shared))
}

/// Frees what was evicted and nobody is pinned for: the epoch takes a few steps to find that out.
fn collect() {
    (0..3).for_each(|_| ring::collect());
}

/// The number of the entry, which knows that it stands at `position`.
fn intact(entry: &Ref<'_, Event>, position: Position) -> u64 {
    assert_eq!(entry.position(), position, "an entry stands where it was told");
    entry.0.number
}

/// What one cursor read, in order.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Log {
    numbers: Vec<u64>,
    missed: u64,
    ended: bool,
}

/// Reads until there is nothing more.
fn read(cursor: &mut Cursor<Event>, shared: &Shared, log: &mut Log) {
    loop {
        step();
        let position = cursor.position();
        match cursor.next(&shared.0) {
            Step::Item(entry) => log.numbers.push(intact(&entry, position)),
            Step::Lagged { missed } => log.missed += missed,
            Step::Empty => return,
            Step::Ended => {
                log.ended = true;
                return;
            }
        }
    }
}

fn read_from(position: Position, shared: &Shared) -> Log {
    let mut log = Log::default();
    read(&mut Cursor::at(position), shared, &mut log);
    log
}

fn numbers(batch: &Batch<Event>, from: Position) -> Vec<u64> {
    batch.iter().zip(from..).map(|(entry, position)| intact(&entry, position)).collect()
}

// ---- Publishing ----

#[test]
fn racing_publishers_get_positions_without_gaps_and_readers_see_what_they_wrote() {
    let outcomes = model(BOUND, || {
        let shared = ring(3, 1);
        let others = [2, 3].map(|number| spawn(&shared, move |shared| publish(shared, number)));
        go();
        let (mut cursor, mut log) = (Cursor::at(FIRST), Log::default());
        read(&mut cursor, &shared, &mut log);
        let early = log.numbers.len();
        let positions = others.map(|other| other.join().unwrap());
        read(&mut cursor, &shared, &mut log);
        assert_eq!(positions[0] + positions[1], 2 + 3);
        assert_eq!(log.numbers, if positions[0] == 2 { [1, 2, 3] } else { [1, 3, 2] });
        (early, positions[0])
    });
    assert_eq!(outcomes.len(), 6, "any number is read early, in either order");
}

#[test]
fn racing_publishers_cross_a_chunk_without_a_gap() {
    let outcomes = model(SMALL, || {
        let shared = ring(2, 1);
        let other = spawn(&shared, |shared| publish(shared, 2).unwrap());
        go();
        let own = publish(&shared, 3).unwrap();
        assert_eq!(other.join() + own, 2 + 3);
        assert_eq!(read_from(1, &shared).numbers, if own == 3 { [1, 2, 3] } else { [1, 3, 2] });
        own
    });
    assert!(outcomes.into_iter().eq([2, 3]));
}

#[test]
fn a_full_chunk_is_linked_once_by_racing_publishers() {
    let outcomes = model(SMALL, || {
        let shared = ring(2, 2);
        let other = spawn(&shared, |shared| publish(shared, 3).unwrap());
        go();
        let own = publish(&shared, 4).unwrap();
        assert_eq!(other.join() + own, 3 + 4);
        assert_eq!(read_from(1, &shared).numbers, if own == 4 { [1, 2, 3, 4] } else { [1, 2, 4, 3] });
        own
    });
    assert!(outcomes.into_iter().eq([3, 4]));
}

#[test]
fn the_first_chunk_is_installed_once_by_racing_publishers() {
    let outcomes = model(SMALL, || {
        let shared = ring(2, 0);
        let other = spawn(&shared, |shared| publish(shared, 1).unwrap());
        go();
        let own = publish(&shared, 2).unwrap();
        assert_eq!(other.join() + own, 1 + 2);
        assert_eq!(read_from(1, &shared).numbers, if own == 2 { [1, 2] } else { [2, 1] });
        own
    });
    assert!(outcomes.into_iter().eq([1, 2]));
}

#[test]
fn a_chunk_cut_short_by_weight_leaves_no_gap() {
    model(BOUND, || {
        let limits = Limits { capacity: 4, max_weight: 8, ..Limits::default() };
        let shared = Arc::new((Ring::new(), limits));
        let heavy = |number| {
            move |shared: &Shared| shared.0.publish(Event::weighing(number, 2), 0, &shared.1).unwrap()
        };
        let other = spawn(&shared, heavy(1));
        go();
        let own = heavy(2)(&shared);
        assert_eq!(other.join() + own, 1 + 2);
        assert_eq!(heavy(3)(&shared), 3);
        assert_eq!(read_from(1, &shared).numbers, if own == 2 { [1, 2, 3] } else { [2, 1, 3] });
    });
}

// ---- Looking ----

#[test]
fn a_cursor_made_while_publishing_reads_every_entry_once() {
    let outcomes = model(SMALL, || {
        let shared = ring(2, 0);
        let other =
            spawn(&shared, |shared| (1..=3).for_each(|number| assert!(publish(shared, number).is_some())));
        go();
        let (mut cursor, mut log) = (Cursor::at(FIRST), Log::default());
        read(&mut cursor, &shared, &mut log);
        let early = log.numbers.len();
        other.join();
        read(&mut cursor, &shared, &mut log);
        let [missed, ref read @ ..] = [vec![log.missed], log.numbers].concat()[..] else { unreachable!() };
        assert!(read.iter().copied().eq(missed + 1..=3));
        early
    });
    assert!(outcomes.into_iter().eq(0..=3));
}

#[test]
fn the_tail_never_names_more_than_can_be_read() {
    let outcomes = model(SMALL, || {
        let shared = ring(2, 0);
        let other =
            spawn(&shared, |shared| (1..=2).for_each(|number| assert!(publish(shared, number).is_some())));
        go();
        let tail = shared.0.tail();
        assert!(read_from(FIRST, &shared).numbers.len() as u64 >= tail - FIRST);
        other.join();
        assert_eq!(shared.0.tail(), 3);
        tail
    });
    assert!(outcomes.into_iter().eq(1..=3));
}

#[test]
fn the_tail_never_names_more_than_can_be_read_with_two_publishers() {
    model(BOUND, || {
        let shared = ring(3, 1);
        let others = [2, 3].map(|number| spawn(&shared, move |shared| publish(shared, number)));
        go();
        let tail = shared.0.tail();
        assert!(read_from(FIRST, &shared).numbers.len() as u64 >= tail - FIRST);
        others.into_iter().for_each(|other| assert!(other.join().is_some()));
    });
}

// ---- Evicting ----

#[test]
fn a_reader_gets_each_entry_or_is_told_how_many_it_missed() {
    let outcomes = model(BOUND, || {
        let shared = ring(1, 1);
        let other = spawn(&shared, |shared| {
            (2..=4).for_each(|number| assert!(publish(shared, number).is_some()));
            collect();
        });
        go();
        let (mut cursor, mut log) = (Cursor::at(FIRST), Log::default());
        read(&mut cursor, &shared, &mut log);
        other.join();
        read(&mut cursor, &shared, &mut log);
        assert!(log.numbers.is_sorted(), "an entry keeps its place");
        assert_eq!(log.numbers.len() as u64 + log.missed, 4);
        log
    });
    assert!(outcomes.iter().any(|log| log.missed == 0) && outcomes.iter().any(|log| log.missed > 0));
}

#[test]
fn a_reader_on_an_evicted_chunk_does_not_follow_it_into_freed_memory() {
    let outcomes = model(BOUND, || {
        let shared = ring(1, 2);
        let (mut cursor, mut log) = (Cursor::at(FIRST), Log::default());
        assert!(matches!(cursor.next(&shared.0), Step::Item(_)));
        let other = spawn(&shared, |shared| {
            (3..=4).for_each(|number| assert!(publish(shared, number).is_some()));
            collect();
        });
        go();
        read(&mut cursor, &shared, &mut log);
        other.join();
        read(&mut cursor, &shared, &mut log);
        assert_eq!(log.numbers.len() as u64 + log.missed, 3);
        log
    });
    assert!(outcomes.iter().any(|log| log.missed == 0) && outcomes.iter().any(|log| log.missed > 0));
}

#[test]
fn a_reader_that_looks_up_the_oldest_chunk_does_not_meet_it_freed() {
    let outcomes = model(SMALL, || {
        let shared = ring(1, 2);
        let other = spawn(&shared, |shared| {
            assert!(publish(shared, 3).is_some());
            collect();
        });
        go();
        let mut early = Cursor::at(FIRST);
        let first = match early.next(&shared.0) {
            Step::Item(entry) => intact(&entry, 1),
            step => {
                assert!(matches!(step, Step::Lagged { missed: 1 }));
                0
            }
        };
        other.join();
        first
    });
    assert!(outcomes.into_iter().eq([0, 1]));
}

#[test]
fn a_reader_that_looks_up_the_tail_does_not_meet_it_freed() {
    let outcomes = model(LARGE, || {
        let shared = ring(1, 2);
        let other = spawn(&shared, |shared| {
            (3..=4).for_each(|number| assert!(publish(shared, number).is_some()));
            collect();
        });
        go();
        let found = match Cursor::at(2).next(&shared.0) {
            Step::Item(entry) => intact(&entry, 2),
            step => {
                assert!(matches!(step, Step::Lagged { missed: 1 }));
                0
            }
        };
        other.join();
        found
    });
    assert!(outcomes.into_iter().eq([0, 2]));
}

#[test]
fn a_publisher_does_not_meet_its_chunk_freed() {
    model(BOUND, || {
        let shared = ring(1, 1);
        let other = spawn(&shared, |shared| {
            (2..=3).for_each(|number| assert!(publish(shared, number).is_some()));
            collect();
        });
        go();
        assert!(publish(&shared, 9).is_some());
        other.join();
        let log = read_from(FIRST, &shared);
        assert_eq!(log.numbers.len() as u64 + log.missed, 4);
    });
}

#[test]
fn a_batch_keeps_its_entries_while_their_chunk_is_evicted() {
    let outcomes = model(BOUND, || {
        let shared = ring(1, 2);
        let mut cursor = Cursor::at(FIRST);
        let other = spawn(&shared, |shared| {
            (3..=4).for_each(|number| assert!(publish(shared, number).is_some()));
            collect();
        });
        go();
        let taken = cursor.take(&shared.0, 2, usize::MAX);
        other.join();
        collect();
        let Step::Item(batch) = taken else { return vec![] };
        assert!(matches!(cursor.take(&shared.0, 8, usize::MAX), Step::Item(_) | Step::Lagged { .. }));
        numbers(&batch, 1)
    });
    assert!(outcomes.contains(&vec![1, 2]) && outcomes.contains(&vec![]));
}

#[test]
fn a_batch_of_whole_chunks_is_taken_while_they_are_evicted() {
    let outcomes = model(BOUND, || {
        // Chunks of 1, 1 and 2 slots, each entry as heavy as its number. The fifth needs a new chunk, and the
        // publisher that links it lets the first two go.
        let shared = Arc::new((Ring::new(), Limits { capacity: 1, ..Limits::default() }));
        let heavy = |shared: &Shared, number, capacity| {
            let entry = Event::weighing(number, number as usize);
            assert!(shared.0.publish(entry, 0, &Limits { capacity, ..shared.1 }).is_ok());
        };
        [(1, 1), (2, 1), (3, 2), (4, 2)]
            .into_iter()
            .for_each(|(number, capacity)| heavy(&shared, number, capacity));
        let other = spawn(&shared, move |shared| {
            step();
            heavy(shared, 5, 1);
            collect();
        });
        go();
        let (mut cursor, mut read, mut missed, mut whole) = (Cursor::at(FIRST), Vec::new(), 0, 0);
        let mut joined = Some(other);
        loop {
            step();
            let from = cursor.position();
            match cursor.take(&shared.0, 8, usize::MAX) {
                Step::Item(batch) => {
                    // Chunks are freed here if the batch or the cursor does not keep them.
                    if let Some(other) = joined.take() {
                        other.join();
                        whole = batch.len();
                    }
                    let numbers = numbers(&batch, from);
                    assert_eq!((batch.len(), batch.weight() as u64), (numbers.len(), numbers.iter().sum()));
                    read.extend(numbers);
                }
                Step::Lagged { missed: more } => missed += more,
                Step::Empty if joined.is_none() => break,
                Step::Empty | Step::Ended => unreachable!(),
            }
        }
        assert!(missed <= 2 && read.is_sorted() && read.ends_with(&[3, 4, 5]));
        assert_eq!(read.len() as u64 + missed, 5);
        (whole, missed)
    });
    assert!(outcomes.contains(&(4, 0)) && outcomes.contains(&(5, 0)), "a batch of three chunks or more");
    assert!(outcomes.iter().any(|(_, missed)| *missed > 0));
}

#[test]
fn the_last_owner_of_a_chunk_drops_what_others_read() {
    model(SMALL, || {
        let shared = ring(2, 2);
        let Step::Item(batch) = Cursor::at(FIRST).take(&shared.0, 2, usize::MAX) else { unreachable!() };
        let other = loom_tests::spawn(move || assert_eq!(numbers(&batch, 1), [1, 2]));
        go();
        drop(shared);
        other.join();
    });
}

#[test]
fn racing_evictors_give_a_chunk_up_once() {
    let outcomes = model(SMALL, || {
        let shared = ring(1, 1);
        assert_eq!(publish_at(&shared, 2, SOON), Some(2));
        let other = spawn(&shared, |shared| shared.0.evict_older(OLD, &shared.1));
        go();
        let own = shared.0.evict_older(OLD, &shared.1);
        assert_eq!(own + other.join(), 1, "each counts what it evicted itself");
        collect();
        assert_eq!(read_from(FIRST, &shared), Log { numbers: vec![2], missed: 1, ended: false });
        own
    });
    assert!(outcomes.into_iter().eq([0, 1]));
}

#[test]
fn a_publisher_that_needs_a_chunk_and_an_evictor_give_what_is_old_up_once() {
    let outcomes = model(BOUND, || {
        let shared = ring(1, 1);
        let other = spawn(&shared, |shared| shared.0.evict_older(OLD, &shared.1));
        go();
        assert_eq!(publish_at(&shared, 2, OLD), Some(2));
        let evicted = other.join();
        collect();
        assert_eq!(read_from(FIRST, &shared), Log { numbers: vec![2], missed: 1, ended: false });
        evicted
    });
    assert!(outcomes.into_iter().eq([0, 1]));
}

/// Lets what is old at `now` go, and takes the first step towards freeing it, without a step of others between.
fn evict_at_once(shared: &Shared, now: u64) {
    loom::stop_exploring();
    shared.0.evict_older(now, &shared.1);
    ring::collect();
    loom::explore();
}

/// Frees what it can, without a step of others between.
fn collect_at_once() {
    step();
    loom::stop_exploring();
    collect();
    loom::explore();
}

#[test]
fn a_reader_between_two_evictors_does_not_meet_the_second_chunk_freed() {
    let outcomes = model(BOUND, || {
        // Chunks of 1, 1 and 2 slots, each young when the one before it is old.
        let shared = ring(1, 1);
        let limits = Limits { capacity: 2, max_age_ms: 10 * OLD as u32, ..shared.1 };
        for (number, now) in [(2, SOON), (3, 2 * SOON)] {
            let limits = Limits { capacity: number as usize - 1, ..limits };
            assert!(shared.0.publish(Event::new(number), now, &limits).is_ok());
        }
        let mut cursor = Cursor::at(FIRST);
        assert!(matches!(cursor.next(&shared.0), Step::Item(_)));
        let reader = spawn(&shared, move |shared| match cursor.next(&shared.0) {
            Step::Item(entry) => intact(&entry, 2),
            step => {
                assert!(matches!(step, Step::Lagged { missed: 1 }));
                0
            }
        });
        let evictor = spawn(&shared, |shared| evict_at_once(shared, SOON + OLD));
        go();
        shared.0.evict_older(OLD, &shared.1);
        collect_at_once();
        evictor.join();
        reader.join()
    });
    assert!(outcomes.into_iter().eq([0, 2]));
}

#[test]
fn a_publisher_between_another_and_an_evictor_does_not_meet_the_tail_freed() {
    let outcomes = model(BOUND, || {
        let shared = ring(1, 1);
        let publisher = spawn(&shared, |shared| publish_at(shared, 2, SOON).unwrap());
        let evictor = spawn(&shared, |shared| evict_at_once(shared, OLD));
        go();
        let own = publish_at(&shared, 3, SOON).unwrap();
        collect_at_once();
        evictor.join();
        assert_eq!(publisher.join() + own, 2 + 3);
        let log = read_from(FIRST, &shared);
        assert_eq!(log.numbers.len() as u64 + log.missed, 3);
        own
    });
    assert!(outcomes.into_iter().eq([2, 3]));
}

#[test]
fn a_reader_finds_what_eviction_by_age_left() {
    let outcomes = model(SMALL, || {
        let shared = ring(2, 1);
        let other = spawn(&shared, |shared| shared.0.evict_older(OLD, &shared.1));
        go();
        let log = read_from(FIRST, &shared);
        assert_eq!((other.join(), log.numbers.len() as u64 + log.missed), (1, 1));
        log.missed
    });
    assert!(outcomes.into_iter().eq([0, 1]));
}

/// A ring of one chunk of two slots, with one entry that weighs something.
fn heavy_ring() -> Shared {
    let shared = ring(2, 0);
    assert!(shared.0.publish(Event::weighing(1, 4), 0, &shared.1).is_ok());
    shared
}

// ---- Beyond the tail ----

#[test]
fn a_cursor_beyond_the_tail_is_served_behind_a_chunk_cut_short_by_weight() {
    let outcomes = model(SMALL, || {
        let shared = Arc::new((Ring::new(), Limits { capacity: 4, max_weight: 8, ..Limits::default() }));
        assert_eq!(publish(&shared, 1), Some(1));
        let other = spawn(&shared, |shared| {
            step();
            // As heavy as a chunk may be: the next entry goes to a new one.
            shared.0.publish(Event::weighing(2, 2), 0, &shared.1).unwrap();
            (3..=4).for_each(|number| assert!(publish(shared, number).is_some()));
        });
        go();
        let (mut cursor, mut log) = (Cursor::at(4), Log::default());
        read(&mut cursor, &shared, &mut log);
        let early = log.numbers.len();
        other.join();
        read(&mut cursor, &shared, &mut log);
        assert_eq!(log, Log { numbers: vec![4], missed: 0, ended: false });
        early
    });
    assert!(outcomes.into_iter().eq([0, 1]));
}

#[test]
fn a_cursor_beyond_the_tail_is_served_although_the_ring_is_trimmed() {
    let outcomes = model(SMALL, || {
        let shared = ring(4, 0);
        assert!(shared.0.publish(Event::weighing(1, 4), 0, &shared.1).is_ok());
        let other = spawn(&shared, |shared| {
            let trimmed = shared.0.trim(0, 0, &shared.1);
            (2..=3).for_each(|number| assert!(publish(shared, number).is_some()));
            trimmed
        });
        go();
        let (mut cursor, mut log) = (Cursor::at(3), Log::default());
        read(&mut cursor, &shared, &mut log);
        let early = log.numbers.len();
        assert_eq!(other.join(), 4);
        read(&mut cursor, &shared, &mut log);
        assert_eq!(log, Log { numbers: vec![3], missed: 0, ended: false });
        early
    });
    assert!(outcomes.into_iter().eq([0, 1]));
}

#[test]
fn a_cursor_beyond_the_tail_ends_with_the_ring() {
    let outcomes = model(SMALL, || {
        let shared = ring(4, 1);
        let other = spawn(&shared, |shared| shared.0.close(0, &shared.1));
        go();
        let mut cursor = Cursor::at(4);
        let early = matches!(cursor.next(&shared.0), Step::Ended);
        assert!(other.join());
        assert!(matches!(cursor.next(&shared.0), Step::Ended));
        early
    });
    assert!(outcomes.into_iter().eq([false, true]));
}

// ---- Trimming ----

#[test]
fn a_reader_gets_what_is_trimmed_or_is_told() {
    let outcomes = model(SMALL, || {
        let shared = heavy_ring();
        let other = spawn(&shared, |shared| shared.0.trim(0, 0, &shared.1));
        go();
        let log = read_from(FIRST, &shared);
        assert_eq!((other.join(), log.numbers.len() as u64 + log.missed), (4, 1));
        log.missed
    });
    assert!(outcomes.into_iter().eq([0, 1]));
}

#[test]
fn a_trim_tells_exactly_what_it_let_go() {
    let outcomes = model(SMALL, || {
        let shared = heavy_ring();
        let other = spawn(&shared, |shared| shared.0.trim(0, 0, &shared.1));
        go();
        assert_eq!(shared.0.publish(Event::weighing(2, 1), 0, &shared.1).ok(), Some(2));
        let trimmed = other.join();
        let log = read_from(FIRST, &shared);
        assert_eq!(log.numbers.len() as u64 + log.missed, 2);
        assert_eq!(trimmed, [0, 4, 5][log.missed as usize]);
        log.missed
    });
    assert!(outcomes.contains(&0) && outcomes.contains(&1));
}

#[test]
fn what_is_published_after_a_trim_looked_stays() {
    let outcomes = model(SMALL, || {
        let shared = ring(2, 0);
        let (mut first, weighed) = (Event::weighing(1, 4), Arc::new(AtomicBool::new(false)));
        first.0.weighed = Some(weighed.clone());
        assert!(shared.0.publish(first, 0, &shared.1).is_ok());
        weighed.store(false, Ordering::Relaxed);
        let other = spawn(&shared, |shared| shared.0.trim(0, 0, &shared.1));
        go();
        // The trim weighs what it saw to be there.
        let has_looked = weighed.load(Ordering::Relaxed);
        assert_eq!(publish(&shared, 2), Some(2));
        let trimmed = other.join();
        let log = read_from(FIRST, &shared);
        assert_eq!((log.numbers.len() as u64 + log.missed, trimmed > 0), (2, log.missed > 0));
        assert!(!has_looked || log.missed <= 1);
        (has_looked, log.missed)
    });
    assert!(outcomes.into_iter().eq([(false, 0), (false, 1), (false, 2), (true, 0), (true, 1)]));
}

#[test]
fn a_trim_leaves_what_is_behind_the_tail_that_it_saw() {
    let outcomes = model(BOUND, || {
        let shared = ring(1, 0);
        assert!(shared.0.publish(Event::weighing(1, 4), 0, &shared.1).is_ok());
        let other = spawn(&shared, |shared| shared.0.trim(0, 0, &shared.1));
        go();
        let own = shared.0.trim(0, 0, &shared.1);
        // These weigh nothing, so that whoever looks now finds nothing to let go. The ring has space for them.
        let limits = Limits { capacity: 4, ..shared.1 };
        for number in 2..=3 {
            step();
            assert!(shared.0.publish(Event::new(number), 0, &limits).is_ok());
        }
        assert_eq!(own + other.join(), 4, "one of the two let it go");
        assert_eq!(read_from(FIRST, &shared), Log { numbers: vec![2, 3], missed: 1, ended: false });
        own
    });
    assert!(outcomes.into_iter().eq([0, 4]));
}

#[test]
fn the_last_entry_is_not_trimmed() {
    let outcomes = model(SMALL, || {
        let shared = heavy_ring();
        let other = spawn(&shared, |shared| shared.0.trim(0, 0, &shared.1));
        go();
        assert_eq!(publish_last(&shared, 2), Some(2));
        other.join();
        let log = read_from(FIRST, &shared);
        assert_eq!((log.numbers.last(), log.numbers.len() as u64 + log.missed), (Some(&2), 2));
        log.missed
    });
    assert!(outcomes.into_iter().eq([0, 1]));
}

#[test]
fn a_fresh_entry_is_not_evicted_for_the_age_of_its_chunk() {
    let outcomes = model(SMALL, || {
        let shared = ring(2, 1);
        let other = spawn(&shared, |shared| shared.0.evict_older(OLD, &shared.1));
        go();
        assert_eq!(publish_at(&shared, 2, OLD), Some(2));
        other.join();
        let log = read_from(FIRST, &shared);
        assert_eq!((log.numbers.last(), log.numbers.len() as u64 + log.missed), (Some(&2), 2));
        log.missed
    });
    assert!(outcomes.into_iter().eq([0, 1]));
}

#[test]
fn fresh_entries_of_the_same_moment_are_not_evicted_for_the_age_of_their_chunk() {
    let outcomes = model(LARGE, || {
        let shared = ring(3, 1);
        let others = [2, 3].map(|number| spawn(&shared, move |shared| publish_at(shared, number, OLD)));
        go();
        shared.0.evict_older(OLD, &shared.1);
        let positions = others.map(|other| other.join().unwrap());
        assert_eq!(positions[0] + positions[1], 2 + 3);
        let log = read_from(FIRST, &shared);
        assert_eq!(log.numbers.len() as u64 + log.missed, 3);
        assert!(log.missed <= 1, "of the two that are young, none is missed");
        log.missed
    });
    assert!(outcomes.into_iter().eq([0, 1]));
}

#[test]
fn a_fresh_entry_in_a_later_chunk_is_not_evicted_for_age() {
    let outcomes = model(SMALL, || {
        let shared = ring(1, 1);
        let other = spawn(&shared, |shared| shared.0.evict_older(OLD, &shared.1));
        go();
        assert_eq!(publish_at(&shared, 2, SOON), Some(2));
        other.join();
        let log = read_from(FIRST, &shared);
        assert_eq!((log.numbers.last(), log.numbers.len() as u64 + log.missed), (Some(&2), 2));
        log.missed
    });
    assert!(outcomes.into_iter().eq([0, 1]));
}

#[test]
fn what_was_evicted_does_not_weigh_although_the_tail_lags_behind() {
    let outcomes = model(SMALL, || {
        let shared = ring(1, 0);
        shared.0.publish(Event::weighing(1, 8), 0, &shared.1).unwrap();
        let other = spawn(&shared, |shared| {
            step();
            shared.0.publish(Event::weighing(2, 1), SOON, &shared.1).is_ok()
        });
        go();
        let evicted = shared.0.evict_older(OLD, &shared.1) > 0;
        let weight = shared.0.weight();
        assert!(!evicted || weight <= 1, "the first was evicted, yet {weight} is retained");
        assert!(other.join());
        evicted
    });
    assert!(outcomes.into_iter().eq([false, true]));
}

#[test]
fn a_publisher_with_an_earlier_clock_does_not_age_an_entry_beside_its_own() {
    model(SMALL, || {
        let shared = ring(2, 0);
        let other = spawn(&shared, |shared| publish_at(shared, 1, 0).unwrap());
        go();
        let own = publish_at(&shared, 2, OLD).unwrap();
        other.join();
        shared.0.evict_older(OLD, &shared.1);
        assert!(read_from(own, &shared).numbers.contains(&2), "it is as young as can be");
    });
}

#[test]
fn racing_publishers_leave_the_later_of_their_moments() {
    model(SMALL, || {
        let shared = ring(3, 1);
        let other = spawn(&shared, |shared| publish_at(shared, 2, SOON).unwrap());
        go();
        let own = publish_at(&shared, 3, OLD).unwrap();
        other.join();
        shared.0.evict_older(SOON + OLD, &shared.1);
        assert!(read_from(own, &shared).numbers.contains(&3), "it is not old yet");
        shared.0.evict_older(OLD + OLD, &shared.1);
        assert_eq!(read_from(FIRST, &shared).missed, 3, "now it is");
    });
}

// ---- Dropping the ring ----

/// A ring with entries 1, 2 and 3, each in a chunk of its own, published at moments 0, SOON and SOON. Nothing is
/// evicted yet.
fn ring_of_three_chunks() -> (Ring<Event>, Limits) {
    let limits = Limits { capacity: 2, max_age_ms: OLD as u32, ..Limits::default() };
    let ring = Ring::new();
    for (number, now, capacity) in [(1, 0, 1), (2, SOON, 1), (3, SOON, 2)] {
        assert!(ring.publish(Event::new(number), now, &Limits { capacity, ..limits }).is_ok());
    }
    (ring, limits)
}

/// Makes a thread of the model that reads on with `cursor` from a ring with nothing in it, and returns what it read.
fn read_from_another_ring(mut cursor: Cursor<Event>) -> Thread<Vec<u64>> {
    loom_tests::spawn(move || {
        let (shared, mut log) = (ring(1, 0), Log::default());
        read(&mut cursor, &shared, &mut log);
        assert!(log.missed == 0 && !log.ended);
        log.numbers
    })
}

#[test]
fn a_cursor_does_not_follow_its_dropped_ring_into_freed_memory() {
    let outcomes = model(BOUND, || {
        let (ring, _) = ring_of_three_chunks();
        let mut cursor = Cursor::at(FIRST);
        assert!(matches!(cursor.next(&ring), Step::Item(_)));
        let reader = read_from_another_ring(cursor);
        go();
        drop(ring);
        collect_at_once();
        reader.join()
    });
    assert!(outcomes.into_iter().eq([vec![], vec![2], vec![2, 3]]));
}

#[test]
fn a_cursor_between_an_evictor_and_the_drop_of_its_ring_does_not_meet_the_next_chunk_freed() {
    let outcomes = model(BOUND, || {
        let (ring, limits) = ring_of_three_chunks();
        let mut cursor = Cursor::at(FIRST);
        assert!(matches!(cursor.next(&ring), Step::Item(_)));
        let reader = read_from_another_ring(cursor);
        go();
        step();
        assert_eq!(ring.evict_older(OLD, &limits), 1);
        // Nobody holds a chunk that the ring still has, but a reader may be on its way there.
        drop(ring);
        collect_at_once();
        reader.join()
    });
    assert!(outcomes.contains(&vec![]) && outcomes.contains(&vec![2, 3]));
}

#[test]
fn a_batch_outlives_its_ring() {
    model(SMALL, || {
        let (ring, _) = ring_of_three_chunks();
        let Step::Item(batch) = Cursor::at(2).take(&ring, 1, usize::MAX) else { unreachable!() };
        let other = loom_tests::spawn(move || assert_eq!(numbers(&batch, 2), [2]));
        go();
        drop(ring);
        collect_at_once();
        other.join();
    });
}

// ---- Finishing ----

#[test]
fn a_cursor_behind_the_last_entry_ends() {
    let outcomes = model(SMALL, || {
        let shared = ring(2, 1);
        let other = spawn(&shared, |shared| publish_last(shared, 9));
        go();
        let mut cursor = Cursor::at(3);
        let early = matches!(cursor.next(&shared.0), Step::Ended);
        assert_eq!(other.join(), Some(2));
        assert!(matches!(cursor.next(&shared.0), Step::Ended));
        early
    });
    assert!(outcomes.into_iter().eq([false, true]));
}

#[test]
fn an_entry_is_before_the_end_or_refused() {
    let outcomes = model(SMALL, || {
        let shared = ring(2, 1);
        let other = spawn(&shared, |shared| shared.0.close(0, &shared.1));
        go();
        let own = publish(&shared, 2);
        assert!(other.join(), "the first to close closes");
        let log = read_from(FIRST, &shared);
        assert!(log.ended && publish(&shared, 3).is_none());
        assert_eq!(log.numbers.contains(&2), own.is_some());
        own
    });
    assert!(outcomes.into_iter().eq([None, Some(2)]));
}

#[test]
fn an_entry_in_a_new_chunk_is_before_the_end_or_refused() {
    let outcomes = model(SMALL, || {
        let shared = ring(2, 2);
        let other = spawn(&shared, |shared| shared.0.close(0, &shared.1));
        go();
        let own = publish(&shared, 3);
        assert!(other.join());
        let log = read_from(FIRST, &shared);
        assert!(log.ended && publish(&shared, 4).is_none());
        assert_eq!(log.numbers.contains(&3), own.is_some());
        own
    });
    assert!(outcomes.into_iter().eq([None, Some(3)]));
}

#[test]
fn an_untouched_ring_ends_once_while_the_first_entry_is_published() {
    let outcomes = model(SMALL, || {
        let shared = ring(2, 0);
        let other = spawn(&shared, |shared| shared.0.close(0, &shared.1));
        go();
        let own = publish(&shared, 1);
        assert!(other.join());
        assert!(!shared.0.close(0, &shared.1));
        assert_eq!(read_from(FIRST, &shared).numbers.len(), usize::from(own.is_some()));
        own
    });
    assert!(outcomes.into_iter().eq([None, Some(1)]));
}

#[test]
fn a_reader_that_meets_the_end_has_read_everything() {
    let outcomes = model(BOUND, || {
        let shared = ring(3, 1);
        let publisher = spawn(&shared, |shared| publish(shared, 2));
        let closer = spawn(&shared, |shared| shared.0.close(0, &shared.1));
        go();
        let early = read_from(FIRST, &shared);
        let published = publisher.join();
        closer.join();
        if early.ended {
            assert_eq!(early.numbers.len(), 1 + usize::from(published.is_some()));
        }
        (early.ended, published)
    });
    assert!(outcomes.contains(&(true, Some(2))) && outcomes.contains(&(true, None)));
}

#[test]
fn nothing_follows_the_last_entry() {
    let outcomes = model(SMALL, || {
        let shared = ring(2, 0);
        let other = spawn(&shared, |shared| publish_last(shared, 9).expect("nobody else finishes"));
        go();
        let own = publish(&shared, 1);
        let last = other.join();
        let log = read_from(FIRST, &shared);
        assert!(log.ended && log.numbers.last() == Some(&9));
        assert_eq!((log.numbers.len() as u64, own.is_some()), (last, last == 2));
        last
    });
    assert!(outcomes.into_iter().eq([1, 2]));
}

#[test]
fn of_two_last_entries_one_is_refused() {
    let outcomes = model(SMALL, || {
        let shared = ring(2, 1);
        let other = spawn(&shared, |shared| publish_last(shared, 8));
        go();
        let own = publish_last(&shared, 9);
        let other = other.join();
        assert_eq!((own.or(other), own.is_some()), (Some(2), other.is_none()));
        assert_eq!(read_from(2, &shared).numbers, [if own.is_some() { 9 } else { 8 }]);
        own
    });
    assert!(outcomes.into_iter().eq([None, Some(2)]));
}

#[test]
fn the_last_entry_is_not_evicted_by_those_it_raced_with() {
    let outcomes = model(BOUND, || {
        let shared = ring(1, 1);
        let other = spawn(&shared, |shared| {
            let published = [publish(shared, 2), publish(shared, 3)];
            collect();
            published.into_iter().flatten().count() as u64
        });
        go();
        let last = publish_last(&shared, 9).unwrap();
        assert_eq!(other.join(), last - 2);
        assert_eq!(read_from(last, &shared), Log { numbers: vec![9], missed: 0, ended: true });
        last
    });
    assert!(outcomes.into_iter().eq([2, 3, 4]));
}

#[test]
fn the_last_entry_is_not_evicted_for_its_age() {
    model(BOUND, || {
        let shared = ring(2, 1);
        let other = spawn(&shared, |shared| {
            shared.0.evict_older(OLD, &shared.1);
            collect();
        });
        go();
        let last = publish_last(&shared, 9).unwrap();
        other.join();
        shared.0.evict_older(2 * OLD, &shared.1);
        assert_eq!((last, read_from(last, &shared).numbers), (2, vec![9]));
        assert!(read_from(last + 1, &shared).ended || publish(&shared, 3).is_none());
    });
}
