//! Behind proxies: whose word is taken on where a client comes from, and what follows from it; rates of requests; how a
//! load balancer learns that a server is about to stop.

#![cfg(feature = "tokens")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use ringmain::identity::Tokens;
use ringmain::protocol::ForwardedHeader;
use ringmain::server::{Config, Drained, Proxies, Readiness};
use ringmain::session::Rate;
use serde_json::json;
use support::{Client, Http2, POST_HEADERS, Reply, TestServer, Wire, hello, request, test, until};

/// A server that takes the word of `networks`, with one request a minute from each address.
fn behind(networks: &[&str]) -> Config {
    let mut config = Config::default();
    config.proxies.trusted = networks.iter().map(|text| Proxies::network(text).unwrap()).collect();
    config.request_rate_per_address = Rate::new(1, 1);
    config
}

async fn ask(server: &TestServer, before: &[u8], headers: &[(&str, &str)]) -> Reply {
    let mut wire = Wire::connect(server.address).await;
    wire.send(&[before, &request("OPTIONS", headers, b"")].concat()).await;
    wire.reply().await
}

fn line(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 192.0.2.99 4711 8080\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_behind_trusted_proxies_is_who_the_limits_see() {
    test(async {
        let server = TestServer::start(behind(&["127.0.0.0/8", "10.0.0.0/8"]));
        let from = async |list: &'static str| ask(&server, b"", &[("X-Forwarded-For", list)]).await;
        from("6.6.6.6, 192.0.2.1, 10.0.0.7").await.nothing(204).await;
        let refused = from("7.7.7.7, 192.0.2.1").await;
        assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().unwrap() > 50));
        let body = refused.error(429).await;
        assert!(body["error"]["message"].as_str().unwrap().contains("from your address"), "{body}");
        from("192.0.2.2").await.nothing(204).await;
        assert_eq!(server.metrics.refused("address_request_rate"), 1);
        // The other header is as the client sent it.
        ask(&server, b"", &[("Forwarded", "for=192.0.2.3")]).await.nothing(204).await;
        ask(&server, b"", &[("Forwarded", "for=192.0.2.4")]).await.error(429).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarded_is_read_where_the_proxies_write_it() {
    test(async {
        let mut config = behind(&["127.0.0.1"]);
        config.proxies.header = ForwardedHeader::Forwarded;
        let server = TestServer::start(config);
        let from = async |list: &'static str| ask(&server, b"", &[("Forwarded", list)]).await;
        from("for=\"[2001:db8::1]:80\";proto=https").await.nothing(204).await;
        from("for=\", for=\"[2001:db8::2]\"").await.error(429).await;
        from("for=192.0.2.1").await.nothing(204).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_is_believed() {
    test(async {
        let server = TestServer::start(behind(&["10.0.0.0/8"]));
        ask(&server, b"", &[("X-Forwarded-For", "192.0.2.1")]).await.nothing(204).await;
        ask(&server, b"", &[("X-Forwarded-For", "192.0.2.2")]).await.error(429).await;
        let mut config = Config::default();
        config.proxies.protocol = true;
        assert!(TestServer::try_start(config.clone()).is_err(), "of whom?");
        config.proxies.trusted = vec![Proxies::network("10.0.0.0/8").unwrap()];
        let server = TestServer::start(config);
        ask(&server, b"", &[]).await.nothing(204).await;
        assert_eq!(ask(&server, &line("192.0.2.1"), &[]).await.status, 400, "a stranger's is no HTTP");
    })
    .await;
}

/// The header comes in pieces, with the request behind it or not; the client stays known when the connection comes back
/// from a stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_protocol_names_the_client_of_a_connection() {
    test(async {
        let mut config = behind(&["127.0.0.0/8"]);
        config.proxies.protocol = true;
        config.connections.max_per_address = Some(2);
        config.request_rate_per_address = Rate::new(4, 4);
        let server = TestServer::start(config);
        let mut wire = Wire::connect(server.address).await;
        for byte in line("192.0.2.1") {
            wire.send(&[byte]).await;
            tokio::task::yield_now().await;
        }
        wire.send(&request("POST", &POST_HEADERS, &hello("2025-11-25"))).await;
        let mut reply = wire.reply().await;
        let session = reply.header("mcp-session-id").unwrap().to_owned();
        reply.bytes().await;
        let client_headers = [("Mcp-Session-Id", session.as_str()), ("MCP-Protocol-Version", "2025-11-25")];
        let headers = [&POST_HEADERS[..], &client_headers].concat();
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "steps", "arguments": {"label": "proxied", "after": 1}}});
        let mut wire = reply.body.into_wire();
        wire.send(&request("POST", &headers, call.to_string().as_bytes())).await;
        let mut stream = wire.reply().await.stream().await;
        stream.primed().await;
        server.control.release("proxied");
        stream.rest().await;
        let mut wire = stream.into_wire();
        // Version 2, over another connection: the same client has used up its rate.
        let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        binary.extend([192, 0, 2, 1, 192, 0, 2, 99, 0x12, 0x67, 0x1f, 0x90]);
        ask(&server, &binary, &[]).await.nothing(204).await;
        wire.send(&request("OPTIONS", &[], b"")).await;
        let mut again = wire.reply().await;
        assert_eq!((again.status, again.bytes().await), (204, Vec::new()));
        let mut wire = again.body.into_wire();
        wire.send(&request("OPTIONS", &[], b"")).await;
        wire.reply().await.error(429).await;
        // Another client is another, and the proxy itself too, for whom it says LOCAL.
        ask(&server, &line("192.0.2.2"), &[]).await.nothing(204).await;
        ask(&server, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", &[]).await.nothing(204).await;
        until("the connections to end", || server.metrics.connections().open() == 0).await;

        // Connections are counted by client.
        let mut two = Vec::new();
        for _ in 0..2 {
            let mut wire = Wire::connect(server.address).await;
            wire.send(&line("192.0.2.3")).await;
            two.push(wire);
        }
        until("two", || server.metrics.connections().open() == 2).await;
        two[0].send(&request("OPTIONS", &[], b"")).await;
        two[1].send(&request("OPTIONS", &[], b"")).await;
        for wire in &mut two {
            assert!(wire.more().await);
        }
        let mut third = Wire::connect(server.address).await;
        third.send(&[line("192.0.2.3"), request("OPTIONS", &[], b"")].concat()).await;
        let refused = third.reply().await;
        assert_eq!(refused.header("retry-after"), Some("5"));
        refused.error(503).await;
        assert_eq!(server.metrics.connections().refused_address(), 1);
        ask(&server, &line("192.0.2.4"), &[]).await.nothing(204).await;
    })
    .await;
}

/// A proxy that speaks the PROXY protocol and names no client writes no header either: its client did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_of_a_proxy_that_names_none_is_not_believed() {
    test(async {
        let mut config = behind(&["127.0.0.0/8"]);
        config.proxies.protocol = true;
        let server = TestServer::start(config);
        let unknown = |from| (b"PROXY UNKNOWN\r\n", [("X-Forwarded-For", from)]);
        let (before, headers) = unknown("192.0.2.1");
        ask(&server, before, &headers).await.nothing(204).await;
        let (before, headers) = unknown("192.0.2.2");
        ask(&server, before, &headers).await.error(429).await;
        // One that is named may be a proxy in turn, which writes headers.
        let named = [line("127.0.0.9"), line("127.0.0.9")];
        ask(&server, &named[0], &[("X-Forwarded-For", "192.0.2.3")]).await.nothing(204).await;
        ask(&server, &named[1], &[("X-Forwarded-For", "192.0.2.3")]).await.error(429).await;
    })
    .await;
}

/// Each request of a batch counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_is_no_way_around_the_rate() {
    test(async {
        let mut config = behind(&["127.0.0.0/8"]);
        config.request_rate_per_address = Rate::new(4, 4);
        let server = TestServer::start(config);
        let client = server.client_of("2025-03-26").await;
        let forwarded = [("X-Forwarded-For", "192.0.2.1")];
        let headers = [client.headers(), POST_HEADERS.to_vec(), forwarded.to_vec()].concat();
        let pings: Vec<_> = (1..=6).map(|id| json!({"jsonrpc": "2.0", "id": id, "method": "ping"})).collect();
        let mut reply = client.send("POST", &headers, json!(pings).to_string().as_bytes()).await;
        let responses = reply.json().await;
        let count = |what: &str| {
            responses.as_array().unwrap().iter().filter(|response| !response[what].is_null()).count()
        };
        assert_eq!((count("result"), count("error")), (4, 2), "{responses}");
    })
    .await;
}

