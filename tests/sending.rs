//! Sending messages to the server: one message in, its answer out.

#![cfg(feature = "server")]

mod support;

use futures_util::future::join_all;
use ringmain::server::{Answer, Config};
use serde_json::{Value, json};
use support::{
    Client, Event, Http2, POST_HEADERS, Reply, TestServer, Wire, hello, publish, request, test, until,
};

fn streaming() -> Config {
    let mut config = Config::default();
    config.answer = Answer::Stream;
    config
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
//= type=test
//# If the input is a JSON-RPC request, the server MUST either return `Content-Type: text/event-stream`, to
//# initiate an SSE stream, or `Content-Type: application/json`, to return one JSON object.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_is_answered_as_json_or_as_a_stream() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let mut reply = client.call("quick", "quick", json!({"label": "a"})).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("mcp-session-id"), None);
        let expected = json!({"jsonrpc": "2.0", "id": "quick", "result": {"done": "a", "padding": ""}});
        assert_eq!(reply.json().await, expected);

        let mut stream = client.call_stream(2, "steps", json!({"label": "a"})).await;
        stream.primed().await;
        server.control.release("a");
        let (event, message) = stream.message().await;
        assert_eq!((event.position(), message["id"].clone()), (1, json!(2)));
        stream.ended().await;

        // Errors of the handler are answers like any other: 200, and the error in the body.
        let mut reply = client.request(3, "no/such/method", json!({})).await;
        assert_eq!((reply.status, reply.json().await["error"]["code"].clone()), (200, json!(-32601)));

        let server = TestServer::start(streaming());
        let client = server.client().await;
        let mut stream = client.call_stream(1, "quick", json!({"label": "a", "padding": 100_000})).await;
        let primed = stream.primed().await;
        let (event, message) = stream.message().await;
        assert_eq!(message["result"]["padding"].as_str().unwrap().len(), 100_000);
        stream.ended().await;
        // It can be fetched again.
        assert_eq!(client.listen(Some(&primed)).await.rest().await[1], event);
    })
    .await;
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
//= type=test
//# If the server accepts the input, the server MUST return HTTP status code 202 Accepted with no body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_and_responses_are_accepted() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        client.notify("test/something", json!({"a": 1})).await;
        server.control.noted("notification:test/something").await;
        for answer in [
            json!({"jsonrpc": "2.0", "id": 77, "result": {}}),
            json!({"jsonrpc": "2.0", "id": "nobody asked", "error": {"code": 1, "message": "no"}}),
        ] {
            client.post(&answer).await.nothing(202).await;
        }
        until("both to be ignored", || server.control.count("response:false") == 2).await;
    })
    .await;
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
//= type=test
//# The server MAY send JSON-RPC requests and notifications before sending the JSON-RPC response. These messages
//# SHOULD relate to the originating client request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_a_request_goes_to_its_stream() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let session = server.session(&client);
        let mut listening = client.listen(None).await;
        listening.primed().await;

        // Progress, under the token that the client gave.
        let params =
            json!({"name": "progress", "arguments": {"before": 3}, "_meta": {"progressToken": "token"}});
        let mut call = client.request(1, "tools/call", params).await.stream().await;
        call.primed().await;
        for step in 0..3 {
            let (_, message) = call.message().await;
            assert_eq!(message["method"], "notifications/progress");
            assert_eq!(
                message["params"],
                json!({"progressToken": "token", "progress": step as f64, "total": 3.0})
            );
        }
        assert_eq!(call.message().await.1["id"], 1);
        call.ended().await;
        // Without a token there is none, and then nothing keeps the answer from being JSON.
        let mut reply = client.call(2, "progress", json!({"before": 3})).await;
        assert_eq!(reply.json().await["result"]["done"], "call");

        // Questions, several at once; each answer finds who asked.
        let mut calls = Vec::new();
        for id in 10..13 {
            let mut call = client.call_stream(id, "ask", json!({"label": format!("call {id}")})).await;
            call.primed().await;
            let (_, question) = call.message().await;
            assert_eq!(question["method"], "sampling/createMessage");
            assert_eq!(question["params"]["label"], format!("call {id}"));
            calls.push((id, question["id"].clone(), call));
        }
        for (id, asked, _) in calls.iter().rev() {
            let answer = match id {
                11 => json!({"jsonrpc": "2.0", "id": asked, "error": {"code": -1, "message": "rejected"}}),
                _ => json!({"jsonrpc": "2.0", "id": asked, "result": {"for": id}}),
            };
            client.post(&answer).await.nothing(202).await;
        }
        for (id, _, mut call) in calls {
            let (_, response) = call.message().await;
            assert_eq!(response["id"], id);
            match id {
                11 => assert!(
                    response["result"]["refused"].as_str().unwrap().contains("rejected"),
                    "{response}"
                ),
                _ => assert_eq!(response["result"]["answer"]["for"], id),
            }
            call.ended().await;
        }

        // What belongs to no request goes to the standalone stream, which was quiet until now.
        let mut reply = client.call(20, "publish", json!({})).await;
        assert_eq!(reply.json().await["id"], 20);
        assert_eq!(listening.message().await.1["method"], "test/aside");
        publish(&session, 1);
        assert_eq!(listening.message().await.0.position(), 2);
    })
    .await;
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
//= type=test
//# Disconnection SHOULD NOT be interpreted as the client cancelling its request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn legacy_drop_is_not_cancel() {
    test(async {
        let server = TestServer::start(Config::default());
        for version in ["2025-03-26", "2025-06-18", "2025-11-25"] {
            let client = server.client_of(version).await;
            let session = server.session(&client);
            // One event first, so that every version has an ID to resume with.
            let arguments = json!({"label": version, "before": 1, "after": 1});
            let mut call = client.call_stream(1, "steps", arguments).await;
            if version == "2025-11-25" {
                call.primed().await;
            }
            let last = call.message().await.0.id;
            let request = session.request(&1.into()).expect("it is in flight");
            call.into_wire().reset();
            until("the server to see the reset", || !request.stream().terms().is_attached()).await;
            assert!(!request.is_cancelled() && !server.control.has_noted(&format!("{version}:cancelled")));
            server.control.release(version);
            server.control.noted(&format!("{version}:answered")).await;
            let events = client.listen(last.as_deref()).await.rest().await;
            assert_eq!(events.last().unwrap().message()["result"]["done"], version);
        }
        // Nor is a client that goes before the head of its answer came.
        let client = server.client().await;
        let session = server.session(&client);
        let mut wire = Wire::connect(server.address).await;
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": "steps", "arguments": {"label": "early"}
        }});
        wire.send(&client.post_bytes(&call)).await;
        server.control.noted("early:ready").await;
        wire.reset();
        let request = session.request(&1.into()).expect("it is in flight");
        until("the server to see the reset", || !request.stream().terms().is_attached()).await;
        server.control.release("early");
        server.control.noted("early:answered").await;
        assert!(!request.is_cancelled() && request.is_finished());
    })
    .await;
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
//= type=test
//# To cancel, the client SHOULD explicitly send an MCP `CancelledNotification`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_request_ends_without_a_response() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let mut call = client.call_stream("mine", "steps", json!({"label": "a", "before": 1})).await;
        let mut bystander = client.call_stream(2, "steps", json!({"label": "b"})).await;
        let primed = call.primed().await;
        call.message().await;
        // Somebody else's cancellation of a request of that ID is not ours; nor is an ID that nobody used.
        server.client().await.notify("notifications/cancelled", json!({"requestId": "mine"})).await;
        client.notify("notifications/cancelled", json!({"requestId": "other"})).await;
        client.notify("notifications/cancelled", json!({})).await;
        client.ping(3).await;
        assert!(!server.control.has_noted("a:cancelled"));

        client.notify("notifications/cancelled", json!({"requestId": "mine", "reason": "bored"})).await;
        call.ended().await;
        server.control.noted("a:cancelled").await;
        let events = client.listen(Some(&primed)).await.rest().await;
        assert_eq!(events.len(), 2, "priming and the one event: {events:?}");
        // The ID is free again, and the other request goes on.
        let mut reply = client.call("mine", "quick", json!({})).await;
        assert_eq!(reply.json().await["id"], "mine");
        server.control.release("b");
        assert_eq!(bystander.rest().await.last().unwrap().message()["id"], 2);
        assert!(!server.control.has_noted("b:cancelled"));
    })
    .await;
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
//= type=test
//# The server SHOULD immediately send an SSE event consisting of an event ID and an empty `data` field in order
//# to prime the client to reconnect (using that event ID as `Last-Event-ID`).
/// Posts a message as it is written.
async fn post_text(client: &Client, text: &str) -> Reply {
    let headers = [client.headers(), POST_HEADERS.to_vec()].concat();
    client.send("POST", &headers, text.as_bytes()).await
}

