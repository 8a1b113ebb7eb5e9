//! Behaviour of sessions without a network.

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Wake;

use bytes::Buf;
use serde_json::value::RawValue;

use super::principal::Principals;
use super::responses::Kind;
use super::sweep::Swept;
use super::*;
use crate::protocol::{Outcome, ProtocolVersion, Refusal, RequestId};
use crate::request::{AskError, BatchStream};
use crate::sse::{EventId, Frame, Place, StreamName};
use crate::stream::{Clock, Moment};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering, Weak, lock, try_lock};

const VERSION: ProtocolVersion = ProtocolVersion::V2025_11_25;

fn sessions() -> (Sessions, Clock) {
    let clock = Clock::default();
    (Sessions::new(Settings::default(), clock.clone()), clock)
}

fn session(sessions: &Sessions) -> Arc<Session> {
    let session = sessions.create(None);
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

fn ids(text: &str) -> Vec<EventId> {
    let texts = text.lines().filter_map(|line| line.strip_prefix("id: "));
    texts.map(|text| text.parse().expect("an ID of this server")).collect()
}

#[test]
fn a_client_sent_away_leaves_a_stream_that_is_always_written_to() {
    let sessions = Sessions::new(Settings::default(), Clock::default());
    let session = session(&sessions);
    let publish = || {
        assert!(session.publish(|out| out.extend_from_slice(b"own")).is_ok());
        assert!(sessions.publish(|out| out.extend_from_slice(b"all")).is_ok());
    };
    let mut connection = session.connect(None).unwrap();
    assert!(!written(&mut connection).1);
    publish();
    assert!(connection.send_back());
    let (mut text, mut context) = (Vec::new(), Context::from_waker(Waker::noop()));
    for _ in 0..10 {
        publish();
        match connection.poll_next(&mut context) {
            Poll::Ready(Some(piece)) => piece.append_to(&mut text),
            Poll::Ready(None) => {
                let text = String::from_utf8(text).unwrap();
                assert!(text.contains("data: own") && text.contains("data: all") && text.contains("retry: "));
                return;
            }
            Poll::Pending => panic!("it waits"),
        }
    }
    panic!("it never ends");
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
    assert!(sessions.find(session.id(), None).is_ok());
    assert_eq!(sessions.find(session.id(), PrincipalId::new(1)).unwrap_err(), Refusal::UnknownSession);
    assert!(sessions.terminate(&session));
    assert!(!sessions.terminate(&session));
    assert_eq!(sessions.find(session.id(), None).unwrap_err(), Refusal::UnknownSession);
    assert!(sessions.is_empty());
}

#[test]
fn a_session_is_there_for_its_principal_alone() {
    let (sessions, clock) = sessions();
    let (ada, bob) = (Principal::new("issuer", "ada"), Principal::new("issuer", "bob"));
    let (of_ada, of_bob) = (sessions.principals().hold(&ada), sessions.principals().hold(&bob));
    let session = sessions.create(of_ada.clone());
    assert_eq!(session.principal(), Some(&ada));
    assert!(sessions.find(session.id(), of_ada.id()).is_ok());
    for other in [None, of_bob.id()] {
        assert_eq!(sessions.find(session.id(), other).unwrap_err(), Refusal::UnknownSession);
    }
    assert!(sessions.find_any(session.id()).is_some());
    // The number stays while the session does, whoever else lets go of it.
    let number = of_ada.id();
    drop(of_ada);
    assert_eq!(sessions.principals().hold(&ada).id(), number);
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
    let mut resumed = session.connect(Some(primed)).unwrap();
    let (text, ended) = written(&mut resumed);
    assert!(ended && text.contains("data: progress\n") && text.contains("data: result\n"), "{text}");
    let last = ids(&text).pop().unwrap();
    drop(resumed);
    let (text, ended) = written(&mut session.connect(Some(last)).unwrap());
    assert!(ended && !text.contains("result"), "nothing twice: {text}");
}

#[test]
fn an_event_id_is_refused_unless_this_session_gave_it_out() {
    let (sessions, _) = sessions();
    say_to_all(&sessions, "before they began");
    let (one, other) = (session(&sessions), session(&sessions));
    let id = ids(&written(&mut one.connect(None).unwrap()).0).pop().unwrap();
    assert!(one.connect(Some(id)).is_ok());
    assert_eq!(other.connect(Some(id)).unwrap_err(), Refusal::ForeignEventId);
    let Place::Standalone { lineage, own, broadcast, kind } = id.place else { panic!("{id}") };
    for place in [
        Place::Standalone { lineage, own: own + 1, broadcast, kind },
        Place::Standalone { lineage, own, broadcast: broadcast + 1, kind },
        Place::Standalone { lineage, own, broadcast: broadcast - 1, kind },
        Place::Standalone { lineage: lineage + 2, own, broadcast, kind },
        Place::Standalone { lineage: 0, own, broadcast, kind },
    ] {
        let future = EventId { place, ..id };
        assert_eq!(one.connect(Some(future)).unwrap_err(), Refusal::FutureEventId, "{future}");
    }
    let request = one.open_request(RequestId::from(1), None, VERSION).unwrap();
    let gone = EventId::event(request.name(), 0);
    one.forget_request(request.name().stream);
    assert_eq!(one.connect(Some(gone)).unwrap_err(), Refusal::UnknownStream);
    let never = EventId::event(StreamName { stream: 99, ..request.name() }, 0);
    assert_eq!(one.connect(Some(never)).unwrap_err(), Refusal::FutureEventId);
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
        let session = sessions.create(None);
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

/// Calls a function when it is woken.
struct OnWake<F>(F);

impl<F: Fn() + Send + Sync> Wake for OnWake<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

fn on_wake(wake: impl Fn() + Send + Sync + 'static) -> Waker {
    Waker::from(Arc::new(OnWake(wake)))
}

/// A request whose client's waker panicked stayed in flight, and its session never expired.
#[test]
fn a_waker_that_panics_leaves_no_request_in_flight() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    let panics = on_wake(|| panic!("a waker that panics"));
    let respond = |request: &RequestStream| {
        let _ = session.respond(request, |out| out.extend_from_slice(b"{}"));
    };
    let cancel = |request: &RequestStream| assert!(session.cancel(request.id()));
    let ends: [&dyn Fn(&RequestStream); 2] = [&respond, &cancel];
    for end in ends {
        for in_batch in [false, true] {
            let batch = session.open_batch(VERSION).unwrap();
            let (id, on_batch) = (RequestId::from(1), batch.carrier().clone());
            let (request, carried) = if in_batch {
                (session.open_in_batch(&batch, id, None).unwrap(), on_batch)
            } else {
                let request = session.open_request(id, None, VERSION).unwrap();
                (request.clone(), request)
            };
            session.leave_batch(&batch);
            let mut connection = session.connect_request(carried);
            while connection.poll_next(&mut Context::from_waker(&panics)).is_ready() {}
            assert!(catch_unwind(AssertUnwindSafe(|| end(&request))).is_err());
            assert!(request.is_finished());
            assert_eq!(session.summary().in_flight, 0);
            assert!(written(&mut connection).1);
        }
    }
}

/// They were woken under the lock: one who looked at the session then waited for ever.
#[test]
fn those_who_asked_are_told_of_the_end_of_the_request_under_no_lock() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    let respond = |request: &RequestStream| {
        session.respond(request, |out| out.extend_from_slice(b"{}")).unwrap();
    };
    let respond_late = |request: &RequestStream| {
        // The connection that carried the response ends before the publisher goes on.
        let mut connection = session.connect_request(session.request(request.id()).unwrap());
        let last = Frame::whole(request.name(), |out| out.extend_from_slice(b"{}"));
        request.stream().publish_last(last, session.now(), &session.settings().request).unwrap();
        assert!(written(&mut connection).1);
    };
    let ends: [&dyn Fn(&RequestStream); 2] = [&respond, &respond_late];
    for (id, end) in (1..).zip(ends) {
        let request = session.open_request(RequestId::from(id), None, VERSION).unwrap();
        let mut asked = pin!(session.ask(Some(&request), |out, _| out.extend_from_slice(b"question")));
        let (weak, told) = (Arc::downgrade(&session), Arc::new(Mutex::new(None)));
        let waker = on_wake({
            let told = told.clone();
            move || *lock(&told) = Some(try_lock(&weak.upgrade().unwrap().open).is_some())
        });
        assert!(asked.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        end(&request);
        assert_eq!(*lock(&told), Some(true));
        assert!(matches!(asked.poll(&mut Context::from_waker(&waker)), Poll::Ready(Err(AskError::Closed))));
    }
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
    let idle_ms = sessions.settings().idle_ms;
    clock.advance(Moment(idle_ms - 1));
    touched.touch();
    assert_eq!((sessions.sweep().ended, sessions.len()), (0, 3));
    clock.advance(Moment(idle_ms));
    assert_eq!(sessions.sweep().ended, 1);
    assert!(idle.is_closed());
    assert!(!working.is_closed() && !touched.is_closed());
    working.respond(&request, |out| out.extend_from_slice(b"done")).unwrap();
    clock.advance(Moment(2 * idle_ms + 1));
    assert_eq!(sessions.sweep().ended, 2);
    let old = session(&sessions);
    clock.advance(Moment(clock.now().0 + sessions.settings().absolute_ms));
    old.touch();
    sessions.sweep();
    assert!(old.is_closed() && sessions.is_empty());
}

#[test]
fn a_client_that_never_comes_back_has_no_session_for_long() {
    let (sessions, clock) = sessions();
    let init_ms = sessions.settings().init_ms;
    let (silent, asked, heard) = (sessions.create(None), sessions.create(None), sessions.create(None));
    // What the answer to `initialize` does: neither a request in flight nor a connection is a sign of life.
    let request = asked.open_initialize(RequestId::from(1), None, VERSION).unwrap();
    let mut connection = asked.connect_request(request);
    written(&mut connection);
    silent.agree(VERSION);
    heard.agree(VERSION);
    clock.advance(Moment(init_ms - 1));
    [&silent, &asked, &heard].into_iter().for_each(|session| assert!(session.touch()));
    heard.hear();
    assert_eq!(heard.version(), Some(VERSION));
    assert_eq!(sessions.sweep().ended, 0);
    clock.advance(Moment(init_ms));
    let Swept { ended, .. } = sessions.sweep();
    assert!(silent.is_closed() && asked.is_closed() && !heard.is_closed());
    assert!(written(&mut connection).1, "its connection ends");
    assert_eq!((ended, sessions.counters().expired_uninitialised()), (2, 2));
}

/// A sweep looks at sessions some at a time.
#[test]
fn a_sweep_ends_however_many_sessions_there_are() {
    for count in [0, 1, 31, 32, 33, 64, 65] {
        let (sessions, clock) = sessions();
        let all: Vec<_> = (0..count).map(|_| session(&sessions)).collect();
        assert_eq!((sessions.sweep().ended, sessions.len()), (0, count));
        clock.advance(Moment(sessions.settings().idle_ms));
        assert_eq!((sessions.sweep().ended, sessions.len()), (count, 0));
        assert!(all.iter().all(|session| session.is_closed()));
    }
}

/// Once a sweep noted all that had expired, and then ended them one after the other.
#[test]
fn sweep_spares_a_session_that_came_back() {
    let (sessions, clock) = sessions();
    let all: Arc<Vec<_>> = Arc::new((0..1000).map(|_| session(&sessions)).collect());
    clock.advance(Moment(sessions.settings().idle_ms));
    // Weak: a session keeps the hook, so a hook that kept sessions would never be dropped.
    let others = Arc::downgrade(&all);
    sessions.on_end(move |ended| {
        others
            .upgrade()
            .iter()
            .flat_map(|others| others.iter())
            .for_each(|session| assert_eq!(session.touch(), !core::ptr::eq(&raw const **session, ended)));
    });
    assert_eq!(sessions.sweep().ended, 1, "all others came back");
    assert_eq!(all.iter().filter(|session| session.is_closed()).count(), 1);
    assert_eq!(sessions.sweep().ended, 0);
    // One with a request that was opened meanwhile stays as well, and one that came for the first time.
    clock.advance(Moment(2 * sessions.settings().idle_ms));
    let (idle, working, new) = (session(&sessions), session(&sessions), sessions.create(None));
    assert!(idle.close_expired(clock.now(), sessions.settings()).is_none());
    clock.advance(Moment(3 * sessions.settings().idle_ms));
    let _request = working.open_request(RequestId::from(1), None, VERSION).unwrap();
    assert!(new.hear());
    for (session, why) in [(idle, Some(End::Idle)), (working, None), (new, None)] {
        assert_eq!(session.close_expired(clock.now(), sessions.settings()), why);
        assert_eq!(session.open_request(RequestId::from(2), None, VERSION).is_err(), why.is_some());
        assert_eq!(session.hear(), why.is_none());
    }
}

#[test]
fn whoever_is_told_that_its_session_lives_keeps_it() {
    let (sessions, clock) = sessions();
    let idle_ms = sessions.settings().idle_ms;
    std::thread::scope(|scope| {
        let sweeping = scope.spawn(|| {
            while !sessions.is_empty() {
                sessions.sweep();
            }
        });
        for round in 1..=50 {
            let session = session(&sessions);
            clock.advance(Moment(round * idle_ms));
            if session.hear() {
                // The sweep that looked at it before has had its time.
                sessions.sweep();
                assert!(!session.is_closed());
            } else {
                assert!(session.is_closed() && sessions.find(session.id(), None).is_err());
            }
        }
        clock.advance(Moment(60 * idle_ms));
        drop(sweeping);
    });
}

#[test]
fn every_end_is_told_once_and_drops_what_was_attached() {
    struct Attached(Arc<Mutex<Vec<&'static str>>>);
    impl Drop for Attached {
        fn drop(&mut self) {
            lock(&self.0).push("dropped");
        }
    }
    let clock = Clock::default();
    let at_limit = AtLimit::EvictOldest;
    let sessions =
        Sessions::new(Settings { max_sessions: 1, at_limit, ..Settings::default() }, clock.clone());
    let told = Arc::new(Mutex::new(Vec::new()));
    // The hook needs the registry that keeps it; the test takes it away again, so that both are dropped.
    let find = Arc::new(Mutex::new(Some(sessions.clone())));
    let (log, registry) = (told.clone(), find.clone());
    assert!(sessions.on_end(move |session| {
        let sessions = lock(&registry).clone().unwrap();
        assert!(
            session.is_closed()
                && session.attachment().is_some()
                && sessions.find_any(session.id()).is_none()
        );
        lock(&log).push("told");
        panic!("which breaks nothing");
    }));
    assert!(!sessions.on_end(|_| panic!("the first one stays")));
    let begin = || {
        let session = sessions.admit(Creator::default()).unwrap();
        assert!(session.attach(Arc::new(Attached(told.clone()))));
        assert!(!session.attach(Arc::new(())), "the first one stays");
        session
    };
    type End<'a> = &'a dyn Fn(&Arc<Session>);
    let ends: [End<'_>; 6] = [
        &|session| assert!(sessions.terminate(session)),
        &|session| assert!(sessions.end(session, super::End::Deleted)),
        &|session| sessions.for_each(|each| assert!(Arc::ptr_eq(each, session) && sessions.terminate(each))),
        // It has to go for another, which has nothing attached: the hook panics before it notes that one.
        &|_| assert!(sessions.terminate(&sessions.admit(Creator::default()).unwrap())),
        &|_| {
            clock.advance(Moment(clock.now().0 + sessions.settings().absolute_ms));
            assert_eq!(sessions.sweep().ended, 1);
        },
        &|session| {
            let other = Sessions::new(Settings::default(), clock.clone());
            assert!(!other.terminate(session) && !session.is_closed(), "it is another's");
            std::thread::scope(|scope| {
                (0..4).for_each(|_| drop(scope.spawn(|| sessions.terminate(session))))
            });
        },
    ];
    for (index, end) in ends.iter().enumerate() {
        let session = begin();
        end(&session);
        let log = core::mem::take(&mut *lock(&told));
        assert_eq!(log, ["told", "dropped"], "{index}");
        assert!(session.is_closed() && session.attachment().is_none());
        assert!(!session.attach(Arc::new(Attached(Arc::default()))), "nothing is kept with it any more");
        assert!(!sessions.terminate(&session));
    }
    assert!(lock(&told).is_empty() && sessions.is_empty());
    drop(lock(&find).take());
}

#[test]
fn a_session_that_ended_is_not_kept() {
    let (sessions, _) = sessions();
    let sessions_of_all = (0..100).map(|_| {
        let session = session(&sessions);
        session.publish(|out| out.extend_from_slice(b"event")).unwrap();
        let weak = Arc::downgrade(&session);
        assert!(sessions.terminate(&session));
        weak
    });
    assert!(sessions_of_all.filter(|session| session.upgrade().is_some()).count() == 0);
}

#[test]
fn stream_numbers_are_never_used_twice() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    lock(&session.open).streams_opened = u32::MAX - 1;
    let last = session.open_request(RequestId::from(1), None, VERSION).unwrap();
    assert_eq!(last.name().stream, u32::MAX);
    for id in 2..4 {
        let refused = session.open_request(RequestId::from(id), None, VERSION).unwrap_err();
        assert_eq!(refused, Refusal::UnknownSession, "the client begins a session anew");
    }
    session.respond(&last, |out| out.extend_from_slice(b"{}")).unwrap();
    assert!(session.connect_request(last).take_answer().is_some());
}

#[test]
fn times_change_while_the_process_runs() {
    let (sessions, clock) = sessions();
    let session = session(&sessions);
    clock.advance(Moment(1000));
    let shorter = |idle_ms| Settings { idle_ms, ..sessions.settings().clone() };
    sessions.reconfigure(shorter(1001));
    assert_eq!(sessions.sweep().ended, 0, "it has a millisecond left");
    sessions.reconfigure(shorter(1000));
    sessions.sweep();
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
    assert_eq!(sessions.sweep().ended, 0, "it has a millisecond left");
    clock.advance(Moment(idle_ms));
    sessions.sweep();
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
        sessions.sweep();
        session.summary().retained
    };
    assert_eq!(retained(delivered_ttl_ms - 1), 2);
    assert_eq!(retained(delivered_ttl_ms), 1);
    assert_eq!(retained(response_ttl_ms - 1), 1);
    assert_eq!(retained(response_ttl_ms), 0);
}

