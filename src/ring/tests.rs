//! Behaviour of the ring with real threads; `loom-tests` has the races in full.

use std::sync::Barrier;
use std::thread;

use proptest::prelude::*;

use super::*;

/// An entry that knows its position, its payload and its weight.
#[derive(Debug)]
struct Event {
    position: u64,
    payload: u64,
    weight: usize,
}

/// The smallest handle that is told its position.
#[derive(Debug)]
struct Handle(Box<Event>);

impl Handle {
    fn new(payload: u64) -> Self {
        Self::heavy(payload, 1)
    }

    fn heavy(payload: u64, weight: usize) -> Self {
        Self(Box::new(Event { position: 0, payload, weight }))
    }
}

#[allow(unsafe_code)]
// SAFETY: a box is one pointer to memory that does not move, aligned to 8 bytes.
unsafe impl Entry for Handle {
    fn into_raw(self) -> *mut () {
        Box::into_raw(self.0).cast()
    }

    unsafe fn from_raw(raw: *mut ()) -> Self {
        // SAFETY: the caller passes what `into_raw` gave.
        Self(unsafe { Box::from_raw(raw.cast()) })
    }

    fn place(&mut self, position: u64) {
        self.0.position = position;
    }

    fn weight(&self) -> usize {
        self.0.weight
    }
}

fn small(capacity: usize) -> Limits {
    Limits { capacity, ..Limits::default() }
}

/// Reads whatever is there: positions and payloads, and how many were missed.
fn drain(cursor: &mut Cursor<Handle>, ring: &Ring<Handle>) -> (Vec<(u64, u64)>, u64, bool) {
    let (mut seen, mut missed) = (Vec::new(), 0);
    loop {
        match cursor.next(ring) {
            Step::Item(entry) => seen.push((entry.0.position, entry.0.payload)),
            Step::Lagged { missed: more } => missed += more,
            Step::Empty => return (seen, missed, false),
            Step::Ended => return (seen, missed, true),
        }
    }
}

#[test]
fn an_empty_ring_is_two_words_and_reads_as_empty() {
    assert_eq!(size_of::<Ring<Handle>>(), 16);
    let ring = Ring::<Handle>::new();
    assert!(matches!(Cursor::at(FIRST).next(&ring), Step::Empty));
    assert_eq!((ring.oldest(), ring.tail()), (1, 1));
}

#[test]
fn a_cursor_made_before_anything_was_published_reads_everything() {
    let (ring, limits) = (Ring::new(), small(64));
    let mut cursor = Cursor::at(FIRST);
    assert!(matches!(cursor.next(&ring), Step::Empty));
    for n in 1..=40 {
        assert_eq!(ring.publish(Handle::new(n * 10), 0, &limits).unwrap(), n);
    }
    let (seen, missed, ended) = drain(&mut cursor, &ring);
    assert_eq!(seen, (1..=40).map(|n| (n, n * 10)).collect::<Vec<_>>());
    assert_eq!((missed, ended), (0, false));
}

#[test]
fn the_last_entry_closes_the_ring_in_the_same_step() {
    let (ring, limits) = (Ring::new(), small(64));
    ring.publish(Handle::new(1), 0, &limits).unwrap();
    ring.publish_last(Handle::new(2), 0, &limits).unwrap();
    assert!(ring.publish(Handle::new(3), 0, &limits).is_err());
    assert!(!ring.close(0, &limits));
    let (seen, _, ended) = drain(&mut Cursor::at(FIRST), &ring);
    assert_eq!((seen.len(), ended), (2, true));
}

#[test]
fn a_cursor_set_behind_the_last_entry_ends() {
    for entries in [1, 4, 20, 21] {
        let (ring, limits) = (Ring::new(), small(64));
        (1..entries).for_each(|n| assert!(ring.publish(Handle::new(n), 0, &limits).is_ok()));
        ring.publish_last(Handle::new(entries), 0, &limits).unwrap();
        assert!(matches!(Cursor::at(entries + 1).next(&ring), Step::Ended), "{entries}");
    }
}

#[test]
fn closing_an_empty_ring_ends_its_readers() {
    let (ring, limits) = (Ring::<Handle>::new(), small(64));
    assert!(ring.close(0, &limits));
    assert!(matches!(Cursor::at(FIRST).next(&ring), Step::Ended));
}

#[test]
fn an_evicted_range_is_reported_with_its_size() {
    let (ring, limits) = (Ring::new(), small(16));
    for n in 1..=1000 {
        ring.publish(Handle::new(n), 0, &limits).unwrap();
    }
    let (seen, missed, _) = drain(&mut Cursor::at(FIRST), &ring);
    assert_eq!(seen.len() as u64 + missed, 1000);
    assert_eq!(seen.last(), Some(&(1000, 1000)));
    assert!((16..=32).contains(&seen.len()), "retained {}", seen.len());
}

