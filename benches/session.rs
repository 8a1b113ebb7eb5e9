//! A million sessions: found, created, swept; beside a sharded map of strings, as servers keep them.
//!
//! `cargo bench -p ringmain --no-default-features --bench session`
//!
//! Both sides start from the text of the header. "random" takes sessions in an order that no cache can guess,
//! "hot" one session again and again.

mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use dashmap::DashMap;
use ringmain::internals::stream::{Clock, Moment};
use ringmain::internals::sync::{AtomicU64, Ordering};
use ringmain::protocol::{ProtocolVersion, SessionId};
use ringmain::session::{Sessions, Settings};
use uuid::Uuid;

const SESSIONS: usize = 1_000_000;

/// What a rival keeps for a session: less than ours, so that the comparison is one of the maps.
#[derive(Debug)]
struct Kept {
    touched: AtomicU64,
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let clock = Clock::default();
    let ours = Sessions::new(Settings::default(), clock.clone());
    let texts: Vec<String> = (0..SESSIONS)
        .map(|_| {
            let session = ours.create(None);
            session.agree(ProtocolVersion::LATEST);
            session.id().to_string()
        })
        .collect();
    let theirs: DashMap<String, Arc<Kept>> = DashMap::new();
    let keys: Vec<String> = (0..SESSIONS).map(|_| Uuid::new_v4().to_string()).collect();
    for key in &keys {
        theirs.insert(key.clone(), Arc::new(Kept { touched: AtomicU64::new(0) }));
    }

    let mut group = criterion.benchmark_group("session/find");
    group.throughput(Throughput::Elements(1));
    let find = |text: &str| {
        let session = ours.find(SessionId::parse(text).expect("an ID of ours"), None).expect("it is there");
        session.touch();
        session
    };
    // Relaxed: a number that orders nothing.
    let get = |key: &str| {
        let session = theirs.get(key).expect("it is there").clone();
        session.touched.store(1, Ordering::Relaxed);
        session
    };
    // The IDs are random, so their order in the list says nothing of their places in the map and in memory
    // but for the sessions' own: a stride that is no divisor takes care of those.
    let mut next = 0;
    let mut stride = move || {
        next = (next + 618_033) % SESSIONS;
        next
    };
    group.bench_function(BenchmarkId::new("ringmain", "random"), |bencher| {
        bencher.iter(|| find(&texts[stride()]));
    });
    group.bench_function(BenchmarkId::new("dashmap", "random"), |bencher| {
        bencher.iter(|| get(&keys[stride()]));
    });
    group.bench_function(BenchmarkId::new("ringmain", "hot"), |bencher| {
        bencher.iter(|| find(black_box(&texts[4711])));
    });
    group.bench_function(BenchmarkId::new("dashmap", "hot"), |bencher| {
        bencher.iter(|| get(black_box(&keys[4711])));
    });
    group.finish();

    let mut group = criterion.benchmark_group("session/create");
    group.throughput(Throughput::Elements(1));
    // What was created ends again, outside the measured time, so that the number stays near a million.
    group.bench_function(BenchmarkId::new("ringmain", SESSIONS), |bencher| {
        bencher.iter_custom(|count| {
            chunked(count, |count| {
                let start = Instant::now();
                let created: Vec<_> = (0..count).map(|_| ours.create(None)).collect();
                let elapsed = start.elapsed();
                created.iter().for_each(|session| assert!(ours.terminate(session)));
                elapsed
            })
        });
    });
    group.bench_function(BenchmarkId::new("dashmap", SESSIONS), |bencher| {
        bencher.iter_custom(|count| {
            chunked(count, |count| {
                let start = Instant::now();
                let created: Vec<_> = (0..count)
                    .map(|_| {
                        let key = Uuid::new_v4().to_string();
                        theirs.insert(key.clone(), Arc::new(Kept { touched: AtomicU64::new(0) }));
                        key
                    })
                    .collect();
                let elapsed = start.elapsed();
                created.iter().for_each(|key| assert!(theirs.remove(key).is_some()));
                elapsed
            })
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("session/sweep");
    group.throughput(Throughput::Elements(SESSIONS as u64)).sample_size(10);
    clock.advance(Moment(1000));
    group.bench_function(BenchmarkId::new("ringmain", SESSIONS), |bencher| {
        bencher.iter(|| assert_eq!(ours.sweep().ended, 0, "none is old"));
    });
    group.bench_function(BenchmarkId::new("dashmap", SESSIONS), |bencher| {
        // Relaxed: as above.
        bencher.iter(|| theirs.retain(|_, session| black_box(session.touched.load(Ordering::Relaxed)) < 2));
    });
    group.finish();
    assert_eq!((ours.len(), theirs.len()), (SESSIONS, SESSIONS));
    criterion.final_summary();
}

/// Runs `some` for at most 10,000 at a time, and adds up the times.
fn chunked(mut count: u64, mut some: impl FnMut(u64) -> Duration) -> Duration {
    let mut elapsed = Duration::ZERO;
    while count > 0 {
        let now = count.min(10_000);
        elapsed += some(now);
        count -= now;
    }
    elapsed
}
