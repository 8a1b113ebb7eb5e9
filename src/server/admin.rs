//! The operator's endpoint: publishing to clients, health checks and metrics.
//!
//! On an address of its own, for programs in any language. Every client that reaches it can publish to any session:
//! bind it to loopback, or ask for a token ([`Admin::token`]).
//!
//! | request | answer |
//! |---|---|
//! | `POST /publish?session=ID` | publishes the body, one JSON-RPC notification, to that session |
//! | `POST /publish?session=all` | publishes it to every session, serialised once |
//! | `GET /healthz` | 200 while the process runs |
//! | `GET /readyz` | 200 while the server serves, 503 before and while it drains; `{"ready":true,"state":"serving"}` |
//! | `GET /metrics` | metrics in the text format of OpenMetrics, which Prometheus reads |
//!
//! Publishing answers 200 with `{"sessions":n,"delivered":n,"retained":n}`: how many sessions it was published
//! to, how many of them have a client connected, and where it waits for one. It answers 400 if the body is not
//! one notification or the query does not say to whom, 401 if a token is asked for and missing, 403 to a browser or
//! under a wrong host, 404 if there is no such session, 408 if the body comes too slowly, 413 if it is too large, or
//! the event larger than a stream may retain; with `{"error":"…"}`.
//!
//! # Probes and browsers
//!
//! The three GETs, and their HEADs, are served under any `Host` and without one: a kubelet, a load balancer and
//! Prometheus send the address of their target. They reveal nothing secret and change nothing. What a page in a browser
//! sends is refused, by the two headers that a page cannot remove: `Origin`, and `Sec-Fetch-Site` of any value but
//! `none`, which means that a person typed the address. `/publish` refuses both headers whatever their value, and
//! checks the host, unless the address is bound to all interfaces and cannot know its names.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming as RequestBody;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::connection::linger::{self, Lingers};
use super::connection::listen::{give_up_after, listen, needs_runtime};
use super::connection::pause::Pause;
use super::connection::plain::Plain;
use super::connection::stage::Stage;
use super::metrics::handle::{Metrics, Readiness};
use super::request::answer::TOO_MANY_CONNECTIONS;
use crate::error::Error;
use crate::protocol::{AllowList, Message, Refusal, SessionId, check_host, write_single_line};
use crate::session::{PublishError, Reach, Sessions};
use crate::sync::Arc;

/// Largest message that may be published, in bytes.
const MAX_BODY_BYTES: usize = 4 << 20;
/// Publishing to more sessions than this runs on a blocking thread.
const MANY_SESSIONS: usize = 1000;
/// Connections open at once.
const MAX_CONNECTIONS: usize = 256;
/// Number of connections that may be closed in stages at once, even if fewer may be open.
const MIN_LINGERS: usize = 16;
/// Time to receive a request head, and a body, and time that a connection is kept without a request.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// States whether a page in a browser sends the request, and of which site. No page can set or remove it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The operator's endpoint on a socket of its own.
///
/// # Examples
///
/// ```
/// # use ringmain::handler::{Context, Handler, Request};
/// # async fn serve(handler: impl Handler) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use ringmain::server::{Admin, AdminToken, Config, Server};
///
/// let server = Server::bind("127.0.0.1:0".parse()?, handler, Config::default())?;
/// let admin = Admin::bind("127.0.0.1:0".parse()?, server.handle().metrics())?
///     .token(AdminToken::new("a-long-random-word\n")?)
///     .max_connections(64)
///     .read_timeout(Duration::from_secs(10));
/// println!("curl http://{}/metrics", admin.local_addr());
/// tokio::spawn(admin.run());
/// # Ok(())
/// # }
/// # struct Nothing;
/// # impl Handler for Nothing {
/// #     async fn request(&self, _: Request, _: Context) {}
/// # }
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(serve(Nothing)).unwrap();
/// ```
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    metrics: Metrics,
    token: Option<AdminToken>,
    max_connections: usize,
    read_timeout: Duration,
}

