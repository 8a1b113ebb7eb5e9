//! What a client and a hosted rmcp handler can do to each other: IDs, open questions, wrong messages, panics.

#![cfg(all(feature = "server", feature = "rmcp"))]
#![allow(deprecated, reason = "rmcp marks roots deprecated; up to 2025-11-25 they are the protocol")]

mod support;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmain::adapter::Rmcp;
use ringmain::handler::Outlet;
use ringmain::server::Config;
use rmcp::model::{
    CustomNotification, CustomRequest, CustomResult, ErrorCode, ErrorData, InitializeRequestParams,
    InitializeResult, ListRootsRequest, ProgressNotificationParam, ServerRequest,
};
use rmcp::service::{NotificationContext, PeerRequestOptions, RequestContext};
use rmcp::{RoleServer, ServerHandler};
use serde_json::{Value, json};
use support::{Client, POST_HEADERS, Stream, TestServer, test, until};
use tokio::sync::watch;
use tokio::time::timeout;

const REST_AFTER: Duration = Duration::from_millis(100);
/// How long handlers wait for an answer where they give up by themselves.
const BRIEFLY: Duration = Duration::from_millis(50);

/// Does what the method of a request says.
struct Host {
    notes: Mutex<Vec<String>>,
    open: watch::Sender<Vec<String>>,
}

impl Default for Host {
    fn default() -> Self {
        Self { notes: Mutex::default(), open: watch::Sender::new(Vec::new()) }
    }
}

impl Host {
    fn note(&self, note: impl Into<String>) {
        self.notes.lock().unwrap().push(note.into());
    }

    fn has_noted(&self, note: &str) -> bool {
        self.notes.lock().unwrap().iter().any(|noted| noted == note)
    }

    async fn noted(&self, note: &str) {
        until(note, || self.has_noted(note)).await;
    }

    /// Lets go on who waits at the gate of this name.
    fn open(&self, gate: &str) {
        self.open.send_modify(|open| open.push(gate.to_owned()));
    }

    async fn pass(&self, gate: &str) {
        self.note(format!("at {gate}"));
        let mut open = self.open.subscribe();
        open.wait_for(|open| open.iter().any(|name| name == gate)).await.unwrap();
    }
}

fn told<T, E: ToString>(outcome: Result<T, E>) -> Value {
    match outcome {
        Ok(_) => json!({"answered": true}),
        Err(error) => json!({"failed": error.to_string()}),
    }
}

impl ServerHandler for Host {
    async fn initialize(
        &self,
        request: InitializeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        assert_ne!(request.client_info.name, "panic", "as it was told");
        Ok(self.get_info())
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let params = request.params.unwrap_or_default();
        let gate = params["gate"].as_str().unwrap_or("none");
        let result = match &*request.method {
            "test/echo" => json!({"id": context.id, "params": params}),
            "test/ask" => told(context.peer.list_roots().await),
            "test/ask_briefly" => {
                let question = ServerRequest::ListRootsRequest(ListRootsRequest::default());
                let options = PeerRequestOptions::with_timeout(BRIEFLY);
                let handle = context.peer.send_cancellable_request(question, options).await;
                told(handle.expect("it is asked").await_response().await)
            }
            "test/ask_and_leave" => told(timeout(BRIEFLY, context.peer.list_roots()).await),
            "test/ask_through_outlet" => {
                let outlet = context.extensions.get::<Outlet>().expect("the request's").clone();
                told(outlet.ask("roots/list", &json!({})).await)
            }
            "test/gate" => {
                self.pass(gate).await;
                self.note(format!("past {gate}"));
                json!({"gate": gate})
            }
            "test/progress" => {
                let token = context.meta.get_progress_token().expect("a token");
                self.pass(gate).await;
                let progress = ProgressNotificationParam::new(token, 1.0).with_message(gate);
                told(context.peer.notify_progress(progress).await)
            }
            "test/until_cancelled" => {
                self.note("waits");
                context.ct.cancelled().await;
                self.note("cancelled");
                json!({})
            }
            "test/panic" => panic!("as it was told"),
            method => return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, method.to_owned(), None)),
        };
        Ok(CustomResult::new(result))
    }

    async fn on_progress(&self, progress: ProgressNotificationParam, _: NotificationContext<RoleServer>) {
        self.note(format!("progress {}", progress.progress));
    }

    async fn on_roots_list_changed(&self, _: NotificationContext<RoleServer>) {
        self.note("roots");
    }

    async fn on_custom_notification(
        &self,
        notification: CustomNotification,
        _: NotificationContext<RoleServer>,
    ) {
        self.note(format!("custom {}", notification.method));
    }
}

