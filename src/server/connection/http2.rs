//! One HTTP/2 connection inside hyper.
//!
//! # Stalled streams
//!
//! A client may read its connection and give one of its streams no window. hyper then keeps what the stream would
//! send next, and does not poll the body; so the body cannot notice. Each stream's task is therefore
//! [`Watched`]: after each poll it is known whether the body had nothing to give, or gave something that hyper
//! could not pass on. A task that stays so for [`Config::stalled_after`](crate::server::Config::stalled_after) is
//! dropped, which resets the stream. Bodies are sent in pieces of at most 16 KiB, so that a client that reads that much
//! a minute is not stalled, and their last piece is small: h2 takes it without a window, and keeps it until there is
//! one.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming as RequestBody;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;

use super::accepted::{Accepted, sleep};
use super::meter::Meter;
use super::plain::Socket;
use super::prefixed::Prefixed;
use super::state::ServerState;
use super::{linger, outbox};
use crate::handler::Handler;
use crate::server::metrics::connections::CloseReason;
use crate::server::request::body::AnswerBody;
use crate::server::request::keep_alive::{Beat, Turn};
use crate::server::request::route;
use crate::session::PieceBuf;
use crate::stream::Moment;
use crate::sync::{Arc, AtomicU32, AtomicUsize, Ordering};
use crate::wake::hold::{Hold, Holds};

/// Largest piece of a body, in bytes.
const PIECE: usize = 16 << 10;
/// Largest last piece of a body, in bytes.
const LAST_PIECE: usize = 1 << 10;
/// Limit of pending streams that the client has reset; beyond it, the connection ends.
const RESET_UNSEEN: usize = 100;
/// Limit of streams that were reset for a protocol error; beyond it, the connection ends.
const RESET_FOR_FAULTS: usize = 1024;

/// Serves a connection.
pub(super) async fn serve<H: Handler, S: Socket>(mut accepted: Accepted<H>, socket: Prefixed<S>) {
    let state = accepted.state.clone();
    let endpoint = &state.endpoint;
    let config = &endpoint.config;
    let streams =
        Arc::new(Streams { state: state.clone(), open: AtomicUsize::new(0), opened: AtomicU32::new(0) });
    let mut builder = http2::Builder::new(Tasks(streams.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_http2_streams)
        .max_header_list_size(u32::try_from(accepted.max_head_bytes()).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESET_UNSEEN)
        .max_local_error_reset_streams(RESET_FOR_FAULTS)
        .keep_alive_interval(config.keep_alive);
    let (serving, peer, ends) = (state.clone(), accepted.peer(), accepted.admitted.ends);
    let holds = Arc::<Holds>::default();
    let answering = holds.clone();
    let service = service_fn(move |mut request: Request<RequestBody>| {
        let (state, answering) = (serving.clone(), answering.clone());
        // Boxed, so that the task of a stream does not keep the size of this future, which ends with the head.
        Box::pin(async move {
            let mut answer = route::answer(&state.endpoint, &mut request, peer).await;
            if let AnswerBody::Stream(stream) = answer.body_mut() {
                stream.stay(ends, None);
            }
            if !request.body().is_end_stream() {
                linger::drop_body(request.into_body(), state.gate.lingers());
            }
            if answer.size_hint().upper().is_some_and(|bytes| bytes <= PIECE as u64) {
                ANSWERING.set(Some(answering.hold()));
            }
            Ok::<_, Infallible>(answer.map(Pieces::new))
        })
    });
    let meter = Meter::new(config.connections.max_http2_control_rate, endpoint.sessions.clock().clone());
    let counters = state.gate.counters().clone();
    let io = outbox::Http2Io::new(socket, state.patience, meter, counters, holds);
    let mut connection = pin!(io.coalesce(|io| builder.serve_connection(TokioIo::new(io), service)));
    let left = accepted.admitted.ends.after(endpoint.now());
    let over = async {
        tokio::select! {
            () = sleep(left) => {
                state.gate.counters().count_closed(CloseReason::Age);
                None
            }
            () = streams.idle() => {
                state.gate.counters().count_closed(CloseReason::Idle);
                Some(state.patience.at_the_end())
            }
        }
    };
    let served = accepted
        .drive(connection.as_mut(), over, |mut connection| {
            connection.connection().graceful_shutdown();
            true
        })
        .await;
    match served {
        Some(Ok(())) => accepted.close(connection.take_socket()).await,
        Some(Err(error)) => tracing::trace!(%error, "a connection ended early"),
        None => {}
    }
}

/// The tasks of one connection, one for each stream.
struct Streams<H> {
    state: Arc<ServerState<H>>,
    /// Number of open tasks.
    open: AtomicUsize,
    /// Number of tasks started so far; wraps.
    opened: AtomicU32,
}

impl<H: Handler> Streams<H> {
    /// Resolves after one to two times `idle` without a stream.
    async fn idle(&self) {
        let mut seen = None;
        loop {
            tokio::time::sleep(self.state.endpoint.config.connections.idle).await;
            // Relaxed: counters that order nothing.
            let opened = self.opened.load(Ordering::Relaxed);
            if self.open.load(Ordering::Relaxed) == 0 && seen == Some(opened) {
                return;
            }
            seen = Some(opened);
        }
    }
}

/// Starts the tasks of streams for hyper.
struct Tasks<H>(Arc<Streams<H>>);

impl<H> Clone for Tasks<H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<H: Handler, F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks<H> {
    fn execute(&self, task: F) {
        // Relaxed: see `Streams::idle`.
        self.0.open.fetch_add(1, Ordering::Relaxed);
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        let streams = self.0.clone();
        tokio::spawn(Watched { streams, task, gives: Gives::Nothing, watch: None });
    }
}

/// What a body last gave hyper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gives {
    /// Nothing, or there is no body yet.
    Nothing,
    /// A piece, which hyper passes on as far as the window allows.
    Something,
}

