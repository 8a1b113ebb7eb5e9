//! Keeping what all streams retain together within a budget.
//!
//! # Algorithm
//!
//! How many bytes of events there are is counted where frames are made and dropped
//! ([`retained_bytes`](crate::sse::retained_bytes)), by each thread for itself, so a publisher takes no step on shared
//! memory for the budget. Somebody looks every so often, and calls [`Sessions::relieve`] if there are too many. Then
//! there are, until then, at most so many more as were published since the last look.
//!
//! What has to go, goes in this order, down to seven eighths of the budget:
//!
//! 1. The oldest events of the longest backlogs: a level is found such that all that stands above it is what has to go,
//!    and every stream is trimmed to that level. Who retains less than that loses nothing. Of a finished stream the
//!    response stays, with what stands right before it. No level is below an even share of an eighth of the budget:
//!    what other things than backlogs take, a client that stalls above all, is not paid by those who have little.
//! 2. Only where that cannot be enough: finished responses, first those that were handed to a connection already, and
//!    of both kinds the oldest first, to within a 256th of the time that they are kept. What a response takes beside
//!    its event counts too. The stream of a batch counts as one response, and goes as a whole.
//! 3. Only where that is not enough either: what is retained for batches in flight whose clients are away.
//!
//! Clients that had not got what went are told so, as whenever they fall behind.
//!
//! # Trade-offs
//!
//! Counting is not free: publishing and reading one event (`stream/publish_read` in `benches/stream.rs`) takes 8 %
//! longer with it, about 6 ns, the median of twelve runs of each side in turn on a busy machine.
//!
//! What is being written to a client stays in memory until it is written, so one look may free less than it meant to;
//! the next one goes on. The messages to all sessions are one backlog among the others. Trimming lets chunks of up to
//! 16 events go as a whole.

use super::registry::Sessions;
use super::responses::Kind;
use super::state::Session;
use crate::ring;
use crate::sse::retained_bytes;
use crate::stream::Moment;

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
    #[doc(hidden)]
    pub fn is_over_budget(&self) -> bool {
        let is_over = retained_bytes() > self.max_retained_bytes();
        self.shared.tell_shortage(is_over);
        is_over
    }

    /// Whether [`is_over_budget`](Self::is_over_budget) found it so when it was last asked.
    #[must_use]
    pub(crate) fn is_short_of_memory(&self) -> bool {
        self.shared.is_short_of_memory()
    }

    /// Lets events go if more are retained than the budget allows. Returns how many bytes of them. Takes up to about a
    /// microsecond for each stream that retains something: call it from where a pause does no harm.
    #[doc(hidden)]
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
        let broadcasts = &self.shared.broadcasts;
        match broadcasts.retained_bytes() {
            0 => {}
            bytes => backlogs.push(bytes),
        }
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
        trimmed += broadcasts.trim(level);
        (trimmed, wanted)
    }

    /// Gives finished responses up until they are `needed` bytes; returns how many they were.
    fn give_up_responses(&self, needed: u64) -> u64 {
        let mut given_up = 0;
        for kind in Kind::ALL {
            if given_up < needed {
                given_up += self.give_up_oldest(kind, needed - given_up);
            }
        }
        if given_up < needed {
            self.for_each(|session| {
                if given_up < needed && !session.due.is_never() {
                    given_up += session.give_up_batches();
                }
            });
        }
        given_up
    }

    /// Gives the oldest responses of a kind up. One walk finds how old they are, by steps, and another lets go of those
    /// that are older than the step that is needed.
    fn give_up_oldest(&self, kind: Kind, needed: u64) -> u64 {
        const STEPS: usize = 256;
        let now = self.clock().now();
        let step_ms = (self.shared.times.of(kind) / STEPS as u64).max(1);
        let mut by_age = [0_u64; STEPS];
        let for_each = |visit: &mut dyn FnMut(&Session)| {
            self.for_each(|session| {
                if !session.due.is_never() {
                    visit(session);
                }
            });
        };
        for_each(&mut |session| {
            session.response_ages(kind, |since, bytes| {
                by_age[((now.since(since) / step_ms) as usize).min(STEPS - 1)] += bytes;
            });
        });
        let mut sum = 0;
        let is_enough = |bytes: &u64| {
            sum += bytes;
            sum >= needed
        };
        let step = by_age.iter().rev().position(is_enough).map_or(0, |from_oldest| STEPS - 1 - from_oldest);
        let latest = Moment(now.0.saturating_sub(step as u64 * step_ms));
        let mut given_up = 0;
        for_each(&mut |session| {
            if given_up < needed {
                given_up += session.give_up_responses(kind, latest, needed - given_up);
            }
        });
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
