//! Behaviour of sessions without a network.

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use bytes::Buf;
use serde_json::value::RawValue;

use super::*;
use crate::protocol::{Outcome, ProtocolVersion, Refusal, RequestId};
use crate::stream::{Clock, Moment};
use crate::sync::Arc;

const VERSION: ProtocolVersion = ProtocolVersion::V2025_11_25;

fn sessions() -> (Sessions, Clock) {
    let clock = Clock::default();
    (Sessions::new(Settings::default(), clock.clone()), clock)
}

fn session(sessions: &Sessions) -> Arc<Session> {
    let session = sessions.create(0);
    session.agree(VERSION);
    session.hear();
    session
}

/// Everything a connection writes until it has nothing more, and whether it ended.
fn written(connection: &mut Connection) -> (String, bool) {
    let (mut out, mut context) = (Vec::new(), Context::from_waker(Waker::noop()));
    loop {
        match connection.poll_next(&mut context) {
            Poll::Ready(Some(piece)) => {
                let before = out.len();
                piece.append_to(&mut out);
                assert_eq!(out.len(), before + piece.wire_len());
                let mut piece = piece.into_buf();
                assert_eq!(piece.copy_to_bytes(piece.remaining()), out[before..]);
            }
            Poll::Ready(None) => return (String::from_utf8(out).unwrap(), true),
            Poll::Pending => return (String::from_utf8(out).unwrap(), false),
        }
    }
}

fn ids(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_prefix("id: ")).map(str::to_owned).collect()
}

#[test]
fn a_session_is_small() {
    // With its two counts it fits an allocation of 160 bytes.
    assert!(size_of::<Session>() + 16 <= 160, "{}", size_of::<Session>());
}

#[test]
fn a_session_is_found_until_it_is_terminated() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    assert!(sessions.find(session.id(), 0).is_ok());
    assert_eq!(sessions.find(session.id(), 1).unwrap_err(), Refusal::UnknownSession);
    assert!(sessions.terminate(&session));
    assert!(!sessions.terminate(&session));
    assert_eq!(sessions.find(session.id(), 0).unwrap_err(), Refusal::UnknownSession);
    assert!(sessions.is_empty());
}

#[test]
fn a_session_is_there_for_its_principal_alone() {
    let (sessions, clock) = sessions();
    let (ada, bob) = (Principal::new("issuer", "ada"), Principal::new("issuer", "bob"));
    let (of_ada, of_bob) = (sessions.principals().hold(&ada), sessions.principals().hold(&bob));
    let session = sessions.create(of_ada.clone());
    assert_eq!(session.belongs_to(), Some(&ada));
    assert!(sessions.find(session.id(), of_ada.number()).is_ok());
    for other in [0, of_bob.number()] {
        assert_eq!(sessions.find(session.id(), other).unwrap_err(), Refusal::UnknownSession);
    }
    assert!(sessions.find_any(session.id()).is_some());
    // The number stays while the session does, whoever else lets go of it.
    let number = of_ada.number();
    drop(of_ada);
    assert_eq!(sessions.principals().hold(&ada).number(), number);
    drop(of_bob);
    clock.advance(Moment(Principals::LINGER_MS));
    sessions.principals().forget();
    assert_eq!(sessions.principals().len(), 1);
}

#[test]
fn a_response_is_fetched_after_the_connection_was_lost() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    let request = session.open_request(RequestId::from(1), None, VERSION).unwrap();
    let mut first = session.connect_request(request.clone());
    let (text, _) = written(&mut first);
    let primed = ids(&text).pop().unwrap();
    drop(first);
    session.publish_on(&request, |out| out.extend_from_slice(b"progress")).unwrap();
    session.respond(&request, |out| out.extend_from_slice(b"result")).unwrap();
    let mut resumed = session.connect(Some(&primed)).unwrap();
    let (text, ended) = written(&mut resumed);
    assert!(ended && text.contains("data: progress\n") && text.contains("data: result\n"), "{text}");
    let last = ids(&text).pop().unwrap();
    drop(resumed);
    let (text, ended) = written(&mut session.connect(Some(&last)).unwrap());
    assert!(ended && !text.contains("result"), "nothing twice: {text}");
}

