//! Session management: how sessions begin, whom they belong to, and how they end.

#![cfg(feature = "server")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringmain::handler::{Context, Handler, Request};
use ringmain::server::{Config, Server};
use ringmain::session::Session;
use serde_json::json;
use support::{POST_HEADERS, TestServer, Wire, hello, note, publish, publish_json, request, test, until};

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#session-management
//= type=test
//# The server MAY terminate the session at any time, after which it MUST respond to requests containing that
//# session ID with HTTP 404 Not Found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_ends_open_streams() {
    test(async {
        let server = TestServer::start(Config::default());
        let (client, other) = (server.client().await, server.client().await);
        let session = server.session(&client);
        let mut listening = client.listen(None).await;
        let last = listening.primed().await;
        let mut call = client.call_stream(1, "steps", json!({"label": "call", "before": 1})).await;
        call.primed().await;
        call.message().await;
        let mut others = other.listen(None).await;
        others.primed().await;

        client.delete().await.nothing(204).await;
        // Without a word: there is nothing to come back for.
        listening.ended().await;
        call.ended().await;
        server.control.noted("call:cancelled").await;
        server.control.noted("closed").await;
        assert_eq!(server.control.count("closed"), 1);
        assert!(session.publish(|out| out.extend(b"{}")).is_err(), "nobody can publish to it");

        for gone in [
            client.request(3, "ping", json!({})).await,
            client.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await,
            client.post(&json!({"jsonrpc": "2.0", "id": 1, "result": {}})).await,
            client.get(None).await,
            client.get(Some(&last)).await,
            client.delete().await,
        ] {
            assert_eq!(gone.error(404).await["error"]["code"], -32001);
        }
        assert_eq!(server.sessions.len(), 1);
        publish(&server.session(&other), 1);
        others.message().await;
        other.ping(1).await;
    })
    .await;
}

/// A handler whose `closed` takes as long as the test likes.
struct Slow {
    closing: Arc<AtomicBool>,
    go_on: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Handler for Slow {
    async fn request(&self, _: Request, context: Context) {
        context.respond(&json!({}));
    }

    fn closed(&self, _: &Session) {
        self.closing.store(true, Ordering::Relaxed);
        let _ = self.go_on.lock().unwrap().recv();
    }
}

/// The clock stood while a sweep was on, and events were not let go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clock_goes_on_during_a_sweep() {
    test(async {
        let (go_on, waits) = std::sync::mpsc::channel();
        let closing = Arc::<AtomicBool>::default();
        let handler = Slow { closing: closing.clone(), go_on: Mutex::new(waits) };
        let mut config = Config::default();
        config.sweep = Duration::from_millis(20);
        config.sessions.idle_ms = 200;
        config.sessions.max_retained_bytes = 1 << 20;
        let server = TestServer::start_with(handler, config);
        let ends = server.sessions.create(None);
        until("the sweep to be held up", || closing.load(Ordering::Relaxed)).await;
        let (sessions, began) = (server.sessions.clone(), server.sessions.clock().now());
        let full = sessions.create(None);
        for _ in 0..64 {
            full.publish(|out| out.resize(out.len() + (64 << 10), b'x')).unwrap();
        }
        until("the budget to hold", || sessions.counters().relieved_bytes() > 0).await;
        until("time to pass", || sessions.clock().now().since(began) > 300).await;
        assert!(ends.is_closed() && !full.is_closed(), "the sweep is still on");
        go_on.send(()).unwrap();
        drop(go_on);
        until("the sweep to go on", || full.is_closed()).await;
    })
    .await;
}

