//! One HTTP/1.1 connection inside hyper, until it ends or its answer is a stream that leaves hyper.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::header::{CONNECTION, EXPECT, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Version};
use hyper::body::{Body, Incoming as RequestBody};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::accepted::Accepted;
use super::patience::Patience;
use super::plain::Socket;
use super::prefixed::Prefixed;
use super::state::ServerState;
use crate::handler::Handler;
use crate::server::config::Config;
use crate::server::metrics::connections::{CloseReason, ConnectionCounters};
use crate::server::request::answer::Answered;
use crate::server::request::body::{AnswerBody, Answering};
use crate::server::request::ends::Ends;
use crate::server::request::route;
use crate::server::writer::{Handed, Writer, write_head};
use crate::session::Connection;
use crate::sync::{Arc, AtomicBool, AtomicU32, Mutex, Ordering, lock};

/// The longest timeout: added to the present, it does not overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Serves a connection. `is_new`: it begins with a head, and not with a pause.
pub(super) async fn serve<H: Handler, S: Socket>(
    mut accepted: Accepted<H>,
    socket: Prefixed<S>,
    is_new: bool,
) {
    let state = accepted.state.clone();
    let endpoint = &state.endpoint;
    let (peer, ends) = (accepted.peer(), accepted.admitted.ends);
    let mut builder = http1::Builder::new();
    // `Http1Io` measures the time of a head, apart from the time between two requests.
    builder.header_read_timeout(None).max_buf_size(accepted.max_head_bytes()).half_close(false);
    let exchange = Exchange::default();
    let service = service_fn(|mut request: Request<RequestBody>| {
        exchange.begin();
        let (state, exchange) = (&state, &exchange);
        // Boxed: hyper keeps space of this future's size for as long as the connection lasts.
        Box::pin(async move {
            let answer = route::answer(endpoint, &mut request, peer).await;
            let is_read = is_read_to_its_end(&mut request);
            // hyper knows where the next request begins only after it has read all of this one.
            let movable = S::LEAVES && request.version() == Version::HTTP_11 && is_read;
            let keep_alive = keeps_alive(&request);
            let mut answer = if movable { exchange.pass(state, answer, keep_alive, ends)? } else { answer };
            exchange.end(answer.body_mut(), ends);
            if !is_read {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            if ends.has_come(endpoint.now()) {
                // Announced with an answer, so that no request is lost on its way.
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                state.gate.counters().count_closed(CloseReason::Age);
            }
            Ok::<_, Left>(answer)
        })
    });
    exchange.look(socket.has_unread());
    let io = Http1Io::new(socket, &exchange, &state, is_new);
    let mut connection = builder.serve_connection(TokioIo::new(io), service);
    // The first poll sees what was read already. If its answer leaves hyper, the runtime never registers the socket.
    let first = poll_fn(|context| Poll::Ready(Pin::new(&mut connection).poll(context))).await;
    exchange.look(false);
    let served = match first {
        Poll::Ready(served) => Some(served),
        Poll::Pending => {
            let drive = accepted.drive(Pin::new(&mut connection), std::future::pending(), |connection| {
                connection.graceful_shutdown();
                // hyper waits for the rest of a first head, and for the next one.
                // Relaxed: set by this same task.
                exchange.requests.load(Ordering::Relaxed) > 0
            });
            drive.await
        }
    };
    let Some(served) = served else { return };
    let parts = connection.into_parts();
    let mut socket = parts.io.into_inner().socket.unread(&parts.read_buf);
    drop((parts.read_buf, parts.service));
    let Some(leaving) = lock(&exchange.leaving).take() else {
        let has_answered = match served {
            Ok(()) => true,
            Err(error) => {
                tracing::trace!(%error, "a connection ended early");
                // hyper answers by itself what it cannot parse.
                error.is_parse()
            }
        };
        if has_answered {
            accepted.close(socket.take_plain()).await;
        }
        return;
    };
    let LeavingStream { head, connection, keep_alive } = leaving;
    match (socket.try_map(S::into_std), state.writer.get()) {
        (Ok(socket), Some(writer)) => {
            writer.hand_over(Handed { socket, head, connection, keep_alive, admitted: accepted.admitted });
        }
        (Err(error), _) => tracing::warn!(%error, "cannot deregister a socket from the runtime"),
        (Ok(_), None) => {}
    }
}

/// Whether the request's body has been read to its end. What arrived with the head and was not used is dropped.
fn is_read_to_its_end(request: &mut Request<RequestBody>) -> bool {
    if request.body().is_end_stream() {
        return true;
    }
    if request.headers().contains_key(EXPECT) {
        // Polling the body would send `100 Continue`, which the client waits for.
        return false;
    }
    let mut context = Context::from_waker(Waker::noop());
    let mut body = Pin::new(request.body_mut());
    loop {
        match body.as_mut().poll_frame(&mut context) {
            Poll::Ready(Some(Ok(_dropped))) if body.is_end_stream() => return true,
            Poll::Ready(Some(Ok(_dropped))) => {}
            // The end of a chunked body is known only once it was read.
            Poll::Ready(None) => return true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => return false,
        }
    }
}

/// State that the service of one connection shares with the future that drives it. Both are in one task: the atomics
/// and the mutex are there because hyper wants the future to be `Send`, and are never contended.
#[derive(Default)]
struct Exchange {
    /// Requests that were read.
    requests: AtomicU32,
    /// A request is being answered. Shared with the body of an answer inside hyper.
    answering: Arc<AtomicBool>,
    /// Only what was read before is read.
    first_look: AtomicBool,
    /// hyper wrote something that may not have been sent yet.
    unsent: AtomicBool,
    /// The stream for which the connection leaves hyper.
    leaving: Mutex<Option<LeavingStream>>,
}

struct LeavingStream {
    head: Vec<u8>,
    connection: Connection,
    keep_alive: bool,
}

/// The error with which the service stops hyper, because the answer is written elsewhere.
#[derive(Debug)]
struct Left;

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stream is written without hyper")
    }
}

