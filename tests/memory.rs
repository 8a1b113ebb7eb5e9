//! What an idle session, an untouched stream and a ring cost, in bytes.

#![allow(unsafe_code, reason = "an allocator that counts is an allocator")]

#[cfg(feature = "server")]
mod support;

use std::alloc::{GlobalAlloc, Layout};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use mimalloc::MiMalloc;
use ringmain::handler;
use ringmain::internals::protocol::Refusal;
use ringmain::internals::request::Environment;
use ringmain::internals::request::RequestStream;
use ringmain::internals::ring::{self, Cursor, FIRST, Limits, Ring, Step};
use ringmain::internals::session::{Connection, Creator, End, Holder};
use ringmain::internals::sse::{EventId, Frame, StreamName};
use ringmain::internals::stream::{Clock, Delivery, LagPolicy, Moment, Stream};
use ringmain::internals::sync::lock;
use ringmain::protocol::{ProtocolVersion, RequestId};
use ringmain::session::{AtLimit, PrincipalId, Session, Sessions, Settings};

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

/// Waits until what earlier tests let go is freed: their threads hand it over when they end.
fn settle() {
    let late = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while ringmain::internals::sse::retained_bytes() > 256 << 10 {
        assert!(
            std::time::Instant::now() < late,
            "{} bytes are retained",
            ringmain::internals::sse::retained_bytes()
        );
        ring::collect();
        std::thread::yield_now();
    }
}

