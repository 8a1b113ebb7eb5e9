//! One connection, from its first byte to its last or to its hand-over.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{Method, Request, Version};
use hyper::body::{Body, Incoming as RequestBody};
use hyper::rt::ReadBufCursor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Sleep;

use super::body::AnswerBody;
use super::route::{self, Answered};
use super::writer::{Handed, write_head};
use super::{Config, Endpoint, outbox};
use crate::handler::Handler;
use crate::session::Connection;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, lock};

/// How a client with prior knowledge of HTTP/2 begins.
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What connections are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Serving,
    /// Take no further request.
    Draining,
    /// End, whatever is in flight.
    CutOff,
}

/// How a connection comes here.
pub(super) enum Opening {
    /// It was just accepted.
    New,
    /// Its last answer was a stream; this is what the client sent meanwhile.
    Again(Bytes),
}

/// Serves one connection to its end, or hands it over.
pub(super) async fn serve<H: Handler>(
    endpoint: Arc<Endpoint<H>>,
    stream: TcpStream,
    opening: Opening,
    mut stage: watch::Receiver<Stage>,
) {
    let (is_http2, unread) = match opening {
        Opening::Again(unread) => (false, unread),
        Opening::New => {
            let first = tokio::time::timeout(endpoint.config.read_timeout, first_bytes(&stream));
            let first = tokio::select! {
                first = first => match first {
                    Ok(Ok(first)) if !first.is_empty() => first,
                    Ok(Ok(_) | Err(_)) | Err(_) => return,
                },
                // Nothing is in flight on a connection that said nothing yet.
                () = reaches(&mut stage, Stage::Draining) => return,
            };
            (first.starts_with(HTTP2_PREFACE), first)
        }
    };
    if is_http2 {
        serve_http2(endpoint, stream, unread, &mut stage).await;
    } else {
        serve_http1(endpoint, stream, unread, &mut stage).await;
    }
}

/// Reads what the client begins with: enough to tell the versions of HTTP apart. Empty if it went away.
async fn first_bytes(stream: &TcpStream) -> io::Result<Bytes> {
    let mut first = Bytes::new();
    loop {
        stream.readable().await?;
        match read_some(stream, &first) {
            Ok(more) if more.len() == first.len() => return Ok(Bytes::new()),
            Ok(more) => first = more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        // Only a client that begins like HTTP/2 and stops is read from again.
        if !HTTP2_PREFACE.starts_with(&first) || first.len() == HTTP2_PREFACE.len() {
            return Ok(first);
        }
    }
}

/// What was read before, and what is there now.
fn read_some(stream: &TcpStream, before: &[u8]) -> io::Result<Bytes> {
    let mut buffer = [0; 2048];
    buffer[..before.len()].copy_from_slice(before);
    let count = stream.try_read(&mut buffer[before.len()..])?;
    Ok(Bytes::copy_from_slice(&buffer[..before.len() + count]))
}

/// Waits until the server has come to `wanted`, or beyond.
async fn reaches(stage: &mut watch::Receiver<Stage>, wanted: Stage) {
    // An error means that nobody tells any more: the server is gone, and with it everything it waited for.
    let _ = stage.wait_for(|stage| *stage as u8 >= wanted as u8).await;
}

/// Drives a connection to its end. When the drain begins, `wind_down` asks it to take no further request, or
/// says that nothing is in flight. `None` if the connection was given up.
async fn drive<C: Future>(
    mut connection: Pin<&mut C>,
    stage: &mut watch::Receiver<Stage>,
    wind_down: impl FnOnce(Pin<&mut C>) -> bool,
) -> Option<C::Output> {
    tokio::select! {
        served = connection.as_mut() => return Some(served),
        () = reaches(stage, Stage::Draining) => {}
    }
    if !wind_down(connection.as_mut()) {
        return None;
    }
    tokio::select! {
        served = connection => Some(served),
        () = reaches(stage, Stage::CutOff) => None,
    }
}

/// Beyond this hyper refuses a head by itself.
fn max_head(config: &Config) -> usize {
    config.max_header_bytes.saturating_mul(4).max(16 << 10)
}

async fn serve_http2<H: Handler>(
    endpoint: Arc<Endpoint<H>>,
    stream: TcpStream,
    unread: Bytes,
    stage: &mut watch::Receiver<Stage>,
) {
    // A socket that has no other side by now brings no request either.
    let Ok(address) = stream.peer_addr().map(|peer| peer.ip()) else { return };
    let config = &endpoint.config;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_http2_streams)
        .max_header_list_size(u32::try_from(max_head(config)).unwrap_or(u32::MAX))
        .keep_alive_interval(config.keep_alive);
    let serving = endpoint.clone();
    let service = service_fn(move |mut request: Request<RequestBody>| {
        let endpoint = serving.clone();
        async move { Ok::<_, Infallible>(route::answer(&endpoint, &mut request, address).await) }
    });
    let io = outbox::Io::new(stream, unread, config.stalled_after);
    let connection = pin!(io.coalesce(|io| builder.serve_connection(io, service)));
    let served = drive(connection, stage, |mut connection| {
        connection.connection().graceful_shutdown();
        true
    })
    .await;
    if let Some(Err(error)) = served {
        tracing::trace!(%error, "a connection ended early");
    }
}

