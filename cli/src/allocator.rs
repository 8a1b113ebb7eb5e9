//! Sets mimalloc as the memory allocator of the program, and has it reclaim freed memory while threads are idle.

use std::cell::Cell;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Shortest time between two collections of one thread.
const INTERVAL: Duration = Duration::from_secs(1);

/// Reclaims memory of this thread that other threads freed. To be called when a thread is about to sleep.
///
/// Otherwise mimalloc reclaims it only when this thread allocates more blocks of the same size. After a peak that may
/// be never, and a single block keeps its whole page.
pub(crate) fn tidy() {
    thread_local! {
        static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    let now = Instant::now();
    if LAST.get().is_none_or(|last| now.duration_since(last) >= INTERVAL) {
        LAST.set(Some(now));
        #[allow(unsafe_code, reason = "the allocator is written in C")]
        // SAFETY: `mi_collect` may be called at any time from any thread, and does not touch blocks in use.
        unsafe {
            libmimalloc_sys::mi_collect(false);
        }
    }
}
