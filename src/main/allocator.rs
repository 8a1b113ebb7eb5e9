//! The allocator of this program, and what it is told.

use std::cell::Cell;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A thread tidies up no more often than this.
const INTERVAL: Duration = Duration::from_secs(1);

/// Gives back what other threads freed of this thread's memory; to be called where a thread has nothing else to do.
///
/// mimalloc takes such memory back when the thread allocates more of the same size. After a crowd has gone that may be never,
/// and one block holds its page.
pub(crate) fn tidy() {
    thread_local! {
        static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    let now = Instant::now();
    if LAST.get().is_none_or(|last| now.duration_since(last) >= INTERVAL) {
        LAST.set(Some(now));
        #[allow(unsafe_code, reason = "the allocator is written in C")]
        // SAFETY: it may be called at any time from any thread, and moves nothing that is in use.
        unsafe {
            libmimalloc_sys::mi_collect(false);
        }
    }
}
