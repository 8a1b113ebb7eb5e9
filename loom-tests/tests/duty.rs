//! One of several on duty: what is left for any of them is done, whoever was woken for it.

#![cfg(ringmain_loom)]

use std::future::poll_fn;
use std::task::Poll;

use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread::{self, JoinHandle};

use loom_tests::{BOUND, LARGE, SMALL, model, step};
use ringmain::internals::wake::Waiter;
use ringmain::internals::wake::duty::{Duty, Work};

/// Pieces of work. Every access is `Relaxed`, so that nothing but the duty orders those who leave them and those
/// who do them.
#[derive(Default)]
struct Pile(AtomicUsize);

impl Work for Pile {
    fn is_left(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0 // Relaxed: see the type
    }
}

type Crew = Arc<Duty<Pile>>;

/// What callers and members call their thread, unless they are to be told apart.
const HERE: u64 = 7;
const ELSEWHERE: u64 = 8;

fn crew<const N: usize>() -> Crew {
    Arc::new(Duty::new([(); N].map(|()| Pile::default())))
}

fn leave_work(crew: &Crew, member: usize, here: u64) {
    step();
    crew.work(member).0.fetch_add(1, Ordering::Relaxed); // Relaxed: see the type
    crew.call(member, here);
}

/// Works until so many pieces are done, and then is gone. Returns how often it was polled.
fn work(crew: &Crew, member: usize, pieces: usize, here: u64) -> usize {
    let (mut waiter, mut done, mut polled) = (Waiter::new(), 0, 0);
    let take = || crew.work(member).0.swap(0, Ordering::Relaxed); // Relaxed: see the type
    block_on(poll_fn(|context| {
        polled += 1;
        crew.begin(member, here);
        done += take();
        crew.register(member, &mut waiter, context.waker());
        done += take();
        crew.retire(member, here);
        if done == pieces { Poll::Ready(()) } else { Poll::Pending }
    }));
    crew.leave(member, here);
    polled
}

fn spawn<R: 'static>(crew: &Crew, act: impl FnOnce(&Crew) -> R + 'static) -> JoinHandle<R> {
    let crew = crew.clone();
    // Not `loom_tests::spawn`: nothing here is pinned in the epoch.
    let thread = thread::spawn(move || {
        step();
        act(&crew)
    });
    step();
    thread
}

#[test]
fn work_left_while_the_duty_is_laid_down_is_done() {
    let outcomes = model(SMALL, || {
        let crew = crew::<1>();
        let member = spawn(&crew, |crew| work(crew, 0, 2, HERE));
        leave_work(&crew, 0, HERE);
        leave_work(&crew, 0, HERE);
        member.join().unwrap()
    });
    assert!(outcomes.len() > 1, "it comes before, between and after");
}

#[test]
fn two_who_leave_work_at_once_do_not_rely_on_each_other() {
    let outcomes = model(LARGE, || {
        let crew = crew::<1>();
        let member = spawn(&crew, |crew| work(crew, 0, 2, HERE));
        let other = spawn(&crew, |crew| leave_work(crew, 0, ELSEWHERE));
        leave_work(&crew, 0, HERE);
        other.join().unwrap();
        member.join().unwrap()
    });
    assert!(outcomes.len() > 1);
}

#[test]
fn the_duty_is_passed_on_to_whoever_has_work() {
    let outcomes = model(BOUND, || {
        let crew = crew::<2>();
        let member = spawn(&crew, |crew| work(crew, 1, 1, ELSEWHERE));
        leave_work(&crew, 0, HERE);
        leave_work(&crew, 1, HERE);
        // On the same thread, as the runtime would have it.
        work(&crew, 0, 1, HERE);
        member.join().unwrap()
    });
    assert!(outcomes.len() > 1);
}

#[test]
fn who_is_gone_keeps_nobody_from_work() {
    let outcomes = model(LARGE, || {
        let crew = crew::<2>();
        let gone = spawn(&crew, |crew| crew.leave(0, ELSEWHERE));
        let member = spawn(&crew, |crew| work(crew, 1, 1, ELSEWHERE));
        leave_work(&crew, 0, HERE);
        leave_work(&crew, 1, HERE);
        gone.join().unwrap();
        member.join().unwrap()
    });
    assert!(outcomes.len() > 1);
}

/// Does the member's work itself, if nobody is on duty: there is none to leave.
fn do_it_here(crew: &Crew, member: usize, here: u64) -> bool {
    step();
    let taken = crew.take(member, here);
    if taken {
        step();
        crew.retire(member, here);
    }
    taken
}

#[test]
fn work_left_while_a_caller_does_its_own_is_done() {
    let outcomes = model(LARGE, || {
        let crew = crew::<1>();
        let member = spawn(&crew, |crew| work(crew, 0, 1, ELSEWHERE));
        // By its number, on the thread that has the duty: it relies on whoever that is.
        let other = spawn(&crew, |crew| leave_work(crew, 0, HERE));
        let taken = do_it_here(&crew, 0, HERE);
        other.join().unwrap();
        (taken, member.join().unwrap())
    });
    assert!(outcomes.iter().any(|(taken, _)| *taken) && outcomes.iter().any(|(taken, _)| !taken));
}

#[test]
fn who_takes_the_duty_for_a_sleeper_passes_it_on() {
    let outcomes = model(LARGE, || {
        let crew = crew::<2>();
        let member = spawn(&crew, |crew| work(crew, 1, 1, ELSEWHERE));
        let other = spawn(&crew, |crew| leave_work(crew, 1, HERE));
        // Member 0 sleeps all the time.
        let taken = do_it_here(&crew, 0, HERE);
        other.join().unwrap();
        (taken, member.join().unwrap())
    });
    assert!(outcomes.len() > 1);
}

#[test]
fn who_gives_a_duty_that_it_took_has_the_member_woken() {
    let outcomes = model(BOUND, || {
        let crew = crew::<1>();
        let member = spawn(&crew, |crew| work(crew, 0, 1, ELSEWHERE));
        step();
        // It took the duty and cannot do the work after all.
        let taken = crew.take(0, HERE);
        crew.work(0).0.fetch_add(1, Ordering::Relaxed); // Relaxed: see the type
        if taken {
            crew.give(0, HERE)
        } else {
            crew.call(0, HERE)
        }
        member.join().unwrap()
    });
    assert!(outcomes.len() > 1);
}
