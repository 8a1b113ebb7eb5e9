//! The ring beside what servers use instead of one: publish, read, replay.
//!
//! `cargo bench -p ringmain --no-default-features --bench ring`
//!
//! Every side carries the same 256-byte frame, builds it in the measured time, and retains 256 of them. Where
//! threads meet, the time is that of one publisher's call while the others run as fast as they can.

mod support;

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput};
use ringmain::internals::ring::{Cursor, FIRST, Ring, Step};
use ringmain::internals::sse::Frame;
use ringmain::internals::sync::{AtomicBool, Ordering};
use support::{Broadcast, Build, LIMITS, Queue, RETAINED, Rmcp, RmcpSession, frame, look_at};
use tokio::sync::broadcast;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    publish(&mut criterion);
    parts(&mut criterion);
    read(&mut criterion);
    take(&mut criterion);
    replay(&mut criterion);
    criterion.final_summary();
}

/// One side of the comparison: something to publish to, and readers that read whatever is there.
trait Side: Sync {
    type Reader: Send;
    fn publish(&self);
    fn reader(&self) -> Self::Reader;
    /// Reads up to 16 events; returns how many there were.
    fn read(&self, reader: &mut Self::Reader) -> usize;
}

struct Ours(Ring<Frame>);

impl Side for Ours {
    type Reader = Cursor<Frame>;

    #[inline]
    fn publish(&self) {
        assert!(self.0.publish(frame(), 0, &LIMITS).is_ok());
    }

    fn reader(&self) -> Self::Reader {
        Cursor::at(self.0.tail())
    }

    #[inline]
    fn read(&self, reader: &mut Self::Reader) -> usize {
        for count in 0..16 {
            match reader.next(&self.0) {
                Step::Item(frame) => look_at(frame.as_bytes()),
                Step::Lagged { .. } => {}
                _ => return count,
            }
        }
        16
    }
}

impl Side for Broadcast {
    type Reader = broadcast::Receiver<Bytes>;

    #[inline]
    fn publish(&self) {
        Self::publish(self);
    }

    fn reader(&self) -> Self::Reader {
        self.sender.subscribe()
    }

    #[inline]
    fn read(&self, reader: &mut Self::Reader) -> usize {
        for count in 0..16 {
            match reader.try_recv() {
                Ok(frame) => look_at(&frame),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => return count,
            }
        }
        16
    }
}

impl Side for Queue {
    type Reader = u64;

    #[inline]
    fn publish(&self) {
        Self::publish(self);
    }

    fn reader(&self) -> u64 {
        1
    }

    #[inline]
    fn read(&self, reader: &mut u64) -> usize {
        (0..16)
            .take_while(|_| {
                self.next(reader).is_some_and(|frame| {
                    look_at(&frame);
                    true
                })
            })
            .count()
    }
}

/// How long it takes until each of `publishers` threads has published `count` events, while one thread reads
/// for `cursors` readers.
fn crowd<S: Side>(side: &S, count: u64, publishers: usize, cursors: usize) -> Duration {
    let stop = AtomicBool::new(false);
    let barrier = Barrier::new(publishers + usize::from(cursors > 0));
    thread::scope(|scope| {
        if cursors > 0 {
            scope.spawn(|| {
                let mut readers: Vec<_> = (0..cursors).map(|_| side.reader()).collect();
                barrier.wait();
                // Relaxed: the end of the run orders nothing.
                while !stop.load(Ordering::Relaxed) {
                    let read: usize = readers.iter_mut().map(|reader| side.read(reader)).sum();
                    if read == 0 {
                        std::hint::spin_loop();
                    }
                }
            });
        }
        let others: Vec<_> = (1..publishers)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    (0..count).for_each(|_| side.publish());
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        (0..count).for_each(|_| side.publish());
        others.into_iter().for_each(|other| other.join().expect("it publishes and returns"));
        let elapsed = start.elapsed();
        stop.store(true, Ordering::Relaxed); // Relaxed: as above
        elapsed
    })
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/publish");
    // Runs of one length: in short ones the threads hardly meet.
    group.sampling_mode(SamplingMode::Flat).sample_size(30);
    for (crowd_name, publishers, cursors) in
        [("1p", 1, 0), ("2p", 2, 0), ("1p_1_cursor", 1, 1), ("1p_1000_cursors", 1, 1000)]
    {
        group.throughput(Throughput::Elements(publishers as u64));
        let mut of = |rival: &str, run: &mut dyn FnMut(u64) -> Duration| {
            group.bench_function(BenchmarkId::new(rival, crowd_name), |bencher| {
                bencher.iter_custom(&mut *run)
            });
        };
        let ours = Ours(Ring::new());
        of("ringmain", &mut |count| crowd(&ours, count, publishers, cursors));
        let queue = Queue::new(Build::ByHand);
        of("queue", &mut |count| crowd(&queue, count, publishers, cursors));
        let channel = Broadcast::new(Build::ByHand);
        of("broadcast", &mut |count| crowd(&channel, count, publishers, cursors));
        let channel = Broadcast::new(Build::Format);
        of("broadcast_format", &mut |count| crowd(&channel, count, publishers, cursors));
    }
    group.throughput(Throughput::Elements(1));
    let Rmcp { runtime, mut session } = Rmcp::new();
    // Alone, and on one thread: a session that nobody is connected to.
    group.bench_function(BenchmarkId::new("rmcp", "1p"), |bencher| {
        bencher.iter_custom(|count| {
            runtime.block_on(async {
                let start = Instant::now();
                for _ in 0..count {
                    session.publish().await;
                }
                start.elapsed()
            })
        });
    });
    group.finish();
}

