//! Behaviour of topics without a network.

use core::pin::pin;
use core::task::{Context, Poll, Waker};
use std::sync::atomic::AtomicUsize as Count;
use std::task::Wake;
use std::thread;

use super::*;
use crate::stream::Moment;

fn topic(capacity: usize) -> Arc<Topic> {
    Topic::new(Limits { capacity, ..Limits::default() }, Clock::default())
}

fn publish(topic: &Topic, text: &str) -> Position {
    topic.publish(|out| out.extend_from_slice(text.as_bytes())).unwrap()
}

/// The positions it is given until there is nothing more, and how many it missed.
fn drain(subscription: &mut Subscription) -> (Vec<Position>, u64) {
    let (mut positions, mut missed) = (Vec::new(), 0);
    while let Some(Some(received)) = subscription.try_next() {
        match received {
            Received::Event(event) => positions.push(event.position()),
            Received::Lagged { missed: more } => missed += more,
        }
    }
    (positions, missed)
}

/// Counts how often it is woken.
#[derive(Default)]
struct Counter(Count);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed); // Relaxed: read after the fact
    }
}

#[test]
fn a_subscription_is_as_small_as_documented() {
    assert_eq!(size_of::<Subscription>(), 40);
}

#[test]
fn a_subscription_starts_where_it_says() {
    let topic = topic(64);
    (1..=3).for_each(|position| assert_eq!(publish(&topic, "x"), position));
    let (mut new, mut all, mut some) =
        (topic.subscribe(), topic.subscribe_after(0), topic.subscribe_after(2));
    publish(&topic, "x");
    assert_eq!(drain(&mut new), (vec![4], 0));
    assert_eq!(drain(&mut all), (vec![1, 2, 3, 4], 0));
    assert_eq!(drain(&mut some), (vec![3, 4], 0));
    assert_eq!(some.position(), 4);
}

#[test]
fn a_subscription_that_lags_is_told_how_many_it_missed() {
    let topic = topic(4);
    let mut slow = topic.subscribe();
    (0..100).for_each(|_| assert!(publish(&topic, "x") > 0));
    let (positions, missed) = drain(&mut slow);
    assert_eq!(positions.len() as u64 + missed, 100);
    assert!(missed > 0 && positions.ends_with(&[100]));
}

#[test]
fn a_closed_topic_ends_after_its_last_event() {
    let topic = topic(4);
    let mut subscription = topic.subscribe();
    publish(&topic, "last");
    assert!(topic.close() && !topic.close());
    assert_eq!(topic.publish(|_| {}), Err(TopicError::Closed));
    assert!(matches!(subscription.try_next(), Some(Some(Received::Event(event))) if event.data() == b"last"));
    assert!(matches!(subscription.try_next(), Some(None)));
}

#[test]
fn what_is_larger_than_a_topic_may_retain_is_refused() {
    let topic = Topic::new(Limits { max_weight: 1000, ..Limits::default() }, Clock::default());
    let refused = topic.publish(|out| out.resize(1000, b'x'));
    assert!(matches!(refused, Err(TopicError::TooLarge { limit: 1000, .. })), "{refused:?}");
}

#[test]
fn old_events_go_and_so_do_those_beyond_a_budget() {
    let clock = Clock::default();
    let topic = Topic::new(Limits::default(), clock.clone());
    (0..100).for_each(|_| assert!(publish(&topic, "x") > 0));
    assert!(topic.trim(1000) > 0 && topic.retained_bytes() <= 1000);
    assert!(publish(&topic, "x") == 101 && topic.retained_bytes() > 0);
    clock.advance(Moment(u64::from(Limits::default().max_age_ms)));
    assert!(topic.evict_older() > 0);
    assert_eq!((topic.retained_bytes(), topic.oldest(), topic.tail()), (0, 102, 102));
}

