//! Keeping what all streams retain together within a budget.
//!
//! # Algorithm
//!
//! How many bytes of events there are is counted where frames are made and dropped
//! ([`retained_bytes`](crate::sse::retained_bytes)), by each thread for itself, so a publisher takes no step on shared
//! memory for the budget. Somebody looks every so often, and calls [`Sessions::relieve`] if there are too many. Then there are, until then, at most so many more
//! as were published since the last look.
//!
//! What has to go, goes in this order, down to seven eighths of the budget:
//!
//! 1. The oldest events of the longest backlogs: a level is found such that all that stands above it is what has to go,
//!    and every stream is trimmed to that level. Who retains less than that loses nothing. Of a finished stream the
//!    response stays, with what stands right before it. No level is below an even share of an eighth of the budget:
//!    what other things than backlogs take, a client that stalls above all, is not paid by those who have little.
//! 2. Only where that cannot be enough: finished responses, first those that were handed to a connection already, and
//!    of both kinds the oldest first.
//!
//! Clients that had not got what went are told so, as whenever they fall behind.
//!
//! # Trade-offs
//!
//! Counting is not free: publishing and reading one event (`stream/publish_read` in `benches/stream.rs`) takes 8 % longer
//! with it, about 6 ns, the median of twelve runs of each side in turn on a busy machine.
//!
//! An event for very many sessions is in memory once and is let go by each of them, so one look may free less than it
//! meant to; the next one goes on. Trimming lets chunks of up to 16 events go as a whole.

use super::registry::{Kept, Sessions};
use crate::ring;
use crate::sse::retained_bytes;

/// Rounds of reclamation that are waited for, at most.
const MOST_ROUNDS: usize = 4096;
/// Rounds without an effect after which no more comes.
const IDLE_ROUNDS: usize = 8;

impl Sessions {
    /// How many bytes the events of this process are, of whatever registry; see
    /// [`retained_bytes`](crate::sse::retained_bytes).
    #[must_use]
    pub fn retained_bytes(&self) -> u64 {
        retained_bytes()
    }

    /// Whether that is more than it may be. From the moment on when this finds it so, and until it finds it otherwise,
    /// [`Session::is_short_of_memory`](super::Session::is_short_of_memory).
    #[must_use]
    pub fn is_over_budget(&self) -> bool {
        let is_over = retained_bytes() > self.max_retained_bytes();
        self.shared.tell_shortage(is_over);
        is_over
    }

    /// Lets events go if more are retained than the budget allows. Returns how many bytes of them. Takes up to about a
    /// microsecond for each stream that retains something: call it from where a pause does no harm.
    pub fn relieve(&self) -> u64 {
        if !self.is_over_budget() {
            return 0;
        }
        let target = self.max_retained_bytes() / 8 * 7;
        // Perhaps it was let go already, and nobody came to reclaim it.
        reclaim(target);
        let excess = retained_bytes().saturating_sub(target);
        if excess == 0 {
            return 0;
        }
        let (trimmed, wanted) = self.trim_backlogs(excess);
        let given_up = self.give_up_responses(excess.saturating_sub(wanted));
        self.shared.counters.count_relieved(trimmed + given_up);
        reclaim(target);
        let _ = self.is_over_budget();
        trimmed + given_up
    }

    fn max_retained_bytes(&self) -> u64 {
        self.shared.rules().settings.max_retained_bytes
    }

    /// Trims the longest backlogs; returns how many bytes went, and how many were meant to go.
    fn trim_backlogs(&self, excess: u64) -> (u64, u64) {
        let mut backlogs = Vec::new();
        self.for_each(|session| {
            session.for_each_stream(|stream, _| match stream.spare_bytes() {
                0 => {}
                bytes => backlogs.push(bytes),
            });
        });
        if backlogs.is_empty() {
            return (0, 0);
        }
        let share = self.max_retained_bytes() / 8 / backlogs.len() as u64;
        let level = level(&mut backlogs, excess).max(share);
        let wanted = backlogs.iter().map(|bytes| bytes.saturating_sub(level)).sum();
        let (now, mut trimmed) = (self.clock().now(), 0);
        self.for_each(|session| {
            session.for_each_stream(|stream, limits| trimmed += stream.trim(level, now, limits));
        });
        (trimmed, wanted)
    }

    /// Gives finished responses up until they are `needed` bytes; returns how many they were.
    fn give_up_responses(&self, needed: u64) -> u64 {
        let mut given_up = 0;
        let mut give_up = |kept: &Kept| {
            if given_up >= needed {
                return false;
            }
            let bytes = kept.session.upgrade().and_then(|session| session.give_up_response(kept.stream));
            if let Some(bytes) = bytes {
                given_up += bytes;
                self.shared.counters.count_response_given_up();
            }
            true
        };
        self.shared.delivered.take_while(&mut give_up);
        self.shared.responses.take_while(&mut give_up);
        given_up
    }
}

/// The height at which `excess` stands above it, of all `backlogs` together; 0 if they are not so much.
fn level(backlogs: &mut [u64], excess: u64) -> u64 {
    backlogs.sort_unstable_by(|one, other| other.cmp(one));
    let mut sum = 0;
    for (index, bytes) in backlogs.iter().enumerate() {
        sum += bytes;
        let count = index as u64 + 1;
        let next = backlogs.get(index + 1).copied().unwrap_or(0);
        // Cut down to the next one, the first `count` would give this much.
        if sum - count * next >= excess {
            return (sum - excess) / count;
        }
    }
    0
}

/// Frees what was let go, which happens some rounds later, until no more than `target` is there or nothing comes any
/// more.
fn reclaim(target: u64) {
    let (mut before, mut idle) = (retained_bytes(), 0);
    for _ in 0..MOST_ROUNDS {
        if before <= target || idle >= IDLE_ROUNDS {
            return;
        }
        ring::collect();
        let now = retained_bytes();
        idle = if now < before { 0 } else { idle + 1 };
        before = now;
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::level;

    #[test]
    fn the_longest_give_first() {
        assert_eq!(level(&mut [10, 100, 50], 20), 80);
        assert_eq!(level(&mut [10, 100, 50], 60), 45);
        assert_eq!(level(&mut [10, 100, 50], 150), 3);
        assert_eq!(level(&mut [10, 100, 50], 160), 0);
        assert_eq!(level(&mut [10, 100, 50], 1000), 0);
    }

    proptest! {
        #[test]
        fn what_stands_above_the_level_is_what_has_to_go(
            backlogs in proptest::collection::vec(1..10_000_u64, 1..50), excess in 1..200_000_u64,
        ) {
            let level = level(&mut backlogs.clone(), excess);
            let above: u64 = backlogs.iter().map(|bytes| bytes.saturating_sub(level)).sum();
            let all: u64 = backlogs.iter().sum();
            prop_assert!(above >= excess.min(all));
            // Rounding takes less than one byte more of each.
            prop_assert!(above <= excess.min(all) + backlogs.len() as u64);
        }
    }
}
