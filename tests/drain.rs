//! Shutting down: nothing new, what is in flight finishes, streams are told to come back, and all of it by the
//! deadline.

#![cfg(feature = "server")]

mod support;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ringmain::server::{Config, Drained, Readiness, Server};
use serde_json::json;
use support::{
    Client, Control, Http2, POST_HEADERS, Script, TestServer, Wire, hello, note, publish, publish_json,
    request, test, until,
};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

fn draining_for(deadline: Duration) -> Config {
    let mut config = Config::default();
    config.drain = deadline;
    config
}

/// Far off: a drain that needs it has failed.
const LONG: Duration = Duration::from_secs(30);

/// Waits until new connections are refused.
async fn refuses(server: &TestServer) {
    until("the listener to go", || std::net::TcpStream::connect(server.address).is_err()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_ends_by_deadline() {
    test(async {
        // Everything finishes.
        let server = TestServer::start(draining_for(LONG));
        let client = server.client().await;
        let old = server.client_of("2025-06-18").await;
        let mut listening = client.listen(None).await;
        listening.primed().await;
        publish(&server.session(&client), 1);
        let mut old_listening = old.listen(None).await;
        let mut call = client.call_stream(1, "steps", json!({"label": "call", "after": 2})).await;
        call.primed().await;
        let http2 = Http2::connect(server.address).await;
        let over_http2 = Client::initialize_over(http2.clone(), "2025-11-25").await;
        let mut http2_listening = over_http2.listen(None).await;
        http2_listening.primed().await;
        let mut http2_call = over_http2.call_stream(1, "steps", json!({"label": "http2"})).await;
        http2_call.primed().await;
        // Requests whose last byte is still to come: the server has begun to read them.
        let hello = request("POST", &POST_HEADERS, &hello("2025-11-25"));
        let again = client.post_bytes(&json!({"jsonrpc": "2.0", "id": 2, "method": "ping"}));
        let mut late = Vec::new();
        for whole in [&hello, &again] {
            let mut wire = Wire::connect(server.address).await;
            wire.send(&whole[..whole.len() - 1]).await;
            late.push(wire);
        }
        client.ping(3).await;

        server.handle.drain();
        assert_eq!(support::number(&listening.message().await.1), 1, "what was published is delivered first");
        listening.told_to_come_back().await;
        old_listening.ended().await;
        http2_listening.told_to_come_back().await;
        refuses(&server).await;
        // No new session; and no end to those there are.
        let mut late = late.into_iter();
        let mut answer = async |last: u8| {
            let mut wire = late.next().expect("there are two");
            wire.send(&[last]).await;
            wire.reply().await
        };
        let reply = answer(hello[hello.len() - 1]).await;
        assert_eq!(reply.header("mcp-session-id"), None);
        reply.error(503).await;
        assert_eq!(answer(again[again.len() - 1]).await.json().await["id"], 2);
        // What is in flight goes on to its end.
        server.control.release("call");
        assert_eq!(call.message().await.1["params"]["number"], 1);
        assert_eq!(call.message().await.1["params"]["number"], 2);
        assert_eq!(call.message().await.1["result"]["done"], "call");
        call.ended().await;
        server.control.release("http2");
        assert_eq!(http2_call.message().await.1["result"]["done"], "http2");
        http2_call.ended().await;
        drop((over_http2, http2));
        assert_eq!(server.stopped().await, Drained::Complete);

        // Something never ends.
        let server = TestServer::start(draining_for(Duration::from_millis(300)));
        let client = server.client().await;
        let mut call = client.call_stream(1, "steps", json!({"label": "never"})).await;
        call.primed().await;
        let control = server.control.clone();
        server.handle.drain();
        let began = Instant::now();
        call.ended().await;
        assert_eq!(server.stopped().await, Drained::CutOff);
        assert!(
            began.elapsed() >= Duration::from_millis(250),
            "it was given its time: {:?}",
            began.elapsed()
        );
        assert!(began.elapsed() < Duration::from_secs(5), "and no more: {:?}", began.elapsed());
        control.noted("never:cancelled").await;
        control.noted("closed").await;
    })
    .await;
}

/// Clients that are sent away together do not come back together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_to_come_back_at_different_times() {
    test(async {
        let mut config = draining_for(LONG);
        config.drain_spread = Duration::from_secs(8);
        let server = TestServer::start(config);
        let mut listening = Vec::new();
        for number in 0..40 {
            let client = if number % 2 == 0 {
                server.client().await
            } else {
                Client::initialize_over(Http2::connect(server.address).await, "2025-11-25").await
            };
            let mut stream = client.listen(None).await;
            let priming = stream.next().await.expect("a priming event");
            assert_eq!(priming.retry, Some(1000), "a break on its own is mended at once");
            listening.push(stream);
        }
        server.handle.drain();
        let mut waits = Vec::new();
        for mut stream in listening {
            let event = stream.next().await.expect("a retry field");
            waits.push(event.retry.expect("a retry field"));
            stream.ended().await;
        }
        assert!(waits.iter().all(|wait| (1000..=9000).contains(wait)), "{waits:?}");
        waits.sort_unstable();
        assert!(waits[10] - waits[0] > 100 && waits[39] - waits[30] > 100, "spread: {waits:?}");
        assert!(waits[39] - waits[0] > 4000, "over the whole window: {waits:?}");
        assert_eq!(server.stopped().await, Drained::Complete);
    })
    .await;
}

/// A server that ended has no sessions, whichever way it ended, and its handler knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_with_the_server() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let session = server.session(&client);
        let control = server.control.clone();
        server.handle.drain();
        assert_eq!(server.stopped().await, Drained::Complete);
        assert!(session.is_closed(), "its handler may publish to it for ever");
        assert_eq!(control.count("closed"), 1);
    })
    .await;
}

