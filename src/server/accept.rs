//! Listening, accepting, and coming to an end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming as RequestBody;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Allowed, Config, Endpoint, route};
use crate::handler::Handler;
use crate::session::Sessions;
use crate::sync::Arc;

/// Connections that wait to be accepted. With tokio's 128, a storm of reconnecting clients waits for its
/// retries of one second.
const BACKLOG: i32 = 4096;
/// How long to wait after `accept` failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How a client with prior knowledge of HTTP/2 begins.
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An endpoint on a socket.
pub struct Server<H> {
    endpoint: Arc<Endpoint<H>>,
    listener: TcpListener,
}

/// How a server came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every connection finished what it was doing.
    Complete,
    /// The deadline came first, and what was open was cut off.
    CutOff,
}

impl<H: Handler> Server<H> {
    /// Listens on `address` for messages to `handler`. Call it within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on.
    pub fn bind(address: SocketAddr, handler: H, config: Config) -> io::Result<Self> {
        Ok(Self { endpoint: Arc::new(Endpoint::new(handler, config)), listener: listen(address)? })
    }

    /// The address it listens on.
    ///
    /// # Errors
    ///
    /// The operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The sessions of this endpoint: to publish to, to look at.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.endpoint.sessions.clone()
    }

    /// A way to replace who may talk to the endpoint while it runs.
    pub fn allow(&self) -> impl Fn(Allowed) + Send + Sync + 'static {
        let endpoint = self.endpoint.clone();
        move |allowed| endpoint.allowed.store(Arc::new(allowed))
    }

    /// Serves until `shutdown` resolves, then drains: accepts nothing new, tells standalone streams to come
    /// back, lets requests in flight finish, and cuts off what is left at the deadline.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Drained {
        let Self { endpoint, listener } = self;
        endpoint.tell_time();
        let (drain, draining) = watch::channel(());
        let upkeep = tokio::spawn(upkeep(endpoint.clone()));
        let beats = endpoint.clone();
        let beating = tokio::spawn(async move { beats.keep_alive.run(beats.config.keep_alive).await });
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => { tokio::spawn(serve(endpoint.clone(), stream, draining.clone())); }
                    Err(error) => pause(&error).await,
                },
            }
        }
        drop((listener, draining));
        let drained = finish(&endpoint, drain).await;
        upkeep.abort();
        beating.abort();
        drained
    }
}

impl<H> std::fmt::Debug for Server<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}

/// Listens on `address` with a backlog of our own.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A connection that failed before it was accepted is the client's affair; anything else is ours, and passes
/// or does not: wait a moment rather than spin.
pub(super) async fn pause(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        tracing::warn!(%error, "cannot accept connections for the moment");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Keeps the clock going and ends what has had its time.
async fn upkeep<H: Handler>(endpoint: Arc<Endpoint<H>>) {
    let mut clock = tokio::time::interval(Duration::from_millis(50).min(endpoint.config.sweep));
    let mut sweep = tokio::time::interval(endpoint.config.sweep);
    loop {
        tokio::select! {
            _ = clock.tick() => endpoint.tell_time(),
            _ = sweep.tick() => {
                let sweeping = endpoint.clone();
                // Off the reactor: with a million sessions it takes tens of milliseconds.
                let swept = tokio::task::spawn_blocking(move || {
                    sweeping.sessions.sweep(|session| sweeping.handler.closed(&session));
                });
                if let Err(error) = swept.await {
                    tracing::error!(%error, "the sweep of expired sessions failed");
                }
            }
        }
    }
}

/// Lets everything come to its end, at the latest by the deadline.
async fn finish<H: Handler>(endpoint: &Endpoint<H>, drain: watch::Sender<()>) -> Drained {
    endpoint.start_draining();
    endpoint.sessions.for_each(|session| {
        session.standalone().hang_up();
    });
    drain.send_replace(());
    // Each connection holds a receiver: when none is left, none is.
    if tokio::time::timeout(endpoint.config.drain, drain.closed()).await.is_ok() {
        return Drained::Complete;
    }
    let mut left = Vec::new();
    endpoint.sessions.for_each(|session| left.push(session.clone()));
    for session in left {
        if endpoint.sessions.terminate(&session) {
            endpoint.handler.closed(&session);
        }
    }
    // The streams are closed; their last bytes need a moment to leave.
    let _ = tokio::time::timeout(Duration::from_secs(1), drain.closed()).await;
    Drained::CutOff
}

/// Serves one connection to its end.
async fn serve<H: Handler>(endpoint: Arc<Endpoint<H>>, stream: TcpStream, draining: watch::Receiver<()>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot switch off Nagle's algorithm");
    }
    let patience = endpoint.config.read_timeout;
    let is_http2 = match tokio::time::timeout(patience, begins_http2(&stream)).await {
        Ok(Ok(is_http2)) => is_http2,
        Ok(Err(_)) | Err(_) => return,
    };
    let io = TokioIo::new(stream);
    let config = &endpoint.config;
    let max_head = config.max_header_bytes.saturating_mul(4).max(16 << 10);
    let service = {
        let endpoint = endpoint.clone();
        service_fn(move |request: Request<RequestBody>| {
            let endpoint = endpoint.clone();
            async move { Ok::<_, std::convert::Infallible>(route::answer(endpoint, request).await) }
        })
    };
    let served = if is_http2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(config.max_http2_streams)
            .max_header_list_size(u32::try_from(max_head).unwrap_or(u32::MAX))
            .keep_alive_interval(config.keep_alive)
            .serve_connection(io, service);
        until_drained(connection, draining, |connection| connection.graceful_shutdown()).await
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .max_headers(256)
            .max_buf_size(max_head)
            .half_close(false)
            .serve_connection(io, service);
        until_drained(connection, draining, |connection| connection.graceful_shutdown()).await
    };
    if let Err(error) = served {
        tracing::trace!(%error, "a connection ended early");
    }
}

/// Drives a connection; when the drain begins, asks it to take no further request.
async fn until_drained<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    mut draining: watch::Receiver<()>,
    wind_down: impl Fn(Pin<&mut C>),
) -> hyper::Result<()> {
    let mut connection = pin!(connection);
    tokio::select! {
        served = &mut connection => return served,
        _ = draining.changed() => wind_down(connection.as_mut()),
    }
    connection.await
}

/// Whether the client starts with the preface of HTTP/2. Looks without taking.
async fn begins_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut seen = [0; HTTP2_PREFACE.len()];
    loop {
        let count = stream.peek(&mut seen).await?;
        if count == 0 || seen[..count] != HTTP2_PREFACE[..count] {
            return Ok(false);
        }
        if count == seen.len() {
            return Ok(true);
        }
        // The rest of it is on its way; what is there already would make `peek` return at once.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
