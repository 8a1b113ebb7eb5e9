//! Publish and read of one event through one attached reader: ours, a broadcast channel with a mutexed queue,
//! and rmcp's own session.
//!
//! `cargo bench -p ringmain --no-default-features --bench stream`
//!
//! One thread. Each side builds the 256-byte frame, keeps it for replay, hands it to the reader, and the
//! reader looks at its bytes.

mod support;

use core::future::Future;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use std::hint::black_box;
use std::time::Instant;

use bytes::{Buf, Bytes};
use criterion::{BenchmarkId, Criterion, Throughput};
use futures_util::StreamExt;
use ringmain::internals::sse::{Events, Series};
use ringmain::internals::stream::{Delivery, LagPolicy, Moment, Stream};
use support::{Broadcast, Build, LIMITS, NAME, Rmcp, RmcpSession, frame, look_at};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    publish_read(&mut criterion);
    publish_wake_read(&mut criterion);
    burst(&mut criterion);
    resume(&mut criterion);
    replay(&mut criterion);
    criterion.final_summary();
}

const RIVALS: [(&str, Build); 2] = [("broadcast", Build::ByHand), ("broadcast_format", Build::Format)];

fn publish(stream: &Stream) {
    assert!(stream.publish(frame(), Moment(0), &LIMITS).is_ok());
}

/// Looks at every frame of a delivery; returns how many there were.
fn look(delivery: Option<Delivery>) -> usize {
    let Some(Delivery::Frames(batch)) = delivery else { panic!("something was published") };
    batch.iter().map(|frame| look_at(frame.as_bytes())).count()
}

/// The reader asks after the event is there.
fn publish_read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stream/publish_read");
    group.throughput(Throughput::Elements(1));
    let stream = Stream::new();
    let mut subscriber = stream.attach(None, LagPolicy::Signal);
    group.bench_function("ringmain", |bencher| {
        bencher.iter(|| {
            publish(&stream);
            assert_eq!(look(subscriber.try_next(&stream)), 1);
        });
    });
    for (name, build) in RIVALS {
        let channel = Broadcast::new(build);
        let mut receiver = channel.sender.subscribe();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                channel.publish();
                look_at(&receiver.try_recv().expect("something was published"));
            });
        });
    }
    let Rmcp { runtime, mut session } = Rmcp::new();
    group.bench_function("rmcp", |bencher| {
        bencher.iter_custom(|count| {
            runtime.block_on(async {
                let mut body = session.connect().await;
                // What is retained is sent again to whoever connects.
                while let Some(event) = futures_util::FutureExt::now_or_never(RmcpSession::next(&mut body)) {
                    black_box(event);
                }
                let start = Instant::now();
                for _ in 0..count {
                    session.publish().await;
                    look_at(&RmcpSession::next(&mut body).await);
                }
                start.elapsed()
            })
        });
    });
    group.finish();
}

/// The reader waits before the event is there: its waker is registered, and woken by the publish.
fn publish_wake_read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stream/publish_wake_read");
    group.throughput(Throughput::Elements(1));
    let mut context = Context::from_waker(Waker::noop());
    let stream = Stream::new();
    let mut subscriber = stream.attach(None, LagPolicy::Signal);
    group.bench_function("ringmain", |bencher| {
        bencher.iter(|| {
            assert!(subscriber.poll_next(&stream, &mut context).is_pending());
            publish(&stream);
            let Poll::Ready(delivery) = subscriber.poll_next(&stream, &mut context) else {
                panic!("it is there")
            };
            assert_eq!(look(Some(delivery)), 1);
        });
    });
    for (name, build) in RIVALS {
        let channel = Broadcast::new(build);
        let mut receiver = channel.sender.subscribe();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut received = pin!(receiver.recv());
                assert!(received.as_mut().poll(&mut context).is_pending());
                channel.publish();
                let Poll::Ready(Ok(frame)) = received.poll(&mut context) else { panic!("it is there") };
                look_at(&frame);
            });
        });
    }
    group.finish();
}

