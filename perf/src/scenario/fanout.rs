//! The same event to every connection, one session each; and again with many events pending at once.

use std::io;
use std::iter::repeat_n;
use std::time::Instant;

use super::{figures, sizes};
use crate::fleet::Fleet;
use crate::options::Options;
use crate::publisher::Publisher;
use crate::report::{Figures, Table};
use crate::rivals::{BROADCAST, HYPER, NCHAN, OURS, RAW, RAW_COALESCED, RMCP_PUBLISH, Rival, SERVE};
use crate::wire;

pub(super) fn run(options: &Options) -> io::Result<Vec<Table>> {
    let mut tables = Vec::new();
    for connections in sizes(options, "connections", &[1000, 10_000]) {
        for burst in options.given("burst").map_or(vec![1, 16], |burst| vec![burst]) {
            let raw = if burst > 1 { RAW_COALESCED } else { RAW };
            let deliveries = options.size("deliveries", if burst > 1 { 800_000 } else { 300_000 });
            let bursts = (deliveries / connections / burst).max(1);
            let title = format!("{connections} connections, {bursts} times {burst} events to all");
            let rivals = [raw, OURS, SERVE, HYPER, BROADCAST, RMCP_PUBLISH, NCHAN];
            let table = Table::new(title, "CPU us/event");
            tables.push(table.measure(options, &rivals, |rival| round(rival, connections, bursts, burst))?);
        }
    }
    Ok(tables)
}

fn round(rival: &Rival, connections: usize, bursts: usize, burst: usize) -> io::Result<Figures> {
    let server = rival.start()?;
    let mut fleet = Fleet::new(server.listen, rival.opening)?;
    fleet.open(connections)?;
    let mut publisher = Publisher::connect(server.admin)?;
    let message = wire::message(0);
    // One burst first: everybody is there, and everything is warm.
    let each = (connections * burst) as u64;
    publisher.send(repeat_n("all", burst), &message)?;
    fleet.until(each)?;
    publisher.answers()?;
    let (before, reads, start) = (server.usage()?, fleet.tally.reads, Instant::now());
    for number in 1..=bursts as u64 {
        publisher.send(repeat_n("all", burst), &message)?;
        fleet.until(each * (number + 1))?;
        publisher.answers()?;
    }
    let (used, wall) = (server.usage()?.since(before), start.elapsed());
    let tally = &fleet.tally;
    let delivered = (tally.events - each) as f64;
    Ok(figures([
        ("CPU us/event", used.total * 1e6 / delivered),
        ("user share", used.user / used.total),
        ("wall us/event", wall.as_secs_f64() * 1e6 / delivered),
        ("events/read", delivered / (tally.reads - reads) as f64),
        ("lost+doubled", (tally.missing + tally.doubled) as f64),
    ]))
}
