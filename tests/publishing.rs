//! The operator's address: publishing to sessions, health and numbers.

#![cfg(feature = "server")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};

use ringmain::server::{Admin, Config};
use serde_json::{Value, json};
use support::{TestServer, Wire, number, request, test};

/// The operator's address of a server.
fn operate(server: &TestServer) -> SocketAddr {
    let admin =
        Admin::bind((Ipv4Addr::LOCALHOST, 0).into(), server.metrics.clone()).expect("loopback has a port");
    let address = admin.local_addr().expect("it is bound");
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

        assert_eq!(number(&listening.message().await.1), 1);
        assert_eq!(number(&listening.message().await.1), 3);
        let (_, message) = listening.message().await;
        assert_eq!((number(&message), &message["params"]["text"]), (4, &json!("a\nb")));
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
        let server = TestServer::start(Config::default());
        let admin = operate(&server);
        let client = server.client().await;
        let mut listening = client.listen(None).await;
        listening.primed().await;
        let nobody = "0123456789abcdef0123456789abcdef";
        let large =
            format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"text":"{}"}}}}"#, "x".repeat(5 << 20));
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
