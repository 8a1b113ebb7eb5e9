//! The primitives of concurrency, from one place.
//!
//! Every module takes its atomics, cells and reference counts from here, so that the model checker sees all of
//! them. Built with `--cfg ringmain_loom` they are loom's; otherwise they are the standard library's. This is
//! the only file that names the model checker.

#[cfg(not(ringmain_loom))]
#[allow(clippy::disallowed_types, reason = "this is the one place they come from")]
mod primitives {
    pub use atomic_waker::AtomicWaker;
    pub use std::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};
    /// A count without weak references, half the size of `Arc`'s: for what exists a million times.
    pub use triomphe::Arc as Counted;
}

#[cfg(ringmain_loom)]
mod primitives {
    pub use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub use loom::sync::{Arc as Counted, Mutex, MutexGuard};
    // The ownership of sessions is not modelled: its races are in the ring, the waiters and the lease.
    pub use std::sync::{Arc, OnceLock, PoisonError, TryLockError, Weak};

    /// Loom's, with the signatures of the real one.
    #[derive(Debug, Default)]
    pub struct AtomicWaker(loom::future::AtomicWaker);

    impl AtomicWaker {
        /// Makes one that wakes nobody.
        #[must_use]
        pub fn new() -> Self {
            Self(loom::future::AtomicWaker::new())
        }

        /// Leaves a waker.
        pub fn register(&self, waker: &core::task::Waker) {
            self.0.register_by_ref(waker);
        }

        /// Calls the waker that was left.
        pub fn wake(&self) {
            self.0.wake();
        }
    }
}

pub use primitives::*;
pub use std::thread::panicking;

use crossbeam_utils::CachePadded;
/// A number for a static, where loom's cannot stand. For figures only: the model checker does not see it.
#[allow(clippy::disallowed_types, reason = "this is the one place they come from")]
pub type StaticI64 = std::sync::atomic::AtomicI64;

/// Deferred reclamation: memory unlinked now is freed once nobody who was pinned can still see it.
pub mod epoch {
    pub use crossbeam_epoch::{Guard, pin};
}

/// Locks without the question of poisoning: no state here is left half changed by a panic.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks if nobody else has, likewise.
pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Counters that very many threads add to, without a cache line that they share.
///
/// Each thread has a row of its own, which nobody else writes: adding is a load and a store. Threads beyond the
/// first 32 share one more row. Takes 33 rows of `N` counters, in whole cache lines.
pub struct Tally<const N: usize> {
    rows: Box<[CachePadded<[AtomicU64; N]>]>,
}

/// Threads that have a row of their own.
const ROWS: usize = 32;

impl<const N: usize> Tally<N> {
    /// Makes counters that stand at 0.
    #[must_use]
    pub fn new() -> Self {
        let row = || CachePadded::new(std::array::from_fn(|_| AtomicU64::new(0)));
        Self { rows: (0..=ROWS).map(|_| row()).collect() }
    }

    /// Adds to one counter.
    ///
    /// # Panics
    ///
    /// `which` is not below `N`.
    #[inline]
    pub fn add(&self, which: usize, count: u64) {
        let row = row();
        let counter = &self.rows[row][which];
        if row < ROWS {
            // Relaxed: only this thread writes it. A thread that takes the row over later got it through a mutex.
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
        } else {
            // Relaxed: a number that orders nothing.
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// What one counter stands at. Another thread may add to it meanwhile.
    ///
    /// # Panics
    ///
    /// `which` is not below `N`.
    #[must_use]
    pub fn sum(&self, which: usize) -> u64 {
        // Relaxed: as in `add`.
        self.rows.iter().fold(0, |sum, row| sum.wrapping_add(row[which].load(Ordering::Relaxed)))
    }
}

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> core::fmt::Debug for Tally<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries((0..N).map(|which| self.sum(which))).finish()
    }
}

/// The row of this thread.
#[cfg(not(ringmain_loom))]
#[inline]
fn row() -> usize {
    // A thread that is about to end may have given its row back.
    ROW.try_with(|row| row.0).unwrap_or(ROWS)
}

/// In a model every row is shared.
#[cfg(ringmain_loom)]
fn row() -> usize {
    ROWS
}

/// A row that belongs to one thread until it ends.
#[cfg(not(ringmain_loom))]
struct Row(usize);

#[cfg(not(ringmain_loom))]
thread_local! {
    static ROW: Row = Row(lock(&FREE).take());
}

/// The rows that no thread has. Held for some nanoseconds when a thread first counts, and when it ends.
#[cfg(not(ringmain_loom))]
static FREE: Mutex<Free> = Mutex::new(Free(u32::MAX));

/// A bit for each row that is free.
#[cfg(not(ringmain_loom))]
struct Free(u32);

#[cfg(not(ringmain_loom))]
impl Free {
    fn take(&mut self) -> usize {
        let row = self.0.trailing_zeros();
        self.0 &= !1_u32.checked_shl(row).unwrap_or(0);
        row as usize
    }
}

#[cfg(not(ringmain_loom))]
impl Drop for Row {
    fn drop(&mut self) {
        if self.0 < ROWS {
            lock(&FREE).0 |= 1 << self.0;
        }
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_addition_counts_however_many_threads_add() {
        let tally: Tally<2> = Tally::new();
        for _ in 0..3 {
            std::thread::scope(|scope| {
                for _ in 0..2 * ROWS {
                    scope.spawn(|| (0..1000).for_each(|_| tally.add(1, 2)));
                }
            });
        }
        tally.add(0, 1);
        assert_eq!((tally.sum(0), tally.sum(1)), (1, 3 * 2 * 32 * 1000 * 2));
    }

    #[test]
    fn rows_go_round() {
        let mut free = Free(0b101);
        assert_eq!([free.take(), free.take(), free.take()], [0, 2, ROWS]);
    }
}
