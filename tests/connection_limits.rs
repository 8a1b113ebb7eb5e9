//! How many connections there may be, how long they may be silent, and how old they may become.

#![cfg(feature = "server")]

mod support;

use std::time::{Duration, Instant};

use ringmain::server::{Config, Connections, Drained};
use serde_json::{Value, json};
use support::{Client, Http2, POST_HEADERS, Reply, TestServer, Wire, publish, request, soon, test, until};

fn limits(change: impl FnOnce(&mut Connections)) -> Config {
    let mut config = Config::default();
    change(&mut config.connections);
    config
}

fn ping(client: &Client, id: u64) -> Vec<u8> {
    client.post_bytes(&json!({"jsonrpc": "2.0", "id": id, "method": "ping"}))
}

/// Sends a ping and gives the connection back.
async fn pong(mut wire: Wire, client: &Client, id: u64) -> Wire {
    wire.send(&ping(client, id)).await;
    let mut reply = wire.reply().await;
    assert_eq!(reply.json().await["id"], id);
    reply.body.into_wire()
}

async fn turned_away(wire: Wire) {
    let reply: Reply = wire.reply().await;
    assert_eq!(reply.header("retry-after"), Some("5"));
    assert_eq!(reply.header("connection"), Some("close"));
    let body: Value = reply.error(503).await;
    assert_eq!(body["error"]["code"], -32000);
}

