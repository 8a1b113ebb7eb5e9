//! The socket of an HTTP/2 connection: what many streams write at about the same time is sent with one write.
//!
//! h2 flushes after each DATA frame of 256 bytes or more, so a message to a thousand streams of one connection
//! would be a thousand system calls. Here a flush does nothing. [`Coalesced`] polls the connection, and then sends
//! what it wrote.
//!
//! # Waiting for the other streams
//!
//! Each stream has a task of its own, which wakes the connection's task when it wrote a frame. tokio runs a task that
//! another one wakes right after that one. So the connection is polled after each stream, with one frame to send,
//! while hundreds of streams that the same message woke still wait in the run queue.
//!
//! [`Coalesced`] therefore wakes itself before it sends. A task that wakes itself goes to the end of the run queue,
//! and the streams before it add their frames. It does so again as long as each pass adds something, up to
//! [`PASSES`] times or [`ENOUGH`] bytes. A connection that sent nothing for [`QUIET`] does not wait: a lone event
//! is sent at once, and a burst costs one more write.
//!
//! # Whole answers
//!
//! hyper gives h2 the head of an answer and then its body. Between the two, the connection's task may run on another
//! thread and send the head alone. A client that is still sending, and stops when it reads the head of a refusal,
//! breaks its own `content-length`; h2 then resets the stream before the body was sent, and the client reports the
//! reset (curl 7.88 does both). So a stream [holds](Holds) the connection back while it gives a short answer.

use std::error::Error;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::meter::Meter;
use super::patience::Patience;
use super::plain::{Plain, Socket};
use super::prefixed::Prefixed;
use crate::server::metrics::connections::{CloseReason, ConnectionCounters};
use crate::sse::Held;
use crate::sync::{Arc, Mutex, lock};
use crate::wake::hold::{Ended, Holds};

/// A connection with this many bytes to send does not wait for more.
const ENOUGH: usize = 16 << 10;
/// Maximum number of passes of the run queue that a connection waits.
const PASSES: u8 = 8;
/// A connection that sent nothing for this long sends without waiting.
const QUIET: Duration = Duration::from_millis(1);
/// Maximum number of bytes collected before some must be sent.
const COLLECTED: usize = 64 << 10;
/// A larger buffer is released when it is empty.
const KEPT: usize = 16 << 10;

/// What was written and not sent yet.
#[derive(Debug)]
struct Outbox<S> {
    socket: Prefixed<S>,
    bytes: Vec<u8>,
    sent: usize,
    patience: Patience,
    /// Charges what the socket does not take to the memory limit.
    held: Held,
    /// Runs while the socket is full.
    stall: Option<Pin<Box<Sleep>>>,
    /// The timer has fired.
    gave_up: bool,
    meter: Meter,
    counters: Arc<ConnectionCounters>,
    waiting: Waiting,
    /// Holds of streams that are giving an answer.
    holds: Arc<Holds>,
}

/// Decides whether a connection waits for more before it sends.
#[derive(Debug)]
struct Waiting {
    /// Passes that it waited since it last sent.
    passes: u8,
    /// Times it was held back since it last sent.
    held: u8,
    /// Bytes before the last pass.
    before: usize,
    /// When it last sent.
    sent: Instant,
}

impl Waiting {
    fn new() -> Self {
        Self { passes: 0, held: 0, before: 0, sent: Instant::now() }
    }

    /// Whether to wait for another pass of the run queue, with `bytes` to send.
    fn goes_on(&mut self, bytes: usize) -> bool {
        let goes_on = match self.passes {
            _ if bytes == 0 || bytes >= ENOUGH => false,
            0 => self.sent.elapsed() < QUIET,
            passes => passes < PASSES && bytes > self.before,
        };
        if goes_on {
            self.passes += 1;
            self.before = bytes;
        }
        goes_on
    }

    /// Notes that everything was sent.
    fn sent(&mut self) {
        *self = Self::new();
    }
}

