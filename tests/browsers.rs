//! What browsers are told: origins, preflights, CORS.

#![cfg(feature = "server")]

mod support;

use http::HeaderName;
use ringmain::protocol::AllowList;
use ringmain::server::{Config, Server};
use serde_json::json;
use support::{Client, Http2, POST_HEADERS, Reply, TestServer, hello, soon, test};

const PAGE: &str = "https://app.example.com";

fn cors_headers(reply: &Reply) -> Vec<&str> {
    let names = reply.headers.iter().map(|(name, _)| name.as_str());
    names.filter(|name| name.starts_with("access-control-")).collect()
}

async fn preflight(client: &Client, origin: &str) -> Reply {
    let headers = [
        ("Origin", origin),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type,mcp-session-id,mcp-protocol-version"),
    ];
    client.send("OPTIONS", &headers, b"").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cors_is_off_by_default() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        // A page of this machine may send, but a browser will not show it the answer.
        for origin in ["http://localhost:5173", "http://127.0.0.1", "http://[::1]:80"] {
            let reply = preflight(&client, origin).await;
            assert_eq!(cors_headers(&reply), [""; 0]);
            assert_eq!(reply.header("allow"), Some("GET, POST, DELETE, OPTIONS"));
            reply.nothing(204).await;
            let headers = [&POST_HEADERS[..], &[("Origin", origin)]].concat();
            let reply = client.send("POST", &headers, &hello("2025-11-25")).await;
            assert_eq!((reply.status, cors_headers(&reply)), (200, vec![]));
        }
        for reply in [preflight(&client, PAGE).await, preflight(&client, "null").await] {
            assert_eq!(cors_headers(&reply), [""; 0]);
            reply.error(403).await;
        }
        // Who sends no `Origin` is no browser.
        let reply = client.send("OPTIONS", &[], b"").await;
        assert_eq!(cors_headers(&reply), [""; 0]);
        reply.nothing(204).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cors_lets_the_named_pages_read() {
    test(async {
        let mut config = Config::default();
        config.allowed.cors = AllowList::parse([PAGE]).unwrap();
        config.allowed.cors_headers = vec![HeaderName::from_static("x-request-id")];
        let server = TestServer::start(config);
        let client = server.client().await;

        let reply = preflight(&client, PAGE).await;
        assert_eq!(reply.header("access-control-allow-origin"), Some(PAGE));
        for (header, needed) in [
            ("access-control-allow-methods", &["GET", "POST", "DELETE"][..]),
            (
                "access-control-allow-headers",
                &[
                    "content-type",
                    "accept",
                    "authorization",
                    "mcp-session-id",
                    "mcp-protocol-version",
                    "last-event-id",
                    "x-request-id",
                ],
            ),
        ] {
            let allowed: Vec<_> = reply.header(header).unwrap().split(", ").collect();
            assert!(needed.iter().all(|name| allowed.contains(name)), "{header}: {allowed:?}");
        }
        assert!(reply.header("access-control-max-age").is_some());
        assert_eq!(reply.header("access-control-allow-credentials"), None);
        assert_eq!(reply.header("vary"), Some("origin"));
        reply.nothing(204).await;

        // The answers can be read, streams and refusals among them, and the session ID in them.
        let mut with_page = client.headers();
        with_page.extend([("Origin", PAGE), ("Accept", "text/event-stream")]);
        let stream = client.send("GET", &with_page, b"").await;
        let initialized = client
            .send("POST", &[&POST_HEADERS[..], &[("Origin", PAGE)]].concat(), &hello("2025-11-25"))
            .await;
        let refused = client.send("PUT", &[("Origin", PAGE)], b"").await;
        for (reply, status) in [(stream, 200), (initialized, 200), (refused, 405)] {
            assert_eq!(reply.status, status);
            assert_eq!(reply.header("access-control-allow-origin"), Some(PAGE));
            assert!(reply.header("access-control-expose-headers").unwrap().contains("mcp-session-id"));
            assert_eq!(reply.header("vary"), Some("origin"));
        }

        // Nobody else can read anything.
        for origin in
            ["https://app.example.com.evil.example", "http://app.example.com", "https://example.com"]
        {
            let reply = preflight(&client, origin).await;
            assert_eq!(cors_headers(&reply), [""; 0]);
            reply.error(403).await;
        }
        let reply = preflight(&client, "http://localhost").await;
        assert_eq!((reply.status, cors_headers(&reply)), (204, vec![]));
    })
    .await;
}

/// An origin that may read does not open the door for a second one beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_origins_are_refused() {
    test(async {
        let mut config = Config::default();
        config.allowed.cors = AllowList::parse([PAGE]).unwrap();
        let server = TestServer::start(config);
        let http2 = Client::initialize_over(Http2::connect(server.address).await, "2025-11-25").await;
        for client in [server.client().await, http2] {
            let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
            for origins in [[PAGE, "https://evil.example"], ["https://evil.example", PAGE], [PAGE, "null"]] {
                for method in ["POST", "GET", "DELETE", "OPTIONS"] {
                    let mut headers = [client.headers(), POST_HEADERS.to_vec()].concat();
                    headers.extend(origins.map(|origin| ("Origin", origin)));
                    let reply = client.send(method, &headers, ping.as_bytes()).await;
                    assert_eq!(cors_headers(&reply), [""; 0], "{method} {origins:?}");
                    reply.error(403).await;
                }
            }
            client.ping(2).await;
        }
    })
    .await;
}

/// Who may talk to the endpoint can be changed while it runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn allow_lists_are_replaced_at_once() {
    test(async {
        let script = support::Script::new(support::Control::default());
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), script, Config::default()).unwrap();
        let handle = server.handle();
        let running = tokio::spawn(server.run(std::future::pending()));
        let client = Client::initialize(handle.local_addr(), "2025-11-25").await;
        let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
        let headers = [client.headers(), POST_HEADERS.to_vec(), vec![("Origin", PAGE)]].concat();
        client.send("POST", &headers, ping.as_bytes()).await.error(403).await;
        let mut allowed = Config::default().allowed;
        allowed.origins = AllowList::parse([PAGE]).unwrap();
        handle.allow(allowed);
        assert_eq!(client.send("POST", &headers, ping.as_bytes()).await.status, 200);
        running.abort();
        let _ = soon("the server to end", running).await;
    })
    .await;
}
