//! Plain hyper: a body for each stream, and fixed answers to calls. No sessions, no checks.
//!
//! ```text
//! server hyper --listen ADDR --admin ADDR [--sessions] [--h2]
//! ```
//!
//! Streams are fed by one broadcast channel, and with `--sessions` by a channel each, numbered in the order in
//! which they are opened. It keeps the latest events that went to all, for `Last-Event-ID`. `POST /mcp` gets a
//! JSON answer, `POST /sse` an event stream of one event. With `--h2` it speaks HTTP/2 only.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::arguments::{Arguments, listen};
use crate::{feed, wire};
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::{broadcast, mpsc};

type Events = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;
type Body = Either<StreamBody<Events>, Full<Bytes>>;

/// Events kept for replay, and that a slow reader may be behind.
const RETAINED: usize = 256;

/// The channel of one stream, and the position of what went into it last.
type OwnChannel = (mpsc::UnboundedSender<Bytes>, u64);

struct Hub {
    live: broadcast::Sender<Bytes>,
    retained: Mutex<VecDeque<(u64, Bytes)>>,
    /// With `--sessions`: each stream's channel, and its position.
    streams: Option<Mutex<Vec<OwnChannel>>>,
    calls: AtomicU64,
    result: Bytes,
}

pub(super) async fn run(arguments: &Arguments) -> io::Result<()> {
    let hub = Arc::new(Hub {
        live: broadcast::Sender::new(RETAINED),
        retained: Mutex::default(),
        streams: arguments.has("--sessions").then(Mutex::default),
        calls: AtomicU64::new(0),
        result: format!(r#"{{"jsonrpc":"2.0","id":1000000000,"result":{}}}"#, wire::CALL_RESULT).into(),
    });
    let feeding = hub.clone();
    let publish = move |target: &str, message: &str| feeding.publish(target, message);
    tokio::spawn(feed::serve(listen(arguments.admin)?, publish));
    let listener = listen(arguments.listen)?;
    let is_h2 = arguments.has("--h2");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let hub = hub.clone();
        let service = service_fn(move |request| answer(request, hub.clone()));
        let io = TokioIo::new(stream);
        if is_h2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.max_concurrent_streams(20_000).serve_connection(io, service));
        } else {
            tokio::spawn(http1::Builder::new().serve_connection(io, service));
        }
    }
}

impl Hub {
    fn publish(&self, target: &str, message: &str) {
        match (&self.streams, target.parse::<usize>()) {
            (Some(streams), Ok(number)) => {
                if let Some((stream, position)) = lock(streams).get_mut(number) {
                    *position += 1;
                    let _ = stream.send(wire::event(*position, message).into());
                }
            }
            _ => {
                // The lock makes the order of the positions that of the channel.
                let mut retained = lock(&self.retained);
                let position = retained.back().map_or(0, |(position, _)| *position) + 1;
                let event = Bytes::from(wire::event(position, message));
                if retained.len() == RETAINED {
                    retained.pop_front();
                }
                retained.push_back((position, event.clone()));
                let _ = self.live.send(event);
            }
        }
    }

    fn open(&self, last: Option<u64>) -> Events {
        if let Some(streams) = &self.streams {
            let (sender, mut events) = mpsc::unbounded_channel();
            lock(streams).push((sender, 0));
            return stream::poll_fn(move |context| events.poll_recv(context))
                .map(Frame::data)
                .map(Ok)
                .boxed();
        }
        // What was missed and what comes next, without a gap: both under the lock.
        let retained = lock(&self.retained);
        let live = self.live.subscribe();
        let missed: Vec<_> = last.map_or_else(Vec::new, |last| {
            retained.iter().filter(|(position, _)| *position > last).map(|(_, event)| event.clone()).collect()
        });
        drop(retained);
        let missed = (!missed.is_empty()).then(|| Ok(Frame::data(missed.concat().into())));
        let live = stream::unfold(live, |mut live| async move {
            loop {
                match live.recv().await {
                    Ok(event) => return Some((Ok(Frame::data(event)), live)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        stream::iter(missed).chain(live).boxed()
    }
}

async fn answer(request: Request<Incoming>, hub: Arc<Hub>) -> Result<Response<Body>, Infallible> {
    if request.method() == Method::POST {
        let is_sse = request.uri().path() == "/sse";
        let _ = request.into_body().collect().await;
        let (body, kind) = if is_sse {
            let position = hub.calls.fetch_add(1, Ordering::Relaxed);
            let result = str::from_utf8(&hub.result).unwrap_or_default();
            (wire::event(position, result).into(), "text/event-stream")
        } else {
            (hub.result.clone(), "application/json")
        };
        return Ok(typed(Response::new(Either::Right(Full::new(body))), kind));
    }
    let last = request.headers().get("last-event-id").and_then(|id| wire::position(id.to_str().ok()?));
    Ok(typed(Response::new(Either::Left(StreamBody::new(hub.open(last)))), "text/event-stream"))
}

fn typed(mut answer: Response<Body>, kind: &'static str) -> Response<Body> {
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
