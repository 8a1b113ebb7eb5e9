//! The sessions of a server: each has an ID, one client, the streams of that client, and an end.
//!
//! [`Sessions`] finds a [`Session`] by its ID without a lock. A session has one standalone stream, and keeps the
//! requests that are being answered or whose responses may still be fetched. A connection is what the server writes:
//! priming, frames, the signal of a gap, `retry`, in the order and form the client's protocol version asks for.
//!
//! # Where a message goes
//!
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#multiple-connections
//! > The server MUST send each of its JSON-RPC messages on only one of the connected streams
//!
//! What belongs to a request (its response, its progress, what its handler asks the client) goes to the stream
//! of that request; everything else goes to the standalone stream. The stream of a request has one connection at a
//! time. A standalone stream may have several, of which the newest is given what is published. A message to all
//! sessions is published once, to a topic that standalone connections read beside the session's own events.
//!
//! # Life
//!
//! A session begins with `initialize` and ends by DELETE, by idle time, by age, or when the server chooses.
//! Ending closes its streams, which ends their connections at once. A request stream ends with its response
//! and is kept until nobody can want that response any more.
//!
//! # Locks
//!
//! The list of a session's requests, and what is known of the connections of its standalone stream, are behind one
//! mutex. That client's own messages and connections hold it to add, find or remove one of a handful. A sweep holds
//! it while it goes through the responses whose time is up, and `Sessions::relieve` while it trims the streams of
//! the session's requests. It is never held while anything is published, written or awaited.
//!
//! # Memory use
//!
//! An idle session is one allocation of 160 bytes, 8 bytes in the roster, and a weak reference in the map: 243 bytes
//! in all where there are a million (`perf sessions`). It owns no task, no timer, no buffer and no channel.

// In `session/` a file uses those before it in this list, never one after it:
//
//   settings life principal           values, and one word each
//   responses standalone open         what the lock of a session guards
//   counters admission shared         what the sessions of one registry share
//   state                             one session
//   requests questions retention ending   what is done with one
//   piece connection connect          its connections
//   index roster registry             all sessions
//   broadcast sweep relief            what is done with all of them
pub(crate) mod admission;
mod broadcast;
mod connect;
pub(crate) mod connection;
mod counters;
mod ending;
mod index;
#[allow(unreachable_pub, reason = "its models reach it")]
pub(crate) mod life;
mod open;
pub(crate) mod piece;
pub(crate) mod principal;
mod questions;
mod registry;
mod relief;
mod requests;
mod responses;
mod retention;
mod roster;
mod settings;
mod shared;
pub(crate) mod standalone;
mod state;
pub(crate) mod sweep;

pub use broadcast::Reach;
pub use counters::Counters;
pub use open::{Attachment, Summary};
pub use principal::{Principal, PrincipalId};
pub use registry::Sessions;
pub use settings::{AtLimit, Rate, Settings};
pub use state::Session;

pub use crate::protocol::SessionId;
pub use crate::request::{Ending, PublishError, Traffic};
pub use crate::ring::Limits;
pub use crate::stream::LagPolicy;

pub(crate) use crate::request::RequestStream;
pub(crate) use admission::Creator;
#[cfg(feature = "server")]
pub(crate) use admission::RequestRates;
pub(crate) use connection::Connection;
pub(crate) use life::End;
pub(crate) use piece::{Piece, PieceBuf};
pub(crate) use principal::Holder;

#[cfg(all(test, not(ringmain_loom)))]
mod tests;