#[test]
fn a_reader_inside_an_evicted_chunk_reads_it_to_the_end_and_then_learns_what_it_missed() {
    let (ring, limits) = (Ring::new(), small(16));
    for n in 1..=6 {
        ring.publish(Handle::new(n), 0, &limits).unwrap();
    }
    let mut cursor = Cursor::at(FIRST);
    assert!(matches!(cursor.next(&ring), Step::Item(_)));
    for n in 7..=500 {
        ring.publish(Handle::new(n), 0, &limits).unwrap();
    }
    let (seen, missed, _) = drain(&mut cursor, &ring);
    assert_eq!(seen[0], (2, 2));
    assert_eq!(seen.len() as u64 + missed, 499);
}

#[test]
fn the_last_entry_is_never_evicted() {
    let limits = Limits { capacity: 4, max_weight: 100, max_age_ms: 10 };
    let ring = Ring::new();
    for n in 1..=100 {
        ring.publish(Handle::heavy(n, 60), 0, &limits).unwrap();
    }
    ring.publish_last(Handle::heavy(101, 5000), 0, &limits).unwrap();
    ring.evict_older(1_000_000, &limits);
    let (seen, _, ended) = drain(&mut Cursor::at(FIRST), &ring);
    assert_eq!(seen.last(), Some(&(101, 101)));
    assert!(ended);
}

#[test]
fn heavy_entries_are_bounded_by_weight_and_not_by_count() {
    let limits = Limits { capacity: 1000, max_weight: 1000, ..Limits::default() };
    let ring = Ring::new();
    for n in 1..=200 {
        ring.publish(Handle::heavy(n, 100), 0, &limits).unwrap();
    }
    let (seen, missed, _) = drain(&mut Cursor::at(FIRST), &ring);
    assert_eq!(seen.len() as u64 + missed, 200);
    // The limit, and the chunk being written, which is cut at a quarter of it.
    assert!(seen.len() <= 10 + 3 + 1, "retained {}", seen.len());
    assert!(!seen.is_empty());
}

#[test]
fn a_ring_is_trimmed_to_a_weight_and_goes_on() {
    let (ring, limits) = (Ring::new(), small(256));
    assert_eq!((ring.spare_weight(), ring.trim(0, 0, &limits)), (0, 0));
    (0..100).for_each(|payload| assert!(ring.publish(Handle::heavy(payload, 10), 0, &limits).is_ok()));
    assert_eq!((ring.spare_weight(), ring.trim(1000, 0, &limits)), (1000, 0));
    let gone = ring.trim(500, 0, &limits);
    assert!((500..660).contains(&gone) && ring.spare_weight() == 1000 - gone, "{gone}");
    let (seen, missed, _) = drain(&mut Cursor::at(FIRST), &ring);
    assert_eq!(
        seen.iter().map(|(position, _)| *position).collect::<Vec<_>>(),
        (gone / 10 + 1..=100).collect::<Vec<_>>()
    );
    assert_eq!(missed, gone / 10);
    // Down to nothing, the chunk that is written included; positions go on.
    assert_eq!(ring.trim(0, 0, &limits), 1000 - gone);
    assert_eq!((ring.spare_weight(), ring.oldest(), ring.tail()), (0, 101, 101));
    assert_eq!(ring.publish(Handle::heavy(7, 10), 0, &limits).unwrap(), 101);
    assert_eq!(drain(&mut Cursor::at(101), &ring).0, [(101, 7)]);
}

#[test]
fn the_last_entry_is_never_trimmed() {
    let (ring, limits) = (Ring::new(), small(256));
    (0..50).for_each(|payload| assert!(ring.publish(Handle::heavy(payload, 10), 0, &limits).is_ok()));
    assert!(ring.publish_last(Handle::heavy(50, 10), 0, &limits).is_ok());
    let spare = ring.spare_weight();
    assert_eq!((ring.trim(0, 0, &limits), ring.spare_weight()), (spare, 0));
    let (seen, missed, ended) = drain(&mut Cursor::at(FIRST), &ring);
    assert_eq!((seen.last(), ended, missed), (Some(&(51, 50)), true, spare / 10));
    assert_eq!(ring.trim(0, 0, &limits), 0);
}

#[test]
fn old_entries_go_by_age_and_positions_go_on() {
    let limits = Limits { max_age_ms: 100, ..small(64) };
    let ring = Ring::new();
    for n in 1..=10 {
        ring.publish(Handle::new(n), 0, &limits).unwrap();
    }
    assert_eq!(ring.evict_older(99, &limits), 0);
    assert_eq!(ring.evict_older(100, &limits), 10);
    assert_eq!((ring.oldest(), ring.tail()), (11, 11));
    assert_eq!(ring.evict_older(100, &limits), 0, "nothing more to do");
    assert_eq!(ring.publish(Handle::new(11), 200, &limits).unwrap(), 11);
    let (seen, missed, _) = drain(&mut Cursor::at(FIRST), &ring);
    assert_eq!((seen, missed), (vec![(11, 11)], 10));
}

