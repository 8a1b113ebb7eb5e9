//! Holding one task back while others are in the middle of something.
//!
//! # Algorithm
//!
//! A thread holds the task back, adds a part where the task finds it, adds the rest, and ends the hold. The task notes
//! how many holds have ended, takes what it finds, and looks for holds. If one is open, or one has ended since the
//! note, it may have taken a part without the rest, and takes again.
//!
//! # Memory ordering
//!
//! Where the parts are is ordered by itself, by a lock for example: a task that finds the first part sees that the hold
//! began. The count of ended holds orders the rest: `Release` where a hold ends, `Acquire` where the task notes it.
//! "End the hold, then wake" meets "leave the waker, then look again" in the waker's own word, so the second look sees
//! that the hold has ended, or the holder sees the waker.

use core::task::{Context, Poll};

use crate::sync::{Arc, AtomicUsize, AtomicWaker, Ordering};

/// The holds on one task.
#[derive(Debug, Default)]
pub struct Holds {
    began: AtomicUsize,
    ended: AtomicUsize,
    held: AtomicWaker,
}

/// One hold. It ends when it is dropped.
#[derive(Debug)]
pub struct Hold(Arc<Holds>);

/// How many holds had ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended(usize);

impl Holds {
    /// Holds the task back until what is returned is dropped.
    pub fn hold(self: &Arc<Self>) -> Hold {
        // Relaxed: ordered by what is added next.
        self.began.fetch_add(1, Ordering::Relaxed);
        Hold(self.clone())
    }

    /// Notes how many holds have ended, before the task takes what it finds.
    pub fn note(&self) -> Ended {
        // Acquire: pairs with the Release in `Hold::drop`.
        Ended(self.ended.load(Ordering::Acquire))
    }

    /// Ready if what the task took since the note is whole. If it may not be, wakes the task when it is to take again.
    pub fn poll_whole(&self, since: Ended, context: &Context<'_>) -> Poll<()> {
        // Relaxed, both: what was taken says which holds began, and an end that is not seen is a reason to wait.
        let began = self.began.load(Ordering::Relaxed);
        if began == since.0 {
            return Poll::Ready(());
        }
        self.held.register(context.waker());
        if self.ended.load(Ordering::Relaxed) != since.0 {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `note`.
        self.0.ended.fetch_add(1, Ordering::Release);
        self.0.held.wake();
    }
}
