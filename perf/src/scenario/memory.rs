//! What nothing costs: bytes of the server's own memory for each idle stream, and for each idle session. Of
//! streams twice: all memory over all streams, and what nine tenths of them added to the first tenth.

use std::io;

use super::{figures, sizes};
use crate::callers;
use crate::fleet::Fleet;
use crate::options::Options;
use crate::report::{Figures, Table};
use crate::rivals::{BROADCAST, HYPER, NCHAN_SESSIONS, OURS, RAW, RMCP, Rival, SERVE};

pub(super) fn streams(options: &Options) -> io::Result<Vec<Table>> {
    let mut tables = Vec::new();
    for connections in sizes(options, "connections", &[10_000]) {
        let title = format!("{connections} idle HTTP/1.1 streams, each of a session");
        let rivals = [
            RAW,
            OURS,
            OURS.glibc("ringmain, glibc"),
            SERVE,
            HYPER,
            BROADCAST,
            RMCP,
            RMCP.glibc("rmcp, glibc"),
            NCHAN_SESSIONS,
        ];
        tables.push(Table::new(title, "bytes/stream").measure(
            &options.at_most_rounds(2),
            &rivals,
            |rival| {
                let server = rival.start()?;
                let before = server.resident_at_rest()?;
                let mut fleet = Fleet::new(server.listen, rival.opening)?;
                // The allocator's pools, the threads' stacks: what is there once, and weighs little among many.
                let first = connections / 10;
                fleet.open(first)?;
                let between = server.resident_at_rest()?;
                fleet.open(connections - first)?;
                let after = server.resident_at_rest()?;
                let each = |from: u64, count: usize| after.saturating_sub(from) as f64 / count as f64;
                Ok(figures([
                    ("bytes/stream", each(before, connections)),
                    ("bytes/further stream", each(between, connections - first)),
                ]))
            },
        )?);
    }
    Ok(tables)
}

pub(super) fn sessions(options: &Options) -> io::Result<Vec<Table>> {
    let mut tables = Vec::new();
    for sessions in sizes(options, "sessions", &[10_000]) {
        let title = format!("{sessions} idle sessions without a stream");
        // Services rest after half a minute; so long nobody waits here.
        let resting = SERVE.with(&["--rest-after", "200ms"]).named("ringmain+rmcp at rest");
        let awake = SERVE.with(&["--rest-after", "never"]);
        let rivals =
            [OURS, OURS.glibc("ringmain, glibc"), resting, awake, BROADCAST, RMCP, RMCP.glibc("rmcp, glibc")];
        let table = Table::new(title, "bytes/session");
        tables.push(table.measure(&options.at_most_rounds(2), &rivals, |rival| idle(rival, sessions))?);
    }
    // What is fixed weighs little among so many.
    let sessions = options.given("sessions").unwrap_or_else(|| options.size("sessions", 1_000_000));
    let table = Table::new(format!("{sessions} idle sessions, ringmain alone"), "bytes/session");
    tables.push(table.measure(&options.at_most_rounds(2), &[OURS], |rival| idle(rival, sessions))?);
    Ok(tables)
}

fn idle(rival: &Rival, sessions: usize) -> io::Result<Figures> {
    let server = rival.start()?;
    let before = server.resident_at_rest()?;
    callers::begin_sessions(server.listen, rival.opening, sessions)?;
    let bytes = server.resident_at_rest()? - before.min(server.resident()?);
    Ok(figures([("bytes/session", bytes as f64 / sessions as f64)]))
}
