//! The standalone stream of a session: two logs, and connections side by side.
//!
//! A standalone stream carries what belongs to no request: the session's own events, from its own ring, and the
//! events for all sessions, from a topic that all of them read. A [`Listener`] is one connection of it.
//!
//! # Which connection gets an event
//!
//! The newest connection holds the stream. It claims the position of each event before it delivers it, in one word
//! for each of the two logs, so that no event goes to two connections. Older connections of other clients stay open
//! and are given nothing; when the holder ends, the newest of them holds the stream.
//!
//! ```text
//!   lease word        generation of the holder, position delivered of the own log
//!   broadcast word    generation of the holder, position delivered of the topic
//! ```
//!
//! The holder changes under the lock of [`Lines`], in this order: the lease word, then the broadcast word. Between the
//! two steps the old holder may still claim events of the topic, and delivers them. Whoever claims first has them.
//! Connections are woken when the lock is given back: a waker may poll one of them at once.
//!
//! The events of one log come in their order. Between the two logs there is no order. Where both have something pending
//! they take turns, a batch of each: a client that reads more slowly than its session's own events come is given the
//! messages to all as well.
//!
//! # Lineages
//!
//! A client that connects without an event ID begins a lineage; one that resumes goes on with the lineage in its event
//! ID. [`Lines`] remembers which lineage was given which positions. A resume replays, behind its event ID, what its own
//! lineage was given, and then goes on with what nobody was given. So nothing that another lineage was given is sent
//! again, and a client that lost an event on the way gets it. A connection that resumes a lineage ends all older
//! connections of that lineage.
//!
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#resumability-and-redelivery
//! > The server MUST NOT replay messages that would have been delivered on a different stream.
//!
//! # Progress
//!
//! Delivering is lock-free for the holder, and publishing takes no lock. Connecting, disconnecting, hanging up, and a
//! look of a connection that does not hold the stream take the lock, to look through the connections; connecting looks
//! through the changes of lineage as well. So they wait for whatever else holds it: see the [session module](super).
//!
//! # Memory use
//!
//! 40 bytes for each session. [`Lines`] is not there as long as a session has had one lineage and has one connection at
//! a time; otherwise it takes 56 bytes, 20 for each connection, and 24 for each change of lineage, of which the last 32
//! are kept.

mod attach;
mod lines;
mod listener;
mod positions;
mod replay;
mod stream;

pub use attach::Detached;
pub use lines::{Lines, LockLines};
pub use listener::Listener;
pub use positions::{NeverGiven, Positions, Resume};
pub use replay::Heard;
pub use stream::Standalone;

#[cfg(all(test, not(ringmain_loom)))]
mod tests;
