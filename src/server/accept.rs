//! Listening, accepting, and coming to an end.

use std::future::Future;
use std::io::{self, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use socket2::SockRef;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::Instrument;

use super::plain::Plain;
use super::serve::{Opening, Stage, Visit, serve};
use super::watch::watch;
use super::writer::{GiveBack, Reactor, Writer};
use super::{Allowed, Config, ConnectionCounters, Endpoint, Metrics, Readiness, gate};
use crate::handler::Handler;
use crate::identity::Denials;
use crate::session::Sessions;
use crate::sync::Arc;

/// Connections that wait to be accepted. With tokio's 128, a storm of reconnecting clients waits for its
/// retries of one second.
const BACKLOG: i32 = 4096;
/// Bytes that the system takes for a client before it has sent those before them.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 << 10;
/// How long to wait after `accept` failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often it is said, at most, that connections are refused, or cannot be accepted.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// So many connections too many get an answer in a second.
const ANSWERED: u32 = 200;
/// What a connection too many is told.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\n\
    content-type: application/json\r\ncontent-length: 101\r\n\r\n\
    {\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32000,\"message\":\"there are too many connections; try again later\"}}";
/// How long connections may take to end once they were told that the deadline came.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// An endpoint on a socket.
pub struct Server<H> {
    endpoint: Arc<Endpoint<H>>,
    listener: AsyncFd<mio::net::TcpListener>,
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
    /// The address cannot be listened on, a limit of connections cannot work, or the certificate cannot be used. The
    /// text names the address's fault, the setting or the file.
    pub fn bind(address: SocketAddr, handler: H, config: Config) -> io::Result<Self> {
        if let Some(fault) = config.fault() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, fault));
        }
        let endpoint = Arc::new(Endpoint::new(handler, config)?);
        let listener = listen(address)?;
        // Twice the time: a client that takes nothing is ended, and counted, by whoever writes to it.
        give_up_after(&listener, endpoint.config.stalled_after.saturating_mul(2))?;
        // Not tokio's: that one has the runtime watch a socket before it can be turned away.
        let listener = watch(mio::net::TcpListener::from_std(listener))?;
        Ok(Self { endpoint, listener })
    }

    /// The address it listens on.
    ///
    /// # Errors
    ///
    /// The operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.get_ref().local_addr()
    }

    /// The sessions of this endpoint: to publish to, to look at.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.endpoint.sessions.clone()
    }

    /// What happened to its connections.
    #[must_use]
    pub fn connection_counters(&self) -> Arc<ConnectionCounters> {
        self.endpoint.gate.counters().clone()
    }

    /// How often requests were denied because of who sent them, by reason.
    #[must_use]
    pub fn denials(&self) -> Arc<Denials> {
        self.endpoint.denials.clone()
    }

    /// Its numbers, and whether it is ready: for [`Admin`](super::Admin), or an endpoint of one's own.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.endpoint.metrics.clone()
    }

    /// A way to replace who may talk to the endpoint while it runs.
    pub fn allow(&self) -> impl Fn(Allowed) + Send + Sync + use<H> {
        let endpoint = self.endpoint.clone();
        move |allowed| endpoint.allowed.store(Arc::new(allowed))
    }

    /// A way to read the certificate and its key again while the server runs. Connections that are open go on;
    /// those that come see the new one. Without [`Config::tls`] it does nothing. It reads files: a moment's work.
    ///
    /// The closure fails if they cannot be used; then the old ones stay.
    #[cfg(feature = "tls")]
    pub fn reload_tls(&self) -> impl Fn() -> Result<(), super::TlsError> + Send + Sync + use<H> {
        let endpoint = self.endpoint.clone();
        move || endpoint.identity.as_ref().map_or(Ok(()), super::tls::Identity::reload)
    }

    /// Serves until `shutdown` resolves, then drains: accepts nothing new, tells standalone streams to come
    /// back, lets requests in flight finish, and cuts off what is left at the deadline.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Drained {
        let Self { endpoint, listener } = self;
        endpoint.tell_time();
        let stage = watch::Sender::new(Stage::Serving);
        let mut upkeep = JoinSet::new();
        upkeep.spawn(keep_up(endpoint.clone()));
        let beats = endpoint.clone();
        upkeep.spawn(async move { beats.keep_alive.run(beats.config.keep_alive).await });
        let reactors = start_reactors(&endpoint, &stage);
        let mut shutdown = pin!(shutdown);
        endpoint.metrics.set_readiness(Readiness::Serving);
        let mut door =
            Door { endpoint: &endpoint, stage: &stage, pause: Pause::default(), full: Full::default() };
        tokio::select! {
            biased;
            () = &mut shutdown => {}
            () = door.keep(&listener) => {}
        }
        drop(listener);
        finish(&endpoint, &stage, reactors).await
    }
}