/// A request that is answered while nobody is connected; returns the ID of its priming event.
fn unfetched(session: &Arc<Session>, id: i64, bytes: usize) -> EventId {
    let request = session.open_request(RequestId::from(id), None, VERSION).unwrap();
    session.respond(&request, |out| out.resize(out.len() + bytes, b'x')).unwrap();
    EventId::event(request.name(), 0)
}

fn is_kept(session: &Arc<Session>, id: EventId) -> bool {
    session.connect(Some(id)).is_ok()
}

#[test]
fn unfetched_responses_are_bounded() {
    let (sessions, _) = sessions();
    let in_number = session(&sessions);
    let ids: Vec<_> = (0..1000).map(|id| unfetched(&in_number, id, 10)).collect();
    assert_eq!(in_number.summary().retained, 256);
    assert_eq!(sessions.counters().responses_dropped(), 1000 - 256);
    assert!(!is_kept(&in_number, ids[743]) && is_kept(&in_number, ids[744]), "the oldest went");
    // Those whose client is there are not among them.
    let mut reading: Vec<_> = ids[744..].iter().map(|id| in_number.connect(Some(*id)).unwrap()).collect();
    for id in 1000..1256 {
        unfetched(&in_number, id, 10);
    }
    assert_eq!(in_number.summary().retained, 512);
    assert_eq!(sessions.counters().responses_dropped(), 1000 - 256);
    assert!(reading.iter_mut().all(|connection| written(connection).0.contains("data: x")));
    drop(reading);
    assert_eq!(in_number.summary().retained, 256 + 16, "of those that were delivered the newest stay");

    let in_bytes = Settings { max_unfetched_bytes: 40_000, ..Settings::default() };
    let sessions = Sessions::new(in_bytes, Clock::default());
    let in_bytes = session(&sessions);
    let ids: Vec<_> = (0..40).map(|id| unfetched(&in_bytes, id, 3600)).collect();
    assert_eq!(in_bytes.summary().retained, 10);
    assert!(!is_kept(&in_bytes, ids[29]) && is_kept(&in_bytes, ids[30]));
    let large = session(&sessions);
    let ids = [0, 1].map(|id| unfetched(&large, id, 50_000));
    assert!(!is_kept(&large, ids[0]) && is_kept(&large, ids[1]), "the newest stays, however large");
}

