//! The PROXY protocol, versions 1 and 2: what a proxy says of a connection before its first byte.
//!
//! Read as <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt> writes it, strictly: the header names its own
//! length, and one that is read differently by two programs would move the beginning of the first request.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a proxy says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Bytes of the header. What follows is the client's.
    pub length: usize,
    /// Where the client is connected from. `None` if the proxy speaks for itself, as a health check does, or does not
    /// know: then the connection is the proxy's own.
    pub client: Option<IpAddr>,
}

/// The bytes are not a header of the PROXY protocol, or one that is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedProxyHeader(());

impl fmt::Display for MalformedProxyHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a header of the PROXY protocol")
    }
}

impl std::error::Error for MalformedProxyHeader {}

const MALFORMED: MalformedProxyHeader = MalformedProxyHeader(());
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const TEXT: &[u8; 6] = b"PROXY ";
/// The longest line of version 1, its end included.
const MAX_LINE: usize = 107;
/// Signature, version and command, family, and the length of the rest.
const FIXED: usize = 16;

impl ProxyHeader {
    /// The longest header that is taken, in bytes. Version 2 allows 64 KiB; what real proxies send has some hundred.
    pub const MAX_BYTES: usize = FIXED + 2048;

    /// Reads the header at the beginning of `bytes`; `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// The bytes cannot become a header, however many follow, or not one of at most
    /// [`MAX_BYTES`](Self::MAX_BYTES).
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, MalformedProxyHeader> {
        if starts_alike(bytes, TEXT) {
            read_line(bytes)
        } else if starts_alike(bytes, SIGNATURE) {
            read_binary(bytes)
        } else {
            Err(MALFORMED)
        }
    }
}

/// Whether one begins as the other does, as far as there is something to compare.
fn starts_alike(bytes: &[u8], expected: &[u8]) -> bool {
    let count = bytes.len().min(expected.len());
    bytes[..count] == expected[..count]
}

/// Version 1: `PROXY TCP4 192.0.2.1 192.0.2.2 4711 443`.
fn read_line(bytes: &[u8]) -> Result<Option<ProxyHeader>, MalformedProxyHeader> {
    let within = &bytes[..bytes.len().min(MAX_LINE)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if within.len() == MAX_LINE { Err(MALFORMED) } else { Ok(None) };
    };
    let line = str::from_utf8(&bytes[..end]).map_err(|_| MALFORMED)?;
    let length = end + 2;
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        // What follows is to be ignored.
        return Ok(Some(ProxyHeader { length, client: None }));
    }
    let mut word = || words.next().ok_or(MALFORMED);
    let (from, to, ports) = (word()?, word()?, [word()?, word()?]);
    let is_well_formed = words.next().is_none() && ports.into_iter().all(is_port);
    let client = match family {
        Some("TCP4") => both::<Ipv4Addr>(from, to).map(IpAddr::V4),
        Some("TCP6") => both::<Ipv6Addr>(from, to).map(|address| IpAddr::V6(address).to_canonical()),
        _ => None,
    };
    match client {
        Some(client) if is_well_formed => Ok(Some(ProxyHeader { length, client: Some(client) })),
        _ => Err(MALFORMED),
    }
}

/// The first of two addresses, if both are some.
fn both<A: std::str::FromStr>(from: &str, to: &str) -> Option<A> {
    to.parse::<A>().ok().and_then(|_| from.parse().ok())
}

fn is_port(text: &str) -> bool {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_plain && text.parse::<u16>().is_ok()
}

