//! The stream: delivery, supersession and finishing, with those who wait asleep until they are woken.

#![cfg(ringmain_loom)]

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use loom::future::block_on;
use loom::sync::Arc;

use loom_tests::{BOUND, Desk, LARGE, SMALL, Thread, go, model, step};
use ringmain::internals::ring::{Limits, Position};
use ringmain::internals::sse::Frame;
use ringmain::internals::stream::{Delivery, LagPolicy, Moment, Stream, Subscriber};
use ringmain::internals::wake::Waiter;

/// A stream and its limits, shared by the threads of a model.
type Shared = Arc<(Stream, Limits)>;

/// Frames are old after so many milliseconds.
const OLD: u32 = 1000;
/// A moment at which those published at moment 0 are old.
const LATER: Moment = Moment(OLD as u64);

/// A stream of chunks of `capacity` slots, with frames published at moment 0.
fn stream(capacity: usize, published: u64) -> Shared {
    let shared = Arc::new((Stream::new(), Limits { capacity, max_age_ms: OLD, ..Limits::default() }));
    (0..published).for_each(|_| assert!(publish(&shared).is_some()));
    shared
}

fn frame() -> Frame {
    Frame::shared(|out| out.push(b'x'))
}

fn publish(shared: &Shared) -> Option<Position> {
    step();
    shared.0.publish(frame(), Moment(0), &shared.1).ok()
}

fn publish_last(shared: &Shared) -> Option<Position> {
    step();
    shared.0.publish_last(frame(), Moment(0), &shared.1).ok()
}

/// Makes a thread of the model that runs `act`.
fn spawn<R: 'static>(shared: &Shared, act: impl FnOnce(&Shared) -> R + 'static) -> Thread<R> {
    let shared = shared.clone();
    loom_tests::spawn(move || act(&shared))
}

/// How a connection ended, or that it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Open,
    Superseded,
    HungUp,
    Finished,
}

/// What one connection was given.
#[derive(Debug)]
struct Log {
    positions: Vec<Position>,
    missed: u64,
    end: End,
}

impl Log {
    fn new() -> Self {
        Self { positions: Vec::new(), missed: 0, end: End::Open }
    }

    fn note(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Frames(batch) => self.positions.extend(batch.positions()),
            Delivery::Lagged { missed, .. } => self.missed += missed,
            Delivery::Superseded => self.end = End::Superseded,
            Delivery::HungUp => self.end = End::HungUp,
            Delivery::Ended => self.end = End::Finished,
        }
    }

    /// Takes what there is.
    fn drain(&mut self, subscriber: &mut Subscriber, shared: &Shared) {
        while let (End::Open, Some(delivery)) = (self.end, subscriber.try_next(&shared.0)) {
            self.note(delivery);
            step();
        }
    }

    /// Sleeps until there is something, and takes it.
    fn next(&mut self, subscriber: &mut Subscriber, shared: &Shared) {
        step();
        self.note(block_on(poll_fn(|context| subscriber.poll_next(&shared.0, context))));
    }

    fn next_until(&mut self, subscriber: &mut Subscriber, shared: &Shared, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            self.next(subscriber, shared);
        }
    }
}

/// Sleeps until there is space for one more than `capacity - 1` unread frames.
fn wait_for_room(shared: &Shared, capacity: u64) {
    let mut waiter = Waiter::new();
    block_on(poll_fn(|context| shared.0.poll_room(&mut waiter, capacity, context)));
}

// ---- Delivery ----

#[test]
fn a_frame_published_while_registering_is_delivered_once() {
    model(SMALL, || {
        let shared = stream(2, 0);
        let mut subscriber = shared.0.attach(None, LagPolicy::Signal);
        let publisher = spawn(&shared, |shared| publish(shared).unwrap());
        go();
        let mut log = Log::new();
        log.next(&mut subscriber, &shared);
        assert_eq!(log.positions, [publisher.join()]);
        assert!(subscriber.try_next(&shared.0).is_none());
    });
}

