//! From a request to its answer: who may ask, what for, and by which method.

use std::net::IpAddr;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming as RequestBody;
use tracing::Instrument;

use super::body::{AnswerBody, EventStream};
use super::metrics::{self, MethodClass};
use super::{Endpoint, cors, door, post};
use crate::handler::Handler;
use crate::protocol::headers;
use crate::protocol::{Refusal, RequestId, check_host, check_origin};
use crate::session::{Connection, Holder, Session};
use crate::sync::Arc;

/// A finished stream of up to so many bytes is sent whole: the socket takes them at once.
const WHOLE: usize = 64 << 10;

pub(super) type Answered<H> = Response<AnswerBody<H>>;

/// Requests have at most so many header lines. From 100 on hyper refuses by itself.
const MAX_HEADERS: usize = 90;
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Who sent a request.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Where the connection comes from.
    #[allow(dead_code, reason = "limits go by it")]
    pub(super) address: IpAddr,
    /// Whom sessions belong to; 0 is anybody who knows their ID.
    pub(super) principal: u64,
    /// Keeps that number in use.
    pub(super) holder: Holder,
}

/// Answers one request, whatever it is. It is borrowed all the way down, so that the future holds it once.
pub(super) async fn answer<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    request: &mut Request<RequestBody>,
    address: IpAddr,
) -> Answered<H> {
    let method = MethodClass::of(request.method());
    let span = tracing::debug_span!("request", method = method.as_str());
    let answer = admit(endpoint, request, address).instrument(span.clone()).await;
    tracing::debug!(parent: &span, status = answer.status().as_u16(), "answered");
    endpoint.metrics.count(method, &answer);
    answer
}

/// Answers a request if it may come in at all.
async fn admit<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    request: &mut Request<RequestBody>,
    address: IpAddr,
) -> Answered<H> {
    let allowed = endpoint.allowed.load();
    let reader = cors::reader(request.headers(), &allowed);
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let admitted = check_headers(request.headers(), endpoint.config.max_header_bytes)
        .and_then(|()| check_host(request.headers(), authority, &allowed.hosts))
        .and_then(|()| match reader {
            Some(_) => Ok(()),
            None => check_origin(request.headers(), &allowed.origins),
        });
    drop(allowed);
    let mut answer = match admitted {
        Ok(()) => dispatch(endpoint, request, address).await,
        Err(refusal) => {
            door::note(endpoint, &refusal);
            refuse(&refusal, None)
        }
    };
    if let Some(origin) = reader {
        cors::allow(answer.headers_mut(), origin);
    }
    answer
}

/// hyper has limits of its own, further out; within them a refusal says what is wrong.
fn check_headers(headers: &HeaderMap, max_bytes: usize) -> Result<(), Refusal> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > MAX_HEADERS || bytes > max_bytes { Err(Refusal::HeadersTooLarge) } else { Ok(()) }
}

async fn dispatch<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    request: &mut Request<RequestBody>,
    address: IpAddr,
) -> Answered<H> {
    if request.uri().path() != endpoint.config.path {
        return door::metadata(endpoint, request).unwrap_or_else(|| refuse(&Refusal::NotFoundPath, None));
    }
    match *request.method() {
        Method::POST | Method::GET | Method::DELETE => {}
        Method::OPTIONS => return options(endpoint, request.headers()),
        _ => return refuse(&Refusal::MethodNotAllowed, None),
    }
    let holder = match &endpoint.config.authenticator {
        None => Holder::anybody(),
        Some(authenticator) => {
            match Box::pin(door::identify(endpoint, &**authenticator, request, address)).await {
                Ok(holder) => holder,
                Err(denial) => return door::deny(endpoint, &denial),
            }
        }
    };
    let caller = Caller { address, principal: holder.number(), holder };
    let answered = match *request.method() {
        Method::POST => return post::answer(endpoint, request, caller).await,
        Method::GET => get(endpoint, request.headers(), caller),
        _ => delete(endpoint, request.headers(), caller),
    };
    answered.unwrap_or_else(|refusal| refuse(&refusal, None))
}

