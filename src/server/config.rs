//! What an operator may choose about the edge.

use std::time::Duration;

use crate::identity::{Authenticator, Resource};
use crate::protocol::AllowList;
use crate::session::Settings;
use crate::sync::Arc;

/// Options of a [`Server`](super::Server), safe on an open network as they stand.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The endpoint. Default `/mcp`.
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
    pub tls: Option<super::Tls>,
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
            max_body_bytes: 4 << 20,
            max_pending_body_bytes: 256 << 20,
            max_header_bytes: 16 << 10,
            read_timeout: Duration::from_secs(15),
            stalled_after: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
            sweep: Duration::from_secs(5),
            drain: Duration::from_secs(10),
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
/// One too many is accepted, answered with 503 and `Retry-After`, and closed, without a byte of it being read. With
/// TLS, and in a flood of more than 200 a second, it is closed without an answer.
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
        let holds_none = self.max_pending_body_bytes < self.max_body_bytes;
        holds_none
            .then_some("max_pending_body_bytes is less than max_body_bytes")
            .or_else(|| self.connections.fault())
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
}

impl Default for Allowed {
    fn default() -> Self {
        Self { hosts: AllowList::loopback(), origins: AllowList::loopback(), cors: AllowList::nothing() }
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