type Factory = Box<dyn Fn() -> std::io::Result<Arc<Host>> + Send + Sync>;
type Hosted = Rmcp<Factory, Arc<Host>>;

/// A server with one host for all sessions.
fn host(adapt: impl FnOnce(Hosted) -> Hosted) -> (TestServer, Arc<Host>) {
    let host = Arc::new(Host::default());
    let made = host.clone();
    let factory: Factory = Box::new(move || Ok(made.clone()));
    let handler = adapt(Rmcp::new(factory).rest_after(Some(REST_AFTER)));
    (TestServer::start_with(handler, Config::default()), host)
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// The most tasks there are while no loop runs: a loop is two.
async fn idle(server: &TestServer) -> usize {
    let client = server.client().await;
    client.ping(0).await;
    client.delete().await.nothing(204).await;
    // The server begins some of its tasks late, and those of a session end behind its answer.
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    let mut fewest = usize::MAX;
    for _ in 0..20 {
        looks.tick().await;
        fewest = fewest.min(tasks());
    }
    fewest + 1
}

async fn call(client: &Client, id: impl Into<Value>, method: &str) -> Stream {
    call_with(client, id, method, json!({})).await
}

async fn call_with(client: &Client, id: impl Into<Value>, method: &str, params: Value) -> Stream {
    let mut stream = client.request(id, method, params).await.stream().await;
    stream.primed().await;
    stream
}

/// The question that comes next.
async fn asked(call: &mut Stream) -> Value {
    let (_, question) = call.message().await;
    assert_eq!(question["method"], "roots/list", "{question}");
    question
}

async fn answer(client: &Client, question: &Value) {
    let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"roots": []}});
    client.post(&answer).await.nothing(202).await;
}

/// The response, which is the last message of its stream.
async fn response(call: &mut Stream) -> Value {
    let (_, response) = call.message().await;
    call.ended().await;
    response
}

/// An answer of one message, whichever form it has.
async fn outcome(client: &Client, message: &Value) -> Value {
    let mut reply = client.post(message).await;
    assert_eq!(reply.status, 200, "{message}");
    if reply.is_stream() {
        return reply.stream().await.rest().await.last().expect("a response").message();
    }
    reply.json().await
}

/// A loop that begins again goes on with the IDs of the session: no client can take an answer or a progress
/// notification for another one.
//= https://modelcontextprotocol.io/specification/2025-11-25/basic#requests
//= type=test
//# The request ID MUST NOT have been previously used by the requestor within the same session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_request_ids_are_unique_across_rest() {
    test(async {
        let (server, host) = host(|rmcp| rmcp);
        let idle = idle(&server).await;
        let client = server.client().await;
        let (mut ids, mut tokens) = (HashSet::new(), HashSet::new());
        let mut late = Vec::new();
        for round in 0..3 {
            until("the loop to rest", || tasks() <= idle).await;
            for step in 0..2 {
                let id = 10 * round + step;
                let mut call = call(&client, id, "test/ask").await;
                let question = asked(&mut call).await;
                let token = &question["params"]["_meta"]["progressToken"];
                assert!(ids.insert(question["id"].to_string()), "{question} has the id of another");
                assert!(tokens.insert(token.to_string()), "{question} has the token of another");
                // Those that were given up, and this one's progress.
                for question in &late {
                    answer(&client, question).await;
                }
                client
                    .notify("notifications/progress", json!({"progressToken": token, "progress": id + 1}))
                    .await;
                host.noted(&format!("progress {}", id + 1)).await;
                answer(&client, &question).await;
                assert_eq!(response(&mut call).await["result"], json!({"answered": true}));
            }
            // What a handler gives up is taken back under the ID that the client knows.
            let mut call = call(&client, 10 * round + 2, "test/ask_briefly").await;
            let question = asked(&mut call).await;
            assert!(ids.insert(question["id"].to_string()), "{question} has the id of another");
            let (_, cancelled) = call.message().await;
            assert_eq!(cancelled["method"], "notifications/cancelled", "{cancelled}");
            assert_eq!(cancelled["params"]["requestId"], question["id"], "{cancelled}");
            assert!(response(&mut call).await["result"]["failed"].is_string());
            late.push(question);
            // A handler may ask through the outlet as well.
            let mut call = self::call(&client, 10 * round + 3, "test/ask_through_outlet").await;
            let question = asked(&mut call).await;
            assert!(ids.insert(question["id"].to_string()), "{question} has the id of another");
            answer(&client, &question).await;
            assert_eq!(response(&mut call).await["result"], json!({"answered": true}));
        }
        assert_eq!(host.notes.lock().unwrap().len(), 6, "nothing else was heard");
    })
    .await;
}