impl<H> std::fmt::Debug for Server<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}

/// Listens on `address` with a backlog of our own.
pub(super) fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it: no frame waits for the acknowledgement of the one before.
    socket.set_tcp_nodelay(true)?;
    // Inherited too. What a stalled reader is owed waits in its ring, where it is bounded, counted and can be resumed,
    // rather than in some megabytes of the system's for each of them.
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Has the system end accepted connections whose other side says nothing of what was sent for so long. A client
/// that vanished without a word takes nothing, but until then the system keeps what is sent to it, comments among
/// it, and the connection looks alive.
fn give_up_after(listener: &StdListener, after: Duration) -> io::Result<()> {
    // Accepted sockets inherit it. Elsewhere than on Linux the system's own patience counts.
    #[cfg(target_os = "linux")]
    SockRef::from(listener).set_tcp_user_timeout(Some(after))?;
    let _ = (listener, after);
    Ok(())
}

/// Who lets connections in.
struct Door<'a, H> {
    endpoint: &'a Arc<Endpoint<H>>,
    stage: &'a watch::Sender<Stage>,
    pause: Pause,
    full: Full,
}

impl<H: Handler> Door<'_, H> {
    /// Lets connections in, or turns them away, for as long as it is polled.
    async fn keep(&mut self, listener: &AsyncFd<mio::net::TcpListener>) {
        loop {
            // Others get their turn however many there are.
            tokio::task::coop::consume_budget().await;
            let accepted = match listener.readable().await {
                Ok(mut ready) => match ready.try_io(|listener| listener.get_ref().accept()) {
                    Ok(accepted) => accepted,
                    Err(_nobody) => continue,
                },
                Err(error) => Err(error),
            };
            match accepted {
                Ok((stream, peer)) => {
                    self.pause.is_over();
                    self.open(stream, peer.ip());
                }
                Err(error) => self.pause.after(&error).await,
            }
        }
    }

    fn open(&mut self, stream: mio::net::TcpStream, address: IpAddr) {
        let gate = &self.endpoint.gate;
        let permit = match gate.admit(address) {
            Ok(permit) => permit,
            Err(reason) => return self.full.turn_away(stream, reason, self.endpoint),
        };
        let visit = Visit { permit, ends: gate.ends(self.endpoint.now()) };
        let (endpoint, stage) = (self.endpoint.clone(), self.stage.subscribe());
        let span = tracing::debug_span!("connection", %address);
        let served = serve(endpoint, Plain::new(stream.into()), visit, Opening::New(address), stage);
        tokio::spawn(served.instrument(span));
    }
}

/// What becomes of connections when there are too many.
#[derive(Debug, Default)]
struct Full {
    said: Said,
    /// The second of the last answer, and how many there were in it.
    answers: (u64, u32),
}

impl Full {
    /// Ends a connection that is not let in. So many a second get an answer, as far as that costs nothing: what they
    /// send is not read, so they may see the end of the connection instead. In a flood the rest do not.
    fn turn_away<H: Handler>(
        &mut self,
        stream: mio::net::TcpStream,
        reason: gate::Full,
        endpoint: &Endpoint<H>,
    ) {
        let second = endpoint.now().0 / 1000;
        if self.answers.0 != second {
            self.answers = (second, 0);
        }
        self.answers.1 += 1;
        if self.answers.1 <= ANSWERED && !endpoint.is_encrypted() {
            let _ = (&stream).write(TOO_MANY);
            let _ = stream.shutdown(Shutdown::Write);
        }
        if self.answers.1 == 1 && self.said.may_say_again() {
            tracing::warn!(setting = reason.setting(), "refused a connection: there are too many");
        }
    }
}

/// Keeps a message that could be true a thousand times a second to once a minute.
#[derive(Debug, Default)]
struct Said(Option<Instant>);

impl Said {
    fn may_say_again(&mut self) -> bool {
        let now = Instant::now();
        let again = self.0.is_none_or(|last| now.duration_since(last) >= SAID_EVERY);
        if again {
            self.0 = Some(now);
        }
        again
    }
}

/// What becomes of a listener that cannot accept.
#[derive(Debug, Default)]
pub(super) struct Pause {
    said: Said,
    paused: bool,
}