#[test]
fn a_connection_that_waits_for_the_start_sees_the_first_frame_or_the_end() {
    for finish in [false, true] {
        model(SMALL, move || {
            let shared = stream(2, 0);
            let mut subscriber = shared.0.attach(None, LagPolicy::Signal);
            let other = spawn(&shared, move |shared| match finish {
                true => assert!(shared.0.close(Moment(0), &shared.1)),
                false => assert!(publish(shared).is_some()),
            });
            go();
            block_on(poll_fn(|context| subscriber.poll_started(&shared.0, context)));
            let mut log = Log::new();
            log.next(&mut subscriber, &shared);
            assert_eq!(
                (log.positions.len(), log.end == End::Finished),
                if finish { (0, true) } else { (1, false) }
            );
            other.join();
        });
    }
}

#[test]
fn a_sleeping_subscriber_gets_each_frame_of_a_burst_once() {
    model(BOUND, || {
        let shared = stream(2, 1);
        let mut subscriber = shared.0.attach(Some(1), LagPolicy::Signal);
        let publisher = spawn(&shared, |shared| (publish(shared), publish_last(shared)));
        go();
        let mut log = Log::new();
        log.next_until(&mut subscriber, &shared, |log| log.end != End::Open);
        assert_eq!((&log.positions[..], log.missed, log.end), (&[2, 3][..], 0, End::Finished));
        publisher.join();
    });
}

#[test]
fn a_subscriber_with_a_bell_gets_each_frame_of_a_burst_once() {
    let outcomes = model(BOUND, || {
        let shared = stream(3, 1);
        let mut subscriber = shared.0.attach(Some(1), LagPolicy::Signal);
        let desk = std::sync::Arc::new(Desk::default());
        subscriber.ring(desk.clone(), 0);
        let publisher = spawn(&shared, |shared| (publish(shared), publish_last(shared)));
        go();
        let (mut log, mut own, mut batches) = (Log::new(), Waiter::new(), 0);
        loop {
            // Whoever serves many does not look again at one that had nothing, until its bell rings.
            let unused = &mut Context::from_waker(Waker::noop());
            while let (End::Open, Poll::Ready(delivery)) = (log.end, subscriber.poll_next(&shared.0, unused))
            {
                log.note(delivery);
                batches += 1;
            }
            if log.end != End::Open {
                break;
            }
            block_on(poll_fn(|context| desk.poll_rung(&mut own, context)));
        }
        assert_eq!((&log.positions[..], log.missed, log.end), (&[2, 3][..], 0, End::Finished));
        publisher.join();
        batches
    });
    assert!(outcomes.into_iter().eq([2, 3]), "both frames at once, or one after the other, and the end");
}

#[test]
fn a_sleeping_subscriber_gets_the_frames_of_two_publishers_in_order() {
    model(LARGE, || {
        let shared = stream(3, 1);
        let mut subscriber = shared.0.attach(Some(1), LagPolicy::Signal);
        let publishers = [(); 2].map(|()| spawn(&shared, |shared| publish(shared).unwrap()));
        go();
        let mut log = Log::new();
        log.next_until(&mut subscriber, &shared, |log| log.positions.len() == 2);
        assert_eq!(log.positions, [2, 3]);
        publishers.into_iter().for_each(|publisher| assert!(publisher.join() > 1));
    });
}

#[test]
fn a_sleeping_subscriber_is_told_what_was_evicted() {
    let outcomes = model(BOUND, || {
        let shared = stream(1, 1);
        let mut subscriber = shared.0.attach(None, LagPolicy::Signal);
        let publisher = spawn(&shared, |shared| (publish(shared), publish_last(shared)));
        go();
        let mut log = Log::new();
        log.next_until(&mut subscriber, &shared, |log| log.end != End::Open);
        publisher.join();
        assert_eq!(log.positions.len() as u64 + log.missed, 3);
        log.missed
    });
    assert!(outcomes.contains(&0) && outcomes.len() > 1);
}

// ---- Supersession ----