/// Nobody waits for the answer to a question that was given up, in whichever way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn question_that_was_given_up_lets_the_loop_rest() {
    test(async {
        let (server, _) = host(|rmcp| rmcp);
        let idle = idle(&server).await;
        let client = server.client().await;
        let rests = || until("the loop to rest", || tasks() <= idle);
        rests().await;

        // The handler's own time is up.
        let mut briefly = call(&client, "a", "test/ask_briefly").await;
        asked(&mut briefly).await;
        briefly.rest().await;
        drop(briefly);
        rests().await;

        // The handler left without a word. The client is told once nobody can want the answer any more.
        let mut left = call(&client, "b", "test/ask_and_leave").await;
        let question = asked(&mut left).await;
        assert!(response(&mut left).await["result"]["failed"].is_string());
        drop(left);
        rests().await;
        let mut listening = client.listen(None).await;
        listening.primed().await;
        let (_, cancelled) = listening.message().await;
        assert_eq!(cancelled["method"], "notifications/cancelled", "{cancelled}");
        assert_eq!(cancelled["params"]["requestId"], question["id"], "{cancelled}");
        listening.into_wire().reset();

        // The client took back the call that the question is for; the handler waits for nothing else.
        let mut cancelled = call(&client, "c", "test/ask").await;
        asked(&mut cancelled).await;
        client.notify("notifications/cancelled", json!({"requestId": "c"})).await;
        assert!(cancelled.rest().await.is_empty(), "no response");
        drop(cancelled);
        rests().await;

        // The client took back the question.
        let mut refused = call(&client, "d", "test/ask").await;
        let question = asked(&mut refused).await;
        client.notify("notifications/cancelled", json!({"requestId": question["id"], "reason": "no"})).await;
        let response = response(&mut refused).await;
        assert!(response["result"]["failed"].as_str().unwrap().contains("cancelled"), "{response}");
        drop(refused);
        rests().await;
        client.ping("e").await;
    })
    .await;
}

/// A late cancellation of a request that was answered is not one of a question with the same ID.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_cancellation_is_not_taken_for_one_of_a_question() {
    test(async {
        let (server, _) = host(|rmcp| rmcp);
        let client = server.client().await;
        let mut first = call(&client, "a", "test/ask").await;
        let question = asked(&mut first).await;
        // The question's ID is one of the client's too.
        client.ping(question["id"].clone()).await;
        client.notify("notifications/cancelled", json!({"requestId": question["id"]})).await;
        answer(&client, &question).await;
        assert_eq!(response(&mut first).await["result"], json!({"answered": true}));
    })
    .await;
}

/// A client that never answers is not waited for longer than is set.
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/lifecycle#timeouts
//= type=test
//# When the request has not received a success or error response within the timeout period, the sender **SHOULD** issue
//# a cancellation notification for that request and stop waiting for a response.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn question_without_an_answer_times_out() {
    test(async {
        for rest_after in [Some(Duration::from_secs(30)), None] {
            let (server, _) =
                host(|rmcp| rmcp.ask_timeout(Some(Duration::from_millis(100))).rest_after(rest_after));
            let client = server.client().await;
            for id in 0..2 {
                let mut call = call(&client, id, "test/ask").await;
                let question = asked(&mut call).await;
                let (_, cancelled) = call.message().await;
                assert_eq!(cancelled["method"], "notifications/cancelled", "{cancelled}");
                assert_eq!(cancelled["params"]["requestId"], question["id"], "{cancelled}");
                let response = response(&mut call).await;
                let failed = response["result"]["failed"].as_str().unwrap();
                assert!(failed.contains("did not answer"), "{response}");
            }
        }
    })
    .await;
}