impl std::error::Error for Left {}

impl Exchange {
    /// Notes that a request was read.
    fn begin(&self) {
        // Relaxed: read by this same task. Likewise below.
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.answering.store(true, Ordering::Relaxed);
    }

    /// Whether this is the first poll, which sees only what was read before.
    fn look(&self, is_first: bool) {
        self.first_look.store(is_first, Ordering::Relaxed);
    }

    fn is_answering(&self) -> bool {
        self.answering.load(Ordering::Relaxed)
    }

    /// Notes that the answer is ready. A stream ends when it is dropped; whether other answers were sent, the socket
    /// reports.
    fn end<H>(&self, answer: &mut AnswerBody<H>, ends: Ends) {
        match answer {
            AnswerBody::Stream(stream) => stream.stay(ends, Some(Answering::new(&self.answering))),
            AnswerBody::Bytes(_) => self.answering.store(false, Ordering::Relaxed),
        }
    }

    /// Takes a stream that stays open out of hyper; returns every other answer.
    fn pass<H: Handler>(
        &self,
        state: &ServerState<H>,
        mut answer: Answered<H>,
        keep_alive: bool,
        ends: Ends,
    ) -> Result<Answered<H>, Left> {
        let goes_on = matches!(answer.body(), AnswerBody::Stream(stream)
            if !stream.connection().is_short() && !stream.is_recorded());
        // hyper may still hold part of an earlier answer, which would be lost.
        // Relaxed: set by this same task.
        let unsent = self.unsent.load(Ordering::Relaxed);
        let endpoint = &state.endpoint;
        let is_written = state.writer.get().is_some_and(Writer::is_alive);
        if !goes_on || unsent || !is_written || endpoint.is_draining() {
            return Ok(answer);
        }
        match std::mem::replace(answer.body_mut(), AnswerBody::empty()) {
            AnswerBody::Stream(stream) => {
                let keep_alive = keep_alive && !ends.has_come(endpoint.now());
                let head = write_head(&answer, keep_alive);
                let leaving = LeavingStream { head, connection: stream.into_connection(), keep_alive };
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
    // requires that its connection is closed. hyper removes the length; so after chunks the connection is not used
    // again.
    !request.headers().contains_key(TRANSFER_ENCODING)
        && !request.headers().get_all(CONNECTION).iter().any(close)
}

/// The socket as hyper sees it: it begins with what was read before, knows whether everything written was sent, and
/// fails when the client reads nothing for too long, or sends nothing where a request is due.
struct Http1Io<'a, S> {
    socket: Prefixed<S>,
    exchange: &'a Exchange,
    config: &'a Config,
    patience: Patience,
    counters: &'a ConnectionCounters,
    /// Runs while the socket is full.
    stall: Option<Pin<Box<Sleep>>>,
    /// Runs while a request is due.
    turn: Option<Pin<Box<Sleep>>>,
    /// The timer was set for the current wait.
    is_timed: bool,
    /// A head was read in part.
    in_head: bool,
    /// Requests that were read at the last check.
    requests: u32,
}

impl<'a, S: Socket> Http1Io<'a, S> {
    fn new<H: Handler>(
        socket: Prefixed<S>,
        exchange: &'a Exchange,
        state: &'a ServerState<H>,
        is_new: bool,
    ) -> Self {
        Self {
            socket,
            exchange,
            config: &state.endpoint.config,
            patience: state.patience,
            counters: state.gate.counters(),
            stall: None,
            turn: None,
            is_timed: false,
            in_head: is_new,
            requests: 0,
        }
    }

    fn note_unsent(&self, unsent: bool) {
        // Relaxed: read by this same task.
        self.exchange.unsent.store(unsent, Ordering::Relaxed);
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
        let patience = self.patience;
        let stall = self.stall.get_or_insert_with(|| patience.timer());
        ready!(stall.as_mut().poll(context));
        self.counters.count_closed(CloseReason::Stalled);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Called when the socket has nothing to read. An error if a request is due and the time is up.
    fn watch_turn(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Relaxed: set by this same task.
        if self.exchange.is_answering() || self.exchange.unsent.load(Ordering::Relaxed) {
            // hyper does not read again by itself once the answer was sent. This timer makes it, and the client's
            // time begins then.
            self.is_timed = false;
            let idle = self.config.connections.idle;
            let again = || Instant::now() + idle.min(LONGEST);
            let turn = self.turn.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(again())));
            while turn.as_mut().poll(context).is_ready() {
                turn.as_mut().reset(again());
            }
            return Poll::Pending;
        }
        if !self.is_timed {
            self.is_timed = true;
            let within = if self.in_head { self.config.read_timeout } else { self.config.connections.idle };
            let deadline = Instant::now() + within.min(LONGEST);
            match &mut self.turn {
                Some(turn) => turn.as_mut().reset(deadline),
                None => self.turn = Some(Box::pin(tokio::time::sleep_until(deadline))),
            }
        }
        let Some(turn) = &mut self.turn else { return Poll::Pending };
        ready!(turn.as_mut().poll(context));
        self.counters.count_closed(if self.in_head { CloseReason::Deadline } else { CloseReason::Idle });
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: Socket> AsyncRead for Http1Io<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Relaxed: set by this same task.
        let requests = self.exchange.requests.load(Ordering::Relaxed);
        if requests != self.requests {
            (self.requests, self.in_head, self.is_timed) = (requests, false, false);
        }
        if self.exchange.first_look.load(Ordering::Relaxed) && !self.socket.has_unread() {
            // There is another poll right after this one.
            return Poll::Pending;
        }
        if Pin::new(&mut self.socket).poll_read(context, buffer)?.is_pending() {
            return self.watch_turn(context);
        }
        // Most heads arrive whole and need no timer. For others the time begins with the first bytes.
        if !self.in_head && !self.exchange.is_answering() {
            self.in_head = true;
            self.is_timed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> AsyncWrite for Http1Io<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.note_unsent(true);
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.watch_stall(written, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes once its own buffer is empty.
        self.note_unsent(false);
        let flushed = Pin::new(&mut self.socket).poll_flush(context);
        self.watch_stall(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.socket).poll_shutdown(context);
        self.watch_stall(shut, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.note_unsent(true);
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.watch_stall(written, context)
    }
}
