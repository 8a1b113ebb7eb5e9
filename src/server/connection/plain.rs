//! A socket that is registered with the runtime only when a task waits for it.
//!
//! Most clients have sent their request by the time their connection is accepted. If the answer is a
//! stream that stays open, the socket goes to the writer right after that, and registering it would be wasted:
//! two system calls for each of very many clients that reconnect at once.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream as StdStream};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A socket, plain or encrypted.
pub(in crate::server) trait Socket:
    AsyncRead + AsyncWrite + Send + Unpin + 'static
{
    /// Whether the socket can be taken out, to be written without hyper.
    const LEAVES: bool;

    /// Takes out the plain socket below any encryption.
    fn take_plain(&mut self) -> Plain;

    /// Deregisters it from the runtime.
    fn into_std(self) -> io::Result<StdStream>;
}

/// See the [module documentation](self). Never blocks: reads and writes are tried first, and only a caller that
/// would have to wait registers the socket.
pub(in crate::server) enum Plain {
    Unwatched(StdStream),
    Watched(TcpStream),
    /// Registering it failed.
    Gone,
}

impl Plain {
    /// Wraps a socket in non-blocking mode.
    pub(in crate::server) fn new(socket: StdStream) -> Self {
        Self::Unwatched(socket)
    }

    /// Reads what is there.
    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unwatched(socket) => socket.read(buffer),
            Self::Watched(stream) => stream.try_read(buffer),
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Waits until there is something to read, and returns it without removing it. 0 is the end.
    pub(super) async fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(count) = self.at_once(|socket| socket.peek(buffer)) {
            return count;
        }
        self.watched()?.peek(buffer).await
    }

    /// Closes the sending side.
    pub(super) fn end(&mut self) -> io::Result<()> {
        match self {
            Self::Unwatched(socket) => socket.shutdown(Shutdown::Write),
            Self::Watched(stream) => SockRef::from(&*stream).shutdown(Shutdown::Write),
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Waits until there is something to read.
    pub(super) async fn readable(&mut self) -> io::Result<()> {
        self.watched()?.readable().await
    }

    /// The registered socket.
    fn watched(&mut self) -> io::Result<&mut TcpStream> {
        if let Self::Unwatched(_) = self
            && let Self::Unwatched(socket) = std::mem::replace(self, Self::Gone)
        {
            let stream = TcpStream::from_std(socket);
            *self =
                Self::Watched(stream.inspect_err(
                    |error| tracing::warn!(%error, "cannot register a socket with the runtime"),
                )?);
        }
        match self {
            Self::Watched(stream) => Ok(stream),
            Self::Unwatched(_) | Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Performs `act` on an unregistered socket, if that does not have to wait.
    fn at_once<T>(&mut self, mut act: impl FnMut(&mut StdStream) -> io::Result<T>) -> Option<io::Result<T>> {
        let Self::Unwatched(socket) = self else { return None };
        loop {
            match act(socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Some(done),
            }
        }
    }
}

impl Socket for Plain {
    const LEAVES: bool = true;

    fn take_plain(&mut self) -> Plain {
        std::mem::replace(self, Self::Gone)
    }

    fn into_std(self) -> io::Result<StdStream> {
        match self {
            Self::Unwatched(socket) => Ok(socket),
            Self::Watched(stream) => stream.into_std(),
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The next read finds what was there already taken.
        Pin::new(self.watched()?).poll_read(context, buffer)
    }
}

impl AsyncWrite for Plain {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(written) = self.at_once(|socket| socket.write(bytes)) {
            return Poll::Ready(written);
        }
        Pin::new(self.watched()?).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is buffered here.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(shut) = self.at_once(|socket| socket.shutdown(Shutdown::Write)) {
            return Poll::Ready(shut);
        }
        Pin::new(self.watched()?).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(written) = self.at_once(|socket| socket.write_vectored(slices)) {
            return Poll::Ready(written);
        }
        Pin::new(self.watched()?).poll_write_vectored(context, slices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A socket that nobody watches yet, and its other side.
    fn pair() -> (Plain, StdStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let other = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        (Plain::new(socket), other)
    }

    #[tokio::test]
    async fn what_need_not_wait_is_done_unwatched() {
        let (mut plain, mut other) = pair();
        plain.write_all(b"answer").await.unwrap();
        plain.shutdown().await.unwrap();
        assert!(matches!(plain, Plain::Unwatched(_)));
        let mut read = String::new();
        other.read_to_string(&mut read).unwrap();
        assert_eq!(read, "answer");
    }

    #[tokio::test]
    async fn who_has_to_wait_is_watched_and_loses_nothing() {
        let (mut plain, mut other) = pair();
        let bytes: Vec<u8> = (0..16 << 20).map(|index: u32| index.to_le_bytes()[2]).collect();
        let expected = bytes.clone();
        let reading = std::thread::spawn(move || {
            // It comes late, so that the writer has to wait.
            std::thread::sleep(std::time::Duration::from_millis(50));
            let mut read = vec![0; expected.len()];
            other.read_exact(&mut read).unwrap();
            other.write_all(b"thanks").unwrap();
            read == expected
        });
        plain.write_all(&bytes).await.unwrap();
        assert!(matches!(plain, Plain::Watched(_)));
        let mut thanks = [0; 6];
        plain.read_exact(&mut thanks).await.unwrap();
        assert_eq!(&thanks, b"thanks");
        assert!(reading.join().unwrap());
    }
}
