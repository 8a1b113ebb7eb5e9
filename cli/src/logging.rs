//! Writes the log: lines of text or JSON on standard error, by a filter that can be replaced while the program runs.

use std::error::Error;
use std::io::{IsTerminal, stderr};

use ringmain_cli::config::{LogFormat, Options};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Replaces the filter of the running log.
pub(crate) type Filter = reload::Handle<EnvFilter, Registry>;

/// Starts to log to standard error.
pub(crate) fn start(options: &Options) -> Result<Filter, Box<dyn Error>> {
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(&options.log)?);
    let lines = fmt::layer().with_writer(stderr);
    let lines = match options.log_format {
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines.with_filter(filter_fn(holds_no_bodies)))
        .try_init()?;
    Ok(handle)
}

/// Whether events of this kind may be logged. Below the level of errors rmcp logs whole messages, and arguments of
/// calls.
fn holds_no_bodies(metadata: &Metadata<'_>) -> bool {
    *metadata.level() == Level::ERROR || !metadata.target().starts_with("rmcp")
}
