//! What an idle session, an untouched stream and a ring cost, in bytes.

#![allow(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::alloc::{GlobalAlloc, Layout};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use mimalloc::MiMalloc;
use ringmain::protocol::{ProtocolVersion, RequestId};
use ringmain::ring::{self, Cursor, FIRST, Limits, Ring, Step};
use ringmain::session::{Session, Sessions, Settings};
use ringmain::sse::{Frame, StreamName};
use ringmain::stream::{Clock, Moment, Stream};
use ringmain::sync::lock;

/// Bytes that were asked for and not given back. Of the whole process, because what a thread retires another
/// may free.
static LIVE: AtomicI64 = AtomicI64::new(0);

/// Held by each test, so that none counts what another asks for.
static ALONE: Mutex<()> = Mutex::new(());

fn count(bytes: i64) {
    LIVE.fetch_add(bytes, Ordering::Relaxed); // Relaxed: a number that orders nothing
}

/// The allocator of the binary, counting what is asked of it.
struct Counting;

// SAFETY: everything is mimalloc's own; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller keeps the rules of `alloc`, which are the same.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller keeps the rules of `dealloc`, and the pointer came from `MiMalloc`.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size as i64 - layout.size() as i64);
        // SAFETY: the caller keeps the rules of `realloc`, and the pointer came from `MiMalloc`.
        unsafe { MiMalloc.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `make` makes, and how many bytes it keeps.
fn kept<R>(make: impl FnOnce() -> R) -> (R, i64) {
    // Relaxed: what other threads did before is not counted, and none does anything meanwhile.
    let before = LIVE.load(Ordering::Relaxed);
    let made = make();
    (made, LIVE.load(Ordering::Relaxed) - before) // Relaxed: as above
}

/// A frame of 256 bytes.
fn frame() -> Frame {
    Frame::whole(StreamName { tag: 0x9f3c_21ab, stream: 0 }, |out| out.extend_from_slice(&[b'x'; 201]))
}

fn limits(capacity: usize) -> Limits {
    Limits { capacity, max_weight: 1 << 30, max_age_ms: 1 << 20 }
}

fn settings() -> Settings {
    // The life below takes more than half an hour of the clock.
    Settings { init_ms: u64::MAX, idle_ms: u64::MAX, absolute_ms: u64::MAX, ..Settings::default() }
}

/// What a session lives through before it falls idle: it is initialised, answers one request to a connection
/// that takes the answer, and the answer's time passes.
fn live(session: &Arc<Session>) {
    let version = ProtocolVersion::LATEST;
    session.agree(version);
    let request = session.open_request(RequestId::from(1), None, version).unwrap();
    let mut connection = session.connect_request(request.clone());
    session.publish_on(&request, |out| out.extend_from_slice(&[b'p'; 150])).unwrap();
    session.respond(&request, |out| out.extend_from_slice(&[b'r'; 200])).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let mut bytes = 0;
    while let Poll::Ready(Some(piece)) = connection.poll_next(&mut context) {
        bytes += piece.wire_len();
    }
    assert!(bytes > 350);
}

/// Creates `count` sessions that lived; the clock moves on so that no response is left.
fn idle_sessions(count: usize) -> Sessions {
    let clock = Clock::default();
    let sessions = Sessions::new(settings(), clock.clone());
    let mut now = 0;
    for created in 1..=count {
        live(&sessions.create(0));
        if created % 10_000 == 0 || created == count {
            now += sessions.settings().delivered_ttl_ms;
            clock.advance(Moment(now));
            sessions.sweep(|_| panic!("no session is old"));
        }
    }
    sessions.for_each(|session| assert_eq!(session.summary().retained, 0));
    assert_eq!(sessions.len(), count);
    sessions
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn an_empty_stream_is_at_most_32_bytes() {
    let _alone = lock(&ALONE);
    let stream = Stream::new();
    assert!(stream.is_untouched());
    // Once in many: the harness starts and ends threads meanwhile, which ask for memory and give it back.
    assert!((0..1000).any(|_| kept(Stream::new).1 == 0), "and nothing elsewhere");
    assert!(size_of_val(&stream) <= 32);
}

#[test]
fn idle_sessions_stay_within_300_bytes() {
    let _alone = lock(&ALONE);
    const SESSIONS: usize = 100_000;
    let (sessions, bytes) = kept(|| idle_sessions(SESSIONS));
    let each = bytes as f64 / SESSIONS as f64;
    println!("{each:.1} bytes asked for by each of {SESSIONS} idle sessions");
    assert!(each <= 300.0, "{each}");
    assert_eq!(sessions.len(), SESSIONS);
}

/// A million, by what the system says is in memory. Alone, because other tests' memory would be counted:
/// `cargo test --release --test memory -- --ignored --nocapture --exact a_million_idle_sessions_stay_within_300_mb_stress`
#[test]
#[ignore = "takes 300 MB and some seconds"]
fn a_million_idle_sessions_stay_within_300_mb_stress() {
    let _alone = lock(&ALONE);
    const SESSIONS: usize = 1_000_000;
    // What the first session of all costs is not a session's.
    drop(idle_sessions(1));
    let before = resident();
    let bare = {
        let sessions = Sessions::new(settings(), Clock::default());
        (0..SESSIONS).for_each(|_| drop(sessions.create(0)));
        let bytes = resident() - before;
        std::mem::forget(sessions);
        bytes
    };
    let before = resident();
    let (sessions, asked) = kept(|| idle_sessions(SESSIONS));
    let lived = resident() - before;
    let each = |bytes: usize| bytes as f64 / SESSIONS as f64;
    println!("{:.1} bytes in memory for each of {SESSIONS} sessions just created", each(bare));
    println!("{:.1} bytes in memory for each that lived, {:.1} asked for", each(lived), each(asked as usize));
    assert!(each(bare) <= 300.0 && each(lived) <= 300.0, "{} {}", each(bare), each(lived));
    assert_eq!(sessions.len(), SESSIONS);
}

/// What `docs/ring.md` says of memory: `cargo test --test memory figures -- --nocapture`
#[test]
fn figures_of_rings() {
    let _alone = lock(&ALONE);
    fn print(what: &str, of: fn(capacity: usize, frames: usize) -> i64) {
        let mut line = format!("{what:10}");
        for (capacity, frames) in [(16, 0), (256, 0), (256, 1), (256, 16), (256, 256), (1024, 1024)] {
            line += &format!("  {frames} of {capacity}: {} B", of(capacity, frames));
        }
        println!("{line}");
    }

    fn ring_bytes(capacity: usize, frames: usize) -> i64 {
        let limits = limits(capacity);
        // The scratch buffer and the epoch are the thread's, not the ring's.
        Ring::new().publish(frame(), 0, &limits).unwrap();
        let (ring, bytes) = kept(|| {
            let ring = Box::new(Ring::new());
            (0..frames).for_each(|_| assert!(ring.publish(frame(), 0, &limits).is_ok()));
            ring
        });
        assert_eq!(ring.tail(), FIRST + frames as u64);
        bytes
    }
    print("ring", ring_bytes);

    fn queue_bytes(capacity: usize, frames: usize) -> i64 {
        let (_queue, bytes) = kept(|| {
            let mut queue = Box::new(Mutex::new(VecDeque::new()));
            for _ in 0..frames {
                let queue = queue.get_mut().unwrap();
                if queue.len() == capacity {
                    queue.pop_front();
                }
                queue.push_back(Bytes::from(vec![b'x'; 256]));
            }
            queue
        });
        bytes
    }
    print("queue", queue_bytes);

    fn broadcast_bytes(capacity: usize, frames: usize) -> i64 {
        let (_channel, bytes) = kept(|| {
            let sender = tokio::sync::broadcast::channel::<Bytes>(capacity).0;
            let receiver = sender.subscribe();
            (0..frames).for_each(|_| drop(sender.send(Bytes::from(vec![b'x'; 256]))));
            (sender, receiver)
        });
        bytes
    }
    print("broadcast", broadcast_bytes);

    // A stream holds its ring in place, so what is asked for here is the box of two words.
    assert_eq!(ring_bytes(1024, 0), 16);
    assert!(ring_bytes(256, 16) < 16 * 256 + 1200);
    // 43 bytes a frame beyond its own: a header of 32, a slot, a share of the chunk.
    assert!(ring_bytes(1024, 1024) < 1024 * (256 + 46));
}

/// A reader that stopped with a batch in its hands keeps the chunks of that batch, and nothing behind them.
#[test]
fn a_stalled_reader_keeps_its_batch_and_no_more() {
    let _alone = lock(&ALONE);
    const PUBLISHED: usize = 100_000;
    let (ring, limits) = (Ring::new(), limits(256));
    (0..256).for_each(|_| assert!(ring.publish(frame(), 0, &limits).is_ok()));
    let mut cursor = Cursor::at(FIRST);
    let Step::Item(batch) = cursor.take(&ring, 64, usize::MAX) else { panic!("entries are there") };
    let ((), grown) = kept(|| {
        for published in 0..PUBLISHED {
            ring.publish(frame(), 0, &limits).unwrap();
            if published % 1000 == 0 {
                ring::collect();
            }
        }
        // Three epochs on, whatever was evicted is gone.
        (0..8).for_each(|_| ring::collect());
    });
    println!("{grown} bytes more after {PUBLISHED} events past a reader that holds 64 frames");
    assert_eq!(batch.positions().collect::<Vec<_>>(), (1..=64).collect::<Vec<_>>());
    assert!(grown < 80 * 300 + 64 * 300, "{grown}");
    // It goes on in the chunk it stands on, and is told what it missed behind that.
    let (mut read, mut missed) = (64, 0);
    loop {
        match cursor.next(&ring) {
            Step::Item(_) => read += 1,
            Step::Lagged { missed: more } => missed += more,
            _ => break,
        }
    }
    assert_eq!(read + missed, 256 + PUBLISHED as u64);
}
