//! Events become bytes here, once.
//!
//! Pure: no I/O, no clock. Streams and topics publish [`Frame`]s, serialised once; the edge writes [`Events`]. A frame
//! that several connections may be sent has no event ID in it: the ID is written when the frame is.
//!
//! ```text
//! id: 9f3c21ab-2-000000000000002a\n      session tag, stream, position
//! event: message\n
//! data: {"jsonrpc":"2.0",…}\n
//! \n
//! ```

mod batch;
mod control;
mod event_id;
mod frame;
mod retained;

pub(crate) use batch::PendingEvents;
pub use batch::{Events, EventsBuf};
pub(crate) use control::{KEEP_ALIVE, lag_signal, prime, retry};
pub use event_id::{EventId, Log, MalformedEventId, Place, Series, StreamName};
pub use frame::{EventHead, Frame};
pub(crate) use retained::Held;
pub(crate) use retained::count as count_retained;
pub use retained::retained_bytes;