/// The parts of a publish: the frame alone, and publishing one that is built.
fn parts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/publish_parts");
    group.throughput(Throughput::Elements(1));
    group.bench_function("frame_build_and_drop", |bencher| bencher.iter(frame));
    let ring = Ring::new();
    group.bench_function("built_frame", |bencher| {
        bencher.iter_batched(frame, |frame| ring.publish(frame, 0, &LIMITS).is_ok(), BatchSize::SmallInput);
    });
    group.finish();
}

/// Runs `round`, which does [`RETAINED`] events, until `count` events are done; `prepare` is not measured.
fn rounds(count: u64, mut prepare: impl FnMut(), mut round: impl FnMut()) -> Duration {
    let mut elapsed = Duration::ZERO;
    let rounds = count.div_ceil(RETAINED as u64);
    for _ in 0..rounds {
        prepare();
        let start = Instant::now();
        round();
        elapsed += start.elapsed();
    }
    elapsed.mul_f64(count as f64 / (rounds * RETAINED as u64) as f64)
}

/// One attached reader reads what is there, one event at a time.
fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/read");
    group.throughput(Throughput::Elements(1));
    let ring = full_ring();
    group.bench_function(BenchmarkId::new("ringmain", "position"), |bencher| {
        bencher.iter_custom(|count| {
            rounds(
                count,
                || (),
                || {
                    let mut cursor = Cursor::at(ring.oldest());
                    while let Step::Item(frame) = cursor.next(&ring) {
                        black_box(&*frame);
                    }
                },
            )
        });
    });
    group.bench_function(BenchmarkId::new("ringmain", "bytes"), |bencher| {
        bencher.iter_custom(|count| {
            rounds(
                count,
                || (),
                || {
                    let mut cursor = Cursor::at(ring.oldest());
                    while let Step::Item(frame) = cursor.next(&ring) {
                        look_at(frame.as_bytes());
                    }
                },
            )
        });
    });
    let queue = Queue::new(Build::ByHand);
    (0..RETAINED).for_each(|_| queue.publish());
    group.bench_function(BenchmarkId::new("queue", "bytes"), |bencher| {
        bencher.iter_custom(|count| {
            rounds(
                count,
                || (),
                || {
                    let mut cursor = 1;
                    while let Some(frame) = queue.next(&mut cursor) {
                        look_at(&frame);
                    }
                },
            )
        });
    });
    let channel = Broadcast::new(Build::ByHand);
    let receiver = std::cell::RefCell::new(channel.sender.subscribe());
    group.bench_function(BenchmarkId::new("broadcast", "bytes"), |bencher| {
        bencher.iter_custom(|count| {
            rounds(
                count,
                || (0..RETAINED).for_each(|_| channel.publish()),
                || {
                    while let Ok(frame) = receiver.borrow_mut().try_recv() {
                        look_at(&frame);
                    }
                },
            )
        });
    });
    group.finish();
}

/// A ring that retains [`RETAINED`] frames.
fn full_ring() -> Ring<Frame> {
    let ring = Ring::new();
    (0..RETAINED).for_each(|_| assert!(ring.publish(frame(), 0, &LIMITS).is_ok()));
    ring
}

/// Taking a batch that outlives the borrow of the ring, as the edge does for each write.
fn take(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/take");
    let ring = full_ring();
    for entries in [1, 16, 64] {
        group.throughput(Throughput::Elements(entries));
        group.bench_function(BenchmarkId::from_parameter(entries), |bencher| {
            let mut cursor = Cursor::at(FIRST);
            bencher.iter(|| {
                if cursor.position() + entries > ring.tail() {
                    cursor = Cursor::at(FIRST);
                }
                cursor.take(&ring, entries as usize, usize::MAX)
            });
        });
    }
    group.finish();
}

/// A client comes back and gets everything that is retained: what is handed to the socket is looked at.
fn replay(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/replay");
    group.throughput(Throughput::Elements(RETAINED as u64));
    let ring = full_ring();
    group.bench_function(BenchmarkId::new("ringmain", RETAINED), |bencher| {
        bencher.iter(|| {
            let (mut cursor, mut frames) = (Cursor::at(FIRST), 0);
            while let Step::Item(batch) = cursor.take(&ring, 64, 256 << 10) {
                for frame in batch.iter() {
                    look_at(frame.as_bytes());
                    frames += 1;
                }
            }
            assert_eq!(frames, RETAINED);
        });
    });
    for (name, build) in [("queue", Build::ByHand), ("queue_format", Build::Format)] {
        let queue = Queue::new(build);
        (0..RETAINED).for_each(|_| queue.publish());
        group.bench_function(BenchmarkId::new(name, RETAINED), |bencher| {
            bencher.iter(|| {
                let frames = queue.replay(0);
                assert_eq!(frames.len(), RETAINED);
                frames.iter().for_each(|frame| look_at(frame));
            });
        });
    }
    let Rmcp { runtime, mut session } = Rmcp::new();
    runtime.block_on(async {
        for _ in 0..RETAINED {
            session.publish().await;
        }
    });
    group.bench_function(BenchmarkId::new("rmcp", RETAINED), |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let mut body = session.resume(0).await;
                for _ in 0..RETAINED {
                    look_at(&RmcpSession::next(&mut body).await);
                }
            });
        });
    });
    group.finish();
}
