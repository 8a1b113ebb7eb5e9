//! The options of a server: what each is, its default, and what cannot work.

use std::net::{AddrParseError, IpAddr};
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

#[cfg(feature = "tls")]
use super::connection::certificate::Tls;
use crate::identity::{Authenticator, Resource, is_same_path};
use crate::protocol::{AllowList, ForwardedHeader};
use crate::session::{Rate, Settings};
use crate::sync::Arc;

/// Options of a [`Server`](super::Server), safe on an open network as they stand.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The endpoint. Default `/mcp`. It is served with and without a slash at the end.
    pub path: String,
    /// Who may talk to it. Default: loopback hosts and origins on any port.
    pub allowed: Allowed,
    /// Who is asked who sends a request. Default: nobody, and a session is there for whoever knows its ID.
    pub authenticator: Option<Arc<dyn Authenticator>>,
    /// What clients are told about where tokens come from. Default: nothing.
    pub resource: Option<Resource>,
    /// What sessions may hold, and how long.
    pub sessions: Settings,
    /// How requests are answered. Default [`Answer::Auto`].
    pub answer: Answer,
    /// What clients must say that they accept. Default [`Accept::Lenient`].
    pub accept: Accept,
    /// Largest body, in bytes. Default 4 MiB. Held in memory while it is read.
    pub max_body_bytes: usize,
    /// Bytes of bodies that have begun to come and are not complete, of all requests together. Default 256 MiB; it
    /// must hold the largest body. Beyond it requests are refused (503, `busy`) whose body does not come with their
    /// head.
    pub max_pending_body_bytes: usize,
    /// Largest request head, names and values added up, in bytes. Default 16 KiB. Beyond four times this, hyper
    /// refuses with a bare 431.
    pub max_header_bytes: usize,
    /// How long a client may take to send a request head, and a body, from the first byte to the last. Default 15
    /// seconds each.
    pub read_timeout: Duration,
    /// How long a client may take nothing of what waits to be sent to it before its connection is ended. Default 60
    /// seconds. Looked at as often as comments are sent. Over HTTP/2 it counts for the connection as a whole, and for
    /// each stream, which is reset.
    pub stalled_after: Duration,
    /// How often a quiet stream gets a comment. Default 15 seconds; between one and two of these may pass.
    pub keep_alive: Duration,
    /// How often sessions and responses whose time is up are looked for. Default 5 seconds.
    pub sweep: Duration,
    /// How long a drain waits for requests in flight. Default 10 seconds.
    pub drain: Duration,
    /// How long a server that is told to stop goes on as before, except that it is not ready: `/readyz` and
    /// [`health_path`](Self::health_path) answer 503, so that load balancers send nobody new before the listener
    /// closes. Then the drain begins. Default: not at all.
    pub drain_delay: Duration,
    /// A path that answers GET and HEAD with 200 while the server is ready, and 503 while it is not, under any host and
    /// without a token: for load balancers that can look only at the address they serve. Default: none.
    pub health_path: Option<String>,
    /// Whose word is taken on where a client comes from. Default: nobody's.
    pub proxies: Proxies,
    /// Whether requests are written to the log. Default: no. With it requests have IDs, and event streams stay inside
    /// hyper, as if [`hand_over`](Self::hand_over) were off.
    pub access_log: AccessLog,
    /// Whether each request has an ID, in the log and as `X-Request-Id` in its answer: the trace ID of a valid
    /// `traceparent`, or else a random one. Default: no.
    pub request_ids: bool,
    /// How fast one principal may send requests. Nobody in particular has no rate. Default: no limit. Costs 512 KiB when
    /// set.
    pub request_rate_per_principal: Option<Rate>,
    /// How fast requests may come from one IPv4 address, or from one IPv6 network of 64 bits, whatever they ask for.
    /// Default: no limit, because behind a proxy that is not among [`proxies`](Self::proxies) all clients have one
    /// address. Costs 512 KiB when set.
    pub request_rate_per_address: Option<Rate>,
    /// How far apart the clients come back that a drain sends away: each is told to wait up to so much longer than
    /// `sessions.retry_ms`, by chance. Default 5 seconds.
    pub drain_spread: Duration,
    /// Whether event streams over plain HTTP/1.1 are written without hyper, for a twentieth of the memory. Default:
    /// yes, on Linux, which is where it works.
    pub hand_over: bool,
    /// Streams of one HTTP/2 connection at once. Default 10,000. Each costs about 1.5 KB while it is open.
    pub max_http2_streams: u32,
    /// How many connections there may be, and for how long.
    pub connections: Connections,
    /// TLS. Default: none, plain HTTP.
    #[cfg(feature = "tls")]
    pub tls: Option<Tls>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: "/mcp".to_owned(),
            allowed: Allowed::default(),
            authenticator: None,
            resource: None,
            sessions: Settings::default(),
            answer: Answer::Auto,
            accept: Accept::Lenient,
            max_body_bytes: 4 << 20,
            max_pending_body_bytes: 256 << 20,
            max_header_bytes: 16 << 10,
            read_timeout: Duration::from_secs(15),
            stalled_after: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
            sweep: Duration::from_secs(5),
            drain: Duration::from_secs(10),
            drain_delay: Duration::ZERO,
            health_path: None,
            proxies: Proxies::default(),
            access_log: AccessLog::Off,
            request_ids: false,
            request_rate_per_principal: None,
            request_rate_per_address: None,
            drain_spread: Duration::from_secs(5),
            hand_over: cfg!(target_os = "linux"),
            max_http2_streams: 10_000,
            connections: Connections::default(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

/// How many connections there may be, and for how long.
///
/// One too many is accepted, answered with 503 and `Retry-After`, and closed; what it sends is dropped. With TLS, and in
/// a flood of more than 200 a second, it is closed without an answer.
///
/// A connection that the server ends is open until its client ends it too, or sends nothing for two seconds; for five
/// seconds and 64 MiB at most. What comes meanwhile is dropped. So a client sees the answer that refused it although it
/// was still sending. Up to an eighth of the connections (16 to 1024) may be in that state, and count as open; one more
/// is closed at once.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Connections {
    /// Connections open at once. Default: as many as the process may have descriptors, less a quarter for everything
    /// else (at least 16, at most 1024). 0 is an error at start.
    pub max: Option<usize>,
    /// Connections open at once from one IPv4 address, or from one IPv6 network of 64 bits. Default 4096; `None` is
    /// any number. Clients behind one proxy come from one address. 0 is an error at start.
    pub max_per_address: Option<usize>,
    /// Whether `max_per_address` holds for loopback too, where a proxy on the same machine comes from. Default: no.
    pub count_loopback: bool,
    /// How long a connection without a request is kept. Default 75 seconds. Over HTTP/2, one without any request or
    /// stream.
    pub idle: Duration,
    /// How long a connection is kept at all, less up to a tenth by chance. Then its streams are told to come back
    /// (standalone streams, and request streams that the client can resume: from `2025-11-25` on), requests in flight
    /// finish, and the client is told to open another connection. Default: for ever. With it, clients spread over
    /// servers that were added.
    pub max_age: Option<Duration>,
    /// HTTP/2 frames a second that carry neither a request nor its body (PING, SETTINGS, RST_STREAM, WINDOW_UPDATE,
    /// and so on), beyond those that what is sent to the client explains. Ten seconds' worth may come at once; more
    /// end the connection. Default 1000.
    pub max_http2_control_rate: u32,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            max: None,
            max_per_address: Some(4096),
            count_loopback: false,
            idle: Duration::from_secs(75),
            max_age: None,
            max_http2_control_rate: 1000,
        }
    }
}

