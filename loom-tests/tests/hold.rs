//! Holds: a task that is held back takes what belongs together, and is woken for the rest.

#![cfg(ringmain_loom)]

use std::sync::Arc;

use loom::future::block_on;
use loom::sync::Mutex;

use loom_tests::{BOUND, go, model, spawn, step};
use ringmain::internals::wake::hold::Holds;

/// What a holder adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    First,
    Rest,
}

#[test]
fn parts_that_belong_together_are_taken_together() {
    let outcomes = model(BOUND, || {
        let (holds, parts) = (Arc::new(Holds::default()), Arc::new(Mutex::new(Vec::new())));
        let holder = {
            let (holds, parts) = (holds.clone(), parts.clone());
            spawn(move || {
                let hold = holds.hold();
                for part in [Part::First, Part::Rest] {
                    parts.lock().unwrap().push(part);
                    step();
                }
                drop(hold);
            })
        };
        go();
        let taken = block_on(std::future::poll_fn(|context| {
            let since = holds.note();
            let taken = parts.lock().unwrap().clone();
            step();
            holds.poll_whole(since, context).map(|()| taken)
        }));
        assert_ne!(taken, [Part::First]);
        holder.join();
        taken.len()
    });
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), [0, 2]);
}

#[test]
fn a_held_task_is_woken_when_each_hold_has_ended() {
    model(BOUND, || {
        let holds = Arc::new(Holds::default());
        let holders: Vec<_> = (0..2)
            .map(|_| {
                let hold = holds.hold();
                spawn(move || drop(hold))
            })
            .collect();
        go();
        block_on(std::future::poll_fn(|context| {
            let since = holds.note();
            step();
            holds.poll_whole(since, context)
        }));
        holders.into_iter().for_each(|holder| holder.join());
    });
}
