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
/// thread. What is copied to the buffers of a connection is not among them.
#[must_use]
pub fn retained_bytes() -> u64 {
    // Relaxed: as in `tell`.
    u64::try_from(TOLD.load(Ordering::Relaxed)).unwrap_or(0)
}

/// Counts `bytes` more, or fewer.
#[inline]
pub(super) fn count(bytes: i64) {
    if UNTOLD.try_with(|untold| untold.add(bytes)).is_err() {
        // The thread is about to end.
        // Relaxed: as in `tell`.
        TOLD.fetch_add(bytes, Ordering::Relaxed);
    }
}
