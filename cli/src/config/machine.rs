//! Finds out how much memory this process may use.

use std::fs;

/// Returns the memory that this process may use, in bytes: that of the machine, or less if its control group has a
/// limit.
#[must_use]
pub fn memory() -> u64 {
    let machine = machine();
    // Control groups version 2, as seen from inside a container.
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX);
    machine.min(group)
}

#[cfg(target_os = "linux")]
fn machine() -> u64 {
    let info = rustix::system::sysinfo();
    let bytes = u128::from(info.totalram) * u128::from(info.mem_unit.max(1));
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(not(target_os = "linux"))]
fn machine() -> u64 {
    u64::MAX
}
