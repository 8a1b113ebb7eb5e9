//! How many sessions there may be, how fast they may be created, and whose ends for another.

#![cfg(feature = "server")]

mod support;

use std::net::IpAddr;
use std::sync::Arc;
use std::thread;

use ringmain::internals::protocol::Refusal;
use ringmain::internals::session::{Creator, Holder};
use ringmain::internals::stream::{Clock, Moment};
use ringmain::protocol::{ProtocolVersion, RequestId};
use ringmain::server::Config;
use ringmain::session::{AtLimit, PrincipalId, Rate, Session, Sessions, Settings};
use support::{Client, POST_HEADERS, Reply, TestServer, hello, request, test, until};

const NOBODY: Creator = Creator { holder: Holder::anybody(), address: None };

fn registry(settings: Settings) -> (Sessions, Clock) {
    let clock = Clock::default();
    (Sessions::new(settings, clock.clone()), clock)
}

/// Creates a session a millisecond after the one before; says whom it made end.
fn admit(sessions: &Sessions) -> Result<(Arc<Session>, Vec<Arc<Session>>), Refusal> {
    let (clock, mut ended) = (sessions.clock(), Vec::new());
    clock.advance(Moment(clock.now().0 + 1));
    sessions.for_each(|session| ended.push(session.clone()));
    let session = sessions.admit(NOBODY)?;
    ended.retain(|session| session.is_closed());
    Ok((session, ended))
}

/// Asks for a session as `client` did.
async fn initialize(server: &TestServer) -> Reply {
    let mut wire = support::Wire::connect(server.address).await;
    wire.send(&request("POST", &POST_HEADERS, &hello("2025-11-25"))).await;
    wire.reply().await
}

/// Waits until the server's clock shows another moment.
async fn a_moment_later(server: &TestServer) {
    let clock = server.sessions.clock();
    let before = clock.now();
    until("a moment to pass", || clock.now() > before).await;
}

async fn refused(reply: Reply, status: u16) -> u64 {
    let seconds = reply.header("retry-after").expect("when to come again").parse().expect("seconds");
    assert_eq!(reply.header("mcp-session-id"), None);
    assert_eq!(reply.error(status).await["id"], 0, "it answers the request");
    seconds
}