/// It stood in the list until a sweep found its time to be up.
#[test]
fn a_response_stays_while_its_client_reads_it() {
    let settings = Settings { max_unfetched_bytes: 32_000, ..Settings::default() };
    let sessions = Sessions::new(settings, Clock::default());
    let session = session(&sessions);
    let read = unfetched(&session, 1, 16_000);
    let mut reading = session.connect(Some(read)).unwrap();
    let [second, third] = [2, 3].map(|id| unfetched(&session, id, 10_000));
    assert!(!is_kept(&session, second) && is_kept(&session, third), "the oldest of the others went");
    assert_eq!((session.summary().retained, sessions.counters().responses_dropped()), (2, 1));
    // Nor does it go for want of memory: what its connection holds would not be freed.
    let given_up = session.give_up_responses(Kind::Waiting, session.now(), u64::MAX);
    assert!((10_000..16_000).contains(&given_up), "{given_up}");
    assert_eq!((session.summary().retained, sessions.counters().responses_given_up()), (1, 1));
    let (text, ended) = written(&mut reading);
    assert!(ended && text.len() > 16_000);
    drop(reading);
    assert!(is_kept(&session, read));
}

/// So it is when one connection ends while another begins.
#[test]
fn a_listed_response_is_not_let_go_while_its_client_is_there() {
    let (sessions, clock) = sessions();
    let session = session(&sessions);
    let id = unfetched(&session, 1, 10);
    let _reading = session.connect(Some(id)).unwrap();
    let Place::Request { stream, .. } = id.place else { panic!("{id}") };
    let list = || {
        lock(&session.open).extras.as_mut().unwrap().responses.list(stream, Kind::Waiting, clock.now());
    };
    list();
    assert_eq!(session.give_up_responses(Kind::Waiting, clock.now(), u64::MAX), 0);
    list();
    for id in 2..=257 {
        unfetched(&session, id, 10);
    }
    assert_eq!((session.summary().retained, sessions.counters().responses_dropped()), (257, 0));
}

