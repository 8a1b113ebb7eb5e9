//! Many sessions with one connection each; every event goes to one of them, in turn.

use std::io;
use std::time::Instant;

use super::{figures, sizes};
use crate::fleet::Fleet;
use crate::options::Options;
use crate::publisher::Publisher;
use crate::report::{Figures, Table};
use crate::rivals::{BROADCAST, HYPER, NCHAN_SESSIONS, OURS, RAW, RMCP_PUBLISH, Rival, SERVE};
use crate::wire;

pub(super) fn run(options: &Options) -> io::Result<Vec<Table>> {
    let mut tables = Vec::new();
    for connections in sizes(options, "connections", &[1000, 10_000]) {
        let batch = options.given("batch").unwrap_or(64).min(connections);
        let turns = (options.size("deliveries", 200_000) / connections).max(1);
        let title = format!("{connections} sessions, {turns} events to each, {batch} published at once");
        let rivals = [RAW, OURS, SERVE, HYPER.with(&["--sessions"]), BROADCAST, RMCP_PUBLISH, NCHAN_SESSIONS];
        let table = Table::new(title, "CPU us/event");
        tables.push(table.measure(options, &rivals, |rival| round(rival, connections, turns, batch))?);
    }
    Ok(tables)
}

fn round(rival: &Rival, connections: usize, turns: usize, batch: usize) -> io::Result<Figures> {
    let server = rival.start()?;
    let mut fleet = Fleet::new(server.listen, rival.opening)?;
    fleet.open(connections)?;
    let mut publisher = Publisher::connect(server.admin)?;
    // One event each first: everybody is there, and everything is warm.
    turn(&mut fleet, &mut publisher, batch)?;
    let (before, start) = (server.usage()?, Instant::now());
    for _ in 0..turns {
        turn(&mut fleet, &mut publisher, batch)?;
    }
    let (used, wall) = (server.usage()?.since(before), start.elapsed());
    let tally = &fleet.tally;
    let delivered = (tally.events - connections as u64) as f64;
    Ok(figures([
        ("CPU us/event", used.total * 1e6 / delivered),
        ("user share", used.user / used.total),
        ("wall us/event", wall.as_secs_f64() * 1e6 / delivered),
        ("lost+doubled", (tally.missing + tally.doubled) as f64),
    ]))
}

/// Publishes one event to each stream, `batch` streams at a time.
pub(super) fn turn(fleet: &mut Fleet, publisher: &mut Publisher, batch: usize) -> io::Result<()> {
    let (targets, message) = (fleet.targets(), wire::message(0));
    for targets in targets.chunks(batch) {
        let arrived = fleet.tally.events + targets.len() as u64;
        publisher.send(targets.iter().map(String::as_str), &message)?;
        fleet.until(arrived)?;
        publisher.answers()?;
    }
    Ok(())
}
