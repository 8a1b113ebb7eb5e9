//! Very many streams over a few HTTP/2 connections, each of a session of its own: memory, and CPU of an event to
//! all of them.

use std::io;
use std::time::Instant;

use super::figures;
use crate::callers::begin_sessions;
use crate::fleet::Opening;
use crate::http2::Streams;
use crate::options::Options;
use crate::publisher::Publisher;
use crate::report::{Figures, Table};
use crate::rivals::{HYPER, OURS, Rival};
use crate::wire;

/// Connections that the streams share; ringmain takes 10,000 streams on each.
pub(super) const CONNECTIONS: usize = 100;

pub(super) fn run(options: &Options) -> io::Result<Vec<Table>> {
    let rivals = [HYPER.with(&["--h2"]), OURS];
    let mut tables = Vec::new();
    // A hundred thousand a few times, a million once.
    let sizes = [(100_000, 3), (1_000_000, 1)];
    let given = options.given("connections").map(|streams| vec![(streams, 5)]);
    for (streams, rounds) in
        given.unwrap_or_else(|| sizes.map(|(n, rounds)| (options.size("connections", n), rounds)).to_vec())
    {
        let events = (options.size("deliveries", 300_000) / streams).max(1);
        let title =
            format!("{streams} streams over {CONNECTIONS} HTTP/2 connections, {events} events to all");
        let table = Table::new(title, "CPU us/event");
        let options = options.at_most_rounds(rounds);
        tables.push(table.measure(&options, &rivals, |rival| round(rival, streams, events))?);
    }
    Ok(tables)
}

fn round(rival: &Rival, streams: usize, events: usize) -> io::Result<Figures> {
    let server = rival.start()?;
    let before = server.resident_at_rest()?;
    let sessions = match rival.opening {
        Opening::Get => vec![None; streams],
        opening => begin_sessions(server.listen, opening, streams)?.into_iter().map(Some).collect(),
    };
    let mut fleet = Streams::open(server.listen, CONNECTIONS, sessions)?;
    let idle = server.resident_at_rest()?.saturating_sub(before);

    let mut publisher = Publisher::connect(server.admin)?;
    let (used, start) = (server.usage()?, Instant::now());
    for number in 1..=events as u64 {
        publisher.send(["all"], &wire::message(0))?;
        fleet.until(number * streams as u64)?;
        publisher.answers()?;
    }
    let (used, wall) = (server.usage()?.since(used), start.elapsed());
    let (tally, delivered) = (&fleet.tally, fleet.tally.events as f64);
    Ok(figures([
        ("CPU us/event", used.total * 1e6 / delivered),
        ("wall us/event", wall.as_secs_f64() * 1e6 / delivered),
        ("bytes/stream", idle as f64 / streams as f64),
        ("lost+doubled", (tally.missing + tally.doubled) as f64),
    ]))
}
