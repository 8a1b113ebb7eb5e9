//! What goes on the wire and is no event of the ring: priming, `retry`, keep-alive, the signal of a gap.

use bytes::Bytes;

use super::event_id::{EventId, StreamName};

/// A comment line that keeps proxies and clients from giving up on a quiet stream. No ID, takes no slot.
pub const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// An event with an ID and empty data, and how long to wait before reconnecting.
///
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
//# The server SHOULD immediately send an SSE event consisting of an event ID and an empty `data` field in order
//# to prime the client to reconnect (using that event ID as `Last-Event-ID`).
#[must_use]
pub fn prime(id: EventId, retry_ms: u32) -> Bytes {
    Bytes::from(format!("id: {id}\nretry: {retry_ms}\ndata: \n\n"))
}

/// How long to wait before reconnecting, said again before the server closes a connection.
///
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
//# If the server does close the connection prior to terminating the SSE stream, it SHOULD send an SSE event with
//# a standard `retry` field before closing the connection.
#[must_use]
pub fn retry(retry_ms: u32) -> Bytes {
    Bytes::from(format!("retry: {retry_ms}\n\n"))
}

/// Tells the client that `missed` events before `oldest` were evicted before it read them.
///
/// A logging notification: of the forms that were tried it is the one that every official client hands to the
/// application without stumbling over it. Its ID is that of the last event missed, so that a resume after it
/// starts at the oldest retained one and the gap is told once.
#[must_use]
pub fn lag_signal(name: StreamName, oldest: u64, missed: u64) -> Bytes {
    let id = EventId::event(name, oldest.saturating_sub(1));
    Bytes::from(format!(
        "id: {id}\nevent: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":\
         {{\"level\":\"warning\",\"logger\":\"ringmain\",\"data\":{{\"event\":\"lagged\",\"missed\":{missed}}}}}}}\n\n"
    ))
}