/// Sixteen events, then one read of all that is there.
fn burst(criterion: &mut Criterion) {
    const EVENTS: usize = 16;
    let mut group = criterion.benchmark_group("stream/burst");
    group.throughput(Throughput::Elements(EVENTS as u64));
    let stream = Stream::new();
    let mut subscriber = stream.attach(None, LagPolicy::Signal);
    group.bench_function(BenchmarkId::new("ringmain", EVENTS), |bencher| {
        bencher.iter(|| {
            (0..EVENTS).for_each(|_| publish(&stream));
            assert_eq!(look(subscriber.try_next(&stream)), EVENTS);
        });
    });
    for (name, build) in RIVALS {
        let channel = Broadcast::new(build);
        let mut receiver = channel.sender.subscribe();
        group.bench_function(BenchmarkId::new(name, EVENTS), |bencher| {
            bencher.iter(|| {
                (0..EVENTS).for_each(|_| channel.publish());
                for _ in 0..EVENTS {
                    look_at(&receiver.try_recv().expect("something was published"));
                }
            });
        });
    }
    group.finish();
}

/// A client comes back behind its first event and reads the 255 retained ones behind it.
fn resume(criterion: &mut Criterion) {
    const MISSED: usize = support::RETAINED - 1;
    let mut group = criterion.benchmark_group("stream/resume");
    group.throughput(Throughput::Elements(MISSED as u64));
    let stream = Stream::new();
    (0..support::RETAINED).for_each(|_| publish(&stream));
    group.bench_function(BenchmarkId::new("ringmain", MISSED), |bencher| {
        bencher.iter(|| {
            let mut subscriber = stream.attach(Some(1), LagPolicy::Signal);
            let mut frames = 0;
            while frames < MISSED {
                frames += look(subscriber.try_next(&stream));
            }
            subscriber.detach(&stream);
        });
    });
    for (name, build) in RIVALS {
        let channel = Broadcast::new(build);
        (0..support::RETAINED).for_each(|_| channel.publish());
        group.bench_function(BenchmarkId::new(name, MISSED), |bencher| {
            bencher.iter(|| {
                // First the channel, then the queue: what is published in between is in both, and is told by
                // its position.
                let receiver = channel.sender.subscribe();
                let frames = channel.queue.replay(1);
                assert_eq!(frames.len(), MISSED);
                frames.iter().for_each(|frame| look_at(frame));
                receiver
            });
        });
    }
    group.finish();
}

/// Replay of all 256 retained frames, from the decision to replay until every byte is in a form that hyper
/// writes from: what a server does for a client that comes back, but for the write itself. Nobody looks at the
/// bytes; the kernel's copy will. The rival's body is what servers make of a queue and a channel: the replayed
/// frames as a stream, then the live ones, boxed, polled frame by frame.
fn replay(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stream/replay");
    group.throughput(Throughput::Elements(support::RETAINED as u64));
    let mut context = Context::from_waker(Waker::noop());
    let stream = Stream::new();
    (0..support::RETAINED).for_each(|_| publish(&stream));
    let bytes = support::RETAINED * 256;
    group.bench_function(BenchmarkId::new("ringmain", support::RETAINED), |bencher| {
        bencher.iter(|| {
            let mut subscriber = stream.attach(Some(0), LagPolicy::Signal);
            let mut ready = 0;
            while let Poll::Ready(Delivery::Frames(frames)) = subscriber.poll_next(&stream, &mut context) {
                ready += Events::new(frames, Series::Request(NAME)).into_buf().remaining();
            }
            assert_eq!(ready, bytes);
            subscriber.detach(&stream);
        });
    });
    for (name, build) in RIVALS {
        let channel = Broadcast::new(build);
        (0..support::RETAINED).for_each(|_| channel.publish());
        group.bench_function(BenchmarkId::new(name, support::RETAINED), |bencher| {
            bencher.iter(|| {
                let live =
                    futures_util::stream::unfold(channel.sender.subscribe(), |mut receiver| async move {
                        receiver.recv().await.ok().map(|frame| (frame, receiver))
                    });
                let replayed = futures_util::stream::iter(channel.queue.replay(0));
                let mut body: Pin<Box<dyn futures_util::Stream<Item = Bytes> + Send>> =
                    Box::pin(replayed.chain(live));
                let mut ready = 0;
                while let Poll::Ready(Some(frame)) = body.as_mut().poll_next(&mut context) {
                    ready += frame.remaining();
                }
                assert_eq!(ready, bytes);
            });
        });
    }
    group.finish();
}
