//! What every server under test is told: where to listen.

use std::net::SocketAddr;

/// The command line of a rival.
#[derive(Clone, Copy, Debug)]
pub struct Arguments {
    /// Where streams are opened.
    pub listen: SocketAddr,
    /// Where events are published.
    pub admin: SocketAddr,
    /// Whether what is pending leaves in one write, for the yardstick.
    pub coalesce: bool,
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
        let address = |name: &str| {
            let at = given.iter().position(|argument| argument == name).expect(name);
            given.get(at + 1).expect(name).parse().expect(name)
        };
        Self {
            listen: address("--listen"),
            admin: address("--admin"),
            coalesce: given.iter().any(|argument| argument == "--coalesce"),
        }
    }
}