/// The first disconnect won.
#[test]
fn response_ttl_counts_from_the_last_disconnect() {
    let (sessions, clock) = sessions();
    let session = session(&sessions);
    let Settings { response_ttl_ms: ttl, delivered_ttl_ms, .. } = *sessions.settings();
    let kept_at = |at: u64| {
        clock.advance(Moment(at));
        sessions.sweep();
        session.summary().retained == 1
    };
    for with_sweep in [true, false] {
        let start = clock.now().0;
        // Answered, resumed a second before its time is up, cut off two seconds behind it.
        let id = unfetched(&session, 1, 10);
        assert!(kept_at(start + ttl - 1000));
        let connection = session.connect(Some(id)).unwrap();
        assert!(!with_sweep || kept_at(start + ttl));
        clock.advance(Moment(start + ttl + 2000));
        drop(connection);
        assert!(kept_at(start + ttl + 2000) && kept_at(start + 2 * ttl + 1999));
        assert!(!kept_at(start + 2 * ttl + 2000));
    }
    // One that was delivered and is fetched again; then again, and not to its end.
    let start = clock.now().0;
    let id = unfetched(&session, 1, 10);
    assert!(written(&mut session.connect(Some(id)).unwrap()).1);
    assert!(kept_at(start + delivered_ttl_ms - 1));
    let mut again = session.connect(Some(id)).unwrap();
    assert!(kept_at(start + delivered_ttl_ms) && written(&mut again).1);
    drop(again);
    assert!(kept_at(start + 2 * delivered_ttl_ms - 1));
    drop(session.connect(Some(id)).unwrap());
    assert!(kept_at(start + 2 * delivered_ttl_ms - 1 + ttl - 1), "it was lost on the way");
    assert!(!kept_at(start + 2 * delivered_ttl_ms - 1 + ttl));
    assert!(session.due.is_never(), "there is nothing to look for");
}