/// Opens the standalone stream, or resumes the one that `Last-Event-ID` names.
fn get<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    headers: &HeaderMap,
    caller: Caller,
) -> Result<Answered<H>, Refusal> {
    headers::check_accept_get(headers)?;
    let session = initialized_session(endpoint, headers, caller)?;
    if endpoint.is_draining() {
        return Err(Refusal::Draining);
    }
    let connection = session.connect(headers::last_event_id(headers)?)?;
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#listening-for-messages-from-the-server
    //# The server MUST either return `Content-Type: text/event-stream` in response to this HTTP GET, or else return
    //# HTTP 405 Method Not Allowed
    // A departure: a client that has everything of a finished stream gets 204, which in server-sent events means
    // "do not reconnect". An empty stream would be resumed again and again by clients that do not count a JSON-RPC
    // error as the end, and to 405 some of them answer with a retry.
    if connection.is_exhausted() {
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    Ok(stream(endpoint, connection))
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#session-management
//# Clients that no longer need a particular session (e.g., because the user is leaving the client application)
//# SHOULD send an HTTP DELETE to the MCP endpoint with the `MCP-Session-Id` header, to explicitly terminate the
//# session.
fn delete<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    headers: &HeaderMap,
    caller: Caller,
) -> Result<Answered<H>, Refusal> {
    let session = session(endpoint, headers, caller)?;
    endpoint.terminate(&session);
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) fn options<H: Handler>(endpoint: &Endpoint<H>, headers: &HeaderMap) -> Answered<H> {
    let mut answer = empty(StatusCode::NO_CONTENT);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(Refusal::ALLOW));
    if cors::reader(headers, &endpoint.allowed.load()).is_some() {
        cors::preflight(answer.headers_mut());
    }
    answer
}

/// The session that the request names. The version header is checked on the way.
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/security_best_practices#session-hijacking
//# MCP Servers MUST NOT use sessions for authentication.
pub(super) fn session<H: Handler>(
    endpoint: &Endpoint<H>,
    headers: &HeaderMap,
    caller: Caller,
) -> Result<Arc<Session>, Refusal> {
    headers::protocol_version(headers)?;
    let id = headers::session_id(headers)?.ok_or(Refusal::MissingSession)?;
    let session = endpoint.sessions.find(id, caller.principal)?;
    session.touch();
    Ok(session)
}

/// The session that the request names, once it is past `initialize`.
pub(super) fn initialized_session<H: Handler>(
    endpoint: &Endpoint<H>,
    headers: &HeaderMap,
    caller: Caller,
) -> Result<Arc<Session>, Refusal> {
    let session = session(endpoint, headers, caller)?;
    if session.version().is_none() { Err(Refusal::NotInitialized) } else { Ok(session) }
}

/// An answer that says what is wrong.
pub(super) fn refuse<H>(refusal: &Refusal, id: Option<&RequestId>) -> Answered<H> {
    let mut answer = json(refusal.body(id));
    *answer.status_mut() = refusal.status();
    metrics::mark(&mut answer, refusal);
    if let Some(allow) = refusal.allow() {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    answer
}

/// An answer without a body.
pub(super) fn empty<H>(status: StatusCode) -> Answered<H> {
    let mut answer = Response::new(AnswerBody::empty());
    *answer.status_mut() = status;
    answer
}

/// An answer that is one JSON-RPC message.
pub(super) fn json<H>(body: impl Into<bytes::Bytes>) -> Answered<H> {
    let mut answer = Response::new(AnswerBody::bytes(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// An answer that is an event stream. One that is finished by now, and short, is sent whole and with its length: what
/// a stream of chunks costs is for those that go on.
pub(super) fn stream<H: Handler>(endpoint: &Arc<Endpoint<H>>, mut connection: Connection) -> Answered<H> {
    let mut answer = Response::new(match connection.take_rest(WHOLE) {
        Some(bytes) => AnswerBody::bytes(bytes),
        None => AnswerBody::Stream(Box::new(EventStream::new(connection, endpoint.clone()))),
    });
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // nginx and its kin hold streams back unless told not to.
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    answer
}
