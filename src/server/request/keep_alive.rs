//! Keep-alive comments for all streams, from one timer.
//!
//! Streams are spread over buckets, and one timer wakes the buckets in turn, so that a
//! million quiet streams are not written to at the same moment, and none needs a timer of its own.

use std::task::Context;
use std::time::Duration;

use crate::sync::{AtomicU64, AtomicUsize, Ordering};
use crate::wake::{Waiter, Waiters};

const BUCKETS: usize = 64;

pub(in crate::server) struct KeepAlive {
    buckets: Box<[Bucket]>,
    next: AtomicUsize,
}

#[derive(Default)]
struct Bucket {
    rounds: AtomicU64,
    waiters: Waiters,
}

/// The entry of one stream in a bucket.
pub(in crate::server) struct Beat {
    bucket: usize,
    round: u64,
    waiter: Waiter,
    /// Whether the stream wrote something since the last round.
    busy: bool,
}

/// What a stream learns about the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Turn {
    /// There was no round since it last asked. Its task is woken by the next one.
    Same,
    /// There was a round, and the stream wrote something.
    Busy,
    /// There was a round, and the stream wrote nothing: a comment is due.
    Quiet,
}

impl KeepAlive {
    pub(in crate::server) fn new() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| Bucket::default()).collect(), next: AtomicUsize::new(0) }
    }

    /// Adds a stream to a bucket.
    pub(in crate::server) fn join(&self) -> Beat {
        // Relaxed: it only spreads the streams.
        let bucket = self.next.fetch_add(1, Ordering::Relaxed) % BUCKETS;
        let round = self.buckets[bucket].round();
        Beat { bucket, round, waiter: Waiter::new(), busy: true }
    }

    /// Wakes the buckets in turn for ever, each once per `every`.
    pub(in crate::server) async fn run(&self, every: Duration) {
        let mut timer = tokio::time::interval(every / BUCKETS as u32);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for bucket in self.buckets.iter().cycle() {
            timer.tick().await;
            bucket.beat();
        }
    }
}

impl Bucket {
    fn round(&self) -> u64 {
        // Acquire: pairs with the Release in `beat`; what matters, the wake, is ordered by the waiters' word.
        self.rounds.load(Ordering::Acquire)
    }

    fn beat(&self) {
        // Release: see `round`.
        self.rounds.fetch_add(1, Ordering::Release);
        self.waiters.wake();
    }
}

impl Beat {
    /// Notes that the stream wrote something.
    pub(in crate::server) fn busy(&mut self) {
        self.busy = true;
    }

    /// Whether there was a round since the last call. If not, the task is woken by the next one.
    pub(in crate::server) fn turn(&mut self, keep_alive: &KeepAlive, context: &mut Context<'_>) -> Turn {
        let bucket = &keep_alive.buckets[self.bucket];
        bucket.waiters.register(&mut self.waiter, context.waker());
        let round = bucket.round();
        if round == self.round {
            return Turn::Same;
        }
        self.round = round;
        if std::mem::take(&mut self.busy) { Turn::Busy } else { Turn::Quiet }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn only_quiet_streams_get_a_comment() {
        let keep_alive = KeepAlive::new();
        let mut context = Context::from_waker(Waker::noop());
        let (mut quiet, mut busy) = (keep_alive.join(), keep_alive.join());
        let mut round = |due: [bool; 2], quiet: &mut Beat, busy: &mut Beat| {
            keep_alive.buckets.iter().for_each(Bucket::beat);
            assert_eq!(
                [&mut *quiet, busy].map(|beat| beat.turn(&keep_alive, &mut context) == Turn::Quiet),
                due
            );
            assert_eq!(quiet.turn(&keep_alive, &mut context), Turn::Same, "once a round");
        };
        round([false, false], &mut quiet, &mut busy);
        busy.busy();
        round([true, false], &mut quiet, &mut busy);
        round([true, true], &mut quiet, &mut busy);
    }
}
