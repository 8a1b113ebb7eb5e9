//! One HTTP/1.1 connection inside hyper, until it ends or its answer is a stream that goes on without hyper.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Version};
use hyper::body::{Body, Incoming as RequestBody};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::body::{AnswerBody, Answering};
use super::gate::{Closed, ConnectionCounters, Ends};
use super::route::{self, Answered};
use super::serve::{Guest, Socket, max_head};
use super::writer::{Handed, write_head};
use super::{Config, Endpoint};
use crate::handler::Handler;
use crate::session::Connection;
use crate::sync::{Arc, AtomicBool, AtomicU32, Mutex, Ordering, lock};

/// Serves a connection that `unread` was read from already. `is_new`: it begins with a head, and not with a pause.
pub(super) async fn serve<H: Handler, S: Socket>(
    mut guest: Guest<H>,
    stream: S,
    unread: Bytes,
    is_new: bool,
) {
    let endpoint = guest.endpoint.clone();
    let (config, address, ends) = (&endpoint.config, guest.address, guest.visit.ends);
    let mut builder = http1::Builder::new();
    // The time a head may take is measured in `Io`, which tells it from the time between two requests.
    builder.header_read_timeout(None).max_buf_size(max_head(config)).half_close(false);
    let desk = Desk::default();
    let service = service_fn(|mut request: Request<RequestBody>| {
        desk.begin();
        let (endpoint, desk) = (&endpoint, &desk);
        let (movable, keep_alive) = (S::LEAVES && Desk::is_movable(&request), keeps_alive(&request));
        async move {
            let answer = route::answer(endpoint, &mut request, address).await;
            let mut answer = if movable { desk.pass(endpoint, answer, keep_alive, ends)? } else { answer };
            desk.end(answer.body_mut(), ends);
            if ends.has_come(endpoint.now()) {
                // Said with an answer, it costs nobody a request that was on its way.
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                endpoint.gate.counters().count_closed(Closed::Age);
            }
            Ok::<_, Left>(answer)
        }
    });
    desk.look(!unread.is_empty());
    let io = Io::new(stream, unread, &desk, config, endpoint.gate.counters(), is_new);
    let mut connection = builder.serve_connection(TokioIo::new(io), service);
    // The first look is at what was read already. If its answer leaves hyper, the runtime need not know the socket.
    let first = poll_fn(|context| Poll::Ready(Pin::new(&mut connection).poll(context))).await;
    desk.look(false);
    let served = match first {
        Poll::Ready(served) => Some(served),
        Poll::Pending => {
            let drive = guest.drive(Pin::new(&mut connection), std::future::pending(), |connection| {
                connection.graceful_shutdown();
                // hyper waits for the rest of a first head, and for a head that was not begun.
                // Relaxed: set by this same task.
                desk.requests.load(Ordering::Relaxed) > 0
            });
            drive.await
        }
    };
    let Some(Err(error)) = served else { return };
    let Some(leaving) = lock(&desk.leaving).take() else {
        tracing::trace!(%error, "a connection ended early");
        return;
    };
    let parts = connection.into_parts();
    let Leaving { head, connection, keep_alive } = leaving;
    match (parts.io.into_inner().stream.into_std(), endpoint.writer.get()) {
        (Ok(socket), Some(writer)) => {
            let (unread, visit) = (parts.read_buf, guest.visit);
            writer.hand_over(Handed { socket, unread, head, connection, keep_alive, visit });
        }
        (Err(error), _) => tracing::warn!(%error, "cannot take a socket out of the runtime"),
        (Ok(_), None) => {}
    }
}

/// What the service of one connection shares with whoever drives it. All within one task: the atomics and the
/// mutex are there because hyper wants the future to be `Send`, and are never contended.
#[derive(Default)]
struct Desk {
    /// Requests that were read.
    requests: AtomicU32,
    /// A request is being answered. Shared with the body of an answer that stays inside hyper.
    answering: Arc<AtomicBool>,
    /// Nothing is read but what was read before.
    first_look: AtomicBool,
    /// hyper wrote something that may not have left yet.
    unsent: AtomicBool,
    /// The stream for which the connection is about to leave hyper.
    leaving: Mutex<Option<Leaving>>,
}

struct Leaving {
    head: Vec<u8>,
    connection: Connection,
    keep_alive: bool,
}

/// The service's way to tell hyper to stop, because the answer is written elsewhere.
#[derive(Debug)]
struct Left;

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stream is written without hyper")
    }
}

impl std::error::Error for Left {}

impl Desk {
    /// Notes that a request was read.
    fn begin(&self) {
        // Relaxed: read by this same task. Likewise below.
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.answering.store(true, Ordering::Relaxed);
    }

    /// Whether this is the look at what was read before.
    fn look(&self, is_first: bool) {
        self.first_look.store(is_first, Ordering::Relaxed);
    }

    fn is_answering(&self) -> bool {
        self.answering.load(Ordering::Relaxed)
    }

    /// Notes that the answer is there: it is over when it is written, or, if it is a stream, when that is dropped.
    fn end<H>(&self, answer: &mut AnswerBody<H>, ends: Ends) {
        match answer {
            AnswerBody::Stream(stream) => stream.stay(ends, Some(Answering::new(&self.answering))),
            AnswerBody::Bytes(_) => self.answering.store(false, Ordering::Relaxed),
        }
    }

