//! Registers file descriptors that the runtime has no type for.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A type that owns one descriptor for its whole life.
pub(in crate::server) trait Keeps: AsRawFd {}

impl Keeps for mio::Poll {}
impl Keeps for mio::net::TcpListener {}

/// Registers the descriptor for readability.
#[allow(
    unsafe_code,
    reason = "the runtime wants to be told that a descriptor stays open while it is watched"
)]
pub(in crate::server) fn watch_reads<T: Keeps>(keeper: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the descriptor belongs to `keeper`, which the `AsyncFd` owns from here on; nobody else closes it, and
    // what implements `Keeps`, here above, never has another.
    Ok(unsafe { AsyncFd::register_with_interest(keeper, Interest::READABLE) }?)
}
