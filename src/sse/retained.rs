//! How many bytes the events of this process are, wherever they are kept.
//!
//! A frame counts from its creation to its last drop, once, however many rings and readers share it. Each thread
//! counts for itself and tells the rest after every [`STEP`] bytes, so that a frame costs an addition and no step on
//! memory that threads share. What [`retained_bytes`] says is off by no more than that for each thread.

use core::cell::Cell;

use crate::sync::{Ordering, StaticI64};

/// Bytes after which a thread tells.
const STEP: i64 = 64 << 10;

static TOLD: StaticI64 = StaticI64::new(0);

thread_local! {
    static UNTOLD: Untold = const { Untold(Cell::new(0)) };
}

/// What a thread has counted and not told yet.
struct Untold(Cell<i64>);

impl Untold {
    #[inline]
    fn add(&self, bytes: i64) {
        let untold = self.0.get() + bytes;
        self.0.set(untold);
        if untold.unsigned_abs() >= STEP as u64 {
            self.tell();
        }
    }

    #[cold]
    fn tell(&self) {
        // Relaxed: a number that orders nothing.
        TOLD.fetch_add(self.0.take(), Ordering::Relaxed);
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        self.tell();
    }
}

/// How many bytes of events there are in this process, of all registries and streams, to within 64 KiB for each
/// thread. Among them is what connections hold for clients that do not take it, and what those sent ahead (`Held`).
#[must_use]
pub fn retained_bytes() -> u64 {
    // Relaxed: as in `tell`.
    u64::try_from(TOLD.load(Ordering::Relaxed)).unwrap_or(0)
}

/// Bytes that are kept elsewhere than in a frame and count all the same, as long as this is there.
#[derive(Debug, Default)]
pub(crate) struct Held(usize);

impl Held {
    /// Counts `bytes`.
    #[must_use]
    pub(crate) fn new(bytes: usize) -> Self {
        let mut held = Self(0);
        held.set(bytes);
        held
    }

    /// Counts `bytes` instead of those before.
    #[inline]
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes != self.0 {
            count(bytes as i64 - self.0 as i64);
            self.0 = bytes;
        }
    }

    /// How many it counts.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Counts `bytes` more, or fewer.
#[inline]
pub(crate) fn count(bytes: i64) {
    if UNTOLD.try_with(|untold| untold.add(bytes)).is_err() {
        // The thread is about to end.
        // Relaxed: as in `tell`.
        TOLD.fetch_add(bytes, Ordering::Relaxed);
    }
}
