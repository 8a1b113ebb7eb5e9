//! Listening for messages from the server, and multiple connections: who is connected gets every message, and
//! gets it alone.

#![cfg(feature = "server")]

mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ringmain::server::Config;
use serde_json::json;
use support::{
    Block, Http2, PATIENCE, Stream, TestServer, Wire, note, number, publish, publish_json, soon, test, until,
};

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#listening-for-messages-from-the-server
//= type=test
//# The server MUST either return `Content-Type: text/event-stream` in response to this HTTP GET, or else return
//# HTTP 405 Method Not Allowed, indicating that the server does not offer an SSE stream at this endpoint.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stream_says_what_it_is() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let mut listening = client.listen(None).await;
        let primed = listening.primed().await;
        let calling = client.call_stream(1, "steps", json!({})).await;
        let resuming = client.listen(Some(&primed)).await;
        let http2 =
            support::Client::initialize_over(Http2::connect(server.address).await, "2025-11-25").await;
        let over_http2 = http2.listen(None).await;
        for stream in [listening, calling, resuming, over_http2] {
            assert_eq!(stream.header("content-type"), Some("text/event-stream"));
            assert_eq!(stream.header("cache-control"), Some("no-store, no-transform"));
            assert_eq!(stream.header("x-accel-buffering"), Some("no"));
            assert_eq!(stream.header("content-length"), None);
            assert_eq!(stream.header("mcp-session-id"), None, "the ID is told once");
        }
    })
    .await;
}

/// Listens on a connection whose client reads nothing, and publishes until the server can write no more.
async fn stalled(server: &TestServer, client: &support::Client, last_event_id: Option<&str>) -> Wire {
    let session = server.session(client);
    let before = session.standalone().terms().generation();
    let mut wire = Wire::connect_narrow(server.address).await;
    wire.send(&client.get_bytes(last_event_id)).await;
    until("the server to attach", || session.standalone().terms().generation() != before).await;
    wire
}

