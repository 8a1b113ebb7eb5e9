//! Events become bytes here, once.
//!
//! Pure: no ring, no I/O, no clock. The stream room publishes [`Frame`]s; the edge writes what a [`FrameBatch`]
//! shows. What differs per stream (the event ID) is a head of about 50 bytes; the payload behind it is either
//! in the same allocation or shared with the frames of other streams.
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

pub use batch::FrameBatch;
pub use control::{KEEP_ALIVE, lag_signal, prime, retry};
pub use event_id::{EventId, MalformedEventId, StreamName};
pub use frame::{Frame, Payload};
