//! The primitives of concurrency, from one place.
//!
//! Every room takes its atomics, cells and reference counts from here, so that the model checker sees all of
//! them. Built with `--cfg ringmain_loom` they are loom's; otherwise they are the standard library's. This is
//! the only file that names the model checker.

#[cfg(not(ringmain_loom))]
#[allow(clippy::disallowed_types, reason = "this is the one place they come from")]
mod primitives {
    pub use atomic_waker::AtomicWaker;
    pub use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    pub use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
    /// A count without weak references, half the size of [`Arc`]'s: for what exists a million times.
    pub use triomphe::Arc as Counted;
}

#[cfg(ringmain_loom)]
mod primitives {
    pub use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    pub use loom::sync::{Arc as Counted, Mutex, MutexGuard};
    // The session room's ownership is not modelled: its races are in the ring, the waiters and the lease.
    pub use std::sync::{Arc, OnceLock, PoisonError, Weak};

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