/// Methods that rmcp knows, with parameters that are none of theirs, and what they are told.
fn wrong_params() -> Vec<(&'static str, Value, &'static str)> {
    let cursor = json!({"cursor": 5});
    vec![
        ("tools/call", json!({}), "missing field `name`"),
        ("tools/call", json!({"name": 5}), "invalid type: integer `5`, expected a string"),
        ("tools/call", json!({"name": "a", "arguments": []}), "invalid type: sequence, expected a map"),
        ("prompts/get", json!({}), "missing field `name`"),
        ("resources/read", json!({}), "missing field `uri`"),
        ("resources/subscribe", json!({}), "missing field `uri`"),
        ("resources/unsubscribe", json!({"uri": null}), "invalid type: null, expected a string"),
        ("completion/complete", json!({}), "missing field `ref`"),
        ("logging/setLevel", json!({}), "missing field `level`"),
        ("logging/setLevel", json!({"level": "loud"}), "unknown variant `loud`"),
        ("tools/list", cursor.clone(), "invalid type: integer `5`, expected a string"),
        ("prompts/list", cursor.clone(), "invalid type: integer `5`, expected a string"),
        ("resources/list", cursor.clone(), "invalid type: integer `5`, expected a string"),
        ("resources/templates/list", cursor.clone(), "invalid type: integer `5`, expected a string"),
        ("skills/list", cursor, "invalid type: integer `5`, expected a string"),
        ("test/echo", json!({"_meta": 5}), "invalid type: integer `5`, expected a map"),
        ("ping", json!({"_meta": 5}), "invalid type: integer `5`, expected a map"),
        ("server/discover", json!({"_meta": 5}), "invalid type: integer `5`, expected a map"),
        ("subscriptions/listen", json!({}), "missing field"),
        ("tasks/get", json!({}), "missing field"),
        ("tasks/update", json!({}), "missing field"),
        ("tasks/cancel", json!({}), "missing field"),
        ("skills/get", json!({}), "missing field `uri`"),
        ("resources/directory/read", json!({}), "missing field `uri`"),
    ]
}

/// rmcp takes what it cannot read for a request of a method that it does not know.
//= https://modelcontextprotocol.io/specification/2025-11-25/server/tools#error-handling
//= type=test
//# Protocol Errors indicate issues with the request structure itself that models are less likely to be able to fix
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_params_are_invalid_params() {
    test(async {
        let (server, host) = host(|rmcp| rmcp);
        let client = server.client().await;
        for (method, params, reason) in wrong_params() {
            let message = json!({"jsonrpc": "2.0", "id": 5, "method": method, "params": params});
            let error = &outcome(&client, &message).await["error"];
            assert_eq!(error["code"], -32602, "{message}: {error}");
            let text = error["message"].as_str().unwrap();
            assert!(text.starts_with(reason), "{message}: {error}");
        }
        let absent = json!({"jsonrpc": "2.0", "id": 6, "method": "tools/call"});
        let error = &outcome(&client, &absent).await["error"];
        assert_eq!(error["code"], -32602, "{error}");
        assert!(error["message"].as_str().unwrap().starts_with("missing field `params`"), "{error}");

        // Other methods are the handler's own, whatever their parameters; and it does not know all of them.
        let own = json!({"jsonrpc": "2.0", "id": "x", "method": "test/echo", "params": {"name": 5}});
        assert_eq!(outcome(&client, &own).await["result"], json!({"id": "x", "params": {"name": 5}}));
        let unknown = json!({"jsonrpc": "2.0", "id": 7, "method": "no/such", "params": {}});
        assert_eq!(outcome(&client, &unknown).await["error"]["code"], -32601);

        // A notification that cannot be read is nothing to anybody.
        client.notify("notifications/progress", json!({})).await;
        client.notify("notifications/cancelled", json!({"requestId": {}})).await;
        client.notify("notifications/roots/list_changed", json!({"_meta": 5})).await;
        client.notify("notifications/own", json!({"_meta": {}, "a": 1})).await;
        host.noted("custom notifications/own").await;
        assert_eq!(*host.notes.lock().unwrap(), ["custom notifications/own"]);
        client.ping(8).await;
    })
    .await;
}

