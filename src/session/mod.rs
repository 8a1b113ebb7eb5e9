//! From a session's ID to its streams: who may go on where, and for how long.
//!
//! [`Sessions`] finds a [`Session`] by its ID without a lock. A session has one standalone stream and a stream
//! for each request that is being answered or whose answer may still be fetched. [`Connection`] is what the
//! edge writes: priming, frames, the signal of a gap, `retry`, in the order and form the client's protocol
//! version asks for.
//!
//! # Where a message goes
//!
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#multiple-connections
//! > The server MUST send each of its JSON-RPC messages on only one of the connected streams
//!
//! What belongs to a request (its response, its progress, what its handler asks the client) goes to the stream
//! of that request; everything else goes to the standalone stream. A stream has one connection at a time.
//!
//! # Life
//!
//! A session begins with `initialize` and ends by DELETE, by idle time, by age, or when the server chooses.
//! Ending closes its streams, which ends their connections at once. A request stream ends with its response
//! and is kept until nobody can want that response any more.
//!
//! # Locks
//!
//! The list of a session's requests is behind a mutex: it is held for some nanoseconds to add, find or remove
//! one of a handful, by that client's own messages, and never while anything is published, written or awaited.
//!
//! # Memory use
//!
//! An idle session is one allocation of about 200 bytes, and 46 in the map. It owns no task, no timer, no
//! buffer and no channel.

mod admission;
mod connection;
mod counters;
mod principal;
mod registry;
mod request;
mod settings;
mod state;
mod traffic;

pub use admission::Creator;
pub use connection::{Connection, Piece, PieceBuf};
pub use counters::Counters;
pub use principal::{Holder, Principal, Principals};
pub use registry::{End, Reach, Sessions};
pub use request::{AskError, RequestStream};
pub use settings::{AtLimit, Rate, Settings};
pub use state::{Session, Summary};
pub use traffic::{Ending, Traffic};

#[cfg(all(test, not(ringmain_loom)))]
mod tests;
