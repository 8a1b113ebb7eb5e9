//! Batches: several messages in one POST, in sessions of `2025-03-26` alone.

#![cfg(feature = "server")]

mod support;

use ringmain::internals::protocol::MAX_BATCH;
use ringmain::server::Config;
use serde_json::{Value, json};
use support::{Client, Http2, POST_HEADERS, Reply, TestServer, hello, test, until};

const VERSION: &str = "2025-03-26";

async fn post(client: &Client, body: &str) -> Reply {
    let headers = [client.headers(), POST_HEADERS.to_vec()].concat();
    client.send("POST", &headers, body.as_bytes()).await
}

fn call(id: u64, tool: &str, arguments: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

fn ping(id: u64) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "ping"})
}

fn notification(method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

/// The IDs of responses, in order.
fn ids(responses: &[Value]) -> Vec<u64> {
    let mut ids: Vec<_> = responses.iter().map(|response| response["id"].as_u64().expect("an id")).collect();
    ids.sort_unstable();
    ids
}

async fn array(mut reply: Reply, status: u16) -> Vec<Value> {
    let body = reply.json().await;
    assert_eq!(reply.status, status, "{body}");
    serde_json::from_value(body).expect("an array")
}

//= https://modelcontextprotocol.io/specification/2025-03-26/basic#batching
//= type=test
//# MCP implementations MAY support sending JSON-RPC batches, but MUST support receiving JSON-RPC batches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_is_answered_as_an_array() {
    test(async {
        let server = TestServer::start(Config::default());
        let http2 = Client::initialize_over(Http2::connect(server.address).await, VERSION).await;
        for client in [server.client_of(VERSION).await, http2] {
            let unknown = json!({"jsonrpc": "2.0", "id": 3, "method": "no/such"});
            let note = notification("test/note", &json!({}));
            let batch = json!([ping(1), note, call(2, "quick", &json!({"label": "two"})), unknown]);
            let responses = array(post(&client, &batch.to_string()).await, 200).await;
            assert_eq!(ids(&responses), [1, 2, 3]);
            for response in responses {
                match response["id"].as_u64() {
                    Some(1) => assert_eq!(response["result"], json!({})),
                    Some(2) => assert_eq!(response["result"]["done"], "two"),
                    _ => assert_eq!(response["error"]["code"], -32601),
                }
            }
            server.control.noted("notification:test/note").await;
            // One message is a batch as well, and white space stands anywhere.
            let responses = array(post(&client, &format!(" [\n{} ] ", ping(4))).await, 200).await;
            assert_eq!(ids(&responses), [4]);
            let summary = server.session(&client).summary();
            assert_eq!((summary.in_flight, summary.retained), (0, 0));
        }
    })
    .await;
}

/// What takes its time goes on one stream, which ends behind the last response and can be resumed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_is_answered_on_one_stream() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client_of(VERSION).await;
        let slow = |id, label: &str| call(id, "steps", &json!({"label": label, "before": 1, "after": 1}));
        let batch = json!([slow(1, "one"), ping(2), slow(3, "three"), call(4, "ask", &json!({}))]);
        let mut stream = post(&client, &batch.to_string()).await.stream().await;
        let (mut responses, mut notes, mut last) = (Vec::new(), Vec::new(), String::new());
        let mut question = None;
        for _ in 0..4 {
            let (event, message) = stream.message().await;
            last = event.id().to_owned();
            match message["method"].as_str() {
                None => responses.push(message),
                Some("test/step") => notes.push(message["params"]["label"].clone()),
                Some(_) => question = Some(message["id"].clone()),
            }
        }
        assert_eq!((ids(&responses), notes.len()), (vec![2], 2));
        assert_eq!(server.session(&client).summary().asks, 1);
        drop(stream);
        // The rest comes to who resumes, whenever it is published.
        let answer = json!({"jsonrpc": "2.0", "id": question.unwrap(), "result": {"yes": 1}});
        post(&client, &json!([answer]).to_string()).await.nothing(202).await;
        server.control.release("three");
        server.control.noted("three:answered").await;
        let mut stream = client.listen(Some(&last)).await;
        server.control.release("one");
        let events = stream.rest().await;
        let more: Vec<_> = events.iter().map(support::Event::message).collect();
        let (more, notes): (Vec<_>, Vec<_>) =
            more.into_iter().partition(|message| message["method"].is_null());
        assert_eq!((ids(&more), notes.len()), (vec![1, 3, 4], 2));
        let session = server.session(&client);
        until("the requests to be over", || session.summary().in_flight == 0).await;
    })
    .await;
}

