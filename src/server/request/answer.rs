//! Builds answers: a refusal, an empty answer, one JSON message, or an event stream.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::body::{AnswerBody, EventStream};
use crate::handler::Handler;
use crate::protocol::{Refusal, RequestId};
use crate::server::endpoint::Endpoint;
use crate::server::metrics::handle::mark;
use crate::session::Connection;
use crate::sync::Arc;

/// A finished stream of at most this many bytes is sent whole: the socket takes them at once.
const WHOLE: usize = 64 << 10;
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The bytes sent to a connection beyond the limit, whose request is not read.
pub(in crate::server) const TOO_MANY_CONNECTIONS: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncache-control: no-store\r\nconnection: close\r\n\
    content-type: application/json\r\ncontent-length: 101\r\n\r\n\
    {\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32000,\"message\":\"there are too many connections; try again later\"}}";

/// An answer to a request.
pub(in crate::server) type Answered<H> = Response<AnswerBody<H>>;

/// The answer to a request that is refused.
pub(super) fn refuse<H>(refusal: &Refusal, id: Option<&RequestId>) -> Answered<H> {
    let mut answer = json(refusal.body(id));
    *answer.status_mut() = refusal.status();
    mark(&mut answer, refusal);
    if let Some(allow) = refusal.allow() {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    if let Some(codings) = refusal.accept_encoding() {
        answer.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static(codings));
    }
    if let Some(seconds) = refusal.retry_after() {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
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
pub(super) fn json<H>(body: impl Into<Bytes>) -> Answered<H> {
    let mut answer = Response::new(AnswerBody::bytes(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// An answer that is an event stream. A short stream that has finished is sent whole and with its length, which is
/// cheaper than chunks.
pub(super) fn stream<H: Handler>(endpoint: &Arc<Endpoint<H>>, mut connection: Connection) -> Answered<H> {
    let mut answer = Response::new(match connection.take_rest(WHOLE) {
        Some(bytes) => AnswerBody::bytes(bytes),
        None => AnswerBody::Stream(Box::new(EventStream::new(connection, endpoint.clone()))),
    });
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    // nginx and others buffer streams unless this header says otherwise.
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    answer
}
