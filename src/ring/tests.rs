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

/// The same, of what stands in the cursor's chunk by peeking.
fn drain_peeking(cursor: &mut Cursor<Handle>, ring: &Ring<Handle>) -> (Vec<(u64, u64)>, u64, bool) {
    let (mut seen, mut missed) = (Vec::new(), 0);
    loop {
        while let Some(pending) = cursor.peek() {
            let start = seen.len();
            seen.extend(pending.iter().map(|(position, entry)| {
                assert_eq!(position, entry.0.position);
                (position, entry.0.payload)
            }));
            let count = pending.len();
            assert_eq!((seen.len() - start, seen.last().unwrap().0), (count, pending.end()));
            assert!(!cursor.is_at_edge());
            cursor.pass(count);
        }
        let was_at_edge = cursor.is_at_edge();
        match cursor.take(ring, 1, 1) {
            Step::Item(batch) => {
                assert!(!was_at_edge);
                seen.extend(batch.iter().map(|entry| (entry.0.position, entry.0.payload)));
            }
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
fn an_entry_is_old_after_any_quiet_time() {
    let limits = Limits { max_age_ms: 100, ..small(64) };
    for quiet in [100, 1 << 31, (1 << 31) + 50, (1 << 32) + 1, 1 << 40] {
        let ring = Ring::new();
        for n in 1..=10 {
            ring.publish(Handle::new(n), 7, &limits).unwrap();
        }
        assert_eq!(ring.evict_older(7 + quiet, &limits), 10, "after {quiet} ms");
        // An entry published after a quiet time is young, and so is the chunk that it shares with the others.
        let ring = Ring::new();
        ring.publish(Handle::new(1), 7, &limits).unwrap();
        ring.publish(Handle::new(2), 7 + quiet, &limits).unwrap();
        assert_eq!(ring.evict_older(7 + quiet + 99, &limits), 0, "after {quiet} ms");
        assert_eq!(ring.evict_older(7 + quiet + 100, &limits), 2, "after {quiet} ms");
    }
}

#[test]
fn what_each_call_evicted_adds_up() {
    let limits = Limits { max_age_ms: 100, ..small(64) };
    let ring = Ring::new();
    (1..=30).for_each(|n| assert!(ring.publish(Handle::heavy(n, 10), n, &limits).is_ok()));
    assert_eq!(ring.evict_older(110, &limits), 4, "the first chunk is old at 104");
    assert_eq!(ring.trim(100, 110, &limits), 160);
    assert_eq!((ring.oldest(), ring.weight()), (21, 100));
}

#[test]
fn cursor_may_outlive_its_ring() {
    // How many entries there are, how many were evicted before, and how many the cursor read.
    for (entries, evicted, read) in [
        (1, 0, 1),
        (4, 0, 2),
        (5, 0, 1),
        (60, 0, 1),
        (60, 0, 30),
        (60, 0, 60),
        (60, 20, 1),
        (60, 20, 25),
        (60, 60, 1),
    ] {
        let other = Ring::new();
        (1..=70).for_each(|n| assert!(other.publish(Handle::new(n + 1000), 0, &small(100)).is_ok()));
        let (ring, limits) = (Ring::new(), small(100));
        let mut cursor = Cursor::at(FIRST);
        let publish = |from, to| {
            (from..=to).for_each(|n| assert!(ring.publish(Handle::heavy(n, 1), 0, &limits).is_ok()));
        };
        publish(1, read);
        (0..read).for_each(|_| assert!(matches!(cursor.next(&ring), Step::Item(_))));
        publish(read + 1, entries);
        ring.trim(entries - evicted, 0, &limits);
        let mut batch_cursor = Cursor::at(ring.oldest());
        let batch = batch_cursor.take(&ring, 1000, usize::MAX);
        drop(ring);
        collect();
        // What stands in the chunk under the cursor is still there; then it reads what the other ring has.
        let (seen, missed, ended) = drain(&mut cursor, &other);
        assert_eq!((seen.len() as u64, missed, ended), (70 - read, 0, false), "{entries} {evicted} {read}");
        let (own, others): (Vec<_>, Vec<_>) = seen.into_iter().partition(|(_, payload)| *payload <= entries);
        assert!(own.len() < 16 && own.iter().all(|(position, payload)| position == payload));
        assert!(others.iter().all(|(position, payload)| position + 1000 == *payload));
        let (seen, ..) = drain(&mut batch_cursor, &other);
        assert!(seen.into_iter().map(|(position, _)| position).eq(entries + 1..=70));
        if let Step::Item(batch) = batch {
            assert!(batch.iter().map(|entry| entry.0.payload).eq(batch.positions()));
        }
    }
}

/// A cursor whose ring is dropped by another thread, chain and all, while it reads from another ring.
#[test]
fn cursors_race_the_drop_of_their_ring_stress() {
    let other = Ring::new();
    other.publish(Handle::new(1), 0, &small(4)).unwrap();
    for round in 0..if cfg!(debug_assertions) { 300 } else { 3000 } {
        let (ring, limits) = (Ring::new(), small(200));
        (1..=100).for_each(|n| assert!(ring.publish(Handle::heavy(n, 1), 0, &limits).is_ok()));
        let mut cursors: Vec<_> = [1, 3, 20, 21, 60].map(Cursor::at).into();
        cursors.iter_mut().for_each(|cursor| assert!(matches!(cursor.next(&ring), Step::Item(_))));
        if round % 2 == 0 {
            ring.trim(60, 0, &limits);
        }
        thread::scope(|scope| {
            scope.spawn(move || drop(ring));
            for mut cursor in cursors {
                let other = &other;
                scope.spawn(move || {
                    let (seen, ..) = drain(&mut cursor, other);
                    assert!(seen.iter().all(|(position, payload)| position == payload));
                });
            }
        });
        collect();
    }
}

#[test]
fn cursor_beyond_the_tail_is_served() {
    type End = fn(&Ring<Handle>, &Limits);
    // How the chunk under the cursor may end early.
    let ends: [(&str, End); 5] = [
        ("nothing", |_, _| {}),
        ("age", |ring, limits| assert!(ring.evict_older(1000, limits) > 0)),
        ("trim", |ring, limits| assert!(ring.trim(0, 0, limits) > 0)),
        ("weight", |ring, limits| assert!(ring.publish(Handle::heavy(0, 300), 0, limits).is_ok())),
        ("weight and trim", |ring, limits| {
            assert!(ring.publish(Handle::heavy(0, 300), 0, limits).is_ok());
            assert!(ring.trim(0, 0, limits) > 0);
        }),
    ];
    let limits = Limits { capacity: 100, max_weight: 1000, max_age_ms: 1000 };
    for (name, end) in ends {
        for (before, ahead) in [1, 2, 3, 4, 5, 9].into_iter().flat_map(|n| (0..25).map(move |m| (n, m))) {
            let ring = Ring::new();
            (1..=before).for_each(|n| assert!(ring.publish(Handle::new(n), 0, &limits).is_ok()));
            let position = ring.tail() + ahead;
            let mut cursor = Cursor::at(position);
            assert!(matches!(cursor.next(&ring), Step::Empty));
            end(&ring, &limits);
            while ring.tail() < position {
                assert!(matches!(cursor.take(&ring, 1, 1), Step::Empty));
                ring.publish(Handle::new(0), 2000, &limits).unwrap();
            }
            let first = if ring.tail() == position {
                ring.publish(Handle::new(7), 2000, &limits).unwrap()
            } else {
                0
            };
            let (seen, missed, ended) = drain(&mut cursor, &ring);
            let served = seen.first().is_some_and(|(at, _)| *at == position.max(first)) || missed > 0;
            assert!(served && !ended, "{name}, {ahead} beyond {before}: {seen:?}");
            // One beyond the end ends, and one that stands there when the ring ends does too.
            let mut late = Cursor::at(ring.tail() + ahead);
            assert!(matches!(late.next(&ring), Step::Empty));
            assert!(ring.close(2000, &limits));
            for cursor in
                [&mut late, &mut Cursor::at(ring.tail() + ahead), &mut Cursor::at(u64::MAX), &mut cursor]
            {
                assert!(matches!(cursor.next(&ring), Step::Ended), "{name}, {ahead} beyond {before}");
            }
        }
    }
}

/// An entry that does something whenever its weight is asked.
struct Hooked(Box<(u64, Box<dyn Fn() + Send + Sync>)>);

impl Hooked {
    fn new(payload: u64, hook: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Box::new((payload, Box::new(hook))))
    }
}

#[allow(unsafe_code)]
// SAFETY: as for `Handle`.
unsafe impl Entry for Hooked {
    fn into_raw(self) -> *mut () {
        Box::into_raw(self.0).cast()
    }

    unsafe fn from_raw(raw: *mut ()) -> Self {
        // SAFETY: the caller passes what `into_raw` gave.
        Self(unsafe { Box::from_raw(raw.cast()) })
    }

    fn weight(&self) -> usize {
        self.0.1();
        1
    }
}

#[test]
fn a_trim_leaves_what_is_published_while_it_runs() {
    let (ring, limits) = (crate::sync::Arc::new(Ring::new()), small(64));
    let published = crate::sync::Arc::new(crate::sync::Mutex::new(Some(Vec::new())));
    let (inner, record) = (crate::sync::Arc::downgrade(&ring), published.clone());
    let hook = move || {
        let (Some(ring), Some(mut positions)) = (inner.upgrade(), crate::sync::lock(&record).take()) else {
            return;
        };
        if positions.len() < 3 {
            positions.push(ring.publish(Hooked::new(2, || ()), 0, &limits).unwrap());
        }
        *crate::sync::lock(&record) = Some(positions);
    };
    ring.publish(Hooked::new(1, || ()), 0, &limits).unwrap();
    ring.publish(Hooked::new(1, hook), 0, &limits).unwrap();
    let gone = ring.trim(0, 0, &limits);
    let published = crate::sync::lock(&published).take().unwrap();
    assert!(!published.is_empty());
    assert_eq!((gone, ring.weight()), (0, 2 + published.len() as u64));
    let mut cursor = Cursor::at(published[0]);
    assert!(matches!(cursor.next(&ring), Step::Item(entry) if entry.0.0 == 2));
    assert_eq!(ring.trim(0, 0, &limits), 2 + published.len() as u64, "the next trim takes it");
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
    /// Cursors set anywhere, beyond the tail too, and looked at whenever: each gets every entry from its position on,
    /// or is told how many it missed, and then the end.
    #[test]
    fn any_cursor_gets_everything_from_its_position_on(
        steps in proptest::collection::vec((0..14u8, 0..60u64), 1..150),
    ) {
        let limits = Limits { capacity: 30, max_weight: 400, max_age_ms: 100 };
        let ring = Ring::new();
        let (mut published, mut now, mut cursors) = (0, 0, Vec::new());
        for (action, number) in steps {
            match action {
                0..=6 => {
                    published += 1;
                    prop_assert_eq!(ring.publish(Handle::heavy(published, 1 + number as usize), now, &limits).unwrap(), published);
                }
                7 => {
                    now += number;
                    ring.evict_older(now, &limits);
                }
                8 => {
                    ring.trim(number * 5, now, &limits);
                }
                9 | 10 => {
                    let start = (published + 30).saturating_sub(number).max(1);
                    cursors.push((Cursor::at(start), start));
                }
                _ => if let Some((cursor, next)) = cursors.last_mut() {
                    if let Some(pending) = ring.peek_from(*next, &epoch::pin()) {
                        let payloads: Vec<_> = pending.iter().map(|(_, entry)| entry.0.payload).collect();
                        prop_assert_eq!(payloads, (*next..=published).collect::<Vec<_>>(), "all up to the tail");
                    }
                    let drain = if number % 2 == 0 { drain } else { drain_peeking };
                    let (seen, missed, ended) = drain(cursor, &ring);
                    prop_assert!(!ended && seen.iter().all(|(position, payload)| position == payload));
                    *next += seen.len() as u64 + missed;
                    prop_assert!(*next > published);
                },
            }
        }
        if published % 2 == 0 {
            ring.close(now, &limits);
        } else {
            published += 1;
            ring.publish_last(Handle::new(published), now, &limits).unwrap();
        }
        for (mut cursor, next) in cursors {
            let drain = if next % 2 == 0 { drain } else { drain_peeking };
            let (seen, missed, ended) = drain(&mut cursor, &ring);
            prop_assert!(ended && seen.iter().all(|(position, payload)| position == payload));
            prop_assert_eq!(next + seen.len() as u64 + missed, (published + 1).max(next));
        }
    }

    #[test]
    fn any_sequence_agrees_with_a_simple_model(
        capacity in 1..40usize,
        steps in proptest::collection::vec((0..12u8, 1..50usize, 0..40u64), 1..200),
    ) {
        let limits = Limits { capacity, max_weight: 400, max_age_ms: 100 };
        let ring = Ring::new();
        let (mut published, mut now, mut cursor, mut next) = (0u64, 0u64, Cursor::at(FIRST), FIRST);
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