#[test]
fn an_event_id_is_refused_unless_this_session_gave_it_out() {
    let (sessions, _) = sessions();
    let (one, other) = (session(&sessions), session(&sessions));
    let id = ids(&written(&mut one.connect(None).unwrap()).0).pop().unwrap();
    assert!(one.connect(Some(&id)).is_ok());
    assert_eq!(other.connect(Some(&id)).unwrap_err(), Refusal::ForeignEventId);
    assert_eq!(one.connect(Some("nonsense")).unwrap_err(), Refusal::MalformedEventId);
    let name = one.name();
    let future = crate::sse::EventId::event(name, 1).to_string();
    assert_eq!(one.connect(Some(&future)).unwrap_err(), Refusal::FutureEventId);
    let request = one.open_request(RequestId::from(1), None, VERSION).unwrap();
    let gone = crate::sse::EventId::event(request.name(), 0).to_string();
    one.forget_request(request.name().stream);
    assert_eq!(one.connect(Some(&gone)).unwrap_err(), Refusal::UnknownStream);
    let never = crate::sse::EventId::event(crate::sse::StreamName { stream: 99, ..name }, 0).to_string();
    assert_eq!(one.connect(Some(&never)).unwrap_err(), Refusal::FutureEventId);
}

#[test]
fn the_result_of_initialize_agrees_on_a_version_and_an_error_does_not() {
    let (sessions, _) = sessions();
    for (response, agreed) in [
        (
            r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18"}}"#,
            Some(ProtocolVersion::V2025_06_18),
        ),
        (r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"1999-01-01"}}"#, None),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no"}}"#, None),
    ] {
        let session = sessions.create(0);
        let request = session.open_initialize(RequestId::from(1), None, VERSION).unwrap();
        session.respond(&request, |out| out.extend_from_slice(response.as_bytes())).unwrap();
        assert_eq!(session.version(), agreed);
    }
}

#[test]
fn a_request_id_is_used_once_at_a_time_and_requests_are_bounded() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    let first = session.open_request(RequestId::from(1), None, VERSION).unwrap();
    assert_eq!(
        session.open_request(RequestId::from(1), None, VERSION).unwrap_err(),
        Refusal::DuplicateRequestId
    );
    session.respond(&first, |out| out.extend_from_slice(b"done")).unwrap();
    assert!(session.open_request(RequestId::from(1), None, VERSION).is_ok());
    for id in 2..=256 {
        session.open_request(RequestId::from(id), None, VERSION).unwrap();
    }
    let refused = session.open_request(RequestId::from(257), None, VERSION).unwrap_err();
    assert_eq!(refused, Refusal::TooManyRequests { limit: 256 });
}

