//! Who is waiting for a stream, and waking them without losing one.
//!
//! A [`Waiters`] is one word: the top of a stack of those who wait. A publisher takes the whole stack with one
//! step and wakes whoever is on it; when nobody waits that step is all it costs.
//!
//! # Algorithm
//!
//! - *Register*: leave the waker in the waiter's node (a bell is there from the start); if the node is not queued, mark
//!   it queued and push it. Then the caller looks once more at what it waits for.
//! - *Wake*: swap the stack for an empty one; for each node taken: read its link, mark it not queued, wake.
//!
//! The mark goes before the wake: a task that is woken finds its node free to be queued again. A second publish
//! before the task runs finds the stack empty, so a burst wakes each waiter once.
//!
//! # Memory ordering
//!
//! "Publish, then look for waiters" meets "register, then look again": neither may miss the other. Both sides
//! do a read-modify-write (`AcqRel`) on the same word, so one comes first in its order:
//!
//! - the push first: the publisher's swap takes the node and wakes it;
//! - the swap first: the push reads what the swap wrote, so the waiter's second look sees what was published
//!   before the swap.
//!
//! A waiter whose node is still marked queued does not push. Then either the node is on the stack, and the
//! next publisher takes it; or a publisher took it and has not yet reset the mark, and will wake it after
//! that, with the waker that was left before the mark was read.
//!
//! # Progress
//!
//! Waking is wait-free but for the length of the stack; registering is lock-free. A waker that panics keeps nobody
//! else from being woken.
//!
//! # Memory use
//!
//! 8 bytes for a [`Waiters`], 56 for each [`Waiter`]. The node of a dropped waiter stays on the stack until the
//! next wake: whoever lets many come and go without one calls [`Waiters::wake`] now and then.

#![allow(unsafe_code, reason = "nodes go on the stack as counted pointers and come back in this one file")]

pub(crate) mod duty;
pub(crate) mod hold;

use core::any::Any;
use core::fmt;
use core::ptr;
use core::task::Waker;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::sync::{Arc, AtomicBool, AtomicPtr, AtomicWaker, Counted, Ordering, panicking};

struct Node {
    target: Target,
    next: AtomicPtr<Self>,
    queued: AtomicBool,
}

/// Who is told.
enum Target {
    /// Whichever task registered last.
    Task(AtomicWaker),
    /// Somebody who serves many, and which of them this is.
    Bell { bell: Arc<dyn Bell>, key: u32 },
}

/// What rings for waiters that are served together: cheaper than a waker each.
pub trait Bell: Send + Sync {
    /// Tells that the waiter with this key was woken. May come late, for a waiter that is gone.
    fn ring(&self, key: u32);

    /// The same, by a thread that has just published and holds no lock: it may do some of the work itself.
    fn ring_published(&self, key: u32) {
        self.ring(key);
    }
}

/// Why waiters are woken.
#[derive(Clone, Copy)]
enum Why {
    /// Something was published, and the thread that did so holds no lock.
    Published,
    Other,
}

/// One task's place on the stack of a [`Waiters`]. Belongs to one of them for its whole life: one that is given to
/// two is on the stack of at most one of them at a time, and the other does not wake it.
pub struct Waiter {
    node: Counted<Node>,
}

impl Waiter {
    /// Makes a waiter that waits for nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Target::Task(AtomicWaker::new()))
    }

    /// Makes a waiter for which `bell` rings with `key`, whatever waker it registers with.
    #[must_use]
    pub fn ringing(bell: Arc<dyn Bell>, key: u32) -> Self {
        Self::of(Target::Bell { bell, key })
    }

    /// Whether it stands on a stack already. Only a look, to have its memory at hand.
    #[inline]
    pub fn warm(&self) -> bool {
        // Relaxed: nothing follows from it.
        self.node.queued.load(Ordering::Relaxed)
    }

    /// Whether its node stands in a list of waiters.
    pub(crate) fn is_queued(&self) -> bool {
        // Acquire: pairs with the AcqRel in `wake`. A node that is being taken at this moment counts as there.
        self.node.queued.load(Ordering::Acquire)
    }

    fn of(target: Target) -> Self {
        let (next, queued) = (AtomicPtr::new(ptr::null_mut()), AtomicBool::new(false));
        Self { node: Counted::new(Node { target, next, queued }) }
    }
}

impl Default for Waiter {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").finish_non_exhaustive()
    }
}

/// A waiter whose waker is being left. If the waker panics while it is cloned, or the one before it while it is
/// dropped, the node's place for it is unusable, and the waiter gets another node.
struct Leaving<'a>(&'a mut Waiter);

impl Leaving<'_> {
    #[inline]
    fn leave(self, waker: &Waker) {
        if let Target::Task(task) = &self.0.node.target {
            task.register(waker);
        }
        core::mem::forget(self);
    }
}

impl Drop for Leaving<'_> {
    #[cold]
    fn drop(&mut self) {
        *self.0 = Waiter::new();
    }
}

/// Those who wait for one thing, to be woken together. See the module documentation.
pub struct Waiters {
    top: AtomicPtr<Node>,
}

