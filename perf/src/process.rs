//! A server under test: started, asked what it used, stopped.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How the kernel counts CPU time in `/proc`: ticks a second, the same on every Linux that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A server process with its two addresses.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where streams are opened.
    pub listen: SocketAddr,
    /// Where events are published.
    pub admin: SocketAddr,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU seconds in user mode.
    pub user: f64,
    /// CPU seconds in the kernel.
    pub system: f64,
}

impl Usage {
    /// Both together.
    #[must_use]
    pub fn total(self) -> f64 {
        self.user + self.system
    }

    /// What was used since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self { user: self.user - earlier.user, system: self.system - earlier.system }
    }
}

impl Server {
    /// Starts `binary`, which stands beside the running one, with `--listen` and `--admin`, and waits until it
    /// takes connections.
    ///
    /// # Errors
    ///
    /// It does not start, or does not answer within ten seconds.
    pub fn start(binary: &str, arguments: &[&str]) -> io::Result<Self> {
        let (listen, admin) = (free_address()?, free_address()?);
        let child = Command::new(beside_us(binary)?)
            .args(arguments)
            .args(["--listen", &listen.to_string(), "--admin", &admin.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        let server = Self { child, listen, admin };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(listen).is_err() || TcpStream::connect(admin).is_err() {
            if Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{binary} does not answer")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// CPU seconds used so far, from the kernel's account of the process.
    ///
    /// # Errors
    ///
    /// The process is gone.
    pub fn usage(&self) -> io::Result<Usage> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name of the process stands in parentheses and may hold spaces; the fields count from behind it.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let seconds = |field: usize| -> f64 {
            fields.get(field).and_then(|ticks| ticks.parse().ok()).unwrap_or(0.0) / TICKS_PER_SECOND
        };
        Ok(Usage { user: seconds(11), system: seconds(12) })
    }

    /// Resident memory of its own (without pages of files), in bytes.
    ///
    /// # Errors
    ///
    /// The process is gone.
    pub fn resident(&self) -> io::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kilobytes = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:")?.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| io::Error::other("no RssAnon in /proc"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn beside_us(binary: &str) -> io::Result<PathBuf> {
    let us = std::env::current_exe()?;
    let path = us.parent().unwrap_or(Path::new(".")).join(binary);
    if path.exists() {
        Ok(path)
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, format!("{} is not built", path.display())))
    }
}
