//! The socket of an HTTP/2 connection: what its streams write in one poll leaves in one write.
//!
//! h2 flushes after each DATA frame of 256 bytes or more, so a message to a thousand streams of one connection
//! would be a thousand system calls. Here a flush does nothing, and the connection is followed by
//! [`Coalesced`], which sends what was collected when the connection has nothing more to say for the moment.

use std::error::Error;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::gate::{Closed, ConnectionCounters};
use super::meter::Meter;
use super::serve::Socket;
use crate::sync::{Arc, Mutex, lock};

/// So much is collected at most before a write must take some of it.
const COLLECTED: usize = 64 << 10;
/// A buffer that grew beyond this is given back when it is empty.
const KEPT: usize = 16 << 10;

/// What was written and has not left.
#[derive(Debug)]
struct Outbox<S> {
    socket: S,
    bytes: Vec<u8>,
    sent: usize,
    stalled_after: Duration,
    /// Runs while the socket takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
    meter: Meter,
    counters: Arc<ConnectionCounters>,
}

impl<S: Socket> Outbox<S> {
    /// Ready when everything has left.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            match Pin::new(&mut self.socket).poll_write(context, &self.bytes[self.sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.sent += count;
                    self.meter.sent(count);
                    self.stall = None;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.poll_stall(context),
            }
        }
        // What TLS made of it may not have left; without TLS this is nothing.
        if !self.bytes.is_empty() && Pin::new(&mut self.socket).poll_flush(context)?.is_pending() {
            return self.poll_stall(context);
        }
        self.sent = 0;
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// An error when the socket took nothing for too long.
    fn poll_stall(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stalled_after = self.stalled_after;
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(stalled_after)));
        ready!(stall.as_mut().poll(context));
        self.counters.count_closed(Closed::Stalled);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Ready when there is room for more.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.bytes.len() - self.sent < COLLECTED {
            return Poll::Ready(Ok(()));
        }
        self.poll_send(context)
    }
}

/// The socket as hyper sees it. The mutex is there because two parts of one task share the outbox; it is never
/// contended.
#[derive(Debug)]
pub(super) struct Io<S> {
    unread: Bytes,
    outbox: Arc<Mutex<Outbox<S>>>,
}

impl<S: Socket> Io<S> {
    /// Takes a socket that `unread` was read from already, and whose client may leave what it is sent untaken for
    /// `stalled_after`.
    pub(super) fn new(
        socket: S,
        unread: Bytes,
        stalled_after: Duration,
        meter: Meter,
        counters: Arc<ConnectionCounters>,
    ) -> Self {
        let outbox =
            Outbox { socket, bytes: Vec::new(), sent: 0, stalled_after, stall: None, meter, counters };
        Self { unread, outbox: Arc::new(Mutex::new(outbox)) }
    }

    /// Makes the future that drives the connection that `serve` makes of this socket, and sends what it wrote.
    pub(super) fn coalesce<C>(self, serve: impl FnOnce(Self) -> C) -> Coalesced<C, S> {
        let outbox = self.outbox.clone();
        Coalesced { connection: Box::pin(serve(self)), outbox, served: None }
    }
}

impl<S: Socket> AsyncRead for Io<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.unread.is_empty() {
            let mut outbox = lock(&self.outbox);
            ready!(Pin::new(&mut outbox.socket).poll_read(context, buffer))?;
            let received = outbox.meter.received(&buffer.filled()[before..]);
            return Poll::Ready(received.map_err(|closed| {
                outbox.counters.count_closed(closed);
                io::Error::other("too many frames about nothing")
            }));
        }
        let count = self.unread.len().min(buffer.remaining());
        let unread = self.unread.split_to(count);
        buffer.put_slice(&unread);
        // Too little to be a flood.
        let _ = lock(&self.outbox).meter.received(&unread);
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> AsyncWrite for Io<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut outbox = lock(&self.outbox);
        ready!(outbox.poll_room(context))?;
        outbox.bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // `Coalesced` sends it, later in the same poll of the same task.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outbox = lock(&self.outbox);
        ready!(outbox.poll_send(context))?;
        if Pin::new(&mut outbox.socket).poll_shutdown(context)?.is_pending() {
            return outbox.poll_stall(context);
        }
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut outbox = lock(&self.outbox);
        ready!(outbox.poll_room(context))?;
        slices.iter().for_each(|slice| outbox.bytes.extend_from_slice(slice));
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }
}

/// A connection and what it wrote: each poll of the one is followed by one write of the other.
pub(super) struct Coalesced<C, S> {
    connection: Pin<Box<C>>,
    outbox: Arc<Mutex<Outbox<S>>>,
    /// The connection has ended; its last bytes have not left.
    served: Option<hyper::Result<()>>,
}

impl<C, S> Coalesced<C, S> {
    /// The connection.
    pub(super) fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }
}

impl<C: Future<Output = hyper::Result<()>>, S: Socket> Future for Coalesced<C, S> {
    type Output = Result<(), Box<dyn Error + Send + Sync>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.served.is_none()
            && let Poll::Ready(served) = this.connection.as_mut().poll(context)
        {
            this.served = Some(served);
        }
        let sent = lock(&this.outbox).poll_send(context);
        match (&mut this.served, sent) {
            (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error.into())),
            (served @ Some(_), Poll::Ready(Ok(()))) => {
                Poll::Ready(served.take().unwrap_or(Ok(())).map_err(Into::into))
            }
            (_, Poll::Pending) | (None, _) => Poll::Pending,
        }
    }
}