/// It counted as one that nobody had fetched.
#[test]
fn a_resume_behind_the_end_leaves_a_response_delivered() {
    let (sessions, clock) = sessions();
    let session = session(&sessions);
    let id = unfetched(&session, 1, 10);
    let last = ids(&written(&mut session.connect(Some(id)).unwrap()).0).pop().unwrap();
    let connection = session.connect(Some(last)).unwrap();
    assert!(connection.is_exhausted());
    drop(connection);
    clock.advance(Moment(sessions.settings().delivered_ttl_ms));
    sessions.sweep();
    assert_eq!(session.summary().retained, 0);
}

/// They counted for as long as the response was there, and pushed others out.
#[test]
fn events_that_were_trimmed_do_not_count_as_bytes_of_a_response() {
    let settings = Settings { max_unfetched_bytes: 100_000, ..Settings::default() };
    let sessions = Sessions::new(settings, Clock::default());
    let session = session(&sessions);
    for id in 1..=3 {
        let request = session.open_request(RequestId::from(id), None, VERSION).unwrap();
        for _ in 0..40 {
            session.publish_on(&request, |out| out.resize(out.len() + 1000, b'x')).unwrap();
        }
        session.respond(&request, |out| out.extend_from_slice(b"{}")).unwrap();
        session.for_each_stream(|stream, limits| {
            stream.trim(0, session.now(), limits);
        });
    }
    assert_eq!((session.summary().retained, sessions.counters().responses_dropped()), (3, 0));
}

/// Nothing was ever written to it, and nothing ended it.
#[test]
fn the_unused_stream_of_a_request_in_a_batch_is_not_resumed() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    let batch = session.open_batch(VERSION).unwrap();
    let request = session.open_in_batch(&batch, RequestId::from(1), None).unwrap();
    session.leave_batch(&batch);
    let mut connection = session.connect(Some(EventId::event(request.name(), 0))).unwrap();
    assert!(!written(&mut connection).1, "that of the batch is");
    let own = EventId::event(StreamName { stream: request.number(), ..request.name() }, 0);
    assert_eq!(session.connect(Some(own)).unwrap_err(), Refusal::UnknownStream);
    session.respond(&request, |out| out.extend_from_slice(b"{}")).unwrap();
    assert!(written(&mut connection).1);
    assert_eq!(session.connect(Some(own)).unwrap_err(), Refusal::UnknownStream);
}

/// A batch in flight of a number of requests, on a stream that may retain 16,000 bytes.
fn batch(count: i64) -> (Sessions, Clock, Arc<Session>, Arc<BatchStream>, Vec<Arc<RequestStream>>) {
    let clock = Clock::default();
    let request = Limits { max_weight: 16_000, ..Settings::default().request };
    let sessions = Sessions::new(Settings { request, ..Settings::default() }, clock.clone());
    let session = session(&sessions);
    let batch = session.open_batch(ProtocolVersion::V2025_03_26).unwrap();
    let open = |id| session.open_in_batch(&batch, RequestId::from(id), None).unwrap();
    let requests = (0..count).map(open).collect();
    session.leave_batch(&batch);
    (sessions, clock, session, batch, requests)
}

/// A response of so many bytes.
fn respond(session: &Session, request: &RequestStream, bytes: usize) -> Result<(), PublishError> {
    let RequestId::Number(id) = *request.id() else { panic!("they are numbers") };
    let text = format!(r#"{{"id":{id},"result":"{}"}}"#, "x".repeat(bytes));
    session.respond(request, |out| out.extend_from_slice(text.as_bytes())).map(drop)
}

/// The IDs of responses, and how many of them are errors.
fn answered<'a>(responses: impl IntoIterator<Item = &'a [u8]>) -> (Vec<i64>, usize) {
    let (mut all, mut errors) = (Vec::new(), 0);
    for response in responses {
        let response: serde_json::Value = serde_json::from_slice(response).unwrap();
        errors += usize::from(response.get("error").is_some());
        all.extend(response["id"].as_i64());
    }
    all.sort_unstable();
    (all, errors)
}

/// The first responses of a large batch were gone before they were read, and nothing stood in their place.
#[test]
fn every_request_of_a_large_batch_has_a_response() {
    for takes_json in [true, false] {
        let (sessions, _, session, batch, requests) = batch(21);
        if takes_json {
            batch.carrier().want_response_only();
        }
        let mut connection = session.connect_request(batch.carrier().clone());
        let refused = requests.iter().filter(|request| {
            let refused = respond(&session, request, 1000);
            assert!(matches!(refused, Ok(()) | Err(PublishError::TooLarge { limit: 16_000, .. })));
            refused.is_err()
        });
        let refused = refused.count();
        assert!((6..=8).contains(&refused) && sessions.traffic().too_large() == refused as u64, "{refused}");
        let (text, mut responses) = if takes_json {
            let (mut responses, mut context) = (Vec::new(), Context::from_waker(Waker::noop()));
            assert!(connection.poll_responses(&mut context, &mut responses).is_ready());
            (String::new(), responses)
        } else {
            (written(&mut connection).0, Vec::new())
        };
        responses.extend(data(&text).into_iter().map(|data| bytes::Bytes::copy_from_slice(data.as_bytes())));
        assert_eq!(answered(responses.iter().map(|response| &response[..])), ((0..21).collect(), refused));
        assert_eq!((session.summary().in_flight, sessions.counters().missed()), (0, 0));
    }
}