/// A proxy that should announce its clients and does not: HTTP, silence, nonsense, a part of a header.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_that_says_nothing_of_its_client_is_not_served() {
    test(async {
        let mut config = behind(&["127.0.0.0/8"]);
        config.proxies.protocol = true;
        config.read_timeout = Duration::from_millis(200);
        let server = TestServer::start(config);
        let long = format!("PROXY UNKNOWN {}", "x".repeat(200));
        for begun in [
            &request("OPTIONS", &[], b"")[..],
            b"",
            b"PROXY TCP4 1.1",
            b"\r\n\r\n\0\r\nQUIT\n\x21",
            long.as_bytes(),
        ] {
            let mut wire = Wire::connect(server.address).await;
            wire.send(begun).await;
            wire.closed().await;
            assert!(wire.received.is_empty(), "{begun:?}");
        }
        until("all of them to end", || server.metrics.connections().open() == 0).await;
        assert_eq!(server.metrics.connections().closed_deadline(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_principal_has_a_rate_of_requests() {
    test(async {
        let mut config = Config::default();
        let tokens = "first-token-of-ada-0123456789 ada\nsecond-token-of-ada-0123456789 ada\nonly-token-of-bob-0123456789 bob";
        config.authenticator = Some(Arc::new(Tokens::parse(tokens).unwrap()));
        config.request_rate_per_principal = Rate::new(3, 3);
        let server = TestServer::start(config);
        let ada = Client::initialize_as(server.address, "2025-11-25", "first-token-of-ada-0123456789").await;
        ada.ping(1).await;
        let other = [("Authorization", "Bearer second-token-of-ada-0123456789"), POST_HEADERS[0], POST_HEADERS[1]];
        let refused = ada.send("POST", &other, &hello("2025-11-25")).await;
        assert!(refused.header("retry-after").is_some());
        let body = refused.error(429).await;
        assert!(body["error"]["message"].as_str().unwrap().contains("you send requests too fast"), "{body}");
        ada.get(None).await.error(429).await;
        ada.delete().await.error(429).await;
        let bob = Client::initialize_as(server.address, "2025-11-25", "only-token-of-bob-0123456789").await;
        bob.ping(1).await;
        assert_eq!(server.metrics.refused("principal_request_rate"), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_waits_until_load_balancers_have_noticed() {
    test(async {
        let mut config = Config::default();
        config.drain_delay = Duration::from_millis(1500);
        config.health_path = Some("/health".to_owned());
        let server = TestServer::start(config);
        let address = server.address;
        let health = async |method: &str, host: &str| {
            let mut wire = Wire::connect(address).await;
            wire.send(format!("{method} /health HTTP/1.1\r\n{host}\r\n").as_bytes()).await;
            if method == "HEAD" {
                assert!(wire.more().await);
                return String::from_utf8(wire.received).unwrap()[9..12].parse().unwrap();
            }
            let reply = wire.reply().await;
            assert_eq!(reply.header("cache-control"), Some("no-store"));
            reply.status
        };
        for host in
            ["", "Host: 10.1.2.3:8080\r\n", "Host: probe.example\r\nOrigin: https://elsewhere.example\r\n"]
        {
            assert_eq!((health("GET", host).await, health("HEAD", host).await), (200, 200), "{host}");
        }
        assert_eq!(health("POST", "Host: localhost\r\n").await, 405);
        let client = server.client().await;
        server.handle.drain();
        let metrics = server.metrics.clone();
        until("the delay", || metrics.readiness() == Readiness::Draining).await;
        assert_eq!(health("GET", "").await, 503, "it says so");
        // And goes on as before.
        client.ping(1).await;
        let late = Client::initialize_over(Http2::connect(server.address).await, "2025-11-25").await;
        late.ping(2).await;
        drop(late);
        assert_eq!(server.stopped().await, Drained::Complete);
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "the listener is closed");
    })
    .await;
}
