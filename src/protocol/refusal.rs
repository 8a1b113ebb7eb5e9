//! Every reason for which a request is refused, and the answer each one gets.
//!
//! A refusal is an HTTP status with a JSON-RPC error as its body. The table of all of them stands in
//! [`protocol`](super); a test compares it with this file. The statuses keep four meanings apart: `404` is
//! gone for good, `503` is later, `429` is slow down, and the other `4xx` say that the request is wrong.
//!
//! No message holds a session id, a header value or a part of a body, so that all of them may be logged.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use http::{HeaderName, StatusCode};

use super::request_id::RequestId;
use super::write::write_error;

/// JSON-RPC: the body is not JSON.
pub const PARSE_ERROR: i32 = -32700;
/// JSON-RPC: the body is JSON, but not a message.
pub const INVALID_REQUEST: i32 = -32600;
/// JSON-RPC: the server failed.
pub const INTERNAL_ERROR: i32 = -32603;
/// The transport's rules are broken or a limit is reached; the number the official TypeScript SDK uses.
pub const BAD_TRANSPORT_REQUEST: i32 = -32000;
/// The session is gone; the number the official TypeScript SDK uses.
pub const SESSION_NOT_FOUND: i32 = -32001;

/// Why a request is refused: the peer broke a rule, a limit was reached, or this server failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The body is not UTF-8.
    InvalidUtf8,
    /// The body is not JSON.
    ParseError,
    /// The body is empty or white space.
    EmptyBody,
    /// The body is an array of messages.
    Batch,
    /// The body is JSON, but not a JSON-RPC 2.0 message.
    NotJsonRpc {
        /// What is wrong with it.
        reason: EnvelopeFault,
    },
    /// The id is null, a fraction, another kind of value, or too long.
    InvalidId,
    /// A key stands twice at the top of the message.
    DuplicateKey,
    /// The body nests deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
    TooDeep,
    /// A request uses an id that is still in flight.
    DuplicateRequestId,
    /// `initialize` for a session that is already initialised.
    AlreadyInitialized,
    /// A message before `initialize` has finished.
    NotInitialized,
    /// No session id where one is needed.
    MissingSession,
    /// The session does not exist, or not any more.
    UnknownSession,
    /// The session id has a form this server never gives out, so it names no session.
    MalformedSessionId,
    /// `initialize` with a session id of the client's choice.
    SessionNotAllowed,
    /// The version in `MCP-Protocol-Version` is not spoken here.
    UnsupportedVersion,
    /// A header stands twice, with different values.
    ConflictingHeaders {
        /// The header.
        name: HeaderName,
    },
    /// The value of a header has bytes outside visible ASCII.
    InvalidHeader {
        /// The header.
        name: HeaderName,
    },
    /// The event id in `Last-Event-ID` cannot be read.
    MalformedEventId,
    /// The event id was given out for another session.
    ForeignEventId,
    /// The event id has not been given out yet.
    FutureEventId,
    /// The event id is of a stream of this session that is gone.
    ///
    /// Not `404`: to the client that would mean that the whole session is gone.
    UnknownStream,
    /// The body is not declared as `application/json`.
    UnsupportedContentType,
    /// A POST does not accept both forms of an answer.
    NotAcceptablePost,
    /// A GET does not accept an event stream.
    NotAcceptableGet,
    /// The method is not one of the endpoint's.
    MethodNotAllowed,
    /// Nothing is served at this path.
    NotFoundPath,
    /// The `Host` is missing, malformed, or not in the allow-list.
    BadHost,
    /// The `Origin` is malformed or not in the allow-list.
    BadOrigin,
    /// There is no token, and the endpoint asks for one.
    MissingToken,
    /// The credentials are there twice, or are empty.
    MalformedCredentials,
    /// The token is not accepted here.
    InvalidToken,
    /// The token is not valid any more.
    ExpiredToken,
    /// The token lacks a scope.
    InsufficientScope,
    /// Whoever sends the request may not.
    NotPermitted,
    /// It cannot be found out who sends the request.
    IdentityUnavailable,
    /// The body is larger than allowed.
    BodyTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The message to publish is larger than a stream may retain.
    EventTooLarge {
        /// How many bytes a stream may retain.
        limit: u64,
    },
    /// The request head is larger than allowed.
    HeadersTooLarge,
    /// The body did not arrive in time.
    BodyTimeout,
    /// Too many requests are in flight.
    TooManyRequests {
        /// How many may be in flight in one session.
        limit: usize,
    },
    /// No further session fits.
    TooManySessions,
    /// The principal has as many sessions as it may have.
    TooManyOwnSessions {
        /// How many one principal may have.
        limit: usize,
    },
    /// Sessions are created too fast, all together.
    SessionRate {
        /// How long to wait, in seconds.
        seconds: u32,
    },
    /// Sessions are created too fast by this caller.
    CallerSessionRate {
        /// How long to wait, in seconds.
        seconds: u32,
    },
    /// Too much of bodies that are not complete is held.
    Busy,
    /// The server is shutting down.
    Draining,
    /// The server failed.
    Internal,
}

