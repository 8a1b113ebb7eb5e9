//! Host and port, read strictly from a `Host` header, an `:authority` or an origin.
//!
//! What browsers and proxies send has one spelling, so everything else is refused instead of repaired: user
//! information, an empty or padded port, a trailing dot, an IPv4 address in an odd base, an IPv6 zone. Two
//! programs that read a lenient spelling differently are how allow-lists are passed by. Only letter case is
//! free.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A host as it was sent; names keep their letter case and compare without it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Host<'a> {
    Name(&'a str),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

impl<'a> Host<'a> {
    /// Reads a host: a DNS name, an IPv4 address, or an IPv6 address in brackets.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            return inner.strip_suffix(']')?.parse().ok().map(Self::V6);
        }
        // What most clients of one machine send, without a look at every letter.
        if text == "localhost" {
            return Some(Self::Name(text));
        }
        if text.starts_with(|first: char| first.is_ascii_digit())
            && let Ok(address) = text.parse()
        {
            return Some(Self::V4(address));
        }
        if !is_name(text) {
            return None;
        }
        // A name whose last label is a number is an address to every browser, so it is read as one or
        // refused.
        let last = text.rsplit('.').next()?;
        if last.bytes().all(|byte| byte.is_ascii_digit()) || has_hex_prefix(last) {
            return text.parse().ok().map(Self::V4);
        }
        Some(Self::Name(text))
    }

    /// Whether the host is this machine: `localhost`, 127.0.0.0/8 or `::1`.
    pub(super) fn is_loopback(self) -> bool {
        match self {
            Self::Name(name) => name.eq_ignore_ascii_case("localhost"),
            Self::V4(address) => address.is_loopback(),
            Self::V6(address) => address.is_loopback(),
        }
    }
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(name), Self::Name(other)) => name.eq_ignore_ascii_case(other),
            (Self::V4(address), Self::V4(other)) => address == other,
            (Self::V6(address), Self::V6(other)) => address == other,
            _ => false,
        }
    }
}

/// A host with the port that was written behind it, if one was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Authority<'a> {
    pub(super) host: Host<'a>,
    pub(super) port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads `host` or `host:port`.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (host, port) = split_port(text);
        let port = match port {
            Some(port) => Some(parse_port(port)?),
            None => None,
        };
        Some(Self { host: Host::parse(host)?, port })
    }
}

/// The origin of a web page: scheme, host and port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) scheme: &'a str,
    pub(super) authority: Authority<'a>,
}

impl<'a> Origin<'a> {
    /// Reads `scheme://host` or `scheme://host:port`; no path, not even `/`.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        is_scheme(scheme).then_some(())?;
        Some(Self { scheme, authority: Authority::parse(authority)? })
    }

    /// Returns the port, also if it was left out because it is the scheme's own.
    pub(super) fn effective_port(&self) -> Option<u16> {
        self.authority.port.or_else(|| default_port(self.scheme))
    }
}

/// Splits off what stands behind the last colon outside brackets.
pub(super) fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    }
}

/// Reads a port: decimal, 1 to 65535, no sign and no leading zero.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if is_plain { text.parse().ok() } else { None }
}

/// Returns the port that a scheme leaves out.
pub(super) fn default_port(scheme: &str) -> Option<u16> {
    if scheme.eq_ignore_ascii_case("http") {
        Some(80)
    } else if scheme.eq_ignore_ascii_case("https") {
        Some(443)
    } else {
        None
    }
}

/// Whether the text is a URL scheme.
pub(super) fn is_scheme(text: &str) -> bool {
    let is_scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.bytes().all(is_scheme_byte)
}

/// Whether the text is a DNS name: labels of letters, digits, `-` and `_`, none of them empty.
fn is_name(text: &str) -> bool {
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| matches!(label.len(), 1..=63) && label.bytes().all(is_name_byte);
    text.len() <= 253 && text.split('.').all(is_label)
}

fn has_hex_prefix(label: &str) -> bool {
    let is_hex = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    label.strip_prefix("0x").or(label.strip_prefix("0X")).is_some_and(is_hex)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_names_and_addresses() {
        for (text, port, is_loopback) in [
            ("localhost", None, true),
            ("LocalHost:8080", Some(8080), true),
            ("127.0.0.1:1", Some(1), true),
            ("127.255.0.9", None, true),
            ("128.0.0.1", None, false),
            ("[::1]", None, true),
            ("[0:0:0:0:0:0:0:1]:65535", Some(65535), true),
            ("[::2]:80", Some(80), false),
            ("my_host-1.example.com", None, false),
            ("localhost.example.com", None, false),
            ("127.0.0.1.example.com", None, false),
        ] {
            let authority = Authority::parse(text).expect(text);
            assert_eq!(authority.port, port, "{text}");
            assert_eq!(authority.host.is_loopback(), is_loopback, "{text}");
        }
    }

    #[test]
    fn refuses_what_others_may_read_differently() {
        let long_label = "a".repeat(64);
        let long_name = ["a".repeat(63).as_str(); 4].join(".");
        for text in [
            "",
            ":80",
            "localhost:",
            "localhost:0",
            "localhost:080",
            "localhost:+80",
            "localhost:65536",
            "localhost:80:80",
            "localhost:http",
            "localhost.",
            ".localhost",
            "a..b",
            "user@localhost",
            "localhost/",
            "localhost/@evil.example",
            "localhost\\evil",
            "localhost?",
            "local host",
            " localhost",
            "localhost,evil.example",
            "lòcalhost",
            "%6cocalhost",
            "127.1",
            "127.0.0.01",
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.0x1",
            "1.2.3.4.5",
            "::1",
            "[::1",
            "::1]",
            "[::1]x",
            "[::1]:",
            "[::1%lo]",
            "[127.0.0.1]",
            "[]",
            &long_label,
            &long_name,
        ] {
            assert!(Authority::parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn origins_have_a_scheme_and_no_path() {
        let origin = Origin::parse("https://App.example.com").unwrap();
        assert_eq!((origin.scheme, origin.effective_port()), ("https", Some(443)));
        assert_eq!(Origin::parse("HTTP://[::1]").unwrap().effective_port(), Some(80));
        assert_eq!(Origin::parse("http://a:81").unwrap().effective_port(), Some(81));
        assert_eq!(Origin::parse("chrome-extension://abcdef").unwrap().effective_port(), None);
        for text in [
            "null",
            "localhost",
            "//localhost",
            "://localhost",
            "http:/localhost",
            "http://",
            "http://localhost/",
            "http://localhost#",
            "http://u@localhost",
            "http://a http://b",
            "http://a,http://b",
            "1http://a",
            "http://http://a",
            "file://",
        ] {
            assert!(Origin::parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn hosts_compare_without_letter_case() {
        assert_eq!(Host::parse("EXAMPLE.com"), Host::parse("example.COM"));
        assert_eq!(Host::parse("[::1]"), Host::parse("[0::0:1]"));
        assert_ne!(Host::parse("127.0.0.1"), Host::parse("[::ffff:127.0.0.1]"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = Origin::parse(&text);
            let _ = Authority::parse(&text);
        }

        #[test]
        fn what_was_written_is_read(name in "[a-z][a-z0-9-]{0,10}(\\.[a-z][a-z0-9]{0,5}){0,3}", port in 1_u16..) {
            let text = format!("http://{name}:{port}");
            let origin = Origin::parse(&text).unwrap();
            prop_assert_eq!(origin.authority.port, Some(port));
            prop_assert_eq!(Some(origin.authority.host), Host::parse(&name));
        }
    }
}
