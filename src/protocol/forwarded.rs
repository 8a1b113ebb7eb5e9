//! Where a request comes from, as proxies on the way say it: `X-Forwarded-For` and `Forwarded`.
//!
//! Every proxy appends the address it was connected from, so the list is read from its right end: as long as an
//! address is one of the operator's own proxies, the next one to the left was written by that proxy and is believed.
//! The first address that is none of them is the client's. What stands further left the client may have written
//! itself, and it is not even looked at.
//!
//! One of the two headers is read, the one that the operator's proxies write. A proxy that writes one of them passes
//! the other on as the client sent it.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName};

/// The header in which the operator's proxies say where a request comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`. The default.
    #[default]
    XForwardedFor,
    /// `Forwarded`, of RFC 7239.
    Forwarded,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");

impl ForwardedHeader {
    /// Returns the address of the client whose request came from `peer`.
    ///
    /// `is_proxy` says whether an address is one of the operator's proxies. It is asked for `peer` first: what anybody
    /// else says is not read. A part of the list that is no address (`unknown`, `_hidden`, a broken quote) ends it, and
    /// the proxy that wrote it counts as the client.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::HeaderMap;
    /// use ringmain::protocol::ForwardedHeader;
    ///
    /// let mut headers = HeaderMap::new();
    /// headers.insert("x-forwarded-for", "1.2.3.4, 198.51.100.7, 10.0.0.2".parse()?);
    /// let is_proxy = |address: std::net::IpAddr| address.to_string().starts_with("10.");
    /// let client = ForwardedHeader::XForwardedFor.client("10.0.0.1".parse()?, &headers, is_proxy);
    /// assert_eq!(client.to_string(), "198.51.100.7");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(hidden)]
    pub fn client(self, peer: IpAddr, headers: &HeaderMap, is_proxy: impl Fn(IpAddr) -> bool) -> IpAddr {
        let name = match self {
            Self::XForwardedFor => X_FORWARDED_FOR,
            Self::Forwarded => FORWARDED,
        };
        let mut client = peer;
        for value in headers.get_all(name).iter().rev() {
            for part in FromTheRight::new(value.as_bytes(), b',') {
                if !is_proxy(client) {
                    return client;
                }
                // One part at a time: what a client wrote further left need not be text.
                let Ok(part) = str::from_utf8(part) else { return client };
                let part = part.trim_matches([' ', '\t']);
                if part.is_empty() {
                    // A list may have empty parts.
                    continue;
                }
                let address = match self {
                    Self::XForwardedFor => read_node(part),
                    Self::Forwarded => read_element(part),
                };
                match address {
                    Some(address) => client = address,
                    None => return client,
                }
            }
        }
        client
    }
}

/// Reads an address, perhaps with a port: `192.0.2.1:80`, `[2001:db8::1]:80`, and without brackets what some proxies
/// write in `X-Forwarded-For`.
fn read_node(text: &str) -> Option<IpAddr> {
    if let Some(inner) = text.strip_prefix('[') {
        let (address, port) = inner.split_once(']')?;
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return address.parse::<Ipv6Addr>().ok().filter(|_| is_port).map(canonical);
    }
    match text.split_once(':') {
        Some((address, port)) if !port.contains(':') => {
            address.parse().ok().filter(|_| is_port(port)).map(IpAddr::V4)
        }
        _ => text.parse::<IpAddr>().ok().map(|address| address.to_canonical()),
    }
}

fn canonical(address: Ipv6Addr) -> IpAddr {
    IpAddr::V6(address).to_canonical()
}

fn is_port(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

//= https://www.rfc-editor.org/rfc/rfc7239#section-4
//# forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] )
/// Reads the address of an element: `for=192.0.2.1;proto=https`, `For="[2001:db8::1]:4711"`.
fn read_element(element: &str) -> Option<IpAddr> {
    let mut found = None;
    for pair in FromTheRight::new(element.as_bytes(), b';') {
        let Some((name, value)) = str::from_utf8(pair).ok()?.trim_matches([' ', '\t']).split_once('=') else {
            continue;
        };
        //# Each parameter MUST NOT occur more than once per field-value.
        if name.eq_ignore_ascii_case("for") && found.replace(value).is_some() {
            return None;
        }
    }
    let value = found?;
    match value.strip_prefix('"') {
        // No address needs an escaped character, which `read_node` refuses.
        Some(quoted) => read_node(quoted.strip_suffix('"')?),
        None => read_node(value),
    }
}

/// The parts of a list from its right end, cut at separators outside quotes. An unbalanced quote that a client wrote
/// further left cannot take in what a proxy appended.
struct FromTheRight<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
}

impl<'a> FromTheRight<'a> {
    fn new(list: &'a [u8], separator: u8) -> Self {
        Self { rest: Some(list), separator }
    }
}

impl<'a> Iterator for FromTheRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let bytes = self.rest.take()?;
        let mut in_quotes = false;
        for at in (0..bytes.len()).rev() {
            if bytes[at] == b'"' && !(in_quotes && is_escaped(&bytes[..at])) {
                in_quotes = !in_quotes;
            } else if bytes[at] == self.separator && !in_quotes {
                self.rest = Some(&bytes[..at]);
                return Some(&bytes[at + 1..]);
            }
        }
        Some(bytes)
    }
}

