//! The operator's address: publishing to sessions, health and numbers.

#![cfg(feature = "server")]

mod support;

use std::cell::Cell;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringmain::server::{Admin, AdminToken, Config};
use serde_json::{Value, json};
use support::{TestServer, Wire, inside_hyper, number, request, test, until};

/// The operator's address of a server.
fn operate(server: &TestServer) -> SocketAddr {
    let admin =
        Admin::bind((Ipv4Addr::LOCALHOST, 0).into(), server.metrics.clone()).expect("loopback has a port");
    let address = admin.local_addr();
    tokio::spawn(admin.run());
    address
}

async fn ask(
    admin: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String) {
    let mut wire = Wire::connect(admin).await;
    let bytes = String::from_utf8(request(method, headers, body.as_bytes())).unwrap();
    wire.send(bytes.replacen("/mcp", target, 1).as_bytes()).await;
    let mut reply = wire.reply().await;
    (reply.status, String::from_utf8(reply.bytes().await).unwrap())
}

async fn publish(admin: SocketAddr, to: &str, body: &str) -> (u16, Value) {
    let (status, answer) = ask(admin, "POST", &format!("/publish?session={to}"), &[], body).await;
    (status, serde_json::from_str(&answer).expect("the answer is JSON"))
}

fn note(number: u64) -> String {
    support::note(number, 10).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_reaches_the_sessions_it_is_for() {
    test(async {
        let server = TestServer::start(Config::default());
        let admin = operate(&server);
        let (one, other) = (server.client().await, server.client().await);
        let mut listening = one.listen(None).await;
        listening.primed().await;

        let reach = |delivered, retained| json!({"sessions": delivered + retained, "delivered": delivered, "retained": retained});
        assert_eq!(publish(admin, &one.session, &note(1)).await, (200, reach(1, 0)));
        assert_eq!(publish(admin, &other.session, &note(2)).await, (200, reach(0, 1)));
        assert_eq!(publish(admin, "all", &note(3)).await, (200, reach(1, 1)));
        // White space between the parts of a message becomes one line of an event.
        let spread = "{\"jsonrpc\": \"2.0\",\r\n \"method\":\n\t\"test/note\", \"params\": {\"number\": 4, \"text\": \"a\\nb\"}}";
        assert_eq!(publish(admin, &one.session, spread).await, (200, reach(1, 0)));

        // Between its own messages and those to all there is no order.
        let mut messages = Vec::new();
        for _ in 0..3 {
            messages.push(listening.message().await.1);
        }
        let own: Vec<_> = messages.iter().map(number).filter(|number| *number != 3).collect();
        assert_eq!((own, messages.len()), (vec![1, 4], 3));
        let spread = messages.iter().find(|message| number(message) == 4).expect("it is there");
        assert_eq!(spread["params"]["text"], "a\nb");
        let mut late = other.listen(None).await;
        late.primed().await;
        assert_eq!(number(&late.message().await.1), 2);
        assert_eq!(number(&late.message().await.1), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_published_is_refused_and_says_why() {
    test(async {
        let mut config = Config::default();
        config.sessions.broadcast.max_weight = 1 << 20;
        let server = TestServer::start(config);
        let admin = operate(&server);
        let client = server.client().await;
        let mut listening = client.listen(None).await;
        listening.primed().await;
        let nobody = "0123456789abcdef0123456789abcdef";
        let large =
            format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"text":"{}"}}}}"#, "x".repeat(5 << 20));
        // Fits a body, and not a stream.
        let heavy =
            format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"text":"{}"}}}}"#, "x".repeat(2 << 20));
        let own = client.session.as_str();
        for (to, body, status) in [
            (own, "not JSON", 400),
            (own, "", 400),
            (own, "[]", 400),
            (own, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, 400),
            (own, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, 400),
            (own, r#"{"method":"x"}"#, 400),
            (own, "{\"jsonrpc\":\"2.0\",\"method\":\"x\"}{}", 400),
            (nobody, &note(1), 404),
            ("not-an-id", &note(1), 404),
            ("", &note(1), 404),
            (own, &large, 413),
            (own, &heavy, 413),
            ("all", &heavy, 413),
        ] {
            let (answered, answer) = publish(admin, to, body).await;
            let start = &body[..body.len().min(60)];
            assert_eq!(answered, status, "{to} {start}: {answer}");
            assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()), "{answer}");
        }
        for (method, target, headers, status) in [
            ("POST", "/publish", &[][..], 400),
            ("POST", "/publish?topic=x", &[], 400),
            ("GET", "/publish?session=all", &[], 405),
            ("POST", "/healthz", &[], 405),
            ("GET", "/", &[], 404),
            ("POST", "/publish?session=all", &[("Origin", "http://evil.example")], 403),
            ("GET", "/metrics", &[("Origin", "http://evil.example")], 403),
        ] {
            assert_eq!(ask(admin, method, target, headers, &note(1)).await.0, status, "{method} {target}");
        }
        assert_eq!(publish(admin, own, &note(2)).await.0, 200);
        assert_eq!(number(&listening.message().await.1), 2, "nothing came before");
    })
    .await;
}

