//! What a client accepts, and what it gets.

#![cfg(feature = "server")]

mod support;

use ringmain::server::{Accept, Answer, Config};
use serde_json::{Value, json};
use support::{Client, Http2, Reply, TestServer, hello, soon, test, until};

/// Posts a message with this `Accept`, or with none.
async fn post(client: &Client, accept: Option<&str>, message: &Value) -> Reply {
    let mut headers = [client.headers(), vec![("Content-Type", "application/json")]].concat();
    headers.extend(accept.map(|accept| ("Accept", accept)));
    client.send("POST", &headers, message.to_string().as_bytes()).await
}

fn call(id: u64, tool: &str, arguments: &Value) -> Value {
    let meta = json!({"progressToken": id});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "_meta": meta}})
}

const JSON: Option<&str> = Some("application/json");

/// A client over HTTP/1.1 and one over HTTP/2.
async fn both(server: &TestServer) -> [Client; 2] {
    let http2 = Http2::connect(server.address).await;
    [server.client().await, Client::initialize_over(http2, "2025-11-25").await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_accepted_gets_what_suits() {
    test(async {
        let server = TestServer::start(Config::default());
        for client in both(&server).await {
            for accept in [None, Some(""), Some("*/*"), Some("application/*, text/*;q=0.5")] {
                let mut quick = post(&client, accept, &call(1, "quick", &json!({}))).await;
                assert_eq!(quick.json().await["id"], 1, "{accept:?}");
                let stream = post(&client, accept, &call(2, "progress", &json!({"before": 2}))).await;
                let events = stream.stream().await.rest().await;
                assert_eq!(events.len(), 4, "{accept:?}: priming, two of progress, the response");
            }
            for accept in [Some("text/event-stream"), Some("text/*, application/json;q=0")] {
                let stream = post(&client, accept, &call(1, "quick", &json!({}))).await;
                let events = stream.stream().await.rest().await;
                assert_eq!(events.last().unwrap().message()["id"], 1, "{accept:?}");
            }
            for accept in ["text/html", "*/*;q=0", "image/*, application/jsonx"] {
                post(&client, Some(accept), &call(1, "quick", &json!({}))).await.error(406).await;
            }
            for accept in [None, Some("*/*"), Some("text/event-stream")] {
                let headers: Vec<_> =
                    client.headers().into_iter().chain(accept.map(|accept| ("Accept", accept))).collect();
                client.send("GET", &headers, b"").await.stream().await.primed().await;
            }
            let headers = [client.headers(), vec![("Accept", "application/json")]].concat();
            client.send("GET", &headers, b"").await.error(406).await;
        }
    })
    .await;
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
//= type=test
//# The client MUST include an Accept header, listing both application/json and text/event-stream as supported
//# content types.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_servers_ask_for_both() {
    test(async {
        let mut config = Config::default();
        config.accept = Accept::Strict;
        let server = TestServer::start(config);
        let client = server.client().await;
        for accept in [None, JSON, Some("text/event-stream"), Some(""), Some("text/html")] {
            let error = post(&client, accept, &call(1, "quick", &json!({}))).await.error(406).await;
            assert!(error["error"]["message"].as_str().unwrap().contains("must list both"), "{error}");
        }
        client.send("GET", &client.headers(), b"").await.error(406).await;
        assert_eq!(post(&client, Some("*/*"), &call(1, "quick", &json!({}))).await.status, 200);
    })
    .await;
}

/// The response comes as JSON when it is there; what would come before it is dropped and counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_alone_gets_the_response_alone() {
    test(async {
        for answer in [Answer::Auto, Answer::Stream] {
            let mut config = Config::default();
            config.answer = answer;
            let server = TestServer::start(config);
            let mut dropped = 0;
            for client in both(&server).await {
                let label = format!("slow{}", client.session);
                let slow = call(1, "steps", &json!({"label": label, "before": 3, "after": 2}));
                let (mut reply, ()) = tokio::join!(post(&client, JSON, &slow), async {
                    server.control.noted(&format!("{label}:ready")).await;
                    server.control.release(&label);
                });
                assert_eq!((reply.status, reply.is_stream()), (200, false));
                let response = reply.json().await;
                assert_eq!((&response["id"], &response["result"]["done"]), (&json!(1), &json!(label)));
                dropped += 5;
                assert_eq!(server.sessions.traffic().not_accepted(), dropped);
                assert!(
                    server
                        .metrics
                        .text()
                        .contains(&format!("\nringmain_messages_not_accepted_total {dropped}\n"))
                );
                // There is no way to ask the client anything.
                let mut reply = post(&client, JSON, &call(2, "ask", &json!({}))).await;
                let refused = reply.json().await["result"]["refused"].clone();
                assert!(refused.as_str().unwrap().contains("cannot be asked"), "{refused}");
                // Nor to send it away and back.
                let label = format!("away{}", client.session);
                let away = call(3, "hang_up", &json!({"label": label}));
                let (mut reply, ()) = tokio::join!(post(&client, JSON, &away), async {
                    server.control.noted(&format!("{label}:hung_up=false")).await;
                    server.control.release(&label);
                });
                assert_eq!(reply.json().await["id"], 3);
                let summary = server.session(&client).summary();
                assert_eq!((summary.in_flight, summary.retained, summary.asks), (0, 0, 0));
            }
        }
    })
    .await;
}

/// A client that accepts JSON alone shakes hands as well, whatever is said before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_alone_begins_a_session() {
    test(async {
        let server = TestServer::start(Config::default());
        server.control.release("early");
        let client = server.client().await;
        let with = |accept| [("Content-Type", "application/json"), ("Accept", accept)];
        let early = String::from_utf8(hello("2025-11-25")).unwrap();
        let early = early.replace(r#""capabilities""#, r#""test":"early","capabilities""#);
        let mut reply = client.send("POST", &with("application/json"), early.as_bytes()).await;
        assert!(reply.header("mcp-session-id").is_some());
        assert_eq!(reply.json().await["result"]["protocolVersion"], "2025-11-25");
        assert_eq!(server.sessions.len(), 2);
        // A handshake that fails leaves no session, in either form.
        let fails = early.replace("early", "fail");
        let mut reply = client.send("POST", &with("application/json"), fails.as_bytes()).await;
        assert_eq!(reply.json().await["error"]["message"], "not today");
        let reply = client.send("POST", &with("text/event-stream"), fails.as_bytes()).await;
        assert_eq!(reply.header("mcp-session-id"), None);
        let events = reply.stream().await.rest().await;
        assert_eq!(events.last().unwrap().message()["error"]["message"], "not today");
        assert_eq!(server.sessions.len(), 2);
    })
    .await;
}

/// Whatever becomes of a request, a client that waits for JSON gets an answer, and leaves nothing when it goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_alone_is_answered_whatever_happens() {
    test(async {
        let server = TestServer::start(Config::default());
        for client in both(&server).await {
            let waits = |id, label: &str| call(id, "steps", &json!({"label": label}));
            let label = format!("cancelled{}", client.session);
            let (waiting, ready) = (waits(1, &label), format!("{label}:ready"));
            let (mut reply, ()) = tokio::join!(post(&client, JSON, &waiting), async {
                server.control.noted(&ready).await;
                client.notify("notifications/cancelled", json!({"requestId": 1})).await;
            });
            let error = reply.json().await;
            assert_eq!((&error["id"], &error["error"]["code"]), (&json!(1), &json!(-32800)));

            let label = format!("left{}", client.session);
            let (left, ready) = (waits(2, &label), format!("{label}:ready"));
            tokio::select! {
                _ = post(&client, JSON, &left) => panic!("it waits"),
                () = server.control.noted(&ready) => {}
            }
            let session = server.session(&client);
            // The connection is closed; the request goes on, and nobody can fetch its response.
            assert_eq!(session.summary().in_flight, 1);
            server.control.release(&label);
            until("the response to be let go", || {
                let summary = session.summary();
                (summary.in_flight, summary.retained) == (0, 0)
            })
            .await;

            let label = format!("ended{}", client.session);
            let (waiting, ready) = (waits(3, &label), format!("{label}:ready"));
            let (reply, ()) = tokio::join!(post(&client, JSON, &waiting), async {
                server.control.noted(&ready).await;
                client.delete().await.nothing(204).await;
            });
            soon("a refusal", reply.error(404)).await;
        }
    })
    .await;
}
