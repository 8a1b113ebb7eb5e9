//! What is logged, and what never is. A file of its own: what is logged is captured for the whole process.

#![cfg(feature = "tokens")]

mod support;

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use ringmain::identity::Tokens;
use ringmain::server::{AccessLog, Config};
use serde_json::json;
use support::{Client, Http2, POST_HEADERS, TestServer, Wire, hello, test};
use tracing_subscriber::fmt::MakeWriter;

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Everything that is logged from now on, by whomever, down to the finest.
fn log() -> Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    let log = LOG.get_or_init(|| {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt().with_env_filter("trace").with_ansi(false);
        subscriber.with_writer(log.clone()).init();
        log
    });
    log.clone()
}

fn text(log: &Log) -> String {
    String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization#token-theft
//= type=test
//# Clients and servers MUST implement secure token storage and follow OAuth best practices
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_and_session_ids_are_never_logged() {
    const GOOD: &str = "hushhush-good-hushhush";
    const SCOPELESS: &str = "hushhush-scopeless-hush";
    test(async {
        let log = log();
        let tokens = Tokens::parse(&format!("{GOOD} hushname mcp\n{SCOPELESS} hushname")).unwrap();
        let mut config = Config::default();
        config.authenticator = Some(Arc::new(tokens.needing("mcp")));
        tracing::info!(?config, "as somebody may log it");
        let server = TestServer::start(config);
        let client = Client::initialize_as(server.address, "2025-11-25", GOOD).await;
        client.ping(1).await;
        server.control.release("call");
        client.call_stream(2, "steps", json!({"before": 3})).await.rest().await;
        client.get(Some("hushhush-event")).await.error(400).await;
        let http2 = Http2::connect(server.address).await;
        for authorization in [
            format!("Bearer {GOOD}"),
            format!("Bearer {SCOPELESS}"),
            "Bearer hushhush-unknown".to_owned(),
            "Bearer hushhush malformed".to_owned(),
            "Basic aHVzaGh1c2g6aHVzaA==".to_owned(),
        ] {
            let headers = [&POST_HEADERS[..], &[("Authorization", &*authorization)]].concat();
            http2.send("POST", &headers, &hello("2025-11-25")).await;
            let mut wire = Wire::connect(server.address).await;
            wire.send(&support::request("POST", &headers, &hello("2025-11-25"))).await;
            wire.reply().await;
        }
        client.delete().await.nothing(204).await;
        let text = text(&log);
        // It was listened to at all.
        assert!(text.contains("denied a request") && text.contains("as somebody may log it"), "{text}");
        for secret in ["hush", "aHVzaGh1c2g", &client.session] {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "a secret was logged");
        }
    })
    .await;
}