/// Sends bytes to the operator's address; answers with the status, the head's headers and the body.
async fn exchange(admin: SocketAddr, bytes: &str) -> (u16, Vec<(String, String)>, String) {
    let mut wire = Wire::connect(admin).await;
    wire.send(bytes.as_bytes()).await;
    if bytes.starts_with("HEAD") {
        // No body follows, whatever the length says.
        wire.closed().await;
        let text = String::from_utf8(wire.received.clone()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        return (head[9..12].parse().unwrap(), Vec::new(), body.to_owned());
    }
    let mut reply = wire.reply().await;
    (reply.status, reply.headers.clone(), String::from_utf8(reply.bytes().await).unwrap())
}

/// A kubelet, a load balancer and Prometheus send the target's address as the host, or none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_served_under_any_host() {
    test(async {
        let server = TestServer::start(Config::default());
        let admin = operate(&server);
        for host in ["Host: 10.1.2.3:8081\r\n", "Host: probe.example\r\n", "Host: u@x\r\n", "Host:\r\n", ""] {
            for path in ["/healthz", "/readyz", "/metrics"] {
                for version in ["1.0", "1.1"] {
                    let head = format!("{path} HTTP/{version}\r\n{host}Connection: close\r\n\r\n");
                    let (status, _, body) = exchange(admin, &format!("GET {head}")).await;
                    assert!(status == 200 && !body.is_empty(), "GET {head}: {status} {body}");
                    let (status, _, body) = exchange(admin, &format!("HEAD {head}")).await;
                    assert!(status == 200 && body.is_empty(), "HEAD {head}: {status} {body}");
                }
            }
            let head = format!("POST /publish?session=all HTTP/1.1\r\n{host}Content-Length: 0\r\n\r\n");
            let (status, ..) = exchange(admin, &head).await;
            assert!([400, 403].contains(&status), "publishing needs the right host: {host} {status}");
        }
    })
    .await;
}