/// Reads past the signal of a gap and whatever else there is, up to note `last`.
async fn read_to(stream: &mut Stream, last: u64) {
    while stream.message().await.1["params"]["number"] != last {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnect_supersedes_half_open_connection() {
    test(async {
        let server = TestServer::start(Config::default());

        // The old connection is quiet: its client is gone, and nobody told the server.
        let client = server.client().await;
        let session = server.session(&client);
        let primed = client.listen(None).await.primed().await;
        let mut old = stalled(&server, &client, Some(&primed)).await;
        let before = server.sessions.counters().superseded();
        let mut new = client.listen(Some(&primed)).await;
        new.primed().await;
        publish(&session, 1);
        assert_eq!(number(&new.message().await.1), 1);
        // It ends at once, without a byte of what it was not given.
        let mut old_stream = {
            old.more().await;
            old.reply().await.stream().await
        };
        old_stream.primed().await;
        old_stream.ended().await;
        assert_eq!(server.sessions.counters().superseded(), before + 1);

        // The old connection is full: megabytes wait for a client that does not read.
        let client = server.client().await;
        let session = server.session(&client);
        let primed = client.listen(None).await.primed().await;
        let old = stalled(&server, &client, Some(&primed)).await;
        for number in 1..=2000 {
            publish_json(&session, &note(number, 8000));
            if number % 16 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let reconnect = Instant::now();
        let mut new = client.listen(Some(&primed)).await;
        new.primed().await;
        publish(&session, 2001);
        read_to(&mut new, 2001).await;
        // One that begins anew beside it is served at once as well.
        let mut fresh = client.listen(None).await;
        fresh.primed().await;
        publish(&session, 2002);
        read_to(&mut fresh, 2002).await;
        assert!(reconnect.elapsed() < PATIENCE / 2, "it took {:?}", reconnect.elapsed());
        drop(old);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_drop_of_old_connection_is_a_no_op() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let session = server.session(&client);
        let old_and_quiet = client.listen(None).await;
        let old_and_full = stalled(&server, &client, None).await;
        for number in 1..=1000 {
            publish_json(&session, &note(number, 8000));
            if number % 16 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let mut new = client.listen(None).await;
        new.primed().await;
        let generation = session.standalone().terms().generation();
        publish(&session, 5000);
        read_to(&mut new, 5000).await;

        // The old ends come after the new beginning, in every manner.
        old_and_quiet.into_wire().reset();
        old_and_full.reset();
        let mut half_closed = stalled(&server, &client, None).await;
        let mut new = client.listen(None).await;
        new.primed().await;
        half_closed.half_close().await;
        half_closed.closed().await;
        for number in 5001..=5010 {
            publish(&session, number);
            assert_eq!(support::number(&new.message().await.1), number);
        }
        let terms = session.standalone().terms();
        assert!(terms.is_attached());
        assert_eq!(terms.generation(), generation + 2);
    })
    .await;
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#multiple-connections
//= type=test
//# The server MUST send each of its JSON-RPC messages on only one of the connected streams; that is, it MUST NOT
//# broadcast the same message across multiple streams.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_goes_to_one_stream_only() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let session = server.session(&client);
        let mut listening = client.listen(None).await;
        let mut calls = Vec::new();
        for id in 1..=3 {
            let arguments = json!({"label": format!("call-{id}"), "before": 2, "after": 2});
            calls.push(client.call_stream(id, "steps", arguments).await);
        }
        (1..=5).for_each(|number| publish(&session, number));
        for id in 1..=3 {
            server.control.release(&format!("call-{id}"));
        }
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (index, call) in calls.iter_mut().enumerate() {
            let label = format!("call-{}", index + 1);
            let events = call.rest().await;
            assert_eq!(events.len(), 1 + 4 + 1);
            for event in &events[1..] {
                let message = event.message();
                let own = if message["method"].is_string() {
                    &message["params"]["label"]
                } else {
                    &message["result"]["done"]
                };
                assert_eq!(own, &label, "{message}");
                *seen.entry(message.to_string()).or_default() += 1;
            }
        }
        // Behind this there is nothing of what came before.
        publish(&session, 6);
        listening.primed().await;
        for expected in 1..=6 {
            let (_, message) = listening.message().await;
            assert_eq!(number(&message), expected, "nothing of a request");
            *seen.entry(message.to_string()).or_default() += 1;
        }
        assert_eq!(seen.len(), 3 * 5 + 6);
        assert!(seen.values().all(|count| *count == 1), "{seen:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn competing_gets_settle() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let session = server.session(&client);

        // Two programs with one session ID: the later one has the stream. The earlier one's connection stays, and is
        // given nothing.
        let mut first = client.listen(None).await;
        first.primed().await;
        publish(&session, 1);
        assert_eq!(number(&first.message().await.1), 1);
        let mut second = client.listen(None).await;
        second.primed().await;
        for number in 2..=20 {
            publish(&session, number);
            assert_eq!(support::number(&second.message().await.1), number, "the later one is left alone");
        }
        assert_eq!(server.sessions.counters().superseded(), 0);
        // The later one goes: the earlier one goes on.
        drop(second);
        until("the earlier one to have the stream", || session.standalone().terms().generation() == 3).await;
        publish(&session, 21);
        assert_eq!(number(&first.message().await.1), 21);
        drop(first);
        until("the server to see the end", || !session.standalone().terms().is_attached()).await;

        // Both come back again and again, each behind what it has: each message goes to one of them, in order, and
        // comes again to nobody.
        let mut clients = Vec::new();
        for _ in 0..2 {
            let mut stream = client.listen(None).await;
            let last = stream.primed().await;
            clients.push((stream, last, Vec::new()));
        }
        for number in 22..=61 {
            publish(&session, number);
            let (stream, last, received) = &mut clients[number as usize % 2];
            let mut again = client.listen(Some(last)).await;
            again.primed().await;
            // The older connection of the same client ends; what it was given and has not read comes again, on the
            // new one.
            *stream = again;
            publish(&session, 1000 + number);
            loop {
                let (event, message) = stream.message().await;
                *last = event.id.expect("an ID");
                received.push(support::number(&message));
                if received.last() == Some(&(1000 + number)) {
                    break;
                }
            }
        }
        let mut all = Vec::new();
        for (stream, last, mut received) in clients {
            // What it was given on the connection it has, and on none before.
            drop(stream);
            let mut again = client.listen(Some(&last)).await;
            again.primed().await;
            publish(&session, 5000);
            loop {
                let number = number(&again.message().await.1);
                if number == 5000 {
                    break;
                }
                received.push(number);
            }
            assert!(received.is_sorted_by_key(|number| number % 1000), "{received:?}");
            all.extend(received);
        }
        all.sort_unstable();
        assert_eq!(all, (22..=61).chain(1022..=1061).collect::<Vec<_>>());

        // Many at once: all but a few end.
        let before = server.sessions.counters().superseded();
        let listen = |client: support::Client| tokio::spawn(async move { client.listen(None).await });
        let opening: Vec<_> = (0..20).map(|_| listen(client.clone())).collect();
        let mut open = Vec::new();
        for stream in opening {
            open.push(stream.await.expect("a stream"));
        }
        let most = server.sessions.settings().max_listeners as u64;
        until("the others to end", || server.sessions.counters().superseded() >= before + 20 - most).await;
        publish(&session, 62);
        publish(&session, 63);
        session.hang_up();
        let (mut holders, mut bystanders) = (0, 0);
        for mut stream in open {
            stream.primed().await;
            let events = stream.rest().await;
            match events.as_slice() {
                [one, two, retry] => {
                    assert_eq!([one, two].map(|event| number(&event.message())), [62, 63]);
                    assert!(retry.retry.is_some());
                    holders += 1;
                }
                [retry] => {
                    assert!(retry.retry.is_some() && retry.id.is_none(), "they are given nothing: {retry:?}");
                    bystanders += 1;
                }
                events => assert!(events.is_empty(), "{events:?}"),
            }
        }
        assert_eq!((holders, bystanders), (1, most - 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_reader_delays_nobody() {
    test(async {
        let server = TestServer::start(Config::default());
        let (client, other) = (server.client().await, server.client().await);
        let (session, others) = (server.session(&client), server.session(&other));
        let _stalled = stalled(&server, &client, None).await;
        let mut listening = other.listen(None).await;
        listening.primed().await;

        // Sixteen megabytes, of which the stalled client reads nothing.
        for round in 1..=20 {
            for number in 1..=100 {
                publish_json(&session, &note(number, 8000));
            }
            client.ping(round).await;
            let call = json!({"label": "h1", "before": 3});
            let mut call = client.call_stream(1000 + round, "steps", call).await;
            server.control.release("h1");
            assert_eq!(call.rest().await.len(), 1 + 3 + 1);
            publish(&others, round);
            assert_eq!(number(&listening.message().await.1), round);
        }
        assert!(session.standalone().tail() > 2000);
        assert!(session.standalone().terms().delivered() < 2000, "the client did stall");

        // A stalled stream on a shared connection.
        let http2 = Http2::connect_with(server.address, 16 << 10).await;
        let client = support::Client::initialize_over(http2, "2025-11-25").await;
        let session = server.session(&client);
        let mut stalled = client.listen(None).await;
        stalled.primed().await;
        for round in 1..=20 {
            for number in 1..=100 {
                publish_json(&session, &note(number, 8000));
            }
            client.ping(round).await;
            let events = client.call_stream(1000 + round, "steps", json!({"label": "h2", "before": 3}));
            let mut events = events.await;
            server.control.release("h2");
            assert_eq!(events.rest().await.len(), 1 + 3 + 1);
        }
        assert!(session.standalone().terms().delivered() < 2000, "the client did stall");
    })
    .await;
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#resumability-and-redelivery
//= type=test
//# Servers MAY attach an `id` field to their SSE events
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keep_alive_takes_no_slot() {
    test(async {
        let mut config = Config::default();
        config.keep_alive = Duration::from_millis(100);
        let server = TestServer::start(config);
        let client = server.client().await;
        let session = server.session(&client);
        let over_http2 =
            support::Client::initialize_over(Http2::connect(server.address).await, "2025-11-25").await;

        let mut streams = vec![
            ("GET", client.listen(None).await),
            ("POST", client.call_stream(1, "steps", json!({"label": "one", "after": 2})).await),
            ("HTTP/2", over_http2.listen(None).await),
        ];
        for (name, stream) in &mut streams {
            stream.primed().await;
            for _ in 0..3 {
                match stream.try_block().await {
                    Ok(Some(Block::Comment(comment))) => assert_eq!(comment, "keep-alive", "{name}"),
                    other => panic!("{name}: {other:?}"),
                }
            }
        }
        assert_eq!(session.standalone().tail(), 1, "no slot is taken");

        // IDs go on from 1 as if nothing had been.
        let [(_, get), (_, post), _] = &mut streams[..] else { unreachable!() };
        for expected in 1..=3 {
            publish(&session, expected);
            let (event, message) = get.message().await;
            assert_eq!((event.position(), number(&message)), (expected, expected));
            assert!(matches!(get.try_block().await, Ok(Some(Block::Comment(_)))), "quiet again");
        }
        server.control.release("one");
        let positions: Vec<_> = post.rest().await.iter().map(support::Event::position).collect();
        assert_eq!(positions, [1, 2, 3]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_stream_gets_no_comment() {
    test(async {
        let mut config = Config::default();
        config.keep_alive = Duration::from_secs(1);
        let server = TestServer::start(config);
        let client = server.client().await;
        let session = server.session(&client);
        let mut stream = client.listen(None).await;
        stream.primed().await;
        let started = Instant::now();
        let mut number = 0;
        while started.elapsed() < Duration::from_millis(2500) {
            number += 1;
            publish(&session, number);
            match soon("an event", stream.try_block()).await {
                Ok(Some(Block::Event(event))) => assert_eq!(event.position(), number),
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}