/// The token that `/publish` requires: `Authorization: Bearer …`. Cheap to clone; clones share the token.
///
/// `Debug` does not show it.
#[derive(Clone)]
pub struct AdminToken(Arc<ArcSwap<Box<str>>>);

impl AdminToken {
    /// Reads the token from the text of a file. White space around it is removed.
    ///
    /// # Errors
    ///
    /// It is not one word of visible ASCII ([`Error::is_config`]).
    pub fn new(text: &str) -> Result<Self, Error> {
        read_token(text).map(|token| Self(Arc::new(ArcSwap::from_pointee(token))))
    }

    /// Replaces the token in all clones.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new). Then the token stays as it was.
    pub fn replace(&self, text: &str) -> Result<(), Error> {
        self.0.store(Arc::new(read_token(text)?));
        Ok(())
    }

    /// Whether the request has exactly one `Authorization` header, with this token.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, token)) = value.as_bytes().split_at_checked(b"Bearer ".len()) else { return false };
        // The length is not secret.
        scheme.eq_ignore_ascii_case(b"Bearer ") && token.ct_eq(self.0.load().as_bytes()).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminToken").finish_non_exhaustive()
    }
}

fn read_token(text: &str) -> Result<Box<str>, Error> {
    let token = text.trim();
    let is_word = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_word { Ok(token.into()) } else { Err(Error::config("the token must be one word of visible ASCII")) }
}

impl Admin {
    /// Listens on `address` for the operator of the server with these `metrics`.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, or this is not called within a tokio runtime that has time and I/O: [`Error`]
    /// tells them apart.
    pub fn bind(address: SocketAddr, metrics: Metrics) -> Result<Self, Error> {
        needs_runtime()?;
        let listen = || {
            let listener = listen(address)?;
            give_up_after(&listener, READ_TIMEOUT)?;
            let address = listener.local_addr()?;
            Ok((TcpListener::from_std(listener)?, address))
        };
        let (listener, address) = listen().map_err(|error: io::Error| Error::address(address, error))?;
        Ok(Self {
            listener,
            address,
            metrics,
            token: None,
            max_connections: MAX_CONNECTIONS,
            read_timeout: READ_TIMEOUT,
        })
    }

    /// Requires a token for `/publish`. Default: none is required. Probes never need one.
    #[must_use]
    pub fn token(mut self, token: AdminToken) -> Self {
        self.token = Some(token);
        self
    }

    /// Limits the number of open connections. Default 256, at least 1. A further one is answered with 503 and closed.
    #[must_use]
    pub fn max_connections(mut self, max: usize) -> Self {
        self.max_connections = max.max(1);
        self
    }

    /// Limits the time to receive a request head, and a body, and the time that a connection is kept without a
    /// request. Default 60 seconds.
    #[must_use]
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.read_timeout = timeout;
        self
    }

    /// The hosts that `/publish` is served under: loopback, and the address it was bound to. If it is bound to all
    /// addresses, it cannot know its names, and any host is allowed.
    fn hosts(&self) -> AllowList {
        if self.address.ip().is_unspecified() {
            return AllowList::any();
        }
        AllowList::loopback().with(&self.address.to_string()).unwrap_or_else(|_| AllowList::loopback())
    }

    /// The address that it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves for as long as it is polled, also during a drain of the server.
    pub async fn run(self) {
        let hosts = self.hosts();
        let Self { listener, address: _, metrics, token, max_connections, read_timeout } = self;
        let [lingers, turned_away] = [(); 2].map(|()| Lingers::new(max_connections.max(MIN_LINGERS)));
        let stage = watch::Sender::new(Stage::Serving);
        let state = Arc::new(AdminState { metrics, hosts, token, read_timeout, lingers, turned_away, stage });
        let places = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
        let mut pause = Pause::default();
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    pause.after(&error).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                turn_away(&state, stream);
                continue;
            };
            let state = state.clone();
            tokio::spawn(async move {
                serve(&state, stream).await;
                drop(place);
            });
        }
    }
}

