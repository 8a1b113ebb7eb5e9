//! The binary `ringmain`: files, flags and environment to the rooms' own configuration; signals; exit codes.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ringmain::adapter::Rmcp;
use ringmain::everything::Everything;
use ringmain::protocol::AllowList;
use ringmain::server::{Admin, Answer, Config, Drained, Server};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Carries MCP Streamable HTTP for very many connections.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the built-in demonstration server (also without a subcommand).
    Serve(Serve),
}

#[derive(Args, Debug)]
struct Serve {
    /// Address to listen on. Anything but loopback also needs --allow-host.
    #[arg(long, env = "RINGMAIN_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDR")]
    listen: SocketAddr,
    /// Path of the endpoint.
    #[arg(long, env = "RINGMAIN_PATH", default_value = "/mcp", value_name = "PATH", value_parser = path)]
    path: String,
    /// Host that clients may address: `example.com`, `example.com:8080`, `*.example.com`. Repeatable. Default:
    /// loopback.
    #[arg(long, env = "RINGMAIN_ALLOW_HOST", value_delimiter = ',', value_name = "PATTERN")]
    allow_host: Vec<String>,
    /// Origin that browsers may come from: `https://app.example.com`, `http://localhost:*`. Repeatable.
    /// Default: loopback.
    #[arg(long, env = "RINGMAIN_ALLOW_ORIGIN", value_delimiter = ',', value_name = "PATTERN")]
    allow_origin: Vec<String>,
    /// Origin whose pages may read the answers (CORS). Repeatable. Default: none.
    #[arg(long, env = "RINGMAIN_CORS_ORIGIN", value_delimiter = ',', value_name = "PATTERN")]
    cors_origin: Vec<String>,
    /// Answer every request with a stream, so that every response can be fetched again after a break.
    #[arg(long, env = "RINGMAIN_STREAM")]
    stream: bool,
    /// Seconds without traffic after which a session expires.
    #[arg(long, env = "RINGMAIN_IDLE", default_value_t = 30 * 60, value_name = "SECONDS")]
    idle: u64,
    /// Seconds between keep-alive comments on quiet streams.
    #[arg(long, env = "RINGMAIN_KEEP_ALIVE", default_value_t = 15, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    keep_alive: u64,
    /// Address for the operator: /publish, /healthz, /metrics. Whoever reaches it may publish; keep it on
    /// loopback. Default: none.
    #[arg(long, env = "RINGMAIN_ADMIN", value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Seconds for which a drain waits for requests in flight.
    #[arg(long, env = "RINGMAIN_DRAIN", default_value_t = 10, value_name = "SECONDS")]
    drain: u64,
}

fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') && !text.contains(['?', '#', ' ']) {
        Ok(text.to_owned())
    } else {
        Err("a path begins with a slash and holds no query".to_owned())
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let serve = match cli.command {
        Some(Command::Serve(serve)) => serve,
        None => cli.serve,
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("RINGMAIN_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("ringmain=info,rmcp=error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let config = match config(&serve) {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    // The allocator asks for huge pages, which hold very many idle streams and round up what a few of them take.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages stay on");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    runtime.block_on(run(serve.listen, serve.admin, config))
}

fn config(serve: &Serve) -> Result<Config, String> {
    let mut config = Config::default();
    let patterns = |flag: &str, patterns: &[String], default: AllowList| match patterns {
        [] => Ok(default),
        patterns => AllowList::parse(patterns).map_err(|error| format!("{flag}: {error}")),
    };
    config.allowed.hosts = patterns("--allow-host", &serve.allow_host, config.allowed.hosts)?;
    config.allowed.origins = patterns("--allow-origin", &serve.allow_origin, config.allowed.origins)?;
    config.allowed.cors = patterns("--cors-origin", &serve.cors_origin, config.allowed.cors)?;
    config.path.clone_from(&serve.path);
    config.answer = if serve.stream { Answer::Stream } else { Answer::Auto };
    config.keep_alive = Duration::from_secs(serve.keep_alive);
    config.drain = Duration::from_secs(serve.drain);
    config.sessions.idle_ms = serve.idle.saturating_mul(1000);
    Ok(config)
}

async fn run(listen: SocketAddr, admin: Option<SocketAddr>, config: Config) -> ExitCode {
    let path = config.path.clone();
    let server = match Server::bind(listen, Rmcp::new(|| Ok(Everything::default())), config) {
        Ok(server) => server,
        Err(error) => return fail(&format!("cannot listen on {listen}: {error}")),
    };
    match server.local_addr() {
        Ok(address) => tracing::info!("serving the demonstration server on http://{address}{path}"),
        Err(error) => return fail(&format!("cannot listen on {listen}: {error}")),
    }
    if let Some(address) = admin {
        match Admin::bind(address, server.sessions()) {
            Ok(admin) => drop(tokio::spawn(admin.run())),
            Err(error) => return fail(&format!("cannot listen on {address} for the operator: {error}")),
        }
    }
    let signals = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => return fail(&format!("cannot listen for signals: {error}")),
    };
    let (mut terminate, mut interrupt) = signals;
    let drained = server
        .run(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("draining");
        })
        .await;
    match drained {
        Drained::Complete => ExitCode::SUCCESS,
        Drained::CutOff => {
            tracing::warn!("the drain's deadline came before every request was finished");
            ExitCode::from(2)
        }
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("ringmain: {error}");
    ExitCode::FAILURE
}
