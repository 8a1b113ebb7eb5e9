//! A socket and the bytes that were read from it ahead of time.
//!
//! A client may send its next request while the answer to the last one is still being written. A reader of the
//! socket then gets some of that request, and when the socket moves on those bytes must move with it: without
//! them the next reader would begin within a message, and take a body for a request. So the two are one
//! value, which is read as one, and only [`into_parts`](Prefixed::into_parts) separates them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::plain::{Plain, Socket};
use crate::sse::Held;

/// See the [module documentation](self).
#[derive(Debug)]
pub(in crate::server) struct Prefixed<S> {
    socket: S,
    unread: Bytes,
    /// Charges them to the memory limit.
    held: Held,
}

impl<S> Prefixed<S> {
    /// Wraps a socket from which `unread` was read already.
    pub(in crate::server) fn new(socket: S, unread: Bytes) -> Self {
        let held = Held::new(unread.len());
        Self { socket, unread, held }
    }

    pub(in crate::server) fn socket(&self) -> &S {
        &self.socket
    }

    /// Whether some bytes were read ahead.
    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Puts back what a reader got and did not use, before the rest. What is kept is a
    /// copy of its exact size, so that it does not keep the reader's whole buffer.
    pub(super) fn unread(self, unused: &[u8]) -> Self {
        let unread = if unused.is_empty() && self.unread.is_empty() {
            Bytes::new()
        } else {
            Bytes::from([unused, &self.unread].concat())
        };
        Self::new(self.socket, unread)
    }

    /// Converts the socket.
    pub(super) fn map<T>(self, change: impl FnOnce(S) -> T) -> Prefixed<T> {
        let Self { socket, unread, held } = self;
        Prefixed { socket: change(socket), unread, held }
    }

    /// Converts the socket, if that does not fail.
    pub(super) fn try_map<T>(self, change: impl FnOnce(S) -> io::Result<T>) -> io::Result<Prefixed<T>> {
        let Self { socket, unread, held } = self;
        Ok(Prefixed { socket: change(socket)?, unread, held })
    }

    /// The socket, and the bytes that were read ahead.
    pub(in crate::server) fn into_parts(self) -> (S, Bytes) {
        (self.socket, self.unread)
    }
}

impl<S: Socket> Prefixed<S> {
    /// Takes the plain socket out, as [`Socket::take_plain`] does, to close it: bytes read ahead are dropped.
    pub(super) fn take_plain(&mut self) -> Plain {
        self.socket.take_plain()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    /// Reads the bytes that were read ahead, and then from the socket.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.socket).poll_read(context, buffer);
        }
        let count = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread.split_to(count));
        let left = self.unread.len();
        self.held.set(left);
        if left == 0 {
            self.unread = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn read(prefixed: &mut Prefixed<&[u8]>, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut buffer = ReadBuf::new(&mut bytes);
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(Pin::new(prefixed).poll_read(&mut context, &mut buffer), Poll::Ready(Ok(()))));
        buffer.filled().to_vec()
    }

    #[test]
    fn what_a_reader_did_not_use_comes_before_what_it_did_not_get() {
        let mut prefixed = Prefixed::new(&b"four"[..], Bytes::from_static(b"one two three "));
        assert_eq!(read(&mut prefixed, 8), b"one two ");
        let mut prefixed = prefixed.unread(b"two ");
        assert_eq!(read(&mut prefixed, 100), b"two three ");
        assert!(!prefixed.has_unread());
        assert_eq!(read(&mut prefixed, 100), b"four");
    }

    #[test]
    fn two_bytes_keep_no_buffer() {
        let buffer = Bytes::from(vec![0; 8192]);
        let prefixed = Prefixed::new((), Bytes::new()).unread(&buffer.slice(..2));
        assert!(buffer.is_unique(), "nothing refers to it");
        assert_eq!(prefixed.into_parts().1.len(), 2);
    }
}
