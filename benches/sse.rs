//! Building a frame, and the head that goes before it: ours, and `format!` of both into a `String` that becomes
//! `Bytes`.
//!
//! `cargo bench -p ringmain --no-default-features --bench sse`
//!
//! Each figure includes dropping the frame. The data is given as bytes, so that the time of a serialiser is
//! in none of them.

mod support;

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use ringmain::internals::sse::{EventHead, EventId, Frame, Series};
use support::NAME;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("sse/frame");
    for bytes in [64, 256, 4096] {
        let data = "x".repeat(bytes);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("whole", bytes), |bencher| {
            bencher.iter(|| Frame::whole(NAME, |out| out.extend_from_slice(black_box(data.as_bytes()))));
        });
        group.bench_function(BenchmarkId::new("shared", bytes), |bencher| {
            bencher.iter(|| Frame::shared(|out| out.extend_from_slice(black_box(data.as_bytes()))));
        });
        group.bench_function(BenchmarkId::new("format_string", bytes), |bencher| {
            let (id, data) = (EventId::event(NAME, 42), &data);
            bencher.iter(|| format!("id: {}\nevent: message\ndata: {}\n\n", black_box(id), black_box(data)));
        });
        group.bench_function(BenchmarkId::new("format_bytes", bytes), |bencher| {
            let (id, data) = (EventId::event(NAME, 42), &data);
            bencher.iter(|| {
                Bytes::from(format!("id: {}\nevent: message\ndata: {}\n\n", black_box(id), black_box(data)))
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("sse/head");
    group.throughput(Throughput::Elements(1));
    group.bench_function("of_a_stream", |bencher| {
        bencher.iter(|| EventHead::of(black_box(Series::Request(NAME))))
    });
    let mut head = EventHead::of(Series::Request(NAME));
    group.bench_function("at_a_position", |bencher| {
        let mut position = 0;
        bencher.iter(|| {
            position += 1;
            support::look_at(head.at(black_box(position)));
        });
    });
    group.finish();
    criterion.final_summary();
}
