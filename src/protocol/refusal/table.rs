//! The table of refusals: each is one row here, and one row of `docs/operations.md`.
//!
//! A row is a doc comment, whose first line says what is wrong, then
//! `Variant { fields }: kind, HTTP status, JSON-RPC code, header => message;`. The fields are those that the message
//! or the header needs. The message says what is wrong and what to do about it: in lower case, without a full stop,
//! and with nothing of the request in it but names of headers. A kind is a label of the metrics and never changes.

use http::{HeaderName, StatusCode};

use super::Header::{self, AcceptEncoding, Allow, Challenge, RetryAfter};
use super::{Code, EnvelopeFault};

refusals! {
    // What is wrong with a body.

    /// The body is not UTF-8.
    InvalidUtf8: "invalid_utf8", BAD_REQUEST, ParseError =>
        "the body is not UTF-8; encode the message as UTF-8";
    /// The body is not JSON.
    ParseError: "parse_error", BAD_REQUEST, ParseError =>
        "the body is not JSON; send one JSON-RPC message";
    /// The body is empty or white space.
    EmptyBody: "empty_body", BAD_REQUEST, ParseError =>
        "the body is empty; send one JSON-RPC message";
    /// The body is an array of messages, and the protocol version has no batches.
    Batch: "batch", BAD_REQUEST, InvalidRequest =>
        "batches are not supported here; send each message in its own POST";
    /// The body is an empty array.
    EmptyBatch: "empty_batch", BAD_REQUEST, InvalidRequest =>
        "the batch is empty; send at least one message";
    /// The body is an array of too many messages.
    BatchTooLarge {
        /// The most messages that a batch may have.
        limit: usize,
    }: "batch_too_large", BAD_REQUEST, InvalidRequest =>
        "a batch may have at most {limit} messages; split it into smaller batches";
    /// `initialize` is part of a batch.
    InitializeInBatch: "initialize_in_batch", BAD_REQUEST, InvalidRequest =>
        "initialize must not be part of a batch; send it alone, before any other message";
    /// The body is JSON, but not a JSON-RPC 2.0 message.
    NotJsonRpc {
        /// What is wrong with it.
        reason: EnvelopeFault,
    }: "not_json_rpc", BAD_REQUEST, InvalidRequest =>
        "the message is not JSON-RPC 2.0: {reason}";
    /// The id is null, a fraction, another kind of value, or too long.
    InvalidId: "invalid_id", BAD_REQUEST, InvalidRequest =>
        "id must be a 64-bit integer or a string of at most 4096 bytes";
    /// A key occurs twice at the top level of the message.
    DuplicateKey: "duplicate_key", BAD_REQUEST, InvalidRequest =>
        "the message has the same key twice; send each key once";
    /// The body is nested too deeply.
    ///
    /// The limit is 128 levels.
    TooDeep: "too_deep", BAD_REQUEST, InvalidRequest =>
        "the body is nested deeper than 128 levels; nest it less deeply";
    /// A request has the id of one that is still in flight.
    DuplicateRequestId: "duplicate_request_id", BAD_REQUEST, InvalidRequest =>
        "a request with this id is still in flight; use each id only once in a session";

    // Sessions and versions.

    /// The message is `initialize`, and the session is already initialised.
    AlreadyInitialized: "already_initialized", BAD_REQUEST, InvalidRequest =>
        "the session is already initialized; send initialize without Mcp-Session-Id to start a new session";
    /// The message was sent before `initialize` has finished.
    NotInitialized: "not_initialized", BAD_REQUEST, Transport =>
        "the session is not initialized yet; wait for the result of initialize, then try again";
    /// The session id is missing.
    MissingSession: "missing_session", BAD_REQUEST, Transport =>
        "Mcp-Session-Id is missing; send the value from the response to initialize";
    /// The session does not exist, or no longer exists.
    UnknownSession: "unknown_session", NOT_FOUND, SessionGone =>
        "session not found; send initialize without Mcp-Session-Id to start a new session";
    /// The session id has a form that this server never gives out, so no session can have it.
    MalformedSessionId: "malformed_session_id", NOT_FOUND, SessionGone =>
        "the session id is malformed; send initialize without Mcp-Session-Id to start a new session";
    /// The message is `initialize`, and the client chose a session id.
    SessionNotAllowed: "session_not_allowed", NOT_FOUND, SessionGone =>
        "the server chooses the session id; send initialize without Mcp-Session-Id";
    /// The version in `MCP-Protocol-Version` is not supported.
    UnsupportedVersion: "unsupported_version", BAD_REQUEST, Transport =>
        "unsupported MCP-Protocol-Version; send 2025-03-26, 2025-06-18 or 2025-11-25";

    // Other headers, method and path.

    /// A header occurs more than once with different values, or `Host` contradicts the target.
    ConflictingHeaders {
        /// The header.
        name: HeaderName,
    }: "conflicting_headers", BAD_REQUEST, Transport =>
        "the header {name} is ambiguous; send it once, with one value";
    /// The value of a header has bytes outside visible ASCII, or is not of the form that the header has.
    InvalidHeader {
        /// The header.
        name: HeaderName,
    }: "invalid_header", BAD_REQUEST, Transport =>
        "the header {name} has an invalid value; send a valid one, in visible ASCII";
    /// The event id in `Last-Event-ID` is malformed.
    MalformedEventId: "malformed_event_id", BAD_REQUEST, Transport =>
        "Last-Event-ID is malformed; send the id of an event exactly as it was received";
    /// The event id is of another session.
    ForeignEventId: "foreign_event_id", BAD_REQUEST, Transport =>
        "Last-Event-ID belongs to another session; resume in the session that received the event";
    /// The event id is of an event that was not sent yet.
    FutureEventId: "future_event_id", BAD_REQUEST, Transport =>
        "Last-Event-ID names an event that was not sent yet; send the id of an event that was received";
    /// The event id is of a stream of this session that is gone.
    ///
    /// Not `404`: to the client that would mean that the whole session is gone.
    UnknownStream: "unknown_stream", BAD_REQUEST, Transport =>
        "the stream of this Last-Event-ID is gone; send GET without Last-Event-ID to open a new stream";
    /// The body is not declared as `application/json`.
    UnsupportedContentType: "unsupported_content_type", UNSUPPORTED_MEDIA_TYPE, Transport =>
        "Content-Type must be application/json in UTF-8";
    //= https://www.rfc-editor.org/rfc/rfc9110#section-15.5.16
    //# If the problem was caused by an unsupported content coding, the Accept-Encoding response header field
    //# (Section 12.5.3) ought to be used to indicate which (if any) content codings would have been accepted in the
    //# request.
    /// The body has a `Content-Encoding`.
    UnsupportedContentEncoding: "unsupported_encoding", UNSUPPORTED_MEDIA_TYPE, Transport, AcceptEncoding =>
        "Content-Encoding is not supported; send the body without it";
    /// The transfer codings of the body are not `chunked` alone.
    UnsupportedTransferCoding: "unsupported_transfer", NOT_IMPLEMENTED, Transport =>
        "Transfer-Encoding must be chunked and nothing else; send the body without other codings";
    /// `Accept` of a POST leaves no form for the answer, or does not list both where both are required.
    NotAcceptablePost: "not_acceptable_post", NOT_ACCEPTABLE, Transport =>
        "Accept must list both application/json and text/event-stream";
    /// `Accept` of a GET does not include event streams.
    NotAcceptableGet: "not_acceptable_get", NOT_ACCEPTABLE, Transport =>
        "Accept must list text/event-stream";
    /// The method is not one of the endpoint's.
    MethodNotAllowed: "method_not_allowed", METHOD_NOT_ALLOWED, Transport, Allow =>
        "method not allowed; use POST to send a message, GET to open a stream, DELETE to end the session";
    /// Nothing is served at this path.
    NotFoundPath: "not_found_path", NOT_FOUND, Transport =>
        "nothing is served at this path; check the endpoint's URL";

    // Who asks, and where from.

    //= https://www.rfc-editor.org/rfc/rfc9112#section-3.2
    //# A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that
    //# lacks a Host header field
    /// `Host` is missing.
    MissingHost: "missing_host", BAD_REQUEST, Transport =>
        "Host is missing; send the host name and port of this server";
    /// `Host` is malformed or not in the allow-list.
    BadHost: "bad_host", FORBIDDEN, Transport =>
        "Host is not allowed; the operator can allow it with allow_host";
    /// `Origin` is malformed or not in the allow-list.
    BadOrigin: "bad_origin", FORBIDDEN, Transport =>
        "Origin is not allowed; the operator can allow it with allow_origin or cors_origin";
    /// The access token is missing.
    MissingToken: "missing_token", UNAUTHORIZED, Transport, Challenge =>
        "an access token is required; send it in the header Authorization as a Bearer token";
    /// The credentials are empty or were sent twice.
    MalformedCredentials: "malformed_credentials", BAD_REQUEST, Transport, Challenge =>
        "Authorization is malformed; send it once, with one token";
    /// The access token is not valid for this server.
    InvalidToken: "invalid_token", UNAUTHORIZED, Transport, Challenge =>
        "the access token is not valid for this server; WWW-Authenticate says why";
    /// The access token has expired.
    ExpiredToken: "expired_token", UNAUTHORIZED, Transport, Challenge =>
        "the access token has expired; get a new one";
    /// The access token lacks a required scope.
    InsufficientScope: "insufficient_scope", FORBIDDEN, Transport, Challenge =>
        "the access token lacks a required scope; WWW-Authenticate lists the required scopes";
    /// The principal is not allowed to do this.
    NotPermitted: "not_permitted", FORBIDDEN, Transport =>
        "you are not allowed to do this; ask the operator of this server";
    /// Access tokens cannot be checked at the moment.
    IdentityUnavailable: "identity_unavailable", SERVICE_UNAVAILABLE, Transport, RetryAfter(5) =>
        "access tokens cannot be checked at the moment; try again later";

    // Sizes, times and rates.

    /// The body is larger than allowed.
    BodyTooLarge {
        /// The limit, in bytes.
        limit: usize,
    }: "body_too_large", PAYLOAD_TOO_LARGE, Transport =>
        "the body is larger than {limit} bytes; send a smaller one";
    /// The message to publish is larger than a stream may retain.
    EventTooLarge {
        /// The most bytes that the stream may retain.
        limit: u64,
    }: "event_too_large", PAYLOAD_TOO_LARGE, Transport =>
        "the event is larger than the {limit} bytes that its stream may retain; publish a smaller one";
    /// The request head is larger than allowed.
    HeadersTooLarge: "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, Transport =>
        "the request headers are too large; send fewer or shorter headers";
    /// The body did not arrive in time.
    BodyTimeout: "body_timeout", REQUEST_TIMEOUT, Transport =>
        "the body did not arrive in time; send the request again";
    /// The session has too many requests in flight.
    TooManyRequests {
        /// The most requests that one session may have in flight.
        limit: usize,
    }: "too_many_requests", TOO_MANY_REQUESTS, Transport, RetryAfter(1) =>
        "the session already has {limit} requests in flight; wait for one to finish, then try again";
    /// The server has as many sessions as it may have.
    TooManySessions: "too_many_sessions", SERVICE_UNAVAILABLE, Transport, RetryAfter(10) =>
        "the server has reached its limit of sessions; try again later";
    /// The principal has as many sessions as it may have.
    TooManyOwnSessions {
        /// The most sessions that one principal may have.
        limit: usize,
    }: "too_many_own_sessions", TOO_MANY_REQUESTS, Transport, RetryAfter(10) =>
        "you already have {limit} sessions; end one with DELETE, then send initialize again";
    /// The principal sends requests too fast.
    PrincipalRequestRate {
        /// The time to wait, in seconds.
        seconds: u32,
    }: "principal_request_rate", TOO_MANY_REQUESTS, Transport, RetryAfter(*seconds) =>
        "you send requests too fast; try again after {seconds} s";
    /// Requests come too fast from this address.
    AddressRequestRate {
        /// The time to wait, in seconds.
        seconds: u32,
    }: "address_request_rate", TOO_MANY_REQUESTS, Transport, RetryAfter(*seconds) =>
        "requests come too fast from your address; try again after {seconds} s";
    /// Sessions are created too fast on this server.
    SessionRate {
        /// The time to wait, in seconds.
        seconds: u32,
    }: "session_rate", TOO_MANY_REQUESTS, Transport, RetryAfter(*seconds) =>
        "sessions are created too fast on this server; send initialize again after {seconds} s";
    /// Sessions are created too fast by this caller.
    CallerSessionRate {
        /// The time to wait, in seconds.
        seconds: u32,
    }: "caller_session_rate", TOO_MANY_REQUESTS, Transport, RetryAfter(*seconds) =>
        "you create sessions too fast; send initialize again after {seconds} s";

    // The state of the server.

    /// Request bodies that are not complete take too much memory.
    Busy: "busy", SERVICE_UNAVAILABLE, Transport, RetryAfter(5) =>
        "the server is receiving too many request bodies; try again later";
    /// The server is shutting down.
    Draining: "draining", SERVICE_UNAVAILABLE, Transport, RetryAfter(5) =>
        "the server is shutting down; try again later";
    /// The server failed.
    Internal: "internal", INTERNAL_SERVER_ERROR, Internal =>
        "the server failed; try again later";
}