impl<S: Socket> Outbox<S> {
    /// Whether to wait for more before sending. A full socket is waited for already.
    fn waits(&mut self) -> bool {
        self.stall.is_none() && self.waiting.goes_on(self.bytes.len() - self.sent)
    }

    /// Whether what is to be sent may end within an answer. Wakes the task when the rest may be there.
    fn is_held(&mut self, since: Ended, context: &Context<'_>) -> bool {
        let bytes = self.bytes.len() - self.sent;
        // Not without end: streams may give answers all the time.
        let is_held = (1..ENOUGH).contains(&bytes)
            && self.waiting.held < PASSES
            && self.holds.poll_whole(since, context).is_pending();
        self.waiting.held += u8::from(is_held);
        is_held
    }

    /// Ready when everything was sent.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            match Pin::new(&mut self.socket).poll_write(context, &self.bytes[self.sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.sent += count;
                    self.meter.sent(count);
                    self.stall = None;
                    self.held.set(0);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    // Sent bytes are removed before all are sent: with a slow client that always has something to read,
                    // the buffer would grow without end.
                    self.bytes.drain(..self.sent);
                    self.sent = 0;
                    return self.poll_stall(context);
                }
            }
        }
        // TLS may still hold some of it; without TLS this does nothing.
        if !self.bytes.is_empty() && Pin::new(&mut self.socket).poll_flush(context)?.is_pending() {
            return self.poll_stall(context);
        }
        if !self.bytes.is_empty() {
            self.waiting.sent();
        }
        self.sent = 0;
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// An error if the socket took nothing for too long.
    fn poll_stall(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held.set(self.bytes.len());
        let patience = self.patience;
        let stall = self.stall.get_or_insert_with(|| patience.timer());
        ready!(stall.as_mut().poll(context));
        // Stays an error when polled again.
        if !std::mem::replace(&mut self.gave_up, true) {
            self.counters.count_closed(CloseReason::Stalled);
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Ready when there is space for more.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.bytes.len() - self.sent < COLLECTED {
            return Poll::Ready(Ok(()));
        }
        self.poll_send(context)
    }
}

/// The socket as hyper sees it. Two parts of one task share the outbox, so its mutex is never
/// contended.
#[derive(Debug)]
pub(super) struct Http2Io<S> {
    outbox: Arc<Mutex<Outbox<S>>>,
}

impl<S: Socket> Http2Io<S> {
    /// Creates the outbox of a socket, with the patience for a client that reads nothing.
    pub(super) fn new(
        socket: Prefixed<S>,
        patience: Patience,
        meter: Meter,
        counters: Arc<ConnectionCounters>,
        holds: Arc<Holds>,
    ) -> Self {
        let (bytes, held, waiting) = (Vec::new(), Held::default(), Waiting::new());
        let outbox = Outbox {
            socket,
            bytes,
            sent: 0,
            patience,
            held,
            stall: None,
            gave_up: false,
            meter,
            counters,
            waiting,
            holds,
        };
        Self { outbox: Arc::new(Mutex::new(outbox)) }
    }

    /// Returns the future that drives the connection that `serve` creates on this socket, and sends what it writes.
    pub(super) fn coalesce<C>(self, serve: impl FnOnce(Self) -> C) -> Coalesced<C, S> {
        let outbox = self.outbox.clone();
        Coalesced { connection: Box::pin(serve(self)), outbox, served: None }
    }
}

impl<S: Socket> AsyncRead for Http2Io<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let mut outbox = lock(&self.outbox);
        let is_ahead = outbox.socket.has_unread();
        ready!(Pin::new(&mut outbox.socket).poll_read(context, buffer))?;
        match outbox.meter.received(&buffer.filled()[before..]) {
            // What was read ahead is too short to be a flood.
            Err(reason) if !is_ahead => {
                outbox.counters.count_closed(reason);
                Poll::Ready(Err(io::Error::other("too many HTTP/2 control frames")))
            }
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl<S: Socket> AsyncWrite for Http2Io<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut outbox = lock(&self.outbox);
        ready!(outbox.poll_room(context))?;
        outbox.bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // `Coalesced` sends it, in this poll or in a later one that it requests.
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

/// A connection and its outbox. See the [module documentation](self).
pub(super) struct Coalesced<C, S> {
    connection: Pin<Box<C>>,
    outbox: Arc<Mutex<Outbox<S>>>,
    /// The connection has ended; its last bytes may not be sent yet.
    served: Option<hyper::Result<()>>,
}

impl<C, S: Socket> Coalesced<C, S> {
    /// Takes the socket of a connection that has ended.
    pub(super) fn take_socket(&mut self) -> Plain {
        lock(&self.outbox).socket.take_plain()
    }

    /// The connection.
    pub(super) fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }
}

