//! Measures the time from the publication of an event to the socket, on a sample of events.
//!
//! Reading a clock takes longer than publishing, so few events are timed. Each reactor arms its
//! [`Probe`]; the next ring of its bell, which is part of a publish, notes the time and the entry it rang for; when
//! that entry has sent everything it had, the time between counts. Then the reactor arms the probe again, after
//! some entries were driven, or at its next round of comments, whichever comes first.
//!
//! A publish that is not timed costs one load of a word that rarely changes.

use std::time::Instant;

use crate::sync::{Arc, AtomicU32, AtomicU64, Ordering, Tally};

/// Entries driven between two timed events.
const PAUSE: u32 = 128;
/// Upper bounds of the buckets, in microseconds.
const BUCKETS: [u64; 16] = [
    10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    10_000_000,
];
/// After the buckets come those beyond them, and the sum in nanoseconds.
const BEYOND: usize = BUCKETS.len();
const SUM: usize = BEYOND + 1;

/// Times of the timed events.
#[derive(Debug, Default)]
pub(in crate::server) struct Latency(Tally<{ SUM + 1 }>);

impl Latency {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn record(&self, nanoseconds: u64) {
        let bucket = BUCKETS.iter().position(|end| nanoseconds <= end * 1000).unwrap_or(BEYOND);
        self.0.add(bucket, 1);
        self.0.add(SUM, nanoseconds);
    }

    /// The sum in seconds, the count, and the buckets by their upper ends in seconds.
    pub(super) fn histogram(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let mut buckets: Vec<_> =
            BUCKETS.iter().enumerate().map(|(index, end)| (*end as f64 / 1e6, self.0.sum(index))).collect();
        buckets.push((f64::INFINITY, self.0.sum(BEYOND)));
        let count = buckets.iter().map(|(_, count)| count).sum();
        (self.0.sum(SUM) as f64 / 1e9, count, buckets)
    }
}

/// Times one event at a time, of those that one reactor writes.
#[derive(Debug)]
pub(in crate::server) struct Probe {
    started: Instant,
    state: AtomicU32,
    /// The entry that was rung for, once the state is [`TIMING`].
    key: AtomicU32,
    /// When, in nanoseconds since the start.
    rung: AtomicU64,
    latency: Arc<Latency>,
}

/// Nothing is timed.
const RESTING: u32 = 0;
/// The next ring is timed.
const ARMED: u32 = 1;
/// A publisher is about to note what it rang for.
const NOTING: u32 = 2;
/// It did; the entry is not driven yet.
const TIMING: u32 = 3;

impl Probe {
    pub(in crate::server) fn new(latency: Arc<Latency>) -> Self {
        Self {
            started: Instant::now(),
            state: AtomicU32::new(ARMED),
            key: AtomicU32::new(0),
            rung: AtomicU64::new(0),
            latency,
        }
    }

    /// Notes that the bell rang for an entry.
    #[inline]
    pub(in crate::server) fn rang(&self, key: u32) {
        // Relaxed: only a hint; `note` checks again.
        if self.state.load(Ordering::Relaxed) == ARMED {
            self.note(key);
        }
    }

    #[cold]
    fn note(&self, key: u32) {
        // Relaxed: one of several publishers continues, and what it writes is published by the next store.
        if self.state.compare_exchange(ARMED, NOTING, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            // Relaxed, both: as above.
            self.key.store(key, Ordering::Relaxed);
            self.rung.store(self.nanoseconds(), Ordering::Relaxed);
            // Release: the key and the time come first. Pairs with the Acquire in `is_timing`.
            self.state.store(TIMING, Ordering::Release);
        }
    }

    /// Whether the entry with this key is the timed one.
    #[inline]
    pub(in crate::server) fn is_timing(&self, key: usize) -> bool {
        // Acquire: pairs with `note`.
        let timing = self.state.load(Ordering::Acquire) == TIMING;
        // Relaxed: ordered by the state.
        timing && self.key.load(Ordering::Relaxed) as usize == key
    }

    /// Counts the time since the bell rang, if the entry has `sent` everything.
    #[cold]
    pub(in crate::server) fn stop(&self, sent: bool) {
        if sent {
            // Relaxed: ordered by the state, which `is_timing` looked at.
            self.latency.record(self.nanoseconds().saturating_sub(self.rung.load(Ordering::Relaxed)));
        }
        // Relaxed: only the reactor changes this state, and nothing is read after it.
        self.state.store(RESTING, Ordering::Relaxed);
    }

    /// Arms the probe. A measurement in progress is abandoned, because its entry may be gone.
    pub(in crate::server) fn arm(&self) {
        // Relaxed, both: only the reactor leaves these two states; the others are on their way to one of them.
        if matches!(self.state.load(Ordering::Relaxed), RESTING | TIMING) {
            self.state.store(ARMED, Ordering::Relaxed);
        }
    }

    fn nanoseconds(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Decides when to arm a probe.
#[derive(Debug, Default)]
pub(in crate::server) struct Pace(u32);

impl Pace {
    /// Counts a driven entry; true after every [`PAUSE`] of them.
    #[inline]
    pub(in crate::server) fn step(&mut self) -> bool {
        self.0 += 1;
        let due = self.0 >= PAUSE;
        if due {
            self.0 = 0;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_is_timed_from_its_ring_to_its_end() {
        let latency = Arc::new(Latency::new());
        let probe = Probe::new(latency.clone());
        probe.rang(7);
        probe.rang(8);
        assert!(probe.is_timing(7) && !probe.is_timing(8));
        probe.stop(true);
        assert_eq!(latency.histogram().1, 1);
        probe.rang(9);
        assert!(!probe.is_timing(9), "it rests until it is armed");
        probe.arm();
        probe.rang(9);
        probe.stop(false);
        assert_eq!(latency.histogram().1, 1, "what is not sent is not counted");
    }

    #[test]
    fn a_time_goes_to_the_bucket_it_fits() {
        let latency = Latency::new();
        for nanoseconds in [0, 10_000, 10_001, 1_000_000_000, 60_000_000_000] {
            latency.record(nanoseconds);
        }
        let (sum, count, buckets) = latency.histogram();
        assert_eq!((count, buckets[0].1, buckets[1].1, buckets[14].1, buckets[16].1), (5, 2, 1, 1, 1));
        assert!((sum - 61.000_020_001).abs() < 1e-6);
    }
}