/// An `initialize` that cannot be read is told its own fault, and begins nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_initialize_is_told_its_fault() {
    test(async {
        let (server, _) = host(|rmcp| rmcp);
        let client = server.client().await;
        let info = json!({"name": "test", "version": "0"});
        let version = "2025-11-25";
        for (params, reason) in [
            (
                json!({"protocolVersion": version, "capabilities": {}, "clientName": info}),
                "missing field `clientInfo`",
            ),
            (json!({"protocolVersion": version, "clientInfo": info}), "missing field `capabilities`"),
            (json!({"capabilities": {}, "clientInfo": info}), "missing field `protocolVersion`"),
            (
                json!({"protocolVersion": 5, "capabilities": {}, "clientInfo": info}),
                "invalid type: integer `5`",
            ),
            (
                json!({"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "a"}}),
                "missing field `version`",
            ),
            (
                json!({"protocolVersion": version, "capabilities": 5, "clientInfo": info}),
                "invalid type: integer `5`",
            ),
            (json!({}), "missing field"),
            (Value::Null, "missing field `params`"),
        ] {
            let mut message = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
            if params.is_null() {
                message.as_object_mut().unwrap().remove("params");
            }
            let mut reply = client.send("POST", &POST_HEADERS, message.to_string().as_bytes()).await;
            assert_eq!((reply.status, reply.header("mcp-session-id")), (200, None), "{message}");
            let error = &reply.json().await["error"];
            assert_eq!(error["code"], -32602, "{message}: {error}");
            assert!(error["message"].as_str().unwrap().starts_with(reason), "{message}: {error}");
        }
        assert_eq!(server.sessions.len(), 1);
    })
    .await;
}

/// A handler that panics answers that it failed; its session goes on. One that cannot begin is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handler_that_panics_answers() {
    test(async {
        let (server, _) = host(|rmcp| rmcp);
        let idle = idle(&server).await;
        let client = server.client().await;
        for id in 0..3 {
            let message = json!({"jsonrpc": "2.0", "id": id, "method": "test/panic"});
            assert_eq!(outcome(&client, &message).await["error"]["code"], -32603);
        }
        client.ping(4).await;
        until("the loop to rest", || tasks() <= idle).await;

        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "panic", "version": "0"}
        }});
        let mut reply = client.send("POST", &POST_HEADERS, hello.to_string().as_bytes()).await;
        assert_eq!((reply.status, reply.header("mcp-session-id")), (200, None));
        assert_eq!(reply.json().await["error"]["code"], -32603);
        assert_eq!(server.sessions.len(), 1);
        until("its tasks to end", || tasks() <= idle).await;
    })
    .await;
}

/// A handler that goes on after its request was cancelled does not answer for the next one with the same ID.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_request_does_not_answer_for_the_next_with_its_id() {
    test(async {
        let (server, host) = host(|rmcp| rmcp);
        let client = server.client().await;
        let mut old = call_with(&client, 7, "test/gate", json!({"gate": "old"})).await;
        host.noted("at old").await;
        client.notify("notifications/cancelled", json!({"requestId": 7})).await;
        assert!(old.rest().await.is_empty(), "no response");
        let mut new = call_with(&client, 7, "test/gate", json!({"gate": "new"})).await;
        host.noted("at new").await;
        host.open("old");
        host.noted("past old").await;
        client.ping(8).await;
        host.open("new");
        let response = response(&mut new).await;
        assert_eq!((&response["id"], &response["result"]), (&json!(7), &json!({"gate": "new"})));
    })
    .await;
}

/// Two requests of one progress token each get their own progress, under that token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_of_equal_tokens_reaches_its_own_stream() {
    test(async {
        let (server, host) = host(|rmcp| rmcp);
        let client = server.client().await;
        let mut calls = Vec::new();
        for gate in ["a", "b", "c"] {
            let params = json!({"gate": gate, "_meta": {"progressToken": "t"}});
            calls.push((gate, call_with(&client, gate, "test/progress", params).await));
        }
        while let Some((gate, mut call)) = calls.pop() {
            host.open(gate);
            let (_, progress) = call.message().await;
            let params = &progress["params"];
            assert_eq!(
                (&params["message"], &params["progressToken"]),
                (&json!(gate), &json!("t")),
                "{progress}"
            );
            assert_eq!(response(&mut call).await["id"], gate);
        }
    })
    .await;
}

/// Handlers learn at once that their session ended, and its loop does not wait for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_that_ends_cancels_what_its_handlers_do() {
    test(async {
        let (server, host) = host(|rmcp| rmcp);
        let idle = idle(&server).await;
        let client = server.client().await;
        let mut waits = call(&client, 1, "test/until_cancelled").await;
        let mut asks = call(&client, 2, "test/ask").await;
        asked(&mut asks).await;
        host.noted("waits").await;
        let began = std::time::Instant::now();
        client.delete().await.nothing(204).await;
        host.noted("cancelled").await;
        assert!(began.elapsed() < Duration::from_secs(4), "at once: {:?}", began.elapsed());
        waits.gone().await;
        asks.gone().await;
        drop((waits, asks));
        until("its tasks to end", || tasks() <= idle).await;
    })
    .await;
}
