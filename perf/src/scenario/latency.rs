//! From publishing to reading, at a fixed modest rate: a histogram of every event.

use std::io;
use std::iter::once;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::figures;
use crate::fleet::Fleet;
use crate::options::Options;
use crate::publisher::Publisher;
use crate::report::{Figures, Table};
use crate::rivals::{BROADCAST, HYPER, NCHAN_SESSIONS, OURS, RAW, Rival, SERVE};
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

fn round(rival: &Rival, connections: usize, rate: usize, seconds: usize) -> io::Result<Figures> {
    let server = rival.start()?;
    let mut fleet = Fleet::new(server.listen, rival.opening)?;
    fleet.open(connections)?;
    let (targets, epoch, admin) = (fleet.targets(), fleet.tally.epoch, server.admin);
    let interval = Duration::from_secs(1) / rate as u32;
    let (warming, count) = (rate / 2, rate * seconds);
    // A thread of its own, which sleeps while the streams are read.
    let publishing = std::thread::spawn(move || {
        let mut publisher = Publisher::connect(admin)?;
        let mut due = Instant::now();
        for target in targets.iter().cycle().take(warming + count) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // Late is late: what was missed is not made up for by a burst.
            due = Instant::now().max(due) + interval;
            let now = epoch.elapsed().as_nanos() as u64;
            publisher.send(once(target.as_str()), &wire::message(now))?;
            publisher.answers()?;
        }
        io::Result::Ok(())
    });
    fleet.until(warming as u64)?;
    // From a microsecond to a minute, to three digits.
    let histogram = Histogram::new_with_bounds(1000, 60_000_000_000, 3).map_err(io::Error::other)?;
    fleet.tally.latencies = Some(histogram);
    let patience = Duration::from_secs(60 + seconds as u64);
    fleet.drive(patience, |fleet| fleet.tally.events >= (warming + count) as u64)?;
    publishing.join().map_err(|_| io::Error::other("the publisher panicked"))??;
    let latencies = fleet.tally.latencies.take().ok_or_else(|| io::Error::other("nothing was measured"))?;
    let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    Ok(figures([
        ("p50 us", at(0.5)),
        ("p99 us", at(0.99)),
        ("p99.9 us", at(0.999)),
        ("max us", latencies.max() as f64 / 1e3),
    ]))
}
