//! Resumability and redelivery: no event lost, none doubled, none of another stream.

#![cfg(feature = "server")]

mod support;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use ringmain::internals::ring::Limits;
use ringmain::internals::stream::LagPolicy;
use ringmain::protocol::RequestId;
use ringmain::server::{Answer, Config};
use ringmain::session::Settings;
use serde_json::{Value, json};
use support::{Client, Event, TestServer, note, number, publish, publish_json, test, until};
use tokio::sync::Semaphore;

/// Retains everything a test publishes.
fn roomy() -> Config {
    let mut config = Config::default();
    config.sessions.standalone = Limits { capacity: 1 << 16, max_weight: 64 << 20, max_age_ms: 60_000 };
    config.sessions.request = config.sessions.standalone;
    config
}

/// Retains little.
fn tight() -> Config {
    let mut config = Config::default();
    config.sessions.standalone.capacity = 16;
    config.sessions.request.capacity = 16;
    config
}

/// What a client misses in a short absence is there by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_events_while_away_are_replayed() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let session = server.session(&client);
        let mut listening = client.listen(None).await;
        listening.primed().await;
        publish(&session, 0);
        let last = listening.message().await.0.id().to_owned();
        drop(listening);
        (1..=1000).for_each(|number| publish(&session, number));
        let mut resumed = client.listen(Some(&last)).await;
        resumed.primed().await;
        for wanted in 1..=1000 {
            assert_eq!(number(&resumed.message().await.1), wanted);
        }
    })
    .await;
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#resumability-and-redelivery
//= type=test
//# The server MAY use this header to replay messages that would have been sent after the last event ID, on the
//# stream that was disconnected, and to resume the stream from that point.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_published_while_detached_is_replayed() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let session = server.session(&client);

        // Before anybody ever listened.
        (1..=3).for_each(|number| publish(&session, number));
        let mut stream = client.listen(None).await;
        stream.primed().await;
        let mut last = String::new();
        for expected in 1..=3 {
            let (event, message) = stream.message().await;
            assert_eq!((event.position(), number(&message)), (expected, expected));
            last = event.id.unwrap();
        }

        // Between two connections.
        stream.into_wire().reset();
        until("the server to see the reset", || !session.standalone().terms().is_attached()).await;
        (4..=5).for_each(|number| publish(&session, number));
        let mut stream = client.listen(Some(&last)).await;
        stream.primed().await;
        for expected in 4..=5 {
            assert_eq!(number(&stream.message().await.1), expected);
        }

        // On the stream of a request too.
        let mut call = client.call_stream(1, "steps", json!({"before": 1, "after": 2, "label": "a"})).await;
        call.primed().await;
        let (first, _) = call.message().await;
        call.into_wire().reset();
        server.control.release("a");
        server.control.noted("a:answered").await;
        let mut call = client.listen(first.id.as_deref()).await;
        call.primed().await;
        assert_eq!(call.message().await.1["params"]["number"], 2);
        assert_eq!(call.message().await.1["params"]["number"], 3);
        assert_eq!(call.message().await.1["result"]["done"], "a");
        call.ended().await;
    })
    .await;
}

/// What the publishers of the race publish.
fn entry(publisher: u64, number: u64) -> Value {
    json!({"jsonrpc": "2.0", "method": "race", "params": {"publisher": publisher, "number": number}})
}

const PUBLISHERS: u64 = 4;
const EACH: u64 = 1500;