/// Whether what comes after `before` is escaped by a backslash.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn client(header: ForwardedHeader, values: &[&str]) -> String {
        let name = if header == ForwardedHeader::Forwarded { FORWARDED } else { X_FORWARDED_FOR };
        let headers: HeaderMap = values
            .iter()
            .map(|value| (name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
            .collect();
        header.client("10.0.0.1".parse().unwrap(), &headers, is_proxy).to_string()
    }

    fn is_proxy(address: IpAddr) -> bool {
        address.to_string().starts_with("10.") || address.to_string().starts_with("fd00::")
    }

    #[test]
    fn the_right_most_address_that_is_no_proxy_is_the_clients() {
        use ForwardedHeader::XForwardedFor;
        for (values, expected) in [
            (&[][..], "10.0.0.1"),
            (&["192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6,192.0.2.1 ,10.0.0.3,\t10.0.0.2"], "192.0.2.1"),
            (&["6.6.6.6", "192.0.2.1", "10.0.0.2"], "192.0.2.1"),
            (&["10.0.0.4, 10.0.0.3"], "10.0.0.4"),
            (&["6.6.6.6, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["6.6.6.6, "], "6.6.6.6"),
            (&["6.6.6.6, 1.2.3"], "10.0.0.1"),
            (&["192.0.2.1:4711"], "192.0.2.1"),
            (&["192.0.2.1:x"], "10.0.0.1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["[2001:db8::1]:443"], "2001:db8::1"),
            (&["[2001:db8::1]443"], "10.0.0.1"),
            (&["[192.0.2.1]"], "10.0.0.1"),
            (&["::ffff:192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6, ::ffff:10.0.0.2"], "6.6.6.6"),
            (&["6.6.6.6, fe80::1%eth0"], "10.0.0.1"),
            (&["6.6.6.6, é"], "10.0.0.1"),
        ] {
            assert_eq!(client(XForwardedFor, values), expected, "{values:?}");
        }
        // What a client wrote need not be text; what its proxy appended to it is read all the same.
        let headers = HeaderMap::from_iter([(
            X_FORWARDED_FOR,
            HeaderValue::from_bytes(b"\xff, \xfe, 192.0.2.1, 10.0.0.2").unwrap(),
        )]);
        let proxy = "10.0.0.1".parse().unwrap();
        assert_eq!(XForwardedFor.client(proxy, &headers, is_proxy).to_string(), "192.0.2.1");
        let headers: HeaderMap =
            [(X_FORWARDED_FOR, HeaderValue::from_static("6.6.6.6"))].into_iter().collect();
        let stranger = "203.0.113.9".parse().unwrap();
        assert_eq!(
            XForwardedFor.client(stranger, &headers, is_proxy),
            stranger,
            "a stranger is not believed"
        );
    }

    #[test]
    fn elements_of_forwarded_are_read_as_the_rfc_writes_them() {
        use ForwardedHeader::Forwarded;
        for (values, expected) in [
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"][..], "192.0.2.60"),
            (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["for=192.0.2.43, for=198.51.100.17"], "198.51.100.17"),
            (&["for=6.6.6.6", "for=192.0.2.43, for=10.0.0.2;host=\"a,b;for=7.7.7.7\""], "192.0.2.43"),
            (&["for=\"_gazonk\""], "10.0.0.1"),
            (&["for=unknown, for=10.0.0.2"], "10.0.0.2"),
            (&["proto=https"], "10.0.0.1"),
            (&["for=6.6.6.6;for=7.7.7.7"], "10.0.0.1"),
            // A client that leaves a quote open, and a proxy that appends to it.
            (&["for=\", for=192.0.2.1"], "192.0.2.1"),
            (&["for=\", for=\"[2001:db8::1]\""], "2001:db8::1"),
            (&["for=\"\\, for=\"[2001:db8::1]\""], "2001:db8::1"),
            // A client's host that a proxy quotes.
            (&["for=192.0.2.1;host=\"x\\\", for=6.6.6.6;a=\\\"\""], "192.0.2.1"),
        ] {
            assert_eq!(client(Forwarded, values), expected, "{values:?}");
        }
    }

    proptest! {
        /// Whatever a client sends, what a proxy appends is what is believed.
        #[test]
        fn no_client_changes_what_a_proxy_appends(sent in "[\\t -~]{0,60}", address: u32, network: u128) {
            let v4 = IpAddr::V4((address | 0x8000_0000).into());
            let v6 = IpAddr::V6((network | 1 << 127).into());
            for (own, quoted) in [(v4, format!("{v4}")), (v6, format!("\"[{v6}]\""))] {
                let appended = [format!("{sent}, for={quoted}"), format!("{sent}, {own}")];
                prop_assert_eq!(client(ForwardedHeader::Forwarded, &[&appended[0]]), own.to_string());
                prop_assert_eq!(client(ForwardedHeader::XForwardedFor, &[&appended[1]]), own.to_string());
            }
        }

        #[test]
        fn no_list_panics(list in "\\PC{0,80}") {
            client(ForwardedHeader::Forwarded, &[&list]);
            client(ForwardedHeader::XForwardedFor, &[&list]);
        }
    }
}
