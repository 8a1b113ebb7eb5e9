//! The rules of the transport as pure functions: versions, headers, ids, messages, and what a refusal looks
//! like.
//!
//! The `server` room calls them for each request; nothing here does I/O, reads a clock or keeps state. A
//! check returns `Result<_, Refusal>`, and a [`Refusal`] knows its own answer: status, code, message and
//! body. What differs between protocol versions is decided here and nowhere else, by questions to
//! [`ProtocolVersion`].
//!
//! - [`headers`]: `Accept`, `Content-Type`, `Mcp-Session-Id`, `MCP-Protocol-Version`, `Last-Event-ID`
//! - [`check_host`], [`check_origin`], [`AllowList`]: who may talk to this server at all
//! - [`Message`]: a body's JSON-RPC envelope, borrowed; [`write_request`] and its siblings: the way back
//! - [`SessionId`], [`RequestId`], [`ProtocolVersion`]: the names that travel with a request
//!
//! # Refusals
//!
//! Every refusal, its label in the metrics, and its answer. The body is a JSON-RPC error with this code and
//! message. With 429 and 503 comes a `Retry-After` header.
//!
//! | kind | what was wrong | HTTP | JSON-RPC | message |
//! |---|---|---|---|---|
//! | `invalid_utf8` | the body is not UTF-8 | 400 | -32700 | body is not UTF-8; encode the message as UTF-8 |
//! | `parse_error` | the body is not JSON | 400 | -32700 | body is not JSON; send one JSON-RPC message |
//! | `empty_body` | the body is empty or white space | 400 | -32700 | body is empty; send one JSON-RPC message |
//! | `batch` | the body is an array of messages | 400 | -32600 | batches are not supported; send each message in a POST of its own |
//! | `not_json_rpc` | the body is JSON, but not a JSON-RPC 2.0 message | 400 | -32600 | not a JSON-RPC 2.0 message: {reason} |
//! | `invalid_id` | the id is null, a fraction, another kind of value, or too long | 400 | -32600 | id must be a 64-bit integer or a string of at most 256 bytes |
//! | `duplicate_key` | a key stands twice at the top of the message | 400 | -32600 | a key stands twice in the message; send each key once |
//! | `too_deep` | the body nests deeper than [`MAX_DEPTH`] | 400 | -32600 | body nests deeper than 128 levels; send it flatter |
//! | `duplicate_request_id` | a request uses an id that is still in flight | 400 | -32600 | a request with this id is still in flight; use an id once per session |
//! | `already_initialized` | `initialize` for a session that is already initialised | 400 | -32600 | session is already initialized; send initialize without Mcp-Session-Id to start a new one |
//! | `not_initialized` | a message before `initialize` has finished | 400 | -32000 | session is not initialized; wait for the result of initialize, then send again |
//! | `missing_session` | no session id where one is needed | 400 | -32000 | Mcp-Session-Id is missing; send the value that the answer to initialize carried |
//! | `unknown_session` | the session does not exist, or not any more | 404 | -32001 | session not found; send initialize without Mcp-Session-Id to start a new one |
//! | `malformed_session_id` | the session id has a form this server never gives out, so it names no session | 404 | -32001 | no session can have this id; send initialize without Mcp-Session-Id to start a new one |
//! | `session_not_allowed` | `initialize` with a session id of the client's choice | 404 | -32001 | the server chooses the session id; send initialize without Mcp-Session-Id |
//! | `unsupported_version` | the version in `MCP-Protocol-Version` is not spoken here | 400 | -32000 | unsupported MCP-Protocol-Version; send 2025-03-26, 2025-06-18 or 2025-11-25 |
//! | `conflicting_headers` | a header stands twice, with different values | 400 | -32000 | header {name} was sent twice with different values; send it once |
//! | `invalid_header` | the value of a header has bytes outside visible ASCII | 400 | -32000 | header {name} has bytes that are not visible ASCII; send ASCII only |
//! | `malformed_event_id` | the event id in `Last-Event-ID` cannot be read | 400 | -32000 | Last-Event-ID cannot be read; send the id of an event as it was received |
//! | `foreign_event_id` | the event id was given out for another session | 400 | -32000 | Last-Event-ID belongs to another session; resume with the session that received the event |
//! | `future_event_id` | the event id has not been given out yet | 400 | -32000 | Last-Event-ID was not given out yet; send the id of an event that was received |
//! | `unknown_stream` | the event id is of a stream of this session that is gone | 400 | -32000 | the stream of Last-Event-ID is gone; send GET without Last-Event-ID to open a new one |
//! | `unsupported_content_type` | the body is not declared as `application/json` | 415 | -32000 | Content-Type must be application/json in UTF-8 |
//! | `not_acceptable_post` | a POST does not accept both forms of an answer | 406 | -32000 | Accept must list both application/json and text/event-stream |
//! | `not_acceptable_get` | a GET does not accept an event stream | 406 | -32000 | Accept must list text/event-stream |
//! | `method_not_allowed` | the method is not one of the endpoint's | 405 | -32000 | method not allowed; use POST for messages, GET for a stream, DELETE to end the session |
//! | `not_found_path` | nothing is served at this path | 404 | -32000 | nothing is served at this path; check the endpoint's URL |
//! | `bad_host` | the `Host` is missing, malformed, or not in the allow-list | 403 | -32000 | Host is not allowed; add it to the server's allowed hosts |
//! | `bad_origin` | the `Origin` is malformed or not in the allow-list | 403 | -32000 | Origin is not allowed; add it to the server's allowed origins |
//! | `missing_token` | there is no token, and the endpoint asks for one | 401 | -32000 | an access token is needed; send it as Authorization: Bearer |
//! | `malformed_credentials` | the credentials are there twice, or are empty | 400 | -32000 | Authorization cannot be read; send it once, with one token |
//! | `invalid_token` | the token is not accepted here | 401 | -32000 | the access token is not accepted here; WWW-Authenticate says why |
//! | `expired_token` | the token is not valid any more | 401 | -32000 | the access token expired; get a new one |
//! | `insufficient_scope` | the token lacks a scope | 403 | -32000 | the access token lacks a scope; WWW-Authenticate says which are needed |
//! | `not_permitted` | whoever sends the request may not | 403 | -32000 | not permitted; ask the operator of this server |
//! | `identity_unavailable` | it cannot be found out who sends the request | 503 | -32000 | access tokens cannot be checked at the moment; try again later |
//! | `body_too_large` | the body is larger than allowed | 413 | -32000 | body is larger than {limit} bytes |
//! | `event_too_large` | the message to publish is larger than a stream may retain | 413 | -32000 | the event is larger than the {limit} bytes that its stream may retain |
//! | `headers_too_large` | the request head is larger than allowed | 431 | -32000 | request headers are too large; send fewer or shorter headers |
//! | `body_timeout` | the body did not arrive in time | 408 | -32000 | the body did not arrive in time; send the request again |
//! | `too_many_requests` | too many requests are in flight | 429 | -32000 | {limit} requests are in flight; wait for one to finish, then send again |
//! | `too_many_sessions` | no further session fits | 503 | -32000 | no further session fits on this server; try again later |
//! | `too_many_own_sessions` | the principal has as many sessions as it may have | 429 | -32000 | {limit} sessions are yours already; end one with DELETE, then send initialize again |
//! | `session_rate` | sessions are created too fast, all together | 429 | -32000 | sessions are created too fast on this server; wait {seconds} seconds, then send initialize again |
//! | `caller_session_rate` | sessions are created too fast by this caller | 429 | -32000 | you create sessions too fast; wait {seconds} seconds, then send initialize again |
//! | `busy` | too much of bodies that are not complete is held | 503 | -32000 | too many bodies are being read; try again later |
//! | `draining` | the server is shutting down | 503 | -32000 | the server is shutting down; try again later |
//! | `internal` | the server failed | 500 | -32603 | the server failed; try again later |
//!
//! The `{reason}` of `not_json_rpc` is one of:
//!
//! - it is not an object
//! - jsonrpc is missing or not "2.0"
//! - it has neither method nor result nor error
//! - it has method and also result or error
//! - it has both result and error
//! - method is not a string
//! - params is not an object
//! - the response has no id

mod authority;
pub mod headers;
mod json;
mod message;
mod origin;
mod refusal;
mod request_id;
mod session_id;
mod version;
mod write;

pub use json::MAX_DEPTH;
pub use message::{
    Message, Outcome, RequestMessage, cancelled_request_id, negotiated_version, progress_token,
    requested_version,
};
pub use origin::{AllowList, PatternError, check_host, check_origin};
pub use refusal::{
    BAD_TRANSPORT_REQUEST, EnvelopeFault, INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR, Refusal,
    SESSION_NOT_FOUND,
};
pub use request_id::RequestId;
pub use session_id::{SessionId, random_tag};
pub use version::ProtocolVersion;
pub use write::{write_error, write_notification, write_request, write_result, write_single_line};