/// Connections that stay open from before are not a way in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_new_begins_during_a_drain() {
    test(async {
        let server = TestServer::start(draining_for(LONG));
        let client = server.client().await;
        let mut call = client.call_stream(1, "steps", json!({})).await;
        call.primed().await;
        // A request whose head is there and whose body is not: the server has begun to read it.
        let hello = hello("2025-11-25");
        let whole = request("POST", &POST_HEADERS, &hello);
        let mut late = Wire::connect(server.address).await;
        late.send(&whole[..whole.len() - 1]).await;
        // The server has read it for certain once it has answered somebody who came later.
        client.ping(2).await;
        let mut idle = Wire::connect(server.address).await;
        idle.send(&client.post_bytes(&json!({"jsonrpc": "2.0", "id": 3, "method": "ping"}))).await;
        let mut reply = idle.reply().await;
        reply.json().await;
        let mut idle = reply.body.into_wire();

        server.handle.drain();
        refuses(&server).await;
        late.send(&whole[whole.len() - 1..]).await;
        let reply = late.reply().await;
        assert_eq!(reply.header("mcp-session-id"), None);
        assert_eq!(reply.error(503).await["error"]["code"], -32000);
        // The idle connection is closed, because nothing is in flight on it.
        idle.closed().await;
        assert_eq!(idle.received, b"");
        server.control.release("call");
        call.rest().await;
        assert_eq!(server.stopped().await, Drained::Complete);
    })
    .await;
}

/// A client that opened a connection and said nothing has nothing in flight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connection_does_not_hold_up_a_drain() {
    test(async {
        let server = TestServer::start(draining_for(Duration::from_secs(3)));
        server.client().await;
        let silent = TcpStream::connect(server.address).await.expect("the server listens");
        // It was accepted for certain once one behind it in the queue was answered.
        server.client().await.ping(1).await;
        server.handle.drain();
        assert_eq!(server.stopped().await, Drained::Complete);
        drop(silent);
    })
    .await;
}

/// Nor has one that stopped in the middle of a head.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_head_does_not_hold_up_a_drain() {
    test(async {
        let server = TestServer::start(draining_for(Duration::from_secs(3)));
        let mut half = Wire::connect(server.address).await;
        half.send(b"POST /mcp HTTP/1.1\r\nHost: localh").await;
        server.client().await.ping(1).await;
        server.handle.drain();
        assert_eq!(server.stopped().await, Drained::Complete);
    })
    .await;
}

