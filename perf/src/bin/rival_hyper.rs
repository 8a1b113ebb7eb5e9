//! Plain hyper: a body for each stream, fed by one broadcast channel; no sessions, no replay.
//!
//! ```text
//! rival-hyper --listen ADDR --admin ADDR
//! ```

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{Stream, stream};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use ringmain_perf::arguments::Arguments;
use tokio::net::TcpListener;
use tokio::sync::broadcast;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Events = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;
type Body = http_body_util::Either<StreamBody<Events>, Full<Bytes>>;

static NEXT: AtomicU64 = AtomicU64::new(1);

#[tokio::main]
async fn main() {
    let arguments = Arguments::read();
    let live = broadcast::Sender::new(256);
    let serve = |listener: TcpListener, live: broadcast::Sender<Bytes>| async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let live = live.clone();
            let service = service_fn(move |request| answer(request, live.clone()));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    };
    let (listen, admin) = (
        TcpListener::bind(arguments.listen).await.unwrap(),
        TcpListener::bind(arguments.admin).await.unwrap(),
    );
    tokio::join!(serve(listen, live.clone()), serve(admin, live));
}

async fn answer(
    request: Request<Incoming>,
    live: broadcast::Sender<Bytes>,
) -> Result<Response<Body>, Infallible> {
    if request.method() == Method::POST {
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let position = NEXT.fetch_add(1, Ordering::Relaxed);
        let data = String::from_utf8_lossy(&body);
        let _ = live.send(Bytes::from(format!("id: {position:016x}\nevent: message\ndata: {data}\n\n")));
        return Ok(Response::new(Body::Right(Full::default())));
    }
    let events = stream::unfold(live.subscribe(), |mut live| async move {
        loop {
            match live.recv().await {
                Ok(event) => return Some((Ok(Frame::data(event)), live)),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    let mut answer = Response::new(Body::Left(StreamBody::new(Box::pin(events) as Events)));
    answer.headers_mut().insert("content-type", "text/event-stream".parse().expect("it is one"));
    Ok(answer)
}
