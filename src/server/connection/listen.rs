//! Opens the socket that a server listens on.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

#[cfg(target_os = "linux")]
use socket2::SockRef;
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::Error;
use crate::server::endpoint::catch_panic;

/// Connections that wait to be accepted. With tokio's 128, a storm of reconnecting clients waits for its
/// retries of one second.
const BACKLOG: i32 = 4096;
/// Bytes that the system takes for a client before it has sent those before them.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 << 10;

/// Fails where tokio would panic: outside of a runtime, or in one without timers or without sockets.
pub(in crate::server) fn needs_runtime() -> Result<(), Error> {
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(Error::runtime("there is no tokio runtime here"));
    }
    let is_able = catch_panic(|| {
        drop(tokio::time::sleep(Duration::ZERO));
        tokio::net::UnixDatagram::unbound().is_ok()
    });
    if is_able == Some(true) {
        return Ok(());
    }
    Err(Error::runtime("the tokio runtime needs enable_time and enable_io"))
}

/// Listens on `address` with a backlog of our own.
pub(in crate::server) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it: no frame waits for the acknowledgement of the one before.
    socket.set_tcp_nodelay(true)?;
    // Inherited too. What a stalled reader is owed waits in its ring, where it is bounded, counted and can be resumed,
    // rather than in some megabytes of the system's for each of them.
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Has the system end accepted connections whose other side says nothing of what was sent for so long. A client
/// that vanished without a word takes nothing, but until then the system keeps what is sent to it, comments among
/// it, and the connection looks alive.
pub(in crate::server) fn give_up_after(listener: &TcpListener, after: Duration) -> io::Result<()> {
    // Accepted sockets inherit it. Elsewhere than on Linux the system's own patience counts.
    // In milliseconds, in what C calls an int.
    #[cfg(target_os = "linux")]
    SockRef::from(listener).set_tcp_user_timeout(Some(after.min(Duration::from_millis(i32::MAX as u64))))?;
    let _ = (listener, after);
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn accepted_sockets_inherit_what_the_system_does_for_a_silent_client() {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        give_up_after(&listener, Duration::from_secs(7)).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap());
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(SockRef::from(&accepted).tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
        assert_eq!(SockRef::from(&accepted).tcp_notsent_lowat().unwrap(), UNSENT);
        drop(client);
    }
}
