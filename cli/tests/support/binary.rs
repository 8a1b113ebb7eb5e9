//! The binary itself, on a port of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::Client;

/// A running `ringmain serve`. Dropping it ends the process.
pub struct Binary {
    pub address: SocketAddr,
    pub process: Child,
}

impl Binary {
    /// Starts `ringmain serve` at `path` with further arguments, and waits until it listens.
    pub fn start(path: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(path);
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(arguments).env("NO_COLOR", "1");
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RINGMAIN_"))
        {
            command.env_remove(name);
        }
        let mut process = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut lines = BufReader::new(process.stderr.take().expect("it is piped")).lines();
        let said = |line: &str| {
            line.split_once("http://").and_then(|(_, rest)| rest.split('/').next()?.parse().ok())
        };
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| said(&line))
            .expect("it says where it listens");
        // Later lines must not fill the pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        Self { address, process }
    }

    /// A client that has shaken hands in the latest version.
    pub async fn client(&self) -> Client {
        Client::initialize(self.address, "2025-11-25").await
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("it is our child").is_none()
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