#[test]
fn a_question_is_answered_or_closed() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    let request = session.open_request(RequestId::from(1), None, VERSION).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let mut answered = pin!(
        session
            .ask(Some(&request), |out, id| { crate::protocol::write_request(out, id, "roots/list", None) })
    );
    assert!(answered.as_mut().poll(&mut context).is_pending());
    let (text, _) = written(&mut session.connect_request(request.clone()));
    assert!(text.contains(r#""id":1"#), "{text}");
    let result = RawValue::from_string(r#"{"roots":[]}"#.into()).unwrap();
    assert!(session.answer(&RequestId::from(1), Outcome::Result(&result)));
    assert!(!session.answer(&RequestId::from(1), Outcome::Result(&result)), "only once");
    let Poll::Ready(Ok(answer)) = answered.poll(&mut context) else { panic!("it is answered") };
    assert_eq!(answer.get(), result.get());

    let closed = session.ask(Some(&request), |out, id| crate::protocol::write_request(out, id, "ping", None));
    session.cancel(&RequestId::from(1));
    assert!(matches!(pin!(closed).poll(&mut context), Poll::Ready(Err(AskError::Closed))));
    assert_eq!(session.summary(), Summary { in_flight: 0, retained: 1, asks: 0 });
}

#[test]
fn cancelling_ends_the_stream_without_a_response() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    let request = session.open_request(RequestId::from(1), None, VERSION).unwrap();
    let mut connection = session.connect_request(request.clone());
    assert!(!written(&mut connection).1);
    assert!(session.cancel(&RequestId::from(1)));
    assert!(request.is_cancelled());
    assert!(session.respond(&request, |out| out.extend_from_slice(b"late")).is_err());
    let (text, ended) = written(&mut connection);
    assert!(ended && !text.contains("late"));
    assert!(!session.cancel(&RequestId::from(1)));
}

#[test]
fn terminating_ends_every_stream_and_cancels_requests() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    let request = session.open_request(RequestId::from(1), None, VERSION).unwrap();
    let (mut on_get, mut on_post) =
        (session.connect(None).unwrap(), session.connect_request(request.clone()));
    assert!(!written(&mut on_get).1 && !written(&mut on_post).1);
    sessions.terminate(&session);
    assert!(written(&mut on_get).1 && written(&mut on_post).1);
    assert!(request.is_cancelled());
    assert!(session.publish(|out| out.extend_from_slice(b"x")).is_err());
    assert_eq!(session.open_request(RequestId::from(2), None, VERSION).unwrap_err(), Refusal::UnknownSession);
}

#[test]
fn idle_and_old_sessions_expire_and_working_ones_do_not() {
    let (sessions, clock) = sessions();
    let (idle, working, touched) = (session(&sessions), session(&sessions), session(&sessions));
    let request = working.open_request(RequestId::from(1), None, VERSION).unwrap();
    let mut ended = Vec::new();
    let idle_ms = sessions.settings().idle_ms;
    clock.advance(Moment(idle_ms - 1));
    touched.touch();
    sessions.sweep(|session| ended.push(session.id()));
    assert_eq!((sessions.len(), ended.len()), (3, 0));
    clock.advance(Moment(idle_ms));
    sessions.sweep(|session| ended.push(session.id()));
    assert_eq!(ended, [idle.id()]);
    assert!(!working.is_closed() && !touched.is_closed());
    working.respond(&request, |out| out.extend_from_slice(b"done")).unwrap();
    clock.advance(Moment(2 * idle_ms + 1));
    sessions.sweep(|session| ended.push(session.id()));
    assert_eq!(ended.len(), 3);
    let old = session(&sessions);
    clock.advance(Moment(clock.now().0 + sessions.settings().absolute_ms));
    old.touch();
    sessions.sweep(|session| ended.push(session.id()));
    assert!(old.is_closed() && sessions.is_empty());
}

#[test]
fn a_client_that_never_comes_back_has_no_session_for_long() {
    let (sessions, clock) = sessions();
    let init_ms = sessions.settings().init_ms;
    let (silent, asked, heard) = (sessions.create(0), sessions.create(0), sessions.create(0));
    // What the answer to `initialize` does: neither a request in flight nor a connection is a sign of life.
    let request = asked.open_initialize(RequestId::from(1), None, VERSION).unwrap();
    let mut connection = asked.connect_request(request);
    written(&mut connection);
    silent.agree(VERSION);
    heard.agree(VERSION);
    clock.advance(Moment(init_ms - 1));
    [&silent, &asked, &heard].into_iter().for_each(|session| session.touch());
    heard.hear();
    assert_eq!(heard.version(), Some(VERSION));
    let mut ended = 0;
    sessions.sweep(|_| ended += 1);
    assert_eq!(ended, 0);
    clock.advance(Moment(init_ms));
    sessions.sweep(|_| ended += 1);
    assert!(silent.is_closed() && asked.is_closed() && !heard.is_closed());
    assert!(written(&mut connection).1, "its connection ends");
    assert_eq!((ended, sessions.counters().expired_uninitialised()), (2, 2));
}