/// Answers a connection beyond the limit without waiting, and drops what it sends.
fn turn_away(state: &AdminState, stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(TOO_MANY_CONNECTIONS);
        linger::close_aside(Plain::new(stream), &state.turned_away, state.stage.subscribe(), ());
    }
    tracing::debug!("refused a connection to the admin address: the limit is reached");
}

async fn serve(state: &AdminState, stream: TcpStream) {
    let service = service_fn(async |request| Ok::<_, Infallible>(state.answer(request).await));
    let mut builder = http1::Builder::new();
    // Measured from the end of one answer to the end of the next head.
    builder.timer(TokioTimer::new()).header_read_timeout(state.read_timeout);
    let mut connection = builder.serve_connection(TokioIo::new(stream), service);
    let served = Pin::new(&mut connection).await;
    // After any other error there is no client left to answer.
    if served.is_ok() || served.is_err_and(|error| error.is_parse()) {
        let socket = Plain::Watched(connection.into_parts().io.into_inner());
        linger::close(socket, &state.lingers, state.stage.subscribe()).await;
    }
}

type AdminAnswer = Response<Full<Bytes>>;

/// A refusal: its status, and a text for people.
struct Refused(StatusCode, Cow<'static, str>);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.status(), refusal.message())
    }
}

fn bad(message: &'static str) -> Refused {
    Refused(StatusCode::BAD_REQUEST, message.into())
}

/// The state that all connections of this endpoint share.
struct AdminState {
    metrics: Metrics,
    hosts: AllowList,
    token: Option<AdminToken>,
    read_timeout: Duration,
    /// Connections that are closed in stages: after an answer, and beyond the limit.
    lingers: Arc<Lingers>,
    turned_away: Arc<Lingers>,
    /// Never changes: these connections do not take part in the drain.
    stage: watch::Sender<Stage>,
}

impl AdminState {
    async fn answer(&self, request: Request<RequestBody>) -> AdminAnswer {
        let mut answer = self.dispatch(request).await.unwrap_or_else(|Refused(status, message)| {
            let mut answer = json(serde_json::json!({ "error": message }).to_string());
            *answer.status_mut() = status;
            if status == StatusCode::UNAUTHORIZED {
                answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            answer
        });
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }

    async fn dispatch(&self, request: Request<RequestBody>) -> Result<AdminAnswer, Refused> {
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/publish") => self.publish(request).await,
            (&Method::GET | &Method::HEAD, path @ ("/healthz" | "/readyz" | "/metrics")) => {
                refuse_pages(request.headers())?;
                match path {
                    "/healthz" => Ok(with_type("ok\n".into(), "text/plain; charset=utf-8")),
                    "/readyz" => Ok(readiness(&self.metrics)),
                    _ => page(&self.metrics).await,
                }
            }
            (_, "/publish" | "/healthz" | "/readyz" | "/metrics") => {
                Err(Refused(StatusCode::METHOD_NOT_ALLOWED, "use POST for /publish, GET for the rest".into()))
            }
            _ => Err(Refused(
                StatusCode::NOT_FOUND,
                "there are /publish, /healthz, /readyz and /metrics".into(),
            )),
        }
    }

    async fn publish(&self, request: Request<RequestBody>) -> Result<AdminAnswer, Refused> {
        let headers = request.headers();
        if headers.contains_key(ORIGIN) || headers.contains_key(SEC_FETCH_SITE) {
            return Err(no_browsers());
        }
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        check_host(headers, authority, &self.hosts).map_err(|refusal| match refusal {
            // No option allows another host, so the text lists the allowed ones.
            Refusal::BadHost => Refused(
                StatusCode::FORBIDDEN,
                "Host is not allowed; send localhost or the address this is bound to".into(),
            ),
            other => other.into(),
        })?;
        if self.token.as_ref().is_some_and(|token| !token.is_in(headers)) {
            let message = "the token of admin_token_file is needed; send it as Authorization: Bearer";
            return Err(Refused(StatusCode::UNAUTHORIZED, message.into()));
        }
        let target =
            target(request.uri().query()).ok_or(bad("say to whom: ?session=ID or ?session=all"))?.to_owned();
        let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
        let body = match tokio::time::timeout(self.read_timeout, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(Refusal::BodyTooLarge { limit: MAX_BODY_BYTES }.into());
            }
            Ok(Err(_)) => return Err(bad("the body ended early, or its framing is broken")),
            Err(_) => return Err(Refusal::BodyTimeout.into()),
        };
        publish(self.metrics.sessions(), &target, body).await
    }
}

