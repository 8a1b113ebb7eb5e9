//! Reads figures of this process from the operating system.

/// Figures of the process, by the names that Prometheus' own libraries use.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    /// Seconds since 1970.
    pub(super) start_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) open_fds: u64,
    pub(super) max_fds: u64,
}

/// Reads the figures. `None` where the system does not provide them.
#[cfg(target_os = "linux")]
pub(super) fn look() -> Option<Process> {
    use procfs::WithCurrentSystemInfo;
    use procfs::process::{LimitValue, Process as This};

    let this = This::myself().ok()?;
    let stat = this.stat().ok()?;
    let max_fds = match this.limits().ok()?.max_open_files.soft_limit {
        LimitValue::Value(limit) => limit,
        LimitValue::Unlimited => u64::MAX,
    };
    Some(Process {
        start_seconds: procfs::boot_time_secs().ok()? as f64
            + stat.starttime as f64 / procfs::ticks_per_second() as f64,
        cpu_seconds: (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
        resident_bytes: stat.rss_bytes().get(),
        open_fds: this.fd_count().ok()? as u64,
        max_fds,
    })
}

/// Reads the figures. `None` where the system does not provide them.
#[cfg(not(target_os = "linux"))]
pub(super) fn look() -> Option<Process> {
    None
}
