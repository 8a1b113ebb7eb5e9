//! From publishing to reading, at a fixed modest rate: a histogram of every event.

use std::io;
use std::iter::once;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::figures;
use super::http2::CONNECTIONS;
use crate::callers::begin_sessions;
use crate::fleet::{Fleet, Opening};
use crate::http2::Streams;
use crate::options::Options;
use crate::publisher::Publisher;
use crate::report::{Figures, Table};
use crate::rivals::{BROADCAST, HYPER, NCHAN_SESSIONS, OURS, RAW, Rival, SERVE};
use crate::sse::Tally;
use crate::wire;

pub(super) fn run(options: &Options) -> io::Result<Vec<Table>> {
    let connections = options.given("connections").unwrap_or(100);
    let rate = options.given("rate").unwrap_or(1000);
    let seconds = options.size("seconds", 8);
    let title = format!("{rate} events/s for {seconds} s, in turn to {connections} sessions");
    let rivals = [RAW, OURS, SERVE, HYPER.with(&["--sessions"]), BROADCAST, NCHAN_SESSIONS];
    let table = Table::new(title, "p99 us");
    Ok(vec![
        table
            .measure(&options.at_most_rounds(3), &rivals, |rival| round(rival, connections, rate, seconds))?,
    ])
}

/// The same over HTTP/2, with all streams on few connections.
pub(super) fn run_http2(options: &Options) -> io::Result<Vec<Table>> {
    let streams = options.given("connections").unwrap_or(1000);
    let rate = options.given("rate").unwrap_or(1000);
    let seconds = options.size("seconds", 8);
    let title = format!(
        "{rate} events/s for {seconds} s, in turn to {streams} streams over {CONNECTIONS} connections"
    );
    let rivals = [HYPER.with(&["--h2", "--sessions"]), OURS];
    let table = Table::new(title, "p99 us");
    Ok(vec![
        table.measure(&options.at_most_rounds(3), &rivals, |rival| {
            round_http2(rival, streams, rate, seconds)
        })?,
    ])
}

fn round(rival: &Rival, connections: usize, rate: usize, seconds: usize) -> io::Result<Figures> {
    let server = rival.start()?;
    let mut fleet = Fleet::new(server.listen, rival.opening)?;
    fleet.open(connections)?;
    let (warming, count) = (rate / 2, rate * seconds);
    let publishing = publish(server.admin, fleet.targets(), fleet.tally.epoch, rate, warming + count);
    fleet.until(warming as u64)?;
    fleet.tally.latencies = Some(histogram()?);
    let patience = Duration::from_secs(60 + seconds as u64);
    fleet.drive(patience, |fleet| fleet.tally.events >= (warming + count) as u64)?;
    publishing.join().map_err(|_| io::Error::other("the publisher panicked"))??;
    spread(&mut fleet.tally)
}

fn round_http2(rival: &Rival, streams: usize, rate: usize, seconds: usize) -> io::Result<Figures> {
    let server = rival.start()?;
    let sessions: Vec<_> = match rival.opening {
        Opening::Get => vec![None; streams],
        opening => begin_sessions(server.listen, opening, streams)?.into_iter().map(Some).collect(),
    };
    let targets =
        (0..streams).map(|number| sessions[number].as_deref().map_or(number.to_string(), str::to_owned));
    let targets = targets.collect();
    let mut fleet = Streams::open(server.listen, CONNECTIONS, sessions)?;
    let (warming, count) = (rate / 2, rate * seconds);
    let publishing = publish(server.admin, targets, fleet.tally.epoch, rate, warming + count);
    fleet.until(warming as u64)?;
    fleet.tally.latencies = Some(histogram()?);
    fleet.until((warming + count) as u64)?;
    publishing.join().map_err(|_| io::Error::other("the publisher panicked"))??;
    spread(&mut fleet.tally)
}

/// Publishes `count` events to `targets` in turn, `rate` a second, on a thread of its own, which sleeps while the
/// streams are read.
fn publish(
    admin: SocketAddr,
    targets: Vec<String>,
    epoch: Instant,
    rate: usize,
    count: usize,
) -> JoinHandle<io::Result<()>> {
    let interval = Duration::from_secs(1) / rate as u32;
    std::thread::spawn(move || {
        let mut publisher = Publisher::connect(admin)?;
        let mut due = Instant::now();
        for target in targets.iter().cycle().take(count) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // Late is late: what was missed is not made up for by a burst.
            due = Instant::now().max(due) + interval;
            let now = epoch.elapsed().as_nanos() as u64;
            publisher.send(once(target.as_str()), &wire::message(now))?;
            publisher.answers()?;
        }
        Ok(())
    })
}

/// From a microsecond to a minute, to three digits.
fn histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1000, 60_000_000_000, 3).map_err(io::Error::other)
}

fn spread(tally: &mut Tally) -> io::Result<Figures> {
    let latencies = tally.latencies.take().ok_or_else(|| io::Error::other("nothing was measured"))?;
    let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    Ok(figures([
        ("p50 us", at(0.5)),
        ("p99 us", at(0.99)),
        ("p99.9 us", at(0.999)),
        ("max us", latencies.max() as f64 / 1e3),
    ]))
}
