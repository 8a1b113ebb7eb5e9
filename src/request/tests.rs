//! Requests that stand alone, and what keepers are told.

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use serde_json::value::RawValue;

use super::*;
use crate::protocol::{Outcome, ProtocolVersion, RequestId};
use crate::ring::Limits;
use crate::sse::StreamName;
use crate::stream::{Clock, Delivery, LagPolicy, Stream, Subscriber};
use crate::sync::{Arc, Mutex, lock};

const VERSION: ProtocolVersion = ProtocolVersion::LATEST;

fn environment() -> Arc<Environment> {
    let limits = Limits { max_weight: 1000, ..Limits::default() };
    Arc::new(Environment::new(limits, Clock::default()))
}

fn alone() -> RequestStream {
    RequestStream::alone(RequestId::from(7), None, VERSION)
}

fn write(text: &str) -> impl FnOnce(&mut Vec<u8>) {
    move |out| out.extend_from_slice(text.as_bytes())
}

/// What a connection is given until there is nothing more, and whether its stream has ended.
fn read(stream: &Stream, subscriber: &mut Subscriber) -> (Vec<String>, bool) {
    let mut data = Vec::new();
    loop {
        match subscriber.try_next(stream) {
            Some(Delivery::Frames(frames)) => {
                assert!(frames.iter().all(|frame| !frame.is_whole()), "an event without an ID");
                data.extend(frames.iter().map(|frame| String::from_utf8(frame.data().to_vec()).unwrap()));
                if frames.is_last() {
                    return (data, true);
                }
            }
            Some(Delivery::Ended) => return (data, true),
            None => return (data, false),
            other => panic!("{other:?}"),
        }
    }
}

/// Notes what it is told.
struct Notes(Arc<Environment>, Mutex<Vec<u32>>);

impl Keeper for Notes {
    fn environment(&self) -> &Environment {
        &self.0
    }

    fn agree(&self, _: ProtocolVersion) {}

    fn settle(&self, request: &RequestStream) -> Vec<Ask> {
        lock(&self.1).push(request.number());
        Vec::new()
    }
}

#[test]
fn a_request_is_as_small_as_documented() {
    assert_eq!(size_of::<RequestStream>(), 104);
}

#[test]
fn a_request_alone_is_answered_once() {
    let (environment, request) = (environment(), alone());
    let mut connection = request.stream().attach(None, LagPolicy::Signal);
    request.publish(&environment, write("progress")).unwrap();
    assert_eq!(read(request.stream(), &mut connection), (vec!["progress".to_owned()], false));
    request.respond(&*environment, write("response")).unwrap();
    assert_eq!(read(request.stream(), &mut connection), (vec!["response".to_owned()], true));
    assert!(request.is_finished() && !request.is_cancelled() && !request.is_resumable());
    assert_eq!(request.publish(&environment, write("late")), Err(PublishError::Closed));
    assert_eq!(request.respond(&*environment, write("again")), Err(PublishError::Closed));
    assert_eq!((environment.traffic().published(), Arc::strong_count(&environment)), (2, 1));
}

#[test]
fn a_response_that_is_too_large_is_an_error() {
    let (environment, request) = (environment(), alone());
    let mut connection = request.stream().attach(None, LagPolicy::Signal);
    let large = |out: &mut Vec<u8>| out.resize(out.len() + 1000, b'x');
    let too_large = |result| matches!(result, Err(PublishError::TooLarge { limit: 1000, .. }));
    assert!(too_large(request.publish(&environment, large)));
    assert!(too_large(request.respond(&*environment, large)));
    let (data, ended) = read(request.stream(), &mut connection);
    assert!(ended && data.len() == 1 && data[0].contains(r#""id":7"#), "{data:?}");
    assert_eq!(environment.traffic().too_large(), 2);
}

#[test]
fn messages_to_a_client_that_takes_the_response_alone_are_counted_and_dropped() {
    let (environment, request) = (environment(), alone());
    request.want_response_only();
    let mut connection = request.stream().attach(None, LagPolicy::Signal);
    request.publish(&environment, write("progress")).unwrap();
    request.respond(&*environment, write("response")).unwrap();
    assert_eq!(read(request.stream(), &mut connection), (vec!["response".to_owned()], true));
    assert_eq!(environment.traffic().not_accepted(), 1);
}

#[test]
fn cancelling_ends_the_stream_and_wakes_who_works_on_it() {
    let (environment, request) = (environment(), alone());
    let mut connection = request.stream().attach(None, LagPolicy::Signal);
    let (mut cancelled, mut context) = (pin!(request.cancelled()), Context::from_waker(Waker::noop()));
    assert!(cancelled.as_mut().poll(&mut context).is_pending());
    request.cancel(&*environment);
    assert!(cancelled.poll(&mut context).is_ready() && request.is_cancelled() && request.is_finished());
    assert_eq!(request.respond(&*environment, write("late")), Err(PublishError::Closed));
    assert_eq!(read(request.stream(), &mut connection), (Vec::new(), true));
}

#[test]
fn the_keeper_is_told_of_each_request_once() {
    let keeper = Notes(environment(), Mutex::default());
    let name = |stream| StreamName { tag: 1, stream };
    let batch = Arc::new(BatchStream::new(Arc::new(RequestStream::carrier(name(1), VERSION))));
    let open = |stream| {
        batch.enter();
        RequestStream::new(name(stream), RequestId::from(1), None, VERSION).in_batch(batch.clone())
    };
    let (first, second) = (open(2), open(3));
    batch.leave(&keeper);
    assert!(lock(&keeper.1).is_empty());
    second.respond(&keeper, write("second")).unwrap();
    assert_eq!(second.respond(&keeper, write("again")), Err(PublishError::Closed));
    first.cancel(&keeper);
    assert_eq!(first.respond(&keeper, write("late")), Err(PublishError::Closed));
    assert_eq!(*lock(&keeper.1), [3, 2, 1], "the batch ends behind its last request");
    assert!(batch.carrier().is_finished() && batch.carrier().stream().tail() == 2);
}

#[test]
fn a_question_is_answered_or_given_up() {
    let (mut asks, mut context) = (Asks::default(), Context::from_waker(Waker::noop()));
    let mut ask = |id, stream| {
        let (ask, answered) = Ask::new(id, stream);
        asks.insert(ask);
        answered
    };
    let (mut one, mut other, abandoned) = (ask(1, 5), ask(2, 6), ask(3, 5));
    drop(abandoned);
    asks.forget_abandoned();
    assert!(asks.take(3).is_none() && asks.len() == 2);
    let result = RawValue::from_string("{}".into()).unwrap();
    assert!(asks.take(1).unwrap().answer(Outcome::Result(&result)) && asks.take(1).is_none());
    assert!(matches!(pin!(&mut one).poll(&mut context), Poll::Ready(Ok(Ok(_)))));
    assert!(asks.take_of(5).is_empty());
    assert!(pin!(&mut other).poll(&mut context).is_pending());
    drop(asks.take_of(6));
    assert!(matches!(pin!(&mut other).poll(&mut context), Poll::Ready(Err(_))) && asks.is_empty());
}
