//! The handler behind rmcp's own message loop, driven with plain JSON over a pipe.

use std::time::Duration;

use rmcp::ServiceExt;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::{Everything, tools};

/// A client that has shaken hands.
struct Client {
    lines: tokio::io::Lines<BufReader<ReadHalf<DuplexStream>>>,
    writer: WriteHalf<DuplexStream>,
    next_id: u64,
}

impl Client {
    /// Connects to a new server and shakes hands with `version`; returns the `initialize` result too.
    async fn connect(version: &str, capabilities: Value) -> (Self, Value) {
        let (near, far) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            let running = Everything::default().serve(tokio::io::split(far)).await.unwrap();
            running.waiting().await.unwrap();
        });
        let (reader, writer) = tokio::io::split(near);
        let mut client = Self { lines: BufReader::new(reader).lines(), writer, next_id: 1 };
        let params = json!({
            "protocolVersion": version,
            "capabilities": capabilities,
            "clientInfo": { "name": "test", "version": "0" },
        });
        let (_, answer) = client.ask("initialize", params).await;
        client.send(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        (client, answer["result"].clone())
    }

    async fn send(&mut self, message: Value) {
        self.writer.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    async fn receive(&mut self) -> Value {
        let line = timeout(Duration::from_secs(5), self.lines.next_line()).await.expect("an answer in time");
        serde_json::from_str(&line.unwrap().expect("an open pipe")).unwrap()
    }

    /// Sends a request; returns the messages that came before its response, and the response.
    ///
    /// Requests of the server are answered as a helpful user and model would.
    async fn ask(&mut self, method: &str, params: Value) -> (Vec<Value>, Value) {
        let id = self.next_id;
        self.next_id += 1;
        self.send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await;
        let mut before = Vec::new();
        loop {
            let message = self.receive().await;
            let answer = match message["method"].as_str() {
                Some("sampling/createMessage") => {
                    json!({ "role": "assistant", "content": { "type": "text", "text": "Paris" }, "model": "m" })
                }
                Some("elicitation/create") => json!({ "action": "accept", "content": { "username": "ada" } }),
                Some(_) => Value::Null,
                None => {
                    assert_eq!(message["id"], id);
                    return (before, message);
                }
            };
            if !answer.is_null() {
                self.send(json!({ "jsonrpc": "2.0", "id": message["id"], "result": answer })).await;
            }
            before.push(message);
        }
    }

    async fn call(&mut self, tool: &str, arguments: Value) -> (Vec<Value>, Value) {
        let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": "token" } });
        self.ask("tools/call", params).await
    }
}

/// What the harness of the conformance suite declares.
fn helpful() -> Value {
    json!({ "sampling": {}, "elicitation": {} })
}

fn text(response: &Value) -> &str {
    response["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {response}"))
}

#[tokio::test]
async fn initialize_echoes_a_known_version_and_never_offers_a_modern_one() {
    for (asked, answered) in [
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2024-11-05", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
    ] {
        let (_, result) = Client::connect(asked, json!({})).await;
        assert_eq!(result["protocolVersion"], answered, "asked for {asked}");
        assert_eq!(result["serverInfo"]["name"], "ringmain-everything");
        assert_eq!(result["serverInfo"]["version"], env!("CARGO_PKG_VERSION"));
        let expected = json!({
            "completions": {},
            "logging": {},
            "prompts": { "listChanged": true },
            "resources": { "listChanged": true, "subscribe": true },
            "tools": { "listChanged": true },
        });
        assert_eq!(result["capabilities"], expected);
    }
}

#[tokio::test]
async fn every_listed_tool_answers() {
    let (mut client, _) = Client::connect("2025-11-25", helpful()).await;
    let (_, list) = client.ask("tools/list", json!({})).await;
    let listed = list["result"]["tools"].as_array().unwrap();
    assert_eq!(listed.len(), tools::all().len());
    let arguments = json!({ "value": "v", "prompt": "p", "message": "m", "count": 2, "interval_ms": 0 });
    for tool in listed {
        let name = tool["name"].as_str().unwrap();
        let (_, response) = client.call(name, arguments.clone()).await;
        assert!(!response["result"]["content"].as_array().unwrap().is_empty(), "{name}: {response}");
        let failed = response["result"]["isError"] == true;
        assert_eq!(failed, name == "test_error_handling", "{name}: {response}");
    }
    let (_, response) = client.call("no_such_tool", json!({})).await;
    assert_eq!(response["error"]["code"], -32602);
}