/// A call of a tool, as text, since the spelling of its numbers counts.
fn call_text(id: &str, token: &str, tool: &str) -> String {
    let label = id.trim_matches('"');
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}",
        "arguments":{{"label":"{tool} {label}","before":1,"after":1}},"_meta":{{"progressToken":{token}}}}}}}"#
    )
}

/// JSON knows one kind of number: 7, 7.0 and 70e-1 are one ID, which comes back as 7.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_are_equal_by_value() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        for (spelled, value) in
            [("1.0", 1), ("2e0", 2), ("30E-1", 3), ("-0", 0), ("-0.0", 0), ("-5.00", -5), ("0.6e+1", 6)]
        {
            let mut reply = post_text(&client, &call_text(spelled, "0", "quick")).await;
            assert_eq!(reply.status, 200, "{spelled}");
            let text = String::from_utf8(reply.bytes().await).unwrap();
            assert!(text.contains(&format!(r#""id":{value},"#)), "{spelled}: {text}");
        }
        // A request in flight: its ID is taken, and it is cancelled, in any spelling.
        let mut call = post_text(&client, &call_text("7.0", "70e-1", "steps")).await.stream().await;
        call.primed().await;
        assert_eq!(call.message().await.1["method"], "test/step");
        for again in ["7", "7e0", "0.7e1"] {
            let error = post_text(&client, &call_text(again, "1", "quick")).await.error(400).await;
            assert_eq!(error["id"], 7);
            assert!(error["error"]["message"].as_str().unwrap().contains("still in flight"), "{error}");
        }
        assert_eq!(post_text(&client, &call_text("\"7\"", "1", "quick")).await.status, 200);
        let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":700e-2}}"#;
        post_text(&client, cancel).await.nothing(202).await;
        server.control.noted("steps 7.0:cancelled").await;
        call.ended().await;
        // Progress carries the token as the number it is.
        let mut call = post_text(&client, &call_text("8", "9.0", "progress")).await.stream().await;
        call.primed().await;
        assert_eq!(call.message().await.1["params"]["progressToken"].to_string(), "9");
        // The client's answer to a question.
        let mut call = post_text(&client, &call_text("10", "10", "ask")).await.stream().await;
        call.primed().await;
        let (_, question) = call.message().await;
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{}.0,"result":{{"yes":1}}}}"#, question["id"]);
        post_text(&client, &answer).await.nothing(202).await;
        assert_eq!(call.message().await.1["result"]["answer"]["yes"], 1);
        call.ended().await;
    })
    .await;
}