impl<C: Future<Output = hyper::Result<()>>, S: Socket> Future for Coalesced<C, S> {
    type Output = Result<(), Box<dyn Error + Send + Sync>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let since = lock(&this.outbox).holds.note();
        if this.served.is_none()
            && let Poll::Ready(served) = this.connection.as_mut().poll(context)
        {
            this.served = Some(served);
        }
        let mut outbox = lock(&this.outbox);
        if this.served.is_none() && outbox.is_held(since, context) {
            return Poll::Pending;
        }
        if this.served.is_none() && outbox.waits() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let sent = outbox.poll_send(context);
        match (&mut this.served, sent) {
            (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error.into())),
            (served @ Some(_), Poll::Ready(Ok(()))) => {
                Poll::Ready(served.take().unwrap_or(Ok(())).map_err(Into::into))
            }
            (_, Poll::Pending) | (None, _) => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::AtomicUsize;
    use crate::sync::Ordering::Relaxed;
    use bytes::Bytes;
    use std::net::TcpStream;
    use std::task::Waker;
    use tokio::sync::{Notify, mpsc};

    /// Streams of the connection under test.
    const STREAMS: usize = 200;

    /// A socket that takes everything, or so much at a time, and counts.
    #[derive(Clone)]
    struct Counting {
        writes: Arc<AtomicUsize>,
        bytes: Arc<AtomicUsize>,
        takes: Arc<AtomicUsize>,
    }

    impl Default for Counting {
        fn default() -> Self {
            let [writes, bytes] = [(); 2].map(|()| Arc::default());
            Self { writes, bytes, takes: Arc::new(AtomicUsize::new(usize::MAX)) }
        }
    }

    impl AsyncRead for Counting {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Counting {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            // Relaxed: numbers that order nothing. Likewise below.
            let takes = self.takes.load(Relaxed);
            let taken = bytes.len().min(takes);
            if taken == 0 {
                return Poll::Pending;
            }
            if takes != usize::MAX {
                self.takes.store(takes - taken, Relaxed);
            }
            self.writes.fetch_add(1, Relaxed);
            self.bytes.fetch_add(taken, Relaxed);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Socket for Counting {
        const LEAVES: bool = false;

        fn take_plain(&mut self) -> Plain {
            Plain::Gone
        }

        fn into_std(self) -> io::Result<TcpStream> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// A connection that writes what its streams give it, as h2 does.
    struct Frames {
        io: Http2Io<Counting>,
        frames: mpsc::UnboundedReceiver<[u8; 10]>,
    }

    impl Future for Frames {
        type Output = hyper::Result<()>;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
            loop {
                let Some(frame) = ready!(self.frames.poll_recv(context)) else { return Poll::Ready(Ok(())) };
                assert!(Pin::new(&mut self.io).poll_write(context, &frame).is_ready());
            }
        }
    }

    const STALLED_AFTER: Duration = Duration::from_millis(50);

    fn io(socket: &Counting) -> Http2Io<Counting> {
        let counters = Arc::new(ConnectionCounters::default());
        let meter = Meter::new(1000, crate::stream::Clock::default());
        let config = crate::server::Config { stalled_after: STALLED_AFTER, ..Default::default() };
        let patience = Patience::new(&config);
        let socket = Prefixed::new(socket.clone(), Bytes::new());
        Http2Io::new(socket, patience, meter, counters, Arc::default())
    }