thread_local! {
    /// What the body of the task that this thread polls gave during this poll; `None` if hyper did not poll it.
    static GAVE: Cell<Option<Gives>> = const { Cell::new(None) };
    /// Holds the connection back from the head of a short answer to the end of the poll that gave it.
    static ANSWERING: Cell<Option<Hold>> = const { Cell::new(None) };
}

/// Ends the poll of a task, also one that panics.
struct EndOfLook;

impl Drop for EndOfLook {
    fn drop(&mut self) {
        drop(ANSWERING.take());
    }
}

pin_project! {
    /// The task of one stream.
    struct Watched<H, F> {
        streams: Arc<Streams<H>>,
        #[pin]
        task: F,
        gives: Gives,
        // Its entry in the timer of rounds, from the first time that it waited for a window; and
        // when the current wait began.
        watch: Option<(Beat, Moment)>,
    }

    impl<H, F> PinnedDrop for Watched<H, F> {
        fn drop(this: Pin<&mut Self>) {
            // Relaxed: see `Streams::idle`.
            this.streams.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<H: Handler, F: Future> Future for Watched<H, F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let _end = EndOfLook;
        GAVE.set(None);
        if this.task.poll(context).is_ready() {
            return Poll::Ready(());
        }
        let gave = GAVE.take();
        *this.gives = gave.unwrap_or(*this.gives);
        if *this.gives == Gives::Nothing {
            *this.watch = None;
            return Poll::Pending;
        }
        let state = &this.streams.state;
        let (endpoint, keep_alive) = (&state.endpoint, &state.endpoint.keep_alive);
        let (beat, since) = this.watch.get_or_insert_with(|| (keep_alive.join(), endpoint.now()));
        if gave.is_some() {
            *since = endpoint.now();
        }
        if beat.turn(keep_alive, context) != Turn::Same {
            let is_short = endpoint.sessions.is_short_of_memory();
            if state.patience.is_over(*since, endpoint.now(), is_short) {
                state.gate.counters().count_closed(CloseReason::Stalled);
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

/// A body that gives pieces, and notes what it gives.
struct Pieces<H> {
    body: AnswerBody<H>,
    /// The rest of a larger piece.
    rest: Option<PieceBuf>,
}

impl<H> Pieces<H> {
    fn new(body: AnswerBody<H>) -> Self {
        Self { body, rest: None }
    }
}

impl<H: Handler> Body for Pieces<H> {
    type Data = PieceBuf;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<PieceBuf>, Infallible>>> {
        let this = self.get_mut();
        GAVE.set(Some(Gives::Nothing));
        let mut whole = match this.rest.take() {
            Some(rest) => rest,
            None => match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            },
        };
        GAVE.set(Some(Gives::Something));
        let length = whole.remaining();
        let fits = length <= LAST_PIECE || length <= PIECE && !this.body.is_end_stream();
        let piece = if fits {
            whole
        } else {
            let piece = whole.copy_to_bytes(PIECE.min(length - LAST_PIECE));
            this.rest = Some(whole);
            PieceBuf::Control(piece)
        };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