impl Waiters {
    /// Makes an empty list of waiters.
    #[must_use]
    pub fn new() -> Self {
        Self { top: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Leaves `waker` to be woken once by a later [`wake`](Self::wake). Look again after this call: what was
    /// published before it may have woken nobody.
    ///
    /// # Panics
    ///
    /// If a wake comes meanwhile, and the waker panics. The waiter can be registered again.
    pub fn register(&self, waiter: &mut Waiter, waker: &Waker) {
        if matches!(waiter.node.target, Target::Task(_)) {
            Leaving(waiter).leave(waker);
        }
        let node = &waiter.node;
        // AcqRel: Release shows the waker to the publisher that resets the mark; Acquire orders our push after
        // that publisher's last look at the node. Pairs with the swap in `wake`.
        if node.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let raw = Counted::into_raw(node.clone()).cast_mut();
        // Relaxed: a first guess; the exchange below corrects it.
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            // Relaxed: the Release of the push shows it to the publisher that takes the stack.
            node.next.store(top, Ordering::Relaxed);
            // AcqRel: Release hands the node over; Acquire sees what a publisher did before it took the stack.
            // Pairs with the swap in `wake`. Relaxed on failure: nothing is read through the pointer.
            match self.top.compare_exchange_weak(top, raw, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(found) => top = found,
            }
        }
    }

    /// Wakes everybody who registered, and returns how many there were.
    ///
    /// # Panics
    ///
    /// If a waker or a bell does; after all others were woken.
    #[inline]
    pub fn wake(&self) -> usize {
        self.wake_for(Why::Other)
    }

    /// The same, after something was published. The caller holds no lock that a reader may need: a bell may read the
    /// event on this very thread.
    ///
    /// # Panics
    ///
    /// As for [`wake`](Self::wake).
    #[inline]
    pub fn wake_published(&self) -> usize {
        self.wake_for(Why::Published)
    }

    /// The same, from a destructor. If the thread panics already, what a waker panics with is dropped: a second panic
    /// would end the process.
    pub(crate) fn wake_in_drop(&self) {
        if !panicking() {
            self.wake();
        } else if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.wake())) {
            discard(panic);
        }
    }

    #[inline]
    fn wake_for(&self, why: Why) -> usize {
        // AcqRel: Acquire takes the nodes over; Release shows what this thread published before to whoever
        // pushes next. Pairs with the push in `register`.
        let top = self.top.swap(ptr::null_mut(), Ordering::AcqRel);
        if top.is_null() { 0 } else { Self::wake_all(top, why) }
    }

    /// Wakes everybody on the stack that begins with `top`. If wakers panic, the others are woken all the same, and
    /// the first panic goes on afterwards.
    #[cold]
    fn wake_all(mut top: *mut Node, why: Why) -> usize {
        let (mut woken, mut panicked) = (0, None);
        while !top.is_null() {
            let wake = AssertUnwindSafe(|| Self::wake_from(&mut top, why, &mut woken));
            if let Err(panic) = catch_unwind(wake) {
                match panicked {
                    None => panicked = Some(panic),
                    Some(_) => discard(panic),
                }
            }
        }
        if let Some(panic) = panicked {
            resume_unwind(panic);
        }
        woken
    }

    /// Wakes who is on the stack that begins with `top`, until a waker panics. `top` is always the first that was not
    /// woken yet.
    fn wake_from(top: &mut *mut Node, why: Why, woken: &mut usize) {
        while !top.is_null() {
            // SAFETY: the pointer was pushed by `register` with one count, and the swap that took it off the
            // stack made that count ours. `top` moves on below, so it is taken once.
            let node = unsafe { Counted::from_raw(top.cast_const()) };
            // Relaxed: the swap that took the stack acquired it. Read before the mark is reset, because from
            // then on the waiter may push the node again.
            *top = node.next.load(Ordering::Relaxed);
            // AcqRel: Acquire sees the waker that was left before the mark was set; Release lets the waiter
            // reuse the node. A swap and not a store, so that the mark's modifications have one order.
            node.queued.swap(false, Ordering::AcqRel);
            *woken += 1;
            match &node.target {
                Target::Task(task) => task.wake(),
                Target::Bell { bell, key } => match why {
                    Why::Published => bell.ring_published(*key),
                    Why::Other => bell.ring(*key),
                },
            }
        }
    }
}

#[cfg(all(test, not(ringmain_loom)))]
impl Waiters {
    /// How many nodes stand in the list. Only while nobody else uses it.
    pub(crate) fn len(&self) -> usize {
        let mut node = self.top.load(Ordering::Acquire);
        let mut count = 0;
        // SAFETY: nodes in the list are kept alive by the count that `register` put there, and nobody takes them now.
        while let Some(here) = unsafe { node.as_ref() } {
            count += 1;
            node = here.next.load(Ordering::Acquire);
        }
        count
    }
}

impl Default for Waiters {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Waiters {
    fn drop(&mut self) {
        self.wake_in_drop();
    }
}

/// Drops what somebody panicked with, whatever it does when it is dropped.
fn discard(panic: Box<dyn Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        core::mem::forget(another);
    }
}

