//! What is logged, and what never is. A file of its own: what is logged is captured for the whole process.

#![cfg(feature = "cli")]

mod support;

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use ringmain::identity::Tokens;
use ringmain::server::Config;
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
        for setting in ["--allow-host", "--cors-origin"] {
            let lines: Vec<_> = text.lines().filter(|line| line.contains(setting)).collect();
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(lines[0].contains("WARN"), "{lines:?}");
        }
        assert!(!text.contains("quiet"), "{text}");
    })
    .await;
}