/// The age limit, the number of events, the budget: each of them let the responses of a batch go.
#[test]
fn a_batch_keeps_its_responses_until_it_is_fetched() {
    let (sessions, clock, session, batch, requests) = batch(3);
    respond(&session, &requests[0], 1000).unwrap();
    let notify = || session.publish_on(&requests[1], |out| out.push(b'0'));
    let notified = core::iter::repeat_with(notify).take_while(Result::is_ok).count();
    assert!(notified > 80, "{notified}");
    assert!(matches!(notify(), Err(PublishError::TooLarge { limit: 8000, .. })), "the rest is for responses");
    respond(&session, &requests[1], 1000).unwrap();
    clock.advance(Moment(6 * 60_000));
    let trim = || {
        session.touch();
        sessions.sweep();
        session.for_each_stream(|stream, limits| {
            stream.trim(0, session.now(), limits);
        });
    };
    trim();
    respond(&session, &requests[2], 1000).unwrap();
    trim();
    let id = EventId::event(batch.carrier().name(), 0);
    let (text, ended) = written(&mut session.connect(Some(id)).unwrap());
    let responses = data(&text).into_iter().filter(|data| *data != "0").map(str::as_bytes);
    assert!(ended);
    assert_eq!(answered(responses), (vec![0, 1, 2], 0));
}

#[test]
fn events_of_many_requests_in_a_batch_do_not_push_a_response_out() {
    let clock = Clock::default();
    let sessions = Sessions::new(Settings::default(), clock);
    let session = session(&sessions);
    let batch = session.open_batch(VERSION).unwrap();
    let [first, second] = [0, 1].map(|id| session.open_in_batch(&batch, RequestId::from(id), None).unwrap());
    session.leave_batch(&batch);
    respond(&session, &first, 10).unwrap();
    for _ in 0..2 * sessions.settings().request.capacity {
        session.publish_on(&second, |out| out.push(b'0')).unwrap();
    }
    respond(&session, &second, 10).unwrap();
    let (text, _) = written(&mut session.connect_request(batch.carrier().clone()));
    let responses = data(&text).into_iter().filter(|data| *data != "0").map(str::as_bytes);
    assert_eq!(answered(responses), (vec![0, 1], 0));
}

#[test]
fn a_batch_whose_client_is_away_is_the_last_to_give_its_responses() {
    let (sessions, _, session, batch, requests) = batch(2);
    let mut connection = session.connect_request(batch.carrier().clone());
    respond(&session, &requests[0], 1000).unwrap();
    assert_eq!(session.give_up_batches(), 0, "its client is there");
    assert!(written(&mut connection).0.contains("xxx"));
    drop(connection);
    assert!(session.give_up_batches() > 1000);
    assert_eq!(sessions.counters().responses_given_up(), 1);
    respond(&session, &requests[1], 1000).unwrap();
    let id = EventId::event(batch.carrier().name(), 0);
    let (text, ended) = written(&mut session.connect(Some(id)).unwrap());
    assert!(ended && text.contains(r#""missed":1}"#), "{text}");
}

#[test]
fn times_of_responses_change_while_the_process_runs() {
    let (sessions, clock) = sessions();
    let session = session(&sessions);
    unfetched(&session, 1, 10);
    clock.advance(Moment(1000));
    assert_eq!(sessions.sweep().responses, 0);
    sessions.reconfigure(Settings { response_ttl_ms: 1000, ..sessions.settings().clone() });
    assert_eq!(sessions.sweep().responses, 1);
}

/// What a request published stood for as long as its session, or its response, whatever its age.
#[test]
fn request_streams_obey_their_age_in_a_sweep() {
    let clock = Clock::default();
    let settings = Settings { response_ttl_ms: 1 << 40, idle_ms: 1 << 41, ..Settings::default() };
    let sessions = Sessions::new(settings, clock.clone());
    let session = session(&sessions);
    let max_age_ms = u64::from(sessions.settings().request.max_age_ms);
    let [in_flight, finished] =
        [1, 2].map(|id| session.open_request(RequestId::from(id), None, VERSION).unwrap());
    let publish = |request: &RequestStream| {
        for _ in 0..50 {
            session.publish_on(request, |out| out.resize(out.len() + 1000, b'x')).unwrap();
        }
    };
    [&in_flight, &finished].into_iter().for_each(|request| publish(request));
    session.respond(&finished, |out| out.extend_from_slice(b"{}")).unwrap();
    let retained_at = |at: u64| {
        clock.advance(Moment(at));
        sessions.sweep();
        [&in_flight, &finished].map(|request| request.stream().retained_bytes())
    };
    assert!(retained_at(max_age_ms - 100).iter().all(|bytes| *bytes > 50_000));
    let [none, last] = retained_at(max_age_ms);
    // The response stays, with what shares its chunk.
    assert!(none == 0 && last < 16_000, "{none} {last}");
    publish(&in_flight);
    let again = retained_at(2 * max_age_ms - 100)[0];
    assert!(again > 50_000 && retained_at(2 * max_age_ms + max_age_ms / 16)[0] == 0, "{again}");
    // Nothing more is looked for but the response, and a request in flight now and then.
    assert_eq!(session.summary(), Summary { in_flight: 1, retained: 1, asks: 0 });
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
        sessions.sweep();
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
    settings.broadcast.max_weight = 1000;
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
    assert_eq!(sessions.traffic().too_large(), 5);
}

#[test]
fn only_versions_that_prime_are_primed() {
    let (sessions, _) = sessions();
    for version in ProtocolVersion::ALL {
        let session = sessions.create(None);
        session.agree(*version);
        let (text, _) = written(&mut session.connect(None).unwrap());
        assert_eq!(text.contains("retry:"), *version >= ProtocolVersion::V2025_11_25, "{version}: {text}");
    }
}

/// The data of the events of a text, without what primes.
fn data(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| !data.is_empty()).collect()
}

fn say(session: &Session, text: &str) {
    session.publish(|out| out.extend_from_slice(text.as_bytes())).unwrap();
}

fn say_to_all(sessions: &Sessions, text: &str) {
    sessions.publish(|out| out.extend_from_slice(text.as_bytes())).unwrap();
}

/// What a connection writes until it has nothing more: the data, the last ID, and whether it ended.
fn read(connection: &mut Connection) -> (Vec<String>, Option<EventId>, bool) {
    let (text, ended) = written(connection);
    let data = data(&text).into_iter().map(str::to_owned).collect();
    (data, ids(&text).pop(), ended)
}

#[test]
fn a_resume_goes_on_in_both_logs() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    let mut first = session.connect(None).unwrap();
    say(&session, "a");
    say_to_all(&sessions, "B");
    let (all, _, _) = read(&mut first);
    assert_eq!(all, ["a", "B"]);
    say_to_all(&sessions, "C");
    let (got, last, _) = read(&mut first);
    assert_eq!(got, ["C"]);
    // These two are written to a connection that breaks.
    say(&session, "d");
    say_to_all(&sessions, "E");
    assert_eq!(read(&mut first).0, ["d", "E"]);
    drop(first);
    say_to_all(&sessions, "F");
    let mut resumed = session.connect(last).unwrap();
    let (got, _, ended) = read(&mut resumed);
    assert_eq!(got, ["d", "E", "F"]);
    assert!(!ended);
}