#[test]
fn bind_fails_where_it_cannot_work() {
    let address: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    let handler = || Slow { closing: Arc::default(), go_on: Mutex::new(std::sync::mpsc::channel().1) };
    let bind = |config: Config| Server::bind(address, handler(), config).map(drop);
    let error = bind(Config::default()).expect_err("there is no runtime").to_string();
    assert!(error.contains("runtime") || error.contains("reactor"), "{error}");
    let runtime = |able: bool| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        if able { runtime.enable_all() } else { &mut runtime }.build().unwrap()
    };
    let error = runtime(false).block_on(async { bind(Config::default()) }).expect_err("it has no timers");
    assert!(error.to_string().contains("enable_time"), "{error}");
    runtime(true).block_on(async {
        bind(Config::default()).unwrap();
        let metrics = Server::bind(address, handler(), Config::default()).unwrap().handle().metrics();
        std::thread::spawn(move || {
            ringmain::server::Admin::bind(address, metrics).map(drop).expect_err("there is no runtime");
        })
        .join()
        .unwrap();
        type Change = fn(&mut Config);
        let changes: [(&str, Change); 13] = [
            ("read_timeout", |config| config.read_timeout = Duration::ZERO),
            ("stalled_after", |config| config.stalled_after = Duration::ZERO),
            ("keep_alive", |config| config.keep_alive = Duration::from_nanos(63)),
            ("sweep", |config| config.sweep = Duration::ZERO),
            ("connections.idle", |config| config.connections.idle = Duration::ZERO),
            ("connections.max_age", |config| config.connections.max_age = Some(Duration::ZERO)),
            ("sessions.init_ms", |config| config.sessions.init_ms = 0),
            ("sessions.idle_ms", |config| config.sessions.idle_ms = 0),
            ("sessions.absolute_ms", |config| config.sessions.absolute_ms = 0),
            ("sessions.response_ttl_ms", |config| config.sessions.response_ttl_ms = 0),
            ("sessions.standalone.max_age_ms", |config| config.sessions.standalone.max_age_ms = 0),
            ("sessions.request.max_age_ms", |config| config.sessions.request.max_age_ms = 0),
            ("sessions.broadcast.max_age_ms", |config| config.sessions.broadcast.max_age_ms = 0),
        ];
        for (field, change) in changes {
            let mut config = Config::default();
            change(&mut config);
            let error = bind(config).expect_err(field);
            assert!(error.is_config(), "{error:?}");
            assert!(error.to_string().starts_with(field), "{error}");
        }
        let mut config = Config::default();
        (config.drain, config.drain_spread) = (Duration::ZERO, Duration::ZERO);
        bind(config).expect("a drain may be over at once");
    });
}

/// A question that the end of its session leaves unanswered does not become a response on the way out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_ends_requests_before_their_questions() {
    test(async {
        let server = TestServer::start(Config::default());
        for round in 0..100 {
            let client = server.client().await;
            let mut asking = client.call_stream(1, "ask", json!({})).await;
            asking.primed().await;
            assert_eq!(asking.message().await.1["method"], "sampling/createMessage");
            client.delete().await.nothing(204).await;
            assert_eq!(asking.rest().await, [], "round {round}: nothing comes behind the end");
        }
    })
    .await;
}

/// A client that reads nothing cannot be told that its session ended, but its connection can end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_ends_stalled_streams() {
    test(async {
        let mut config = Config::default();
        config.keep_alive = Duration::from_millis(100);
        if support::inside_hyper() {
            // There the connection lasts until it is found stalled.
            config.stalled_after = Duration::from_millis(300);
        }
        let server = TestServer::start(config);
        let client = server.client().await;
        let session = server.session(&client);
        let mut stalled = Wire::connect_narrow(server.address).await;
        stalled.send(&client.get_bytes(None)).await;
        until("the server to attach", || session.standalone().terms().is_attached()).await;
        for number in 1..=1500 {
            publish_json(&session, &note(number, 8000));
            if number % 16 == 0 {
                tokio::task::yield_now().await;
            }
        }
        client.delete().await.nothing(204).await;
        // The server gives the connection up, so that nothing of the session is held by it any more.
        until("the server to let go of the connection", || !session.standalone().terms().is_attached()).await;
        drop(stalled);
    })
    .await;
}

