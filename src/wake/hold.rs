//! Holding one task back while others are in the middle of something.
//!
//! # Memory ordering
//!
//! "End the hold, then wake" meets "leave the waker, then look again": both go through the waker's own word, so the
//! second look sees that the hold has ended, or the holder sees the waker. The count orders what the holder did before
//! what the held task does next: `Release` where a hold ends, `Acquire` where it is looked for.

use core::task::{Context, Poll};

use crate::sync::{Arc, AtomicUsize, AtomicWaker, Ordering};

/// The holds on one task.
#[derive(Debug, Default)]
pub struct Holds {
    open: AtomicUsize,
    held: AtomicWaker,
}

/// One hold. It ends when it is dropped.
#[derive(Debug)]
pub struct Hold(Arc<Holds>);

impl Holds {
    /// Holds the task back until what is returned is dropped.
    pub fn hold(self: &Arc<Self>) -> Hold {
        // Relaxed: a task that does not see it yet goes on, as it may have a moment ago.
        self.open.fetch_add(1, Ordering::Relaxed);
        Hold(self.clone())
    }

    /// Ready when nobody holds the task back. One task waits: the one that asked last.
    pub fn poll_free(&self, context: &Context<'_>) -> Poll<()> {
        if self.is_free() {
            return Poll::Ready(());
        }
        self.held.register(context.waker());
        if self.is_free() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn is_free(&self) -> bool {
        // Acquire: pairs with the Release in `Hold::drop`.
        self.open.load(Ordering::Acquire) == 0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `is_free`.
        if self.0.open.fetch_sub(1, Ordering::Release) == 1 {
            self.0.held.wake();
        }
    }
}
