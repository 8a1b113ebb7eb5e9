//! A server under test: started, asked what it used, stopped.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::time::ClockId;
use nix::unistd::Pid;

/// How the kernel counts user and system time in `/proc`: ticks a second, the same on every Linux that this
/// runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Servers that are running, so that none is left behind when this process is told to end.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Ends the servers and this process when a signal says so. To be called before there are other threads.
///
/// # Errors
///
/// The signals cannot be blocked.
pub fn end_together() -> io::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    // Threads inherit that; processes that are started do not.
    signals.thread_block()?;
    std::thread::spawn(move || {
        let _ = signals.wait();
        // The lock is kept: nobody starts another one.
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        for server in running.iter() {
            let _ = kill(*server, Signal::SIGKILL);
        }
        std::process::exit(130);
    });
    Ok(())
}

/// A server process with its two addresses.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where streams are opened.
    pub listen: SocketAddr,
    /// Where events are published.
    pub admin: SocketAddr,
    /// A directory that goes with it.
    pub(crate) scratch: Option<PathBuf>,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU seconds, by the process's own clock: nanoseconds, with the threads that are gone.
    pub total: f64,
    /// Of them in user mode, as the kernel samples it every 10 ms.
    pub user: f64,
}

impl Usage {
    /// What was used since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self { total: self.total - earlier.total, user: self.user - earlier.user }
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
        let binary = beside_us(binary)?;
        Self::start_with(|listen, admin| {
            let mut command = Command::new(binary);
            command.env("RINGMAIN_LOG", "warn");
            // As much as the others retain.
            command.env("RINGMAIN_STANDALONE_EVENTS", "256");
            command.args(arguments).args(["--listen", &listen.to_string(), "--admin", &admin.to_string()]);
            Ok(command)
        })
    }

    /// Starts what `command` makes of the two addresses, and waits until it takes connections.
    ///
    /// # Errors
    ///
    /// It does not start, or does not answer within ten seconds.
    pub fn start_with(
        command: impl FnOnce(SocketAddr, SocketAddr) -> io::Result<Command>,
    ) -> io::Result<Self> {
        let (listen, admin) = free_addresses()?;
        let mut command = command(listen, admin)?;
        let mut server = {
            let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
            let child = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn()?;
            let server = Self { child, listen, admin, scratch: None };
            running.push(server.pid());
            server
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(listen).is_err() || TcpStream::connect(admin).is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(io::Error::other(format!("the server ended at once: {status}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server takes no connections"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// CPU seconds used so far, by all threads of the process.
    ///
    /// # Errors
    ///
    /// The process is gone.
    pub fn usage(&self) -> io::Result<Usage> {
        let clock = ClockId::pid_cpu_clock_id(self.pid())?;
        let total = Duration::from(clock.now()?).as_secs_f64();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name of the process stands in parentheses and may hold spaces; the fields count from behind it.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let user: f64 = fields.nth(11).and_then(|ticks| ticks.parse().ok()).unwrap_or(0.0);
        Ok(Usage { total, user: user / TICKS_PER_SECOND })
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Resident memory of its own (without pages of files), in bytes: anonymous, and shared, where nginx keeps
    /// what its workers share.
    ///
    /// # Errors
    ///
    /// The process is gone.
    pub fn resident(&self) -> io::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        };
        let kilobytes = field("RssAnon:").zip(field("RssShmem:"));
        let (own, shared) = kilobytes.ok_or_else(|| io::Error::other("no RssAnon in /proc"))?;
        Ok((own + shared) * 1024)
    }

    /// Resident memory once it has stopped changing, or after ten seconds.
    ///
    /// # Errors
    ///
    /// The process is gone.
    pub fn resident_at_rest(&self) -> io::Result<u64> {
        let (mut before, mut same) = (self.resident()?, 0);
        for _ in 0..15 {
            std::thread::sleep(Duration::from_secs(1));
            let now = self.resident()?;
            same = if now == before { same + 1 } else { 0 };
            // Allocators give memory back some time after it was freed.
            if same == 3 {
                break;
            }
            before = now;
        }
        Ok(before)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).retain(|server| *server != self.pid());
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(scratch) = &self.scratch {
            let _ = std::fs::remove_dir_all(scratch);
        }
    }
}

/// Two addresses that nobody listens on; both are held until both are known.
fn free_addresses() -> io::Result<(SocketAddr, SocketAddr)> {
    let (one, other) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok((one.local_addr()?, other.local_addr()?))
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