#[test]
fn a_frame_goes_to_one_connection_when_another_takes_over() {
    let outcomes = model(SMALL, || {
        let shared = stream(2, 1);
        let mut old = shared.0.attach(None, LagPolicy::Signal);
        let other = spawn(&shared, |shared| {
            let (mut new, mut log) = (shared.0.attach(None, LagPolicy::Signal), Log::new());
            log.drain(&mut new, shared);
            log.positions
        });
        go();
        let mut log = Log::new();
        log.drain(&mut old, &shared);
        let new = other.join();
        assert_eq!([&log.positions[..], &new].concat(), [1], "no frame is lost, none goes to both");
        new.len()
    });
    assert!(outcomes.into_iter().eq([0, 1]));
}

#[test]
fn a_frame_published_during_a_take_over_goes_to_one_connection() {
    let outcomes = model(BOUND, || {
        let shared = stream(2, 1);
        let mut old = shared.0.attach(Some(1), LagPolicy::Signal);
        let publisher = spawn(&shared, |shared| publish(shared).unwrap());
        let other = spawn(&shared, |shared| {
            let (mut new, mut log) = (shared.0.attach(None, LagPolicy::Signal), Log::new());
            log.drain(&mut new, shared);
            (new, log)
        });
        go();
        let mut log = Log::new();
        log.drain(&mut old, &shared);
        publisher.join();
        let (mut new, mut new_log) = other.join();
        new_log.drain(&mut new, &shared);
        assert_eq!([&log.positions[..], &new_log.positions].concat(), [2]);
        new_log.positions.len()
    });
    assert!(outcomes.into_iter().eq([0, 1]));
}

#[test]
fn a_gap_is_told_to_one_connection_when_another_takes_over() {
    let outcomes = model(BOUND, || {
        let shared = stream(1, 3);
        let mut old = shared.0.attach(Some(0), LagPolicy::Signal);
        let oldest = shared.0.oldest();
        let other = spawn(&shared, |shared| {
            let (mut new, mut log) = (shared.0.attach(None, LagPolicy::Signal), Log::new());
            log.drain(&mut new, shared);
            log
        });
        go();
        let mut log = Log::new();
        log.drain(&mut old, &shared);
        let new = other.join();
        assert!([&log.positions[..], &new.positions].concat().into_iter().eq(oldest..=3));
        assert_eq!(log.missed + new.missed, oldest - 1);
        (new.missed > 0, new.positions.len())
    });
    assert!(
        outcomes.contains(&(true, 2)) && outcomes.contains(&(false, 2)) && outcomes.contains(&(false, 0))
    );
}

#[test]
fn a_sleeping_connection_ends_when_another_takes_over() {
    model(SMALL, || {
        let shared = stream(2, 0);
        let mut old = shared.0.attach(None, LagPolicy::Signal);
        let other = spawn(&shared, |shared| shared.0.attach(None, LagPolicy::Signal));
        go();
        let mut log = Log::new();
        log.next(&mut old, &shared);
        assert_eq!(log.end, End::Superseded);
        drop(other.join());
    });
}

#[test]
fn an_old_connection_that_detaches_does_not_detach_the_new_one() {
    model(SMALL, || {
        let shared = stream(2, 0);
        let mut old = shared.0.attach(None, LagPolicy::Signal);
        let other = spawn(&shared, |shared| shared.0.attach(None, LagPolicy::Wait));
        go();
        old.detach(&shared.0);
        let (new, terms) = (other.join(), shared.0.terms());
        assert!(terms.is_attached() && terms.is_awaited() && terms.generation() == new.generation());
    });
}

#[test]
fn racing_connections_are_told_apart() {
    model(SMALL, || {
        let shared = stream(2, 0);
        let other = spawn(&shared, |shared| shared.0.attach(None, LagPolicy::Signal).generation());
        go();
        let own = shared.0.attach(None, LagPolicy::Signal).generation();
        assert_eq!(other.join() + own, 1 + 2);
    });
}

// ---- Hanging up ----

