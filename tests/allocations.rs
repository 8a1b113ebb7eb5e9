//! What is allocated, and how often an event is serialised: once, whoever reads it.

#![allow(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ringmain::internals::ring::{Cursor, FIRST, Limits, Ring, Step};
use ringmain::internals::sse::Frame;
use ringmain::internals::stream::{Delivery, LagPolicy, Moment, Stream};

thread_local! {
    /// By thread, because tests run side by side.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is the system allocator's own; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the rules of `alloc`, which are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the rules of `dealloc`, and the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the rules of `realloc`, and the pointer came from `System`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations `action` makes.
fn allocations<R>(action: impl FnOnce() -> R) -> (u64, R) {
    let before = ALLOCATIONS.get();
    let result = action();
    (ALLOCATIONS.get() - before, result)
}

const LIMITS: Limits = Limits { capacity: 256, max_weight: 1 << 20, max_age_ms: 1 << 20 };
const READERS: usize = 100;

fn frame() -> Frame {
    Frame::shared(|out| out.extend_from_slice(&[b'x'; 200]))
}

/// Reads all there is, by reference; returns the bytes.
fn read(ring: &Ring<Frame>, cursor: &mut Cursor<Frame>) -> usize {
    let mut bytes = 0;
    while let Step::Item(frame) = cursor.next(ring) {
        bytes += frame.len();
    }
    bytes
}

/// Allocations of publishing one event to a ring that `readers` cursors read to the end.
fn publishing_allocates(readers: usize) -> u64 {
    let ring = Ring::new();
    let mut cursors: Vec<_> = (0..readers).map(|_| Cursor::at(FIRST)).collect();
    // Past the first chunks and the thread's scratch buffer.
    for _ in 0..10 {
        ring.publish(frame(), 0, &LIMITS).unwrap();
        cursors.iter_mut().for_each(|cursor| assert!(read(&ring, cursor) > 0));
    }
    let (made, published) = allocations(|| ring.publish(frame(), 0, &LIMITS));
    assert_eq!(published.unwrap(), 11);
    cursors.iter_mut().for_each(|cursor| assert!(read(&ring, cursor) > 0));
    made
}

#[test]
fn one_serialisation_per_event() {
    let mut serialised = 0;
    let stream = Stream::new();
    let mut connection = stream.attach(None, LagPolicy::Signal);
    let event = Frame::shared(|out| {
        serialised += 1;
        out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}");
    });
    stream.publish(event, Moment(0), &LIMITS).unwrap();
    let deliver = |connection: &mut ringmain::internals::stream::Subscriber| {
        let Some(Delivery::Frames(batch)) = connection.try_next(&stream) else { panic!("an event is there") };
        batch.iter().map(|frame| frame.as_bytes().as_ptr() as usize).collect::<Vec<_>>()
    };
    let first = deliver(&mut connection);
    assert_eq!(first.len(), 1);
    for _ in 0..READERS {
        // Each resumes from before the event: a replay to a new connection, of the very same bytes.
        let mut resumed = stream.attach(Some(0), LagPolicy::Signal);
        assert_eq!(deliver(&mut resumed), first);
    }
    assert_eq!(serialised, 1);
}

#[test]
fn one_serialisation_for_any_number_of_streams() {
    let mut serialised = 0;
    let event = Frame::shared(|out| {
        serialised += 1;
        out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}");
    });
    let rings: Vec<_> = (0..READERS).map(|_| Ring::new()).collect();
    rings[0].publish(frame(), 0, &LIMITS).unwrap();
    let (made, ()) = allocations(|| {
        for ring in &rings {
            ring.publish(event.clone(), 0, &LIMITS).unwrap();
        }
    });
    assert_eq!(made, READERS as u64 - 1, "each ring its first chunk, and nothing for the event");
    let mut places = Vec::new();
    for ring in &rings {
        let mut cursor = Cursor::at(ring.tail() - 1);
        let Step::Item(frame) = cursor.next(ring) else { panic!("an event is there") };
        places.push(frame.as_bytes().as_ptr());
    }
    assert!(places.iter().all(|place| *place == places[0]), "each stream has the same bytes");
    assert_eq!(serialised, 1);
}

#[test]
fn publishing_allocates_the_frame_and_nothing_for_readers() {
    assert_eq!(publishing_allocates(0), 1);
    assert_eq!(publishing_allocates(1), 1);
    assert_eq!(publishing_allocates(READERS), 1);
}

#[test]
fn reading_allocates_nothing_per_frame() {
    let ring = Ring::new();
    for _ in 0..200 {
        ring.publish(frame(), 0, &LIMITS).unwrap();
    }
    // The first use of the epoch in a thread allocates.
    read(&ring, &mut Cursor::at(FIRST));
    let mut cursors: Vec<_> = (0..READERS).map(|_| Cursor::at(FIRST)).collect();
    let (made, ()) = allocations(|| {
        for cursor in &mut cursors {
            assert_eq!(read(&ring, cursor), 200 * frame_len());
        }
    });
    assert_eq!(made, 0, "reading by reference");

    let mut cursor = Cursor::at(FIRST + 4);
    let (made, step) = allocations(|| cursor.take(&ring, 16, usize::MAX));
    assert!(matches!(&step, Step::Item(batch) if batch.len() == 16));
    assert_eq!(made, 0, "a batch within one chunk");

    // A batch over chunks has a list of them, which doubles as it grows: four times for 12 chunks.
    let (made, step) = allocations(|| cursor.take(&ring, 256, usize::MAX));
    let Step::Item(batch) = step else { panic!("entries are there") };
    assert_eq!(batch.len(), 180);
    assert!(made <= 3, "{made} allocations for 12 chunks");
    let (made, bytes) = allocations(|| batch.iter().map(|frame| frame.len()).sum::<usize>());
    assert_eq!((made, bytes), (0, 180 * frame_len()));
}

fn frame_len() -> usize {
    200 + 2
}