/// A sweep looks at sessions some at a time, and once asked the map's iterator again behind its end, which began anew.
#[test]
fn a_sweep_ends_however_many_sessions_there_are() {
    for count in [0, 1, 31, 32, 33, 64, 65] {
        let (sessions, clock) = sessions();
        let all: Vec<_> = (0..count).map(|_| session(&sessions)).collect();
        let mut ended = 0;
        sessions.sweep(|_| ended += 1);
        assert_eq!((ended, sessions.len()), (0, count));
        clock.advance(Moment(sessions.settings().idle_ms));
        sessions.sweep(|_| ended += 1);
        assert_eq!((ended, sessions.len()), (count, 0));
        assert!(all.iter().all(|session| session.is_closed()));
    }
}

#[test]
fn times_change_while_the_process_runs() {
    let (sessions, clock) = sessions();
    let session = session(&sessions);
    clock.advance(Moment(1000));
    let shorter = |idle_ms| Settings { idle_ms, ..sessions.settings().clone() };
    sessions.reconfigure(shorter(1001));
    sessions.sweep(|_| panic!("it has a millisecond left"));
    sessions.reconfigure(shorter(1000));
    sessions.sweep(drop);
    assert!(session.is_closed());
    assert_eq!(sessions.counters().expired_idle(), 1);
}

#[test]
fn the_end_of_a_connection_is_no_sign_of_life() {
    let (sessions, clock) = sessions();
    let session = session(&sessions);
    let idle_ms = sessions.settings().idle_ms;
    let mut connection = session.connect(None).unwrap();
    written(&mut connection);
    clock.advance(Moment(idle_ms - 1));
    drop(connection);
    sessions.sweep(|_| panic!("it has a millisecond left"));
    clock.advance(Moment(idle_ms));
    sessions.sweep(drop);
    assert!(session.is_closed());
}

#[test]
fn responses_go_when_their_time_has_come() {
    let (sessions, clock) = sessions();
    let session = session(&sessions);
    let (lost, fetched) = (
        session.open_request(RequestId::from(1), None, VERSION).unwrap(),
        session.open_request(RequestId::from(2), None, VERSION).unwrap(),
    );
    let mut connection = session.connect_request(fetched.clone());
    session.respond(&lost, |out| out.extend_from_slice(b"lost")).unwrap();
    session.respond(&fetched, |out| out.extend_from_slice(b"fetched")).unwrap();
    assert!(written(&mut connection).1);
    drop(connection);
    let Settings { delivered_ttl_ms, response_ttl_ms, .. } = *sessions.settings();
    let retained = |at| {
        clock.advance(Moment(at));
        sessions.sweep(|_| {});
        session.summary().retained
    };
    assert_eq!(retained(delivered_ttl_ms - 1), 2);
    assert_eq!(retained(delivered_ttl_ms), 1);
    assert_eq!(retained(response_ttl_ms - 1), 1);
    assert_eq!(retained(response_ttl_ms), 0);
}

#[test]
fn a_response_that_comes_alone_is_taken_whole_and_leaves_nothing() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    let request = session.open_request(RequestId::from(1), None, VERSION).unwrap();
    let mut connection = session.connect_request(request.clone());
    assert!(connection.take_answer().is_none());
    session.respond(&request, |out| out.extend_from_slice(b"{}")).unwrap();
    assert_eq!(connection.take_answer().as_deref(), Some(&b"{}"[..]));
    assert_eq!(session.summary().retained, 0);

    let request = session.open_request(RequestId::from(2), None, VERSION).unwrap();
    let mut connection = session.connect_request(request.clone());
    session.publish_on(&request, |out| out.extend_from_slice(b"progress")).unwrap();
    session.respond(&request, |out| out.extend_from_slice(b"{}")).unwrap();
    assert!(connection.take_answer().is_none(), "it does not come alone");
    assert!(written(&mut connection).0.contains("progress"));
}

