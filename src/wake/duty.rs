//! Several members that each have work of their own, of whom no more are woken than the work needs.
//!
//! Waking a task from a thread that the runtime owns is nearly free for the first: it runs there next. A second
//! makes the runtime wake another thread, and that costs more than a little work is worth: the sleeper's switch,
//! its search, and the memory that moves to another core. So the thread that leaves work for many wakes one of
//! them, who is on *duty* and passes it on, when its own work is done, to another that has work.
//!
//! # Algorithm
//!
//! One word says who is on duty, and on which thread.
//!
//! - *Call*: after work was left for a member. If somebody is on duty on the caller's own thread, nothing: they
//!   will see to it. If nobody is, the member gets the duty. In every other case it is woken without: the thread
//!   that calls is awake anyway, and the one on duty may be kept from its work by others on its own.
//! - *Take*: a caller that finds nobody on duty may take the duty for a member and do the work itself, without
//!   leaving it for anybody. Then it rests on the member's behalf, or gives the duty to the member.
//! - *Begin*: a member that runs says on which thread it does.
//! - *Retire*: a member with nothing left, registered to be woken, passes its duty on to whoever has work, or lays it
//!   down and looks once more.
//! - *Share*: a member that has more than a turn's work has all the others woken that have some.
//! - *Leave*: a member that is gone for good passes the duty on, and has no work any more.
//!
//! # Memory ordering
//!
//! "Leave work, then look who is on duty" meets "lay the duty down, then look for work": neither may miss the other.
//! Between the two steps each side has a sequentially consistent fence. Of two fences one comes first: if that of
//! the caller, whoever lays the duty down sees the work; if the other, the caller sees that nobody is on duty, or
//! somebody who took it after that, and whose own fence is still to come. "Give the duty, then look whether the
//! member is gone" meets "be gone, then look whether one is on duty" in the same way.
//!
//! A read-modify-write on both sides, as in [`Waiters`], would do too. But every publisher calls for every event, and
//! all of them would write to this one word; so they read it.
//!
//! # Progress
//!
//! Calling is wait-free but for waking. Passing on looks at each member once.

use core::fmt;
use core::task::Waker;

use super::{Waiter, Waiters};
use crate::sync::{AtomicBool, AtomicU64, Ordering, fence};

/// What a member may have to do.
pub trait Work {
    /// Whether something is left to do.
    fn is_left(&self) -> bool;
}

/// Shares work among members, of whom one at most is on duty. See the module documentation.
pub struct Duty<W> {
    /// Who is on duty, and where.
    word: AtomicU64,
    members: Box<[Member<W>]>,
}

struct Member<W> {
    waiters: Waiters,
    gone: AtomicBool,
    work: W,
}

/// The word while nobody is on duty.
const NOBODY: u64 = 0;
/// Bits of the word that tell the thread; above them is the member's number, from 1 on.
const THREAD: u64 = (1 << 48) - 1;

fn held(member: usize, thread: u64) -> u64 {
    ((member as u64 + 1) << 48) | (thread & THREAD)
}

/// Whether the word says that `member` is on duty.
fn is_held_by(word: u64, member: usize) -> bool {
    word >> 48 == member as u64 + 1
}

impl<W: Work> Duty<W> {
    /// Members with this work, at most 65,535 of them, of whom nobody is on duty.
    pub fn new(works: impl IntoIterator<Item = W>) -> Self {
        let member = |work| Member { waiters: Waiters::new(), gone: AtomicBool::new(false), work };
        Self { word: AtomicU64::new(NOBODY), members: works.into_iter().map(member).collect() }
    }

    /// How many members there are.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// The work of `member`.
    ///
    /// # Panics
    ///
    /// Like all methods that take one: there is no such member.
    #[must_use]
    pub fn work(&self, member: usize) -> &W {
        &self.members[member].work
    }

    /// Sees to it that the work that was left for `member` is done. `here` stands for the calling thread: any number
    /// of 48 bits. Threads with the same number wait for each other longer than they need to, and lose nothing.
    pub fn call(&self, member: usize, here: u64) {
        // SeqCst: pairs with the fence in `after_laying_down`.
        fence(Ordering::SeqCst);
        // Relaxed: the fences order it; nothing is read through it.
        let word = self.word.load(Ordering::Relaxed);
        if word == NOBODY {
            if self.replace(word, held(member, here)) {
                return self.give(member, here);
            }
        } else if word & THREAD == here & THREAD {
            return;
        }
        self.wake(member);
    }

