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

mod connection;
mod principal;
mod registry;
mod request;
mod state;

pub use connection::{Connection, Piece, PieceBuf};
pub use principal::{Holder, Principal, Principals};
pub use registry::{Counters, Reach, Sessions};
pub use request::{AskError, RequestStream};
pub use state::{Session, Summary};

use crate::ring::Limits;
use crate::stream::LagPolicy;

/// What sessions may hold, and how long.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What a standalone stream retains. Default: 256 events, 1 MiB, 5 minutes.
    pub standalone: Limits,
    /// What the stream of one request retains. Default: 256 events, 1 MiB, 5 minutes.
    pub request: Limits,
    /// What happens to a connection that falls behind. Default: it is told.
    pub lag: LagPolicy,
    /// Milliseconds for which a publisher waits for a connected client that is behind, at most, where
    /// [`LagPolicy::Wait`] is chosen. Default 5 seconds; then it goes on, and the client is told what it missed.
    pub wait_ms: u64,
    /// Requests of one session in flight at once. Default 256.
    pub max_requests: usize,
    /// Milliseconds without traffic after which a session expires. Default 30 minutes.
    pub idle_ms: u64,
    /// Milliseconds after which a session expires whatever its traffic. Default 24 hours.
    pub absolute_ms: u64,
    /// Milliseconds for which a response is kept that nobody fetched to the end. Default 5 minutes.
    pub response_ttl_ms: u64,
    /// Milliseconds for which a response is kept that was handed to its connection. Default 30 seconds: the
    /// connection may have broken with it on the way.
    pub delivered_ttl_ms: u64,
    /// What clients are told to wait before they reconnect, in milliseconds. Default 1000.
    pub retry_ms: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            standalone: Limits::default(),
            request: Limits::default(),
            lag: LagPolicy::Signal,
            wait_ms: 5 * 1000,
            max_requests: 256,
            idle_ms: 30 * 60 * 1000,
            absolute_ms: 24 * 60 * 60 * 1000,
            response_ttl_ms: 5 * 60 * 1000,
            delivered_ttl_ms: 30 * 1000,
            retry_ms: 1000,
        }
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests;