/// Waits until the server counts `count` open connections.
async fn open(server: &TestServer, count: usize) {
    let metrics = server.metrics.clone();
    let counters = metrics.connections();
    until(&format!("{count} open connections"), || counters.open() == count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_is_turned_away() {
    test(async {
        let server = TestServer::start(limits(|limits| limits.max = Some(3)));
        let client = server.client().await;
        open(&server, 0).await;
        // One inside hyper, one in the writer, one that says nothing.
        let held = pong(Wire::connect(server.address).await, &client, 1).await;
        let mut listening = client.listen(None).await;
        listening.primed().await;
        let silent = Wire::connect(server.address).await;
        open(&server, 3).await;
        turned_away(Wire::connect(server.address).await).await;
        assert_eq!(server.metrics.connections().refused_total(), 1);
        // Those inside are served on, and each way out makes space.
        publish(&server.session(&client), 1);
        listening.message().await;
        let held = pong(held, &client, 2).await;
        silent.reset();
        open(&server, 2).await;
        drop(listening);
        open(&server, 1).await;
        drop(held);
        open(&server, 0).await;
        client.ping(3).await;
    })
    .await;
}

/// A connection is one, however often it goes to the writer and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_that_comes_back_from_the_writer_is_counted_once() {
    test(async {
        let server = TestServer::start(limits(|limits| {
            limits.max_per_address = Some(2);
            limits.count_loopback = true;
        }));
        let client = server.client().await;
        open(&server, 0).await;
        let silent = Wire::connect(server.address).await;
        let mut wire = Wire::connect(server.address).await;
        for round in 0..5 {
            let call = json!({"jsonrpc": "2.0", "id": round, "method": "tools/call",
                "params": {"name": "steps", "arguments": {"label": "call", "before": 1}}});
            wire.send(&client.post_bytes(&call)).await;
            let mut stream = wire.reply().await.stream().await;
            stream.primed().await;
            open(&server, 2).await;
            turned_away(Wire::connect(server.address).await).await;
            server.control.release("call");
            stream.rest().await;
            wire = pong(stream.into_wire(), &client, 100 + round).await;
        }
        assert_eq!(server.metrics.connections().refused_address(), 5);
        drop((wire, silent));
        open(&server, 0).await;
        client.ping(1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impossible_limits_are_errors_at_start() {
    for change in [
        (|limits| limits.max = Some(0)) as fn(&mut Connections),
        |limits| limits.max_per_address = Some(0),
        |limits| limits.max_age = Some(Duration::ZERO),
        |limits| limits.idle = Duration::ZERO,
        |limits| limits.max_http2_control_rate = 0,
    ] {
        let error = TestServer::try_start(limits(change)).err().expect("it cannot work");
        assert!(error.is_config(), "{error:?}");
        assert!(error.to_string().starts_with("connections."), "it names the setting: {error}");
    }
}

/// A head has its time from its first byte, however slowly it comes; first heads and later ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_head_ends_by_its_deadline() {
    test(async {
        let mut config = limits(|limits| limits.idle = Duration::from_secs(30));
        config.read_timeout = Duration::from_millis(600);
        let server = TestServer::start(config);
        let client = server.client().await;
        let held = pong(Wire::connect(server.address).await, &client, 1).await;
        for (mut wire, ended) in [(Wire::connect(server.address).await, 1), (held, 2)] {
            let began = Instant::now();
            let whole = ping(&client, 2);
            let mut bytes = whole.chunks(1);
            // The server's end of it is seen by reading; a byte every 20 ms would take seconds.
            let mut trickle = tokio::time::interval(Duration::from_millis(20));
            let mut piece = [0; 512];
            loop {
                tokio::select! {
                    _ = trickle.tick() => wire.send_while_open(bytes.next().expect("the head has more bytes")).await,
                    read = tokio::io::AsyncReadExt::read(&mut wire.socket, &mut piece) => {
                        assert_eq!(read.unwrap_or(0), 0, "an answer to half a head");
                        break;
                    }
                }
            }
            let took = began.elapsed();
            assert!((500..3000).contains(&took.as_millis()), "{took:?}");
            until("it to be counted", || server.metrics.connections().closed_deadline() == ended).await;
        }
        client.ping(3).await;
    })
    .await;
}

/// Nor may a body trickle: its deadline is one for all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_body_ends_by_its_deadline() {
    test(async {
        let mut config = Config::default();
        config.read_timeout = Duration::from_millis(600);
        let server = TestServer::start(config);
        let client = server.client().await;
        let mut wire = Wire::connect(server.address).await;
        let whole = ping(&client, 1);
        let body = whole.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        wire.send(&whole[..body]).await;
        let began = Instant::now();
        let mut bytes = whole[body..whole.len() - 1].chunks(1);
        let mut trickle = tokio::time::interval(Duration::from_millis(30));
        let mut piece = [0; 512];
        let count = loop {
            tokio::select! {
                _ = trickle.tick() => if let Some(byte) = bytes.next() { wire.send_while_open(byte).await },
                read = tokio::io::AsyncReadExt::read(&mut wire.socket, &mut piece) => break read.unwrap_or(0),
            }
        };
        let took = began.elapsed();
        assert!((500..3000).contains(&took.as_millis()), "{took:?}");
        assert!(piece[..count].starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&piece[..count]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connection_is_closed_and_a_busy_one_is_not() {
    test(async {
        let server = TestServer::start(limits(|limits| limits.idle = Duration::from_millis(500)));
        let client = server.client().await;
        let mut listening = client.listen(None).await;
        listening.primed().await;
        let mut call = client.call_stream(7, "steps", json!({"label": "long"})).await;
        call.primed().await;
        let mut idle = pong(Wire::connect(server.address).await, &client, 1).await;
        let http2 = Http2::connect(server.address).await;
        let over_http2 = Client::initialize_over(http2.clone(), "2025-11-25").await;
        let mut http2_listening = over_http2.listen(None).await;
        http2_listening.primed().await;
        let idle_http2 = Http2::connect(server.address).await;
        Client::initialize_over(idle_http2.clone(), "2025-11-25").await;
        idle.closed().await;
        assert_eq!(idle.received, b"");
        soon("the idle HTTP/2 connection to end", idle_http2.closed()).await;
        assert_eq!(server.metrics.connections().closed_idle(), 2);
        // Streams are not idle, whatever they carry; nor is a connection whose request takes long.
        publish(&server.session(&client), 1);
        listening.message().await;
        publish(&server.session(&over_http2), 1);
        http2_listening.message().await;
        server.control.release("long");
        call.rest().await;
    })
    .await;
}

/// hyper reads before it answers, and not again by itself: an answer that comes late must not leave the connection
/// without a timer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connection_is_closed_after_an_answer_that_took_time() {
    test(async {
        let server = TestServer::start(limits(|limits| limits.idle = Duration::from_millis(300)));
        let mut wire = Wire::connect(server.address).await;
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "test": "slow",
            "clientInfo": {"name": "test", "version": "0"}});
        let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        wire.send(&request("POST", &POST_HEADERS, initialize.to_string().as_bytes())).await;
        server.control.noted("slow:ready").await;
        // Longer than a connection may be idle: it is not.
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(server.metrics.connections().closed_idle(), 0);
        server.control.release("slow");
        let mut reply = wire.reply().await;
        reply.bytes().await;
        let mut wire = reply.body.into_wire();
        wire.closed().await;
        assert_eq!((wire.received.len(), server.metrics.connections().closed_idle()), (0, 1));
    })
    .await;
}

/// A client that reads its answer slowly is not idle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_reader_of_a_large_answer_is_not_idle() {
    const PADDING: usize = 4 << 20;
    test(async {
        let server = TestServer::start(limits(|limits| limits.idle = Duration::from_millis(200)));
        let client = server.client().await;
        let mut wire = Wire::connect_tiny(server.address).await;
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "quick", "arguments": {"padding": PADDING}}});
        wire.send(&client.post_bytes(&call)).await;
        let began = Instant::now();
        while wire.received.len() < PADDING && wire.more().await {
            // For a second, a little at a time.
            if began.elapsed() < Duration::from_secs(1) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        assert!(wire.received.len() >= PADDING, "{} bytes", wire.received.len());
        assert!(
            wire.received.starts_with(b"HTTP/1.1 200") && server.metrics.connections().closed_idle() == 0
        );
    })
    .await;
}

/// Times beyond all measure are as good as none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_times_are_no_trouble() {
    test(async {
        let mut config = limits(|limits| limits.idle = Duration::MAX);
        (config.read_timeout, config.stalled_after) = (Duration::MAX, Duration::MAX);
        let server = TestServer::start(config);
        let client = server.client().await;
        let wire = pong(Wire::connect(server.address).await, &client, 1).await;
        pong(wire, &client, 2).await;
        let mut call = client.call_stream(3, "steps", json!({"label": "call", "before": 1})).await;
        call.primed().await;
        server.control.release("call");
        call.rest().await;
    })
    .await;
}