#[test]
fn an_event_names_its_position_for_whoever_resumes() {
    let topic = topic(4);
    let mut subscription = topic.subscribe();
    publish(&topic, "{}");
    let Some(Some(Received::Event(event))) = subscription.try_next() else { panic!("it is there") };
    assert_eq!(&event.to_sse()[..], b"id: 0000000000000001\nevent: message\ndata: {}\n\n");
    assert_eq!(Event::position_of("0000000000000001"), Some(1));
    for id in ["", "1", "000000000000000G", "000000000000000A", "+000000000000001"] {
        assert_eq!(Event::position_of(id), None, "{id}");
    }
}

#[test]
fn a_whole_frame_is_published_without_the_head_it_has() {
    let topic = topic(4);
    let mut subscription = topic.subscribe();
    let name = crate::sse::StreamName { tag: 1, stream: 2 };
    topic.publish_frame(Frame::whole(name, |out| out.extend_from_slice(b"{}"))).unwrap();
    let Some(Some(Received::Event(event))) = subscription.try_next() else { panic!("it is there") };
    assert_eq!(event.data(), b"{}");
    assert_eq!(&event.to_sse()[..], b"id: 0000000000000001\nevent: message\ndata: {}\n\n");
}

#[test]
fn departed_subscribers_leave_no_nodes() {
    let topic = topic(4);
    let counter = Arc::new(Counter::default());
    let waker = Waker::from(counter.clone());
    let mut staying: Vec<_> = (0..10).map(|_| topic.subscribe()).collect();
    let mut context = Context::from_waker(&waker);
    staying.iter_mut().for_each(|one| assert!(one.poll_next(&mut context).is_pending()));
    let mut most = 0;
    for _ in 0..100_000 {
        let mut passing = topic.subscribe();
        assert!(passing.poll_next(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(passing);
        most = most.max(topic.waiters.len());
        // Whoever was woken waits again, as a task does.
        staying.iter_mut().for_each(|one| assert!(one.poll_next(&mut context).is_pending()));
    }
    assert!(most <= 2 * staying.len() + 1, "{most} nodes");
    let woken = counter.0.load(Ordering::Relaxed); // Relaxed: one thread
    assert!(woken <= 100_000, "no more than one wake for each that left: {woken}");
    drop(staying);
    assert_eq!(topic.waiters.len(), 0);
}

#[test]
fn a_waiting_subscription_is_woken_by_what_is_published() {
    let topic = topic(1 << 20);
    let mut subscription = topic.subscribe();
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            (1..=1000).for_each(|position| {
                let Some(Received::Event(event)) = block_on(subscription.next()) else { panic!("an event") };
                assert_eq!(event.position(), position);
            });
        });
        (0..1000).for_each(|_| assert!(publish(&topic, "x") > 0));
        reader.join().unwrap();
    });
}

/// Takes what there is, which begins at `expected` and has no gap, and moves `expected` on.
fn follow(subscription: &mut Subscription, expected: &mut Position) {
    let (positions, missed) = drain(subscription);
    assert_eq!(missed, 0);
    for position in positions {
        assert_eq!(position, *expected);
        *expected += 1;
    }
}

/// Publishers and subscribers that stay, or come and go, at once: each sees every event from its start on, once, in
/// order.
#[test]
fn topic_subscriber_sees_each_event_once() {
    const EVENTS: u64 = 5_000;
    let topic = topic(1 << 20);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (topic, mut staying, mut next) = (&topic, topic.subscribe(), 1);
                scope.spawn(move || {
                    while topic.tail() <= 2 * EVENTS {
                        let mut expected = topic.tail();
                        let mut passing = topic.subscribe_after(expected - 1);
                        for _ in 0..50 {
                            follow(&mut passing, &mut expected);
                            follow(&mut staying, &mut next);
                        }
                    }
                    (staying, next)
                })
            })
            .collect();
        let publishers: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| (0..EVENTS).for_each(|_| assert!(publish(&topic, "x") > 0))))
            .collect();
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        for reader in readers {
            let (mut staying, mut next) = reader.join().unwrap();
            follow(&mut staying, &mut next);
            assert_eq!(next, 2 * EVENTS + 1, "it was given all of them");
        }
    });
}

/// Runs a future on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let (mut future, mut context) = (pin!(future), Context::from_waker(&waker));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        thread::park();
    }
}
