//! The list of waiters: nobody who registers and looks again sleeps through what was published.

#![cfg(ringmain_loom)]

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread::{self, JoinHandle};

use loom_tests::{BOUND, Desk, LARGE, SMALL, model, step};
use ringmain::internals::sync::Arc as Shared;
use ringmain::internals::wake::{Waiter, Waiters};

/// A list of waiters and how much was published. Every access to the count is `Relaxed`, so that nothing but the
/// list's own word orders a publisher and a waiter.
#[derive(Default)]
struct Room {
    waiters: Waiters,
    published: AtomicUsize,
}

impl Room {
    fn publish(&self) -> usize {
        step();
        self.published.fetch_add(1, Ordering::Relaxed); // Relaxed: see the type
        self.waiters.wake()
    }

    fn has(&self, count: usize) -> bool {
        self.published.load(Ordering::Relaxed) >= count // Relaxed: see the type
    }

    /// Looks, registers, looks again.
    fn poll(&self, count: usize, waiter: &mut Waiter, context: &Context<'_>) -> Poll<()> {
        if self.has(count) {
            return Poll::Ready(());
        }
        self.waiters.register(waiter, context.waker());
        if self.has(count) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Waits until `count` were published.
    fn wait(&self, count: usize, waiter: &mut Waiter) {
        block_on(poll_fn(|context| self.poll(count, waiter, context)));
    }
}

fn spawn<R: 'static>(room: &Arc<Room>, act: impl FnOnce(&Room) -> R + 'static) -> JoinHandle<R> {
    let room = room.clone();
    // Not `loom_tests::spawn`: nothing here is pinned in the epoch.
    let thread = thread::spawn(move || {
        step();
        act(&room)
    });
    step();
    thread
}

#[test]
fn wake_is_not_lost_when_publish_races_register() {
    let outcomes = model(SMALL, || {
        let room = Arc::new(Room::default());
        let publisher = spawn(&room, Room::publish);
        room.wait(1, &mut Waiter::new());
        publisher.join().unwrap()
    });
    assert!(outcomes.into_iter().eq([0, 1]), "somebody is there to be woken, or nobody is");
}

#[test]
fn a_waiter_of_two_publishers_sleeps_through_neither() {
    model(LARGE, || {
        let room = Arc::new(Room::default());
        let publishers = [(); 2].map(|()| spawn(&room, Room::publish));
        room.wait(2, &mut Waiter::new());
        let woken: usize = publishers.map(|publisher| publisher.join().unwrap()).into_iter().sum();
        assert!(woken <= 2, "it waits in one place at a time");
    });
}

#[test]
fn racing_waiters_are_both_woken() {
    let outcomes = model(BOUND, || {
        let room = Arc::new(Room::default());
        let other = spawn(&room, |room| room.wait(1, &mut Waiter::new()));
        let publisher = spawn(&room, Room::publish);
        room.wait(1, &mut Waiter::new());
        other.join().unwrap();
        publisher.join().unwrap()
    });
    assert!(outcomes.into_iter().eq([0, 1, 2]));
}

#[test]
fn a_waiter_registers_again_while_a_publisher_wakes_it() {
    let outcomes = model(BOUND, || {
        let room = Arc::new(Room::default());
        let publisher = spawn(&room, |room| room.publish() + room.publish());
        let mut waiter = Waiter::new();
        room.wait(1, &mut waiter);
        room.wait(2, &mut waiter);
        publisher.join().unwrap()
    });
    assert!(outcomes.into_iter().eq([0, 1, 2]));
}

#[test]
fn a_waiter_registers_again_while_two_publishers_wake_it() {
    model(BOUND, || {
        let room = Arc::new(Room::default());
        let publishers = [(); 2].map(|()| spawn(&room, Room::publish));
        let mut waiter = Waiter::new();
        room.wait(1, &mut waiter);
        room.wait(2, &mut waiter);
        let woken: usize = publishers.map(|publisher| publisher.join().unwrap()).into_iter().sum();
        assert!(woken <= 2, "it waits in one place at a time");
    });
}

#[test]
fn a_waiter_that_registers_again_does_not_hide_those_below_it() {
    model(BOUND, || {
        let room = Arc::new(Room::default());
        let below = spawn(&room, |room| room.wait(1, &mut Waiter::new()));
        let publisher = spawn(&room, Room::publish);
        let mut waiter = Waiter::new();
        (0..2).for_each(|_| room.waiters.register(&mut waiter, Waker::noop()));
        below.join().unwrap();
        publisher.join().unwrap();
    });
}

