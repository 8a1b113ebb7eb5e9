//! Behaviour of a stream in one thread and with racing ones; `loom-tests` has the races in full.

use core::task::{Context, Waker};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;

use super::*;

fn limits(capacity: usize) -> Limits {
    Limits { capacity, max_weight: 1 << 30, ..Limits::default() }
}

fn publish(stream: &Stream, text: &str, limits: &Limits) -> Position {
    stream.publish(Frame::shared(|out| out.extend_from_slice(text.as_bytes())), Moment(0), limits).unwrap()
}

/// The positions of what a subscriber is given until there is nothing, and how it ended.
fn drain(subscriber: &mut Subscriber, stream: &Stream) -> (Vec<u64>, u64, Option<Delivery>) {
    let (mut positions, mut missed) = (Vec::new(), 0);
    loop {
        match subscriber.try_next(stream) {
            Some(Delivery::Frames(batch)) => positions.extend(batch.positions()),
            Some(Delivery::Lagged { missed: more, ends: false, .. }) => missed += more,
            end => return (positions, missed, end),
        }
    }
}

#[test]
fn an_untouched_stream_is_32_bytes() {
    assert_eq!(size_of::<Stream>(), 32);
}

#[test]
fn a_subscriber_is_as_small_as_documented() {
    assert_eq!(size_of::<Subscriber>(), 40);
}

#[test]
fn event_published_while_detached_is_kept_for_the_next_connection() {
    let (stream, limits) = (Stream::new(), limits(64));
    let mut first = stream.attach(None, LagPolicy::Signal);
    publish(&stream, "a", &limits);
    assert_eq!(drain(&mut first, &stream).0, [1]);
    first.detach(&stream);
    publish(&stream, "b", &limits);
    let mut second = stream.attach(None, LagPolicy::Signal);
    assert_eq!(drain(&mut second, &stream).0, [2], "and what was delivered is not repeated");
}

#[test]
fn resume_starts_strictly_after_the_given_position() {
    let (stream, limits) = (Stream::new(), limits(64));
    (0..20).for_each(|_| assert!(publish(&stream, "x", &limits) > 0));
    for after in 0..=20 {
        let mut subscriber = stream.attach(Some(after), LagPolicy::Signal);
        assert!(drain(&mut subscriber, &stream).0.into_iter().eq(after + 1..=20));
    }
}

#[test]
fn a_later_connection_supersedes_and_the_old_end_changes_nothing() {
    let (stream, limits) = (Stream::new(), limits(64));
    let mut old = stream.attach(None, LagPolicy::Signal);
    let mut new = stream.attach(None, LagPolicy::Signal);
    publish(&stream, "x", &limits);
    assert!(matches!(old.try_next(&stream), Some(Delivery::Superseded)));
    old.detach(&stream);
    assert!(stream.terms().is_attached());
    assert_eq!(drain(&mut new, &stream).0, [1]);
}

#[test]
fn hanging_up_delivers_what_is_there_first() {
    let (stream, limits) = (Stream::new(), limits(64));
    let mut subscriber = stream.attach(None, LagPolicy::Signal);
    publish(&stream, "x", &limits);
    assert!(stream.hang_up());
    let (positions, _, end) = drain(&mut subscriber, &stream);
    assert_eq!(positions, [1]);
    assert!(matches!(end, Some(Delivery::HungUp)));
    subscriber.detach(&stream);
    assert!(!stream.hang_up(), "nobody is connected any more");
}

#[test]
fn lag_is_told_once_or_ends_the_connection() {
    let (stream, limits) = (Stream::new(), limits(4));
    let mut signalled = stream.attach(None, LagPolicy::Signal);
    (0..100).for_each(|_| assert!(publish(&stream, "x", &limits) > 0));
    let (positions, missed, end) = drain(&mut signalled, &stream);
    assert_eq!(positions.len() as u64 + missed, 100);
    assert!(end.is_none());

    let mut ended = stream.attach(None, LagPolicy::End);
    publish(&stream, "x", &limits);
    assert_eq!(drain(&mut ended, &stream).0, [101]);
    (0..100).for_each(|_| assert!(publish(&stream, "x", &limits) > 0));
    // What stands in the chunk under the cursor is read first; the gap behind it ends the connection.
    let (positions, _, end) = drain(&mut ended, &stream);
    assert!(matches!(end, Some(Delivery::Lagged { ends: true, .. })), "{positions:?} {end:?}");
    let mut resumed = stream.attach(Some(101), LagPolicy::End);
    let (positions, missed, end) = drain(&mut resumed, &stream);
    assert_eq!(positions.len() as u64 + missed, 100, "the resumed connection is told");
    assert!(end.is_none());
}