    /// A client that takes what it is sent, and never all of it.
    #[tokio::test]
    async fn what_has_left_is_not_kept_until_all_has() {
        let (socket, mut context) = (Counting::default(), Context::from_waker(Waker::noop()));
        let mut io = io(&socket);
        socket.takes.store(0, Relaxed);
        for _ in 0..1000 {
            while Pin::new(&mut io).poll_write(&mut context, &[0; 8 << 10]).is_ready() {}
            socket.takes.store(40 << 10, Relaxed);
            let mut outbox = lock(&io.outbox);
            assert!(outbox.poll_send(&mut context).is_pending());
            assert!(outbox.bytes.len() <= COLLECTED + (8 << 10), "{} bytes", outbox.bytes.len());
            assert_eq!((outbox.sent, outbox.held.bytes()), (0, outbox.bytes.len()));
        }
        assert_eq!(socket.bytes.load(Relaxed), 1000 * (40 << 10));
    }

    #[tokio::test]
    async fn a_stalled_connection_is_counted_once() {
        let (socket, mut context) = (Counting::default(), Context::from_waker(Waker::noop()));
        let mut io = io(&socket);
        socket.takes.store(0, Relaxed);
        assert!(Pin::new(&mut io).poll_write(&mut context, &[0; 100]).is_ready());
        assert!(lock(&io.outbox).poll_send(&mut context).is_pending());
        tokio::time::sleep(2 * STALLED_AFTER).await;
        let mut outbox = lock(&io.outbox);
        for _ in 0..3 {
            assert!(matches!(outbox.poll_send(&mut context), Poll::Ready(Err(_))));
        }
        assert_eq!(outbox.counters.closed_stalled(), 1);
    }

    #[test]
    fn frames_of_many_streams_leave_in_few_writes() {
        // With one worker the order of the tasks is certain.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let socket = Counting::default();
        let (sender, frames) = mpsc::unbounded_channel();
        runtime.block_on(async {
            let io = io(&socket);
            let connection = tokio::spawn(io.coalesce(|io| Frames { io, frames }));
            let (published, waiting) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
            let streams: Vec<_> = (0..STREAMS)
                .map(|_| {
                    let (published, waiting, sender) = (published.clone(), waiting.clone(), sender.clone());
                    tokio::spawn(async move {
                        let mut published = std::pin::pin!(published.notified());
                        published.as_mut().enable();
                        waiting.fetch_add(1, Relaxed);
                        published.await;
                        sender.send([0; 10]).unwrap();
                    })
                })
                .collect();
            drop(sender);
            // Published by a task, as a handler does.
            tokio::spawn(async move {
                while waiting.load(Relaxed) < STREAMS {
                    tokio::task::yield_now().await;
                }
                published.notify_waiters();
            });
            for stream in streams {
                stream.await.unwrap();
            }
            connection.await.unwrap().unwrap();
        });
        assert_eq!(socket.bytes.load(Relaxed), 10 * STREAMS);
        let writes = socket.writes.load(Relaxed);
        // One by one they would be 200. A machine that is busy elsewhere may hold a worker up for QUIET now and then.
        assert!(writes <= STREAMS / 10, "{writes} writes");
    }

    #[test]
    fn a_connection_waits_while_more_comes_and_not_for_long() {
        let mut waiting = Waiting::new();
        assert!(!waiting.goes_on(0), "for nothing");
        assert!(waiting.goes_on(100) && !waiting.goes_on(100), "no more came");
        waiting.sent();
        assert!((1..=usize::from(PASSES)).all(|pass| waiting.goes_on(pass)));
        assert!(!waiting.goes_on(100), "too long");
        waiting.sent();
        assert!(waiting.goes_on(100) && !waiting.goes_on(ENOUGH), "enough came");
    }

    #[test]
    fn a_quiet_connection_sends_at_once() {
        let mut waiting = Waiting::new();
        waiting.sent = waiting.sent.checked_sub(QUIET).unwrap();
        assert!(!waiting.goes_on(100));
    }
}
