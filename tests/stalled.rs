//! Readers that stop reading, very many of them and owed very much: what they hold is bounded, and nobody else waits.
//!
//! The short form has 100 of them. `RINGMAIN_TEST_LONG=1` makes it 1,000 and compares the others' latency with what it
//! was before: `RINGMAIN_TEST_LONG=1 cargo test --release --test stalled -- --nocapture`, on a machine that does
//! nothing else.

#![cfg(feature = "server")]

mod support;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmain::server::Config;
use ringmain::session::Session;
use serde_json::json;
use support::{Client, Stream, TestServer, Wire, note, number, publish, until};

/// Events that each stalled reader is owed.
const OWED: u64 = 10_000;
/// Of those, more than the kernel takes for a reader that takes nothing.
const FIRST: u64 = 1000;
/// Streams whose latency is measured.
const OTHERS: usize = 20;
/// Padding of an event, and what it is with it, roughly.
const PADDING: usize = 200;
const EVENT: u64 = 350;

fn is_long() -> bool {
    std::env::var_os("RINGMAIN_TEST_LONG").is_some()
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}

/// Somebody who reads.
struct Other {
    client: Client,
    session: Arc<Session>,
    listening: Stream,
    published: u64,
}

/// How long an event is on its way to a reader, and a request to its answer and back: the 99th percentiles.
async fn measure(others: &mut [Other], samples: usize) -> (Duration, Duration) {
    let (mut events, mut requests) = (Vec::new(), Vec::new());
    for sample in 0..samples {
        let other = &mut others[sample % OTHERS];
        other.published += 1;
        let began = Instant::now();
        publish(&other.session, other.published);
        assert_eq!(number(&other.listening.message().await.1), other.published);
        events.push(began.elapsed());
        if sample % 4 == 0 {
            let began = Instant::now();
            other.client.ping(sample as u64).await;
            requests.push(began.elapsed());
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    let p99 = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() * 99 / 100]
    };
    (p99(&mut events), p99(&mut requests))
}

/// Publishes `numbers` to each session, a little at a time over `time`, from a thread of its own. All at once it would
/// be the publisher that others wait for, on two cores.
fn flood(
    sessions: Vec<Arc<Session>>,
    numbers: RangeInclusive<u64>,
    time: Duration,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let began = Instant::now();
        let count = numbers.clone().count() * sessions.len();
        let rate = count as f64 / time.as_secs_f64();
        let mut published = 0;
        for number in numbers {
            let text = note(number, PADDING).to_string();
            for session in &sessions {
                while published as f64 > rate * began.elapsed().as_secs_f64() {
                    std::thread::sleep(Duration::from_micros(200));
                }
                session.publish(|out| out.extend_from_slice(text.as_bytes())).expect("the session is open");
                published += 1;
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_readers_are_bounded_and_delay_nobody() {
    let (count, samples, time) =
        if is_long() { (1000, 20_000, Duration::from_secs(60)) } else { (100, 1000, Duration::from_secs(3)) };
    let config = Config::default();
    let limits = config.sessions.standalone;
    let server = TestServer::start(config);
    let mut others = Vec::new();
    for _ in 0..OTHERS {
        let client = server.client().await;
        let session = server.session(&client);
        let mut listening = client.listen(None).await;
        listening.primed().await;
        others.push(Other { client, session, listening, published: 0 });
    }
    // They are there, and listen; so far they are owed nothing.
    let (mut stalled, mut sessions) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let client = server.client().await;
        let session = server.session(&client);
        let mut wire = Wire::connect_narrow(server.address).await;
        wire.send(&client.get_bytes(None)).await;
        until("the server to attach", || session.standalone().terms().is_attached()).await;
        stalled.push((client, wire));
        sessions.push(session);
    }
    measure(&mut others, samples / 4).await;
    let before = measure(&mut others, samples).await;
    let memory = resident();

    // Their sockets fill first: until then they are 1,000 busy readers, and what others feel is the load.
    let filling = flood(sessions.clone(), 1..=FIRST, time.mul_f64(FIRST as f64 / OWED as f64));
    tokio::task::spawn_blocking(move || filling.join().expect("it publishes")).await.expect("it ends");
    let flooding = flood(sessions.clone(), FIRST + 1..=OWED, time);
    let during = measure(&mut others, samples).await;
    tokio::task::spawn_blocking(move || flooding.join().expect("it publishes")).await.expect("it ends");
    let grown = resident().saturating_sub(memory);
    let after = measure(&mut others, samples).await;

    println!("{count} stalled readers, each owed {OWED} events of {EVENT} bytes: {} KiB", grown >> 10);
    println!("p99 of an event and of a request: before {before:?}, during {during:?}, after {after:?}");
    for session in &sessions {
        let stream = session.standalone();
        assert_eq!(stream.tail(), OWED + 1, "all of it was published");
        assert!(stream.tail() - stream.oldest() <= limits.capacity as u64 + 16, "and little of it retained");
        assert!(stream.terms().delivered() < FIRST, "the kernel took little of it");
    }
    // What its stream retains, and what is on the way to its socket: two times 64 KiB at most.
    let budget = count * ((limits.capacity as u64 + 16) * (EVENT + 48) + (128 << 10));
    assert!(grown < budget, "{grown} bytes of {budget}");
    assert!(budget < count * OWED * EVENT / 4, "the budget says something");
    for (_, requests) in [during, after] {
        assert!(requests < Duration::from_secs(2), "nobody waits for them");
    }
    if is_long() {
        let within = |now: Duration, was: Duration| now <= was.mul_f64(1.5);
        assert!(within(during.0, before.0) && within(after.0, before.0), "events");
        assert!(within(during.1, before.1) && within(after.1, before.1), "requests");
    }
    // Who stalled comes back, is told what it missed, and gets the rest.
    let (client, wire) = stalled.pop().expect("there are some");
    wire.reset();
    let mut again = client.listen(None).await;
    again.primed().await;
    let (mut last, mut told) = (0, false);
    while last < OWED {
        let (_, message) = again.message().await;
        if message["params"]["logger"] == json!("ringmain") {
            told = true;
        } else {
            last = number(&message);
        }
    }
    assert!(told, "it is told that it missed something");
}