/// What keeps a JSON value from being a JSON-RPC 2.0 message of MCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvelopeFault {
    /// It is a string, number, boolean or null.
    NotAnObject,
    /// `jsonrpc` is missing or not `"2.0"`.
    NotVersion2,
    /// There is neither `method` nor `result` nor `error`.
    NeitherMethodNorOutcome,
    /// There is `method`, and also `result` or `error`.
    BothMethodAndOutcome,
    /// There are `result` and `error`.
    BothResultAndError,
    /// `method` is not a string.
    MethodIsNoString,
    /// `params` is there and neither an object nor null.
    ParamsIsNoObject,
    /// There is `result` or `error`, but no `id` to tell which request it answers.
    ResponseWithoutId,
}

impl EnvelopeFault {
    /// Returns the fault in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAnObject => "it is not an object",
            Self::NotVersion2 => "jsonrpc is missing or not \"2.0\"",
            Self::NeitherMethodNorOutcome => "it has neither method nor result nor error",
            Self::BothMethodAndOutcome => "it has method and also result or error",
            Self::BothResultAndError => "it has both result and error",
            Self::MethodIsNoString => "method is not a string",
            Self::ParamsIsNoObject => "params is not an object",
            Self::ResponseWithoutId => "the response has no id",
        }
    }
}

impl Refusal {
    /// The value of the `Allow` header that a [`MethodNotAllowed`](Self::MethodNotAllowed) answer carries.
    pub const ALLOW: &'static str = "GET, POST, DELETE, OPTIONS";

    /// Returns the HTTP status of the answer.
    pub const fn status(&self) -> StatusCode {
        self.answer().0
    }

    /// Returns the JSON-RPC error code of the answer.
    pub const fn code(&self) -> i32 {
        self.answer().1
    }