#[test]
fn a_connection_that_is_hung_up_gets_what_was_published_first() {
    model(BOUND, || {
        let shared = stream(2, 1);
        let (mut subscriber, mut log) = (shared.0.attach(None, LagPolicy::Signal), Log::new());
        // It stands on the chunk, so nothing but the lease orders what it looks at.
        log.drain(&mut subscriber, &shared);
        let publisher = spawn(&shared, |shared| {
            assert!(publish(shared).is_some());
            step();
            assert!(shared.0.hang_up());
        });
        go();
        log.next_until(&mut subscriber, &shared, |log| log.end != End::Open);
        assert_eq!((&log.positions[..], log.end), (&[1, 2][..], End::HungUp));
        publisher.join();
    });
}

#[test]
fn a_hang_up_does_not_outlive_its_connection() {
    let outcomes = model(SMALL, || {
        let shared = stream(2, 0);
        let mut old = shared.0.attach(None, LagPolicy::Signal);
        let other = spawn(&shared, |shared| shared.0.hang_up());
        go();
        old.detach(&shared.0);
        let asked = other.join();
        let mut new = shared.0.attach(None, LagPolicy::Signal);
        assert!(new.try_next(&shared.0).is_none());
        asked
    });
    assert!(outcomes.into_iter().eq([false, true]));
}

// ---- Finishing ----

#[test]
fn a_sleeping_subscriber_ends_when_the_stream_is_closed() {
    model(SMALL, || {
        let shared = stream(2, 0);
        let mut subscriber = shared.0.attach(None, LagPolicy::Signal);
        let other = spawn(&shared, |shared| shared.0.close(Moment(0), &shared.1));
        go();
        let mut log = Log::new();
        log.next(&mut subscriber, &shared);
        assert_eq!(log.end, End::Finished);
        assert!(other.join());
    });
}

#[test]
fn a_frame_published_while_the_stream_is_closed_is_delivered_or_refused() {
    let outcomes = model(SMALL, || {
        let shared = stream(3, 1);
        let mut subscriber = shared.0.attach(Some(1), LagPolicy::Signal);
        let publisher = spawn(&shared, publish);
        go();
        assert!(shared.0.close(Moment(0), &shared.1));
        let mut log = Log::new();
        log.next_until(&mut subscriber, &shared, |log| log.end != End::Open);
        let published = publisher.join();
        assert!(log.positions.into_iter().eq(published) && log.end == End::Finished);
        published
    });
    assert!(outcomes.into_iter().eq([None, Some(2)]));
}

#[test]
fn what_was_published_before_the_end_is_delivered_before_the_end() {
    let outcomes = model(BOUND, || {
        let shared = stream(3, 1);
        let mut subscriber = shared.0.attach(Some(1), LagPolicy::Signal);
        let publisher = spawn(&shared, publish);
        let closer = spawn(&shared, |shared| shared.0.close(Moment(0), &shared.1));
        go();
        let mut log = Log::new();
        log.next_until(&mut subscriber, &shared, |log| log.end != End::Open);
        let published = publisher.join();
        assert!(closer.join() && log.end == End::Finished);
        assert!(log.positions.into_iter().eq(published));
        published
    });
    assert!(outcomes.into_iter().eq([None, Some(2)]));
}

#[test]
fn a_connection_that_takes_over_while_the_stream_is_finished_ends() {
    let outcomes = model(BOUND, || {
        let shared = stream(3, 1);
        let mut old = shared.0.attach(Some(1), LagPolicy::Signal);
        let other = spawn(&shared, |shared| {
            assert!(publish(shared).is_some() && shared.0.close(Moment(0), &shared.1));
        });
        go();
        let mut log = Log::new();
        log.drain(&mut old, &shared);
        let (mut new, mut new_log) = (shared.0.attach(None, LagPolicy::Signal), Log::new());
        old.detach(&shared.0);
        new_log.next_until(&mut new, &shared, |log| log.end != End::Open);
        other.join();
        assert_eq!([&log.positions[..], &new_log.positions].concat(), [2]);
        assert_eq!(new_log.end, End::Finished);
        (log.end, new_log.positions.len())
    });
    assert!(outcomes.into_iter().eq([(End::Open, 0), (End::Open, 1), (End::Finished, 0)]));
}

