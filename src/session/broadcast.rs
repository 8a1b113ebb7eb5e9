//! A message to all sessions.

use super::registry::Sessions;
use crate::request::PublishError;
use crate::sync::{Arc, Ordering};
use crate::topic::{Topic, TopicError};

/// How far a message got that was published to sessions.
///
/// # Examples
///
/// ```
/// # use ringmain::session::{Sessions, Settings};
/// # use ringmain::topic::Clock;
/// # let sessions = Sessions::new(Settings::default(), Clock::default());
/// # let _session = sessions.create(None);
/// let reach = sessions.publish(|out| out.extend_from_slice(br#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#))?;
/// assert_eq!((reach.sessions, reach.delivered, reach.retained), (1, 0, 1));
/// # Ok::<(), ringmain::session::PublishError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Sessions it was published to.
    pub sessions: u64,
    /// Those with a client connected to the stream.
    pub delivered: u64,
    /// Those where it waits for the client to connect.
    pub retained: u64,
}

impl Reach {
    /// Counts one session, with a client connected or without.
    pub(crate) fn count(&mut self, attached: bool) {
        self.sessions += 1;
        *(if attached { &mut self.delivered } else { &mut self.retained }) += 1;
    }
}

impl Sessions {
    /// The log of messages to all sessions: what [`publish`](Self::publish) publishes to.
    #[must_use]
    pub(crate) fn broadcasts(&self) -> &Arc<Topic> {
        &self.shared.broadcasts
    }

    /// Publishes a message to all sessions, on their standalone streams. `write` appends it as JSON; line breaks in it
    /// become spaces. It is serialised and kept once, in a log that all sessions read: each session that exists now
    /// gets it once, when its client is connected or comes back, unless it was evicted by then, of which the client is
    /// told. Costs as much as publishing to one stream, and a wake for each client that is connected.
    ///
    /// # Errors
    ///
    /// [`PublishError::TooLarge`] if the message is too large for the log.
    pub fn publish(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<Reach, PublishError> {
        self.shared.broadcasts.publish(write).map_err(|error| match error {
            TopicError::TooLarge { bytes, limit } => {
                self.shared.environment.traffic().count_too_large();
                PublishError::TooLarge { bytes, limit }
            }
            TopicError::Closed => PublishError::Closed,
        })?;
        self.shared.environment.traffic().count_published(1);
        let sessions = self.len() as u64;
        // Relaxed: a number that orders nothing. A session that ends may be counted as connected still.
        let delivered = (self.shared.listening.load(Ordering::Relaxed) as u64).min(sessions);
        Ok(Reach { sessions, delivered, retained: sessions - delivered })
    }
}
