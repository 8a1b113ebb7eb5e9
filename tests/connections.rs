//! Connections beyond their first answer: streams that end and go on, what a client sends meanwhile, sockets that
//! take little at a time, and many streams on one connection.

#![cfg(feature = "server")]

mod support;

use ringmain::server::{Config, Drained};
use ringmain::session::Session;
use serde_json::{Value, json};
use support::{Client, Http2, Stream, TestServer, Wire, note, number, publish_json, test, until};

fn ping(id: u64) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "ping"})
}

fn call(id: u64, label: &str) -> Value {
    let arguments = json!({"label": label, "before": 2, "after": 1});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "steps", "arguments": arguments}})
}

/// Reads the answer to `ping(id)` and gives the connection back.
async fn pong(wire: Wire, id: u64) -> Wire {
    let mut reply = wire.reply().await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json().await["id"], id);
    reply.body.into_wire()
}

/// Reads a call of [`call`] to its end and gives the connection back.
async fn result(stream: Stream, id: u64) -> Wire {
    let mut stream = stream;
    let events = stream.rest().await;
    assert_eq!(events.len(), 1 + 3 + 1, "priming, notifications and the response");
    assert_eq!(events.last().unwrap().message()["id"], id);
    stream.into_wire()
}

/// A connection is as good after a stream as before, and what was sent meanwhile is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_goes_on_behind_a_stream() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let mut wire = Wire::connect(server.address).await;
        for round in 0..3 {
            wire.send(&client.post_bytes(&call(10 + round, "first"))).await;
            let stream = wire.reply().await.stream().await;
            server.control.release("first");
            wire = result(stream, 10 + round).await;
            wire.send(&client.post_bytes(&ping(20 + round))).await;
            wire = pong(wire, 20 + round).await;
        }

        // Sent together: a short answer, a stream, and two more behind it.
        let together =
            [ping(1), call(2, "second"), ping(3), ping(4)].map(|message| client.post_bytes(&message));
        wire.send(&together.concat()).await;
        wire = pong(wire, 1).await;
        let stream = wire.reply().await.stream().await;
        server.control.release("second");
        wire = result(stream, 2).await;
        wire = pong(wire, 3).await;
        wire = pong(wire, 4).await;

        // Sent while the stream is on, and then half a head, whose rest comes later.
        wire.send(&client.post_bytes(&call(5, "third"))).await;
        let stream = wire.reply().await.stream().await;
        let mut wire = stream.into_wire();
        let late = [client.post_bytes(&ping(6)), client.post_bytes(&ping(7))].concat();
        wire.send(&late[..late.len() - 30]).await;
        server.control.release("third");
        // What is left of the stream was read away with its reader; so look for the next answer by hand.
        while !String::from_utf8_lossy(&wire.received).contains("\r\n0\r\n\r\nHTTP/1.1 200") {
            assert!(wire.more().await, "{}", String::from_utf8_lossy(&wire.received));
        }
        wire.send(&late[late.len() - 30..]).await;
        while !String::from_utf8_lossy(&wire.received).contains(r#""id":7"#) {
            assert!(wire.more().await, "{}", String::from_utf8_lossy(&wire.received));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_that_asks_for_its_end_ends_with_the_stream() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let mut wire = Wire::connect(server.address).await;
        let headers =
            [client.headers(), support::POST_HEADERS.to_vec(), vec![("Connection", "close")]].concat();
        wire.send(&support::request("POST", &headers, call(1, "last").to_string().as_bytes())).await;
        let stream = wire.reply().await.stream().await;
        assert_eq!(stream.header("connection"), Some("close"));
        server.control.release("last");
        let mut wire = result(stream, 1).await;
        assert!(!wire.more().await, "the server closed it");
        assert_eq!(wire.received, b"");
    })
    .await;
}

/// A client of HTTP/1.0 knows no chunks: its stream is everything up to the end of the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_0_gets_a_stream_without_chunks() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let mut wire = Wire::connect(server.address).await;
        let request = String::from_utf8(client.post_bytes(&call(1, "old"))).unwrap();
        wire.send(request.replacen("HTTP/1.1", "HTTP/1.0", 1).as_bytes()).await;
        server.control.release("old");
        let stream = wire.reply().await.stream().await;
        assert_eq!(stream.header("transfer-encoding"), None);
        result(stream, 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_closed_connection_detaches() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let session = server.session(&client);
        let mut stream = client.listen(None).await;
        stream.primed().await;
        let mut wire = stream.into_wire();
        if !support::inside_hyper() {
            // More than the client may say: it changes nothing, and hides nothing. (hyper sees no end behind what
            // it does not read.)
            wire.send(b"GET / HTTP/1.1\r\n").await;
        }
        wire.half_close().await;
        until("the server to see the end", || !session.standalone().terms().is_attached()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_closes_behind_a_stream_during_a_drain() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let mut wire = Wire::connect(server.address).await;
        wire.send(&client.post_bytes(&call(1, "call"))).await;
        let stream = wire.reply().await.stream().await;
        server.handle.drain();
        until("the drain to begin", || std::net::TcpStream::connect(server.address).is_err()).await;
        server.control.release("call");
        let mut wire = result(stream, 1).await;
        assert!(!wire.more().await, "the server closed it");
        assert_eq!(server.stopped().await, Drained::Complete);
    })
    .await;
}

/// Publishes `count` notes of some kilobytes each, of different lengths, and a long one now and then.
async fn publish_many(session: &Session, count: u64) {
    for number in 1..=count {
        let padding = if number % 50 == 0 { 40_000 } else { number as usize * 37 % 3000 };
        publish_json(session, &note(number, padding));
        if number % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

async fn read_many(stream: &mut Stream, count: u64) {
    for expected in 1..=count {
        let (event, message) = stream.message().await;
        assert_eq!((number(&message), event.position()), (expected, expected));
    }
}

/// A socket that takes a few kilobytes at a time gets every byte, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_reader_gets_every_event_once() {
    test(async {
        let mut config = Config::default();
        config.sessions.standalone.capacity = 2000;
        config.sessions.standalone.max_weight = 64 << 20;
        let server = TestServer::start(config);
        let client = server.client().await;
        let session = server.session(&client);
        let mut wire = Wire::connect_tiny(server.address).await;
        wire.send(&client.get_bytes(None)).await;
        let mut stream = wire.reply().await.stream().await;
        stream.primed().await;
        publish_many(&session, 1000).await;
        read_many(&mut stream, 1000).await;
    })
    .await;
}

/// Streams of one HTTP/2 connection do not mix, however their frames are put together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_one_connection_keep_apart() {
    test(async {
        let server = TestServer::start(Config::default());
        let http2 = Http2::connect_with(server.address, 1 << 20).await;
        let mut all = Vec::new();
        for _ in 0..40 {
            let client = Client::initialize_over(http2.clone(), "2025-11-25").await;
            let mut stream = client.listen(None).await;
            stream.primed().await;
            all.push((server.session(&client), stream));
        }
        let reading = all.into_iter().map(|(session, mut stream)| {
            tokio::spawn(async move {
                publish_many(&session, 100).await;
                read_many(&mut stream, 100).await;
            })
        });
        for reader in reading.collect::<Vec<_>>() {
            reader.await.expect("it read everything");
        }
    })
    .await;
}