/// A frame of 256 bytes.
fn frame() -> Frame {
    Frame::whole(StreamName { tag: 0x9f3c_21ab, stream: 1 }, |out| out.extend_from_slice(&[b'x'; 201]))
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
        live(&sessions.create(None));
        if created % 10_000 == 0 || created == count {
            now += sessions.settings().delivered_ttl_ms;
            clock.advance(Moment(now));
            assert_eq!(sessions.sweep().ended, 0);
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
/// `cargo test --release --test memory -- --ignored --nocapture --exact
/// a_million_idle_sessions_stay_within_300_mb_stress`
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
        (0..SESSIONS).for_each(|_| drop(sessions.create(None)));
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

/// A registry that may retain so many bytes.
fn budgeted(max_retained_bytes: u64) -> Sessions {
    let mut settings = Settings { max_retained_bytes, ..settings() };
    settings.standalone = Limits { capacity: 4096, max_weight: 8 << 20, max_age_ms: 1 << 20 };
    Sessions::new(settings, Clock::default())
}

/// Publishes events of `bytes` bytes, data alone.
fn publish(session: &Session, count: usize, bytes: usize) {
    (0..count).for_each(|_| assert!(session.publish(|out| out.resize(out.len() + bytes, b'x')).is_ok()));
}

/// Answers a request whose client is gone with `bytes` bytes; returns the name of its stream.
fn answered(session: &Arc<Session>, bytes: usize) -> StreamName {
    let request = session.open_request(RequestId::from(1), None, ProtocolVersion::LATEST).unwrap();
    publish_on(session, &request, 30);
    session.respond(&request, |out| out.resize(out.len() + bytes, b'r')).unwrap();
    request.name()
}

fn publish_on(session: &Session, request: &RequestStream, count: usize) {
    (0..count)
        .for_each(|_| assert!(session.publish_on(request, |out| out.resize(out.len() + 500, b'p')).is_ok()));
}

/// The event IDs of a stream before and behind everything.
fn beginning(name: StreamName) -> EventId {
    EventId::event(name, 0)
}

/// What a connection gives until it has nothing more for now.
fn read(connection: &mut Connection) -> String {
    let (mut out, mut context) = (Vec::new(), Context::from_waker(Waker::noop()));
    while let Poll::Ready(Some(piece)) = connection.poll_next(&mut context) {
        piece.append_to(&mut out);
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn the_longest_backlogs_go_first_and_responses_stay() {
    let _alone = lock(&ALONE);
    const BUDGET: u64 = 8 << 20;
    let sessions = budgeted(BUDGET);
    let create = || {
        let session = sessions.create(None);
        session.agree(ProtocolVersion::LATEST);
        session
    };
    let (large, small): (Vec<_>, Vec<_>) =
        ((0..20).map(|_| create()).collect(), (0..50).map(|_| create()).collect());
    large.iter().enumerate().for_each(|(index, session)| publish(session, 700 + 50 * index, 1000));
    small.iter().for_each(|session| publish(session, 20, 1000));
    let waiting: Vec<_> = small.iter().map(|session| answered(session, 5000)).collect();
    assert!(sessions.retained_bytes() > 2 * BUDGET && sessions.is_over_budget());
    assert!(sessions.relieve() > BUDGET);
    assert!(sessions.retained_bytes() <= BUDGET, "{}", sessions.retained_bytes());
    assert!(!sessions.is_over_budget() && sessions.relieve() == 0);
    // All of the long ones are now as long, to within a chunk.
    let left: Vec<_> = large.iter().map(|session| session.standalone().retained_bytes()).collect();
    let (least, most) = (left.iter().min().unwrap(), left.iter().max().unwrap());
    assert!(*least > 100_000 && most - least <= 2 * 16 * 1100, "{left:?}");
    for (session, name) in small.iter().zip(&waiting) {
        assert_eq!(read(&mut session.connect(None).unwrap()).matches("data: x").count(), 20);
        let fetched = read(&mut session.connect(Some(beginning(*name))).unwrap());
        assert_eq!((fetched.matches("data: p").count(), fetched.matches("data: r").count()), (30, 1));
    }
    // Who lost something is told how much.
    let told = read(&mut large[0].connect(None).unwrap());
    let kept = told.matches("data: x").count();
    assert!(told.contains(&format!(r#""missed":{}"#, 700 - kept)), "{kept}");
    assert_eq!(sessions.counters().responses_given_up(), 0);
}

#[test]
fn responses_go_last_and_the_oldest_of_them_first() {
    let _alone = lock(&ALONE);
    const BUDGET: u64 = 8 << 20;
    let sessions = budgeted(BUDGET);
    let session = sessions.create(None);
    session.agree(ProtocolVersion::LATEST);
    let waiting: Vec<_> = (0..100).map(|_| answered(&session, 200_000)).collect();
    assert!(sessions.retained_bytes() > 20_000_000);
    sessions.relieve();
    assert!(sessions.retained_bytes() <= BUDGET, "{}", sessions.retained_bytes());
    let given_up = sessions.counters().responses_given_up() as usize;
    assert!((60..75).contains(&given_up), "{given_up}");
    for (index, name) in waiting.iter().enumerate() {
        let found = session.connect(Some(beginning(*name)));
        if index < given_up {
            assert_eq!(found.unwrap_err(), Refusal::UnknownStream, "{index}");
        } else {
            assert!(read(&mut found.unwrap()).contains("data: r"), "{index}");
        }
    }
}

/// 400 bytes were counted as 118.
#[test]
fn the_budget_counts_what_unfetched_responses_take() {
    let _alone = lock(&ALONE);
    const SESSIONS: usize = 200;
    // What earlier tests let go is freed some rounds later, and would count as taken from here.
    settle();
    for each in [1_usize, 3, 64, 256] {
        let sessions = Sessions::new(settings(), Clock::default());
        let all: Vec<_> = (0..SESSIONS).map(|_| sessions.create(None)).collect();
        let count = (SESSIONS * each) as i64;
        let counted = sessions.retained_bytes() as i64;
        let ((), taken) = kept(|| all.iter().for_each(|session| unfetched(session, each)));
        let counted = sessions.retained_bytes() as i64 - counted;
        println!("{each} a session: {} bytes each, counted as {}", taken / count, counted / count);
        // The count may be 64 KiB behind; a session with one has space for three more.
        let slack = (64 << 10) + if each < 4 { 300 * SESSIONS as i64 } else { 0 };
        assert!(counted + slack > taken * 9 / 10, "{counted} of {taken}");
        assert!(counted - slack < taken * 12 / 10, "{counted} of {taken}");
    }
}

/// Requests that are answered while nobody is connected.
fn unfetched(session: &Arc<Session>, count: usize) {
    for number in 0..count as i64 {
        let request = session.open_request(RequestId::from(number), None, ProtocolVersion::LATEST).unwrap();
        session.respond(&request, |out| out.extend_from_slice(&[b'r'; 60])).unwrap();
    }
}

/// Each break of a connection put the response into a queue once more.
#[test]
fn reconnecting_again_and_again_grows_nothing() {
    let _alone = lock(&ALONE);
    let sessions = Sessions::new(settings(), Clock::default());
    let session = sessions.create(None);
    session.agree(ProtocolVersion::LATEST);
    let id = beginning(answered(&session, 100));
    let reconnect = |count: usize| {
        for number in 0..count {
            let mut connection = session.connect(Some(id)).unwrap();
            if number % 2 == 0 {
                read(&mut connection);
            }
        }
    };
    reconnect(1000);
    let ((), grown) = kept(|| reconnect(20_000));
    assert!(grown < 10_000, "{grown}");
}

/// It is in no list, and whoever holds it last takes all of it along.
#[test]
fn a_request_without_a_session_leaves_nothing() {
    let _alone = lock(&ALONE);
    settle();
    let environment = Arc::new(Environment::new(Limits::default(), Clock::default()));
    let answer = |count: i64| {
        for number in 0..count {
            let id = RequestId::from(number);
            let request = Arc::new(RequestStream::alone(id, None, ProtocolVersion::LATEST));
            let context = handler::Context::alone(environment.clone(), request.clone());
            let mut connection = request.stream().attach(None, LagPolicy::Signal);
            assert_eq!(context.notify("notifications/message", &"p".repeat(150)), Ok(()));
            context.respond(&"r".repeat(200));
            let mut events = 0;
            while let Some(Delivery::Frames(frames)) = connection.try_next(request.stream()) {
                events += frames.len();
            }
            assert_eq!(events, 2);
            connection.detach(request.stream());
        }
        (0..64).for_each(|_| ring::collect());
    };
    answer(1000);
    let ((), left) = kept(|| answer(20_000));
    assert!(left < 10_000, "{left}");
    assert_eq!((Arc::strong_count(&environment), environment.traffic().published()), (1, 2 * 21_000));
}

#[cfg(feature = "server")]
#[test]
fn an_http2_stream_stays_within_1500_bytes_with_its_session() {
    use ringmain::server::Config;
    use support::frames::{
        DATA, END_HEADERS, END_STREAM, Frames, HEADERS, WINDOW_UPDATE, frame, request_block,
    };
    use support::{TestServer, soon};

    const CONNECTIONS: usize = 2;
    /// Of one connection: as many as h2's slabs, which double, hold without waste.
    const STREAMS: usize = 1024;
    let _alone = lock(&ALONE);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(support::test(async {
        let server = TestServer::start(Config::default());
        let mut connections = Vec::new();
        let before = LIVE.load(Ordering::Relaxed); // Relaxed: a number that orders nothing
        for _ in 0..CONNECTIONS {
            let mut frames = Frames::connect(server.address, &[]).await;
            // Room for the priming events of all streams.
            frames.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 20).to_be_bytes()).await;
            for number in 0..STREAMS as u32 {
                let session = server.sessions.create(None);
                session.agree(ProtocolVersion::LATEST);
                let id = session.id().to_string();
                let headers = [("mcp-session-id", id.as_str()), ("accept", "text/event-stream")];
                let block = request_block("GET", &headers);
                let request = frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &block);
                frames.wire.send(&request).await;
                // The head, and the priming event.
                let mut seen = [false; 2];
                while seen != [true; 2] {
                    let received = soon("a frame", frames.next()).await.expect("the connection stays");
                    seen[0] |= received.kind == HEADERS;
                    seen[1] |= received.kind == DATA;
                }
            }
            connections.push(frames);
        }
        let bytes = (LIVE.load(Ordering::Relaxed) - before) / (CONNECTIONS * STREAMS) as i64; // Relaxed: as above
        println!("{bytes} bytes for an HTTP/2 stream and its session");
        assert!(bytes <= 1500, "{bytes} bytes");
    }));
}

/// Sessions that are created, used in all ways and ended in all ways, and what is left of them: with
/// `RINGMAIN_CHURN=1000000` a million.
#[test]
fn memory_returns_to_baseline_after_churn() {
    let _alone = lock(&ALONE);
    let count = std::env::var("RINGMAIN_CHURN").map_or(20_000, |count| count.parse().expect("a number"));
    let clock = Clock::default();
    let settings = Settings { max_sessions: 2000, at_limit: AtLimit::EvictOldest, ..Settings::default() };
    let sessions = Sessions::new(settings, clock.clone());
    let mut now = 0;
    let mut churn = |count: usize| {
        for number in 0..count {
            let creator =
                Creator { holder: Holder::from(PrincipalId::new(number as u64 % 1000)), address: None };
            let session = sessions.admit(creator).expect("another one goes");
            session.agree(ProtocolVersion::LATEST);
            publish(&session, number % 20, 100);
            match number % 5 {
                // Never heard of again.
                0 => {}
                // Attached when it ends.
                1 => {
                    session.hear();
                    let mut connection = session.connect(None).unwrap();
                    read(&mut connection);
                    assert!(sessions.end(&session, End::Deleted));
                    read(&mut connection);
                }
                // With a response that nobody fetches, and a request that nobody answers.
                2 => {
                    session.hear();
                    answered(&session, 300);
                    let _ = session.open_request(RequestId::from(2), None, ProtocolVersion::LATEST);
                }
                3 => {
                    live(&session);
                    assert!(sessions.terminate(&session));
                }
                _ => live(&session),
            }
            if number % 1000 == 0 {
                now += 40_000;
                clock.advance(Moment(now));
                sessions.sweep();
            }
        }
        // All that is left grows too old.
        now += sessions.settings().absolute_ms;
        clock.advance(Moment(now));
        (0..50).for_each(|_| assert!(sessions.sweep().ended <= 2000));
        assert_eq!(sessions.len(), 0);
    };
    // What the first sessions of all leave is not the last ones'.
    churn(10_000);
    let ((), grown) = kept(|| churn(count));
    println!("{grown} bytes more after {count} sessions");
    assert!(grown < 200_000, "{grown}");
    // Of sessions that ended with a client connected, the map keeps some for a while.
    assert!(sessions.retained_bytes() < 1_000_000, "{}", sessions.retained_bytes());
    let counters = sessions.counters();
    let ended = counters.expired_absolute() + counters.expired_idle() + counters.expired_uninitialised();
    let ended = ended + counters.evicted() + counters.deleted() + counters.closed();
    assert_eq!(counters.created(), ended);
    assert!(counters.evicted() > 0 && counters.expired_uninitialised() > 0);
}

/// Hundreds of clients that read nothing and are owed thousands of events each.
#[cfg(feature = "server")]
#[test]
fn memory_is_bounded_with_stalled_readers() {
    use ringmain::server::Config;
    use std::time::Duration;
    use support::{TestServer, until};

    const READERS: usize = 200;
    const EVENTS: u64 = 2000;
    const BUDGET: u64 = 32 << 20;
    let _alone = lock(&ALONE);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(support::test(async {
        let mut config = Config::default();
        config.sessions = Settings { max_retained_bytes: BUDGET, ..Settings::default() };
        config.sessions.standalone = Limits { capacity: 4096, max_weight: 8 << 20, max_age_ms: 1 << 20 };
        config.keep_alive = Duration::from_millis(200);
        config.stalled_after = Duration::from_secs(5);
        let server = TestServer::start(config);
        let mut stalled = Vec::new();
        for _ in 0..READERS {
            let client = server.client().await;
            let mut wire = support::Wire::connect_tiny(server.address).await;
            wire.send(&client.get_bytes(None)).await;
            stalled.push((server.session(&client), client, wire));
        }
        until("all to be attached", || {
            stalled.iter().all(|(session, ..)| session.standalone().terms().is_attached())
        })
        .await;
        let (healthy, bystander) = (server.client().await, server.client().await);
        let mut reading = healthy.listen(None).await;
        reading.primed().await;
        let reader = server.session(&healthy);
        let waiting = server.session(&bystander);
        publish(&waiting, 10, 300);
        let before = LIVE.load(Ordering::Relaxed); // Relaxed: a number that orders nothing
        let (mut most, mut most_live, mut owed) = (0, 0, 0);
        for round in 1..=EVENTS {
            for (session, ..) in &stalled {
                publish(session, 1, 300);
            }
            if round % 10 == 0 {
                // One that reads gets its events meanwhile.
                support::publish(&reader, round);
                assert_eq!(support::number(&reading.message().await.1), round);
            }
            owed += 355 * READERS as u64;
            most = most.max(server.sessions.retained_bytes());
            most_live = most_live.max(LIVE.load(Ordering::Relaxed) - before); // Relaxed: as above
        }
        healthy.ping(1).await;
        println!("{most} bytes retained at most, {most_live} bytes of memory more; {owed} were owed");
        assert!(owed > 4 * BUDGET);
        // What is published between two looks comes on top of the budget.
        assert!(most < 2 * BUDGET && most_live < 3 * BUDGET as i64, "{most} {most_live}");
        until("no more than the budget to be retained", || server.sessions.retained_bytes() <= BUDGET).await;
        assert!(server.sessions.counters().relieved_bytes() > owed / 2);
        // The one that had little lost nothing.
        let mut late = bystander.listen(None).await;
        late.primed().await;
        for _ in 0..10 {
            assert_eq!(late.next().await.expect("an event").data.map(|data| data.len()), Some(300));
        }
        // Those that stalled lose their connections, and are told what they missed when they come back.
        until("their connections to end", || {
            stalled.iter().all(|(session, ..)| !session.standalone().terms().is_attached())
        })
        .await;
        let (_, client, _) = &stalled[0];
        let mut again = client.listen(None).await;
        again.primed().await;
        let told = again.next().await.expect("the signal of a gap").message();
        assert_eq!(told["params"]["data"]["event"], "lagged", "{told}");
    }));
}