/// Nor one whose body lacks five bytes. Each held a drain for its whole time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_body_does_not_hold_up_a_drain() {
    test(async {
        let server = TestServer::start(draining_for(LONG));
        let client = server.client().await;
        let ping = json!({"jsonrpc": "2.0", "id": 2, "method": "ping"});
        let [in_session, new] =
            [client.post_bytes(&ping), request("POST", &POST_HEADERS, &hello("2025-11-25"))];
        let mut halves = Vec::new();
        for whole in [in_session, new] {
            let mut half = Wire::connect(server.address).await;
            half.send(&whole[..whole.len() - 5]).await;
            halves.push(half);
        }
        client.ping(3).await;
        let began = Instant::now();
        server.handle.drain();
        for half in halves {
            half.reply().await.error(503).await;
        }
        assert_eq!(server.stopped().await, Drained::Complete);
        assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
    })
    .await;
}

/// Connections and sessions went on without a clock, and without anything that looks after them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_what_serves_ends_what_is_open() {
    test(async {
        for hand_over in [true, false] {
            let mut config = Config::default();
            config.hand_over = hand_over;
            let server = TestServer::start(config);
            let client = server.client().await;
            let mut listening = client.listen(None).await;
            listening.primed().await;
            let mut call = client.call_stream(1, "steps", json!({"label": "call"})).await;
            call.primed().await;
            let mut silent = TcpStream::connect(server.address).await.expect("the server listens");
            let http2 = Http2::connect(server.address).await;
            Client::initialize_over(http2.clone(), "2025-11-25").await;
            assert_eq!(server.sessions.len(), 2);
            server.abandon();
            listening.gone().await;
            call.gone().await;
            http2.closed().await;
            assert_eq!(support::soon("the end", silent.read(&mut [0; 8])).await.unwrap_or(0), 0);
            until("the sessions to end", || server.sessions.is_empty()).await;
            until("the handler to be told", || server.control.count("closed") == 2).await;
            refuses(&server).await;
        }
    })
    .await;
}

/// "Everything ends": the connection of a client that reads nothing too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_connection_is_cut_off_at_the_deadline() {
    test(async {
        let server = TestServer::start(draining_for(Duration::from_millis(300)));
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
        server.handle.drain();
        assert_eq!(server.stopped().await, Drained::CutOff);
        until("the server to let go of the connection", || !session.standalone().terms().is_attached()).await;
        drop(stalled);
    })
    .await;
}

/// A stream that is written to all the time ends as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_stream_ends_at_a_drain() {
    test(async {
        let server = TestServer::start(draining_for(Duration::from_secs(3)));
        let client = server.client().await;
        let session = server.session(&client);
        let mut listening = client.listen(None).await;
        listening.primed().await;
        let publisher = std::thread::spawn(move || {
            let mut number = 0;
            while !session.is_closed() && number < 3_000_000 {
                number += 1;
                let message =
                    format!(r#"{{"jsonrpc":"2.0","method":"test/note","params":{{"number":{number}}}}}"#);
                if session.publish(|out| out.extend(message.bytes())).is_err() {
                    break;
                }
            }
            session
        });
        listening.message().await;
        server.handle.drain();
        listening.rest().await;
        assert_eq!(server.stopped().await, Drained::Complete);
        drop(publisher);
    })
    .await;
}

/// By its handle, also before it runs, and by the future it was given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_is_asked_for_in_two_ways() {
    test(async {
        let bind = || {
            let handler = Script::new(Control::default());
            Server::bind((Ipv4Addr::LOCALHOST, 0).into(), handler, Config::default()).expect("a port")
        };
        let (early, by_future) = (bind(), bind());
        early.handle().drain();
        assert_eq!(early.run(std::future::pending()).await, Drained::Complete);
        let handle = by_future.handle();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(by_future.run(async { drop(stopped.await) }));
        Client::initialize(handle.local_addr(), "2025-11-25").await.ping(1).await;
        drop(stop);
        assert_eq!(running.await.expect("it does not panic"), Drained::Complete);
        assert_eq!(handle.metrics().readiness(), Readiness::Draining);
        // The handle outlives the server, and does nothing any more.
        handle.drain();
    })
    .await;
}
