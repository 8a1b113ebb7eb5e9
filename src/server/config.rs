//! The options of a server: what each is, its default, and what cannot work.

use std::net::{AddrParseError, IpAddr};
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

#[cfg(feature = "tls")]
use super::connection::certificate::Tls;
use crate::identity::{Authenticator, Resource, is_same_path};
use crate::options::options;
use crate::protocol::{AllowList, ForwardedHeader};
use crate::session::{Rate, Settings};
use crate::sync::Arc;

options! {
    /// Options of a [`Server`](super::Server). The defaults are safe on an open network.
    ///
    /// [`Server::bind`](super::Server::bind) checks them, and names the one that cannot work.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringmain::server::{Accept, AccessLog, Answer, Config};
    /// use ringmain::session::Settings;
    ///
    /// let config = Config::default()
    ///     .path("/mcp")
    ///     .max_body_bytes(8 << 20)
    ///     .drain(Duration::from_secs(30))
    ///     .answer(Answer::Stream)
    ///     .accept(Accept::Strict)
    ///     .access_log(AccessLog::On)
    ///     .sessions(Settings::default().max_sessions(100_000).idle_ms(600_000));
    /// assert_eq!(config.sessions.max_sessions, 100_000);
    /// ```
    #[derive(Clone, Debug)]
    #[non_exhaustive]
    pub struct Config {
        /// The path of the endpoint, served with and without a slash at the end. Default `/mcp`.
        path into: String = "/mcp".to_owned();
        /// The hosts and origins that may use the endpoint. Default: loopback, on any port.
        allowed: Allowed = Allowed::default();
        /// Decides who sends a request. Default: nobody does, and whoever knows the ID of a session can use it.
        authenticator: Option<Arc<dyn Authenticator>> = None;
        /// The metadata that tells clients where tokens come from. Default: none.
        resource: Option<Resource> = None;
        /// What sessions may hold, and for how long.
        sessions: Settings = Settings::default();
        /// How requests are answered. Default [`Answer::Auto`].
        answer: Answer = Answer::Auto;
        /// What `Accept` must list. Default [`Accept::Lenient`].
        accept: Accept = Accept::Lenient;
        /// Largest body of a request, in bytes. Default 4 MiB. A body is held in memory while it is read.
        max_body_bytes: usize = 4 << 20;
        /// Bytes of all bodies together that have begun to arrive and are not complete. Default 256 MiB, at least
        /// `max_body_bytes`. Beyond it, requests whose body does not arrive with their head are refused (503, `busy`).
        max_pending_body_bytes: usize = 256 << 20;
        /// Largest head of a request, in bytes: the sum of all names and values. Default 16 KiB. Beyond four times
        /// this, hyper refuses with a bare 431.
        max_header_bytes: usize = 16 << 10;
        /// Time that a client has to send the head of a request, and again to send its body. Default 15 seconds, at
        /// least a millisecond.
        read_timeout: Duration = Duration::from_secs(15);
        /// Time without progress after which a client that does not read what is pending is disconnected. Default 60
        /// seconds, at least a millisecond. Checked once per `keep_alive`. Over HTTP/2 it applies to the connection,
        /// and to each stream, which is reset.
        stalled_after: Duration = Duration::from_secs(60);
        /// Interval between comments on a quiet stream. Default 15 seconds, at least a millisecond; the gap is one to
        /// two intervals.
        keep_alive: Duration = Duration::from_secs(15);
        /// Interval between searches for expired sessions and responses. Default 5 seconds, at least a millisecond.
        sweep: Duration = Duration::from_secs(5);
        /// Time that a drain waits for requests in flight. Default 10 seconds.
        drain: Duration = Duration::from_secs(10);
        /// Time between the request to stop and the drain, while the server works as before but is not ready: `/readyz`
        /// and `health_path` answer 503, so that load balancers stop sending clients before the listener closes.
        /// Default 0.
        drain_delay: Duration = Duration::ZERO;
        /// A path that answers GET and HEAD with 200 while the server is ready and with 503 otherwise, under any host
        /// and without a token: for load balancers that can probe only the address they serve. Default: none.
        health_path: Option<String> = None;
        /// The proxies whose statement of a client's address is believed. Default: none.
        proxies: Proxies = Proxies::default();
        /// Whether requests are logged. Default: no. With it, requests have IDs, and event streams stay inside hyper,
        /// as if `hand_over` were off.
        access_log: AccessLog = AccessLog::Off;
        /// Whether each request has an ID, in the log and as `X-Request-Id` in its answer: the trace ID of a valid
        /// `traceparent`, else a random one. Default: no.
        request_ids: bool = false;
        /// Rate of requests of one principal. Requests without a principal have no rate. Default: no limit. Costs 512
        /// KiB when set.
        request_rate_per_principal: Option<Rate> = None;
        /// Rate of requests from one IPv4 address or one IPv6 /64 network, whatever they ask for. Default: no limit,
        /// because behind a proxy that is not in `proxies` all clients have one address. Costs 512 KiB when set.
        request_rate_per_address: Option<Rate> = None;
        /// Window over which drained clients reconnect: each is told to wait a random time within it, in addition to
        /// `sessions.retry_ms`. Default 5 seconds.
        drain_spread: Duration = Duration::from_secs(5);
        /// Whether event streams over plain HTTP/1.1 are written without hyper, with a twentieth of the memory.
        /// Default: yes on Linux, no elsewhere, where it is not possible.
        hand_over: bool = cfg!(target_os = "linux");
        /// Concurrent streams of one HTTP/2 connection. Default 10,000. Each costs about 1.5 KB while it is open.
        max_http2_streams: u32 = 10_000;
        /// How many connections may be open, and for how long.
        connections: Connections = Connections::default();
        /// The certificate for TLS. Default: none, plain HTTP.
        #[cfg(feature = "tls")]
        tls: Option<Tls> = None;
    }
}