/// Refuses requests of pages in a browser. A person who typed the address is served.
fn refuse_pages(headers: &HeaderMap) -> Result<(), Refused> {
    let is_page = headers.get_all(SEC_FETCH_SITE).iter().any(|site| site != "none");
    if headers.contains_key(ORIGIN) || is_page { Err(no_browsers()) } else { Ok(()) }
}

fn no_browsers() -> Refused {
    Refused(StatusCode::FORBIDDEN, "pages in a browser are not served here".into())
}

/// Publishes `body`, which must be one notification.
async fn publish(sessions: &Sessions, target: &str, body: Bytes) -> Result<AdminAnswer, Refused> {
    if !matches!(Message::parse(&body)?, Message::Notification { .. }) {
        // Nobody would wait for the answer to a request, and nobody asked for a response.
        return Err(bad("the body must be one JSON-RPC notification"));
    }
    let write = move |out: &mut Vec<u8>| write_single_line(out, str::from_utf8(&body).unwrap_or_default());
    let reach = if target == "all" {
        publish_to_all(sessions, write).await?
    } else {
        let gone = || Refused(StatusCode::NOT_FOUND, "there is no such session".into());
        let session = SessionId::parse(target).and_then(|id| sessions.find_any(id)).ok_or_else(gone)?;
        session.publish(write).map_err(|error| match error {
            PublishError::TooLarge { limit, .. } => Refusal::EventTooLarge { limit }.into(),
            _ => gone(),
        })?;
        let mut reach = Reach::default();
        reach.count(session.standalone().terms().is_attached());
        reach
    };
    let Reach { sessions, delivered, retained } = reach;
    Ok(json(format!(r#"{{"sessions":{sessions},"delivered":{delivered},"retained":{retained}}}"#)))
}
async fn publish_to_all(
    sessions: &Sessions,
    write: impl FnOnce(&mut Vec<u8>) + Send + 'static,
) -> Result<Reach, Refusal> {
    let published = if sessions.len() <= MANY_SESSIONS {
        sessions.publish(write)
    } else {
        let sessions = sessions.clone();
        let publishing = tokio::task::spawn_blocking(move || sessions.publish(write));
        publishing.await.map_err(|_| Refusal::Internal)?
    };
    published.map_err(|error| match error {
        PublishError::TooLarge { limit, .. } => Refusal::EventTooLarge { limit },
        _ => Refusal::Internal,
    })
}

/// The value of `session` in a query.
fn target(query: Option<&str>) -> Option<&str> {
    query?.split('&').find_map(|pair| pair.strip_prefix("session="))
}

/// Answers a readiness check.
fn readiness(metrics: &Metrics) -> AdminAnswer {
    let readiness = metrics.readiness();
    let ready = readiness == Readiness::Serving;
    let mut answer = json(format!(r#"{{"ready":{ready},"state":"{}"}}"#, readiness.as_str()));
    if !ready {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    answer
}

async fn page(metrics: &Metrics) -> Result<AdminAnswer, Refused> {
    let metrics = metrics.clone();
    // It reads figures from the operating system, which may block for a moment.
    let text = tokio::task::spawn_blocking(move || metrics.text()).await.map_err(|_| Refusal::Internal)?;
    Ok(with_type(text.into(), "application/openmetrics-text; version=1.0.0; charset=utf-8"))
}

fn json(body: String) -> AdminAnswer {
    with_type(body.into(), "application/json")
}

fn with_type(body: Bytes, content_type: &'static str) -> AdminAnswer {
    let mut answer = Response::new(Full::new(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