/// The line of the access log for the request with this ID.
fn access_line(log: &Log, id: &str) -> Option<String> {
    let text = text(log);
    let is_line = |line: &&str| line.contains("ringmain::access") && line.contains(id);
    text.lines().find(is_line).map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_log_has_a_line_for_each_request_when_its_answer_is_over() {
    test(async {
        let log = log();
        let mut config = Config::default();
        let tokens = Tokens::parse("accessaccess-token-of-ada ada-lovelace").unwrap();
        config.authenticator = Some(Arc::new(tokens));
        config.access_log = AccessLog::WithPrincipal;
        let server = TestServer::start(config);
        let client = Client::initialize_as(server.address, "2025-11-25", "accessaccess-token-of-ada").await;
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = format!("00-{trace}-00f067aa0ba902b7-01");
        let headers = [&client.headers()[..], &POST_HEADERS, &[("traceparent", &*parent)]].concat();
        let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        let mut reply = client.send("POST", &headers, ping).await;
        assert_eq!(reply.header("x-request-id"), Some(trace));
        let bytes = reply.bytes().await.len();
        let line = access_line(&log, trace).expect("a line");
        for part in [
            "INFO",
            "method=\"POST\"",
            "status=200",
            &format!("bytes={bytes} "),
            " ms=",
            "peer=127.0.0.1",
            "principal=\"ada-lovelace\"",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }

        // A stream's line comes at its end, over both versions of HTTP.
        let over_http2 = Http2::connect(server.address).await;
        for (index, client) in [client.clone(), client.over(over_http2)].iter().enumerate() {
            let label = format!("accessed {index}");
            let call = client.call(10 + index, "steps", json!({"label": label, "after": 3})).await;
            let id = call.header("x-request-id").unwrap().to_owned();
            assert_eq!(id.len(), 32);
            let mut stream = call.stream().await;
            stream.primed().await;
            assert_eq!(access_line(&log, &id), None, "it goes on");
            server.control.release(&label);
            stream.rest().await;
            support::until("the line", || access_line(&log, &id).is_some()).await;
            let line = access_line(&log, &id).unwrap();
            let bytes = line.split_once("bytes=").unwrap().1.split(' ').next().unwrap();
            assert!(line.contains("status=200") && bytes.parse::<u64>().unwrap() > 300, "{line}");
        }

        // Refusals have lines too, and none names what a client must not see in a log.
        let reply = client.send("PATCH", &[("X-Elsewhere", "elsewhere")], b"").await;
        let id = reply.header("x-request-id").unwrap().to_owned();
        assert!(access_line(&log, &id).unwrap().contains("status=405"));
        let text = text(&log);
        for secret in [&*client.session, "accessaccess", "elsewhere"] {
            assert!(!text.contains(secret), "{secret}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_ids_are_given_out_only_where_they_are_wanted() {
    test(async {
        let log = log();
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let reply = client.request(1, "ping", json!({})).await;
        assert_eq!(reply.header("x-request-id"), None);
        let mut config = Config::default();
        config.request_ids = true;
        let server = TestServer::start(config);
        let client = server.client().await;
        let reply = client.request(1, "ping", json!({})).await;
        let id = reply.header("x-request-id").expect("an ID").to_owned();
        let text = text(&log);
        assert!(text.lines().any(|line| line.contains("answered") && line.contains(&id)), "the span has it");
        assert_eq!(access_line(&log, &id), None);
    })
    .await;
}

/// A connection comes back from its stream as the same one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn address_is_logged_after_a_streamed_answer() {
    test(async {
        let log = log();
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let mut wire = Wire::connect(server.address).await;
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "steps", "arguments": {"label": "logged", "after": 1}}});
        wire.send(&client.post_bytes(&call)).await;
        let mut stream = wire.reply().await.stream().await;
        stream.primed().await;
        server.control.release("logged");
        stream.rest().await;
        let mut wire = stream.into_wire();
        wire.send(&support::request("TRACE", &[], b"")).await;
        wire.reply().await.error(405).await;
        let text = text(&log);
        let line = text.lines().find(|line| line.contains("status=405")).expect("it was answered");
        assert!(line.contains("connection{address=127.0.0.1}"), "{line}");
    })
    .await;
}

/// A host or an origin that is not allowed is most often one that was forgotten: the log names the setting, once, and
/// not what the client sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_host_or_origin_names_the_setting_once() {
    test(async {
        let log = log();
        let server = TestServer::start(Config::default());
        for round in 0..20 {
            let mut wire = Wire::connect(server.address).await;
            let request = format!("GET /mcp HTTP/1.1\r\nHost: quiet-{round}.example\r\n\r\n");
            wire.send(request.as_bytes()).await;
            wire.reply().await.error(403).await;
            let mut wire = Wire::connect(server.address).await;
            wire.send(&support::request("GET", &[("Origin", "https://quiet.example")], b"")).await;
            wire.reply().await.error(403).await;
        }
        let text = text(&log);
        for setting in ["allow_host", "cors_origin"] {
            let lines: Vec<_> = text.lines().filter(|line| line.contains(setting)).collect();
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(lines[0].contains("WARN"), "{lines:?}");
        }
        assert!(!text.contains("quiet"), "{text}");
    })
    .await;
}
