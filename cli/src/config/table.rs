//! The table of options: each is one line here, and one row of `docs/operations.md`.

use super::value::{Field, Kind, Names, Value};
use super::{LogFormat, Options};
use ringmain::protocol::ForwardedHeader;
use ringmain::server::{Accept, AccessLog};
use ringmain::session::{AtLimit, LagPolicy};

/// One option: a key of the file, a flag, a variable of the environment.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name in the file.
    pub name: &'static str,
    /// Heading of its part of the table.
    pub heading: &'static str,
    /// The values it takes.
    pub kind: Kind,
    /// How a change takes effect while the server runs.
    pub reload: Reload,
    /// What it does, for `--help` and the documentation.
    pub help: &'static str,
    /// Path of the field of [`Options`] that it sets.
    pub place: &'static str,
    pub(super) read: fn(&Options) -> Value,
    pub(super) write: fn(&mut Options, Value),
}

/// How a change of an option takes effect while the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// At the next start.
    Restart,
    /// At once: the lists of hosts and origins are replaced.
    Allowed,
    /// At once: the filter of the log is replaced.
    Log,
    /// At once: the settings of sessions are replaced.
    Sessions,
}

impl Key {
    /// Finds the key with this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The name of its flag, without the two dashes.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The name of its environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("RINGMAIN_{}", self.name.to_ascii_uppercase())
    }

    /// Writes the value that it has in `options`, as in a file.
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

/// A count of things that take `each` bytes.
const fn count(min: u64, max: u64, each: u64) -> Kind {
    Kind::Count { min, max, each }
}

/// A word that stands for no value, or a value of `kind`.
const fn or(word: &'static str, kind: &'static Kind) -> Kind {
    Kind::Or { word, kind }
}

/// Builds the keys from lines of `name: kind, reload, place, help`, grouped by heading.
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