/// Some clients put much into an ID.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_ids_are_legal() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        for length in [500, 4096] {
            let id = "x".repeat(length);
            let mut reply = client.request(id.as_str(), "ping", json!({})).await;
            assert_eq!(reply.json().await["id"], id);
        }
        client.request("x".repeat(4097), "ping", json!({})).await.error(400).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn priming_is_gated_by_version() {
    test(async {
        let mut config = streaming();
        config.sessions.retry_ms = 1234;
        let server = TestServer::start(config);
        for (version, primes) in [("2025-03-26", false), ("2025-06-18", false), ("2025-11-25", true)] {
            let client = server.client_of(version).await;
            let session = server.session(&client);
            publish(&session, 1);
            let mut listening = client.listen(None).await;
            let mut events = vec![listening.next().await.unwrap()];
            if primes {
                events.push(listening.next().await.unwrap());
            }
            session.standalone().hang_up();
            events.extend(listening.rest().await);

            let mut call = client.call_stream(1, "steps", json!({"label": version, "before": 1})).await;
            let mut first = call.next().await.unwrap();
            events.push(first.clone());
            if primes {
                first = call.next().await.unwrap();
                events.push(first.clone());
            }
            let mut resumed = client.listen(first.id.as_deref()).await;
            call.ended().await;
            server.control.release(version);
            events.extend(resumed.rest().await);
            events.extend(client.call_stream(2, "quick", json!({})).await.rest().await);

            let priming = |event: &&Event| event.is_priming();
            let retry = |event: &&Event| event.retry.is_some();
            if primes {
                // GET, POST, resume, quick POST; and `retry` once more at the hang-up.
                assert_eq!(events.iter().filter(priming).count(), 4, "{events:#?}");
                assert_eq!(events.iter().filter(retry).count(), 5, "{events:#?}");
                assert!(events.iter().filter_map(|event| event.retry).all(|retry| retry == 1234));
            } else {
                assert_eq!(events.iter().filter(priming).count(), 0, "{events:#?}");
                assert_eq!(events.iter().filter(retry).count(), 0, "{events:#?}");
            }
            // Every version has IDs on its messages.
            let messages: Vec<_> = events.iter().filter(|event| event.event.is_some()).collect();
            assert_eq!(messages.len(), 1 + 1 + 1 + 1);
            assert!(messages.iter().all(|event| event.id.is_some()));
        }
    })
    .await;
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
//= type=test
//# If the server does close the connection prior to terminating the SSE stream, it SHOULD send an SSE event with
//# a standard `retry` field before closing the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_to_poll_resumes() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let arguments = json!({"label": "poll", "before": 2, "after": 2});
        let mut call = client.call_stream(1, "hang_up", arguments).await;
        call.primed().await;
        assert_eq!(call.message().await.1["params"]["number"], 1);
        let (last, message) = call.message().await;
        assert_eq!(message["params"]["number"], 2);
        call.told_to_come_back().await;
        assert!(server.control.has_noted("poll:hung_up=true"));

        // The client polls: nothing yet on the first connection, which it gives up itself; the rest on the next.
        let mut polling = client.listen(last.id.as_deref()).await;
        polling.primed().await;
        polling.into_wire().reset();
        server.control.release("poll");
        let mut call = client.listen(last.id.as_deref()).await;
        call.primed().await;
        assert_eq!(call.message().await.1["params"]["number"], 3);
        assert_eq!(call.message().await.1["params"]["number"], 4);
        assert_eq!(call.message().await.1["result"]["done"], "poll");
        call.ended().await;

        // Clients of older versions are not told where to go on, so they are not sent away.
        let old = server.client_of("2025-06-18").await;
        let mut call = old.call_stream(1, "hang_up", json!({"label": "old", "before": 1, "after": 1})).await;
        assert_eq!(call.message().await.1["params"]["number"], 1);
        server.control.noted("old:hung_up=false").await;
        server.control.release("old");
        assert_eq!(call.message().await.1["params"]["number"], 2);
        assert_eq!(call.message().await.1["result"]["done"], "old");
        call.ended().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handler_that_fails_answers_all_the_same() {
    test(async {
        for config in [Config::default(), streaming()] {
            let server = TestServer::start(config);
            let http2 = Http2::connect(server.address).await;
            let client = Client::initialize_over(http2, "2025-11-25").await;
            let mut bystander = client.call_stream(0, "steps", json!({"label": "bystander"})).await;
            for (id, tool) in [(1, "panic"), (2, "panic_later"), (3, "drop"), (4, "drop_later")] {
                server.control.release("call");
                let mut reply = client.call(id, tool, json!({})).await;
                assert_eq!(reply.status, 200, "{tool}");
                let response = if reply.is_stream() {
                    reply.stream().await.rest().await.last().expect("a response").message()
                } else {
                    reply.json().await
                };
                assert_eq!(response["id"], id, "{tool}: {response}");
                assert_eq!(response["error"]["code"], -32603, "{tool}: {response}");
                if id % 2 == 1 {
                    // It never came to its gate.
                    server.control.release("call");
                }
            }
            client.notify("test/panic", json!({})).await;
            client.ping(5).await;
            server.control.release("bystander");
            let events = bystander.rest().await;
            assert_eq!(
                events.last().unwrap().message()["result"]["done"],
                "bystander",
                "the connection lives on"
            );
        }
    })
    .await;
}

/// The way into the handler that is not a future: a panic there is caught as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handler_that_panics_at_a_response_spares_the_connection() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let answer = json!({"jsonrpc": "2.0", "id": 1, "result": {"text": "please panic"}});
        let mut wire = Wire::connect(server.address).await;
        wire.send(&client.post_bytes(&answer)).await;
        let answered = wire.try_reply().await;
        client.ping(2).await;
        let mut reply = answered.expect("the message is answered, whatever became of it");
        reply.bytes().await;
        // The connection takes the next request.
        let mut wire = reply.body.into_wire();
        wire.send(&client.post_bytes(&json!({"jsonrpc": "2.0", "id": 3, "method": "ping"}))).await;
        assert_eq!(wire.reply().await.status, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panic_in_initialize_is_an_error_and_no_session() {
    test(async {
        let server = TestServer::start(Config::default());
        for asked in ["fail", "panic"] {
            let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
                "protocolVersion": "2025-11-25", "test": asked
            }});
            let mut wire = Wire::connect(server.address).await;
            wire.send(&request("POST", &POST_HEADERS, body.to_string().as_bytes())).await;
            let mut reply = wire.reply().await;
            assert_eq!((reply.status, reply.header("mcp-session-id")), (200, None), "{asked}");
            let code = if asked == "fail" { -32602 } else { -32603 };
            assert_eq!(reply.json().await["error"]["code"], code);
            assert!(server.sessions.is_empty());
        }
        assert_eq!(server.control.count("closed"), 2);
    })
    .await;
}