#[test]
fn a_response_nobody_is_connected_for_is_kept_whichever_comes_first() {
    let (sessions, clock) = sessions();
    let session = session(&sessions);
    for (id, drop_first) in [(1, true), (2, false)] {
        let request = session.open_request(RequestId::from(id), None, VERSION).unwrap();
        let connection = session.connect_request(request.clone());
        let respond = || session.respond(&request, |out| out.extend_from_slice(b"{}")).map(drop).unwrap();
        if drop_first {
            drop(connection);
            respond();
        } else {
            respond();
            drop(connection);
        }
        assert_eq!(session.summary().retained, 1);
        clock.advance(Moment(clock.now().0 + sessions.settings().response_ttl_ms));
        session.touch();
        sessions.sweep(|_| {});
        assert_eq!(session.summary().retained, 0);
    }
}

#[test]
fn a_message_to_all_is_serialised_once_and_reaches_each() {
    let (sessions, _) = sessions();
    let (attached, detached) = (session(&sessions), session(&sessions));
    let mut connection = attached.connect(None).unwrap();
    let mut serialised = 0;
    let reach = sessions.publish(|out| {
        serialised += 1;
        out.extend_from_slice(b"news");
    });
    assert_eq!((serialised, reach), (1, Ok(Reach { sessions: 2, delivered: 1, retained: 1 })));
    assert!(written(&mut connection).0.contains("data: news\n"));
    assert!(written(&mut detached.connect(None).unwrap()).0.contains("data: news\n"));
}

#[test]
fn what_is_larger_than_a_stream_may_retain_is_refused() {
    let mut settings = Settings::default();
    (settings.standalone.max_weight, settings.request.max_weight) = (1000, 2000);
    let sessions = Sessions::new(settings, Clock::default());
    let session = session(&sessions);
    let mut listening = session.connect(None).unwrap();
    let fill = |count: usize| move |out: &mut Vec<u8>| out.resize(out.len() + count, b'x');
    let bytes = 1001;
    assert_eq!(session.publish(fill(bytes - 55)), Err(PublishError::TooLarge { bytes, limit: 1000 }));
    assert_eq!(sessions.publish(fill(bytes - 55)), Err(PublishError::TooLarge { bytes, limit: 1000 }));
    assert!(session.publish(fill(1000 - 55)).is_ok() && sessions.publish(fill(1000 - 55)).is_ok());
    assert_eq!(ids(&written(&mut listening).0).len(), 3, "priming and the two that fit");

    let request = session.open_request(RequestId::from(5), None, VERSION).unwrap();
    let too_large = |result| matches!(result, Err(PublishError::TooLarge { limit: 2000, .. }));
    assert!(too_large(session.publish_on(&request, fill(2000))));
    let mut asked = pin!(session.ask(Some(&request), |out, _| out.resize(out.len() + 2000, b'x')));
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(asked.as_mut().poll(&mut context), Poll::Ready(Err(AskError::TooLarge))));
    assert_eq!(session.summary().asks, 0);
    let mut answer = session.connect_request(request.clone());
    assert!(too_large(session.respond(&request, fill(2000))));
    let error = answer.take_answer().expect("the client is not left alone");
    let error = str::from_utf8(&error).unwrap();
    assert!(error.contains(r#""id":5"#) && error.contains("-32603"), "{error}");
    assert_eq!(sessions.counters().too_large(), 5);
}

#[test]
fn only_versions_that_prime_are_primed() {
    let (sessions, _) = sessions();
    for version in ProtocolVersion::ALL {
        let session = sessions.create(0);
        session.agree(*version);
        let (text, _) = written(&mut session.connect(None).unwrap());
        assert_eq!(text.contains("retry:"), *version >= ProtocolVersion::V2025_11_25, "{version}: {text}");
    }
}
