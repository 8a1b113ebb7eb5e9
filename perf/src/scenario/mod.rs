//! What is measured, one scenario a file.

use std::io;

use crate::options::Options;
use crate::report::{Figures, Table};

mod fanout;
mod growth;
mod http2;
mod latency;
mod memory;
mod post;
mod sessions_x1;
mod storm;

/// A scenario: its name, what it is in a line, and how to run it.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Runs it.
    pub run: fn(&Options) -> io::Result<Vec<Table>>,
}

/// All of them, in the order in which `perf all` runs them.
pub const ALL: &[Scenario] = &[
    Scenario { name: "fanout", about: "the same event to every connection", run: fanout::run },
    Scenario { name: "sessions-x1", about: "each event to one of many sessions", run: sessions_x1::run },
    Scenario { name: "latency", about: "from publishing to reading, at a fixed rate", run: latency::run },
    Scenario { name: "streams", about: "memory of idle streams", run: memory::streams },
    Scenario { name: "sessions", about: "memory of idle sessions", run: memory::sessions },
    Scenario { name: "post", about: "calls, answered as JSON and as streams", run: post::post },
    Scenario { name: "initialize", about: "new sessions", run: post::initialize },
    Scenario { name: "storm", about: "all clients come back at once", run: storm::run },
    Scenario { name: "growth", about: "busy sessions among ever more idle ones", run: growth::run },
    Scenario { name: "h2", about: "very many streams over HTTP/2", run: http2::run },
    Scenario { name: "h2-latency", about: "the same as latency, over HTTP/2", run: latency::run_http2 },
];

fn figures<const N: usize>(figures: [(&str, f64); N]) -> Figures {
    figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Sizes given on the command line, or some that show how it scales.
fn sizes(options: &Options, name: &str, defaults: &[usize]) -> Vec<usize> {
    match options.given(name) {
        Some(given) => vec![given],
        None => defaults.iter().map(|&default| options.size(name, default)).collect(),
    }
}
