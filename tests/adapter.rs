//! An rmcp handler behind the adapter, seen from the wire.

#![cfg(all(feature = "server", feature = "rmcp", feature = "everything"))]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmain::adapter::Rmcp;
use ringmain::everything::Everything;
use ringmain::server::{Answer, Config};
use rmcp::model::{ErrorData, ListToolsResult, PaginatedRequestParams};
use rmcp::service::{NotificationContext, RequestContext};
use rmcp::{Peer, RoleServer};
use serde_json::{Value, json};
use support::{Client, Http2, Stream, TestServer, publish, test, until};

fn everything() -> TestServer {
    TestServer::start_with(Rmcp::new(|| Ok(Everything::default())), streaming())
}

/// Every answer is a stream, however soon the handler has it.
fn streaming() -> Config {
    let mut config = Config::default();
    config.answer = Answer::Stream;
    config
}

async fn tool(client: &Client, id: u64, name: &str, arguments: Value) -> Stream {
    let params = json!({"name": name, "arguments": arguments, "_meta": {"progressToken": id}});
    client.request(id, "tools/call", params).await.stream().await
}

fn text(response: &Value) -> &str {
    response["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {response}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_report_on_their_own_stream() {
    test(async {
        let server = everything();
        let client = server.client().await;
        let session = server.session(&client);
        let mut listening = client.listen(None).await;
        listening.primed().await;

        let mut call = tool(&client, 1, "test_tool_with_progress", json!({})).await;
        call.primed().await;
        for progress in [0.0, 50.0, 100.0] {
            let (_, message) = call.message().await;
            assert_eq!(message["method"], "notifications/progress");
            assert_eq!(message["params"]["progressToken"], 1);
            assert_eq!(message["params"]["progress"].as_f64(), Some(progress));
        }
        let (_, response) = call.message().await;
        assert_eq!((response["id"].clone(), text(&response)), (json!(1), "Tool with progress completed"));
        call.ended().await;

        let mut call = tool(&client, 2, "test_trigger_tool_change", json!({})).await;
        let events = call.rest().await;
        assert_eq!(events.len(), 2, "priming and the response");
        let (event, message) = listening.message().await;
        assert_eq!((event.position(), &message["method"]), (1, &json!("notifications/tools/list_changed")));

        let error = client
            .request(3, "tools/call", json!({"name": "no_such_tool"}))
            .await
            .stream()
            .await
            .rest()
            .await;
        assert_eq!(error.last().unwrap().message()["error"]["code"], -32602);
        let error = client.request(4, "no/such/method", json!({})).await.stream().await.rest().await;
        assert_eq!(error.last().unwrap().message()["error"]["code"], -32601);
        publish(&session, 1);
        assert_eq!(listening.message().await.0.position(), 2, "nothing of a request");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_asked_where_the_answer_is_awaited() {
    test(async {
        let server = everything();
        let client = server.client().await;
        // rmcp asks only what the client said it can answer.
        let mut capable = client.clone();
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {"sampling": {}, "elicitation": {}},
            "clientInfo": {"name": "test", "version": "0"}
        }});
        let reply = client.send("POST", &support::POST_HEADERS, hello.to_string().as_bytes()).await;
        capable.session = reply.header("mcp-session-id").expect("a session id").to_owned();
        capable.notify("notifications/initialized", json!({})).await;

        let mut call = tool(&capable, 1, "test_sampling", json!({"prompt": "capital of France?"})).await;
        call.primed().await;
        let (_, question) = call.message().await;
        assert_eq!(question["method"], "sampling/createMessage");
        let answer = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "Paris"}});
        let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": answer});
        capable.post(&answer).await.nothing(202).await;
        let (_, response) = call.message().await;
        assert!(text(&response).contains("Paris"), "{response}");
        call.ended().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_tool_stops_and_answers_nothing() {
    test(async {
        let server = everything();
        let client = server.client().await;
        let session = server.session(&client);
        let mut call =
            tool(&client, 1, "test_progress_stream", json!({"count": 100_000, "interval_ms": 5})).await;
        call.primed().await;
        for _ in 0..3 {
            call.message().await;
        }
        client.notify("notifications/cancelled", json!({"requestId": 1})).await;
        let rest = call.rest().await;
        assert!(
            rest.iter().all(|event| event.message()["method"] == "notifications/progress"),
            "no response"
        );
        until("nothing to be in flight", || session.summary().in_flight == 0).await;
        client.ping(2).await;
    })
    .await;
}

/// rmcp reads whole numbers as integers alone; it is given them so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_in_another_spelling_reach_the_handler() {
    test(async {
        let server = everything();
        let client = server.client().await;
        let headers = [client.headers(), support::POST_HEADERS.to_vec()].concat();
        let call = r#"{"jsonrpc":"2.0","id":1.0,"method":"tools/call","params":{"name":"test_tool_with_progress",
            "arguments":{},"_meta":{"progressToken":2e0}}}"#;
        let mut call = client.send("POST", &headers, call.as_bytes()).await.stream().await;
        call.primed().await;
        assert_eq!(call.message().await.1["params"]["progressToken"].to_string(), "2");
        let response = call.rest().await.last().unwrap().message();
        assert_eq!((response["id"].to_string(), text(&response)), ("1".into(), "Tool with progress completed"));

        let call = r#"{"jsonrpc":"2.0","id":30e-1,"method":"tools/call","params":{"name":"test_progress_stream",
            "arguments":{"count":100000,"interval_ms":5},"_meta":{"progressToken":"t"}}}"#;
        let mut call = client.send("POST", &headers, call.as_bytes()).await.stream().await;
        call.primed().await;
        call.message().await;
        let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3.0}}"#;
        client.send("POST", &headers, cancel.as_bytes()).await.nothing(202).await;
        let last = call.rest().await.pop();
        assert!(last.is_none_or(|event| event.message()["method"] == "notifications/progress"));
    })
    .await;
}

