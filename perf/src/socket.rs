//! Client sockets: many from one machine, and none left behind.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

/// How long anything that should happen at once may take.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Streams from one source address; the kernel has about 28,000 ports for each.
const PER_SOURCE: usize = 20_000;

/// Begins to connect client number `number` to `address`.
///
/// # Errors
///
/// There are no more descriptors or ports.
pub fn connect(address: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    // Closing resets: no port waits for a minute before the next round can have it.
    socket.set_linger(Some(Duration::ZERO))?;
    let source = 2 + u8::try_from(number / PER_SOURCE).map_err(io::Error::other)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, source], 0)).into())?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(nix::errno::Errno::EINPROGRESS as i32) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// Waits until something happens, or for `time`; a signal is as good as nothing.
///
/// # Errors
///
/// The operating system fails.
pub fn wait(poll: &mut Poll, events: &mut Events, time: Duration) -> io::Result<()> {
    match poll.poll(events, Some(time)) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        polled => polled,
    }
}

/// Raises the number of descriptors as far as this process may; servers that it starts inherit that.
///
/// # Errors
///
/// The kernel does not say what the limit is.
pub fn raise_descriptors() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}
