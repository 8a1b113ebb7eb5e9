//! What an operator sees of a server: requests by method and status, refusals by kind, how long events take, and
//! whether it is ready.
//!
//! Whoever counts adds to a line of its own thread's; whoever asks adds the lines up. The names and labels of all
//! of them are listed in `docs/operations.md`, and none holds anything that a client chose.

pub(super) mod connections;
pub(super) mod handle;
pub(super) mod latency;
mod process;
mod text;