/// Publishers that publish a burst for each permit.
fn publishers(server: &TestServer, client: &Client) -> Arc<Semaphore> {
    let bursts = Arc::new(Semaphore::new(0));
    for publisher in 0..PUBLISHERS {
        let (session, bursts) = (server.session(client), bursts.clone());
        tokio::spawn(async move {
            for number in 0..EACH {
                if number % 25 == 0 {
                    bursts.acquire().await.expect("it is open").forget();
                }
                publish_json(&session, &entry(publisher, number));
                if number % 5 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    bursts
}

/// Checks that the events are all there, once, in order.
fn check_race(events: &[Event]) {
    let mut next = [0; PUBLISHERS as usize];
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event.position(), index as u64 + 1, "positions are contiguous");
        let message = event.message();
        let publisher = message["params"]["publisher"].as_u64().unwrap() as usize;
        assert_eq!(message["params"]["number"], next[publisher], "each publisher's order is kept");
        next[publisher] += 1;
    }
    assert_eq!(next, [EACH; PUBLISHERS as usize]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_reaches_a_racing_subscriber_exactly_once() {
    test(async {
        let server = TestServer::start(roomy());

        // Connections break at any moment, and the next one resumes behind what the client has.
        let client = server.client().await;
        let bursts = publishers(&server, &client);
        let (mut events, mut last, mut left_open) = (Vec::new(), None, Vec::new());
        for round in 0.. {
            bursts.add_permits(8);
            let mut stream = client.listen(last.as_deref()).await;
            let primed = stream.primed().await;
            last = last.or(Some(primed));
            // The next event is on its way, because a burst is; how many follow is no matter.
            for _ in 0..=round * 37 % 211 {
                if events.len() as u64 == PUBLISHERS * EACH {
                    break;
                }
                if events.len().is_multiple_of(25) {
                    bursts.add_permits(1);
                }
                let (event, _) = stream.message().await;
                last = event.id.clone();
                events.push(event);
            }
            match round % 3 {
                0 => stream.into_wire().reset(),
                1 => drop(stream),
                _ => left_open.push(stream),
            }
            if events.len() as u64 == PUBLISHERS * EACH {
                break;
            }
        }
        check_race(&events);

        // New connections take over without an ID. Older ones stay, up to a few; each is read to its end.
        let client = server.client().await;
        let bursts = publishers(&server, &client);
        let mut events = Vec::new();
        let mut streams = VecDeque::from([client.listen(None).await]);
        streams[0].primed().await;
        while (events.len() as u64) < PUBLISHERS * EACH {
            bursts.add_permits(8);
            let mut successor = client.listen(None).await;
            successor.primed().await;
            streams.push_back(successor);
            if streams.len() > Settings::default().max_listeners
                && let Some(mut oldest) = streams.pop_front()
            {
                events.extend(oldest.rest().await);
            }
            let delivered = || server.session(&client).standalone().terms().delivered();
            if delivered() == PUBLISHERS * EACH {
                server.session(&client).hang_up();
                for mut stream in streams.drain(..) {
                    events.extend(stream.rest().await.into_iter().filter(|event| event.id.is_some()));
                }
            }
        }
        events.sort_by_key(Event::position);
        check_race(&events);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_starts_strictly_after_last_event_id() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let session = server.session(&client);
        (1..=20).for_each(|number| publish(&session, number));
        let mut stream = client.listen(None).await;
        let mut ids = vec![stream.primed().await];
        for _ in 1..=20 {
            ids.push(stream.message().await.0.id.unwrap());
        }
        for (position, id) in ids.iter().enumerate() {
            let mut stream = client.listen(Some(id)).await;
            stream.primed().await;
            if position == 20 {
                publish(&session, 21);
            }
            for expected in position as u64 + 1..=20.max(position as u64 + 1) {
                let (event, message) = stream.message().await;
                assert_eq!((event.position(), number(&message)), (expected, expected), "after {id}");
            }
        }

        // The stream of a request, whose end is known.
        let mut call = client.call_stream(1, "steps", json!({"before": 5})).await;
        server.control.release("call");
        let ids: Vec<_> = call.rest().await.into_iter().map(|event| event.id.unwrap()).collect();
        assert_eq!(ids.len(), 1 + 5 + 1);
        for (position, id) in ids.iter().enumerate() {
            let reply = client.get(Some(id)).await;
            if position == 6 {
                reply.nothing(204).await;
                continue;
            }
            let events = reply.stream().await.rest().await;
            let positions: Vec<_> = events[1..].iter().map(Event::position).collect();
            assert_eq!(positions, (position as u64 + 1..=6).collect::<Vec<_>>(), "after {id}");
            assert!(events[0].is_priming());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fresh_get_does_not_repeat_delivered_events() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let session = server.session(&client);
        (1..=3).for_each(|number| publish(&session, number));
        let mut stream = client.listen(None).await;
        stream.primed().await;
        for expected in 1..=3 {
            assert_eq!(number(&stream.message().await.1), expected);
        }
        drop(stream);
        until("the server to see the end", || !session.standalone().terms().is_attached()).await;
        (4..=5).for_each(|number| publish(&session, number));
        let mut stream = client.listen(None).await;
        stream.primed().await;
        for expected in 4..=5 {
            assert_eq!(number(&stream.message().await.1), expected);
        }
        // A browser says by an empty header that it has no ID.
        let mut stream = client.listen(Some("")).await;
        stream.primed().await;
        publish(&session, 6);
        assert_eq!(number(&stream.message().await.1), 6);
    })
    .await;
}

/// How many events a message says were missed; `None` if it is no such signal.
fn missed(message: &Value) -> Option<u64> {
    let data = &message["params"]["data"];
    (message["method"] == "notifications/message" && data["event"] == "lagged").then(|| {
        assert_eq!(message["params"]["level"], "warning", "{message}");
        data["missed"].as_u64().expect("a number")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evicted_range_is_signalled() {
    test(async {
        let server = TestServer::start(tight());
        let client = server.client().await;
        let session = server.session(&client);
        let counters = server.sessions.counters();

        // Nobody listens, and the ring wraps.
        (1..=500).for_each(|number| publish(&session, number));
        let mut stream = client.listen(None).await;
        stream.primed().await;
        let (signal, message) = stream.message().await;
        let gap = missed(&message).expect("the gap is told first");
        let mut last = signal.id.clone();
        assert!(gap > 400, "16 events and a chunk are retained, not {}", 500 - gap);
        for expected in gap + 1..=500 {
            let (event, message) = stream.message().await;
            assert_eq!(
                (event.position(), number(&message)),
                (expected, expected),
                "received + missed = published"
            );
            last = event.id;
        }
        assert_eq!((counters.missed(), counters.lagged()), (gap, 1));

        // A client that took the signal and no more is not told again.
        let mut stream = client.listen(signal.id.as_deref()).await;
        stream.primed().await;
        assert_eq!(number(&stream.message().await.1), gap + 1);
        drop(stream);
        until("the server to see the end", || !session.standalone().terms().is_attached()).await;
        assert_eq!(counters.missed(), gap);

        // A client that comes back too late.
        (501..=1000).for_each(|number| publish(&session, number));
        let mut stream = client.listen(last.as_deref()).await;
        stream.primed().await;
        let second = missed(&stream.message().await.1).expect("the gap is told first");
        for expected in 500 + second + 1..=1000 {
            assert_eq!(number(&stream.message().await.1), expected);
        }
        assert_eq!((counters.missed(), counters.lagged()), (gap + second, 2));

        // The stream of a request: the response is there whatever was evicted.
        let mut call = client.call_stream(1, "steps", json!({"after": 100})).await;
        let primed = call.primed().await;
        call.into_wire().reset();
        let request = session.request(&1.into()).expect("it is in flight");
        until("the server to see the reset", || !request.stream().terms().is_attached()).await;
        server.control.release("call");
        server.control.noted("call:answered").await;
        let mut call = client.listen(Some(&primed)).await;
        call.primed().await;
        let third = missed(&call.message().await.1).expect("the gap is told first");
        let events = call.rest().await;
        assert_eq!(events.len() as u64 + third, 100 + 1);
        assert_eq!(events.last().unwrap().message()["result"]["done"], "call");
        assert_eq!(counters.missed(), gap + second + third);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_that_fell_behind_is_told_how_far() {
    const PUBLISHED: u64 = 4000;
    for policy in [LagPolicy::Signal, LagPolicy::End] {
        test(async {
            let mut config = tight();
            config.sessions.lag = policy;
            let server = TestServer::start(config);
            let client = server.client().await;
            let session = server.session(&client);
            let mut wire = support::Wire::connect_tiny(server.address).await;
            wire.send(&client.get_bytes(None)).await;
            until("the server to attach", || session.standalone().terms().is_attached()).await;
            // Megabytes, of which the kernel takes a part and the client, for now, nothing.
            for number in 1..=PUBLISHED {
                publish_json(&session, &note(number, 4000));
                if number % 16 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            let mut stream = wire.reply().await.stream().await;
            let mut last = stream.primed().await;
            let (mut next, mut gaps, mut connections) = (1, 0, 1);
            while next <= PUBLISHED {
                let Some(event) = stream.next().await else {
                    assert_eq!(policy, LagPolicy::End, "lag ends the connection only where that was chosen");
                    connections += 1;
                    stream = client.listen(Some(&last)).await;
                    stream.primed().await;
                    continue;
                };
                if event.retry.is_some() {
                    assert_eq!(policy, LagPolicy::End);
                    continue;
                }
                let message = event.message();
                match missed(&message) {
                    Some(gap) => {
                        next += gap;
                        gaps += gap;
                    }
                    None => {
                        assert_eq!(number(&message), next, "received + missed = published");
                        next += 1;
                    }
                }
                assert_eq!(event.position() + 1, next);
                last = event.id.unwrap();
            }
            assert!(gaps > 0, "the reader fell behind");
            assert_eq!(server.sessions.counters().missed(), gaps);
            assert_eq!(connections > 1, policy == LagPolicy::End);
        })
        .await;
    }
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#resumability-and-redelivery
//= type=test
//# If present, the ID MUST be globally unique across all streams within that session
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn priming_id_never_equals_a_real_id() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let session = server.session(&client);
        let (mut real, mut priming) = (HashSet::new(), HashSet::new());
        let mut number = 0;

        // Each connection resumes behind the last event, or behind the priming event of the one before.
        let mut last = None;
        for round in 0..12 {
            let mut stream = client.listen(last.as_deref()).await;
            let primed = stream.primed().await;
            assert!(priming.insert(primed.clone()), "{primed} twice");
            last = Some(primed);
            if round % 2 == 0 {
                number += 1;
                publish(&session, number);
                let (event, message) = stream.message().await;
                assert_eq!(support::number(&message), number);
                assert!(real.insert(event.id.clone().unwrap()), "{event:?} twice");
                last = event.id;
            }
        }

        // Requests, among them one that is resumed at each step.
        for id in 1..=3 {
            let label = format!("call-{id}");
            let mut call =
                client.call_stream(id, "steps", json!({"label": label, "before": 2, "after": 1})).await;
            let mut last = call.primed().await;
            assert!(priming.insert(last.clone()), "{last} twice");
            for _ in 0..2 {
                last = call.message().await.0.id.unwrap();
                assert!(real.insert(last.clone()), "{last} twice");
                call = client.listen(Some(&last)).await;
                let primed = call.primed().await;
                assert!(priming.insert(primed.clone()), "{primed} twice");
            }
            server.control.release(&label);
            for event in call.rest().await {
                assert!(real.insert(event.id.clone().unwrap()), "{event:?} twice");
            }
        }
        assert_eq!((real.len(), priming.len()), (6 + 3 * 4, 12 + 3 * 3));
        assert!(real.is_disjoint(&priming));
    })
    .await;
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#resumability-and-redelivery
//= type=test
//# The server MUST NOT replay messages that would have been delivered on a different stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_event_id_is_refused() {
    test(async {
        let mut config = Config::default();
        config.answer = Answer::Stream;
        let server = TestServer::start(config);
        let (client, other) = (server.client().await, server.client().await);
        let (session, others) = (server.session(&client), server.session(&other));
        (1..=3).for_each(|number| publish(&session, number));
        (101..=103).for_each(|number| publish(&others, number));

        // Another stream of the session replays that stream and nothing else.
        let mut call = client.call_stream(1, "steps", json!({"before": 2})).await;
        let call_primed = call.primed().await;
        server.control.release("call");
        call.rest().await;
        let replayed = client.listen(Some(&call_primed)).await.rest().await;
        let methods: Vec<_> = replayed[1..].iter().map(|event| event.message()["method"].clone()).collect();
        assert_eq!(
            methods,
            [json!("test/step"), json!("test/step"), Value::Null],
            "no event of the standalone stream"
        );

        let mut theirs = other.listen(None).await;
        let (their_primed, their_event) = (theirs.primed().await, theirs.message().await.0.id.unwrap());
        let mut ours = client.listen(None).await;
        let our_primed = ours.primed().await;
        let our_event = ours.message().await.0.id.unwrap();
        let resumed = server.sessions.counters().resumed();

        let with = |part: usize, text: &str| {
            let mut parts: Vec<_> = our_event.split('-').collect();
            parts[part] = text;
            parts.join("-")
        };
        let upper = our_event.to_ascii_uppercase();
        let cases = [
            ("another session's event", their_event.clone(), "another session"),
            ("another session's priming event", their_primed, "another session"),
            ("the position after the last", with(2, "000000000004.0"), "not sent yet"),
            ("the last position there is", with(2, "ffffffffffff.0"), "not sent yet"),
            ("a message to all that is to come", with(2, "000000000001.1"), "not sent yet"),
            ("the last message to all", with(2, "1:ffffffffffff"), "not sent yet"),
            ("a lineage to come", with(1, "0.2"), "not sent yet"),
            ("the last lineage there is", with(1, "0.ffffffff"), "not sent yet"),
            ("no lineage", with(1, "0.0"), "not sent yet"),
            ("a stream to come", call_primed.replacen("-2-", "-7-", 1), "not sent yet"),
            ("the last stream there is", call_primed.replacen("-2-", "-ffffffff-", 1), "not sent yet"),
            (
                "a position of a request to come",
                call_primed.replacen("0000000000000000", "0000000000000004", 1),
                "not sent yet",
            ),
            ("a number", "1".to_owned(), "is malformed"),
            ("a word", "event".to_owned(), "is malformed"),
            ("a UUID", "0b4f5a4e-6a0e-4ab0-9d3e-6f4d0f6f6c11".to_owned(), "is malformed"),
            ("a short position", with(2, "1"), "is malformed"),
            ("a fifth part", format!("{our_primed}-0"), "is malformed"),
            ("a part too few", our_event.rsplit_once('-').unwrap().0.to_owned(), "is malformed"),
            ("white space inside", our_event.replacen('-', " -", 1), "is malformed"),
            ("a sign", with(1, "+0.1"), "is malformed"),
            ("a leading zero", with(1, "0.01"), "is malformed"),
            ("a stream for a lineage", with(1, "1.1"), "is malformed"),
            ("a position of another kind", with(2, "0000000000000001"), "is malformed"),
            ("4096 digits", "f".repeat(4096), "is malformed"),
        ];
        for (name, id, fragment) in &cases {
            let error = client.get(Some(id)).await.error(400).await;
            assert_eq!(error["error"]["code"], -32000, "{name}: {error}");
            assert!(error["error"]["message"].as_str().unwrap().contains(fragment), "{name}: {error}");
        }
        // Letters only make a difference where there are some.
        if upper != our_event {
            client.get(Some(&upper)).await.error(400).await;
        }
        assert_eq!(server.sessions.counters().resumed(), resumed, "a refused ID resumes nothing");

        // Both connections are as they were: not superseded, nothing lost.
        for expected in 2..=3 {
            assert_eq!(number(&ours.message().await.1), expected);
        }
        publish(&session, 4);
        assert_eq!(number(&ours.message().await.1), 4);
        for expected in 102..=103 {
            assert_eq!(number(&theirs.message().await.1), expected);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn final_response_survives_disconnect() {
    test(async {
        let server = TestServer::start(tight());
        let client = server.client().await;
        let mut call = client.call_stream("x", "steps", json!({"before": 2, "after": 300})).await;
        call.primed().await;
        let last = call.message().await.0.id.unwrap();
        let request =
            server.session(&client).request(&RequestId::String("x".into())).expect("it is in flight");
        call.into_wire().reset();
        until("the server to see the reset", || !request.stream().terms().is_attached()).await;
        server.control.release("call");
        server.control.noted("call:answered").await;

        let mut call = client.listen(Some(&last)).await;
        call.primed().await;
        let gap = missed(&call.message().await.1).expect("most of it was evicted");
        let events = call.rest().await;
        assert_eq!(events.len() as u64 + gap, 1 + 300 + 1);
        let response = events.last().unwrap();
        assert_eq!(
            response.message(),
            json!({"jsonrpc": "2.0", "id": "x", "result": {"done": "call", "padding": ""}})
        );

        // Whoever has the response is told not to come back; whoever has not gets it again.
        client.get(response.id.as_deref()).await.nothing(204).await;
        let events = client.listen(Some(&last)).await.rest().await;
        assert_eq!(events.last(), Some(response));
        client.get(response.id.as_deref()).await.nothing(204).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn response_is_kept_for_its_time_and_no_longer() {
    test(async {
        let mut config = Config::default();
        config.sessions.response_ttl_ms = 100;
        config.sessions.delivered_ttl_ms = 100;
        config.sweep = std::time::Duration::from_millis(20);
        let server = TestServer::start(config);
        let client = server.client().await;
        let session = server.session(&client);
        for (id, fetched) in [(1, false), (2, true)] {
            let mut call = client.call_stream(id, "steps", json!({"label": id.to_string()})).await;
            let primed = call.primed().await;
            if fetched {
                server.control.release(&id.to_string());
                call.rest().await;
            } else {
                call.into_wire().reset();
                until("the server to see the reset", || {
                    session.request(&id.into()).is_none_or(|request| !request.stream().terms().is_attached())
                })
                .await;
                server.control.release(&id.to_string());
            }
            until("the response to go", || session.summary().retained + session.summary().in_flight == 0)
                .await;
            // The session goes on, so this is not the 404 that says otherwise.
            let error = client.get(Some(&primed)).await.error(400).await;
            assert!(error["error"]["message"].as_str().unwrap().contains("is gone"), "{error}");
        }
        client.ping(3).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oldest_version_resumes_without_priming() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client_of("2025-03-26").await;
        let session = server.session(&client);
        (1..=3).for_each(|number| publish(&session, number));
        let mut stream = client.listen(None).await;
        let (first, message) = stream.message().await;
        assert_eq!(number(&message), 1);
        let mut stream = client.listen(first.id.as_deref()).await;
        for expected in 2..=3 {
            assert_eq!(number(&stream.message().await.1), expected);
        }
    })
    .await;
}
