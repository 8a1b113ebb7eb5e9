//! The binary `ringmain`: files, flags and environment to the rooms' own configuration; signals; exit codes.

#[path = "main/allocator.rs"]
mod allocator;
#[path = "main/logging.rs"]
mod logging;
#[path = "main/operate.rs"]
mod operate;
#[path = "main/secrets.rs"]
mod secrets;

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use ringmain::config::{self, Loaded, Sources};

const RULES: &str = "\
Every option is also a key of the file, with underscores for dashes, and a variable of the environment: \
--max-body-bytes is max_body_bytes = \"4MiB\" in the file, and RINGMAIN_MAX_BODY_BYTES. Flags win over the \
environment, the environment over the file. Times are written 500ms, 30s, 5m or 1h 30m, sizes 65536, 64KiB or 4MiB. \
Flags that take a PATTERN may stand more than once.

Signals: TERM and INT drain: no new sessions, requests in flight finish, streams are told to come back. A second one \
ends at once. HUP reads the file again; what cannot change while it runs is named in the log.

Exit codes: 0 everything finished, 1 it could not start, 2 the drain was cut off, or the command line is wrong.";

const EXAMPLES: &str = "\
Examples:
  ringmain
  ringmain --listen 0.0.0.0:8080 --allow-host mcp.example.com --admin 127.0.0.1:8081
  ringmain check-config /etc/ringmain.toml && ringmain --config /etc/ringmain.toml";

fn command() -> Command {
    let file = Arg::new("config").long("config").value_name("FILE").help("The file of options, in TOML.");
    let options = || config::arguments().chain([file.clone().display_order(0)]);
    Command::new("ringmain")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Carries MCP Streamable HTTP for very many connections.")
        .after_help(EXAMPLES)
        .after_long_help(format!("{RULES}\n\n{EXAMPLES}"))
        .args_conflicts_with_subcommands(true)
        .args(options())
        .subcommand(
            Command::new("serve")
                .about("Serve the built-in demonstration server (also without a subcommand).")
                .after_long_help(RULES)
                .args(options()),
        )
        .subcommand(
            Command::new("check-config")
                .about("Show what a file comes to, together with the environment, or everything that is wrong with it.")
                .after_help("Exit codes: 0 it is right, 1 it is not, 2 the command line is wrong.")
                .arg(Arg::new("config").value_name("FILE").required(true).help("The file of options, in TOML.")),
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
    let loaded = match given.load() {
        Ok(loaded) => loaded,
        Err(error) => return fail(&error),
    };
    let filter = match logging::start(&loaded.options) {
        Ok(filter) => filter,
        Err(error) => return fail(&format!("cannot log: {error}")),
    };
    // The allocator asks for huge pages, which hold very many idle streams and round up what a few of them take.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages stay on");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.enable_all().on_thread_park(allocator::tidy).build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let code = runtime.block_on(operate::run(&given, loaded, &filter));
    // Whatever runs still has had its time.
    runtime.shutdown_background();
    code.unwrap_or_else(|error| fail(&error))
}

/// What the command line says: enough to read everything again.
#[derive(Debug)]
struct Given {
    file: Option<String>,
    flags: Vec<(&'static str, String)>,
}

impl Given {
    /// Reads the file and the environment, and puts the flags on top.
    fn load(&self) -> Result<Loaded, String> {
        let text = match &self.file {
            Some(name) => {
                Some(std::fs::read_to_string(name).map_err(|error| format!("cannot read {name}: {error}"))?)
            }
            None => None,
        };
        // Names and values that are not Unicode are not ours.
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

/// Says why it does not start: a line for each reason.
fn fail(error: &str) -> ExitCode {
    for line in error.lines() {
        eprintln!("ringmain: {line}");
    }
    ExitCode::FAILURE
}
