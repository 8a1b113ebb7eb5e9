//! Calls and new sessions: CPU of the server for each request, over connections that are kept open.

use std::io;
use std::time::Instant;

use super::figures;
use crate::callers::{CONNECTIONS, Callers, Work};
use crate::fleet::Opening;
use crate::options::Options;
use crate::report::{Figures, Table};
use crate::rivals::{BROADCAST, HYPER, OURS, RMCP, Rival, SERVE};

pub(super) fn post(options: &Options) -> io::Result<Vec<Table>> {
    let requests = options.size("requests", 100_000);
    let fixed = HYPER.named("hyper, fixed");
    let calls = |what: &str| format!("{requests} calls over {CONNECTIONS} connections, {what}");
    let path = |rival: &Rival| if rival.opening == Opening::Get { "/sse" } else { "/mcp" };

    let table = Table::new(calls("answered as JSON"), "CPU us/request");
    let json = table
        .measure(options, &[fixed, OURS, BROADCAST], |rival| round(rival, Work::Call("/mcp"), requests))?;
    let table = Table::new(calls("answered as a stream"), "CPU us/request");
    let stream = table.measure(options, &[fixed, OURS.with(&["--stream"])], |rival| {
        round(rival, Work::Call(path(rival)), requests)
    })?;
    let table = Table::new(calls("to the same rmcp handler"), "CPU us/request");
    // Both as they come, then both with streams, which is all that rmcp's transport does.
    let rivals = [RMCP, SERVE, SERVE.with(&["--stream"]).named("…--stream")];
    let hosted = table.measure(options, &rivals, |rival| round(rival, Work::Call("/mcp"), requests / 2))?;
    Ok(vec![json, stream, hosted])
}

pub(super) fn initialize(options: &Options) -> io::Result<Vec<Table>> {
    let requests = options.size("requests", 100_000);
    let title = format!("{requests} times initialize over {CONNECTIONS} connections, a session each");
    let table = Table::new(title, "CPU us/request");
    let low = table.measure(options, &[HYPER.named("hyper, fixed"), OURS, BROADCAST], |rival| {
        round(rival, Work::Initialize, requests)
    })?;
    // rmcp's sessions take 50 KB each.
    let requests = requests / 10;
    let title = format!("{requests} sessions of the same rmcp handler, with notifications/initialized");
    let hosted = Table::new(title, "CPU us/request")
        .measure(options, &[RMCP, SERVE], |rival| round(rival, Work::Initialize, requests))?;
    Ok(vec![low, hosted])
}

fn round(rival: &Rival, work: Work, requests: usize) -> io::Result<Figures> {
    let server = rival.start()?;
    let mut callers = Callers::connect(server.listen, rival.opening, work)?;
    // Some first, so that everything is warm.
    callers.run((requests / 20).max(CONNECTIONS))?;
    let (before, start) = (server.usage()?, Instant::now());
    callers.run(requests)?;
    let (used, wall) = (server.usage()?.since(before), start.elapsed());
    Ok(figures([
        ("CPU us/request", used.total * 1e6 / requests as f64),
        ("user share", used.user / used.total),
        ("requests/s", requests as f64 / wall.as_secs_f64()),
    ]))
}