impl fmt::Debug for Waiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiters").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use super::*;
    use std::task::Wake;

    struct Count(crate::sync::AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed); // Relaxed: one thread
        }
    }

    #[test]
    fn a_burst_wakes_each_waiter_once() {
        let count = Arc::new(Count(Default::default()));
        let waker = Waker::from(count.clone());
        let (waiters, mut first, mut second) = (Waiters::new(), Waiter::new(), Waiter::new());
        waiters.register(&mut first, &waker);
        waiters.register(&mut first, &waker);
        waiters.register(&mut second, &waker);
        assert_eq!((waiters.wake(), waiters.wake()), (2, 0));
        assert_eq!(count.0.load(Ordering::Relaxed), 2); // Relaxed: one thread
    }

    #[test]
    fn a_bell_rings_with_the_key_of_each_that_waits() {
        #[derive(Default)]
        struct Keys(std::sync::Mutex<Vec<u32>>);
        impl Bell for Keys {
            fn ring(&self, key: u32) {
                self.0.lock().unwrap().push(key);
            }
        }
        let keys = Arc::new(Keys::default());
        let (waiters, mut first, mut second) =
            (Waiters::new(), Waiter::ringing(keys.clone(), 1), Waiter::ringing(keys.clone(), 2));
        waiters.register(&mut first, Waker::noop());
        waiters.register(&mut first, Waker::noop());
        waiters.register(&mut second, Waker::noop());
        assert_eq!((waiters.wake(), waiters.wake()), (2, 0));
        waiters.register(&mut second, Waker::noop());
        waiters.wake();
        assert_eq!(*keys.0.lock().unwrap(), [2, 1, 2]);
    }

    #[test]
    fn a_dropped_waiter_is_no_danger() {
        let waiters = Waiters::new();
        let mut waiter = Waiter::new();
        waiters.register(&mut waiter, Waker::noop());
        drop(waiter);
        assert_eq!(waiters.wake(), 1);
    }

    /// A waker that panics, when it is cloned or when it wakes.
    fn panicking(on_clone: bool) -> Waker {
        use core::task::{RawWaker, RawWakerVTable};
        fn no() {
            panic!("a waker that panics");
        }
        const WAKES: RawWakerVTable =
            RawWakerVTable::new(|_| RawWaker::new(ptr::null(), &WAKES), |_| no(), |_| no(), |_| ());
        const CLONES: RawWakerVTable = RawWakerVTable::new(
            |_| {
                no();
                RawWaker::new(ptr::null(), &CLONES)
            },
            |_| (),
            |_| (),
            |_| (),
        );
        // SAFETY: the functions use no data.
        unsafe { Waker::new(ptr::null(), if on_clone { &CLONES } else { &WAKES }) }
    }

    #[test]
    fn a_waker_that_panics_keeps_nobody_asleep() {
        let count = Arc::new(Count(Default::default()));
        let (good, bad) = (Waker::from(count.clone()), panicking(false));
        let (waiters, mut sleepers) = (Waiters::new(), [(); 6].map(|()| Waiter::new()));
        for round in 1..=3 {
            for (index, waiter) in sleepers.iter_mut().enumerate() {
                waiters.register(waiter, if index % 2 == 1 { &good } else { &bad });
            }
            assert!(catch_unwind(AssertUnwindSafe(|| waiters.wake())).is_err());
            assert_eq!(count.0.load(Ordering::Relaxed), 3 * round); // Relaxed: one thread
            assert_eq!(waiters.wake(), 0, "each was woken, and may register again");
        }
    }

    #[test]
    fn waiters_may_be_dropped_with_wakers_that_panic() {
        let count = Arc::new(Count(Default::default()));
        let (good, bad) = (Waker::from(count.clone()), panicking(false));
        for is_panicking in [false, true] {
            let (waiters, mut sleepers) = (Waiters::new(), [(); 4].map(|()| Waiter::new()));
            for (index, waiter) in sleepers.iter_mut().enumerate() {
                waiters.register(waiter, if index == 0 { &good } else { &bad });
            }
            let outcome = catch_unwind(AssertUnwindSafe(move || {
                let _waiters = waiters;
                assert!(!is_panicking, "dropped while this panics");
            }));
            assert!(outcome.is_err());
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 2); // Relaxed: one thread
    }

    #[test]
    fn a_waiter_whose_waker_panicked_registers_again() {
        let count = Arc::new(Count(Default::default()));
        let (waiters, mut waiter) = (Waiters::new(), Waiter::new());
        let register = AssertUnwindSafe(|| waiters.register(&mut waiter, &panicking(true)));
        assert!(catch_unwind(register).is_err());
        waiters.register(&mut waiter, &Waker::from(count.clone()));
        waiters.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1); // Relaxed: one thread
    }

    #[test]
    fn sizes_are_as_documented() {
        assert_eq!(size_of::<Waiters>(), 8);
        assert_eq!(size_of::<Node>() + size_of::<usize>(), 56);
    }
}
