//! Asks the authenticator who sends a request, and answers those that it denies.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, Method};

use super::answer::{Answered, json, refuse};
use super::cors;
use crate::handler::Handler;
use crate::identity::{Authenticator, Checked, Denial, Head, Verdict};
use crate::protocol::Refusal;
use crate::server::endpoint::{Endpoint, catch_panic};
use crate::session::Holder;

/// Asks who sends a request.
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization#access-token-privilege-restriction
//# MCP servers MUST validate access tokens before processing the request
pub(super) async fn identify<H: Handler>(
    endpoint: &Endpoint<H>,
    authenticator: &dyn Authenticator,
    head: Head<'_>,
) -> Result<Holder, Denial> {
    // A proxy might use the first header and this server the last: two different principals.
    if head.headers.get_all(AUTHORIZATION).iter().nth(1).is_some() {
        return Err(Denial::Malformed);
    }
    let verdict = match catch_panic(|| authenticator.authenticate(head)) {
        Some(Checked::Now(verdict)) => verdict,
        Some(Checked::Later(later)) => settle(later, endpoint).await,
        None => Err(Denial::Unavailable),
    };
    verdict.map(|principal| endpoint.sessions.principals().hold(&principal))
}

/// Waits for a verdict, for at most [`Config::read_timeout`](crate::server::Config::read_timeout).
async fn settle<H: Handler>(
    mut later: Pin<Box<dyn Future<Output = Verdict> + Send + '_>>,
    endpoint: &Endpoint<H>,
) -> Verdict {
    let settled = poll_fn(|context| match catch_panic(|| later.as_mut().poll(context)) {
        Some(polled) => polled,
        None => Poll::Ready(Err(Denial::Unavailable)),
    });
    tokio::time::timeout(endpoint.config.read_timeout, settled).await.unwrap_or(Err(Denial::Unavailable))
}

/// The answer to a request that is denied.
pub(super) fn deny<H: Handler>(endpoint: &Endpoint<H>, denial: &Denial) -> Answered<H> {
    endpoint.denials.count(denial);
    tracing::debug!(reason = denial.reason(), "denied a request");
    let mut answer = refuse(&denial.refusal(), None);
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization#protected-resource-metadata-discovery-requirements
    //# WWW-Authenticate Header: Include the resource metadata URL in the `WWW-Authenticate` HTTP header under
    //# `resource_metadata` when returning `401 Unauthorized` responses
    if let Some(challenge) = denial.challenge(endpoint.config.resource.as_ref()) {
        answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    answer
}

/// Answers with the metadata of the protected resource, if the request asks for it and it is configured. This needs no
/// token.
pub(super) fn metadata<H: Handler>(
    endpoint: &Endpoint<H>,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Option<Answered<H>> {
    let resource = endpoint.config.resource.as_ref()?;
    if !resource.is_metadata(path, &endpoint.config.path) {
        return None;
    }
    Some(match *method {
        Method::GET | Method::HEAD => json(resource.document().clone()),
        Method::OPTIONS => cors::options(endpoint, headers),
        _ => refuse(&Refusal::MethodNotAllowed, None),
    })
}
