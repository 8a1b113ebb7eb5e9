//! Runs the server from start to exit: binds its addresses, obeys signals (drain, reload), and gives the exit code.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use ringmain::adapter::Rmcp;
use ringmain::everything::Everything;
use ringmain::server::{Admin, Drained, Handle, Server};
use ringmain_cli::config::{Loaded, Reload};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::Given;
use crate::logging::Filter;
use crate::secrets::Secrets;

/// Serves until a signal ends it. The error says why it could not start.
///
/// `hangup` was installed before the configuration was read: a SIGHUP received since then causes a reload.
pub(crate) async fn run(
    given: &Given,
    loaded: Loaded,
    filter: &Filter,
    hangup: Signal,
) -> Result<ExitCode, String> {
    let options = &loaded.options;
    warn_about(&loaded);
    let mut config = options.server.clone();
    let secrets = Secrets::start(options, &mut config).await?;
    let handler = Rmcp::new(|| Ok(Everything::default())).rest_after(options.rest_after);
    let server = Server::bind(options.listen, handler, config).map_err(|error| with_cause(&error))?;
    let handle = server.handle();
    let address = handle.local_addr();
    let scheme = if options.tls_cert.is_some() { "https" } else { "http" };
    tracing::info!("serving the demonstration server on {scheme}://{address}{}", options.server.path);
    if let Some(address) = options.admin {
        let mut admin = Admin::bind(address, handle.metrics())
            .map_err(|error| format!("admin: {}", with_cause(&error)))?;
        if let Some(token) = secrets.admin_token() {
            admin = admin.token(token);
        }
        tracing::info!("serving the admin endpoints on http://{}", admin.local_addr());
        drop(tokio::spawn(admin.run()));
    }
    let mut signals = Signals::listen(hangup).map_err(|error| format!("cannot handle signals: {error}"))?;
    let mut running = Running { given, loaded, filter, secrets, handle: handle.clone() };
    let mut serving = std::pin::pin!(server.run(std::future::pending()));
    loop {
        tokio::select! {
            drained = &mut serving => return Ok(code(drained)),
            signal = signals.next() => match signal {
                Told::End => break,
                Told::Reload => running.reload(),
            },
        }
    }
    tracing::info!("draining");
    handle.drain();
    loop {
        tokio::select! {
            drained = &mut serving => return Ok(code(drained)),
            signal = signals.next() => match signal {
                Told::End => {
                    tracing::warn!("second signal: exiting before the drain is complete");
                    return Ok(code(Drained::CutOff));
                }
                Told::Reload => tracing::warn!("reload ignored: the server is draining"),
            },
        }
    }
}

/// Logs settings that are valid but probably a mistake.
fn warn_about(loaded: &Loaded) {
    let options = &loaded.options;
    if !loaded.unknown_variables.is_empty() {
        let names = loaded.unknown_variables.join(", ");
        tracing::warn!("unknown environment variables: {names}");
    }
    if !options.listen.ip().is_loopback() && options.allow_host.is_empty() {
        tracing::warn!(
            "listening on {}, but only loopback hosts are allowed: set allow_host to the names that clients use",
            options.listen
        );
    }
}

fn code(drained: Drained) -> ExitCode {
    match drained {
        Drained::Complete => ExitCode::SUCCESS,
        Drained::CutOff => {
            tracing::warn!("the drain ended before all requests were finished");
            ExitCode::from(2)
        }
    }
}

/// Listens for SIGHUP, which causes a reload. Must be called within the runtime.
pub(crate) fn hangup() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// What a signal asks for.
enum Told {
    End,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn listen(reload: Signal) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.reload.recv() => Told::Reload,
        }
    }
}

/// The running server, as far as a reload can change it.
struct Running<'a> {
    given: &'a Given,
    /// The configuration in effect.
    loaded: Loaded,
    filter: &'a Filter,
    secrets: Secrets,
    handle: Handle,
}

impl Running<'_> {
    /// Reads everything again, applies what can change at run time, and logs which changes need a restart. If the
    /// configuration has an error, nothing changes.
    fn reload(&mut self) {
        let loaded = match self.given.load() {
            Ok(loaded) => loaded,
            Err(problems) => {
                for problem in problems.lines() {
                    tracing::error!("cannot reload: {problem}");
                }
                tracing::error!("the configuration is unchanged");
                return;
            }
        };
        self.secrets.read_again();
        if let Err(error) = self.handle.reload_tls() {
            let error = with_cause(&error);
            tracing::error!("cannot reload the certificate, the current one stays in use: {error}");
        }
        let changes = loaded.changes(&self.loaded);
        let (mut changed, mut waiting) = (Vec::new(), Vec::new());
        for key in &changes {
            match key.reload {
                Reload::Restart => waiting.push(key.name),
                Reload::Allowed | Reload::Log | Reload::Sessions => changed.push(key.name),
            }
        }
        let affects = |reload| changes.iter().any(|key| key.reload == reload);
        if affects(Reload::Allowed) {
            self.handle.allow(loaded.options.server.allowed.clone());
        }
        if affects(Reload::Sessions) {
            self.handle.sessions().reconfigure(loaded.options.server.sessions.clone());
        }
        if affects(Reload::Log)
            && let Err(error) = EnvFilter::try_new(&loaded.options.log)
                .map_err(|error| error.to_string())
                .and_then(|filter| self.filter.reload(filter).map_err(|error| error.to_string()))
        {
            tracing::error!("cannot change the log filter: {error}");
        }
        tracing::info!("reloaded; changed: {}", list(&changed));
        if !waiting.is_empty() {
            tracing::warn!("these changes need a restart: {}", list(&waiting));
        }
        self.loaded.adopt(loaded, |key| key.reload != Reload::Restart);
    }
}

/// The text of an error, followed by its cause.
pub(crate) fn with_cause(error: &ringmain::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
