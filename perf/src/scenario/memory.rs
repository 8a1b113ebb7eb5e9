//! What nothing costs: bytes of the server's own memory for each idle stream, and for each idle session.

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
            HYPER.glibc("hyper, glibc"),
            BROADCAST,
            BROADCAST.glibc("axum, glibc"),
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
                fleet.open(connections)?;
                let bytes = server.resident_at_rest()? - before.min(server.resident()?);
                Ok(figures([("bytes/stream", bytes as f64 / connections as f64)]))
            },
        )?);
    }
    Ok(tables)
}

pub(super) fn sessions(options: &Options) -> io::Result<Vec<Table>> {
    let mut tables = Vec::new();
    for sessions in sizes(options, "sessions", &[10_000]) {
        let title = format!("{sessions} idle sessions without a stream");
        let rivals = [OURS, OURS.glibc("ringmain, glibc"), SERVE, BROADCAST, RMCP, RMCP.glibc("rmcp, glibc")];
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
