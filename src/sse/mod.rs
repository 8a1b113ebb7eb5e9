//! Events become bytes here, once.
//!
//! Pure: no I/O, no clock. The stream room publishes [`Frame`]s, serialised once; the edge writes [`Events`]. A frame
//! that many streams share has no event ID in it: the ID says where a frame stands, and is written with it.
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

pub use batch::{Events, EventsBuf};
pub use control::{KEEP_ALIVE, lag_signal, prime, retry};
pub use event_id::{EventId, MalformedEventId, StreamName};
pub use frame::{Frame, Head};
pub use retained::retained_bytes;
