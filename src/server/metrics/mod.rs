//! The metrics of a server: requests by method and status, refusals by kind, the time that events take, and
//! whether it is ready.
//!
//! Each thread counts in a cache line of its own, and a reader adds them up. The names and labels of all
//! metrics are listed in `docs/operations.md`. No label contains a value that a client chose.

pub(super) mod connections;
pub(super) mod handle;
pub(super) mod latency;
mod process;
mod text;
