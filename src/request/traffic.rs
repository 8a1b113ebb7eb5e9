//! What flows through streams, counted where it flows.

use crate::sync::Tally;

/// What happened to events and streams since the start: numbers that only go up.
///
/// Counting costs a load and a store of a cache line that belongs to the thread.
///
/// # Examples
///
/// ```
/// # use ringmain::session::{Sessions, Settings};
/// # use ringmain::topic::Clock;
/// # let sessions = Sessions::new(Settings::default(), Clock::default());
/// use ringmain::session::Ending;
///
/// # let session = sessions.create(None);
/// session.publish(|out| out.extend_from_slice(b"{}"))?;
/// let traffic = sessions.traffic();
/// assert_eq!(traffic.published(), 1);
/// for ending in Ending::ALL {
///     println!("{}: {}", ending.as_str(), traffic.ended(ending));
/// }
/// # Ok::<(), ringmain::session::PublishError>(())
/// ```
#[derive(Debug, Default)]
pub struct Traffic(Tally<COUNTERS>);

/// Why the connection of a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// Its last event was delivered.
    Finished,
    /// The session ended, or the request was cancelled.
    Closed,
    /// A later connection took its stream over.
    Superseded,
    /// It was asked to come back.
    HungUp,
    /// It fell behind, and [`LagPolicy::End`](crate::stream::LagPolicy::End) is chosen.
    Lagged,
    /// The client went away, took nothing for too long, or was cut off.
    Disconnected,
}

impl Ending {
    /// Each of them.
    pub const ALL: [Self; 6] =
        [Self::Finished, Self::Closed, Self::Superseded, Self::HungUp, Self::Lagged, Self::Disconnected];

    /// A short label for metrics, in `snake_case`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Closed => "closed",
            Self::Superseded => "superseded",
            Self::HungUp => "hung_up",
            Self::Lagged => "lagged",
            Self::Disconnected => "disconnected",
        }
    }
}

const PUBLISHED: usize = 0;
const DELIVERED: usize = 1;
const OPENED: usize = 2;
const ENDED: usize = 3;
const TOO_LARGE: usize = ENDED + Ending::ALL.len();
const NOT_ACCEPTED: usize = TOO_LARGE + 1;
const COUNTERS: usize = NOT_ACCEPTED + 1;

impl Traffic {
    /// Events that streams took, one for each stream that a message was published to.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.0.sum(PUBLISHED)
    }

    /// Events that were handed to connections, those that were handed out again among them.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.0.sum(DELIVERED)
    }

    /// Streams that began to be written to a connection. A response that was sent whole is none.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.0.sum(OPENED)
    }

    /// Of those, the ones that ended this way.
    #[must_use]
    pub fn ended(&self, ending: Ending) -> u64 {
        self.0.sum(ENDED + ending as usize)
    }

    /// Events that were refused because each alone was larger than its stream may retain.
    #[must_use]
    pub fn too_large(&self) -> u64 {
        self.0.sum(TOO_LARGE)
    }

    /// Messages that were dropped because their client accepts nothing but the response.
    #[must_use]
    pub fn not_accepted(&self) -> u64 {
        self.0.sum(NOT_ACCEPTED)
    }

    #[inline]
    pub(crate) fn count_published(&self, events: u64) {
        self.0.add(PUBLISHED, events);
    }

    #[inline]
    pub(crate) fn count_delivered(&self, events: usize) {
        self.0.add(DELIVERED, events as u64);
    }

    pub(crate) fn count_opened(&self) {
        self.0.add(OPENED, 1);
    }

    pub(crate) fn count_ended(&self, ending: Ending) {
        self.0.add(ENDED + ending as usize, 1);
    }

    pub(crate) fn count_too_large(&self) {
        self.0.add(TOO_LARGE, 1);
    }

    pub(super) fn count_not_accepted(&self) {
        self.0.add(NOT_ACCEPTED, 1);
    }
}
