//! Runs a scenario over ringmain and its rivals, turn by turn, and prints one row for each.
//!
//! ```text
//! cargo build --release --workspace
//! target/release/perf events  [--connections 1000] [--events 200] [--burst 1] [--rounds 5]
//! target/release/perf streams [--connections 10000]
//! target/release/perf sessions [--connections 10000]
//! ```

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use ringmain_perf::client::{Opening, Publisher, Streams};
use ringmain_perf::process::Server;
use ringmain_perf::report::Spread;

/// A server under test.
struct Rival {
    name: &'static str,
    binary: &'static str,
    arguments: &'static [&'static str],
    opening: Opening,
}

const RAW: Rival = Rival { name: "raw", binary: "raw", arguments: &[], opening: Opening::Get };
const RAW_COALESCED: Rival =
    Rival { name: "raw", binary: "raw", arguments: &["--coalesce"], opening: Opening::Get };
const RIVALS: [Rival; 3] = [
    Rival { name: "ringmain", binary: "ringmain", arguments: &["serve"], opening: Opening::Session },
    Rival { name: "hyper body", binary: "rival-hyper", arguments: &[], opening: Opening::Get },
    Rival { name: "broadcast+axum", binary: "rival-broadcast", arguments: &[], opening: Opening::Session },
];

/// A notification whose frame is about 256 bytes.
const MESSAGE: &str = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","logger":"perf","data":"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"}}"#;

struct Options {
    connections: usize,
    events: usize,
    burst: usize,
    rounds: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: usize| {
        let at = given.iter().position(|argument| argument == name);
        at.and_then(|at| given.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let scenario = given.first().map_or("", String::as_str);
    let options = Options {
        connections: number("--connections", if scenario == "events" { 1000 } else { 10_000 }),
        events: number("--events", 200),
        burst: number("--burst", 1),
        rounds: number("--rounds", 5),
    };
    let ran = match scenario {
        "events" => events(&options).await,
        "streams" => memory(&options, true).await,
        "sessions" => memory(&options, false).await,
        _ => {
            eprintln!(
                "usage: perf events|streams|sessions [--connections N] [--events N] [--burst N] [--rounds N]"
            );
            return ExitCode::from(2);
        }
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf: {error}");
            ExitCode::FAILURE
        }
    }
}

/// CPU seconds of the server per million events, one connection a session.
async fn events(options: &Options) -> io::Result<()> {
    let raw = if options.burst > 1 { RAW_COALESCED } else { RAW };
    let mut figures: BTreeMap<&str, [Vec<f64>; 3]> = BTreeMap::new();
    for _ in 0..options.rounds {
        let mut floor = 0.0;
        for rival in std::iter::once(&raw).chain(&RIVALS) {
            let (user, total) = round(rival, options).await?;
            if rival.name == "raw" {
                floor = total;
            }
            let [users, totals, ratios] = figures.entry(rival.name).or_default();
            users.push(user);
            totals.push(total);
            ratios.push(total / floor);
        }
    }
    println!(
        "{} connections, {} events, {} at once; {} rounds",
        options.connections, options.events, options.burst, options.rounds
    );
    println!("{:16} {:>24} {:>24} {:>22}", "", "CPU s per million", "of it user", "times raw, same round");
    for (name, [users, totals, ratios]) in &figures {
        println!("{name:16} {:>24} {:>24} {:>22}", Spread::of(totals), Spread::of(users), Spread::of(ratios));
    }
    Ok(())
}

/// User and total CPU seconds per million delivered events.
async fn round(rival: &Rival, options: &Options) -> io::Result<(f64, f64)> {
    let server = Server::start(rival.binary, rival.arguments)?;
    let streams = Streams::open(server.listen, options.connections, rival.opening).await?;
    let mut publisher = Publisher::connect(server.admin, MESSAGE).await?;
    // One event first: everybody is there, and everything is warm.
    publisher.publish().await?;
    let each = options.connections as u64;
    if streams.until(each).await != each {
        return Err(io::Error::other(format!("{}: the first event did not reach everybody", rival.name)));
    }
    let before = server.usage()?;
    let mut published = 1;
    while published <= options.events as u64 {
        publisher.burst(options.burst).await?;
        published += options.burst as u64;
        streams.until(published * each).await;
    }
    let used = server.usage()?.since(before);
    let received = streams.events();
    if received != published * each {
        return Err(io::Error::other(format!(
            "{}: {received} of {} events arrived",
            rival.name,
            published * each
        )));
    }
    let millions = (received - each) as f64 / 1e6;
    Ok((used.user / millions, used.total() / millions))
}

/// Bytes of the server's own memory per idle stream, or per idle session.
async fn memory(options: &Options, streams: bool) -> io::Result<()> {
    println!("{} idle {}", options.connections, if streams { "streams" } else { "sessions" });
    for rival in RIVALS.iter().filter(|rival| streams || rival.opening == Opening::Session) {
        let server = Server::start(rival.binary, rival.arguments)?;
        let before = server.resident()?;
        if streams {
            let held = Streams::open(server.listen, options.connections, rival.opening).await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            let bytes = (server.resident()? - before) / options.connections as u64;
            println!("{:16} {bytes:>8} bytes each", rival.name);
            drop(held);
        } else {
            ringmain_perf::client::initialize_many(server.listen, options.connections).await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            let bytes = (server.resident()? - before) / options.connections as u64;
            println!("{:16} {bytes:>8} bytes each", rival.name);
        }
    }
    Ok(())
}