    /// Whether a stream in answer to `request` may leave hyper: chunks must be understood, and nothing of the
    /// request's body be left to read.
    fn is_movable(request: &Request<RequestBody>) -> bool {
        request.version() == Version::HTTP_11
            && (*request.method() == Method::POST || request.body().is_end_stream())
    }

    /// Takes a stream that goes on for a while out of hyper; gives every other answer back.
    fn pass<H: Handler>(
        &self,
        endpoint: &Endpoint<H>,
        mut answer: Answered<H>,
        keep_alive: bool,
        ends: Ends,
    ) -> Result<Answered<H>, Left> {
        let goes_on = matches!(answer.body(), AnswerBody::Stream(stream) if !stream.connection().is_short());
        // What hyper still holds of an earlier answer would be lost with it.
        // Relaxed: set by this same task.
        let unsent = self.unsent.load(Ordering::Relaxed);
        if !goes_on || unsent || endpoint.writer.get().is_none() || endpoint.is_draining() {
            return Ok(answer);
        }
        match std::mem::replace(answer.body_mut(), AnswerBody::empty()) {
            AnswerBody::Stream(stream) => {
                let keep_alive = keep_alive && !ends.has_come(endpoint.now());
                let head = write_head(&answer, keep_alive);
                let leaving = Leaving { head, connection: stream.into_connection(), keep_alive };
                *lock(&self.leaving) = Some(leaving);
                Err(Left)
            }
            body @ AnswerBody::Bytes(_) => {
                *answer.body_mut() = body;
                Ok(answer)
            }
        }
    }
}

/// Whether the client may send another request on the connection.
fn keeps_alive(request: &Request<RequestBody>) -> bool {
    let close = |value: &HeaderValue| {
        value
            .to_str()
            .is_ok_and(|value| value.split(',').any(|option| option.trim().eq_ignore_ascii_case("close")))
    };
    // A request with both framings, a length and chunks, may be read differently by a proxy before us: RFC 9112, 6.1
    // has its connection closed. hyper knows, and takes the length away; so after chunks the connection is not used
    // again.
    !request.headers().contains_key(TRANSFER_ENCODING)
        && !request.headers().get_all(CONNECTION).iter().any(close)
}

/// A socket as hyper sees it: begins with what was read before, tells whether everything written has left, and
/// breaks when the client takes nothing for too long, or sends nothing where it is its turn.
struct Io<'a, S> {
    stream: S,
    unread: Bytes,
    desk: &'a Desk,
    config: &'a Config,
    counters: &'a ConnectionCounters,
    /// Runs while the socket takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
    /// Runs while it is the client's turn.
    turn: Option<Pin<Box<Sleep>>>,
    /// That timer was set for what is waited for now.
    is_timed: bool,
    /// A part of a head was read, and not the whole.
    in_head: bool,
    /// Requests that were read when this was last looked at.
    requests: u32,
}

impl<'a, S: Socket> Io<'a, S> {
    fn new(
        stream: S,
        unread: Bytes,
        desk: &'a Desk,
        config: &'a Config,
        counters: &'a ConnectionCounters,
        is_new: bool,
    ) -> Self {
        Self {
            stream,
            unread,
            desk,
            config,
            counters,
            stall: None,
            turn: None,
            is_timed: false,
            in_head: is_new,
            requests: 0,
        }
    }

    fn note_unsent(&self, unsent: bool) {
        // Relaxed: read by this same task.
        self.desk.unsent.store(unsent, Ordering::Relaxed);
    }

    fn watch_stall<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let stalled_after = self.config.stalled_after;
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(stalled_after)));
        ready!(stall.as_mut().poll(context));
        self.counters.count_closed(Closed::Stalled);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// The socket has nothing to read. An error if it is the client's turn and its time is up.
    fn watch_turn(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.desk.is_answering() {
            // The timer stays for the next request; that it runs out meanwhile is of no account.
            return Poll::Pending;
        }
        if !self.is_timed {
            self.is_timed = true;
            let within = if self.in_head { self.config.read_timeout } else { self.config.connections.idle };
            let deadline = Instant::now() + within;
            match &mut self.turn {
                Some(turn) => turn.as_mut().reset(deadline),
                None => self.turn = Some(Box::pin(tokio::time::sleep_until(deadline))),
            }
        }
        let Some(turn) = &mut self.turn else { return Poll::Pending };
        ready!(turn.as_mut().poll(context));
        self.counters.count_closed(if self.in_head { Closed::Deadline } else { Closed::Idle });
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: Socket> AsyncRead for Io<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Relaxed: set by this same task.
        let requests = self.desk.requests.load(Ordering::Relaxed);
        if requests != self.requests {
            (self.requests, self.in_head, self.is_timed) = (requests, false, false);
        }
        if !self.unread.is_empty() {
            let count = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(count));
        } else if self.desk.first_look.load(Ordering::Relaxed) {
            // There is another look right after this one.
            return Poll::Pending;
        } else if Pin::new(&mut self.stream).poll_read(context, buffer)?.is_pending() {
            return self.watch_turn(context);
        }
        // Most heads come whole, and cost no timer. One that does not has its time from its first bytes.
        if !self.in_head && !self.desk.is_answering() {
            self.in_head = true;
            self.is_timed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> AsyncWrite for Io<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.note_unsent(true);
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch_stall(written, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes once its own buffer is empty.
        self.note_unsent(false);
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch_stall(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch_stall(shut, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.note_unsent(true);
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch_stall(written, context)
    }
}