#[tokio::test]
async fn progress_comes_in_order_and_before_the_result() {
    let (mut client, _) = Client::connect("2025-11-25", json!({})).await;
    let (before, _) = client.call("test_tool_with_progress", json!({})).await;
    let steps: Vec<_> =
        before.iter().map(|message| message["params"]["progress"].as_f64().unwrap()).collect();
    assert_eq!(steps, [0.0, 50.0, 100.0]);
    assert!(before.iter().all(|message| message["params"]["progressToken"] == "token"));

    let (before, response) =
        client.call("test_progress_stream", json!({ "count": 3, "interval_ms": 1 })).await;
    let messages: Vec<_> =
        before.iter().map(|message| message["params"]["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["step 1", "step 2", "step 3"]);
    assert_eq!(text(&response), "done 3");

    for arguments in [json!({ "count": 0 }), json!({ "count": 100_001 }), json!({ "interval_ms": 60_001 })] {
        let (_, response) = client.call("test_progress_stream", arguments).await;
        assert_eq!(response["error"]["code"], -32602);
    }
}

#[tokio::test]
async fn a_cancelled_progress_stream_falls_silent() {
    let (mut client, _) = Client::connect("2025-11-25", json!({})).await;
    let arguments = json!({ "count": 2, "interval_ms": 60_000 });
    let params =
        json!({ "name": "test_progress_stream", "arguments": arguments, "_meta": { "progressToken": 1 } });
    client.send(json!({ "jsonrpc": "2.0", "id": 99, "method": "tools/call", "params": params })).await;
    assert_eq!(client.receive().await["params"]["message"], "step 1");
    let params = json!({ "requestId": 99 });
    client.send(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params })).await;
    let (before, _) = client.ask("ping", json!({})).await;
    assert!(before.is_empty(), "{before:?}");
}

#[tokio::test]
async fn log_messages_respect_the_level() {
    let (mut client, _) = Client::connect("2025-11-25", json!({})).await;
    let (before, _) = client.call("test_tool_with_logging", json!({})).await;
    let data: Vec<_> = before.iter().map(|message| message["params"]["data"].as_str().unwrap()).collect();
    assert_eq!(data, ["Tool execution started", "Tool processing data", "Tool execution completed"]);
    assert!(before.iter().all(|message| message["params"]["level"] == "info"));

    let (_, response) = client.ask("logging/setLevel", json!({ "level": "warning" })).await;
    assert_eq!(response["result"], json!({}));
    let (before, _) = client.call("test_tool_with_logging", json!({})).await;
    assert!(before.is_empty(), "{before:?}");
}

#[tokio::test]
async fn asking_tools_need_a_client_that_can_answer() {
    let (mut client, _) = Client::connect("2025-11-25", helpful()).await;
    let (before, response) = client.call("test_sampling", json!({ "prompt": "Capital of France?" })).await;
    assert_eq!(before[0]["params"]["messages"][0]["content"]["text"], "Capital of France?");
    assert_eq!(before[0]["params"]["maxTokens"], 100);
    assert_eq!(text(&response), "LLM response: Paris");
    let (_, response) = client.call("test_elicitation", json!({ "message": "Who are you?" })).await;
    assert_eq!(text(&response), r#"User response: action=accept, content={"username":"ada"}"#);

    let (mut client, _) = Client::connect("2025-11-25", json!({})).await;
    for tool in ["test_sampling", "test_elicitation", "test_elicitation_sep1330_enums"] {
        let (before, response) = client.call(tool, json!({ "prompt": "p", "message": "m" })).await;
        assert!(before.is_empty());
        assert_eq!(response["result"]["isError"], true, "{tool}");
    }
}

#[tokio::test]
async fn list_changes_reach_the_calling_session() {
    let (mut client, _) = Client::connect("2025-11-25", json!({})).await;
    for (tool, method) in [
        ("test_trigger_tool_change", "notifications/tools/list_changed"),
        ("test_trigger_prompt_change", "notifications/prompts/list_changed"),
    ] {
        let (before, _) = client.call(tool, json!({})).await;
        assert_eq!(before.len(), 1);
        assert_eq!(before[0]["method"], method);
    }
}

#[tokio::test]
async fn resources_can_be_read_and_subscribed_to() {
    let (mut client, _) = Client::connect("2025-11-25", json!({})).await;
    for method in ["resources/subscribe", "resources/unsubscribe"] {
        let (_, response) = client.ask(method, json!({ "uri": "test://watched-resource" })).await;
        assert_eq!(response["result"], json!({}));
    }
    for method in ["resources/read", "resources/subscribe"] {
        let (_, response) = client.ask(method, json!({ "uri": "test://nowhere" })).await;
        assert_eq!(response["error"]["code"], -32002);
        assert_eq!(response["error"]["data"]["uri"], "test://nowhere");
    }
}