impl Connections {
    /// What cannot work.
    fn fault(&self) -> Option<&'static str> {
        if self.max == Some(0) {
            return Some("connections.max is 0: nobody could connect");
        }
        if self.max_per_address == Some(0) {
            return Some("connections.max_per_address is 0: nobody could connect");
        }
        if self.max_age.is_some_and(|age| age < Duration::from_secs(1)) {
            return Some("connections.max_age is less than a second");
        }
        if self.idle.is_zero() {
            return Some("connections.idle is 0: every connection would be closed at once");
        }
        (self.max_http2_control_rate == 0)
            .then_some("connections.max_http2_control_rate is 0: HTTP/2 does not work without control frames")
    }
}

impl Config {
    /// What cannot work.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let is_short = |(_, time): &(_, Duration)| *time < Duration::from_millis(1);
        let times = [
            ("read_timeout is less than a millisecond", self.read_timeout),
            ("stalled_after is less than a millisecond", self.stalled_after),
            ("keep_alive is less than a millisecond", self.keep_alive),
            ("sweep is less than a millisecond", self.sweep),
        ];
        if let Some((fault, _)) = times.into_iter().find(is_short) {
            return Some(fault);
        }
        let holds_none = self.max_pending_body_bytes < self.max_body_bytes;
        holds_none
            .then_some("max_pending_body_bytes is less than max_body_bytes")
            .or_else(|| self.connections.fault())
            .or_else(|| self.proxies.fault())
            .or_else(|| {
                let is_taken = self.health_path.as_deref().is_some_and(|path| is_same_path(path, &self.path));
                is_taken.then_some("health_path is the path of the endpoint")
            })
            .or_else(|| self.sessions.fault())
    }
}

