//! Time as the core knows it: a number somebody else sets.

use crate::sync::{Arc, AtomicU64, Ordering};

/// A moment, in milliseconds since a start that the process chooses once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// The milliseconds passed since `earlier`, or 0 if it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The ring's clock.
    pub(crate) fn stamp(self) -> u64 {
        self.0
    }
}

/// A coarse clock: the edge sets it every so often, the core looks at it for a nanosecond.
///
/// Clones show the same time. It never goes back.
///
/// # Examples
///
/// ```
/// use ringmain::topic::{Clock, Limits, Moment, Topic};
///
/// let clock = Clock::default();
/// let topic = Topic::new(Limits { max_age_ms: 1000, ..Limits::default() }, clock.clone());
/// topic.publish(|out| out.extend_from_slice(b"old news"))?;
/// clock.advance(Moment(5000)); // Whoever runs the topic does this every so often.
/// assert_eq!(topic.evict_older(), 1);
/// # Ok::<(), ringmain::topic::TopicError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// The moment it was last set to.
    #[must_use]
    pub fn now(&self) -> Moment {
        // Relaxed: a number that orders nothing.
        Moment(self.0.load(Ordering::Relaxed))
    }

    /// Sets it, unless it shows a later moment already.
    pub fn advance(&self, now: Moment) {
        // A look first: within one millisecond many threads tell the same time, and need not write it.
        if self.now() < now {
            // Relaxed: as in `now`.
            self.0.fetch_max(now.0, Ordering::Relaxed);
        }
    }
}