#[test]
fn a_batch_spans_chunks_and_respects_its_limits() {
    let (ring, limits) = (Ring::new(), small(64));
    for n in 1..=50 {
        ring.publish(Handle::new(n), 0, &limits).unwrap();
    }
    let mut cursor = Cursor::at(FIRST);
    let Step::Item(batch) = cursor.take(&ring, 30, usize::MAX) else { panic!("entries are there") };
    assert_eq!(batch.iter().map(|entry| entry.0.payload).collect::<Vec<_>>(), (1..=30).collect::<Vec<_>>());
    let Step::Item(batch) = cursor.take(&ring, 30, 5) else { panic!("entries are there") };
    assert_eq!((batch.len(), cursor.position()), (5, 36));
    drop(ring);
    assert_eq!(batch.iter().map(|entry| entry.0.payload).sum::<u64>(), 31 + 32 + 33 + 34 + 35);
}

#[test]
fn a_batch_before_a_gap_does_not_swallow_the_gap() {
    let (ring, limits) = (Ring::new(), small(4));
    (1..=3).for_each(|n| assert!(ring.publish(Handle::new(n), 0, &limits).is_ok()));
    let mut cursor = Cursor::at(FIRST);
    assert!(matches!(cursor.next(&ring), Step::Item(_)));
    (4..=100).for_each(|n| assert!(ring.publish(Handle::new(n), 0, &limits).is_ok()));
    let (mut read, mut missed) = (1, 0);
    loop {
        match cursor.take(&ring, 1000, usize::MAX) {
            Step::Item(batch) => read += batch.len() as u64,
            Step::Lagged { missed: more } => missed += more,
            _ => break,
        }
    }
    assert!(missed > 0);
    assert_eq!(read + missed, 100);
}

#[test]
fn ids_are_contiguous_under_concurrent_publishers() {
    let (ring, limits) = (Ring::new(), small(100_000));
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for publisher in 0..4u64 {
            let (ring, barrier) = (&ring, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for n in 0..5_000 {
                    ring.publish(Handle::new(publisher << 32 | n), 0, &limits).unwrap();
                }
            });
        }
    });
    let (seen, missed, _) = drain(&mut Cursor::at(FIRST), &ring);
    assert_eq!(missed, 0);
    assert!(seen.iter().map(|(position, _)| *position).eq(1..=20_000), "positions have a hole or a double");
    for publisher in 0..4 {
        let own = seen.iter().filter(|(_, payload)| payload >> 32 == publisher).map(|(_, p)| p & 0xffff_ffff);
        assert!(own.eq(0..5_000), "one publisher's own order changed");
    }
}

#[test]
fn each_entry_reaches_racing_readers_exactly_once_or_is_counted_as_missed() {
    let (ring, limits) = (Ring::<Handle>::new(), small(64));
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut cursor = Cursor::at(FIRST);
                    let (mut expected, mut missed) = (FIRST, 0);
                    loop {
                        match cursor.next(&ring) {
                            Step::Item(entry) => {
                                assert_eq!(entry.0.position, expected);
                                expected += 1;
                            }
                            Step::Lagged { missed: more } => {
                                expected += more;
                                missed += more;
                            }
                            Step::Empty => thread::yield_now(),
                            Step::Ended => return (expected, missed),
                        }
                    }
                })
            })
            .collect();
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    (0..20_000).for_each(|n| assert!(ring.publish(Handle::new(n), 0, &limits).is_ok()))
                })
            })
            .collect();
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        ring.close(0, &limits);
        for reader in readers {
            let (expected, missed) = reader.join().unwrap();
            assert_eq!(expected, 40_001);
            assert!(missed <= 40_000);
        }
    });
}

proptest! {
    #[test]
    fn any_sequence_agrees_with_a_simple_model(
        capacity in 1..40usize,
        steps in proptest::collection::vec((0..12u8, 1..50usize, 0..40u32), 1..200),
    ) {
        let limits = Limits { capacity, max_weight: 400, max_age_ms: 100 };
        let ring = Ring::new();
        let (mut published, mut now, mut cursor, mut next) = (0u64, 0u32, Cursor::at(FIRST), FIRST);
        for (action, weight, passed) in steps {
            match action {
                0..=7 => {
                    published += 1;
                    prop_assert_eq!(ring.publish(Handle::heavy(published, weight), now, &limits).unwrap(), published);
                }
                8 | 9 => {
                    now += passed;
                    ring.evict_older(now, &limits);
                }
                _ => {
                    let (seen, missed, ended) = drain(&mut cursor, &ring);
                    let after_gap = published + 1 - seen.len() as u64;
                    prop_assert!(!ended && next + missed <= after_gap + missed);
                    prop_assert_eq!(seen.len() as u64 + missed, published + 1 - next);
                    prop_assert!(seen.iter().enumerate().all(|(i, (position, payload))| position == payload && (i == 0 || seen[i - 1].0 < *position)));
                    next = published + 1;
                }
            }
            prop_assert_eq!(ring.tail(), published + 1);
            prop_assert!(ring.oldest() <= published + 1);
        }
    }
}