/// Bound to every address, it knows no host that is wrong: a page in a browser is known by what the browser says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publish_refuses_browsers() {
    test(async {
        let server = TestServer::start(Config::default());
        let everywhere = Admin::bind((Ipv4Addr::UNSPECIFIED, 0).into(), server.metrics.clone()).unwrap();
        let port = everywhere.local_addr().port();
        tokio::spawn(everywhere.run());
        let everywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let loopback = operate(&server);
        let client = server.client().await;
        let mut listening = client.listen(None).await;
        listening.primed().await;
        for admin in [everywhere, loopback] {
            for header in [
                ("Origin", "http://localhost"),
                ("Origin", "https://evil.example"),
                ("Origin", "null"),
                ("Sec-Fetch-Site", "same-origin"),
                ("Sec-Fetch-Site", "cross-site"),
                ("Sec-Fetch-Site", "none"),
            ] {
                let (status, answer) = ask(admin, "POST", "/publish?session=all", &[header], &note(1)).await;
                assert_eq!(status, 403, "{header:?}: {answer}");
                assert!(answer.contains("browser"), "{answer}");
            }
            let (status, _) = ask(admin, "GET", "/metrics", &[("Sec-Fetch-Site", "same-site")], "").await;
            assert_eq!(status, 403, "no page reads the numbers");
            let (status, _) = ask(admin, "GET", "/metrics", &[("Sec-Fetch-Site", "none")], "").await;
            assert_eq!(status, 200, "a person who types the address does");
            // What a program says that fetches as browsers do.
            let fetch = [("Sec-Fetch-Mode", "cors")];
            assert_eq!(ask(admin, "POST", "/publish?session=all", &fetch, &note(2)).await.0, 200);
            assert_eq!(number(&listening.message().await.1), 2, "nothing came before");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_publishes_sends_the_token_and_probes_need_none() {
    test(async {
        let server = TestServer::start(Config::default());
        let token = AdminToken::new("  open-sesame\n").unwrap();
        let admin = Admin::bind((Ipv4Addr::LOCALHOST, 0).into(), server.metrics.clone())
            .unwrap()
            .token(token.clone());
        let address = admin.local_addr();
        tokio::spawn(admin.run());
        let publish = async |headers: &[(&str, &str)]| {
            ask(address, "POST", "/publish?session=all", headers, &note(1)).await.0
        };
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer open",
            "Bearer open-sesame2",
            "Basic open-sesame",
            "open-sesame",
        ] {
            assert_eq!(publish(&[("Authorization", value)]).await, 401, "{value:?}");
        }
        assert_eq!(publish(&[]).await, 401);
        let good = ("Authorization", "bearer open-sesame");
        assert_eq!(publish(&[good, good]).await, 401, "once");
        assert_eq!(publish(&[good]).await, 200);
        assert_eq!(ask(address, "GET", "/metrics", &[], "").await.0, 200);
        token.replace("another").unwrap();
        assert!(token.replace("two words").is_err() && token.replace(" ").is_err());
        assert_eq!(publish(&[good]).await, 401);
        assert_eq!(publish(&[("Authorization", "Bearer another")]).await, 200);
        assert!(!format!("{token:?}").contains("another"));
    })
    .await;
}

/// Nobody holds the operator's address by sending nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admin_connections_are_limited_in_number_and_time() {
    test(async {
        let server = TestServer::start(Config::default());
        let admin = Admin::bind((Ipv4Addr::LOCALHOST, 0).into(), server.metrics.clone()).unwrap();
        let admin = admin.max_connections(2).read_timeout(Duration::from_millis(200));
        let address = admin.local_addr();
        tokio::spawn(admin.run());
        let (mut silent, mut slow) = (Wire::connect(address).await, Wire::connect(address).await);
        slow.send(b"POST /publish?session=all HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
            .await;
        let refused = Wire::connect(address).await.reply().await;
        assert_eq!(refused.status, 503);
        let late = slow.reply().await;
        assert_eq!(late.status, 408);
        silent.closed().await;
        drop(late);
        support::soon("a place", async { while exchange_or_nothing(address).await != Some(200) {} }).await;
    })
    .await;
}

/// The status of a probe; `None` if the connection was closed first.
async fn exchange_or_nothing(admin: SocketAddr) -> Option<u16> {
    let mut wire = Wire::connect(admin).await;
    wire.send_while_open(b"GET /healthz HTTP/1.1\r\n\r\n").await;
    wire.try_reply().await.ok().map(|reply| reply.status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_body_is_the_clients_fault_and_not_too_large() {
    test(async {
        let server = TestServer::start(Config::default());
        let admin = operate(&server);
        let head =
            "POST /publish?session=all HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (status, _, body) = exchange(admin, &format!("{head}5\r\nhello\r\nnonsense\r\n\r\n")).await;
        assert_eq!(status, 400, "{body}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_numbers_are_told() {
    test(async {
        let server = TestServer::start(Config::default());
        let admin = operate(&server);
        let client = server.client().await;
        let mut listening = client.listen(None).await;
        let primed = listening.primed().await;
        let mut again = client.listen(Some(&primed)).await;
        again.primed().await;
        listening.ended().await;
        assert_eq!(ask(admin, "GET", "/healthz", &[], "").await, (200, "ok\n".to_owned()));
        let (status, metrics) = ask(admin, "GET", "/metrics", &[], "").await;
        assert_eq!(status, 200);
        for line in [
            "ringmain_sessions 1",
            "ringmain_streams_resumed_total 1",
            "ringmain_streams_ended_total{reason=\"superseded\"} 1",
            "ringmain_streams_lagged_total 0",
            "ringmain_events_missed_total 0",
        ] {
            assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
        }
    })
    .await;
}

/// A lone event is at its client's socket when `publish` returns. Those that follow right behind it leave together.
#[tokio::test]
async fn lone_event_is_written_by_its_publisher() {
    const BURST: usize = 16;
    if inside_hyper() {
        return;
    }
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let session = server.session(&client);
        let mut wire = Wire::connect(server.address).await;
        wire.send(&client.get_bytes(None)).await;
        while !wire.received.windows(5).any(|bytes| bytes == b"retry") {
            assert!(wire.more().await);
        }
        let socket = wire.socket.into_std().expect("it is a socket");
        // How many events are there to be read, without waiting.
        let read = || {
            let mut buffer = [0; 16 << 10];
            let count = (&socket).read(&mut buffer).unwrap_or(0);
            buffer[..count].windows(9).filter(|bytes| bytes == b"test/note").count()
        };
        // The runtime has one thread, this one: between two waits nothing of the server runs.
        let number = Cell::new(0);
        let publish = || {
            number.set(number.get() + 1);
            support::publish(&session, number.get());
        };
        let is_written_at_once = || {
            read();
            publish();
            read() == 1
        };
        // On a busy machine the burst may take so long that the writer finds the stream quiet in the middle of it.
        for tries_left in (0..20).rev() {
            until("an event that is written at once", is_written_at_once).await;
            (0..BURST).for_each(|_| publish());
            let at_once = read();
            let (reads, events) = (Cell::new(0), Cell::new(at_once));
            until("the burst", || {
                let count = read();
                reads.set(reads.get() + usize::from(count > 0));
                events.set(events.get() + count);
                events.get() == BURST
            })
            .await;
            if at_once <= 1 && reads.get() == 1 {
                break;
            }
            assert_ne!(
                tries_left,
                0,
                "{at_once} of a burst were written one by one, the rest in {}",
                reads.get()
            );
        }
    })
    .await;
}