async fn call_many(server: &TestServer, clients: Vec<Client>) {
    let calls = clients.iter().enumerate().map(|(id, client)| async move {
        let arguments = json!({"label": "many", "before": 2, "after": 1});
        client.call_stream(id as u64, "steps", arguments).await
    });
    // All of them are in flight before the first is answered.
    let streams = join_all(calls).await;
    until("all to be ready", || server.control.count("many:ready") == streams.len()).await;
    streams.iter().for_each(|_| server.control.release("many"));
    let answers = join_all(streams.into_iter().map(|mut stream| async move { stream.rest().await })).await;
    for (id, events) in answers.iter().enumerate() {
        assert_eq!(events.len(), 1 + 3 + 1);
        assert_eq!(events[4].message()["id"], id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_run_at_once() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = Client::initialize_over(Http2::connect(server.address).await, "2025-11-25").await;
        call_many(&server, vec![client; 20]).await;
        let server = TestServer::start(Config::default());
        call_many(&server, vec![server.client().await; 20]).await;

        // The same ID twice in flight is an error that names it; the first is not disturbed.
        let client = server.client().await;
        let mut first = client.call_stream("id", "steps", json!({"label": "first"})).await;
        let error = client.call("id", "quick", json!({})).await.error(400).await;
        assert_eq!((error["error"]["code"].clone(), error["id"].clone()), (json!(-32600), json!("id")));
        server.control.release("first");
        assert_eq!(first.rest().await.last().unwrap().message()["result"]["done"], "first");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_are_limited() {
    test(async {
        let mut config = Config::default();
        config.sessions.max_requests = 2;
        let server = TestServer::start(config);
        let client = server.client().await;
        let mut first = client.call_stream(1, "steps", json!({})).await;
        let mut second = client.call_stream(2, "steps", json!({})).await;
        let error = client.request(3, "ping", json!({})).await.error(429).await;
        assert_eq!((error["error"]["code"].clone(), error["id"].clone()), (json!(-32000), json!(3)));
        server.client().await.ping(1).await;
        server.control.release("call");
        server.control.release("call");
        first.rest().await;
        second.rest().await;
        client.ping(4).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quick_stream_leaves_in_one_write() {
    test(async {
        let server = TestServer::start(streaming());
        let client = server.client().await;
        let mut wire = Wire::connect(server.address).await;
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
        for round in 0..5 {
            wire.send(&client.post_bytes(&call)).await;
            assert!(wire.more().await);
            let text = String::from_utf8(std::mem::take(&mut wire.received)).unwrap();
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
            assert!(text.contains("\nretry: ") && text.contains("\"result\":{}"), "round {round}: {text}");
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "round {round}: {text}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_and_body_may_come_in_pieces() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});

        // `P` begins a POST as well as the preface of HTTP/2.
        let mut wire = Wire::connect(server.address).await;
        for byte in client.post_bytes(&ping) {
            wire.send(&[byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(wire.reply().await.json().await["result"], json!({}));

        // Chunked, each chunk by itself, and two requests in one go on the same connection.
        let headers =
            [client.headers(), POST_HEADERS.to_vec(), vec![("Transfer-Encoding", "chunked")]].concat();
        let mut chunked = request("POST", &headers, b"");
        for piece in ping.to_string().as_bytes().chunks(3) {
            chunked.extend(format!("{:x}\r\n", piece.len()).bytes());
            chunked.extend(piece);
            chunked.extend(b"\r\n");
        }
        chunked.extend(b"0\r\n\r\n");
        let mut wire = Wire::connect(server.address).await;
        wire.send(&[chunked.clone(), chunked].concat()).await;
        for _ in 0..2 {
            let mut reply = wire.reply().await;
            assert_eq!(reply.json().await["result"], json!({}));
            wire = reply.body.into_wire();
        }
        // Then one that waits to be asked for its body.
        let headers = [client.headers(), POST_HEADERS.to_vec(), vec![("Expect", "100-continue")]].concat();
        let whole = request("POST", &headers, ping.to_string().as_bytes());
        let head = whole.len() - ping.to_string().len();
        wire.send(&whole[..head]).await;
        while !wire.received.ends_with(b"\r\n\r\n") {
            assert!(wire.more().await);
        }
        assert_eq!(wire.received, b"HTTP/1.1 100 Continue\r\n\r\n");
        wire.received.clear();
        wire.send(&whole[head..]).await;
        assert_eq!(wire.reply().await.json().await["result"], json!({}));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_carries_and_resumes_streams() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = Client::initialize_over(Http2::connect(server.address).await, "2025-11-25").await;
        let session = server.session(&client);
        let mut listening = client.listen(None).await;
        let primed = listening.primed().await;
        (1..=100).for_each(|number| publish(&session, number));
        for expected in 1..=100 {
            assert_eq!(support::number(&listening.message().await.1), expected);
        }
        // A stream of HTTP/2 that is dropped resets that stream and nothing else.
        drop(listening);
        until("the server to see the reset", || !session.standalone().terms().is_attached()).await;
        publish(&session, 101);
        let mut listening = client.listen(Some(&primed)).await;
        listening.primed().await;
        for expected in 1..=101 {
            assert_eq!(support::number(&listening.message().await.1), expected);
        }
        let mut call = client.call_stream(1, "steps", json!({"before": 1})).await;
        call.primed().await;
        let last = call.message().await.0.id;
        drop(call);
        server.control.release("call");
        server.control.noted("call:answered").await;
        let events = client.listen(last.as_deref()).await.rest().await;
        assert_eq!(events.last().unwrap().message()["result"]["done"], "call");
        client.delete().await.nothing(204).await;
        listening.ended().await;
        client.get(None).await.error(404).await;
    })
    .await;
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#protocol-version-header
//= type=test
//# For backwards compatibility, if the server does not receive an `MCP-Protocol-Version` header, and has no other
//# way to identify the version - for example, by relying on the protocol version negotiated during initialization
//# - the server SHOULD assume protocol version `2025-03-26`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_is_negotiated_and_remembered() {
    test(async {
        let server = TestServer::start(Config::default());
        // An unknown version is answered with the latest.
        let client = server.client().await;
        for asked in ["2024-11-05", "2099-01-01", "latest", ""] {
            let mut reply = client.send("POST", &POST_HEADERS, &hello(asked)).await;
            assert_eq!(reply.json().await["result"]["protocolVersion"], "2025-11-25", "{asked:?}");
        }
        // Without the header, what was negotiated holds: a new session is primed, an old one is not.
        for (version, primes) in [("2025-06-18", false), ("2025-11-25", true)] {
            let client = server.client_of(version).await;
            publish(&server.session(&client), 1);
            let headers = [("Mcp-Session-Id", client.session.as_str()), ("Accept", "text/event-stream")];
            let mut stream = client.send("GET", &headers, b"").await.stream().await;
            assert_eq!(stream.next().await.unwrap().is_priming(), primes);
        }
    })
    .await;
}

/// `initialize` that takes a while, or says something first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn initialize_may_take_its_time() {
    test(async {
        let server = TestServer::start(Config::default());
        let asked = |kind: &str| {
            let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
                "protocolVersion": "2025-11-25", "test": kind
            }});
            request("POST", &POST_HEADERS, body.to_string().as_bytes())
        };

        // The client goes before it can know the ID: the session goes too.
        let mut wire = Wire::connect(server.address).await;
        wire.send(&asked("slow")).await;
        server.control.noted("slow:ready").await;
        assert_eq!(server.sessions.len(), 1);
        wire.reset();
        until("the session to go", || server.sessions.is_empty()).await;
        server.control.noted("closed").await;
        server.control.release("slow");

        // It waits: the answer is JSON when it comes.
        let mut wire = Wire::connect(server.address).await;
        wire.send(&asked("slow")).await;
        server.control.release("slow");
        let mut reply = wire.reply().await;
        assert!(reply.header("mcp-session-id").is_some());
        assert_eq!(reply.json().await["result"]["protocolVersion"], "2025-11-25");

        // A message before the result: the session is known, and not initialised yet.
        let mut wire = Wire::connect(server.address).await;
        wire.send(&asked("early")).await;
        let reply = wire.reply().await;
        let session = reply.header("mcp-session-id").expect("a session id").to_owned();
        let mut client = server.client().await;
        client.session = session;
        let mut initialize = reply.stream().await;
        initialize.primed().await;
        assert_eq!(initialize.message().await.1["method"], "test/early");
        for refused in [client.request(1, "ping", json!({})).await, client.get(None).await] {
            let error = refused.error(400).await;
            assert_eq!(error["error"]["code"], -32000);
            assert!(error["error"]["message"].as_str().unwrap().contains("not initialized"), "{error}");
        }
        server.control.release("early");
        assert_eq!(initialize.message().await.1["id"], 0);
        initialize.ended().await;
        client.ping(2).await;
        let _: Value = client.request(3, "ping", json!({})).await.json().await;
    })
    .await;
}