/// Which hosts a client may address, and which origins it may come from.
#[derive(Clone, Debug)]
pub struct Allowed {
    /// Values of `Host`.
    pub hosts: AllowList,
    /// Values of `Origin`, where a browser sends one.
    pub origins: AllowList,
    /// Origins whose pages may read the answers (CORS). They are allowed as origins too. Default: none.
    pub cors: AllowList,
    /// Request headers that those pages may send besides those that MCP has. Default: none.
    pub cors_headers: Vec<HeaderName>,
}

impl Default for Allowed {
    fn default() -> Self {
        Self {
            hosts: AllowList::loopback(),
            origins: AllowList::loopback(),
            cors: AllowList::nothing(),
            cors_headers: Vec::new(),
        }
    }
}

/// Proxies in front of the server, and how they say where a client comes from.
///
/// With it, limits, rates and logs see the client's address in place of the proxy's. Nothing that anybody else says is
/// believed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Proxies {
    /// Networks of proxies that are believed. Default: none. Their connections are not counted by address
    /// ([`Connections::max_per_address`]).
    pub trusted: Vec<IpNet>,
    /// The header that they write. Default [`ForwardedHeader::XForwardedFor`]. The other one is not read: they pass it
    /// on as the client sent it.
    pub header: ForwardedHeader,
    /// Whether their connections begin with a header of the PROXY protocol, version 1 or 2; one that does not is closed.
    /// It has [`Config::read_timeout`] to come. Connections of others have none. Default: no.
    pub protocol: bool,
}

impl Proxies {
    /// Reads a network, `10.0.0.0/8` or `2001:db8::/32`, or one address.
    ///
    /// # Errors
    ///
    /// It is neither.
    pub fn network(text: &str) -> Result<IpNet, AddrParseError> {
        text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
    }

    /// What cannot work.
    pub(super) fn fault(&self) -> Option<&'static str> {
        (self.protocol && self.trusted.is_empty())
            .then_some("proxy_protocol is set, and there are no trusted_proxies who could speak it")
    }

    /// Whether `address` is one of the proxies.
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        !self.trusted.is_empty() && {
            let address = address.to_canonical();
            self.trusted.iter().any(|network| network.contains(&address))
        }
    }

    /// Whether a connection from `address` begins with a header of the PROXY protocol.
    pub(super) fn announces(&self, address: IpAddr) -> bool {
        self.protocol && self.trusts(address)
    }

    /// Where a request comes from that `peer` passed on with these headers.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if self.trusted.is_empty() {
            return peer;
        }
        self.header.client(peer, headers, |address| self.trusts(address))
    }
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// As JSON if the response is there at once and alone, else as a stream. The default.
    #[default]
    Auto,
    /// Always as a stream, so that every response can be fetched again after a break.
    Stream,
}

/// What clients must say, in `Accept`, that they accept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accept {
    /// Whatever leaves a form that the answer can have. The default.
    ///
    /// Without an `Accept`, and with `*/*`, a client gets what suits the answer. One that accepts JSON alone gets the
    /// response as JSON when it is there; messages before it (progress, notifications) are counted and dropped, and a
    /// question to the client fails at once. One that accepts event streams alone gets a stream. Others get 406.
    #[default]
    Lenient,
    /// Both `application/json` and `text/event-stream` for a POST, and `text/event-stream` for a GET, as the
    /// specification has it. Others get 406.
    Strict,
}

/// Whether requests are written to the log: a line each, at the level `info` with the target `ringmain::access`, when
/// the answer is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// No. The default.
    #[default]
    Off,
    /// With the method, the status, bytes of the answer's body, the time it took, the client's address and the
    /// request's ID.
    On,
    /// And with the subject of the principal, if there is one.
    WithPrincipal,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_addresses_are_read_and_an_address_in_two_spellings_is_one() {
        let mut proxies = Proxies::default();
        let trusts = |proxies: &Proxies, address: &str| proxies.trusts(address.parse().unwrap());
        assert!(!trusts(&proxies, "10.0.0.1"));
        proxies.trusted =
            ["10.1.0.0/16", "192.0.2.7", "fd00::/8"].map(|text| Proxies::network(text).unwrap()).to_vec();
        for address in ["10.1.2.3", "192.0.2.7", "fd12::1", "::ffff:10.1.0.9"] {
            assert!(trusts(&proxies, address), "{address}");
        }
        for address in ["10.2.0.1", "192.0.2.8", "2001:db8::1", "127.0.0.1"] {
            assert!(!trusts(&proxies, address), "{address}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0", "localhost", "10.0.0.0/8/8"] {
            assert!(Proxies::network(text).is_err(), "{text}");
        }
    }
}
