//! What every server under test is told: where to listen, and how.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Runtime};

/// Connections that may wait to be accepted, for every server alike.
const BACKLOG: u32 = 4096;

/// The command line of a server under test.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// Where streams are opened.
    pub listen: SocketAddr,
    /// Where events are published.
    pub admin: SocketAddr,
    given: Vec<String>,
}

impl Arguments {
    /// Reads the command line of this process.
    ///
    /// # Panics
    ///
    /// If an address is missing or is none.
    #[must_use]
    pub fn read() -> Self {
        let given: Vec<String> = std::env::args().skip(1).collect();
        let address = |name: &str| value(&given, name).expect(name).parse().expect(name);
        Self { listen: address("--listen"), admin: address("--admin"), given }
    }

    /// Whether `flag` was given.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.given.iter().any(|argument| argument == flag)
    }
}

/// What every rival on tokio runs on: as many workers as `TOKIO_WORKER_THREADS` says, or as there are cores. Each
/// calls `idle` before it sleeps.
///
/// # Errors
///
/// The operating system gives no threads.
pub fn runtime(idle: Option<fn()>) -> io::Result<Runtime> {
    let mut runtime = Builder::new_multi_thread();
    if let Some(idle) = idle {
        runtime.on_thread_park(idle);
    }
    runtime.enable_all().build()
}

/// What stands behind `name`.
fn value<'a>(given: &'a [String], name: &str) -> Option<&'a str> {
    let at = given.iter().position(|argument| argument == name)?;
    given.get(at + 1).map(String::as_str)
}

/// Listens on `address` with a long backlog: a storm of clients is to wait for the server, not for the kernel.
///
/// # Errors
///
/// The address is taken.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
