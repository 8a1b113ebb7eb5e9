//! What an event, a message to all sessions and a call cost while ever more sessions lie idle beside those that are busy.

use std::io;
use std::iter::once;

use super::{figures, sessions_x1};
use crate::callers::{CONNECTIONS, Callers, Work, begin_sessions};
use crate::fleet::Fleet;
use crate::options::Options;
use crate::process::Server;
use crate::publisher::Publisher;
use crate::report::{Figures, Row, Table, progress};
use crate::rivals::{OURS, RAW, Rival};
use crate::wire;

/// Sessions that are published to at once.
const BATCH: usize = 64;

/// A server with its streams, and how many sessions it has.
struct Busy {
    server: Server,
    fleet: Fleet,
    publisher: Publisher,
    sessions: usize,
}

pub(super) fn run(options: &Options) -> io::Result<Vec<Table>> {
    let connections = options.size("connections", 1000);
    let most = options.size("sessions", 1_000_000);
    let turns = (options.size("deliveries", 100_000) / connections).max(1);
    let calls = options.size("requests", 50_000);
    let steps = std::iter::successors(Some(connections), |step| Some(step * 10));
    let steps: Vec<usize> = steps.take_while(|&step| step <= most).collect();

    let title =
        format!("{turns} events to each of {connections} sessions, and {calls} calls, among idle ones");
    let mut table = Table::new(title, "CPU us/event");
    for step in &steps {
        table.rows.push(Row { rival: format!("{step} sessions"), rounds: Vec::new(), error: None });
    }
    for number in 1..=options.at_most_rounds(2).rounds() {
        let (mut ours, mut raw) = (Busy::start(&OURS, connections)?, Busy::start(&RAW, connections)?);
        for (&step, row) in steps.iter().zip(&mut table.rows) {
            progress(&format!("{}, round {number}: {step} sessions", table.title));
            ours.grow(step)?;
            row.rounds.push(measure(&mut ours, &mut raw, turns, calls)?);
        }
    }
    progress("");
    println!("{table}");
    Ok(vec![table])
}

impl Busy {
    fn start(rival: &Rival, connections: usize) -> io::Result<Self> {
        let server = rival.start()?;
        let mut fleet = Fleet::new(server.listen, rival.opening)?;
        fleet.open(connections)?;
        let publisher = Publisher::connect(server.admin)?;
        let mut busy = Self { server, fleet, publisher, sessions: connections };
        busy.events(1)?;
        Ok(busy)
    }

    fn grow(&mut self, sessions: usize) -> io::Result<()> {
        begin_sessions(self.server.listen, OURS.opening, sessions - self.sessions)?;
        self.sessions = sessions;
        Ok(())
    }

    /// CPU microseconds for each event, over `turns` events to each stream.
    fn events(&mut self, turns: usize) -> io::Result<f64> {
        let (before, arrived) = (self.server.usage()?, self.fleet.tally.events);
        for _ in 0..turns {
            sessions_x1::turn(&mut self.fleet, &mut self.publisher, BATCH)?;
        }
        let events = (self.fleet.tally.events - arrived) as f64;
        Ok(self.server.usage()?.since(before).total * 1e6 / events)
    }
}

impl Busy {
    /// CPU microseconds for each delivery of `turns` messages to all sessions, of which only those with a stream are
    /// connected.
    fn broadcasts(&mut self, turns: usize) -> io::Result<f64> {
        let (before, arrived) = (self.server.usage()?, self.fleet.tally.events);
        let message = wire::message(0);
        for turn in 1..=turns as u64 {
            self.publisher.send(once("all"), &message)?;
            self.fleet.until(arrived + turn * self.fleet.opened() as u64)?;
            self.publisher.answers()?;
        }
        let delivered = (self.fleet.tally.events - arrived) as f64;
        Ok(self.server.usage()?.since(before).total * 1e6 / delivered)
    }
}

fn measure(ours: &mut Busy, raw: &mut Busy, turns: usize, calls: usize) -> io::Result<Figures> {
    // The yardstick right before: it shows what the machine did meanwhile.
    let floor = raw.events(turns)?;
    let event = ours.events(turns)?;
    let broadcast = ours.broadcasts(turns)?;
    let tally = &ours.fleet.tally;
    let wrong = (tally.missing + tally.doubled) as f64;
    let mut callers = Callers::connect(ours.server.listen, OURS.opening, Work::Call("/mcp"))?;
    // Its connections begin sessions too.
    ours.sessions += CONNECTIONS;
    let before = ours.server.usage()?;
    callers.run(calls)?;
    let call = ours.server.usage()?.since(before).total * 1e6 / calls as f64;
    Ok(figures([
        ("CPU us/event", event),
        ("times raw", event / floor),
        ("CPU us/broadcast delivery", broadcast),
        ("CPU us/call", call),
        ("lost+doubled", wrong),
    ]))
}
