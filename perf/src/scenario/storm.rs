//! All clients lose their connection, miss some events, and come back at the same moment: each must get what it
//! missed, once.

use std::io;
use std::iter::repeat_n;
use std::time::{Duration, Instant};

use super::figures;
use crate::fleet::Fleet;
use crate::options::Options;
use crate::publisher::Publisher;
use crate::report::{Figures, Table};
use crate::rivals::{BROADCAST, HYPER, NCHAN, OURS, RAW, Rival, SERVE};
use crate::wire;

/// Events that every client misses.
const MISSED: usize = 100;
/// How long the last event may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(options: &Options) -> io::Result<Vec<Table>> {
    let clients = options.size("connections", 5000);
    let title = format!("{clients} clients resume at once, {MISSED} events behind");
    let rivals = [RAW, OURS, SERVE, HYPER, BROADCAST, NCHAN];
    let table = Table::new(title, "CPU s");
    Ok(vec![table.measure(options, &rivals, |rival| round(rival, clients))?])
}

fn round(rival: &Rival, clients: usize) -> io::Result<Figures> {
    let server = rival.start()?;
    let mut fleet = Fleet::new(server.listen, rival.opening)?;
    fleet.open(clients)?;
    let mut publisher = Publisher::connect(server.admin)?;
    let message = wire::message(0);
    publisher.send(["all"], &message)?;
    fleet.until(clients as u64)?;
    publisher.answers()?;

    fleet.cut();
    // The server sees it, and is at rest again.
    std::thread::sleep(Duration::from_millis(500));
    publisher.send(repeat_n("all", MISSED), &message)?;
    publisher.answers()?;
    std::thread::sleep(Duration::from_millis(100));

    let all = (clients * (1 + MISSED)) as u64;
    let (before, kernel, start) = (server.usage()?, Kernel::now()?, Instant::now());
    fleet.resume()?;
    match fleet.drive(PATIENCE, |fleet| fleet.tally.events >= all) {
        Err(error) if error.kind() != io::ErrorKind::TimedOut => return Err(error),
        _ => {}
    }
    let (wall, used, kernel) =
        (start.elapsed(), server.usage()?.since(before), Kernel::now()?.since(&kernel));
    // What comes twice comes late.
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until {
        fleet.turn(Duration::from_millis(50))?;
    }
    let tally = &fleet.tally;
    // Doubles may hide as many losses from the sum, but not from the positions.
    let lost = all.saturating_sub(tally.events).max(tally.missing);
    let doubled = tally.events.saturating_sub(all).max(tally.doubled);
    Ok(figures([
        ("CPU s", used.total),
        ("wall s", wall.as_secs_f64()),
        ("lost", lost as f64),
        ("doubled", doubled as f64),
        ("listen overflows", kernel.listen_overflows),
        ("SYN retries", kernel.syn_retries),
    ]))
}

/// What the kernel counts, for the whole machine.
#[derive(Default)]
struct Kernel {
    listen_overflows: f64,
    syn_retries: f64,
}

impl Kernel {
    fn now() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/net/netstat")?;
        // Two lines for each protocol: names, then values.
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let value = |name: &str| {
            let at = names.split(' ').position(|column| column == name);
            at.and_then(|at| values.split(' ').nth(at)?.parse().ok()).unwrap_or(0.0)
        };
        Ok(Self { listen_overflows: value("ListenOverflows"), syn_retries: value("TCPSynRetrans") })
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            listen_overflows: self.listen_overflows - earlier.listen_overflows,
            syn_retries: self.syn_retries - earlier.syn_retries,
        }
    }
}
