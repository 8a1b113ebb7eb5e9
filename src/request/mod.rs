//! A request while it is answered: its stream, its questions to the client, its cancellation.
//!
//! A [`RequestStream`] is opened when a request was read, and takes everything that is published for it: messages
//! first, the response last. It knows no session. A request may belong to one, which then keeps it among its own and
//! wants to know when it is finished; or it stands alone, and dies with its connection. What the two have in common
//! goes through a small trait, `Keeper`. The [`handler`](crate::handler) module publishes here, for both kinds alike.
//!
//! # Life
//!
//! 1. *Open*: messages are published, questions are asked.
//! 2. *Finished*: its response is published, or never will be. Exactly one thread finishes it, and its keeper is told
//!    once. Nothing can be published any more.
//!
//! A request that is *cancelled* is finished without a response. Who works on it is told, and may go on; what it
//! publishes goes nowhere.
//!
//! Requests that came in one POST, a [`BatchStream`], share one stream, which ends when all of them are finished.
//!
//! # What is shared
//!
//! The requests of one server share an [`Environment`]: limits, time and counts. Whoever publishes passes it, so that a
//! request holds no pointer to it.
//!
//! # Progress
//!
//! Publishing, finishing and cancelling are lock-free here; a keeper may take a lock of its own when it is told.
//!
//! # Memory use
//!
//! 104 bytes for a request, the texts of its ID and its progress token, and what its stream retains. One that stands
//! alone leaves nothing behind when it is dropped.

mod answer;
mod ask;
mod cancel;
mod environment;
mod error;
mod keeper;
mod stream;
mod traffic;

pub use ask::AskError;
pub(crate) use ask::{Ask, Asks};
pub use environment::Environment;
pub use error::PublishError;
pub(crate) use keeper::Keeper;
pub(crate) use stream::EVERYTHING;
pub use stream::{BatchStream, RequestStream};
pub use traffic::{Ending, Traffic};

#[cfg(all(test, not(ringmain_loom)))]
mod tests;