/// Clients are sent away in time to come back elsewhere, and lose nothing by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_connections_are_told_to_come_back() {
    test(async {
        let mut config = limits(|limits| limits.max_age = Some(Duration::from_millis(1500)));
        config.keep_alive = Duration::from_millis(200);
        let server = TestServer::start(config);
        let client = server.client().await;
        let http2 = Http2::connect(server.address).await;
        let over_http2 = Client::initialize_over(http2.clone(), "2025-11-25").await;
        let old = server.client_of("2025-06-18").await;
        let mut listening = client.listen(None).await;
        listening.primed().await;
        let mut http2_listening = over_http2.listen(None).await;
        http2_listening.primed().await;
        let mut call = client.call_stream(1, "steps", json!({"label": "call", "after": 1})).await;
        let place = call.primed().await;
        let mut old_call = old.call_stream(1, "steps", json!({"label": "old"})).await;
        // In use all the time, it is told with an answer.
        let mut busy = Wire::connect(server.address).await;
        loop {
            busy.send(&ping(&client, 5)).await;
            let mut reply = busy.reply().await;
            reply.json().await;
            if reply.header("connection") == Some("close") {
                break;
            }
            busy = reply.body.into_wire();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        listening.told_to_come_back().await;
        http2_listening.told_to_come_back().await;
        soon("the HTTP/2 connection to end", http2.closed()).await;
        call.told_to_come_back().await;
        // The request goes on without its connection, and its response is fetched.
        server.control.release("call");
        let rest = client.listen(Some(&place)).await.rest().await;
        assert_eq!(rest.last().expect("the response").message()["result"]["done"], "call");
        // A client that was given no ID to come back with keeps its connection to the response.
        server.control.release("old");
        assert_eq!(old_call.message().await.1["result"]["done"], "old");
        assert!(server.metrics.connections().closed_age() >= 2, "{:?}", server.metrics.connections());
        assert_eq!(server.stop().await, Drained::Complete);
    })
    .await;
}

/// What is held of bodies that do not come to their end is bounded over all clients together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_bodies_are_bounded() {
    test(async {
        let mut config = Config::default();
        config.max_body_bytes = 300_000;
        config.max_pending_body_bytes = 299_999;
        let error = TestServer::try_start(config.clone()).err().expect("it cannot work");
        assert!(error.to_string().contains("max_pending_body_bytes"), "{error}");
        config.max_pending_body_bytes = 1_000_000;
        let server = TestServer::start(config);
        let client = server.client().await;
        let call = |id: u64, padding: usize| {
            let padding = "x".repeat(padding);
            client
                .post_bytes(&json!({"jsonrpc": "2.0", "id": id, "method": "ping", "params": {"x": padding}}))
        };
        let mut held = Vec::new();
        for id in 0..3 {
            let whole = call(id, 280_000);
            let mut wire = Wire::connect(server.address).await;
            wire.send(&whole[..whole.len() - 1]).await;
            held.push((wire, whole[whole.len() - 1]));
        }
        // The fourth does not fit; it is refused.
        let refused = async {
            loop {
                let mut wire = Wire::connect(server.address).await;
                wire.send_while_open(&call(9, 280_000)).await;
                match wire.try_reply().await {
                    Ok(reply) if reply.status == 503 => return reply.error(503).await,
                    // The three may not have been read yet; or the refusal was lost with what was not read.
                    Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        assert_eq!(soon("a refusal", refused).await["error"]["code"], -32000);
        // What comes with its head is read, and those that were begun are read to their end.
        client.ping(10).await;
        for (mut wire, last) in held {
            wire.send(&[last]).await;
            assert_eq!(wire.reply().await.status, 200);
        }
        let mut wire = Wire::connect(server.address).await;
        wire.send(&call(11, 280_000)).await;
        assert_eq!(wire.reply().await.status, 200);
    })
    .await;
}
