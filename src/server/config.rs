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
    /// Largest request head, names and values added up, in bytes. Default 16 KiB. Beyond four times this, hyper
    /// refuses with a bare 431.
    pub max_header_bytes: usize,
    /// How long a client may take to send a request head, and a body. Default 15 seconds each.
    pub read_timeout: Duration,
    /// How long a client may take nothing of what waits to be sent to it before its connection is ended. Default 60
    /// seconds. Looked at as often as comments are sent. Over HTTP/2 it counts for the connection as a whole.
    pub stalled_after: Duration,
    /// How often a quiet stream gets a comment. Default 15 seconds; between one and two of these may pass.
    pub keep_alive: Duration,
    /// How often sessions and responses whose time is up are looked for. Default 5 seconds.
    pub sweep: Duration,
    /// How long a drain waits for requests in flight. Default 10 seconds.
    pub drain: Duration,
    /// Whether event streams over plain HTTP/1.1 are written without hyper, for a twentieth of the memory. Default:
    /// yes, on Linux, which is where it works.
    pub hand_over: bool,
    /// Streams of one HTTP/2 connection at once. Default 10,000. Each costs about 1.5 KB while it is open.
    pub max_http2_streams: u32,
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
            max_header_bytes: 16 << 10,
            read_timeout: Duration::from_secs(15),
            stalled_after: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
            sweep: Duration::from_secs(5),
            drain: Duration::from_secs(10),
            hand_over: cfg!(target_os = "linux"),
            max_http2_streams: 10_000,
        }
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
