//! The requests of a client, as text.

use std::net::SocketAddr;

/// The body of `initialize`.
pub const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"perf","version":"1"}}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
/// What ten digits of request ID replace in [`CALL`].
const ID: &str = "1000000000";
/// The body of a call, about 300 bytes.
const CALL: &str = r#"{"jsonrpc":"2.0","id":1000000000,"method":"tools/call","params":{"name":"test_simple_text","arguments":{"text":"01234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"}}}"#;

/// A POST of `body`; `session` is a session's ID.
#[must_use]
pub fn post(address: SocketAddr, path: &str, session: Option<&str>, body: &str) -> String {
    let session = session_lines(session);
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nAccept: application/json, \
         text/event-stream\r\n{session}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// `initialize`.
#[must_use]
pub fn initialize(address: SocketAddr) -> String {
    post(address, "/mcp", None, INITIALIZE)
}

/// `notifications/initialized`.
#[must_use]
pub fn initialized(address: SocketAddr, session: &str) -> String {
    post(address, "/mcp", Some(session), INITIALIZED)
}

/// A call of a tool, and where in it the ten digits of its ID stand.
///
/// # Panics
///
/// Never: the digits are there.
#[must_use]
pub fn call(address: SocketAddr, path: &str, session: Option<&str>) -> (String, std::ops::Range<usize>) {
    let request = post(address, path, session, CALL);
    let at = request.rfind(ID).expect("the body has it");
    (request, at..at + ID.len())
}

/// A GET of the stream of client `name`, behind `last_id` if there is one.
#[must_use]
pub fn get(address: SocketAddr, name: &str, session: Option<&str>, last_id: Option<&str>) -> String {
    let session = session_lines(session);
    let last = last_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
    format!(
        "GET /mcp?session={name} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n{session}{last}\r\n"
    )
}

fn session_lines(session: Option<&str>) -> String {
    let lines = |id: &str| format!("Mcp-Session-Id: {id}\r\nMCP-Protocol-Version: 2025-11-25\r\n");
    session.map(lines).unwrap_or_default()
}