#[test]
fn the_waker_left_last_is_the_one_that_is_called() {
    model(SMALL, || {
        let room = Arc::new(Room::default());
        let publisher = spawn(&room, Room::publish);
        let mut waiter = Waiter::new();
        // The task was polled once elsewhere before it moved here.
        let _ = room.poll(1, &mut waiter, &Context::from_waker(Waker::noop()));
        room.wait(1, &mut waiter);
        publisher.join().unwrap();
    });
}

#[test]
fn a_waiter_dropped_while_queued_is_let_go() {
    let outcomes = model(SMALL, || {
        let room = Arc::new(Room::default());
        let publisher = spawn(&room, Room::publish);
        let mut waiter = Waiter::new();
        room.waiters.register(&mut waiter, Waker::noop());
        drop(waiter);
        publisher.join().unwrap() + room.publish()
    });
    assert!(outcomes.into_iter().eq([1]), "its node is taken once, by one of the two");
}

#[test]
fn a_waiting_room_dropped_lets_go_of_those_queued() {
    model(SMALL, || {
        let room = Arc::new(Room::default());
        let waiting = spawn(&room, |room| room.waiters.register(&mut Waiter::new(), Waker::noop()));
        drop(room);
        waiting.join().unwrap();
    });
}

// ---- Bells ----

/// Serves each space until it has its count, and looks at one only when its key rang.
fn serve<const N: usize>(desk: &Shared<Desk>, rooms: [&Room; N], counts: [usize; N]) {
    let mut own = Waiter::new();
    let mut waiters = std::array::from_fn::<_, N, _>(|key| Waiter::ringing(desk.clone(), key as u32));
    let (mut rung, mut open) = ((1 << N) - 1, (1 << N) - 1);
    while open != 0 {
        for key in (0..N).filter(|key| rung & 1 << key != 0) {
            let unused = Context::from_waker(Waker::noop());
            if rooms[key].poll(counts[key], &mut waiters[key], &unused).is_ready() {
                open &= !(1 << key);
            }
        }
        if open != 0 {
            rung = block_on(poll_fn(|context| desk.poll_rung(&mut own, context)));
        }
    }
}

#[test]
fn a_bell_is_not_lost_when_publish_races_register() {
    let outcomes = model(SMALL, || {
        let (room, desk) = (Arc::new(Room::default()), Shared::new(Desk::default()));
        let publisher = spawn(&room, Room::publish);
        serve(&desk, [&room], [1]);
        publisher.join().unwrap()
    });
    assert!(outcomes.into_iter().eq([0, 1]));
}

#[test]
fn a_waiter_with_a_bell_registers_again_while_a_publisher_rings_it() {
    let outcomes = model(BOUND, || {
        let (room, desk) = (Arc::new(Room::default()), Shared::new(Desk::default()));
        let publisher = spawn(&room, |room| room.publish() + room.publish());
        serve(&desk, [&room], [2]);
        publisher.join().unwrap()
    });
    assert!(outcomes.into_iter().eq([0, 1, 2]));
}

#[test]
fn a_waiter_with_a_bell_registers_again_while_two_publishers_ring_it() {
    model(BOUND, || {
        let (room, desk) = (Arc::new(Room::default()), Shared::new(Desk::default()));
        let publishers = [(); 2].map(|()| spawn(&room, Room::publish));
        serve(&desk, [&room], [2]);
        let woken: usize = publishers.map(|publisher| publisher.join().unwrap()).into_iter().sum();
        assert!(woken <= 2);
    });
}

#[test]
fn one_bell_rings_for_two_waiters() {
    let outcomes = model(LARGE, || {
        let rooms = [(); 2].map(|()| Arc::new(Room::default()));
        let desk = Shared::new(Desk::default());
        let publishers = rooms.each_ref().map(|room| spawn(room, Room::publish));
        serve(&desk, rooms.each_ref().map(|room| &**room), [1, 1]);
        publishers.map(|publisher| publisher.join().unwrap())
    });
    assert_eq!(outcomes.len(), 4, "each of the two is there to be rung for, or is not");
}

#[test]
fn a_bell_may_ring_for_a_waiter_that_is_gone() {
    let outcomes = model(SMALL, || {
        let (room, desk) = (Arc::new(Room::default()), Shared::new(Desk::default()));
        let publisher = spawn(&room, Room::publish);
        let mut waiter = Waiter::ringing(desk.clone(), 3);
        room.waiters.register(&mut waiter, Waker::noop());
        drop(waiter);
        let woken = publisher.join().unwrap() + room.publish();
        assert_eq!((woken, desk.rung()), (1, 1 << 3));
        assert_eq!(Shared::strong_count(&desk), 1, "its node let go of the bell");
        woken
    });
    assert!(outcomes.into_iter().eq([1]));
}
