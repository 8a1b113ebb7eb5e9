//! Very many responses that nobody fetches: what they take, and what letting them go costs.

#![cfg(feature = "server")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use ringmain::internals::stream::{Clock, Moment};
use ringmain::protocol::{ProtocolVersion, RequestId};
use ringmain::server::Config;
use ringmain::session::{Session, Sessions, Settings};
use support::{TestServer, test, until};

/// Whether this is the long run: with `RINGMAIN_TEST_LONG=1`, to be built with `--release`, on a quiet machine.
fn is_long() -> bool {
    std::env::var_os("RINGMAIN_TEST_LONG").is_some()
}

/// A million, or in short twenty thousand.
fn count() -> usize {
    if is_long() { 1_000_000 } else { 20_000 }
}

/// Requests that are answered while nobody is connected.
fn unfetched(session: &Arc<Session>, count: usize) {
    for number in 0..count as i64 {
        let request = session.open_request(RequestId::from(number), None, ProtocolVersion::LATEST).unwrap();
        session.respond(&request, |out| out.extend_from_slice(&[b'r'; 60])).unwrap();
    }
}

/// What this process has in memory, in bytes.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").expect("Linux says");
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// CPU time of this thread so far.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux says");
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

fn many(each: usize) -> (Sessions, Clock, Vec<Arc<Session>>) {
    let clock = Clock::default();
    let settings = Settings { idle_ms: 1 << 40, init_ms: 1 << 40, ..Settings::default() };
    let sessions = Sessions::new(settings, clock.clone());
    let all: Vec<_> = (0..count() / each).map(|_| sessions.create(None)).collect();
    all.iter().for_each(|session| unfetched(session, each));
    (sessions, clock, all)
}

/// Each expiry looked through all of them: 160,000 took 57 s in one sweep of a release build.
#[test]
fn expiry_of_responses_is_linear() {
    const COUNT: usize = 160_000;
    let clock = Clock::default();
    let (max_unfetched_responses, max_unfetched_bytes) = (usize::MAX, u64::MAX);
    let settings = Settings { max_unfetched_responses, max_unfetched_bytes, ..Settings::default() };
    let sessions = Sessions::new(settings, clock.clone());
    let session = sessions.create(None);
    assert!(session.hear());
    unfetched(&session, COUNT);
    assert_eq!(session.summary().retained, COUNT);
    clock.advance(Moment(sessions.settings().response_ttl_ms));
    let began = Instant::now();
    // Several short ones.
    for left in (1..=COUNT / 10_000).rev() {
        let swept = sessions.sweep();
        assert_eq!((swept.responses, swept.more), (10_000, left > 1));
    }
    assert_eq!(session.summary().retained, 0);
    println!("{COUNT} of one session: {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

/// Sweeps before the responses have had their time, then when all have had it; each is short.
#[cfg(target_os = "linux")]
#[test]
fn sweeps_of_a_million_unfetched_responses_are_short() {
    for each in [1, 10, 250] {
        let (sessions, clock, all) = many(each);
        let sweep = || {
            let began = cpu();
            let swept = sessions.sweep();
            (swept, cpu() - began)
        };
        clock.advance(Moment(sessions.settings().response_ttl_ms - 1000));
        let (swept, took) = sweep();
        assert_eq!((swept.responses, swept.more), (0, false));
        println!("{} responses of {} sessions: {took:?} while they wait", all.len() * each, all.len());
        let (mut longest, mut gone) = (took, 0);
        clock.advance(Moment(sessions.settings().response_ttl_ms));
        loop {
            let (swept, took) = sweep();
            gone += swept.responses;
            longest = longest.max(took);
            if !swept.more {
                break;
            }
        }
        println!("  {longest:?} at most when their time is up");
        assert_eq!(gone, all.len() * each);
        assert!(!is_long() || longest < Duration::from_millis(100), "{longest:?}");
        assert!(all.iter().all(|session| session.summary().retained == 0));
    }
}

/// The server's own upkeep keeps them within the budget while they come, and its clock goes on meanwhile.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfetched_responses_stay_within_the_budget_of_all() {
    test(async {
        let mut config = Config::default();
        let budget = if is_long() { 256 << 20 } else { 4 << 20 };
        config.sessions.max_retained_bytes = budget;
        config.sessions.response_ttl_ms = 2000;
        config.sweep = Duration::from_millis(500);
        let server = TestServer::start(config);
        let before = resident();
        let late = Arc::new(AtomicU64::new(0));
        let over = Arc::new(AtomicBool::new(false));
        let watching = thread::spawn({
            let (clock, late, over) = (server.sessions.clock().clone(), late.clone(), over.clone());
            move || {
                let (mut shown, mut since) = (clock.now(), Instant::now());
                while !over.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(2));
                    let now = clock.now();
                    // What it showed until now was as old as this.
                    late.fetch_max(since.elapsed().as_millis() as u64, Ordering::Relaxed);
                    if now > shown {
                        (shown, since) = (now, Instant::now());
                    }
                }
            }
        });
        let sessions = server.sessions.clone();
        let most = tokio::task::spawn_blocking(move || {
            let mut most = 0;
            for number in 0..count() / 100 {
                unfetched(&sessions.create(None), 100);
                if number % 64 == 0 {
                    most = most.max(sessions.retained_bytes());
                    // As fast as clients of two cores could make them.
                    thread::sleep(Duration::from_millis(5));
                }
            }
            most
        });
        let most = most.await.unwrap();
        let grown = resident().saturating_sub(before);
        let counters = server.sessions.counters();
        println!(
            "{} responses: {} MiB retained at most of {}, {} MiB more in memory, {} given up; the clock was {} ms old at most",
            count(), most >> 20, budget >> 20, grown >> 20, counters.responses_given_up(), late.load(Ordering::Relaxed),
        );
        assert!(counters.responses_given_up() > 0, "the budget was reached");
        until("the budget to hold", || server.sessions.retained_bytes() <= budget).await;
        if is_long() {
            // Between two looks of the upkeep it may be exceeded.
            assert!(most < budget + budget / 2, "{most}");
            // Sessions, the allocator's own, and what the epoch has not freed yet.
            assert!(grown < budget + budget / 2, "{grown}");
        }
        until("all to have had their time", || {
            let mut retained = 0;
            server.sessions.for_each(|session| retained += session.summary().retained);
            retained == 0
        })
        .await;
        over.store(true, Ordering::Relaxed);
        watching.join().unwrap();
        let late = late.load(Ordering::Relaxed);
        println!("the clock was {late} ms old at most");
        // It is set every 50 ms.
        assert!(!is_long() || late <= 100 + 50, "{late}");
    })
    .await;
}
