//! The topic: subscribing, waiting and leaving while events are published.

#![cfg(ringmain_loom)]

use std::sync::Arc;
use std::task::{Context, Waker};

use loom::future::block_on;

use loom_tests::{BOUND, SMALL, Thread, go, model, step};
use ringmain::internals::ring::{Limits, Position};
use ringmain::internals::stream::Clock;
use ringmain::topic::{Received, Subscription, Topic};

/// A topic of chunks of `capacity` slots.
fn topic(capacity: usize) -> Arc<Topic> {
    Topic::new(Limits { capacity, ..Limits::default() }, Clock::default())
}

fn publish(topic: &Topic) -> Position {
    step();
    topic.publish(|out| out.push(b'x')).expect("it is open")
}

fn spawn<R: 'static>(topic: &Arc<Topic>, act: impl FnOnce(&Arc<Topic>) -> R + 'static) -> Thread<R> {
    let topic = topic.clone();
    loom_tests::spawn(move || act(&topic))
}

/// Takes what there is; returns the positions, and how many were missed.
fn drain(subscription: &mut Subscription) -> (Vec<Position>, u64) {
    let (mut positions, mut missed) = (Vec::new(), 0);
    while let Some(Some(received)) = subscription.try_next() {
        match received {
            Received::Event(event) => positions.push(event.position()),
            Received::Lagged { missed: more } => missed += more,
        }
        step();
    }
    (positions, missed)
}

fn next(subscription: &mut Subscription) -> Position {
    step();
    match block_on(subscription.next()) {
        Some(Received::Event(event)) => event.position(),
        other => panic!("{other:?}"),
    }
}

fn wait(subscription: &mut Subscription) {
    assert!(subscription.poll_next(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn a_subscriber_is_woken_when_publish_races_wait() {
    model(SMALL, || {
        let topic = topic(2);
        let mut subscription = topic.subscribe();
        let publisher = spawn(&topic, |topic| publish(topic));
        go();
        assert_eq!(next(&mut subscription), 1);
        publisher.join()
    });
}

#[test]
fn one_that_leaves_takes_nobody_s_wake() {
    model(BOUND, || {
        let topic = topic(2);
        let (mut staying, mut leaving) = (topic.subscribe(), topic.subscribe());
        wait(&mut leaving);
        let publisher = spawn(&topic, |topic| publish(topic));
        let leaver = spawn(&topic, move |_| {
            step();
            drop(leaving);
        });
        go();
        assert_eq!(next(&mut staying), 1);
        publisher.join();
        leaver.join();
    });
}

#[test]
fn a_subscription_that_begins_while_events_are_published_sees_each_from_its_start_once() {
    let outcomes = model(BOUND, || {
        let topic = topic(4);
        let publisher = spawn(&topic, |topic| (publish(topic), publish(topic)));
        go();
        let start = topic.tail();
        step();
        let mut subscription = topic.subscribe_after(start - 1);
        let (mut positions, missed) = drain(&mut subscription);
        publisher.join();
        let (rest, more) = drain(&mut subscription);
        positions.extend(rest);
        assert_eq!(missed + more, 0);
        assert!(positions.into_iter().eq(start..=2));
        start
    });
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
}
