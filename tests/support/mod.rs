//! What the socket tests share: a handler that does what a call asks for, a server around it, and a client that
//! hides nothing.
//!
//! Nothing here waits for time to pass. A test waits for an event, and [`soon`] is its deadline.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]
#![allow(unreachable_pub, reason = "this is the interface of a module, in a crate that exports nothing")]

mod client;
pub mod frames;
mod handler;
pub mod raw;
mod sse;
mod wire;

pub use client::{Client, Http2, POST_HEADERS, hello, request};
pub use handler::{Control, Script};
pub use sse::{Block, Event, Stream};
pub use wire::{Broken, Reply, Wire};

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ringmain::handler::Handler;
use ringmain::protocol::SessionId;
use ringmain::server::{Config, Drained, Handle, Metrics, Server};
use ringmain::session::{Session, Sessions};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long any one event may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long a whole test may take.
pub const DEADLINE: Duration = Duration::from_secs(40);

/// Waits for one event, with a deadline.
pub async fn soon<F: Future>(what: &str, event: F) -> F::Output {
    match timeout(PATIENCE, event).await {
        Ok(output) => output,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Gives a test its deadline.
pub async fn test<F: Future>(body: F) -> F::Output {
    timeout(DEADLINE, body).await.expect("the test ends by its deadline")
}

/// Waits until something holds that announces itself to nobody.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(2));
    soon(what, async {
        while !holds() {
            look.tick().await;
        }
    })
    .await;
}

/// A server on a port of its own.
pub struct TestServer {
    pub address: SocketAddr,
    pub handle: Handle,
    pub sessions: Sessions,
    pub metrics: Metrics,
    pub control: Control,
    running: JoinHandle<Drained>,
}

impl TestServer {
    /// Serves the [`Script`].
    pub fn start(config: Config) -> Self {
        let control = Control::default();
        Self::serve(Script::new(control.clone()), control, config)
    }

    /// Serves another handler.
    pub fn start_with(handler: impl Handler, config: Config) -> Self {
        Self::serve(handler, Control::default(), config)
    }

    /// Serves the [`Script`], if it can.
    pub fn try_start(config: Config) -> Result<Self, ringmain::Error> {
        let control = Control::default();
        Self::try_serve(Script::new(control.clone()), control, config)
    }

    fn serve(handler: impl Handler, control: Control, config: Config) -> Self {
        Self::try_serve(handler, control, config).expect("loopback has a port")
    }

    fn try_serve<H: Handler>(
        handler: H,
        control: Control,
        mut config: Config,
    ) -> Result<Self, ringmain::Error> {
        config.hand_over &= !inside_hyper();
        let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into(), handler, config)?;
        let handle = server.handle();
        let (address, sessions, metrics) = (handle.local_addr(), handle.sessions(), handle.metrics());
        let running = tokio::spawn(server.run(std::future::pending()));
        Ok(Self { address, handle, sessions, metrics, control, running })
    }

    /// A client that has shaken hands in the latest version.
    pub async fn client(&self) -> Client {
        self.client_of("2025-11-25").await
    }

    /// A client that has shaken hands in `version`.
    pub async fn client_of(&self, version: &'static str) -> Client {
        Client::initialize(self.address, version).await
    }

    /// The server's side of a client's session.
    pub fn session(&self, client: &Client) -> Arc<Session> {
        let id = SessionId::parse(&client.session).expect("the server gave it out");
        self.sessions.find_any(id).expect("the session is there")
    }

    /// Drops the future that serves.
    pub fn abandon(&self) {
        self.running.abort();
    }

    /// Drains, and waits for the end of it.
    pub async fn stop(self) -> Drained {
        self.handle.drain();
        self.stopped().await
    }

    /// Waits for the end of the drain.
    pub async fn stopped(self) -> Drained {
        soon("the server to end", self.running).await.expect("the server does not panic")
    }
}

/// Whether this run tests streams that stay inside hyper: with `RINGMAIN_TEST_INSIDE_HYPER=1`.
pub fn inside_hyper() -> bool {
    std::env::var_os("RINGMAIN_TEST_INSIDE_HYPER").is_some()
}

/// Publishes notification `number` on the standalone stream.
pub fn publish(session: &Session, number: u64) {
    publish_json(session, &note(number, 0));
}

/// Publishes a message on the standalone stream.
pub fn publish_json(session: &Session, message: &Value) {
    let published = session.publish(|out| serde_json::to_writer(out, message).expect("it is JSON"));
    assert!(published.is_ok(), "the session is open");
}

/// Notification `number`, with so much padding.
pub fn note(number: u64, padding: usize) -> Value {
    json!({"jsonrpc": "2.0", "method": "test/note", "params": {"number": number, "padding": "x".repeat(padding)}})
}

/// The number of a notification made by [`note`].
pub fn number(message: &Value) -> u64 {
    assert_eq!(message["method"], "test/note", "{message}");
    message["params"]["number"].as_u64().expect("a number")
}
