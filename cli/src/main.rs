//! The program `ringmain`: an MCP server for very many connections, set up by flags, environment and a configuration
//! file.
//!
//! It serves the demonstration server of the library ([`ringmain::everything`]). This file holds the command line and
//! the exit codes; the options themselves are in [`ringmain_cli::config`].

mod allocator;
mod logging;
mod operate;
mod secrets;

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use ringmain_cli::config::{self, Loaded, Sources};

const RULES: &str = "\
Every option can be set by a flag, an environment variable or a key of the configuration file: --max-body-bytes 4MiB, \
RINGMAIN_MAX_BODY_BYTES=4MiB, or max_body_bytes = \"4MiB\". Flags override the environment, and the environment \
overrides the file. Times are written 500ms, 30s, 5m or 1h 30m; sizes 65536, 64KiB or 4MiB. A flag that takes a LIST \
can be repeated, or take values separated by commas.

Signals: TERM and INT start the drain: no new connections or sessions are accepted, requests in flight finish, and \
clients with open streams are told to reconnect. A second TERM or INT exits at once. HUP reloads the configuration; \
changes that need a restart are named in the log.

Exit codes: 0 all requests finished; 1 the server could not start; 2 the drain was cut off, or the command line is \
invalid.";

const EXAMPLES: &str = "\
Examples:
  ringmain
  ringmain --listen 0.0.0.0:8080 --allow-host mcp.example.com --admin 127.0.0.1:8081
  ringmain check-config /etc/ringmain.toml && ringmain --config /etc/ringmain.toml";

fn command() -> Command {
    let file = Arg::new("config").long("config").value_name("FILE").help("Configuration file, in TOML.");
    let options = || config::arguments().chain([file.clone().display_order(0)]);
    Command::new("ringmain")
        .version(env!("CARGO_PKG_VERSION"))
        .about("An MCP Streamable HTTP server for very large numbers of connections.")
        .after_help(EXAMPLES)
        .after_long_help(format!("{RULES}\n\n{EXAMPLES}"))
        .args_conflicts_with_subcommands(true)
        .args(options())
        .subcommand(
            Command::new("serve")
                .about("Serve the built-in demonstration server. This is the default.")
                .after_long_help(RULES)
                .args(options()),
        )
        .subcommand(
            Command::new("check-config")
                .about("Check a configuration file. Prints the options in effect, or every error.")
                .after_help("The environment is checked too.\n\nExit codes: 0 valid, 1 not valid, 2 the command line is invalid.")
                .arg(Arg::new("config").value_name("FILE").required(true).help("Configuration file, in TOML.")),
        )
}

fn main() -> ExitCode {
    let matches = command().get_matches();
    match matches.subcommand() {
        Some(("check-config", matches)) => check_config(matches),
        Some((_, matches)) => serve(matches),
        None => serve(&matches),
    }
}

fn check_config(matches: &ArgMatches) -> ExitCode {
    let given = Given { file: matches.get_one::<String>("config").cloned(), flags: Vec::new() };
    let loaded = given.load().and_then(|loaded| {
        let options = &loaded.options;
        secrets::Secrets::read(options, &mut options.server.clone()).map(|_| loaded)
    });
    match loaded {
        Ok(loaded) => {
            print!("{}", loaded.show());
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

fn serve(matches: &ArgMatches) -> ExitCode {
    let file = matches.get_one::<String>("config").cloned();
    let file = file.or_else(|| std::env::var("RINGMAIN_CONFIG").ok().filter(|name| !name.is_empty()));
    let given = Given { file, flags: config::given(matches) };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.enable_all().on_thread_park(allocator::tidy).build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    // First of all: until a listener is installed, SIGHUP ends the process.
    let hangup = match runtime.block_on(async { operate::hangup() }) {
        Ok(hangup) => hangup,
        Err(error) => return fail(&format!("cannot handle signals: {error}")),
    };
    let loaded = match given.load() {
        Ok(loaded) => loaded,
        Err(error) => return fail(&error),
    };
    let filter = match logging::start(&loaded.options) {
        Ok(filter) => filter,
        Err(error) => return fail(&format!("cannot start the log: {error}")),
    };
    // mimalloc asks for huge pages. They round its memory up in steps of 2 MiB, and save no measurable CPU time.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "cannot disable huge pages");
    }
    let code = runtime.block_on(operate::run(&given, loaded, &filter, hangup));
    // Tasks still running at the deadline are aborted.
    runtime.shutdown_background();
    code.unwrap_or_else(|error| fail(&error))
}

/// The arguments that the configuration depends on. Kept, so that a reload can read everything again.
#[derive(Debug)]
struct Given {
    file: Option<String>,
    flags: Vec<(&'static str, String)>,
}

impl Given {
    /// Reads the file and the environment, then applies the flags.
    fn load(&self) -> Result<Loaded, String> {
        let text = match &self.file {
            Some(name) => {
                Some(std::fs::read_to_string(name).map_err(|error| format!("cannot read {name}: {error}"))?)
            }
            None => None,
        };
        // No option has a name or a value that is not Unicode.
        let environment: Vec<_> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name != "RINGMAIN_CONFIG")
            .collect();
        let sources = Sources {
            file: self.file.as_deref().zip(text.as_deref()),
            environment: &environment,
            flags: &self.flags,
            memory: config::memory(),
        };
        config::load(&sources).map_err(|problems| problems.to_string())
    }
}

/// Prints why the program cannot start, one line for each reason.
fn fail(error: &str) -> ExitCode {
    for line in error.lines() {
        eprintln!("ringmain: {line}");
    }
    ExitCode::FAILURE
}
