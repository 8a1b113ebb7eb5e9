//! OPTIONS and CORS: what pages of other origins may do, where the operator allows it.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::answer::{Answered, empty};
use crate::handler::Handler;
use crate::protocol::{Refusal, headers};
use crate::server::config::Allowed;
use crate::server::endpoint::Endpoint;

/// Headers that a page may send.
const ALLOWED_HEADERS: &str = "authorization, content-type, accept, mcp-session-id, mcp-protocol-version, last-event-id, mcp-method, mcp-name";
/// Headers of an answer that a page may read.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "mcp-session-id, mcp-protocol-version, www-authenticate, retry-after, x-request-id",
);
const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static(Refusal::ALLOW);

/// The origin of the request, if its page may read the answer.
pub(super) fn reader(request: &HeaderMap, allowed: &Allowed) -> Option<HeaderValue> {
    // Several different values name no single origin. They are refused where the origin is checked.
    let origin = headers::single(request, &ORIGIN).ok()??;
    let is_allowed = allowed.cors.allows_origin(origin);
    if is_allowed { HeaderValue::from_str(origin).ok() } else { None }
}

/// Allows the page to read the answer.
pub(super) fn allow(answer: &mut HeaderMap, origin: HeaderValue) {
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
    answer.append(VARY, HeaderValue::from_static("origin"));
}

/// Answers OPTIONS: with the supported methods, and for a page of another origin with what it may send.
pub(super) fn options<H: Handler>(endpoint: &Endpoint<H>, headers: &HeaderMap) -> Answered<H> {
    let mut answer = empty(StatusCode::NO_CONTENT);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(Refusal::ALLOW));
    let allowed = endpoint.allowed.load();
    if reader(headers, &allowed).is_some() {
        preflight(answer.headers_mut(), &allowed.cors_headers);
    }
    answer
}

/// Answers a preflight request. Its page may also send the headers `also`.
fn preflight(answer: &mut HeaderMap, also: &[HeaderName]) {
    let headers = also.iter().fold(ALLOWED_HEADERS.to_owned(), |all, name| all + ", " + name.as_str());
    let headers = HeaderValue::try_from(headers);
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
    answer.extend(headers.map(|headers| (ACCESS_CONTROL_ALLOW_HEADERS, headers)));
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
}