options! {
    /// How many connections may be open, and for how long.
    ///
    /// A connection beyond the limit is accepted, answered with 503 and `Retry-After`, and closed; what it sends is
    /// dropped. With TLS, and in a flood of more than 200 a second, it is closed without an answer.
    ///
    /// A connection that the server ends stays open until its client ends it too or sends nothing for two seconds, for
    /// at most five seconds and 64 MiB. What arrives meanwhile is dropped. So a client that is still sending receives
    /// the answer that refused it. Up to an eighth of the connections (16 to 1024) may be in that state, and count as
    /// open; further ones are closed immediately.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringmain::server::{Config, Connections};
    ///
    /// let hour = Duration::from_secs(3600);
    /// let connections = Connections::default().max(Some(50_000)).max_per_address(None).max_age(Some(hour));
    /// let config = Config::default().connections(connections);
    /// # assert_eq!(config.connections.max, Some(50_000));
    /// ```
    #[derive(Clone, Debug)]
    #[non_exhaustive]
    pub struct Connections {
        /// Connections open at once, at least 1. Default: the process's limit of descriptors, with a quarter (16 to
        /// 1024) left for other uses.
        max: Option<usize> = None;
        /// Connections open at once from one IPv4 address or one IPv6 /64 network, at least 1. Default 4096; `None` is
        /// no limit. Clients behind one proxy share its address.
        max_per_address: Option<usize> = Some(4096);
        /// Whether `max_per_address` applies to loopback too, where a proxy on the same machine connects from. Default:
        /// no.
        count_loopback: bool = false;
        /// Time after which a connection without a request is closed, more than 0. Default 75 seconds. Over HTTP/2, one
        /// without any open stream.
        idle: Duration = Duration::from_secs(75);
        /// Maximum age of a connection, at least a second, shortened by a random part of up to a tenth. Then its
        /// streams are told to reconnect (standalone streams, and request streams that the client can resume: from
        /// `2025-11-25` on), requests in flight finish, and the client is told to open another connection. Default:
        /// none. With it, clients spread over servers that were added.
        max_age: Option<Duration> = None;
        /// HTTP/2 frames a second that carry neither a request nor its body (PING, SETTINGS, RST_STREAM, WINDOW_UPDATE
        /// and so on), beyond those that sending to the client explains, at least 1. Default 1000. Ten seconds' worth
        /// may arrive at once; more close the connection.
        max_http2_control_rate: u32 = 1000;
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

options! {
    /// The hosts that a client may address, and the origins that it may come from.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmain::protocol::AllowList;
    /// use ringmain::server::{Allowed, Config};
    ///
    /// let page = AllowList::parse(["https://app.example.com"])?;
    /// let allowed = Allowed::default().hosts(AllowList::parse(["mcp.example.com"])?).cors(page);
    /// let config = Config::default().allowed(allowed);
    /// # assert!(config.allowed.cors.allows_origin("https://app.example.com"));
    /// # Ok::<(), ringmain::protocol::PatternError>(())
    /// ```
    #[derive(Clone, Debug)]
    pub struct Allowed {
        /// Allowed values of `Host`. Default: loopback, on any port.
        hosts: AllowList = AllowList::loopback();
        /// Allowed values of `Origin`, which browsers send. Default: loopback, on any port.
        origins: AllowList = AllowList::loopback();
        /// Origins whose pages may read the answers (CORS). They are allowed as origins too. Default: none.
        cors: AllowList = AllowList::nothing();
        /// Request headers that those pages may send in addition to those of MCP. Default: none.
        cors_headers: Vec<HeaderName> = Vec::new();
    }
}

options! {
    /// Proxies in front of the server, and how they state a client's address.
    ///
    /// With it, limits, rates and logs use the client's address in place of the proxy's. Statements of others are
    /// ignored.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmain::protocol::ForwardedHeader;
    /// use ringmain::server::{Config, Proxies};
    ///
    /// let trusted = vec![Proxies::network("10.0.0.0/8")?, Proxies::network("2001:db8::7")?];
    /// let proxies = Proxies::default().trusted(trusted).header(ForwardedHeader::Forwarded);
    /// let config = Config::default().proxies(proxies);
    /// # assert_eq!(config.proxies.trusted.len(), 2);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[derive(Clone, Debug)]
    #[non_exhaustive]
    pub struct Proxies {
        /// Networks of trusted proxies. Default: none. Their connections do not count for
        /// [`Connections::max_per_address`].
        trusted: Vec<IpNet> = Vec::new();
        /// The header that they write. Default [`ForwardedHeader::XForwardedFor`]. The other header is not read,
        /// because they pass it on as the client sent it.
        header: ForwardedHeader = ForwardedHeader::default();
        /// Whether their connections begin with a header of the PROXY protocol, version 1 or 2. One that does not is
        /// closed. The header has [`Config::read_timeout`] to arrive. Connections of others have none. Default: no.
        protocol: bool = false;
    }
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
