//! Routes a request: admits or refuses it, dispatches it by path and method, counts and logs its answer.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use tracing::Instrument;
use tracing::field::Empty;

use super::answer::{Answered, refuse};
use super::body::AnswerBody;
use super::caller::Caller;
use super::record::Record;
use super::{admit, authenticate, cors, delete, get, post};
use crate::handler::Handler;
use crate::identity::{Head, is_same_path};
use crate::protocol::Refusal;
use crate::server::endpoint::Endpoint;
use crate::server::metrics::handle::{MethodClass, Readiness};
use crate::session::{Holder, Principal};
use crate::sync::Arc;

/// The other side of a connection.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Peer {
    pub(in crate::server) address: IpAddr,
    /// Whether a proxy at this address states the client in headers.
    pub(in crate::server) writes_headers: bool,
}

/// Answers one request. The request is borrowed all the way down, so that the future holds it once.
pub(in crate::server) async fn answer<H, B>(
    endpoint: &Arc<Endpoint<H>>,
    request: &mut Request<B>,
    peer: Peer,
) -> Answered<H>
where
    H: Handler,
    B: Body<Data = Bytes> + Unpin,
{
    let method = MethodClass::of(request.method());
    let address = match peer.writes_headers {
        true => endpoint.config.proxies.client(peer.address, request.headers()),
        false => peer.address,
    };
    let record = endpoint.records.begin(method.as_str(), address, request.headers());
    let span = tracing::debug_span!("request", method = method.as_str(), client = Empty, id = Empty);
    if address != peer.address {
        span.record("client", tracing::field::display(address));
    }
    if let Some(record) = &record {
        span.record("id", tracing::field::display(record.tag()));
    }
    let mut answer = admit(endpoint, request, address).instrument(span.clone()).await;
    if request.method() == Method::HEAD {
        behead(&mut answer);
    }
    tracing::debug!(parent: &span, status = answer.status().as_u16(), "answered");
    endpoint.metrics.count(method, &answer);
    if let Some(record) = record {
        note(record, &mut answer);
    }
    answer
}

/// Answers a request, if the checks of [`admit`] pass.
async fn admit<H, B>(endpoint: &Arc<Endpoint<H>>, request: &mut Request<B>, address: IpAddr) -> Answered<H>
where
    H: Handler,
    B: Body<Data = Bytes> + Unpin,
{
    if let Some(path) = &endpoint.config.health_path
        && request.uri().path() == path
    {
        return health(endpoint, request.method());
    }
    let allowed = endpoint.allowed.load();
    let reader = cors::reader(request.headers(), &allowed);
    let admitted = admit::check(endpoint, &allowed, request, reader.is_some(), address);
    drop(allowed);
    let mut answer = match admitted {
        Ok(()) => dispatch(endpoint, request, address).await,
        Err(refusal) => refuse(&refusal, None),
    };
    //= https://www.rfc-editor.org/rfc/rfc9110#section-15.1
    //# Responses with status codes that are defined as heuristically cacheable (e.g., 200, 203, 204, 206, 300, 301,
    //# 308, 404, 405, 410, 414, and 501 in this specification) can be reused by a cache with heuristic expiration
    //# unless otherwise indicated
    // No cache may serve one session's answer to another.
    answer.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if let Some(origin) = reader {
        cors::allow(answer.headers_mut(), origin);
    }
    answer
}

/// Answers an admitted request, by path and method.
async fn dispatch<H, B>(endpoint: &Arc<Endpoint<H>>, request: &mut Request<B>, address: IpAddr) -> Answered<H>
where
    H: Handler,
    B: Body<Data = Bytes> + Unpin,
{
    if !is_same_path(request.uri().path(), &endpoint.config.path) {
        return authenticate::metadata(endpoint, request.method(), request.uri().path(), request.headers())
            .unwrap_or_else(|| refuse(&Refusal::NotFoundPath, None));
    }
    match *request.method() {
        Method::POST | Method::GET | Method::DELETE => {}
        Method::OPTIONS => return cors::options(endpoint, request.headers()),
        _ => return refuse(&Refusal::MethodNotAllowed, None),
    }
    let holder = match &endpoint.config.authenticator {
        None => Holder::anybody(),
        Some(authenticator) => {
            let head = Head::new(request.method(), request.uri().path(), request.headers(), address);
            match Box::pin(authenticate::identify(endpoint, &**authenticator, head)).await {
                Ok(holder) => holder,
                Err(denial) => return authenticate::deny(endpoint, &denial),
            }
        }
    };
    let sender = if endpoint.records.name_principals() { holder.principal().cloned() } else { None };
    let caller = Caller { address, principal: holder.id(), holder };
    let answered = match endpoint.rates.check_principal(&caller.holder) {
        Err(refusal) => Err(refusal),
        Ok(()) => match *request.method() {
            Method::POST => Ok(post::answer(endpoint, request, caller).await),
            Method::GET => get::answer(endpoint, request.headers(), caller),
            _ => delete::answer(endpoint, request.headers(), caller),
        },
    };
    let mut answer = answered.unwrap_or_else(|refusal| refuse(&refusal, None));
    if let Some(principal) = sender {
        answer.extensions_mut().insert(Sender(principal));
    }
    answer
}

/// Answers the health check of a load balancer.
fn health<H: Handler>(endpoint: &Endpoint<H>, method: &Method) -> Answered<H> {
    let mut answer = if matches!(*method, Method::GET | Method::HEAD) {
        let is_ready = endpoint.metrics.readiness() == Readiness::Serving;
        let mut answer = Response::new(AnswerBody::bytes(if is_ready { "ok\n" } else { "not ready\n" }));
        if !is_ready {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        answer
    } else {
        refuse(&Refusal::MethodNotAllowed, None)
    };
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Removes the body of an answer, and states its size.
//= https://www.rfc-editor.org/rfc/rfc9110#section-9.3.2
//# The HEAD method is identical to GET except that the server MUST NOT send content in the response.
fn behead<H: Handler>(answer: &mut Answered<H>) {
    // hyper does so over HTTP/1.1, and not over HTTP/2.
    if let Some(size) = answer.body().size_hint().exact() {
        answer.headers_mut().entry(CONTENT_LENGTH).or_insert(size.into());
    }
    *answer.body_mut() = AnswerBody::empty();
}

/// The principal of the request, kept with the answer for the access log.
#[derive(Clone)]
struct Sender(Principal);

/// Adds the ID of the request to its answer. The record travels with a stream, and ends here for every other answer.
fn note<H: Handler>(mut record: Box<Record>, answer: &mut Answered<H>) {
    let principal = answer.extensions_mut().remove::<Sender>().map(|Sender(principal)| principal);
    record.answer(answer.status().as_u16(), answer.headers_mut(), principal);
    match answer.body_mut() {
        AnswerBody::Stream(stream) => stream.record(record),
        body @ AnswerBody::Bytes(_) => {
            record.add(body.size_hint().exact().and_then(|size| usize::try_from(size).ok()).unwrap_or(0));
        }
    }
}