    /// Whether nobody is on duty. Only a glance.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        // Relaxed: nothing follows from it.
        self.word.load(Ordering::Relaxed) == NOBODY
    }

    /// Takes the duty for `member` if nobody has it. Then the caller does what there is to do itself, instead of
    /// leaving it, and calls [`retire`](Self::retire) for the member, or [`give`](Self::give) if something is left.
    #[must_use]
    pub fn take(&self, member: usize, here: u64) -> bool {
        // No fence: the caller has left no work that somebody might miss.
        self.replace(NOBODY, held(member, here))
    }

    /// Wakes `member`, which has the duty because of a call or because the caller took it.
    pub fn give(&self, member: usize, here: u64) {
        self.wake_on_duty(member, here);
        if self.is_gone_after_all(member) {
            self.retire(member, here);
        }
    }

    /// Wakes `member`, whoever is on duty.
    pub fn wake(&self, member: usize) {
        self.members[member].waiters.wake();
    }

    /// Leaves `waker` to be woken when `member` is to work. Look at the work again after this call.
    pub fn register(&self, member: usize, waiter: &mut Waiter, waker: &Waker) {
        self.members[member].waiters.register(waiter, waker);
    }

    /// Says that `member` runs on the thread that `here` stands for.
    pub fn begin(&self, member: usize, here: u64) {
        // Relaxed: only the member itself gives up what it holds, and it sees what it was woken for.
        let word = self.word.load(Ordering::Relaxed);
        if is_held_by(word, member) {
            self.replace(word, held(member, here));
        }
    }

    /// Has all the others woken that have work, because `member` needs longer.
    pub fn share(&self, member: usize) {
        (0..self.members.len())
            .filter(|other| *other != member && self.has_work(*other))
            .for_each(|other| self.wake(other));
    }

    /// Passes the duty on if `member` has it. It has registered, and looked at its work after that; or it sleeps, and
    /// this is called by who took the duty for it.
    pub fn retire(&self, mut member: usize, here: u64) {
        loop {
            // Relaxed: a member that was given the duty and does not see it yet is woken, as it has registered.
            let word = self.word.load(Ordering::Relaxed);
            if !is_held_by(word, member) {
                return;
            }
            let next = match self.next_with_work(member) {
                Some(next) if self.replace(word, held(next, here)) => next,
                None if self.replace(word, NOBODY) => match self.after_laying_down(member, here) {
                    Some(next) => next,
                    None => return,
                },
                // Somebody saw that the member is gone, and passed on what it had.
                Some(_) | None => return,
            };
            self.wake_on_duty(next, here);
            if !self.is_gone_after_all(next) {
                return;
            }
            member = next;
        }
    }

    /// `member` is gone for good: it has no work any more, whatever is left for it.
    pub fn leave(&self, member: usize, here: u64) {
        // Relaxed: the fence orders it.
        self.members[member].gone.store(true, Ordering::Relaxed);
        // SeqCst: pairs with the fence in `is_gone_after_all`.
        fence(Ordering::SeqCst);
        self.retire(member, here);
    }

    /// Wakes `member`, which was given the duty. If its waker panics it may never see the duty, and nobody shall wait
    /// for it.
    fn wake_on_duty(&self, member: usize, here: u64) {
        struct Given<'a, W: Work> {
            duty: &'a Duty<W>,
            word: u64,
        }
        impl<W: Work> Drop for Given<'_, W> {
            fn drop(&mut self) {
                self.duty.replace(self.word, NOBODY);
            }
        }
        let given = Given { duty: self, word: held(member, here) };
        self.wake(member);
        core::mem::forget(given);
    }

    /// The duty was laid down. Takes it up again for whoever was left work before that could be seen.
    fn after_laying_down(&self, member: usize, here: u64) -> Option<usize> {
        // SeqCst: pairs with the fence in `call`.
        fence(Ordering::SeqCst);
        let next = self.next_with_work(member)?;
        self.replace(NOBODY, held(next, here)).then_some(next)
    }

    /// Whether `member`, which was just given the duty, will never see it.
    fn is_gone_after_all(&self, member: usize) -> bool {
        // SeqCst: pairs with the fence in `leave`.
        fence(Ordering::SeqCst);
        self.is_gone(member)
    }

    fn is_gone(&self, member: usize) -> bool {
        // Relaxed: the fences order it where it matters.
        self.members[member].gone.load(Ordering::Relaxed)
    }

    fn has_work(&self, member: usize) -> bool {
        self.members[member].work.is_left() && !self.is_gone(member)
    }

    /// The next in turn after `member`, and itself last: so everybody's turn comes.
    fn next_with_work(&self, member: usize) -> Option<usize> {
        let all = self.members.len();
        (member + 1..=member + all).map(|next| next % all).find(|next| self.has_work(*next))
    }

    fn replace(&self, word: u64, by: u64) -> bool {
        // Relaxed: nothing is read through the word; who is given the duty learns of it by being woken.
        self.word.compare_exchange(word, by, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl<W> fmt::Debug for Duty<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duty").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use super::*;
    use crate::sync::{Arc, AtomicUsize};
    use std::task::Wake;

    #[derive(Default)]
    struct Pile(AtomicUsize);

    impl Work for Pile {
        fn is_left(&self) -> bool {
            self.0.load(Ordering::Relaxed) > 0 // Relaxed: one thread, as below
        }
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Members that sleep, and how often each was woken.
    struct Crew<const N: usize> {
        duty: Duty<Pile>,
        sleepers: [(Waiter, Arc<Woken>); N],
    }

    impl<const N: usize> Crew<N> {
        fn new() -> Self {
            let mut crew = Self {
                duty: Duty::new((0..N).map(|_| Pile::default())),
                sleepers: std::array::from_fn(|_| (Waiter::new(), Arc::default())),
            };
            (0..N).for_each(|member| crew.sleep(member));
            crew
        }

        fn sleep(&mut self, member: usize) {
            let (waiter, woken) = &mut self.sleepers[member];
            self.duty.register(member, waiter, &woken.clone().into());
        }

        fn leave_work(&self, member: usize, here: u64) {
            self.duty.work(member).0.fetch_add(1, Ordering::Relaxed);
            self.duty.call(member, here);
        }

        /// Does all that is left for `member`, on the thread `here`, and rests.
        fn work(&mut self, member: usize, here: u64) {
            self.duty.begin(member, here);
            self.duty.work(member).0.store(0, Ordering::Relaxed);
            self.sleep(member);
            self.duty.retire(member, here);
        }

        fn woken(&self) -> [usize; N] {
            std::array::from_fn(|member| self.sleepers[member].1.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn of_those_that_one_thread_calls_one_is_woken_and_wakes_the_next() {
        let mut crew = Crew::<3>::new();
        [2, 0, 1, 2].into_iter().for_each(|member| crew.leave_work(member, 7));
        assert_eq!(crew.woken(), [0, 0, 1]);
        crew.work(2, 7);
        assert_eq!(crew.woken(), [1, 0, 1]);
        crew.work(0, 7);
        assert_eq!(crew.woken(), [1, 1, 1]);
        crew.work(1, 7);
        assert_eq!(crew.woken(), [1, 1, 1]);
        crew.leave_work(0, 7);
        assert_eq!(crew.woken(), [2, 1, 1], "nobody was on duty");
    }

    #[test]
    fn another_thread_does_not_wait_for_who_is_on_duty_elsewhere() {
        let mut crew = Crew::<3>::new();
        crew.leave_work(0, 7);
        crew.leave_work(1, 8);
        assert_eq!(crew.woken(), [1, 1, 0]);
        // The runtime may run it on another thread than the one that called it.
        crew.duty.begin(0, 8);
        crew.leave_work(2, 8);
        assert_eq!(crew.woken(), [1, 1, 0]);
        crew.work(1, 8);
        assert_eq!(crew.woken(), [1, 1, 0], "it had no duty to pass on");
        crew.work(0, 8);
        assert_eq!(crew.woken(), [1, 1, 1]);
    }

    #[test]
    fn who_takes_the_duty_passes_on_what_was_left_meanwhile() {
        let mut crew = Crew::<2>::new();
        assert!(crew.duty.is_idle() && crew.duty.take(0, 7));
        assert!(!crew.duty.is_idle() && !crew.duty.take(1, 7), "somebody has it");
        crew.leave_work(0, 7);
        crew.leave_work(1, 7);
        assert_eq!(crew.woken(), [0, 0], "the caller will see to it");
        crew.duty.retire(0, 7);
        assert_eq!(crew.woken(), [0, 1]);
        crew.work(1, 7);
        assert_eq!(crew.woken(), [1, 1]);
        crew.work(0, 7);
        assert!(crew.duty.take(0, 7));
        crew.duty.retire(0, 7);
        assert_eq!(crew.woken(), [1, 1], "nothing was left");
        assert!(crew.duty.take(1, 7));
        crew.duty.give(1, 7);
        assert_eq!(crew.woken(), [1, 2]);
    }

    #[test]
    fn who_needs_longer_has_all_woken_that_have_work() {
        let crew = Crew::<3>::new();
        crew.leave_work(0, 7);
        crew.leave_work(2, 7);
        crew.duty.share(0);
        assert_eq!(crew.woken(), [1, 0, 1]);
    }

    #[test]
    fn the_turn_of_the_others_comes_before_more_of_the_same() {
        let mut crew = Crew::<2>::new();
        crew.leave_work(0, 7);
        crew.leave_work(1, 7);
        crew.duty.begin(0, 7);
        crew.sleep(0);
        // Its own pile is as high as before.
        crew.duty.retire(0, 7);
        assert_eq!(crew.woken(), [1, 1]);
    }

    #[test]
    fn a_waker_that_panics_does_not_keep_the_duty() {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("a waker that panics");
            }
        }
        let mut crew = Crew::<2>::new();
        crew.duty.register(0, &mut crew.sleepers[0].0, &Arc::new(Panics).into());
        let call = std::panic::AssertUnwindSafe(|| crew.leave_work(0, 7));
        assert!(std::panic::catch_unwind(call).is_err());
        crew.leave_work(1, 7);
        assert_eq!(crew.woken(), [0, 1], "nobody is on duty");
        crew.sleep(0);
        crew.work(1, 7);
        assert_eq!(crew.woken(), [1, 1], "the work that was left is not forgotten");
    }

    #[test]
    fn who_is_gone_is_given_no_duty() {
        let mut crew = Crew::<2>::new();
        crew.leave_work(0, 7);
        crew.leave_work(1, 7);
        crew.duty.leave(0, 7);
        assert_eq!(crew.woken(), [1, 1], "it had the duty");
        crew.work(1, 7);
        crew.leave_work(0, 7);
        crew.leave_work(1, 7);
        assert_eq!(crew.woken()[1], 2);
    }
}
