//! The operator's endpoint: publishing to clients, health checks and metrics.
//!
//! On an address of its own, for programs in any language. Whoever reaches it may publish to any session: bind it to
//! loopback, or ask for a token ([`Admin::token`]).
//!
//! | request | answer |
//! |---|---|
//! | `POST /publish?session=ID` | publishes the body, one JSON-RPC notification, to that session |
//! | `POST /publish?session=all` | publishes it to every session, serialised once |
//! | `GET /healthz` | 200 while the process lives |
//! | `GET /readyz` | 200 while the server serves, 503 before and while it drains; `{"ready":true,"state":"serving"}` |
//! | `GET /metrics` | numbers in the text format of OpenMetrics, which Prometheus reads |
//!
//! Publishing answers 200 with `{"sessions":n,"delivered":n,"retained":n}`: how many sessions it was published
//! to, how many of them have a client connected, and where it waits for one. It answers 400 if the body is not
//! one notification or the query does not say to whom, 401 if a token is asked for and missing, 403 to a browser or
//! under a wrong host, 404 if there is no such session, 408 if the body comes too slowly, 413 if it is too large, or the
//! event larger than a stream may retain; with `{"error":"…"}`.
//!
//! # Probes and browsers
//!
//! The three GETs, and their HEADs, are served under any `Host` and without one: a kubelet, a load balancer and
//! Prometheus send the address of their target. They tell nothing secret and change nothing. What a page in a browser
//! sends is refused, by the two headers that a page cannot take away: `Origin`, and `Sec-Fetch-Site` of any value but
//! `none`, which is a person who types the address. `/publish` refuses both headers whatever they say, and checks the
//! host, unless the address is bound to all interfaces and cannot know its names.

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
/// Publishing to more sessions than this leaves the reactor, which others need meanwhile.
const MANY_SESSIONS: usize = 1000;
/// Connections open at once.
const MAX_CONNECTIONS: usize = 256;
/// As many connections may be closed in stages at once, even if fewer may be open.
const MIN_LINGERS: usize = 16;
/// How long a client may take to send a head, and a body, and for how long a connection is kept without a request.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Says whether a page in a browser sends the request, and from where. No page can set or remove it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The operator's endpoint on a socket.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    metrics: Metrics,
    token: Option<AdminToken>,
    max_connections: usize,
    read_timeout: Duration,
}

/// The token that whoever publishes has to send: `Authorization: Bearer …`. Cheap to clone; clones are the same token.
///
/// `Debug` does not show it.
#[derive(Clone)]
pub struct AdminToken(Arc<ArcSwap<Box<str>>>);

impl AdminToken {
    /// Takes the token from the text of a file: the white space around it does not belong to it.
    ///
    /// # Errors
    ///
    /// It is not one word of visible ASCII ([`Error::is_config`]).
    pub fn new(text: &str) -> Result<Self, Error> {
        read_token(text).map(|token| Self(Arc::new(ArcSwap::from_pointee(token))))
    }

    /// Replaces the token, also where it is in use.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); then the token stays as it was.
    pub fn replace(&self, text: &str) -> Result<(), Error> {
        self.0.store(Arc::new(read_token(text)?));
        Ok(())
    }

    /// Whether the request carries it, once.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, token)) = value.as_bytes().split_at_checked(b"Bearer ".len()) else { return false };
        // Its length is no secret.
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

    /// Asks for a token from those who publish. Default: nobody is asked. Probes need none.
    #[must_use]
    pub fn token(mut self, token: AdminToken) -> Self {
        self.token = Some(token);
        self
    }

    /// Limits how many connections may be open at once. Default 256. One too many is answered with 503 and closed.
    #[must_use]
    pub fn max_connections(mut self, max: usize) -> Self {
        self.max_connections = max.max(1);
        self
    }

    /// Limits how long a client may take to send a head, and a body, and how long a connection is kept without a
    /// request. Default 60 seconds.
    #[must_use]
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.read_timeout = timeout;
        self
    }

    /// The hosts that `/publish` may be addressed as: loopback, and the address it was bound to. Bound to all
    /// addresses, it cannot know its names.
    fn hosts(&self) -> AllowList {
        if self.address.ip().is_unspecified() {
            return AllowList::any();
        }
        AllowList::loopback().with(&self.address.to_string()).unwrap_or_else(|_| AllowList::loopback())
    }

    /// The address it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves for as long as it is polled, during a drain of the server too.
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

/// Answers a connection too many, as far as that costs nothing, and drops what it sends.
fn turn_away(state: &AdminState, stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(TOO_MANY_CONNECTIONS);
        linger::close_aside(Plain::new(stream), &state.turned_away, state.stage.subscribe(), ());
    }
    tracing::debug!("refused a connection to the operator's address: there are too many");
}

async fn serve(state: &AdminState, stream: TcpStream) {
    let service = service_fn(async |request| Ok::<_, Infallible>(state.answer(request).await));
    let mut builder = http1::Builder::new();
    // From the end of one answer to the end of the next head.
    builder.timer(TokioTimer::new()).header_read_timeout(state.read_timeout);
    let mut connection = builder.serve_connection(TokioIo::new(stream), service);
    let served = Pin::new(&mut connection).await;
    // Another error is the client's affair: there is nobody to tell.
    if served.is_ok() || served.is_err_and(|error| error.is_parse()) {
        let socket = Plain::Watched(connection.into_parts().io.into_inner());
        linger::close(socket, &state.lingers, state.stage.subscribe()).await;
    }
}

type AdminAnswer = Response<Full<Bytes>>;

/// Why the operator is refused: a status, and words for a person.
struct Refused(StatusCode, Cow<'static, str>);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.status(), refusal.message())
    }
}

fn bad(message: &'static str) -> Refused {
    Refused(StatusCode::BAD_REQUEST, message.into())
}

/// What every connection of the operator needs.
struct AdminState {
    metrics: Metrics,
    hosts: AllowList,
    token: Option<AdminToken>,
    read_timeout: Duration,
    /// Connections that are closed in stages: those that were answered, and those too many.
    lingers: Arc<Lingers>,
    turned_away: Arc<Lingers>,
    /// Stays as it is: these connections know of no drain.
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
            // No option allows another: a person has to be told which there are.
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

/// Refuses what a page in a browser asks for. A person who types the address may look.
fn refuse_pages(headers: &HeaderMap) -> Result<(), Refused> {
    let is_page = headers.get_all(SEC_FETCH_SITE).iter().any(|site| site != "none");
    if headers.contains_key(ORIGIN) || is_page { Err(no_browsers()) } else { Ok(()) }
}

fn no_browsers() -> Refused {
    Refused(StatusCode::FORBIDDEN, "pages in a browser are not served here".into())
}

/// Publishes the one notification that `body` must be.
async fn publish(sessions: &Sessions, target: &str, body: Bytes) -> Result<AdminAnswer, Refused> {
    if !matches!(Message::parse(&body)?, Message::Notification { .. }) {
        // A request needs somebody who waits for its answer, and a response somebody who asked.
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

/// Whether a load balancer should send clients here.
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
    // It asks the operating system, which may take a moment.
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
