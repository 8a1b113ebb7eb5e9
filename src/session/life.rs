//! When a session was last heard of, and whether it ended: one word.
//!
//! A sweep looks at a session, decides that its time is up, and ends it a moment later. Between the two the client may
//! come back. Both sides change one word, so one of them comes first: either the sign of life is noted, and the word
//! is no longer the one that the sweep looked at, so the session stays; or the session has ended, and the client is
//! told so.

use core::fmt;

use crate::stream::Moment;
use crate::sync::{AtomicU64, Ordering};

/// The session has ended.
const ENDED: u64 = 1 << 63;
/// The client came back after `initialize`.
const HEARD: u64 = 1 << 62;
/// The moment of the last sign of life, in milliseconds.
const MOMENT: u64 = HEARD - 1;

/// See the [module documentation](self).
pub struct Life(AtomicU64);

/// What a [`Life`] says at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen(u64);

impl Seen {
    /// When the session was last heard of.
    pub fn touched(self) -> Moment {
        Moment(self.0 & MOMENT)
    }

    /// Whether the client came back after `initialize`.
    pub fn is_heard(self) -> bool {
        self.0 & HEARD != 0
    }

    fn is_ended(self) -> bool {
        self.0 & ENDED != 0
    }
}

impl Life {
    /// A life that begins at `now`.
    pub fn new(now: Moment) -> Self {
        Self(AtomicU64::new(now.0 & MOMENT))
    }

    /// What is known right now.
    #[inline]
    pub fn look(&self) -> Seen {
        // Relaxed: a decision that follows from it is checked by the exchange in `end_unless_touched`.
        Seen(self.0.load(Ordering::Relaxed))
    }

    /// Whether the session has ended.
    pub fn is_ended(&self) -> bool {
        // Acquire: whoever sees the end sees what was done before it. Pairs with the AcqRel in `end`.
        Seen(self.0.load(Ordering::Acquire)).is_ended()
    }

    /// Notes a sign of life. False if the session has ended.
    #[inline]
    pub fn touch(&self, now: Moment) -> bool {
        self.note(now, 0)
    }

    /// Notes that the client came back after `initialize`, and a sign of life. False if the session has ended.
    pub fn hear(&self, now: Moment) -> bool {
        self.note(now, HEARD)
    }

    #[inline]
    fn note(&self, now: Moment, mark: u64) -> bool {
        // Relaxed, three times: the word orders nothing but its own changes.
        let mut seen = self.look();
        while !seen.is_ended() {
            let noted = seen.touched().max(Moment(now.0 & MOMENT)).0 | seen.0 & HEARD | mark;
            // Most often the clock stands where it stood, and there is nothing to write.
            if noted == seen.0 {
                return true;
            }
            match self.0.compare_exchange_weak(seen.0, noted, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(found) => seen = Seen(found),
            }
        }
        false
    }

    /// Ends the session. False if it had ended.
    pub fn end(&self) -> bool {
        // AcqRel: pairs with itself and with the Acquire in `is_ended`.
        !Seen(self.0.fetch_or(ENDED, Ordering::AcqRel)).is_ended()
    }

    /// Ends the session unless anything happened to it since `seen`.
    pub fn end_unless_touched(&self, seen: Seen) -> bool {
        // AcqRel: as in `end`. Relaxed on failure: nothing follows from what was found.
        let ended = seen.0 | ENDED;
        let ends = self.0.compare_exchange(seen.0, ended, Ordering::AcqRel, Ordering::Relaxed);
        !seen.is_ended() && ends.is_ok()
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// Nothing was heard of it for too long.
    Idle,
    /// Its client never came back after `initialize`.
    Uninitialised,
    /// It was as old as sessions may become.
    Aged,
    /// Another needed its place.
    Evicted,
    /// Its client ended it.
    Deleted,
    /// The server chose so: `initialize` failed, the server stops, the application wants it.
    Closed,
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.look();
        f.debug_struct("Life").field("touched", &seen.touched()).field("ended", &seen.is_ended()).finish()
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_comes_before_the_end_or_is_refused() {
        let life = Life::new(Moment(5));
        let seen = life.look();
        assert!(life.touch(Moment(6)) && !life.end_unless_touched(seen));
        let seen = life.look();
        assert!(life.hear(Moment(6)) && !life.end_unless_touched(seen), "hearing changes the word too");
        let seen = life.look();
        assert!(life.touch(Moment(6)), "it is noted already");
        assert!(life.end_unless_touched(seen) && !life.end());
        assert!(!life.touch(Moment(7)) && !life.hear(Moment(7)) && life.is_ended());
        assert_eq!(life.look().touched(), Moment(6));
    }

    #[test]
    fn the_time_never_goes_back() {
        let life = Life::new(Moment(5));
        assert!(life.touch(Moment(4)) && life.hear(Moment(3)));
        assert_eq!(life.look().touched(), Moment(5));
    }
}
