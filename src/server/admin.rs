//! The operator's side: publish to clients, look at health and numbers.
//!
//! On an address of its own, for programs in any language on the same machine. Whoever reaches it may publish
//! to any session: bind it to loopback, and let a proxy say who may pass.
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
//! one notification or the query does not say to whom, 404 if there is no such session, 413 if the body is too
//! large; with `{"error":"…"}`.

use std::borrow::Cow;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming as RequestBody;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::accept::{Pause, listen};
use super::{Metrics, Readiness};
use crate::protocol::{AllowList, Message, Refusal, SessionId, check_host, check_origin, write_single_line};
use crate::session::{Reach, Sessions};
use crate::sync::Arc;

/// Largest message that may be published, in bytes.
const MAX_BODY_BYTES: usize = 4 << 20;
/// Publishing to more sessions than this leaves the reactor, which others need meanwhile.
const MANY_SESSIONS: usize = 1000;

/// The operator's endpoint on a socket.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    metrics: Metrics,
}

impl Admin {
    /// Listens on `address` for the operator of the server with these `metrics`.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on.
    pub fn bind(address: SocketAddr, metrics: Metrics) -> io::Result<Self> {
        Ok(Self { listener: listen(address)?, metrics })
    }

    /// The hosts it may be addressed as: loopback, and the address it was bound to. Bound to all addresses, it
    /// cannot know its names, and the operator has chosen.
    fn hosts(&self) -> AllowList {
        match self.listener.local_addr() {
            Ok(address) if address.ip().is_unspecified() => AllowList::any(),
            Ok(address) => {
                AllowList::loopback().with(&address.to_string()).unwrap_or_else(|_| AllowList::loopback())
            }
            Err(_) => AllowList::loopback(),
        }
    }

    /// The address it listens on.
    ///
    /// # Errors
    ///
    /// The operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves for as long as it is polled, during a drain of the server too.
    pub async fn run(self) {
        let hosts = Arc::new(self.hosts());
        let mut pause = Pause::default();
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    pause.after(&error).await;
                    continue;
                }
            };
            let (metrics, hosts) = (self.metrics.clone(), hosts.clone());
            let service = service_fn(move |request| {
                let (metrics, hosts) = (metrics.clone(), hosts.clone());
                async move { Ok::<_, Infallible>(answer(&metrics, &hosts, request).await) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    }
}

type Answered = Response<Full<Bytes>>;

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

async fn answer(metrics: &Metrics, hosts: &AllowList, request: Request<RequestBody>) -> Answered {
    admit_and_answer(metrics, hosts, request).await.unwrap_or_else(|Refused(status, message)| {
        let mut answer = json(serde_json::json!({ "error": message }).to_string());
        *answer.status_mut() = status;
        answer
    })
}

async fn admit_and_answer(
    metrics: &Metrics,
    hosts: &AllowList,
    request: Request<RequestBody>,
) -> Result<Answered, Refused> {
    // A page in a browser on this machine must neither publish nor look: the same checks as at the endpoint.
    check_host(request.headers(), None, hosts)?;
    check_origin(request.headers(), hosts)?;
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/publish") => publish(metrics.sessions(), request).await,
        (&Method::GET, "/healthz") => Ok(with_type("ok\n".into(), "text/plain; charset=utf-8")),
        (&Method::GET, "/readyz") => Ok(readiness(metrics)),
        (&Method::GET, "/metrics") => page(metrics).await,
        (_, "/publish" | "/healthz" | "/readyz" | "/metrics") => {
            Err(Refused(StatusCode::METHOD_NOT_ALLOWED, "use POST for /publish, GET for the rest".into()))
        }
        _ => Err(Refused(StatusCode::NOT_FOUND, "there are /publish, /healthz, /readyz and /metrics".into())),
    }
}

async fn publish(sessions: &Sessions, request: Request<RequestBody>) -> Result<Answered, Refused> {
    let target =
        target(request.uri().query()).ok_or(bad("say to whom: ?session=ID or ?session=all"))?.to_owned();
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await;
    let body = body.map_err(|_| Refusal::BodyTooLarge { limit: MAX_BODY_BYTES })?.to_bytes();
    if !matches!(Message::parse(&body)?, Message::Notification { .. }) {
        // A request needs somebody who waits for its answer, and a response somebody who asked.
        return Err(bad("the body must be one JSON-RPC notification"));
    }
    let write = move |out: &mut Vec<u8>| write_single_line(out, str::from_utf8(&body).unwrap_or_default());
    let reach = if target == "all" {
        publish_to_all(sessions, write).await?
    } else {
        let gone = || Refused(StatusCode::NOT_FOUND, "there is no such session".into());
        let session = SessionId::parse(&target).and_then(|id| sessions.find_any(id)).ok_or_else(gone)?;
        session.publish(write).map_err(|_| gone())?;
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
    if sessions.len() <= MANY_SESSIONS {
        return Ok(sessions.publish(write));
    }
    let sessions = sessions.clone();
    tokio::task::spawn_blocking(move || sessions.publish(write)).await.map_err(|_| Refusal::Internal)
}

/// The value of `session` in a query.
fn target(query: Option<&str>) -> Option<&str> {
    query?.split('&').find_map(|pair| pair.strip_prefix("session="))
}

/// Whether a load balancer should send clients here.
fn readiness(metrics: &Metrics) -> Answered {
    let readiness = metrics.readiness();
    let ready = readiness == Readiness::Serving;
    let mut answer = json(format!(r#"{{"ready":{ready},"state":"{}"}}"#, readiness.as_str()));
    if !ready {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    answer
}

async fn page(metrics: &Metrics) -> Result<Answered, Refused> {
    let metrics = metrics.clone();
    // It asks the operating system, which may take a moment.
    let text = tokio::task::spawn_blocking(move || metrics.text()).await.map_err(|_| Refusal::Internal)?;
    Ok(with_type(text.into(), "application/openmetrics-text; version=1.0.0; charset=utf-8"))
}

fn json(body: String) -> Answered {
    with_type(body.into(), "application/json")
}

fn with_type(body: Bytes, content_type: &'static str) -> Answered {
    let mut answer = Response::new(Full::new(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
