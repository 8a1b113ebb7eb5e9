//! Holds: a task that is held back is woken when the last hold ends, and sees what was done meanwhile.

#![cfg(ringmain_loom)]

use std::sync::Arc;

use loom::future::block_on;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom_tests::{SMALL, model, spawn, step};
use ringmain::internals::wake::hold::Holds;

#[test]
fn a_held_task_goes_on_after_the_last_hold_and_sees_what_was_done() {
    model(SMALL, || {
        let holds = Arc::new(Holds::default());
        let cells = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let holders: Vec<_> = (0..2)
            .map(|holder| {
                let (hold, cells) = (holds.hold(), cells.clone());
                spawn(move || {
                    // Relaxed, here and below: the holds order it.
                    cells[holder].store(1, Relaxed);
                    step();
                    drop(hold);
                })
            })
            .collect();
        block_on(std::future::poll_fn(|context| holds.poll_free(context)));
        for cell in cells.iter() {
            assert_eq!(cell.load(Relaxed), 1);
        }
        holders.into_iter().for_each(|holder| holder.join());
    });
}
