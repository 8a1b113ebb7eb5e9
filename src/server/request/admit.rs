//! Checks every request, whatever its method: the size of its head, its host, its origin, and the rate of its address.

use std::net::IpAddr;

use http::{HeaderMap, Request};

use crate::handler::Handler;
use crate::protocol::{Refusal, check_host, check_origin};
use crate::server::config::Allowed;
use crate::server::endpoint::Endpoint;

/// Maximum number of header lines of a request. From 100 on, hyper refuses by itself.
const MAX_HEADERS: usize = 90;

/// Checks what every request must satisfy. `is_read_by_page`: a page of its origin may read the
/// answer, so the origin is allowed.
pub(super) fn check<H: Handler, B>(
    endpoint: &Endpoint<H>,
    allowed: &Allowed,
    request: &Request<B>,
    is_read_by_page: bool,
    address: IpAddr,
) -> Result<(), Refusal> {
    let headers = request.headers();
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let admitted = check_size(headers, endpoint.config.max_header_bytes)
        .and_then(|()| check_host(headers, authority, &allowed.hosts))
        .and_then(|()| if is_read_by_page { Ok(()) } else { check_origin(headers, &allowed.origins) })
        .and_then(|()| endpoint.rates.check_address(address));
    admitted.inspect_err(|refusal| {
        tracing::debug!(kind = refusal.kind(), "refused a request before its body");
        endpoint.warned.note(refusal, endpoint.now());
    })
}

/// hyper has wider limits of its own; within them a refusal names the fault.
fn check_size(headers: &HeaderMap, max_bytes: usize) -> Result<(), Refusal> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > MAX_HEADERS || bytes > max_bytes { Err(Refusal::HeadersTooLarge) } else { Ok(()) }
}