//= https://modelcontextprotocol.io/specification/2025-03-26/basic/transports#sending-messages-to-the-server
//= type=test
//# If the input consists solely of (any number of) JSON-RPC responses or notifications: If the server accepts the
//# input, the server MUST return HTTP status code 202 Accepted with no body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_without_requests_is_accepted() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client_of(VERSION).await;
        let note = |method| notification(method, &json!({}));
        let batch = json!([note("test/a"), note("test/b")]);
        post(&client, &batch.to_string()).await.nothing(202).await;
        server.control.noted("notification:test/a").await;
        server.control.noted("notification:test/b").await;
        let answer = json!({"jsonrpc": "2.0", "id": 99, "result": {}});
        post(&client, &json!([answer, answer]).to_string()).await.nothing(202).await;
        assert_eq!(server.control.count("response:false"), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faulty_batches_are_refused_and_faulty_messages_answered() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client_of(VERSION).await;
        for (body, code, fragment) in [
            ("[]", -32600, "empty"),
            ("[1", -32700, "not JSON"),
            (&json!(vec![ping(1); MAX_BATCH + 1]).to_string(), -32600, "100 messages"),
            (&"[".repeat(10_000), -32600, "nested deeper"),
        ] {
            let error = post(&client, body).await.error(400).await;
            assert_eq!(error["error"]["code"], code, "{error}");
            assert!(error["error"]["message"].as_str().unwrap().contains(fragment), "{error}");
        }
        // Nothing but faults: all of them are told.
        let hello: Value = serde_json::from_slice(&hello(VERSION)).unwrap();
        let note = notification("test/beside", &json!({}));
        let faults = json!([1, [ping(1)], {"jsonrpc": "2.0", "id": 1}, hello, note]);
        let errors = array(post(&client, &faults.to_string()).await, 400).await;
        assert_eq!(errors.len(), 4);
        assert!(errors.iter().all(|error| error["error"]["code"] == -32600), "{errors:?}");
        assert_eq!(errors.iter().filter(|error| error.get("id").is_none()).count(), 3);
        assert!(errors[3]["error"]["message"].as_str().unwrap().contains("send it alone"));
        server.control.noted("notification:test/beside").await;
        // Beside them the rest is answered.
        let mixed = json!([1, ping(5), hello, call(6, "quick", &json!({}))]);
        let responses = array(post(&client, &mixed.to_string()).await, 200).await;
        let (good, bad): (Vec<_>, Vec<_>) =
            responses.into_iter().partition(|response| response["error"].is_null());
        assert_eq!((ids(&good), bad.len()), (vec![5, 6], 2));
        // The same ID twice, while the first is in flight.
        let steps = call(7, "steps", &json!({"label": "seven"}));
        let mut stream = post(&client, &json!([steps, ping(7)]).to_string()).await.stream().await;
        let (_, error) = stream.message().await;
        assert!(error["error"]["message"].as_str().unwrap().contains("still in flight"), "{error}");
        // A cancelled request has no response, and the stream ends without it.
        let cancel = notification("notifications/cancelled", &json!({"requestId": 7}));
        post(&client, &json!([cancel]).to_string()).await.nothing(202).await;
        stream.ended().await;

        // `initialize` within a batch, as nothing else can be.
        for batch in [json!([hello]), json!([hello, ping(1)])] {
            let reply = client.send("POST", &POST_HEADERS, batch.to_string().as_bytes()).await;
            let error = reply.error(400).await;
            assert!(error["error"]["message"].as_str().unwrap().contains("send it alone"));
        }
        let reply = client.send("POST", &POST_HEADERS, json!([ping(1)]).to_string().as_bytes()).await;
        reply.error(400).await;
        assert_eq!(server.sessions.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_versions_have_no_batches() {
    test(async {
        let server = TestServer::start(Config::default());
        for version in ["2025-06-18", "2025-11-25"] {
            let client = server.client_of(version).await;
            for batch in [json!([ping(1)]), json!([]), json!([notification("test/a", &json!({}))])] {
                let error = post(&client, &batch.to_string()).await.error(400).await;
                assert!(error["error"]["message"].as_str().unwrap().contains("batches are not supported"));
            }
        }
    })
    .await;
}

/// The array was short, and nothing told of the responses that were not in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_batches_are_answered_to_the_last_request() {
    test(async {
        let mut config = Config::default();
        config.sessions.request.max_weight = 1 << 20;
        let server = TestServer::start(config);
        let client = server.client_of(VERSION).await;
        let calls: Vec<_> = (1..=21).map(|id| call(id, "quick", &json!({"padding": 64 << 10}))).collect();
        for accept in ["application/json", "application/json, text/event-stream"] {
            let headers = vec![("Content-Type", "application/json"), ("Accept", accept)];
            let headers = [client.headers(), headers].concat();
            let reply = client.send("POST", &headers, json!(calls).to_string().as_bytes()).await;
            let (errors, responses): (Vec<_>, Vec<_>) =
                array(reply, 200).await.into_iter().partition(|response| response["result"].is_null());
            assert_eq!((ids(&[&errors[..], &responses].concat())), (1..=21).collect::<Vec<_>>());
            assert_eq!(responses.len(), 15, "as many as a stream may retain");
            assert!(errors.iter().all(|error| error["error"]["code"] == -32603), "{errors:?}");
        }
    })
    .await;
}

/// A client that accepts JSON alone waits for the array; one that accepts streams alone gets a stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_come_in_the_form_that_is_accepted() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client_of(VERSION).await;
        let headers =
            |accept| [client.headers(), vec![("Content-Type", "application/json"), ("Accept", accept)]];
        let steps = call(1, "steps", &json!({"label": "one", "before": 2}));
        let cancelled = call(2, "steps", &json!({"label": "two"}));
        let batch = json!([steps, cancelled, call(3, "ask", &json!({}))]).to_string();
        let json = headers("application/json").concat();
        let (reply, ()) = tokio::join!(client.send("POST", &json, batch.as_bytes()), async {
            server.control.noted("two:ready").await;
            client.notify("notifications/cancelled", json!({"requestId": 2})).await;
            server.control.release("one");
        });
        let responses = array(reply, 200).await;
        assert_eq!(ids(&responses), [1, 3], "a cancelled request has no response");
        assert_eq!(server.sessions.traffic().not_accepted(), 2);
        let (stream, batch) = (headers("text/event-stream").concat(), batch.replace("steps", "quick"));
        let events = client.send("POST", &stream, batch.as_bytes()).await.stream().await;
        drop(events);
        let session = server.session(&client);
        until("the quick ones to be over", || session.summary().in_flight <= 2).await;
        client.delete().await.nothing(204).await;
        assert_eq!(session.summary().in_flight, 0);
    })
    .await;
}
