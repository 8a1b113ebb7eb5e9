//! The ID of a request, and its line in the access log.
//!
//! Off by default: then a request costs one look at a switch. A [`Record`] travels with its answer, to hyper or to the
//! writer. When the answer ends, the record is dropped and writes its line. No line contains a path, a query, a
//! session ID or anything of a body.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::protocol::headers::single;
use crate::server::config::AccessLog;
use crate::session::Principal;
use crate::sync::{AtomicU64, Ordering};

/// The response header with the ID of the request.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Logged as the status when the client disconnected before its answer, as nginx does.
const CLIENT_WENT_AWAY: u16 = 499;

/// The ID of one request: 128 bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestTag(u128);

impl RequestTag {
    //= https://www.w3.org/TR/trace-context/#traceparent-header-field-values
    //# Vendors MUST ignore the traceparent when the trace-id is invalid (for example if it contains non-allowed
    //# characters).
    /// The trace ID of a valid `traceparent`.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let value = single(headers, &TRACEPARENT).ok()??;
        let (version, rest) = value.split_at_checked(2)?;
        let (trace, rest) = rest.strip_prefix('-')?.split_at_checked(32)?;
        let (parent, rest) = rest.strip_prefix('-')?.split_at_checked(16)?;
        let (flags, rest) = rest.strip_prefix('-')?.split_at_checked(2)?;
        let are_digits = [version, trace, parent, flags]
            .iter()
            .all(|part| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        // A later version may append fields. Version 255 is invalid.
        let is_version = version != "ff" && (rest.is_empty() || version != "00" && rest.starts_with('-'));
        let is_something = |part: &str| part.bytes().any(|byte| byte != b'0');
        if !(are_digits && is_version && is_something(trace) && is_something(parent)) {
            return None;
        }
        u128::from_str_radix(trace, 16).ok().map(Self)
    }

    /// The value of the response header.
    fn to_header_value(self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.to_string()).ok()
    }
}

impl fmt::Display for RequestTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Creates the records of one server.
pub(in crate::server) struct Records {
    access_log: AccessLog,
    request_ids: bool,
    /// Two random keys, so that no two servers give out the same IDs.
    keys: [RandomState; 2],
    count: AtomicU64,
}

impl Records {
    pub(in crate::server) fn new(access_log: AccessLog, request_ids: bool) -> Self {
        Self {
            access_log,
            request_ids,
            keys: [RandomState::new(), RandomState::new()],
            count: AtomicU64::new(0),
        }
    }

    /// Begins the record of a request; `None` if requests have neither a log line nor an ID.
    pub(super) fn begin(
        &self,
        method: &'static str,
        address: IpAddr,
        headers: &HeaderMap,
    ) -> Option<Box<Record>> {
        let is_logged = self.access_log != AccessLog::Off;
        if !is_logged && !self.request_ids {
            return None;
        }
        let tag = RequestTag::of(headers).unwrap_or_else(|| self.tag());
        Some(Box::new(Record {
            tag,
            method,
            address,
            is_logged,
            principal: None,
            status: CLIENT_WENT_AWAY,
            bytes: 0,
            started: Instant::now(),
        }))
    }

    /// Whether lines name the principal.
    pub(super) fn name_principals(&self) -> bool {
        self.access_log == AccessLog::WithPrincipal
    }

    fn tag(&self) -> RequestTag {
        // Relaxed: each number is given out once, in any order.
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let [high, low] = self.keys.each_ref().map(|key| u128::from(key.hash_one(count)));
        RequestTag(high << 64 | low)
    }
}

/// The record of one request. Writes its log line when it is dropped.
pub(super) struct Record {
    tag: RequestTag,
    method: &'static str,
    address: IpAddr,
    is_logged: bool,
    principal: Option<Principal>,
    status: u16,
    bytes: u64,
    started: Instant,
}

impl Record {
    pub(super) fn tag(&self) -> RequestTag {
        self.tag
    }

    /// Whether a log line is written.
    pub(super) fn is_logged(&self) -> bool {
        self.is_logged
    }

    /// Notes the beginning of the answer, and adds the ID to its headers.
    pub(super) fn answer(&mut self, status: u16, headers: &mut HeaderMap, principal: Option<Principal>) {
        self.status = status;
        self.principal = principal;
        if let Some(value) = self.tag.to_header_value() {
            headers.insert(X_REQUEST_ID, value);
        }
    }

    /// Adds to the bytes of the answer's body that were sent.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.is_logged {
            return;
        }
        let Self { tag, method, address, status, bytes, started, .. } = self;
        tracing::info!(
            target: "ringmain::access",
            method,
            status,
            bytes,
            ms = started.elapsed().as_micros() as f64 / 1000.0,
            peer = %address,
            request = %tag,
            principal = self.principal.as_ref().map(Principal::subject),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(values: &[&str]) -> Option<String> {
        let headers =
            values.iter().map(|value| (TRACEPARENT, HeaderValue::from_str(value).unwrap())).collect();
        RequestTag::of(&headers).map(|tag| tag.to_string())
    }

    #[test]
    fn trace_id_is_taken_over_from_a_valid_traceparent() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let good = format!("00-{trace}-b7ad6b7169203331-01");
        assert_eq!(tag(&[&good]).as_deref(), Some(trace));
        assert_eq!(tag(&[&format!("cc-{trace}-b7ad6b7169203331-01-later")]).as_deref(), Some(trace));
        assert_eq!(tag(&[]), None);
        assert_eq!(tag(&[&good, &good.replace("0af", "1af")]), None, "two that differ");
        for bad in [
            "",
            "00",
            &format!("ff-{trace}-b7ad6b7169203331-01"),
            &format!("00-{trace}-b7ad6b7169203331-01-later"),
            &format!("00-{trace}-0000000000000000-01"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            &good.to_uppercase(),
            &format!("00-{trace}-b7ad6b7169203331"),
            &format!("00-{trace}-b7ad6b716920333-01"),
            &format!("00-{trace}-b7ad6b7169203331-0x"),
            "00-0af7651916cd43dd8448eb211c80319 -b7ad6b7169203331-01",
        ] {
            assert_eq!(tag(&[bad]), None, "{bad}");
        }
    }

    #[test]
    fn ids_differ_and_nothing_is_made_where_nothing_is_noted() {
        let (headers, address) = (HeaderMap::new(), IpAddr::from([192, 0, 2, 1]));
        assert!(Records::new(AccessLog::Off, false).begin("GET", address, &headers).is_none());
        let records = Records::new(AccessLog::Off, true);
        let mut tags: Vec<_> =
            (0..1000).map(|_| records.begin("GET", address, &headers).unwrap().tag().to_string()).collect();
        assert!(tags.iter().all(|tag| tag.len() == 32));
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), 1000);
    }
}
