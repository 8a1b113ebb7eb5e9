//! What a result was measured on, and when.

use std::process::Command;

use serde::{Deserialize, Serialize};

/// The machine and the build.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// The kernel.
    pub kernel: String,
    /// The compiler.
    pub rustc: String,
    /// The commit, with a plus sign if files differ from it.
    pub commit: String,
    /// Workers of each server on tokio, if `TOKIO_WORKER_THREADS` says; otherwise one for each core.
    pub workers: Option<String>,
    /// Load average over a minute when the run began.
    pub load: String,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let line = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned())).unwrap_or_default()
        };
        let memory = line(&read("/proc/meminfo"), "MemTotal");
        let memory: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        let commit = says("git", &["rev-parse", "--short", "HEAD"]);
        let differs = !says("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
        Self {
            cpu: line(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            rustc: says("rustc", &["--version"]),
            commit: format!("{commit}{}", if differs { "+" } else { "" }),
            workers: std::env::var("TOKIO_WORKER_THREADS").ok(),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

/// The date, as `2026-01-31`.
#[must_use]
pub fn today() -> String {
    says("date", &["-u", "+%F"])
}

fn says(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
