//! The table of options: each is one line here, and one row of `docs/operations.md`.

use super::value::{Field, Kind, Names, Value};
use super::{LogFormat, Options};
use crate::session::AtLimit;
use crate::stream::LagPolicy;

/// One option: a key of the file, a flag, a variable of the environment.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As it stands in the file.
    pub name: &'static str,
    /// The part of the table it belongs to.
    pub heading: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What becomes of a change while the server runs.
    pub reload: Reload,
    /// What it does.
    pub help: &'static str,
    /// The field of [`Options`] it fills, and the way to it.
    pub place: &'static str,
    pub(super) read: fn(&Options) -> Value,
    pub(super) write: fn(&mut Options, Value),
}

/// What becomes of a change of an option while the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// It counts from the next start on.
    Restart,
    /// The lists of hosts and origins are replaced.
    Allowed,
    /// The filter of the log is replaced.
    Log,
    /// Sessions go by it from then on.
    Sessions,
}

impl Key {
    /// The key with this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The flag, without its two dashes.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The variable of the environment.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("RINGMAIN_{}", self.name.to_ascii_uppercase())
    }

    /// What stands in `options`, as it would in a file.
    #[must_use]
    pub fn show(&self, options: &Options) -> String {
        self.kind.show(&(self.read)(options))
    }
}

const MS: u64 = 1;
const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A count whose things take `each` bytes.
const fn count(min: u64, max: u64, each: u64) -> Kind {
    Kind::Count { min, max, each }
}

/// A word that stands for nothing, or something else.
const fn or(word: &'static str, kind: &'static Kind) -> Kind {
    Kind::Or { word, kind }
}

/// `name: kind, reload, place, help`, by heading.
macro_rules! keys {
    ($($heading:literal { $($name:ident: $kind:expr, $reload:ident, $($place:ident).+, $help:literal;)+ })+) => {
        &[$($(Key {
            name: stringify!($name),
            heading: $heading,
            kind: $kind,
            reload: Reload::$reload,
            help: $help,
            place: concat!("options", $(".", stringify!($place)),+),
            read: |options| Field::read(&options.$($place).+),
            write: |options, value| Field::write(&mut options.$($place).+, value),
        }),+),+]
    };
}

