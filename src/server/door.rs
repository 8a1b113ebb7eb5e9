//! Who may come in: what the authenticator says, and what those are told who may not.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::task::Poll;

use http::header::WWW_AUTHENTICATE;
use http::{Method, Request};
use hyper::body::Incoming as RequestBody;

use super::route::{self, Answered};
use super::{Endpoint, unwinding};
use crate::handler::Handler;
use crate::identity::{Authenticator, Checked, Denial, Head, Verdict};
use crate::protocol::Refusal;
use crate::session::Holder;
use crate::sync::{AtomicU64, Ordering};

/// Milliseconds between two warnings that a host or an origin is not allowed.
const WARN_EVERY: u64 = 10_000;

/// Asks who sends a request.
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization#access-token-privilege-restriction
//# MCP servers MUST validate access tokens before processing the request
pub(super) async fn identify<H: Handler>(
    endpoint: &Endpoint<H>,
    authenticator: &dyn Authenticator,
    request: &Request<RequestBody>,
    address: IpAddr,
) -> Result<Holder, Denial> {
    let head = Head::new(request.method(), request.uri().path(), request.headers(), address);
    let verdict = match unwinding(|| authenticator.authenticate(head)) {
        Some(Checked::Now(verdict)) => verdict,
        Some(Checked::Later(later)) => settle(later, endpoint).await,
        None => Err(Denial::Unavailable),
    };
    verdict.map(|principal| endpoint.sessions.principals().hold(&principal))
}

/// Waits for a verdict, within the time that a request has to be read.
async fn settle<H: Handler>(
    mut later: Pin<Box<dyn Future<Output = Verdict> + Send + '_>>,
    endpoint: &Endpoint<H>,
) -> Verdict {
    let settled = poll_fn(|context| match unwinding(|| later.as_mut().poll(context)) {
        Some(polled) => polled,
        None => Poll::Ready(Err(Denial::Unavailable)),
    });
    tokio::time::timeout(endpoint.config.read_timeout, settled).await.unwrap_or(Err(Denial::Unavailable))
}

/// The answer to those who may not come in.
pub(super) fn deny<H: Handler>(endpoint: &Endpoint<H>, denial: &Denial) -> Answered<H> {
    endpoint.denials.count(denial);
    tracing::debug!(reason = denial.reason(), "denied a request");
    let mut answer = route::refuse(&denial.refusal(), None);
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization#protected-resource-metadata-discovery-requirements
    //# WWW-Authenticate Header: Include the resource metadata URL in the `WWW-Authenticate` HTTP header under
    //# `resource_metadata` when returning `401 Unauthorized` responses
    if let Some(challenge) = denial.challenge(endpoint.config.resource.as_ref()) {
        answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    answer
}

/// Answers with the metadata of the protected resource, if the request asks for it and there is any. Nobody needs a
/// token for that.
pub(super) fn metadata<H: Handler>(
    endpoint: &Endpoint<H>,
    request: &Request<RequestBody>,
) -> Option<Answered<H>> {
    let resource = endpoint.config.resource.as_ref()?;
    if !resource.is_metadata(request.uri().path(), &endpoint.config.path) {
        return None;
    }
    Some(match *request.method() {
        Method::GET | Method::HEAD => route::json(resource.document().clone()),
        Method::OPTIONS => route::options(endpoint, request.headers()),
        _ => route::refuse(&Refusal::MethodNotAllowed, None),
    })
}

/// When it was last said aloud that a host, and that an origin, is not allowed.
#[derive(Debug, Default)]
pub(super) struct Warned {
    host: AtomicU64,
    origin: AtomicU64,
}

/// Notes a refusal at the door. A host or an origin that is not allowed is most often one that was forgotten: the
/// setting is named, so seldom that a flood of such requests does not fill the log, and without the value, which is
/// the client's.
pub(super) fn note<H: Handler>(endpoint: &Endpoint<H>, refusal: &Refusal) {
    tracing::debug!(kind = refusal.kind(), "refused a request at the door");
    let now = endpoint.sessions.clock().now().0;
    match refusal {
        Refusal::BadHost if is_time(&endpoint.warned.host, now) => {
            tracing::warn!("refused a Host: allow it with --allow-host (Config::allowed.hosts)");
        }
        Refusal::BadOrigin if is_time(&endpoint.warned.origin, now) => {
            tracing::warn!("refused an Origin: allow it with --cors-origin (Config::allowed.cors)");
        }
        _ => {}
    }
}

/// Whether it was not said for a while; then it is about to be.
fn is_time(next: &AtomicU64, now: u64) -> bool {
    // Relaxed: a time that orders nothing. Of those who come at once, one is told yes.
    next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| (now >= next).then_some(now + WARN_EVERY))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_at_once_and_then_now_and_then() {
        let next = AtomicU64::default();
        let said = |from: u64, to: u64| (from..to).filter(|now| is_time(&next, *now)).count();
        assert_eq!(said(0, 1), 1);
        assert_eq!(said(1, WARN_EVERY), 0);
        assert_eq!(said(WARN_EVERY, 3 * WARN_EVERY), 2);
    }
}