    /// Returns a short label for metrics, one per variant, in `snake_case`.
    pub const fn kind(&self) -> &'static str {
        self.answer().2
    }

    /// Returns what is wrong and what to do about it; lower case, safe to log.
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Self::NotJsonRpc { reason } => format!("not a JSON-RPC 2.0 message: {}", reason.as_str()).into(),
            Self::ConflictingHeaders { name } => {
                format!("header {name} was sent twice with different values; send it once").into()
            }
            Self::InvalidHeader { name } => {
                format!("header {name} has bytes that are not visible ASCII; send ASCII only").into()
            }
            Self::BodyTooLarge { limit } => format!("body is larger than {limit} bytes").into(),
            Self::EventTooLarge { limit } => {
                format!("the event is larger than the {limit} bytes that its stream may retain").into()
            }
            Self::TooManyRequests { limit } => {
                format!("{limit} requests are in flight; wait for one to finish, then send again").into()
            }
            Self::TooManyOwnSessions { limit } => {
                format!("{limit} sessions are yours already; end one with DELETE, then send initialize again")
                    .into()
            }
            Self::SessionRate { seconds } => format!(
                "sessions are created too fast on this server; wait {seconds} seconds, then send initialize again"
            )
            .into(),
            Self::CallerSessionRate { seconds } => format!(
                "you create sessions too fast; wait {seconds} seconds, then send initialize again"
            )
            .into(),
            other => other.answer().3.into(),
        }
    }

    /// Returns the value of the `Retry-After` header, in seconds, where waiting helps.
    pub const fn retry_after(&self) -> Option<u32> {
        match self {
            Self::TooManyRequests { .. } => Some(1),
            Self::Draining | Self::Busy | Self::IdentityUnavailable => Some(5),
            Self::TooManySessions | Self::TooManyOwnSessions { .. } => Some(10),
            Self::SessionRate { seconds } | Self::CallerSessionRate { seconds } => Some(*seconds),
            _ => None,
        }
    }

    /// Returns the value of the `Allow` header, for the one refusal that needs it.
    pub const fn allow(&self) -> Option<&'static str> {
        match self {
            Self::MethodNotAllowed => Some(Self::ALLOW),
            _ => None,
        }
    }

    //= https://modelcontextprotocol.io/specification/2025-11-25/basic#error-responses
    //# Error responses MUST include the same ID as the request they correspond to (except in error cases
    //# where the ID could not be read due a malformed request).
    /// Returns the body of the answer: a JSON-RPC error on a single line.
    ///
    /// Without an id the key is left out, as MCP's schema asks; plain JSON-RPC would write `null`.
    pub fn body(&self, id: Option<&RequestId>) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        write_error(&mut out, id, self.code(), &self.message(), None);
        out
    }

    /// Status, code, label, and the message where it is fixed.
    const fn answer(&self) -> (StatusCode, i32, &'static str, &'static str) {
        use StatusCode as S;
        const BAD: i32 = BAD_TRANSPORT_REQUEST;
        match self {
            Self::InvalidUtf8 => (
                S::BAD_REQUEST,
                PARSE_ERROR,
                "invalid_utf8",
                "body is not UTF-8; encode the message as UTF-8",
            ),
            Self::ParseError => {
                (S::BAD_REQUEST, PARSE_ERROR, "parse_error", "body is not JSON; send one JSON-RPC message")
            }
            Self::EmptyBody => {
                (S::BAD_REQUEST, PARSE_ERROR, "empty_body", "body is empty; send one JSON-RPC message")
            }
            Self::Batch => (
                S::BAD_REQUEST,
                INVALID_REQUEST,
                "batch",
                "batches are not supported; send each message in a POST of its own",
            ),
            Self::NotJsonRpc { .. } => (S::BAD_REQUEST, INVALID_REQUEST, "not_json_rpc", ""),
            Self::InvalidId => (
                S::BAD_REQUEST,
                INVALID_REQUEST,
                "invalid_id",
                "id must be a 64-bit integer or a string of at most 256 bytes",
            ),
            Self::DuplicateKey => (
                S::BAD_REQUEST,
                INVALID_REQUEST,
                "duplicate_key",
                "a key stands twice in the message; send each key once",
            ),
            Self::TooDeep => (
                S::BAD_REQUEST,
                INVALID_REQUEST,
                "too_deep",
                "body nests deeper than 128 levels; send it flatter",
            ),
            Self::DuplicateRequestId => (
                S::BAD_REQUEST,
                INVALID_REQUEST,
                "duplicate_request_id",
                "a request with this id is still in flight; use an id once per session",
            ),
            Self::AlreadyInitialized => (
                S::BAD_REQUEST,
                INVALID_REQUEST,
                "already_initialized",
                "session is already initialized; send initialize without Mcp-Session-Id to start a new one",
            ),
            Self::NotInitialized => (
                S::BAD_REQUEST,
                BAD,
                "not_initialized",
                "session is not initialized; wait for the result of initialize, then send again",
            ),
            Self::MissingSession => (
                S::BAD_REQUEST,
                BAD,
                "missing_session",
                "Mcp-Session-Id is missing; send the value that the answer to initialize carried",
            ),
            Self::UnknownSession => (
                S::NOT_FOUND,
                SESSION_NOT_FOUND,
                "unknown_session",
                "session not found; send initialize without Mcp-Session-Id to start a new one",
            ),
            Self::MalformedSessionId => (
                S::NOT_FOUND,
                SESSION_NOT_FOUND,
                "malformed_session_id",
                "no session can have this id; send initialize without Mcp-Session-Id to start a new one",
            ),
            Self::SessionNotAllowed => (
                S::NOT_FOUND,
                SESSION_NOT_FOUND,
                "session_not_allowed",
                "the server chooses the session id; send initialize without Mcp-Session-Id",
            ),
            Self::UnsupportedVersion => (
                S::BAD_REQUEST,
                BAD,
                "unsupported_version",
                "unsupported MCP-Protocol-Version; send 2025-03-26, 2025-06-18 or 2025-11-25",
            ),
            Self::ConflictingHeaders { .. } => (S::BAD_REQUEST, BAD, "conflicting_headers", ""),
            Self::InvalidHeader { .. } => (S::BAD_REQUEST, BAD, "invalid_header", ""),
            Self::MalformedEventId => (
                S::BAD_REQUEST,
                BAD,
                "malformed_event_id",
                "Last-Event-ID cannot be read; send the id of an event as it was received",
            ),
            Self::ForeignEventId => (
                S::BAD_REQUEST,
                BAD,
                "foreign_event_id",
                "Last-Event-ID belongs to another session; resume with the session that received the event",
            ),
            Self::FutureEventId => (
                S::BAD_REQUEST,
                BAD,
                "future_event_id",
                "Last-Event-ID was not given out yet; send the id of an event that was received",
            ),
            Self::UnknownStream => (
                S::BAD_REQUEST,
                BAD,
                "unknown_stream",
                "the stream of Last-Event-ID is gone; send GET without Last-Event-ID to open a new one",
            ),
            Self::UnsupportedContentType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                BAD,
                "unsupported_content_type",
                "Content-Type must be application/json in UTF-8",
            ),
            Self::NotAcceptablePost => (
                S::NOT_ACCEPTABLE,
                BAD,
                "not_acceptable_post",
                "Accept must list both application/json and text/event-stream",
            ),
            Self::NotAcceptableGet => {
                (S::NOT_ACCEPTABLE, BAD, "not_acceptable_get", "Accept must list text/event-stream")
            }
            Self::MethodNotAllowed => (
                S::METHOD_NOT_ALLOWED,
                BAD,
                "method_not_allowed",
                "method not allowed; use POST for messages, GET for a stream, DELETE to end the session",
            ),
            Self::NotFoundPath => (
                S::NOT_FOUND,
                BAD,
                "not_found_path",
                "nothing is served at this path; check the endpoint's URL",
            ),
            Self::BadHost => {
                (S::FORBIDDEN, BAD, "bad_host", "Host is not allowed; add it to the server's allowed hosts")
            }
            Self::BadOrigin => (
                S::FORBIDDEN,
                BAD,
                "bad_origin",
                "Origin is not allowed; add it to the server's allowed origins",
            ),
            Self::MissingToken => (
                S::UNAUTHORIZED,
                BAD,
                "missing_token",
                "an access token is needed; send it as Authorization: Bearer",
            ),
            Self::MalformedCredentials => (
                S::BAD_REQUEST,
                BAD,
                "malformed_credentials",
                "Authorization cannot be read; send it once, with one token",
            ),
            Self::InvalidToken => (
                S::UNAUTHORIZED,
                BAD,
                "invalid_token",
                "the access token is not accepted here; WWW-Authenticate says why",
            ),
            Self::ExpiredToken => {
                (S::UNAUTHORIZED, BAD, "expired_token", "the access token expired; get a new one")
            }
            Self::InsufficientScope => (
                S::FORBIDDEN,
                BAD,
                "insufficient_scope",
                "the access token lacks a scope; WWW-Authenticate says which are needed",
            ),
            Self::NotPermitted => {
                (S::FORBIDDEN, BAD, "not_permitted", "not permitted; ask the operator of this server")
            }
            Self::IdentityUnavailable => (
                S::SERVICE_UNAVAILABLE,
                BAD,
                "identity_unavailable",
                "access tokens cannot be checked at the moment; try again later",
            ),
            Self::BodyTooLarge { .. } => (S::PAYLOAD_TOO_LARGE, BAD, "body_too_large", ""),
            Self::EventTooLarge { .. } => (S::PAYLOAD_TOO_LARGE, BAD, "event_too_large", ""),
            Self::HeadersTooLarge => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                BAD,
                "headers_too_large",
                "request headers are too large; send fewer or shorter headers",
            ),
            Self::BodyTimeout => (
                S::REQUEST_TIMEOUT,
                BAD,
                "body_timeout",
                "the body did not arrive in time; send the request again",
            ),
            Self::TooManyRequests { .. } => (S::TOO_MANY_REQUESTS, BAD, "too_many_requests", ""),
            Self::TooManySessions => (
                S::SERVICE_UNAVAILABLE,
                BAD,
                "too_many_sessions",
                "no further session fits on this server; try again later",
            ),
            Self::TooManyOwnSessions { .. } => (S::TOO_MANY_REQUESTS, BAD, "too_many_own_sessions", ""),
            Self::SessionRate { .. } => (S::TOO_MANY_REQUESTS, BAD, "session_rate", ""),
            Self::CallerSessionRate { .. } => (S::TOO_MANY_REQUESTS, BAD, "caller_session_rate", ""),
            Self::Busy => {
                (S::SERVICE_UNAVAILABLE, BAD, "busy", "too many bodies are being read; try again later")
            }
            Self::Draining => {
                (S::SERVICE_UNAVAILABLE, BAD, "draining", "the server is shutting down; try again later")
            }
            Self::Internal => {
                (S::INTERNAL_SERVER_ERROR, INTERNAL_ERROR, "internal", "the server failed; try again later")
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl Error for Refusal {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http::header::ACCEPT;
    use serde_json::Value;

    use super::super::{MAX_DEPTH, ProtocolVersion};
    use super::{EnvelopeFault, Refusal, RequestId};

    const FAULTS: [EnvelopeFault; 8] = [
        EnvelopeFault::NotAnObject,
        EnvelopeFault::NotVersion2,
        EnvelopeFault::NeitherMethodNorOutcome,
        EnvelopeFault::BothMethodAndOutcome,
        EnvelopeFault::BothResultAndError,
        EnvelopeFault::MethodIsNoString,
        EnvelopeFault::ParamsIsNoObject,
        EnvelopeFault::ResponseWithoutId,
    ];

    /// One of each variant, in the order of the declaration; `NotJsonRpc` once.
    fn all() -> Vec<Refusal> {
        use Refusal::*;
        vec![
            InvalidUtf8,
            ParseError,
            EmptyBody,
            Batch,
            NotJsonRpc { reason: FAULTS[0] },
            InvalidId,
            DuplicateKey,
            TooDeep,
            DuplicateRequestId,
            AlreadyInitialized,
            NotInitialized,
            MissingSession,
            UnknownSession,
            MalformedSessionId,
            SessionNotAllowed,
            UnsupportedVersion,
            ConflictingHeaders { name: ACCEPT },
            InvalidHeader { name: ACCEPT },
            MalformedEventId,
            ForeignEventId,
            FutureEventId,
            UnknownStream,
            UnsupportedContentType,
            NotAcceptablePost,
            NotAcceptableGet,
            MethodNotAllowed,
            NotFoundPath,
            BadHost,
            BadOrigin,
            MissingToken,
            MalformedCredentials,
            InvalidToken,
            ExpiredToken,
            InsufficientScope,
            NotPermitted,
            IdentityUnavailable,
            BodyTooLarge { limit: 987 },
            EventTooLarge { limit: 987 },
            HeadersTooLarge,
            BodyTimeout,
            TooManyRequests { limit: 987 },
            TooManySessions,
            TooManyOwnSessions { limit: 987 },
            SessionRate { seconds: 654 },
            CallerSessionRate { seconds: 654 },
            Busy,
            Draining,
            Internal,
        ]
    }

    #[test]
    fn table_in_the_docs_is_true() {
        let docs = include_str!("mod.rs");
        for refusal in all() {
            let message = refusal.message().replace("987", "{limit}").replace("accept ", "{name} ");
            let message = message.replace(FAULTS[0].as_str(), "{reason}").replace("654", "{seconds}");
            let (kind, status, code) = (refusal.kind(), refusal.status().as_u16(), refusal.code());
            let start = format!("//! | `{kind}` | ");
            let end = format!(" | {status} | {code} | {message} |");
            let is_there = docs.lines().any(|line| line.starts_with(&start) && line.ends_with(&end));
            assert!(is_there, "add this row: {start}...{end}");
        }
        let rows = docs.lines().filter(|line| line.starts_with("//! | `")).count();
        assert_eq!(rows, all().len());
        for fault in FAULTS {
            assert!(docs.contains(&format!("//! - {}", fault.as_str())), "{fault:?}");
        }
    }

    #[test]
    fn kinds_are_distinct_labels() {
        let kinds: HashSet<_> = all().iter().map(Refusal::kind).collect();
        assert_eq!(kinds.len(), all().len());
        for kind in kinds {
            assert!(
                kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'8'),
                "{kind}"
            );
        }
    }

    #[test]
    fn statuses_keep_their_meaning() {
        let with = |status: u16| -> Vec<_> {
            all().iter().filter(|refusal| refusal.status() == status).map(Refusal::kind).collect()
        };
        let gone = ["unknown_session", "malformed_session_id", "session_not_allowed", "not_found_path"];
        assert_eq!(with(404), gone);
        assert_eq!(
            with(429),
            ["too_many_requests", "too_many_own_sessions", "session_rate", "caller_session_rate"]
        );
        assert_eq!(with(503), ["identity_unavailable", "too_many_sessions", "busy", "draining"]);
        assert_eq!(with(500), ["internal"]);
    }

    #[test]
    fn whoever_shall_come_again_is_told_when() {
        for refusal in all() {
            let later = matches!(refusal.status().as_u16(), 429 | 503);
            assert_eq!(refusal.retry_after().is_some_and(|seconds| seconds > 0), later, "{refusal:?}");
        }
        assert_eq!(Refusal::SessionRate { seconds: 7 }.retry_after(), Some(7));
    }

    #[test]
    fn bodies_are_json_rpc_errors() {
        let id = RequestId::String("a\"\n".into());
        for refusal in all() {
            let body: Value = serde_json::from_slice(&refusal.body(Some(&id))).unwrap();
            assert_eq!(body["jsonrpc"], "2.0");
            assert_eq!(body["id"], "a\"\n");
            assert_eq!(body["error"]["code"], refusal.code());
            assert_eq!(body["error"]["message"], *refusal.message());
            let body: Value = serde_json::from_slice(&refusal.body(None)).unwrap();
            assert!(body.get("id").is_none());
            assert!(!refusal.message().is_empty() && !refusal.message().ends_with('.'));
            assert_eq!(refusal.to_string(), refusal.message());
        }
    }

    #[test]
    fn messages_name_the_real_limits() {
        for version in ProtocolVersion::ALL {
            assert!(Refusal::UnsupportedVersion.message().contains(version.as_str()));
        }
        assert!(Refusal::TooDeep.message().contains(&MAX_DEPTH.to_string()));
        assert!(Refusal::InvalidId.message().contains(&RequestId::MAX_BYTES.to_string()));
    }

    #[test]
    fn only_a_wrong_method_lists_the_right_ones() {
        let allowing: Vec<_> = all().into_iter().filter(|refusal| refusal.allow().is_some()).collect();
        assert_eq!(allowing, [Refusal::MethodNotAllowed]);
    }
}