#[test]
fn a_publisher_that_asks_waits_for_an_attached_reader_and_never_for_an_absent_one() {
    let (stream, limits) = (Stream::new(), limits(64));
    let (mut waiter, mut context) = (Waiter::new(), Context::from_waker(Waker::noop()));
    let mut subscriber = stream.attach(None, LagPolicy::Wait);
    for _ in 0..4 {
        assert!(stream.poll_room(&mut waiter, 4, &mut context).is_ready());
        publish(&stream, "x", &limits);
    }
    assert!(stream.poll_room(&mut waiter, 4, &mut context).is_pending());
    assert_eq!(drain(&mut subscriber, &stream).0.len(), 4);
    assert!(stream.poll_room(&mut waiter, 4, &mut context).is_ready());
    (0..4).for_each(|_| assert!(publish(&stream, "x", &limits) > 0));
    assert!(stream.poll_room(&mut waiter, 4, &mut context).is_pending());
    subscriber.detach(&stream);
    assert!(stream.poll_room(&mut waiter, 4, &mut context).is_ready());
}

#[test]
fn finishing_wakes_and_ends_after_the_last_frame() {
    let (stream, limits) = (Stream::new(), limits(64));
    let mut subscriber = stream.attach(None, LagPolicy::Signal);
    assert!(subscriber.poll_next(&stream, &mut Context::from_waker(Waker::noop())).is_pending());
    let last = Frame::shared(|out| out.extend_from_slice(b"result"));
    stream.publish_last(last, Moment(0), &limits).unwrap();
    let Some(Delivery::Frames(batch)) = subscriber.try_next(&stream) else { panic!("the result is there") };
    assert!(batch.is_last());
    assert_eq!((batch.positions(), batch.get(0).unwrap().data()), (1..2, &b"result"[..]));
    assert!(matches!(subscriber.try_next(&stream), Some(Delivery::Ended)));
}

/// Connections come and go while two publishers publish: every event reaches exactly one of them, in order.
#[test]
fn each_event_reaches_exactly_one_of_competing_connections() {
    let (stream, limits, done) = (Stream::new(), limits(1 << 20), AtomicBool::new(false));
    const EVENTS: u64 = 20_000;
    let mut all: Vec<u64> = thread::scope(|scope| {
        let connections: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    loop {
                        let finished = done.load(Ordering::SeqCst);
                        let mut subscriber = stream.attach(None, LagPolicy::Signal);
                        for _ in 0..50 {
                            match subscriber.try_next(&stream) {
                                Some(Delivery::Frames(batch)) => seen.extend(batch.positions()),
                                Some(Delivery::Superseded) => break,
                                None => thread::yield_now(),
                                other => panic!("{other:?}"),
                            }
                        }
                        subscriber.detach(&stream);
                        if finished && stream.terms().delivered() == 2 * EVENTS {
                            return seen;
                        }
                    }
                })
            })
            .collect();
        let publishers: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| (0..EVENTS).for_each(|_| assert!(publish(&stream, "x", &limits) > 0))))
            .collect();
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        done.store(true, Ordering::SeqCst);
        connections.into_iter().flat_map(|connection| connection.join().unwrap()).collect()
    });
    all.sort_unstable();
    assert!(all.into_iter().eq(1..=2 * EVENTS));
}

proptest! {
    /// Any sequence of publishing, connecting, resuming and reading: what a connection gets is what a list says.
    #[test]
    fn any_sequence_agrees_with_a_list(steps in proptest::collection::vec((0..8u8, 0..1000u64), 1..120)) {
        let (stream, limits) = (Stream::new(), limits(10_000));
        let (mut published, mut expected_next) = (0, 1);
        let mut subscriber: Option<Subscriber> = None;
        for (action, number) in steps {
            match action {
                0..=3 => { published = publish(&stream, "x", &limits); }
                4 => {
                    subscriber = Some(stream.attach(None, LagPolicy::Signal));
                }
                5 => {
                    let after = number % (published + 1);
                    subscriber = Some(stream.attach(Some(after), LagPolicy::Signal));
                    expected_next = after + 1;
                }
                6 => if let Some(mut gone) = subscriber.take() { gone.detach(&stream) },
                _ => if let Some(subscriber) = &mut subscriber {
                    let (positions, missed, end) = drain(subscriber, &stream);
                    prop_assert!(positions.into_iter().eq(expected_next..=published));
                    prop_assert!(missed == 0 && end.is_none());
                    expected_next = published + 1;
                },
            }
        }
    }
}