async fn serve_http1<H: Handler>(
    endpoint: Arc<Endpoint<H>>,
    stream: TcpStream,
    unread: Bytes,
    stage: &mut watch::Receiver<Stage>,
) {
    // A socket that has no other side by now brings no request either.
    let Ok(address) = stream.peer_addr().map(|peer| peer.ip()) else { return };
    let config = &endpoint.config;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(config.read_timeout)
        .max_buf_size(max_head(config))
        .half_close(false);
    let desk = Desk::default();
    let service = service_fn(|mut request: Request<RequestBody>| {
        // Relaxed: read by this same task.
        desk.begun.store(true, Ordering::Relaxed);
        let (endpoint, desk) = (&endpoint, &desk);
        let (movable, keep_alive) = (Desk::is_movable(&request), keeps_alive(&request));
        async move {
            let answer = route::answer(endpoint, &mut request, address).await;
            if movable { desk.pass(endpoint, answer, keep_alive) } else { Ok(answer) }
        }
    });
    let io = Io::new(stream, unread, &desk.unsent, config);
    let mut connection = builder.serve_connection(io, service);
    let served = drive(Pin::new(&mut connection), stage, |connection| {
        connection.graceful_shutdown();
        // hyper waits for the rest of a first head, and for a head that was not begun.
        // Relaxed: set by this same task.
        desk.begun.load(Ordering::Relaxed)
    })
    .await;
    let Some(Err(error)) = served else { return };
    let Some(leaving) = lock(&desk.leaving).take() else {
        tracing::trace!(%error, "a connection ended early");
        return;
    };
    let parts = connection.into_parts();
    let Leaving { head, connection, keep_alive } = leaving;
    match (parts.io.stream.into_inner().into_std(), endpoint.writer.get()) {
        (Ok(socket), Some(writer)) => {
            writer.hand_over(Handed { socket, unread: parts.read_buf, head, connection, keep_alive });
        }
        (Err(error), _) => tracing::warn!(%error, "cannot take a socket out of the runtime"),
        (Ok(_), None) => {}
    }
}

/// What the service of one HTTP/1.1 connection shares with whoever drives it. All within one task: the
/// atomics and the mutex are there because hyper wants the future to be `Send`, and are never contended.
#[derive(Default)]
struct Desk {
    /// A request was read.
    begun: AtomicBool,
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
    let close = |value: &http::HeaderValue| {
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
/// breaks when the client takes nothing for too long.
struct Io<'a> {
    stream: TokioIo<TcpStream>,
    unread: Bytes,
    unsent: &'a AtomicBool,
    stalled_after: Duration,
    /// Runs while the socket takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
}

impl<'a> Io<'a> {
    fn new(stream: TcpStream, unread: Bytes, unsent: &'a AtomicBool, config: &Config) -> Self {
        let stream = TokioIo::new(stream);
        Self { stream, unread, unsent, stalled_after: config.stalled_after, stall: None }
    }

    fn note_unsent(&self, unsent: bool) {
        // Relaxed: read by this same task.
        self.unsent.store(unsent, Ordering::Relaxed);
    }

    fn watch_stall(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.stalled_after)));
        stall.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl hyper::rt::Read for Io<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io<'_> {
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
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
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