/// Every option there is.
pub const KEYS: &[Key] = keys! {
    "Addresses" {
        listen: Kind::Address, Restart, listen, "Address to listen on. Anything but loopback also needs allow_host.";
        path: Kind::Path, Restart, server.path, "Path of the endpoint.";
        admin: or("none", &Kind::Address), Restart, admin, "Address for the operator: /publish, /healthz, /readyz, /metrics. Whoever reaches it may publish: keep it on loopback.";
    }
    "TLS" {
        tls_cert: or("none", &Kind::File), Restart, tls_cert, "Certificate and those that lead to its root, in PEM. Needs tls_key. A reload reads it again.";
        tls_key: or("none", &Kind::File), Restart, tls_key, "Its private key, in PEM.";
    }
    "Who may talk to it" {
        allow_host: Kind::List, Allowed, allow_host, "Hosts that clients may address: `example.com`, `example.com:8080`, `*.example.com`. None: loopback.";
        allow_origin: Kind::List, Allowed, allow_origin, "Origins that browsers may come from: `https://app.example.com`, `http://localhost:*`. None: loopback.";
        cors_origin: Kind::List, Allowed, cors_origin, "Origins whose pages may read the answers (CORS).";
    }
    "Who a client is" {
        tokens_file: or("none", &Kind::File), Restart, tokens_file, "File of bearer tokens: clients need one of them. A reload reads it again.";
        jwks: or("none", &Kind::Text), Restart, jwks, "Key set (JWKS) that tokens (JWT) are signed by: a URL, or a file. Needs issuer and audiences. A reload fetches it again.";
        issuer: or("none", &Kind::Text), Restart, issuer, "Who gives out those tokens: their iss, to the letter.";
        audiences: Kind::List, Restart, audiences, "Whom those tokens are for: one of these is in their aud. Nearly always resource, alone.";
        algorithms: Kind::List, Restart, algorithms, "What those tokens may be signed by, as in `ES256`. None: every algorithm that is supported.";
        jwt_leeway: Kind::Time(0, 5 * MINUTE), Restart, jwt_leeway, "How far the issuer's clock and this one may be apart.";
        jwt_remembered: count(0, 1 << 24, 200), Restart, jwt_remembered, "Good tokens that are remembered, so that their signature is not checked each time.";
        jwks_refresh: Kind::Time(SECOND, DAY), Restart, jwks_refresh, "How long a key set is good that does not say so itself.";
        jwks_fetch_interval: Kind::Time(100 * MS, HOUR), Restart, jwks_fetch_interval, "Between two fetches of the key set at least, whatever tokens say.";
        jwks_max_stale: Kind::Time(0, 30 * DAY), Restart, jwks_max_stale, "How long a key set goes on that could not be renewed. Then requests are refused with 503.";
        resource: or("none", &Kind::Text), Restart, resource, "URL of the endpoint as clients see it, for the metadata that tells them where tokens come from.";
        authorization_servers: Kind::List, Restart, authorization_servers, "Issuer URLs of the servers that give out tokens. Needs resource.";
        scopes: Kind::List, Restart, scopes, "Scopes that every token needs.";
    }
    "Requests and answers" {
        stream: Kind::Switch, Restart, server.answer, "Answer every request with a stream, so that every response can be fetched again after a break.";
        max_body_bytes: Kind::Bytes(KIB, GIB), Restart, server.max_body_bytes, "Largest body. Held in memory while it is read.";
        max_pending_body_bytes: Kind::Bytes(KIB, 16 << 40), Restart, server.max_pending_body_bytes, "Bytes of bodies that have not come whole, all requests together. At least max_body_bytes.";
        max_header_bytes: Kind::Bytes(KIB, MIB), Restart, server.max_header_bytes, "Largest request head, names and values added up.";
        read_timeout: Kind::Time(100 * MS, HOUR), Restart, server.read_timeout, "How long a client may take to send a request head, and a body.";
    }
    "Connections" {
        max_connections: or("auto", &count(1, 1 << 24, 1024)), Restart, server.connections.max, "Connections open at once. auto: as many as there may be descriptors, less a quarter (at most 1024).";
        max_connections_per_address: or("any", &count(1, 1 << 24, 0)), Restart, server.connections.max_per_address, "Connections open at once from one IPv4 address, or from one IPv6 network of 64 bits.";
        count_loopback: Kind::Switch, Restart, server.connections.count_loopback, "Count connections from loopback by address too, where a proxy on the same machine comes from.";
        connection_idle: Kind::Time(SECOND, DAY), Restart, server.connections.idle, "How long a connection without a request is kept.";
        connection_max_age: or("none", &Kind::Time(SECOND, 365 * DAY)), Restart, server.connections.max_age, "How long a connection is kept at all, less up to a tenth by chance. Then its client is told to come back.";
        max_http2_control_rate: count(1, 1_000_000, 0), Restart, server.connections.max_http2_control_rate, "HTTP/2 frames a second that carry neither a request nor its body.";
        keep_alive: Kind::Time(SECOND, HOUR), Restart, server.keep_alive, "How often a quiet stream gets a comment. Between one and two of these may pass.";
        stalled_after: Kind::Time(SECOND, DAY), Restart, server.stalled_after, "How long a client may take nothing of what waits for it before its connection is ended.";
        max_http2_streams: count(1, 1_000_000, 1536), Restart, server.max_http2_streams, "Streams of one HTTP/2 connection at once.";
        hand_over: Kind::Switch, Restart, server.hand_over, "Write event streams over plain HTTP/1.1 without hyper, for a twentieth of the memory. Works on Linux.";
        drain: Kind::Time(0, DAY), Restart, server.drain, "How long a drain waits for requests in flight.";
        drain_spread: Kind::Time(0, HOUR), Restart, server.drain_spread, "How far apart clients come back that a drain sends away: each is told to wait up to so much longer, by chance.";
    }
    "Sessions" {
        max_sessions: count(1, 1 << 32, 280), Sessions, server.sessions.max_sessions, "Sessions at once. At the limit at_limit decides.";
        at_limit: Kind::Choice(AtLimit::NAMES), Sessions, server.sessions.at_limit, "What happens at max_sessions: a new session is refused, or the oldest one ends, or the one that was idle for longest.";
        max_sessions_per_principal: or("any", &count(1, 1 << 32, 0)), Sessions, server.sessions.max_sessions_per_principal, "Sessions of one principal at once. Needs tokens_file or jwks.";
        create_rate: or("any", &Kind::Rate), Sessions, server.sessions.create_rate, "How fast sessions may be created, all together.";
        create_rate_per_caller: or("any", &Kind::Rate), Sessions, server.sessions.create_rate_per_caller, "How fast one principal may create sessions, or one address if it is nobody in particular.";
        init: Kind::Time(SECOND, DAY), Sessions, server.sessions.init_ms, "Time within which a client must come back after initialize; else its session expires.";
        idle: Kind::Time(SECOND, 365 * DAY), Sessions, server.sessions.idle_ms, "Time without traffic after which a session expires.";
        rest_after: or("never", &Kind::Time(100 * MS, DAY)), Restart, rest_after, "How long the loop of an rmcp handler goes on with nothing to do. Then its session takes little more than the handler; the next message begins the loop again.";
        absolute: Kind::Time(SECOND, 3650 * DAY), Sessions, server.sessions.absolute_ms, "Time after which a session expires whatever its traffic.";
        max_requests: count(1, 1 << 20, 256), Restart, server.sessions.max_requests, "Requests of one session in flight at once.";
        response_ttl: Kind::Time(SECOND, 30 * DAY), Sessions, server.sessions.response_ttl_ms, "How long a response is kept that nobody fetched to the end.";
        delivered_ttl: Kind::Time(0, 30 * DAY), Sessions, server.sessions.delivered_ttl_ms, "How long a response is kept that was handed to its connection, which may have broken with it on the way.";
        retry: Kind::Time(MS, HOUR), Restart, server.sessions.retry_ms, "What clients are told to wait before they reconnect.";
        sweep: Kind::Time(100 * MS, HOUR), Restart, server.sweep, "How often sessions and responses whose time is up are looked for.";
    }
    "What streams retain" {
        max_retained_bytes: Kind::Bytes(MIB, 16 << 40), Sessions, server.sessions.max_retained_bytes, "Bytes of events that all streams keep together. Beyond it the longest backlogs give their oldest events.";
        standalone_events: count(1, 1 << 24, 8), Restart, server.sessions.standalone.capacity, "Events that a standalone stream keeps.";
        standalone_bytes: Kind::Bytes(4 * KIB, 64 * GIB), Restart, server.sessions.standalone.max_weight, "Bytes that a standalone stream keeps.";
        standalone_age: Kind::Time(SECOND, 24 * DAY), Restart, server.sessions.standalone.max_age_ms, "How long a standalone stream keeps an event.";
        request_events: count(1, 1 << 24, 8), Restart, server.sessions.request.capacity, "Events that the stream of one request keeps.";
        request_bytes: Kind::Bytes(4 * KIB, 64 * GIB), Restart, server.sessions.request.max_weight, "Bytes that the stream of one request keeps.";
        request_age: Kind::Time(SECOND, 24 * DAY), Restart, server.sessions.request.max_age_ms, "How long the stream of one request keeps an event.";
        lag: Kind::Choice(LagPolicy::NAMES), Restart, server.sessions.lag, "What happens to a connection that falls behind: it is told and goes on, it ends, or publishers wait for it.";
        wait: Kind::Time(0, HOUR), Restart, server.sessions.wait_ms, "How long a publisher waits, where lag is wait.";
    }
    "Log" {
        log: Kind::Text, Log, log, "What is logged: a level, or levels by target, as in `ringmain=debug`.";
        log_format: Kind::Choice(LogFormat::NAMES), Restart, log_format, "Lines of text, or of JSON.";
    }
};
