//! What goes on the wire and is no event of the ring: priming, `retry`, keep-alive, the signal of a gap.

use bytes::Bytes;

use super::event_id::EventId;

/// A comment line that keeps proxies and clients from giving up on a quiet stream. No ID, takes no slot.
pub(crate) const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// An event with an ID and empty data, and how long to wait before reconnecting.
///
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
//# The server SHOULD immediately send an SSE event consisting of an event ID and an empty `data` field in order
//# to prime the client to reconnect (using that event ID as `Last-Event-ID`).
#[must_use]
pub(crate) fn prime(id: EventId, retry_ms: u32) -> Bytes {
    Bytes::from(format!("id: {id}\nretry: {retry_ms}\ndata: \n\n"))
}

/// How long to wait before reconnecting, said again before the server closes a connection.
///
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
//# If the server does close the connection prior to terminating the SSE stream, it SHOULD send an SSE event with
//# a standard `retry` field before closing the connection.
#[must_use]
pub(crate) fn retry(retry_ms: u32) -> Bytes {
    Bytes::from(format!("retry: {retry_ms}\n\n"))
}

/// Tells the client that `missed` events up to the one at `id` were evicted before it read them.
///
/// It is a logging notification: of the forms that were tried, every official client hands this one to the
/// application without an error. Its ID is that of the last event missed, so that a resume after it starts at the
/// oldest retained event and the gap is told once.
#[must_use]
pub(crate) fn lag_signal(id: EventId, missed: u64) -> Bytes {
    Bytes::from(format!(
        "id: {id}\nevent: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":\
         {{\"level\":\"warning\",\"logger\":\"ringmain\",\"data\":{{\"event\":\"lagged\",\"missed\":{missed}}}}}}}\n\n"
    ))
}