/// Requests of a batch run side by side, and each of them reports on the batch's stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_reach_the_handler() {
    test(async {
        let server = everything();
        let client = server.client_of("2025-03-26").await;
        let call = |id: u64| {
            json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {
                "name": "test_tool_with_progress", "arguments": {}, "_meta": {"progressToken": id}}})
        };
        let events = client.post(&json!([call(1), call(2)])).await.stream().await.rest().await;
        let messages: Vec<_> = events.iter().map(support::Event::message).collect();
        assert_eq!(messages.len(), 8, "three of progress and a response each");
        for id in [1, 2] {
            let response = messages.iter().position(|message| message["id"] == id).expect("a response");
            let progress = |message: &&Value| message["params"]["progressToken"] == id;
            assert_eq!(messages[..response].iter().filter(progress).count(), 3);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_and_closed_connections_resume() {
    test(async {
        let server = everything();
        let client = server.client().await;
        // The tool closes its connection; the client comes back.
        let mut call = tool(&client, 1, "test_reconnection", json!({})).await;
        let primed = call.primed().await;
        call.told_to_come_back().await;
        let events = client.listen(Some(&primed)).await.rest().await;
        assert_eq!(text(&events.last().unwrap().message()), "Reconnection test completed");

        // The client breaks off at each step.
        let mut call = tool(&client, 2, "test_progress_stream", json!({"count": 50, "interval_ms": 5})).await;
        let mut last = call.primed().await;
        let mut steps = Vec::new();
        let done = loop {
            let (event, message) = call.message().await;
            assert_eq!(event.position(), steps.len() as u64 + 1);
            last = event.id.unwrap_or(last);
            if message["id"] == 2 {
                break message;
            }
            steps.push(message["params"]["progress"].as_f64().unwrap() as u64);
            if steps.len() % 7 == 0 {
                call.into_wire().reset();
                call = client.listen(Some(&last)).await;
                call.primed().await;
            }
        };
        assert_eq!((text(&done), steps), ("done 50", (1..=50).collect()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_with_their_services() {
    test(async {
        let mut config = Config::default();
        config.answer = Answer::Stream;
        let server = TestServer::start_with(Rmcp::new(|| Ok(Everything::default())), config);
        for version in ["2025-03-26", "2025-06-18", "2025-11-25"] {
            let http2 = Http2::connect(server.address).await;
            let client = Client::initialize_over(http2, version).await;
            let mut call =
                tool(&client, 1, "test_progress_stream", json!({"count": 100_000, "interval_ms": 5})).await;
            call.next().await.expect("it has begun");
            client.delete().await.nothing(204).await;
            call.rest().await;
            client.request(2, "ping", json!({})).await.error(404).await;
        }
        assert!(server.sessions.is_empty());
    })
    .await;
}

/// A service whose end can be seen.
#[derive(Clone)]
struct Counted {
    _alive: Arc<()>,
}

impl rmcp::ServerHandler for Counted {}

/// What a session had is freed when it ends, however it ends and however far it came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_is_dropped_with_its_session() {
    test(async {
        let alive = Arc::new(());
        let mut config = Config::default();
        config.sessions.idle_ms = 500;
        config.sweep = Duration::from_millis(50);
        let counted = alive.clone();
        let server =
            TestServer::start_with(Rmcp::new(move || Ok(Counted { _alive: counted.clone() })), config);
        // The factory has one, and so has this test.
        let services = || Arc::strong_count(&alive) - 2;

        let client = server.client().await;
        client.ping(1).await;
        assert!(services() > 0);
        client.delete().await.nothing(204).await;
        until("the service to go by DELETE", || services() == 0).await;

        // One that expires, with its stream open; and one that never said `notifications/initialized`.
        let client = server.client().await;
        let mut listening = client.listen(None).await;
        let reply = client.send("POST", &support::POST_HEADERS, &support::hello("2025-11-25")).await;
        assert!(reply.header("mcp-session-id").is_some());
        assert!(services() > 0);
        listening.rest().await;
        until("the services to expire", || services() == 0 && server.sessions.is_empty()).await;
    })
    .await;
}

/// Services that are there when the server ends do not outlive it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_end_with_the_server() {
    test(async {
        let alive = Arc::new(());
        let counted = alive.clone();
        let factory = move || Ok(Counted { _alive: counted.clone() });
        let server = TestServer::start_with(Rmcp::new(factory), Config::default());
        server.client().await.ping(1).await;
        server.handle.drain();
        server.stopped().await;
        until("the service to go with the server", || Arc::strong_count(&alive) == 1).await;
    })
    .await;
}

/// A factory that fails costs its client an error, and nobody anything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn factory_that_fails_is_an_error() {
    test(async {
        let factory = || Err::<Everything, _>(std::io::Error::other("no"));
        let server = TestServer::start_with(Rmcp::new(factory), Config::default());
        for _ in 0..3 {
            let mut wire = support::Wire::connect(server.address).await;
            let body = support::hello("2025-11-25");
            wire.send(&support::request("POST", &support::POST_HEADERS, &body)).await;
            let mut reply = wire.reply().await;
            assert_eq!((reply.status, reply.header("mcp-session-id")), (200, None));
            assert_eq!(reply.json().await["error"]["code"], -32603);
            assert!(server.sessions.is_empty());
        }
    })
    .await;
}

/// What a handler has between calls: what it counted, and a peer if it keeps one.
#[derive(Default)]
struct Keeper {
    calls: AtomicU64,
    keeps: bool,
    peer: Mutex<Option<Peer<RoleServer>>>,
}

impl rmcp::ServerHandler for Keeper {
    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        if self.keeps {
            *self.peer.lock().unwrap() = Some(context.peer);
        }
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let client = context.peer.peer_info().map(|info| info.client_info.name.clone());
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut result = ListToolsResult::with_all_items(Vec::new());
        result.next_cursor = Some(format!("{} {calls}", client.unwrap_or_default()));
        Ok(result)
    }
}

/// A server of `Keeper`s that rest soon, and the last one that was made.
fn keepers(keeps: bool) -> (TestServer, Arc<Mutex<Option<Arc<Keeper>>>>) {
    let last: Arc<Mutex<Option<Arc<Keeper>>>> = Arc::default();
    let made = last.clone();
    let factory = move || {
        let keeper = Arc::new(Keeper { keeps, ..Keeper::default() });
        *made.lock().unwrap() = Some(keeper.clone());
        Ok(keeper)
    };
    let handler = Rmcp::new(factory).rest_after(Some(Duration::from_millis(100)));
    (TestServer::start_with(handler, streaming()), last)
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Services with nothing to do have no task; their handlers stay as they were, and the next call finds them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_services_rest_and_go_on() {
    test(async {
        let (server, _) = keepers(false);
        let first = server.client().await;
        first.ping(1).await;
        until("the first service to rest", || tasks() < 8).await;
        let few = tasks();
        let mut clients = Vec::new();
        for _ in 0..50 {
            clients.push(server.client().await);
        }
        for call in 0..4 {
            for client in &clients {
                let events = client.request(call, "tools/list", json!({})).await.stream().await.rest().await;
                let reply = events.last().expect("a response").message();
                assert_eq!(reply["result"]["nextCursor"], format!("test {call}"), "{reply}");
            }
            // Each call of a service at rest begins its loop again, and lets it go.
            until("all services to rest", || tasks() <= few + 2).await;
        }
        first.ping(2).await;
        for client in &clients {
            client.delete().await.nothing(204).await;
        }
    })
    .await;
}

/// A service may speak of its own accord for as long as it holds the peer to do it with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_whose_handler_holds_a_peer_goes_on() {
    test(async {
        let (server, last) = keepers(true);
        let client = server.client().await;
        let mut listening = client.listen(None).await;
        listening.primed().await;
        let keeper = last.lock().unwrap().clone().expect("a session began");
        until("the peer to be kept", || keeper.peer.lock().unwrap().is_some()).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        let peer = keeper.peer.lock().unwrap().clone().expect("it is kept");
        peer.notify_tool_list_changed().await.expect("it is heard");
        assert_eq!(listening.message().await.1["method"], "notifications/tools/list_changed");
        // Once it is let go the loop may end.
        let awake = tasks();
        drop((peer, keeper.peer.lock().unwrap().take()));
        until("the service to rest", || tasks() < awake).await;
        client.ping(1).await;
    })
    .await;
}

/// The handler was not told when the application ended a session, and each service stayed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminated_sessions_let_go_of_their_handlers() {
    struct Kept {
        _alive: Arc<()>,
    }
    impl rmcp::ServerHandler for Kept {}
    test(async {
        let alive = Arc::new(());
        let given = alive.clone();
        let handler = Rmcp::new(move || Ok(Kept { _alive: given.clone() }));
        let server = TestServer::start_with(handler, Config::default());
        for _ in 0..50 {
            server.client().await;
        }
        assert_eq!(Arc::strong_count(&alive), 2 + 50);
        // Held by the application, as long as it likes.
        let mut sessions = Vec::new();
        server.sessions.for_each(|session| sessions.push(session.clone()));
        assert!(sessions.iter().all(|session| server.sessions.terminate(session)));
        until("the handlers to go", || Arc::strong_count(&alive) == 2).await;
    })
    .await;
}

/// What the client was asked may take as long as it takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_that_waits_for_the_client_goes_on() {
    test(async {
        let handler = Rmcp::new(|| Ok(Everything::default())).rest_after(Some(Duration::from_millis(50)));
        let server = TestServer::start_with(handler, Config::default());
        let mut client = server.client().await;
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {"sampling": {}},
            "clientInfo": {"name": "test", "version": "0"}
        }});
        let reply = client.send("POST", &support::POST_HEADERS, hello.to_string().as_bytes()).await;
        client.session = reply.header("mcp-session-id").expect("a session id").to_owned();
        client.notify("notifications/initialized", json!({})).await;
        for id in 1..3 {
            let mut call = tool(&client, id, "test_sampling", json!({"prompt": "?"})).await;
            call.primed().await;
            let (_, question) = call.message().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            let answer = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "!"}});
            let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": answer});
            client.post(&answer).await.nothing(202).await;
            assert!(call.message().await.1["result"].is_object());
            call.ended().await;
            // And then it rests, and is asked the next.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    })
    .await;
}