/// All options.
pub const KEYS: &[Key] = keys! {
    "Addresses" {
        listen: Kind::Address, Restart, listen, "Address to listen on. An address other than loopback also needs allow_host.";
        path: Kind::Path, Restart, server.path, "Path of the endpoint. Served with and without a trailing slash.";
        health_path: or("none", &Kind::Path), Restart, server.health_path, "Health check path on the listen address. GET returns 200 while the server is ready, else 503. Any Host is accepted, and no token is needed.";
        admin: or("none", &Kind::Address), Restart, admin, "Address of the admin endpoints: /publish, /healthz, /readyz, /metrics. Anyone who can reach it can publish, unless admin_token_file is set: keep it on loopback or set that.";
        admin_token_file: or("none", &Kind::File), Restart, admin_token_file, "File with one token. /publish on the admin address then requires it as `Authorization: Bearer`. A reload reads the file again.";
    }
    "Proxies" {
        trusted_proxies: Kind::List, Restart, trusted_proxies, "Networks of proxies that are trusted to name the client's address: `10.0.0.0/8`, `192.0.2.7`. Limits, rates and logs use that address.";
        forwarded_header: Kind::Choice(ForwardedHeader::NAMES), Restart, server.proxies.header, "Header that the trusted proxies write. The right-most address in it that is not a trusted proxy is the client's.";
        proxy_protocol: Kind::Switch, Restart, server.proxies.protocol, "Expect a PROXY protocol header, version 1 or 2, on connections of trusted proxies. Needs trusted_proxies.";
    }
    "TLS" {
        tls_cert: or("none", &Kind::File), Restart, tls_cert, "Certificate chain in PEM. Needs tls_key. A reload reads it again.";
        tls_key: or("none", &Kind::File), Restart, tls_key, "Private key of the certificate, in PEM.";
    }
    "Access control" {
        allow_host: Kind::List, Allowed, allow_host, "Accepted `Host` values: `example.com`, `example.com:8080`, `*.example.com`. Empty: loopback only.";
        allow_origin: Kind::List, Allowed, allow_origin, "Accepted `Origin` values: `https://app.example.com`, `http://localhost:*`. Empty: loopback only.";
        cors_origin: Kind::List, Allowed, cors_origin, "Origins whose pages may read responses (CORS).";
        cors_header: Kind::List, Allowed, cors_header, "Request headers that pages of those origins may send, in addition to those of MCP.";
    }
    "Authentication" {
        tokens_file: or("none", &Kind::File), Restart, tokens_file, "File of bearer tokens. Clients must send one of them. A reload reads it again.";
        jwks: or("none", &Kind::Text), Restart, jwks, "Key set (JWKS) that verifies signed tokens (JWT): a URL or a file. Needs issuer and audiences. A reload fetches it again.";
        issuer: or("none", &Kind::Text), Restart, issuer, "Required `iss` claim, compared exactly.";
        audiences: Kind::List, Restart, audiences, "Accepted audiences: the `aud` claim must hold one of these. Usually the value of resource alone.";
        algorithms: Kind::List, Restart, algorithms, "Accepted signature algorithms, for example `ES256`. Empty: all supported ones.";
        jwt_leeway: Kind::Time(0, 5 * MINUTE), Restart, jwt_leeway, "Allowed clock difference between the issuer and this server.";
        jwt_remembered: count(0, 1 << 24, 200), Restart, jwt_remembered, "Number of verified tokens to cache, so that their signatures are not checked again.";
        jwks_refresh: Kind::Time(SECOND, DAY), Restart, jwks_refresh, "Lifetime of a key set that states none.";
        jwks_fetch_interval: Kind::Time(100 * MS, HOUR), Restart, jwks_fetch_interval, "Minimum interval between two fetches of the key set.";
        jwks_max_stale: Kind::Time(0, 30 * DAY), Restart, jwks_max_stale, "Time that a key set stays in use when it cannot be refreshed. After that, requests are refused with 503.";
        resource: or("none", &Kind::Text), Restart, resource, "Public URL of the endpoint, for the metadata that tells clients where to get tokens. Needs authorization_servers.";
        authorization_servers: Kind::List, Restart, authorization_servers, "Issuer URLs of the authorization servers. Needs resource.";
        scopes: Kind::List, Restart, scopes, "Scopes that every token must have.";
        scopes_supported: Kind::List, Restart, scopes_supported, "Scopes listed in the metadata for clients to request. Empty: the value of scopes. Needs resource.";
    }
    "Requests and responses" {
        stream: Kind::Switch, Restart, server.answer, "Answer every request with an event stream, so that every response can be fetched again after a broken connection.";
        accept: Kind::Choice(Accept::NAMES), Restart, server.accept, "How the `Accept` header is checked. lenient: it must allow some form of the response. strict: it must list both JSON and event streams.";
        max_body_bytes: Kind::Bytes(KIB, GIB), Restart, server.max_body_bytes, "Maximum size of a request body. A body is held in memory while it is read.";
        max_pending_body_bytes: Kind::Bytes(KIB, 16 << 40), Restart, server.max_pending_body_bytes, "Maximum total size of bodies that are still being received. At least max_body_bytes.";
        max_header_bytes: Kind::Bytes(KIB, MIB), Restart, server.max_header_bytes, "Maximum size of a request head: the sum of all header names and values.";
        request_rate_per_principal: or("any", &Kind::Rate), Restart, server.request_rate_per_principal, "Maximum request rate of one principal. Requests beyond it get 429. Needs tokens_file or jwks.";
        request_rate_per_address: or("any", &Kind::Rate), Restart, server.request_rate_per_address, "Maximum request rate of one IPv4 address or one IPv6 /64 network. Requests beyond it get 429. Behind a proxy, also set trusted_proxies.";
        read_timeout: Kind::Time(100 * MS, HOUR), Restart, server.read_timeout, "Time limit for receiving a request head, and again for its body.";
    }
    "Connections" {
        max_connections: or("auto", &count(1, 1 << 24, 1024)), Restart, server.connections.max, "Maximum number of open connections. auto: the descriptor limit, with a quarter (at most 1024) left for other uses.";
        max_connections_per_address: or("any", &count(1, 1 << 24, 0)), Restart, server.connections.max_per_address, "Maximum number of open connections from one IPv4 address or one IPv6 /64 network.";
        count_loopback: Kind::Switch, Restart, server.connections.count_loopback, "Apply max_connections_per_address to loopback too. Off by default, since a proxy on the same machine connects from there.";
        connection_idle: Kind::Time(SECOND, DAY), Restart, server.connections.idle, "Time after which a connection without a request is closed.";
        connection_max_age: or("none", &Kind::Time(SECOND, 365 * DAY)), Restart, server.connections.max_age, "Maximum age of a connection, shortened by a random part of up to a tenth. Its client is then told to reconnect.";
        max_http2_control_rate: count(1, 1_000_000, 0), Restart, server.connections.max_http2_control_rate, "Maximum number of HTTP/2 frames per second that carry neither a request nor its body.";
        keep_alive: Kind::Time(SECOND, HOUR), Restart, server.keep_alive, "Interval between comments on a quiet stream. The actual gap is one to two intervals.";
        stalled_after: Kind::Time(SECOND, DAY), Restart, server.stalled_after, "Time after which a client that reads none of its pending data is disconnected.";
        max_http2_streams: count(1, 1_000_000, 1536), Restart, server.max_http2_streams, "Maximum number of concurrent streams on one HTTP/2 connection.";
        hand_over: Kind::Switch, Restart, server.hand_over, "Write event streams over plain HTTP/1.1 outside hyper, with a twentieth of the memory. Linux only.";
        drain: Kind::Time(0, DAY), Restart, server.drain, "Maximum time that a drain waits for requests in flight.";
        drain_delay: Kind::Time(0, HOUR), Restart, server.drain_delay, "Time between the stop signal and the closing of the listener. The server still serves but reports not ready. Set it to the time that load balancers need to notice.";
        drain_spread: Kind::Time(0, HOUR), Restart, server.drain_spread, "Window over which drained clients reconnect. Each is told to wait a random time within it, in addition to retry.";
    }
    "Sessions" {
        max_sessions: count(1, 1 << 32, 280), Sessions, server.sessions.max_sessions, "Maximum number of sessions. At the limit, at_limit applies.";
        at_limit: Kind::Choice(AtLimit::NAMES), Sessions, server.sessions.at_limit, "What happens at max_sessions: refuse the new session, evict the oldest session, or evict the one idle for longest.";
        max_sessions_per_principal: or("any", &count(1, 1 << 32, 0)), Sessions, server.sessions.max_sessions_per_principal, "Maximum number of sessions of one principal. Needs tokens_file or jwks.";
        create_rate: or("any", &Kind::Rate), Sessions, server.sessions.create_rate, "Maximum rate of new sessions in total.";
        create_rate_per_caller: or("any", &Kind::Rate), Sessions, server.sessions.create_rate_per_caller, "Maximum rate of new sessions of one principal, or of one address for clients without a principal.";
        init: Kind::Time(SECOND, DAY), Sessions, server.sessions.init_ms, "Time within which a client must send its next message after initialize. Otherwise the session expires.";
        idle: Kind::Time(SECOND, 365 * DAY), Sessions, server.sessions.idle_ms, "Time without traffic after which a session expires.";
        rest_after: or("never", &Kind::Time(100 * MS, DAY)), Restart, rest_after, "Idle time after which the loop of an rmcp handler stops. Its session then needs little more memory than the handler itself; the next message restarts the loop.";
        absolute: Kind::Time(SECOND, 3650 * DAY), Sessions, server.sessions.absolute_ms, "Maximum lifetime of a session, regardless of traffic.";
        max_requests: count(1, 1 << 20, 256), Restart, server.sessions.max_requests, "Maximum number of requests in flight in one session.";
        max_listeners: count(1, 64, 128), Restart, server.sessions.max_listeners, "Maximum number of connections to one session's standalone stream.";
        max_unfetched_responses: count(1, 1 << 24, 400), Restart, server.sessions.max_unfetched_responses, "Maximum number of responses kept for one session whose client disconnected before it received them. The oldest is dropped first.";
        max_unfetched_bytes: Kind::Bytes(4 * KIB, 64 * GIB), Restart, server.sessions.max_unfetched_bytes, "Maximum total size of the finished responses of one session. The newest is kept whatever its size.";
        response_ttl: Kind::Time(SECOND, 30 * DAY), Sessions, server.sessions.response_ttl_ms, "Time that an unfetched response is kept, counted from when a client was last connected to its stream.";
        delivered_ttl: Kind::Time(0, 30 * DAY), Sessions, server.sessions.delivered_ttl_ms, "Time that a response is kept after it was written to its connection, in case the connection broke before the client received it.";
        retry: Kind::Time(MS, HOUR), Restart, server.sessions.retry_ms, "Time that clients are told to wait before they reconnect.";
        sweep: Kind::Time(100 * MS, HOUR), Restart, server.sweep, "Interval between checks for expired sessions and responses.";
    }
    "Retention" {
        max_retained_bytes: Kind::Bytes(MIB, 16 << 40), Sessions, server.sessions.max_retained_bytes, "Maximum total size of the events that all streams retain. Beyond it, the streams with the largest backlogs lose their oldest events.";
        broadcast_events: count(1, 1 << 24, 8), Restart, server.sessions.broadcast.capacity, "Maximum number of retained messages to all sessions. They are stored once for all sessions.";
        broadcast_bytes: Kind::Bytes(4 * KIB, 64 * GIB), Restart, server.sessions.broadcast.max_weight, "Maximum total size of retained messages to all sessions.";
        broadcast_age: Kind::Time(SECOND, 49 * DAY), Restart, server.sessions.broadcast.max_age_ms, "Time that a message to all sessions is retained.";
        standalone_events: count(1, 1 << 24, 8), Restart, server.sessions.standalone.capacity, "Maximum number of events that a standalone stream retains.";
        standalone_bytes: Kind::Bytes(4 * KIB, 64 * GIB), Restart, server.sessions.standalone.max_weight, "Maximum total size of the events that a standalone stream retains.";
        standalone_age: Kind::Time(SECOND, 49 * DAY), Restart, server.sessions.standalone.max_age_ms, "Time that a standalone stream retains an event.";
        request_events: count(1, 1 << 24, 8), Restart, server.sessions.request.capacity, "Maximum number of events that a request stream retains.";
        request_bytes: Kind::Bytes(4 * KIB, 64 * GIB), Restart, server.sessions.request.max_weight, "Maximum total size of the events that a request stream retains.";
        request_age: Kind::Time(SECOND, 49 * DAY), Restart, server.sessions.request.max_age_ms, "Time that a request stream retains an event.";
        lag: Kind::Choice(LagPolicy::NAMES), Restart, server.sessions.lag, "What happens when a connection falls behind the retained events. signal: it is told how many it missed and continues. end: it is closed. wait: publishers wait for it.";
        wait: Kind::Time(0, HOUR), Restart, server.sessions.wait_ms, "Maximum time that a publisher waits, with lag = wait.";
    }
    "Log" {
        log: Kind::Text, Log, log, "Log filter: a level, or levels by target, for example `info` or `ringmain=debug`.";
        access_log: Kind::Choice(AccessLog::NAMES), Restart, server.access_log, "Log one line per request when its response ends, with target `ringmain::access`. Implies request_ids, and keeps streams inside hyper, which needs more memory.";
        request_ids: Kind::Switch, Restart, server.request_ids, "Give each request an ID, in the log and in the `X-Request-Id` response header: the trace ID of `traceparent`, or a random one.";
        log_format: Kind::Choice(LogFormat::NAMES), Restart, log_format, "Format of log lines: text or JSON.";
    }
};
