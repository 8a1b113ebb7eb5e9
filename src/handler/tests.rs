//! Requests answered by handlers, in a session and without one.

use core::future::Future;
use core::pin::{Pin, pin};
use core::task::{Context as TaskContext, Poll, Waker};

use serde_json::json;

use super::*;
use crate::protocol::{ProtocolVersion, RequestId};
use crate::request::{AskError, Environment, PublishError, RequestStream};
use crate::ring::Limits;
use crate::session::{Sessions, Settings};
use crate::stream::{Clock, Delivery, LagPolicy};

const VERSION: ProtocolVersion = ProtocolVersion::LATEST;

fn in_session() -> (Sessions, Arc<RequestStream>, Context) {
    let sessions = Sessions::new(Settings::default(), Clock::default());
    let session = sessions.create(None);
    let request = session.open_request(RequestId::from(7), Some(RequestId::from(3)), VERSION).unwrap();
    (sessions, request.clone(), Context::new(session, request))
}

fn alone() -> (Arc<Environment>, Arc<RequestStream>, Context) {
    let environment = Arc::new(Environment::new(Limits::default(), Clock::default()));
    let request = Arc::new(RequestStream::alone(RequestId::from(7), Some(RequestId::from(3)), VERSION));
    (environment.clone(), request.clone(), Context::alone(environment, request))
}

/// What is on the stream of a request, from its beginning.
fn published(request: &RequestStream) -> Vec<String> {
    let (mut subscriber, mut data) = (request.stream().attach(Some(0), LagPolicy::Signal), Vec::new());
    while let Some(Delivery::Frames(frames)) = subscriber.try_next(request.stream()) {
        data.extend(frames.iter().map(|frame| String::from_utf8(frame.data().to_vec()).unwrap()));
    }
    subscriber.detach(request.stream());
    data
}

fn poll<F: Future>(work: Pin<&mut F>) -> Poll<F::Output> {
    work.poll(&mut TaskContext::from_waker(Waker::noop()))
}

/// Answers `quick` at once, and any other method only when it is taken back.
struct Script;

impl Handler for Script {
    async fn request(&self, request: Request, context: Context) {
        let begun = context.notify("notifications/message", &json!({"level": "info", "data": "begun"}));
        assert_eq!(begun, Ok(()));
        assert_eq!(context.progress(1.0, Some(2.0), None), Ok(()));
        let answer = context.ask("roots/list", &json!({})).await;
        let refused = answer.map_or_else(|error| error.to_string(), |answer| answer.to_string());
        if request.method() == "quick" {
            let has_session = context.session().is_some();
            return context.respond(&json!({ "asked": refused, "has_session": has_session }));
        }
        context.cancelled().await;
        assert!(context.is_cancelled());
        assert_eq!(context.progress(2.0, None, None), Err(PublishError::Closed));
        assert_eq!(context.try_respond_with(|out| out.extend_from_slice(b"{}")), Err(PublishError::Closed));
    }
}

fn request(method: &str) -> Request {
    let body = json!({ "jsonrpc": "2.0", "id": 7, "method": method });
    match Incoming::parse(body.to_string().into()) {
        Ok(Incoming::Request { request, .. }) => request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_handler_answers_a_request_that_has_no_session() {
    let (environment, stream, context) = alone();
    assert!(poll(pin!(Script.request(request("quick"), context))).is_ready());
    let told = published(&stream);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].contains("begun"), "{}", told[0]);
    assert!(told[1].contains(r#""progressToken":3,"progress":1.0,"total":2.0"#), "{}", told[1]);
    let asked = AskError::NoSession.to_string();
    let result = json!({ "jsonrpc": "2.0", "id": 7, "result": { "asked": asked, "has_session": false } });
    assert_eq!(serde_json::from_str::<serde_json::Value>(&told[2]).unwrap(), result);
    assert!(stream.is_finished());
    assert_eq!((environment.traffic().published(), Arc::strong_count(&environment)), (3, 1));
    assert_eq!(Arc::strong_count(&stream), 1, "nothing else holds it");
}

#[test]
fn a_handler_learns_that_a_request_without_a_session_was_taken_back() {
    let (environment, stream, context) = alone();
    let mut work = pin!(Script.request(request("slow"), context));
    assert!(poll(work.as_mut()).is_pending());
    stream.cancel(&*environment);
    assert!(poll(work.as_mut()).is_ready());
    assert_eq!(published(&stream).len(), 2, "and no response");
}

#[test]
fn a_connection_that_cannot_be_resumed_is_not_closed_early() {
    let ((_environment, stream, context), (_sessions, resumable, other)) = (alone(), in_session());
    let _connected = [&stream, &resumable].map(|stream| stream.stream().attach(None, LagPolicy::Signal));
    assert!(!context.close_connection() && other.close_connection());
}

#[test]
fn a_dropped_context_is_an_error_and_not_silence() {
    let ((_sessions, one, context), (_environment, other, alone)) = (in_session(), alone());
    drop((context, alone));
    for text in [one, other].map(|stream| published(&stream).pop().unwrap()) {
        assert!(text.contains(r#""id":7"#) && text.contains("-32603"), "{text}");
    }
}

#[test]
fn results_and_errors_carry_the_id() {
    let (_sessions, stream, context) = in_session();
    let outlet = context.outlet().clone();
    assert!(outlet.session().is_some());
    context.respond(&json!({"a": 1}));
    assert_eq!(published(&stream), [r#"{"jsonrpc":"2.0","id":7,"result":{"a":1}}"#]);
    assert_eq!(outlet.progress(1.0, None, None), Err(PublishError::Closed), "the request is over");
}

#[test]
fn a_value_that_cannot_be_serialised_is_told_from_a_client_that_left() {
    let unserialisable = std::collections::HashMap::from([(vec![1], 1)]);
    let (_sessions, _stream, context) = in_session();
    assert_eq!(context.notify("notifications/message", &unserialisable), Err(PublishError::Unserialisable));
    let asked = poll(pin!(context.ask("roots/list", &unserialisable)));
    assert!(matches!(asked, Poll::Ready(Err(AskError::Unserialisable(_)))), "{asked:?}");
}