impl Pause {
    /// A connection that failed before it was accepted is the client's affair; anything else is ours, and passes
    /// or does not: wait a moment rather than spin. Who connects meanwhile waits in the backlog.
    pub(super) async fn after(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
            return;
        }
        self.paused = true;
        if self.said.may_say_again() {
            tracing::warn!(%error, "cannot accept connections for the moment; those who connect wait");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    /// A connection was accepted.
    pub(super) fn is_over(&mut self) {
        if std::mem::take(&mut self.paused) {
            tracing::debug!("connections are accepted again");
        }
    }
}

/// Keeps the clock going and ends what has had its time.
async fn keep_up<H: Handler>(endpoint: Arc<Endpoint<H>>) {
    let mut clock = tokio::time::interval(Duration::from_millis(50).min(endpoint.config.sweep));
    let mut sweep = tokio::time::interval(endpoint.config.sweep);
    let mut relieve_from = Instant::now();
    loop {
        tokio::select! {
            _ = clock.tick() => {
                endpoint.tell_time();
                if endpoint.sessions.is_over_budget() && Instant::now() >= relieve_from {
                    let (began, relieving) = (Instant::now(), endpoint.clone());
                    let relieved = tokio::task::spawn_blocking(move || relieving.sessions.relieve()).await;
                    if endpoint.sessions.is_over_budget() {
                        // It did not help, and may not soon: a tenth of one core at most.
                        relieve_from = Instant::now() + 10 * began.elapsed().min(sweep.period());
                    }
                    tracing::debug!(bytes = relieved.unwrap_or_default(), "let events go: too much was retained");
                }
            }
            _ = sweep.tick() => {
                let sweeping = endpoint.clone();
                // Off the reactor: with a million sessions it takes tens of milliseconds.
                let swept = tokio::task::spawn_blocking(move || {
                    sweeping.sessions.sweep(|session| sweeping.closed(&session));
                });
                if let Err(error) = swept.await {
                    tracing::error!(%error, "the sweep of expired sessions failed");
                }
            }
        }
    }
}

/// Starts what writes the streams that leave hyper, one task for each of the runtime's threads. Without them streams
/// stay inside.
fn start_reactors<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    stage: &watch::Sender<Stage>,
) -> JoinSet<io::Result<()>> {
    let mut reactors = JoinSet::new();
    if !endpoint.config.hand_over {
        return reactors;
    }
    let (again, stages) = (endpoint.clone(), stage.clone());
    let give_back: GiveBack = Arc::new(move |socket, visit, unread| {
        let (stream, opening) = (Plain::new(socket), Opening::Again(unread));
        tokio::spawn(serve(again.clone(), stream, visit, opening, stages.subscribe()));
    });
    let count = tokio::runtime::Handle::current().metrics().num_workers();
    let (writer, sides) = Writer::new(count, endpoint.metrics.latency());
    for (handed, side) in sides {
        let Config { keep_alive, stalled_after, .. } = endpoint.config;
        let counters = endpoint.gate.counters().clone();
        match Reactor::new(handed, side, keep_alive, stalled_after, give_back.clone(), counters) {
            Ok(reactor) => drop(reactors.spawn(reactor)),
            Err(error) => {
                tracing::warn!(%error, "streams are written by hyper");
                return JoinSet::new();
            }
        }
    }
    let _ = endpoint.writer.set(writer);
    reactors
}

/// Lets everything come to its end, at the latest by the deadline.
async fn finish<H: Handler>(
    endpoint: &Endpoint<H>,
    stage: &watch::Sender<Stage>,
    mut reactors: JoinSet<io::Result<()>>,
) -> Drained {
    endpoint.start_draining();
    let writer = endpoint.writer.get();
    if let Some(writer) = writer {
        writer.drain();
    }
    let spread = endpoint.config.drain_spread.as_millis();
    endpoint.sessions.spread_returns(u32::try_from(spread).unwrap_or(u32::MAX));
    endpoint.sessions.for_each(|session| {
        session.standalone().hang_up();
    });
    stage.send_replace(Stage::Draining);
    let mut ended = Box::pin(async {
        // Each connection holds a receiver: when none is left, none is, and none is handed over any more.
        stage.closed().await;
        if let Some(writer) = writer {
            writer.finish();
        }
        while reactors.join_next().await.is_some() {}
    });
    let in_time = timeout(endpoint.config.drain, &mut ended).await.is_ok();
    let mut left = Vec::new();
    endpoint.sessions.for_each(|session| left.push(session.clone()));
    left.iter().for_each(|session| endpoint.terminate(session));
    if in_time {
        return Drained::Complete;
    }
    // The streams are closed; their last bytes get a moment to leave.
    if timeout(LAST_BYTES, &mut ended).await.is_err() {
        drop(ended);
        stage.send_replace(Stage::CutOff);
        reactors.shutdown().await;
        let _ = timeout(LAST_BYTES, stage.closed()).await;
    }
    Drained::CutOff
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn accepted_sockets_inherit_what_the_system_does_for_a_silent_client() {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        give_up_after(&listener, Duration::from_secs(7)).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap());
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(SockRef::from(&accepted).tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
        assert_eq!(SockRef::from(&accepted).tcp_notsent_lowat().unwrap(), UNSENT);
        drop(client);
    }
}
