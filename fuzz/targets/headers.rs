//! Everything that reads a header: on its own, against a second reader, and changed in ways that change nothing.
//!
//! The input is lines; the first byte of each says which header it is.
#![no_main]

use std::net::IpAddr;

use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, ORIGIN};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use ringmain::internals::protocol::headers::{self, LAST_EVENT_ID, MCP_PROTOCOL_VERSION, MCP_SESSION_ID};
use ringmain::internals::protocol::{Refusal, check_host, check_origin};
use ringmain::protocol::AllowList;

const NAMES: [HeaderName; 7] =
    [ACCEPT, CONTENT_TYPE, HOST, ORIGIN, MCP_SESSION_ID, MCP_PROTOCOL_VERSION, LAST_EVENT_ID];

/// Whether a second reader takes the host of an allowed authority for this machine.
fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn check_hosts(headers: &HeaderMap, authority: Option<&str>) {
    if check_host(headers, authority, &AllowList::loopback()).is_ok() {
        for host in headers.get_all(HOST).iter().map(|host| host.to_str().unwrap()).chain(authority) {
            let host = host.trim_matches([' ', '\t']);
            let second: http::uri::Authority = host.parse().expect("a second reader takes it");
            assert!(is_loopback(second.host()), "{host:?}");
            assert!(!host.contains('@'));
        }
        assert_eq!(check_host(headers, authority, &AllowList::any()), Ok(()));
        assert!(headers.get_all(HOST).iter().count() <= 1);
    }
    assert!(check_host(headers, authority, &AllowList::nothing()).is_err());
    if check_origin(headers, &AllowList::loopback()).is_ok() {
        for origin in headers.get_all(ORIGIN) {
            let origin = origin.to_str().unwrap().trim_matches([' ', '\t']);
            let second: http::Uri = origin.parse().expect("a second reader takes it");
            assert!(matches!(second.scheme_str(), Some("http" | "https")), "{origin:?}");
            assert!(is_loopback(second.host().unwrap()), "{origin:?}");
            assert!(!origin.contains('@'));
        }
    }
    assert_eq!(check_origin(headers, &AllowList::nothing()).is_ok(), !headers.contains_key(ORIGIN));
}

/// A pattern lets itself in, or whatever stands in the place of its stars.
fn check_pattern(pattern: &str) {
    let Ok(list) = AllowList::nothing().with(pattern) else { return };
    // The star of `*.example.com`, and that of `*:8080`.
    let host = pattern.rsplit("://").next().unwrap();
    let host = host.strip_prefix('*').map_or(host.to_owned(), |rest| format!("a{rest}"));
    let filled = if host.ends_with(":*") { host.replace(":*", ":81") } else { host };
    match pattern {
        "*" => assert!(list.allows_origin("null") && list.allows_host("example.com")),
        "null" => assert!(list.allows_origin("null") && !list.allows_host("example.com")),
        _ => assert!(list.allows_host(&filled), "{pattern:?} {filled:?}"),
    }
    if let Some((scheme, _)) = pattern.split_once("://") {
        assert!(list.allows_origin(&format!("{scheme}://{filled}")), "{pattern:?}");
    }
}

/// The same headers with every letter of the values in another case.
fn upper(headers: &HeaderMap) -> HeaderMap {
    let upper =
        |value: &HeaderValue| HeaderValue::from_bytes(&value.as_bytes().to_ascii_uppercase()).unwrap();
    headers.iter().map(|(name, value)| (name.clone(), upper(value))).collect()
}

/// The same headers, each list of ranges in as many lines as it has members.
fn unfolded(headers: &HeaderMap) -> HeaderMap {
    let mut lines = HeaderMap::new();
    for value in headers.get_all(ACCEPT) {
        for range in value.as_bytes().split(|byte| *byte == b',') {
            lines.append(ACCEPT, HeaderValue::from_bytes(range).unwrap());
        }
    }
    lines
}

fn check_media_types(headers: &HeaderMap) {
    let (post, get) = (headers::check_accept_post(headers), headers::check_accept_get(headers));
    assert!(post.is_err() || get.is_ok(), "a POST asks for more than a GET");
    assert!(headers.contains_key(ACCEPT) || post == Err(Refusal::NotAcceptablePost));
    let changed = upper(headers);
    assert_eq!(headers::check_accept_post(&changed), post);
    assert_eq!(headers::check_accept_get(&changed), get);
    let is_quoted = headers.get_all(ACCEPT).iter().any(|value| value.as_bytes().contains(&b'"'));
    if !is_quoted {
        assert_eq!(headers::check_accept_post(&unfolded(headers)), post);
    }
    let content = headers::check_content_type(headers);
    if content.is_ok() {
        let value = headers[CONTENT_TYPE].to_str().unwrap().trim_start().to_ascii_lowercase();
        assert!(value.starts_with("application/json"));
    }
    // Two that differ in case alone are in conflict.
    if headers.get_all(CONTENT_TYPE).iter().count() == 1 {
        assert_eq!(headers::check_content_type(&upper(headers)), content);
    }
}

fuzz_target!(|data: &[u8]| {
    let mut headers = HeaderMap::new();
    let mut authority = None;
    for line in data.split(|byte| *byte == b'\n').take(32) {
        let Some((first, value)) = line.split_first() else { continue };
        match usize::from(first.wrapping_sub(b'0')) {
            7 => authority = str::from_utf8(value).ok(),
            8 => str::from_utf8(value).iter().for_each(|pattern| check_pattern(pattern)),
            index => {
                let Ok(value) = HeaderValue::from_bytes(value) else { continue };
                headers.append(&NAMES[index % NAMES.len()], value);
            }
        }
    }
    check_hosts(&headers, authority);
    check_media_types(&headers);
    if let Ok(Some(id)) = headers::session_id(&headers) {
        assert_eq!(headers[MCP_SESSION_ID].to_str().unwrap().trim_matches([' ', '\t']), id.to_string());
    }
    if let Ok(Some(version)) = headers::protocol_version(&headers) {
        assert_eq!(
            headers[MCP_PROTOCOL_VERSION].to_str().unwrap().trim_matches([' ', '\t']),
            version.as_str()
        );
    }
    if let Ok(Some(id)) = headers::last_event_id(&headers) {
        assert_eq!(headers[LAST_EVENT_ID].to_str().unwrap().trim_matches([' ', '\t']), id.to_string());
    }
});