/// Version 2.
fn read_binary(bytes: &[u8]) -> Result<Option<ProxyHeader>, MalformedProxyHeader> {
    // What is wrong is found as soon as it is there.
    let is_version_2 = bytes.get(12).is_none_or(|byte| matches!(byte, 0x20 | 0x21));
    // Unspecified; TCP over IPv4 and IPv6; a stream of a local socket. Datagrams do not come over TCP.
    let is_family_known = bytes.get(13).is_none_or(|byte| matches!(byte, 0x00 | 0x11 | 0x21 | 0x31));
    if !is_version_2 || !is_family_known {
        return Err(MALFORMED);
    }
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else { return Ok(None) };
    let [.., command, family, high, low] = *fixed;
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    let addresses = match family {
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => 0,
    };
    if length > ProxyHeader::MAX_BYTES || command == 0x21 && length < FIXED + addresses {
        return Err(MALFORMED);
    }
    if bytes.len() < length {
        return Ok(None);
    }
    let client = match (command, family) {
        (0x21, 0x11) => rest.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        (0x21, 0x21) => rest.first_chunk::<16>().map(|octets| IpAddr::from(*octets).to_canonical()),
        // LOCAL: the proxy speaks for itself, and what follows is to be skipped.
        _ => None,
    };
    Ok(Some(ProxyHeader { length, client }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    /// Reads a whole header with a request behind it, and every beginning of it.
    fn read(header: &[u8]) -> Result<Option<IpAddr>, MalformedProxyHeader> {
        let followed = [header, b"GET / HTTP/1.1\r\n"].concat();
        let read = ProxyHeader::read(&followed)?.expect("it is whole");
        assert_eq!(read.length, header.len());
        for end in 0..header.len() {
            assert_eq!(ProxyHeader::read(&header[..end]), Ok(None), "{end} bytes of {header:?}");
        }
        Ok(read.client)
    }

    fn address(text: &str) -> Result<Option<IpAddr>, MalformedProxyHeader> {
        Ok(Some(text.parse().unwrap()))
    }

    #[test]
    fn both_versions_are_read_to_their_last_byte() {
        assert_eq!(read(b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n"), address("192.0.2.1"));
        assert_eq!(read(b"PROXY TCP6 2001:db8::1 2001:db8::2 65535 0\r\n"), address("2001:db8::1"));
        assert_eq!(read(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"), address("192.0.2.1"));
        let longest = b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n";
        assert_eq!(read(longest), Ok(None));
        assert_eq!(read(b"PROXY UNKNOWN\r\n"), Ok(None));
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 187];
        assert_eq!(read(&binary(0x21, 0x11, &v4)), address("192.0.2.1"));
        let with_more = [&v4[..], &[0x20, 0, 3, 1, 2, 3]].concat();
        assert_eq!(read(&binary(0x21, 0x11, &with_more)), address("192.0.2.1"));
        let mut v6 = [0; 36];
        (v6[0], v6[1], v6[15]) = (0x20, 0x01, 9);
        assert_eq!(read(&binary(0x21, 0x21, &v6)), address("2001::9"));
        assert_eq!(read(&binary(0x21, 0x31, &[0; 216])), Ok(None));
        assert_eq!(read(&binary(0x20, 0x00, &[])), Ok(None));
        assert_eq!(read(&binary(0x20, 0x11, &v4)), Ok(None), "LOCAL says nothing of a client");
        assert_eq!(read(&binary(0x21, 0x00, &[7; 2048])), Ok(None));
    }

    #[test]
    fn what_is_not_quite_a_header_is_none() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PRI * HTTP/2.0\r\n",
            b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
            b"PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n",
            b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY \r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n\r\n",
            &[&b"PROXY UNKNOWN "[..], &[b'x'; 107]].concat(),
            &binary(0x11, 0x11, &[0; 12]),
            &binary(0x22, 0x11, &[0; 12]),
            &binary(0x21, 0x12, &[0; 12]),
            &binary(0x21, 0x11, &[0; 11]),
            &binary(0x21, 0x21, &[0; 35]),
            &binary(0x21, 0x31, &[0; 215]),
            &binary(0x20, 0x00, &[0; 2049]),
        ] {
            assert_eq!(ProxyHeader::read(bytes), Err(MALFORMED), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_more_bytes_change_no_answer(
            start in prop_oneof![Just(&b"PROXY TCP4 1"[..]), Just(&SIGNATURE[..]), Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..]), Just(&b""[..])],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
            cut in 0..300_usize,
        ) {
            let bytes = [start, &rest].concat();
            let whole = ProxyHeader::read(&bytes);
            let part = ProxyHeader::read(&bytes[..cut.min(bytes.len())]);
            match part {
                Ok(None) => {}
                decided => prop_assert_eq!(decided, whole),
            }
            if let Ok(Some(header)) = whole {
                prop_assert!(header.length <= bytes.len() && header.length <= ProxyHeader::MAX_BYTES);
            }
        }

        #[test]
        fn any_address_comes_back(from: u32, to: u32, port: u16, six: u128) {
            let (from, to, six) = (Ipv4Addr::from(from), Ipv4Addr::from(to), Ipv6Addr::from(six));
            let line = format!("PROXY TCP4 {from} {to} {port} {port}\r\n");
            prop_assert_eq!(read(line.as_bytes()), Ok(Some(IpAddr::V4(from))));
            let line = format!("PROXY TCP6 {six} {six} {port} {port}\r\n");
            prop_assert_eq!(read(line.as_bytes()), Ok(Some(IpAddr::V6(six).to_canonical())));
            let rest = [&six.octets()[..], &six.octets(), &[0; 4]].concat();
            prop_assert_eq!(read(&binary(0x21, 0x21, &rest)), Ok(Some(IpAddr::V6(six).to_canonical())));
        }
    }
}
