//! When a session was last heard of, and its end: a sweep decides, and a client comes back.

#![cfg(ringmain_loom)]

use std::sync::Arc;

use loom::cell::UnsafeCell;

use loom_tests::{SMALL, go, model, spawn, step};
use ringmain::internals::session::Life;
use ringmain::internals::stream::Moment;

const BEGUN: Moment = Moment(1);
const LATER: Moment = Moment(2);

/// What the sweep does: it looks, decides, and ends the session if that still holds.
fn sweep(life: &Life) -> bool {
    let seen = life.look();
    step();
    seen.touched() == BEGUN && !seen.is_heard() && life.end_unless_touched(seen)
}

#[test]
fn a_sign_of_life_is_refused_or_keeps_the_session() {
    let outcomes = model(SMALL, || {
        let life = Arc::new(Life::new(BEGUN));
        let touching = spawn({
            let life = life.clone();
            move || life.touch(LATER)
        });
        let hearing = spawn({
            let life = life.clone();
            move || life.hear(BEGUN)
        });
        go();
        let ended = sweep(&life);
        let (touched, heard) = (touching.join(), hearing.join());
        assert_eq!(ended, life.is_ended());
        assert!(!ended || !touched && !heard, "it was told that its session lives");
        assert!(ended || touched && heard, "it was told that its session ended");
        if !ended {
            let seen = life.look();
            assert!(seen.touched() == LATER && seen.is_heard(), "neither is lost");
        }
        ended
    });
    assert_eq!(outcomes.len(), 2);
}

#[test]
fn of_those_who_end_a_session_one_does() {
    let outcomes = model(SMALL, || {
        let life = Arc::new(Life::new(BEGUN));
        let ending = spawn({
            let life = life.clone();
            move || life.end()
        });
        go();
        let swept = sweep(&life);
        let ended = ending.join();
        assert!(ended != swept && life.is_ended() && !life.touch(LATER));
        swept
    });
    assert_eq!(outcomes.len(), 2);
}

/// What was done before the end, read by whoever sees the end.
struct Before(UnsafeCell<bool>);

#[allow(unsafe_code, reason = "what the model checks is that nobody reads while another writes")]
// SAFETY: it is written before the end and read after it; loom reports where that does not hold.
unsafe impl Sync for Before {}
#[allow(unsafe_code, reason = "as above")]
// SAFETY: as above.
unsafe impl Send for Before {}

fn sees_what_was_before(end: fn(&Life) -> bool) {
    let outcomes = model(SMALL, move || {
        let shared = Arc::new((Life::new(BEGUN), Before(UnsafeCell::new(false))));
        let ending = spawn({
            let shared = shared.clone();
            move || {
                #[allow(unsafe_code, reason = "as above")]
                // SAFETY: nobody reads before the end.
                shared.1.0.with_mut(|done| unsafe { *done = true });
                step();
                assert!(end(&shared.0));
            }
        });
        go();
        let is_ended = shared.0.is_ended();
        if is_ended {
            #[allow(unsafe_code, reason = "as above")]
            // SAFETY: it was written before the end.
            shared.1.0.with(|done| assert!(unsafe { *done }));
        }
        ending.join();
        is_ended
    });
    assert_eq!(outcomes.len(), 2);
}

#[test]
fn who_sees_the_end_sees_what_was_done_before_it() {
    sees_what_was_before(Life::end);
}

#[test]
fn who_sees_a_sweep_s_end_sees_what_was_done_before_it() {
    sees_what_was_before(|life| life.end_unless_touched(life.look()));
}