#[test]
fn every_event_of_a_standalone_stream_has_an_id_of_its_own() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    let mut connection = session.connect(None).unwrap();
    let mut seen = std::collections::HashSet::new();
    let mut events = 0;
    for round in 0..10 {
        if round % 3 != 2 {
            say(&session, "own");
        }
        if round % 2 == 0 {
            say_to_all(&sessions, "all");
        }
        let (text, _) = written(&mut connection);
        events += data(&text).len();
        ids(&text).into_iter().for_each(|id| assert!(seen.insert(id), "{id} twice"));
    }
    assert_eq!(seen.len(), events + 1, "one more for the priming event");
}

#[test]
fn side_by_side_connections_settle() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    let (mut one, mut other) = (session.connect(None).unwrap(), session.connect(None).unwrap());
    (0..20).for_each(|_| say(&session, "own"));
    (0..20).for_each(|_| say_to_all(&sessions, "all"));
    let (quiet, _, ended) = read(&mut one);
    assert!(quiet.is_empty() && !ended, "the older one stays, and gets nothing: {quiet:?}");
    assert_eq!(read(&mut other).0.len(), 40);
    assert_eq!(sessions.counters().superseded(), 0);
    // The newer one ends: the older one goes on, with what comes then and nothing else.
    drop(other);
    say(&session, "later");
    say_to_all(&sessions, "to all");
    assert_eq!(read(&mut one).0, ["later", "to all"]);
    assert_eq!(sessions.publish(|_| {}).unwrap().delivered, 1);
    drop(one);
    assert_eq!(sessions.publish(|_| {}).unwrap().delivered, 0);
}

#[test]
fn resume_replays_its_own_lineage_only() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    let mut a = session.connect(None).unwrap();
    let (_, a_last, _) = read(&mut a);
    let mut b = session.connect(None).unwrap();
    let (_, b_first, _) = read(&mut b);
    say(&session, "n=1");
    say_to_all(&sessions, "all=1");
    assert_eq!(read(&mut b).0, ["n=1", "all=1"]);
    // A comes again with its own last ID: what B was given must not come again.
    let mut a_again = session.connect(a_last).unwrap();
    assert!(read(&mut a).2, "its older connection ends");
    assert_eq!(read(&mut a_again).0, [] as [&str; 0]);
    say(&session, "n=2");
    let (got, a_last, _) = read(&mut a_again);
    assert_eq!(got, ["n=2"]);
    // B lost its connection with what it was given on it, and gets that, but not what A was given.
    drop(b);
    let mut b_again = session.connect(b_first).unwrap();
    assert_eq!(read(&mut b_again).0, ["n=1", "all=1"]);
    say(&session, "n=3");
    assert_eq!(read(&mut b_again).0, ["n=3"]);
    drop(b_again);
    // What nobody was given comes to whoever comes first.
    drop(a_again);
    say(&session, "n=4");
    let mut a_third = session.connect(a_last).unwrap();
    assert_eq!(read(&mut a_third).0, ["n=4"]);
}

#[test]
fn a_connection_that_stands_by_is_told_of_the_end_and_comes_back_when_asked() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    let mut all: Vec<_> = (0..3).map(|_| session.connect(None).unwrap()).collect();
    all.iter_mut().for_each(|one| assert!(!written(one).1));
    // One more than may stand side by side ends the oldest.
    let (mut fourth, mut fifth) = (session.connect(None).unwrap(), session.connect(None).unwrap());
    assert!(!written(&mut fourth).1 && !written(&mut fifth).1);
    assert_eq!(all.iter_mut().map(|one| written(one).1).collect::<Vec<_>>(), [true, false, false]);
    assert!(session.hang_up());
    assert!(written(&mut fifth).1 && written(&mut fourth).1 && written(&mut all[1]).1);
    drop((fifth, fourth));
    drop(all);
    let (mut one, mut other) = (session.connect(None).unwrap(), session.connect(None).unwrap());
    assert!(!written(&mut one).1 && !written(&mut other).1);
    sessions.terminate(&session);
    assert!(written(&mut one).1 && written(&mut other).1);
    drop((one, other));
    assert_eq!(sessions.publish(|_| {}).unwrap(), Reach::default());
}

#[test]
fn a_session_that_comes_back_late_is_told_how_many_messages_to_all_it_missed() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    (0..5000).for_each(|_| say_to_all(&sessions, "all"));
    let (text, _) = written(&mut session.connect(None).unwrap());
    let missed: usize =
        text.split("\"missed\":").nth(1).and_then(|tail| tail.split('}').next()).unwrap().parse().unwrap();
    assert_eq!(missed + data(&text).len() - 1, 5000);
    assert_eq!(sessions.counters().missed(), missed as u64);
}