#[test]
fn the_last_frame_is_kept_for_a_later_connection() {
    let outcomes = model(BOUND, || {
        let shared = stream(1, 1);
        let other = spawn(&shared, |shared| {
            let published = publish(shared);
            shared.0.evict_older(LATER, &shared.1);
            published
        });
        go();
        let last = publish_last(&shared).unwrap();
        other.join();
        shared.0.evict_older(Moment(2 * LATER.0), &shared.1);
        let (mut resumed, mut log) = (shared.0.attach(Some(last - 1), LagPolicy::Signal), Log::new());
        log.drain(&mut resumed, &shared);
        assert_eq!((&log.positions[..], log.end), (&[last][..], End::Finished));
        last
    });
    assert!(outcomes.into_iter().eq([2, 3]));
}

// ---- Waiting for space ----

#[test]
fn a_publisher_that_waits_for_room_is_woken_by_the_reader() {
    model(BOUND, || {
        let shared = stream(2, 1);
        let mut subscriber = shared.0.attach(None, LagPolicy::Wait);
        let publisher = spawn(&shared, |shared| {
            wait_for_room(shared, 1);
            assert_eq!(shared.0.terms().delivered(), 1, "it did wait");
            publish(shared).unwrap()
        });
        go();
        let mut log = Log::new();
        log.next_until(&mut subscriber, &shared, |log| log.positions.len() == 2);
        assert_eq!((&log.positions[..], publisher.join()), (&[1, 2][..], 2));
    });
}

#[test]
fn a_publisher_does_not_wait_for_a_reader_of_another_policy() {
    for policy in [LagPolicy::Signal, LagPolicy::End] {
        model(SMALL, move || {
            let shared = stream(2, 1);
            let publisher = spawn(&shared, |shared| wait_for_room(shared, 1));
            go();
            let _reads_nothing = shared.0.attach(None, policy);
            publisher.join();
        });
    }
}

#[test]
fn a_publisher_that_waits_goes_on_when_a_reader_of_another_policy_takes_over() {
    model(SMALL, || {
        let shared = stream(2, 1);
        let mut old = shared.0.attach(None, LagPolicy::Wait);
        let publisher = spawn(&shared, |shared| wait_for_room(shared, 1));
        go();
        let new = shared.0.attach(None, LagPolicy::Signal);
        old.detach(&shared.0);
        assert!(shared.0.terms().generation() == new.generation() && !shared.0.terms().is_awaited());
        publisher.join();
    });
}

#[test]
fn a_publisher_does_not_wait_for_a_reader_that_detached() {
    model(SMALL, || {
        let shared = stream(2, 1);
        let mut subscriber = shared.0.attach(None, LagPolicy::Wait);
        let publisher = spawn(&shared, |shared| wait_for_room(shared, 1));
        go();
        subscriber.detach(&shared.0);
        publisher.join();
    });
}

#[test]
fn a_publisher_does_not_wait_for_a_reader_that_resumed_further_on() {
    model(SMALL, || {
        let shared = stream(2, 1);
        let _old = shared.0.attach(None, LagPolicy::Wait);
        let publisher = spawn(&shared, |shared| wait_for_room(shared, 1));
        go();
        let _new = shared.0.attach(Some(1), LagPolicy::Wait);
        publisher.join();
    });
}

#[test]
fn a_publisher_does_not_wait_for_what_was_evicted() {
    model(SMALL, || {
        let shared = stream(1, 1);
        let mut subscriber = shared.0.attach(None, LagPolicy::Wait);
        shared.0.evict_older(LATER, &shared.1);
        let publisher = spawn(&shared, |shared| wait_for_room(shared, 1));
        go();
        let mut log = Log::new();
        log.drain(&mut subscriber, &shared);
        assert_eq!(log.missed, 1);
        publisher.join();
    });
}
