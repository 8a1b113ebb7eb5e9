//! The log of the binary: what is written, how, and where.

use std::error::Error;
use std::io::{IsTerminal, stderr};

use ringmain::config::{LogFormat, Options};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// A way to change what is logged.
pub(crate) type Filter = reload::Handle<EnvFilter, Registry>;

/// Starts the log, on standard error.
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

/// Whether lines of this kind may be written at all: rmcp shows whole messages, and arguments of calls, below the
/// level of errors.
fn holds_no_bodies(metadata: &Metadata<'_>) -> bool {
    *metadata.level() == Level::ERROR || !metadata.target().starts_with("rmcp")
}
