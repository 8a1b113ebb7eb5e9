//! A running server: what signals do to it, and how it ends.

use std::io;
use std::process::ExitCode;

use ringmain::adapter::Rmcp;
use ringmain::config::{Loaded, Reload};
use ringmain::everything::Everything;
use ringmain::server::{Admin, Allowed, Drained, Server, TlsError};
use ringmain::session::Sessions;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

use crate::Given;
use crate::logging::Filter;
use crate::secrets::Secrets;

/// Serves until a signal says otherwise. The error is why it could not begin.
pub(crate) async fn run(given: &Given, loaded: Loaded, filter: &Filter) -> Result<ExitCode, String> {
    let options = &loaded.options;
    warn_about(&loaded);
    let mut config = options.server.clone();
    let secrets = Secrets::start(options, &mut config).await?;
    let handler = Rmcp::new(|| Ok(Everything::default())).rest_after(options.rest_after);
    let cannot_listen = |error| format!("cannot listen on {}: {error}", options.listen);
    let server = Server::bind(options.listen, handler, config).map_err(cannot_listen)?;
    let address = server.local_addr().map_err(cannot_listen)?;
    let scheme = if options.tls_cert.is_some() { "https" } else { "http" };
    tracing::info!("serving the demonstration server on {scheme}://{address}{}", options.server.path);
    if let Some(address) = options.admin {
        let cannot_listen = |error| format!("cannot listen on {address} for the operator: {error}");
        let admin = Admin::bind(address, server.metrics()).map_err(cannot_listen)?;
        let address = admin.local_addr().map_err(cannot_listen)?;
        tracing::info!("the operator's address is http://{address}");
        drop(tokio::spawn(admin.run()));
    }
    let mut signals = Signals::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let (allow, certificate) = (Box::new(server.allow()), Box::new(server.reload_tls()));
    let mut running =
        Running { given, loaded, filter, secrets, certificate, allow, sessions: server.sessions() };
    let (begin, begun) = oneshot::channel::<()>();
    let mut serving = std::pin::pin!(server.run(async { drop(begun.await) }));
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
    drop(begin);
    loop {
        tokio::select! {
            drained = &mut serving => return Ok(code(drained)),
            signal = signals.next() => match signal {
                Told::End => {
                    tracing::warn!("a second signal: the drain is cut off");
                    return Ok(code(Drained::CutOff));
                }
                Told::Reload => tracing::warn!("draining: nothing is reloaded"),
            },
        }
    }
}

/// What is allowed and yet perhaps not meant.
fn warn_about(loaded: &Loaded) {
    let options = &loaded.options;
    if !loaded.unknown_variables.is_empty() {
        let names = loaded.unknown_variables.join(", ");
        tracing::warn!("the environment has variables that are no options: {names}");
    }
    if !options.listen.ip().is_loopback() && options.allow_host.is_empty() {
        tracing::warn!(
            "listening on {}, but only loopback hosts are allowed: set allow_host to the names clients use",
            options.listen
        );
    }
}

fn code(drained: Drained) -> ExitCode {
    match drained {
        Drained::Complete => ExitCode::SUCCESS,
        Drained::CutOff => {
            tracing::warn!("the drain ended before every request was finished");
            ExitCode::from(2)
        }
    }
}

/// What a signal says.
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
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
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

/// What a reload needs.
struct Running<'a> {
    given: &'a Given,
    /// What is in effect, or will be from the next start on.
    loaded: Loaded,
    filter: &'a Filter,
    secrets: Secrets,
    certificate: Box<dyn Fn() -> Result<(), TlsError>>,
    allow: Box<dyn Fn(Allowed) + Send + Sync>,
    sessions: Sessions,
}

impl Running<'_> {
    /// Reads everything again, puts what can change in effect, and names the rest. If anything is wrong, nothing
    /// changes.
    fn reload(&mut self) {
        let loaded = match self.given.load() {
            Ok(loaded) => loaded,
            Err(problems) => {
                for problem in problems.lines() {
                    tracing::error!("cannot reload: {problem}");
                }
                tracing::error!("the configuration stays as it was");
                return;
            }
        };
        self.secrets.read_again();
        if let Err(error) = (self.certificate)() {
            tracing::error!("the certificate stays as it was: {error}");
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
            (self.allow)(loaded.options.server.allowed.clone());
        }
        if affects(Reload::Sessions) {
            self.sessions.reconfigure(loaded.options.server.sessions.clone());
        }
        if affects(Reload::Log)
            && let Err(error) = EnvFilter::try_new(&loaded.options.log)
                .map_err(|error| error.to_string())
                .and_then(|filter| self.filter.reload(filter).map_err(|error| error.to_string()))
        {
            tracing::error!("cannot change what is logged: {error}");
        }
        tracing::info!("reloaded; changed: {}", list(&changed));
        if !waiting.is_empty() {
            tracing::warn!("these changes need a restart: {}", list(&waiting));
        }
        self.loaded.adopt(loaded, |key| key.reload != Reload::Restart);
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