async fn is_gone(client: &Client) {
    let error = client.request(1, "ping", serde_json::json!({})).await.error(404).await;
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("send initialize"), "it says what to do: {message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limit_refuses_or_evicts() {
    test(async {
        let mut config = Config::default();
        config.sessions.max_sessions = 2;
        let server = TestServer::start(config.clone());
        let counters = server.sessions.counters();
        let (one, two) = (server.client().await, server.client().await);
        assert!(refused(initialize(&server).await, 503).await > 0);
        assert_eq!((server.sessions.len(), counters.refused_limit()), (2, 1));
        one.ping(1).await;
        two.delete().await.nothing(204).await;
        let three = server.client().await;
        three.ping(1).await;
        assert_eq!((counters.created(), counters.deleted(), counters.evicted()), (3, 1, 0));
        assert_eq!(server.control.count("closed"), 1);

        config.sessions.at_limit = AtLimit::EvictOldest;
        let server = TestServer::start(config.clone());
        let one = server.client().await;
        let mut listening = one.listen(None).await;
        listening.primed().await;
        a_moment_later(&server).await;
        let two = server.client().await;
        a_moment_later(&server).await;
        one.ping(1).await;
        let three = server.client().await;
        listening.ended().await;
        server.control.noted("closed").await;
        is_gone(&one).await;
        two.ping(1).await;
        three.ping(1).await;
        assert_eq!((server.sessions.len(), server.sessions.counters().evicted()), (2, 1));

        config.sessions.at_limit = AtLimit::EvictLongestIdle;
        let server = TestServer::start(config);
        let (one, two) = (server.client().await, server.client().await);
        a_moment_later(&server).await;
        one.ping(1).await;
        let three = server.client().await;
        is_gone(&two).await;
        one.ping(2).await;
        three.ping(1).await;
        assert_eq!((server.sessions.len(), server.sessions.counters().evicted()), (2, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_creates_sessions_too_fast_is_told_to_wait() {
    test(async {
        let mut config = Config::default();
        config.sessions.create_rate_per_caller = Rate::new(1, 2);
        let server = TestServer::start(config);
        let (one, _two) = (server.client().await, server.client().await);
        let seconds = refused(initialize(&server).await, 429).await;
        assert!((30..=60).contains(&seconds), "{seconds}");
        one.ping(1).await;
        assert_eq!(server.sessions.counters().refused_caller_rate(), 1);

        let mut settings = server.sessions.settings().clone();
        settings.create_rate_per_caller = None;
        settings.create_rate = Rate::new(1, 1);
        server.sessions.reconfigure(settings);
        server.client().await.ping(1).await;
        refused(initialize(&server).await, 429).await;
        assert_eq!((server.sessions.counters().refused_rate(), server.sessions.len()), (1, 3));
    })
    .await;
}

#[test]
fn oldest_and_longest_idle_go_in_order() {
    for at_limit in [AtLimit::EvictOldest, AtLimit::EvictLongestIdle] {
        let (sessions, clock) = registry(Settings { max_sessions: 40, at_limit, ..Settings::default() });
        let first: Vec<_> = (0..40).map(|_| admit(&sessions).unwrap().0).collect();
        // Every other one is heard of again.
        clock.advance(Moment(clock.now().0 + 1));
        first.iter().step_by(2).for_each(|session| assert!(session.touch()));
        assert_eq!(sessions.sweep().ended, 0);
        for round in 0..20 {
            let (_, ended) = admit(&sessions).unwrap();
            let expected = if at_limit == AtLimit::EvictOldest { round } else { 2 * round + 1 };
            assert_eq!(ended.len(), 1);
            assert_eq!(ended[0].id(), first[expected].id(), "{at_limit:?}, round {round}");
            assert!(ended[0].is_closed());
            assert_eq!(sessions.len(), 40);
        }
    }
}

/// After the limit was lowered, the first newcomer ended all that were too many.
#[test]
fn a_lowered_limit_ends_two_at_most_for_each_newcomer() {
    for at_limit in [AtLimit::EvictOldest, AtLimit::EvictLongestIdle] {
        let settings = Settings { max_sessions: 1000, at_limit, ..Settings::default() };
        let (sessions, _) = registry(settings.clone());
        let first: Vec<_> = (0..1000).map(|_| admit(&sessions).unwrap().0).collect();
        sessions.reconfigure(Settings { max_sessions: 990, ..settings });
        assert_eq!(sessions.len(), 1000, "none ends at once");
        for newcomer in 1..=10 {
            let (_, ended) = admit(&sessions).unwrap();
            assert_eq!((ended.len(), sessions.len()), (2, 1000 - newcomer), "{at_limit:?}");
        }
        assert!(first[..20].iter().all(|session| session.is_closed()), "the first in order");
        assert_eq!(admit(&sessions).unwrap().1.len(), 1);
        assert_eq!(sessions.len(), 990);
    }
}

#[test]
fn who_was_noted_as_idle_and_works_again_stays() {
    let (sessions, clock) =
        registry(Settings { max_sessions: 3, at_limit: AtLimit::EvictLongestIdle, ..Settings::default() });
    let three: Vec<_> = (0..3).map(|_| admit(&sessions).unwrap().0).collect();
    assert_eq!(sessions.sweep().ended, 0);
    clock.advance(Moment(clock.now().0 + 1));
    three[0].touch();
    let request = three[1].open_request(RequestId::from(1), None, ProtocolVersion::LATEST).unwrap();
    assert_eq!(admit(&sessions).unwrap().1[0].id(), three[2].id());
    // Now the one whose request is in flight was silent for longest.
    assert_eq!(admit(&sessions).unwrap().1[0].id(), three[0].id());
    three[1].respond(&request, |out| out.extend_from_slice(b"done")).unwrap();
    assert!(!three[1].is_closed());

    let (sessions, _) =
        registry(Settings { max_sessions: 1, at_limit: AtLimit::EvictLongestIdle, ..Settings::default() });
    let (working, _) = admit(&sessions).unwrap();
    let _request = working.open_request(RequestId::from(1), None, ProtocolVersion::LATEST).unwrap();
    assert_eq!(admit(&sessions).unwrap_err(), Refusal::TooManySessions);
}

#[test]
fn a_principal_has_so_many_and_others_have_theirs() {
    let (sessions, _) = registry(Settings { max_sessions_per_principal: Some(2), ..Settings::default() });
    let of = |number: u64| {
        sessions.admit(Creator { holder: Holder::from(PrincipalId::new(number)), address: None })
    };
    let (first, _second) = (of(7).unwrap(), of(7).unwrap());
    assert_eq!(of(7).unwrap_err(), Refusal::TooManyOwnSessions { limit: 2 });
    assert!(of(8).is_ok());
    (0..5).for_each(|_| assert!(of(0).is_ok(), "nobody in particular is not counted"));
    assert!(sessions.terminate(&first));
    assert!(of(7).is_ok() && of(7).is_err());
    assert_eq!(sessions.counters().refused_principal_limit(), 2);
    sessions.reconfigure(Settings { max_sessions_per_principal: Some(3), ..Settings::default() });
    assert!(of(7).is_ok() && of(7).is_err());

    // A newcomer that is refused for the number of all leaves no count behind.
    sessions.reconfigure(Settings { max_sessions: 0, ..Settings::default() });
    assert_eq!(of(9).unwrap_err(), Refusal::TooManySessions);
    sessions.reconfigure(Settings { max_sessions_per_principal: Some(1), ..Settings::default() });
    assert!(of(9).is_ok() && of(9).is_err());
}

#[test]
fn races_exceed_no_limit() {
    const LIMIT: usize = 100;
    const PRINCIPAL_LIMIT: usize = 75;
    for at_limit in [AtLimit::Refuse, AtLimit::EvictOldest, AtLimit::EvictLongestIdle] {
        let (sessions, _) = registry(Settings {
            max_sessions: LIMIT,
            at_limit,
            max_sessions_per_principal: Some(PRINCIPAL_LIMIT),
            ..Settings::default()
        });
        let admitted: usize = thread::scope(|scope| {
            let racing: Vec<_> = (0..4_u64)
                .map(|thread| {
                    let sessions = &sessions;
                    scope.spawn(move || {
                        let address = Some(IpAddr::from([192, 0, 2, 1]));
                        let creator =
                            Creator { holder: Holder::from(PrincipalId::new(1 + thread % 2)), address };
                        let admit = |_: &i32| {
                            let admitted = sessions.admit(creator.clone()).is_ok();
                            assert!(sessions.len() <= LIMIT);
                            admitted
                        };
                        (0..500).filter(admit).count()
                    })
                })
                .collect();
            racing.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        let counters = sessions.counters();
        assert_eq!(sessions.len() as u64, counters.created() - counters.evicted());
        assert_eq!(counters.created(), admitted as u64);
        assert_eq!(
            counters.refused_limit() + counters.refused_principal_limit(),
            2000 - admitted as u64,
            "{at_limit:?}"
        );
        let of = [1, 2].map(PrincipalId::new);
        let mut each = [0; 2];
        sessions.for_each(|session| {
            each[of.iter().position(|id| *id == session.principal_id()).expect("it is one of the two")] += 1;
        });
        assert_eq!(sessions.len(), each[0] + each[1]);
        assert!(each[0] <= PRINCIPAL_LIMIT && each[1] <= PRINCIPAL_LIMIT, "{each:?}");
    }
}