/// 100,000 sessions begin and end, others connect, break and come back, while messages to all are published: whoever
/// lives through a message gets it once.
#[test]
fn broadcast_reaches_each_session_once_under_churn() {
    const SESSIONS: usize = 100_000;
    // At least so many, and at most as many as are retained: the readers shall miss none for another reason.
    const MESSAGES: std::ops::Range<usize> = 2000..1 << 16;
    let settings = Settings {
        broadcast: Limits { capacity: MESSAGES.end, max_weight: 1 << 30, ..Default::default() },
        ..Settings::default()
    };
    let sessions = Sessions::new(settings, Clock::default());
    let (begun, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            let mut others = std::collections::VecDeque::new();
            while !is_over.load(Ordering::Relaxed) {
                others.push_back(session(&sessions));
                begun.fetch_add(1, Ordering::Relaxed);
                if others.len() > 500 {
                    others.pop_front().map(|other| sessions.terminate(&other));
                }
            }
        });
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let session = session(&sessions);
                let is_over = &is_over;
                scope.spawn(move || {
                    let (mut got, mut last): (Vec<usize>, Option<EventId>) = (Vec::new(), None);
                    loop {
                        let was_over = is_over.load(Ordering::Relaxed);
                        // Sometimes a client goes on, sometimes it begins anew; nothing is lost on the way here.
                        let id = last.take().filter(|_| got.len() % 2 == 0);
                        let mut connection = session.connect(id).unwrap();
                        let (data, id, _) = read(&mut connection);
                        got.extend(data.iter().map(|text| text.parse::<usize>().unwrap()));
                        last = id;
                        if was_over {
                            return got;
                        }
                    }
                })
            })
            .collect();
        let mut published = 0;
        while published < MESSAGES.start || begun.load(Ordering::Relaxed) < SESSIONS {
            if published < MESSAGES.end {
                say_to_all(&sessions, &published.to_string());
                published += 1;
            }
            // Spreads them over the time that the sessions take.
            std::thread::yield_now();
        }
        is_over.store(true, Ordering::Relaxed);
        churn.join().unwrap();
        for reader in readers {
            assert!(reader.join().unwrap().into_iter().eq(0..published));
        }
    });
}

#[test]
fn broadcast_costs_nothing_for_detached_sessions() {
    let (sessions, _) = sessions();
    let all: Vec<_> = (0..1000).map(|_| session(&sessions)).collect();
    let reach = sessions.publish(|out| out.extend_from_slice(&[b'x'; 1000])).unwrap();
    assert_eq!(reach, Reach { sessions: 1000, delivered: 0, retained: 1000 });
    assert!(all.iter().all(|session| session.standalone().is_untouched()));
    assert_eq!(sessions.traffic().published(), 1);
    assert_eq!(data(&written(&mut all[7].connect(None).unwrap()).0).len(), 1);
}

/// Notes for each wake whether the lock of its session is free: a waker may poll a connection at once.
struct Probe(Weak<Session>, Mutex<Vec<bool>>);

impl Wake for Probe {
    fn wake(self: Arc<Self>) {
        let is_free = self.0.upgrade().is_some_and(|session| try_lock(&session.open).is_some());
        lock(&self.1).push(is_free);
    }
}

/// Polls until there is nothing more, so that the connection waits with `waker`.
fn wait(connection: &mut Connection, waker: &Waker) {
    while let Poll::Ready(piece) = connection.poll_next(&mut Context::from_waker(waker)) {
        assert!(piece.is_some(), "it goes on");
    }
}

#[test]
fn connections_are_woken_under_no_lock() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    let probe = Arc::new(Probe(Arc::downgrade(&session), Mutex::default()));
    let waker = Waker::from(probe.clone());
    let woken = || core::mem::take(&mut *lock(&probe.1));
    let mut one = session.connect(None).unwrap();
    wait(&mut one, &waker);
    let mut other = session.connect(None).unwrap();
    assert_eq!(woken(), [true], "by one that comes");
    wait(&mut one, &waker);
    wait(&mut other, &waker);
    drop(other);
    assert_eq!(woken(), [true, true], "by one that goes");
    wait(&mut one, &waker);
    assert!(one.send_back());
    assert_eq!(woken(), [true]);
    drop(one);
    let mut last = session.connect(None).unwrap();
    wait(&mut last, &waker);
    woken();
    assert!(session.hang_up());
    assert_eq!(woken(), [true]);
}

#[test]
fn a_waker_that_panics_leaves_no_holder_behind() {
    /// The first time.
    #[derive(Default)]
    struct Panics(AtomicBool);
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            // Relaxed: one thread.
            assert!(self.0.swap(true, Ordering::Relaxed), "a waker that panics");
        }
    }
    let (sessions, _) = sessions();
    let session = session(&sessions);
    let mut old = session.connect(None).unwrap();
    wait(&mut old, &Waker::from(Arc::new(Panics::default())));
    let newcomer = catch_unwind(AssertUnwindSafe(|| session.connect(None).map(drop)));
    assert!(newcomer.is_err());
    say(&session, "later");
    assert_eq!(read(&mut old).0, ["later"], "the one before holds the stream again");
    drop(old);
    assert!(!session.standalone().terms().is_attached());
    assert_eq!(sessions.publish(|_| {}).unwrap().delivered, 0);
}

#[test]
fn own_events_do_not_keep_messages_to_all_waiting() {
    let (sessions, _) = sessions();
    let session = session(&sessions);
    let mut connection = session.connect(None).unwrap();
    written(&mut connection);
    say_to_all(&sessions, "all");
    say_to_all(&sessions, "all");
    let mut context = Context::from_waker(Waker::noop());
    // Before it takes a piece, there is another event of its own.
    let pieces = (0..4).map(|_| {
        say(&session, "own");
        let Poll::Ready(Some(piece)) = connection.poll_next(&mut context) else {
            panic!("there is an event")
        };
        let mut text = Vec::new();
        piece.append_to(&mut text);
        data(str::from_utf8(&text).unwrap()).join(" ")
    });
    assert_eq!(pieces.collect::<Vec<_>>(), ["own", "all all", "own own", "own"]);
}