/// A client that takes nothing for too long loses its connection, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_connection_ends_and_resumes() {
    test(async {
        let mut config = Config::default();
        config.keep_alive = Duration::from_millis(50);
        config.stalled_after = Duration::from_millis(200);
        let server = TestServer::start(config);
        let client = server.client().await;
        let session = server.session(&client);
        let mut stalled = Wire::connect_narrow(server.address).await;
        stalled.send(&client.get_bytes(None)).await;
        until("the server to attach", || session.standalone().terms().is_attached()).await;
        for number in 1..=1500 {
            publish_json(&session, &note(number, 8000));
            if number % 16 == 0 {
                tokio::task::yield_now().await;
            }
        }
        until("the server to let go of the connection", || !session.standalone().terms().is_attached()).await;
        publish_json(&session, &note(1501, 0));
        let mut again = client.listen(None).await;
        again.primed().await;
        loop {
            let (_, message) = again.message().await;
            if message["method"] == "test/note" && support::number(&message) == 1501 {
                break;
            }
        }
        drop(stalled);
    })
    .await;
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#session-management
//= type=test
//# The session ID SHOULD be globally unique and cryptographically secure (e.g., a securely generated UUID, a JWT,
//# or a cryptographic hash). The session ID MUST only contain visible ASCII characters (ranging from 0x21 to 0x7E).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_chosen_session_id_is_refused() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let chosen = "0123456789abcdef0123456789abcdef";
        let mut ids = vec![client.session.clone()];
        for (id, status, code) in [
            (chosen, 404, -32001),
            ("my-own-id", 404, -32001),
            ("00000000000000000000000000000000", 404, -32001),
            (client.session.as_str(), 400, -32600),
        ] {
            let headers = [POST_HEADERS.to_vec(), vec![("Mcp-Session-Id", id)]].concat();
            let reply = client.send("POST", &headers, &hello("2025-11-25")).await;
            assert_eq!(reply.header("mcp-session-id"), None, "{id}");
            assert_eq!(reply.error(status).await["error"]["code"], code, "{id}");
        }
        // None of them is known now.
        for id in [chosen, "my-own-id"] {
            let mut stranger = client.clone();
            stranger.session = id.to_owned();
            stranger.request(1, "ping", json!({})).await.error(404).await;
        }
        assert_eq!(server.sessions.len(), 1);
        client.ping(1).await;

        for _ in 0..50 {
            let id = server.client().await.session;
            assert!(
                id.len() >= 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "128 bits in visible ASCII"
            );
            assert!(!ids.contains(&id));
            ids.push(id);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_share_nothing() {
    test(async {
        let server = TestServer::start(Config::default());
        let (one, two) = (server.client().await, server.client().await);
        let mut listening = (one.listen(None).await, two.listen(None).await);
        listening.0.primed().await;
        listening.1.primed().await;
        // The same request ID, in flight in both.
        let mut calls = (
            one.call_stream(1, "steps", json!({"label": "one"})).await,
            two.call_stream(1, "steps", json!({"label": "two"})).await,
        );
        publish(&server.session(&one), 1);
        publish(&server.session(&two), 2);
        assert_eq!(support::number(&listening.0.message().await.1), 1);
        assert_eq!(support::number(&listening.1.message().await.1), 2);
        one.notify("notifications/cancelled", json!({"requestId": 1})).await;
        server.control.noted("one:cancelled").await;
        server.control.release("two");
        assert_eq!(calls.0.rest().await.len(), 1);
        assert_eq!(calls.1.rest().await[1].message()["result"]["done"], "two");
        one.delete().await.nothing(204).await;
        listening.0.ended().await;
        publish(&server.session(&two), 3);
        assert_eq!(support::number(&listening.1.message().await.1), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_session_expires_and_ends_its_streams() {
    test(async {
        let mut config = Config::default();
        config.sessions.idle_ms = 300;
        config.sweep = Duration::from_millis(50);
        let server = TestServer::start(config);
        let client = server.client().await;
        let began = Instant::now();
        let mut listening = client.listen(None).await;
        listening.primed().await;
        // Keep-alives are far off, so nothing says that the client still reads.
        listening.ended().await;
        assert!(began.elapsed() >= Duration::from_millis(250), "not before its time: {:?}", began.elapsed());
        server.control.noted("closed").await;
        client.request(1, "ping", json!({})).await.error(404).await;
        assert!(server.sessions.is_empty());

        // A request in flight keeps its session, however long it takes.
        let client = server.client().await;
        let session = server.session(&client);
        let bystander = server.client().await;
        let mut call = client.call_stream(1, "steps", json!({"label": "long"})).await;
        call.primed().await;
        until("the bystander to expire", || server.sessions.len() == 1).await;
        drop(bystander);
        assert!(!session.is_closed());
        server.control.release("long");
        assert_eq!(call.message().await.1["id"], 1);
        until("the session to expire", || server.sessions.is_empty()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attached_session_is_not_idle() {
    test(async {
        let mut config = Config::default();
        config.sessions.idle_ms = 600;
        config.sweep = Duration::from_millis(50);
        config.keep_alive = Duration::from_millis(100);
        let server = TestServer::start(config);
        let client = server.client().await;
        let mut listening = client.listen(None).await;
        listening.primed().await;
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1800) {
            assert!(matches!(listening.try_block().await, Ok(Some(support::Block::Comment(_)))));
        }
        publish(&server.session(&client), 1);
        assert_eq!(support::number(&listening.message().await.1), 1);
        client.ping(1).await;
        listening.into_wire().reset();
        until("the session to expire", || server.sessions.counters().expired_idle() == 1).await;
        until("the session to be forgotten", || server.sessions.is_empty()).await;
    })
    .await;
}

/// Publishes `count` events of 64 KB, which are more than the system takes for a client that reads nothing.
async fn publish_heavy(session: &Session, count: usize) {
    let message = note(0, 64 << 10).to_string();
    for _ in 0..count {
        assert!(session.publish(|out| out.extend_from_slice(message.as_bytes())).is_ok());
        tokio::task::yield_now().await;
    }
}

/// Idle time counts from the last byte that the client took, of a backlog that it takes slowly too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_reader_is_not_idle() {
    test(async {
        let mut config = Config::default();
        config.sessions.standalone.max_weight = 64 << 20;
        config.sessions.idle_ms = 1500;
        config.sweep = Duration::from_millis(50);
        config.keep_alive = Duration::from_secs(60);
        let server = TestServer::start(config);
        let client = server.client().await;
        let session = server.session(&client);
        let mut slow = Wire::connect(server.address).await;
        slow.send(&client.get_bytes(None)).await;
        until("the server to attach", || session.standalone().terms().is_attached()).await;
        publish_heavy(&session, 250).await;
        let began = Instant::now();
        let mut pause = tokio::time::interval(Duration::from_millis(200));
        for step in 1..=24 {
            pause.tick().await;
            while slow.received.len() < step * (640 << 10) {
                assert!(slow.more().await, "the session is alive");
            }
        }
        assert!(began.elapsed() > Duration::from_millis(3 * 1500) && !session.is_closed());
    })
    .await;
}

/// A client that takes nothing keeps its connection until it counts as stalled, and its session not that long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_session_expires() {
    test(async {
        let mut config = Config::default();
        config.sessions.idle_ms = 1000;
        config.sweep = Duration::from_millis(50);
        config.keep_alive = Duration::from_millis(100);
        config.stalled_after = Duration::from_secs(30);
        let server = TestServer::start(config);
        let (client, other) = (server.client().await, server.client().await);
        let mut reading = other.listen(None).await;
        reading.primed().await;
        let session = server.session(&client);
        let mut silent = Wire::connect_narrow(server.address).await;
        silent.send(&client.get_bytes(None)).await;
        until("the server to attach", || session.standalone().terms().is_attached()).await;
        publish_heavy(&session, 200).await;
        assert!(session.standalone().terms().is_attached());
        let (counters, mut comments) = (server.sessions.counters(), 0);
        while counters.expired_idle() == 0 {
            assert!(matches!(reading.try_block().await, Ok(Some(support::Block::Comment(_)))));
            comments += 1;
        }
        assert!(session.is_closed() && comments > 2, "{comments}");
        client.request(1, "ping", json!({})).await.error(404).await;
        // The client that reads is there still.
        other.ping(1).await;
        publish(&server.session(&other), 1);
        assert_eq!(support::number(&reading.message().await.1), 1);
        drop(silent);
    })
    .await;
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/lifecycle#initialization
//= type=test
//# After successful initialization, the client MUST send an `initialized` notification to indicate it is ready to
//# begin normal operations
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uninitialised_session_expires() {
    test(async {
        let mut config = Config::default();
        config.sessions.init_ms = 400;
        config.sweep = Duration::from_millis(50);
        config.keep_alive = Duration::from_millis(50);
        let server = TestServer::start(config);
        // One that does not come back, though it reads the answer slowly, and one whose `initialize` takes too long.
        let began = Instant::now();
        let post = |body: Vec<u8>| async move {
            let mut wire = Wire::connect(server.address).await;
            wire.send(&request("POST", &POST_HEADERS, &body)).await;
            wire.reply().await
        };
        let silent = post(hello("2025-11-25")).await;
        let mut body: serde_json::Value = serde_json::from_slice(&hello("2025-11-25")).unwrap();
        body["params"]["test"] = "early".into();
        let waiting = post(body.to_string().into_bytes()).await;
        let id = waiting.header("mcp-session-id").expect("a session id").to_owned();
        let mut waiting = waiting.stream().await;
        let good = server.client().await;
        assert_eq!(server.sessions.len(), 3);
        until("the two to expire", || server.sessions.len() == 1).await;
        assert!(
            began.elapsed() >= Duration::from_millis(400),
            "not before their time: {:?}",
            began.elapsed()
        );
        assert_eq!(waiting.rest().await.last().expect("what came early").message()["method"], "test/early");
        for id in [silent.header("mcp-session-id").expect("a session id"), id.as_str()] {
            let mut gone = good.clone();
            gone.session = id.to_owned();
            gone.request(1, "ping", json!({})).await.error(404).await;
        }
        until("the handler to be told", || server.control.count("closed") == 2).await;
        good.ping(1).await;
        assert_eq!(server.sessions.counters().expired_uninitialised(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absolute_lifetime_holds() {
    test(async {
        let mut config = Config::default();
        config.sessions.absolute_ms = 400;
        config.sweep = Duration::from_millis(50);
        config.keep_alive = Duration::from_millis(100);
        let server = TestServer::start(config);
        let client = server.client().await;
        let mut listening = client.listen(None).await;
        let mut call = client.call_stream(1, "steps", json!({"label": "long"})).await;
        listening.primed().await;
        call.primed().await;
        let mut busy = 100;
        while !server.sessions.is_empty() {
            busy += 1;
            let reply = client.request(busy, "ping", json!({})).await;
            assert!(matches!(reply.status, 200 | 404), "status {}", reply.status);
        }
        listening.ended().await;
        call.ended().await;
        server.control.noted("long:cancelled").await;
        assert_eq!(server.sessions.counters().expired_absolute(), 1);
    })
    .await;
}
