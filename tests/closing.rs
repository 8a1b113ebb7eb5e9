//! How connections end: an answer reaches its client although that still sends.

#![cfg(feature = "server")]

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ringmain::identity::{Authenticator, Checked, Denial, Head};
use ringmain::server::{Admin, AdminToken, Config};
use serde_json::json;
use support::{Client, Http2, POST_HEADERS, TestServer, Wire, frames, test, until};

/// Nobody may come in.
#[derive(Debug)]
struct Nobody;

impl Authenticator for Nobody {
    fn authenticate<'a>(&'a self, _: Head<'a>) -> Checked<'a> {
        Checked::Now(Err(Denial::Missing))
    }
}

/// Sends all of this, as clients do that do not look for an answer before; then reads to the end of the connection.
async fn send_then_read(address: SocketAddr, bytes: Vec<u8>) -> String {
    let talk = move || {
        let mut socket = TcpStream::connect(address).expect("the server listens");
        socket.set_read_timeout(Some(support::PATIENCE)).expect("it is a socket");
        socket.set_write_timeout(Some(support::PATIENCE)).expect("it is a socket");
        socket.write_all(&bytes).expect("the server takes what it refuses");
        let mut read = Vec::new();
        socket.read_to_end(&mut read).expect("the connection ends without a reset");
        String::from_utf8(read).expect("answers are text")
    };
    tokio::task::spawn_blocking(talk).await.expect("the client does not panic")
}

fn post(headers: &[(&str, &str)], bytes: usize) -> Vec<u8> {
    support::request("POST", &[&POST_HEADERS[..], headers].concat(), &vec![b' '; bytes])
}

fn is_refused(answer: &str, status: u16) -> bool {
    let (head, _) = answer.split_once("\r\n\r\n").unwrap_or_default();
    head.starts_with(&format!("HTTP/1.1 {status} "))
        && head.to_ascii_lowercase().contains("\r\nconnection: close")
}

/// It sees why it was refused, however much it sends and whoever refuses it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusal_reaches_a_sending_client() {
    test(async {
        let server = TestServer::start(Config::default());
        let check = async |bytes: Vec<u8>, status| {
            let length = bytes.len();
            let answer = send_then_read(server.address, bytes).await;
            assert!(is_refused(&answer, status), "{status} for {length} bytes: {answer}");
        };
        check(post(&[], 5 << 20), 413).await;
        check(post(&[], 20 << 20), 413).await;
        let elsewhere =
            String::from_utf8(post(&[], 5 << 20)).expect("it is ASCII").replacen("/mcp", "/other", 1);
        check(elsewhere.into_bytes(), 404).await;
        check(post(&[("Origin", "https://evil.example.com")], 5 << 20), 403).await;
        // In chunks, the length is seen late.
        let chunks = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20)).repeat(8);
        let headers = [&POST_HEADERS[..], &[("Transfer-Encoding", "chunked")]].concat();
        let head = support::request("POST", &headers, b"");
        check([head.as_slice(), chunks.as_bytes(), b"0\r\n\r\n"].concat(), 413).await;
        // These hyper answers by itself.
        let bad = [b"POST /mcp HTTP/1.1\r\nhost\r\n\r\n".as_slice(), &vec![b' '; 5 << 20]].concat();
        check(bad, 400).await;
        let long = format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(5 << 20));
        check(long.into_bytes(), 431).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn denial_reaches_a_sending_client() {
    test(async {
        let mut config = Config::default();
        config.authenticator = Some(Arc::new(Nobody));
        let server = TestServer::start(config);
        for bytes in [3 << 20, 5 << 20, 20 << 20] {
            let answer = send_then_read(server.address, post(&[], bytes)).await;
            assert!(is_refused(&answer, 401), "{answer}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusal_reaches_a_sending_client_over_http2() {
    test(async {
        let server = TestServer::start(Config::default());
        let http2 = Http2::connect(server.address).await;
        let reply = http2.send("POST", &POST_HEADERS, &vec![b' '; 20 << 20]).await;
        reply.error(413).await;
        // The connection goes on.
        let client = Client::initialize_over(http2, "2025-11-25").await;
        client.ping(1).await;
    })
    .await;
}

/// Sends one request after the other, each with DATA frames that follow one by one, and reads meanwhile. Returns how
/// many answers came whose head was read alone.
fn heads_that_came_alone(address: SocketAddr, requests: u32) -> u32 {
    let mut socket = TcpStream::connect(address).expect("the server listens");
    socket.set_read_timeout(Some(support::PATIENCE)).expect("it is a socket");
    socket.set_nodelay(true).expect("it is a socket");
    let mut sending = socket.try_clone().expect("it is a socket");
    let (answered, next) = std::sync::mpsc::channel();
    let sender = std::thread::spawn(move || {
        let mut send = |bytes: &[u8]| sending.write_all(bytes).expect("the server takes what it refuses");
        send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        send(&frames::frame(frames::SETTINGS, 0, 0, &[]));
        send(&frames::frame(frames::WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()));
        let block = frames::request_block("POST", &[("content-length", "5000000")]);
        for stream in (0..requests).map(|number| 2 * number + 1) {
            send(&frames::frame(frames::HEADERS, frames::END_HEADERS, stream, &block));
            for _ in 0..40 {
                send(&frames::frame(frames::DATA, 0, stream, b"some"));
            }
            next.recv().expect("the reader goes on");
            send(&frames::frame(frames::RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        }
    });
    let (mut received, mut alone, mut answers) = (Vec::new(), 0, 0);
    let mut piece = [0; 16 << 10];
    while answers < requests {
        let count = socket.read(&mut piece).expect("the server answers");
        assert_ne!(count, 0, "the connection ended");
        received.extend_from_slice(&piece[..count]);
        let mut head = false;
        while let [a, b, c, kind, flags, ..] = received[..]
            && let Some(rest) = received.len().checked_sub(9 + u32::from_be_bytes([0, a, b, c]) as usize)
        {
            received.drain(..received.len() - rest);
            head = kind == frames::HEADERS;
            if kind == frames::DATA && flags & frames::END_STREAM != 0 {
                answers += 1;
                answered.send(()).expect("there is a next request, or the end");
            }
        }
        alone += u32::from(head && received.is_empty());
    }
    sender.join().expect("the sender does not panic");
    alone
}

/// A client that stops sending when it reads the head breaks its own `content-length`, and has its stream reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_of_a_refusal_leaves_with_its_body_over_http2() {
    test(async {
        let server = TestServer::start(Config::default());
        let address = server.address;
        let talk = tokio::task::spawn_blocking(move || heads_that_came_alone(address, 3000));
        assert_eq!(talk.await.expect("the client does not panic"), 0);
        server.stop().await;
    })
    .await;
}

/// A body that came with its head is read although it is refused, and the connection goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusal_of_a_small_request_keeps_the_connection() {
    test(async {
        let server = TestServer::start(Config::default());
        let mut wire = Wire::connect(server.address).await;
        for _ in 0..3 {
            wire.send(&post(&[("Origin", "https://evil.example.com")], 500)).await;
            let mut reply = wire.reply().await;
            assert_eq!((reply.status, reply.header("connection")), (403, None));
            reply.json().await;
            wire = reply.body.into_wire();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_too_many_sees_its_answer() {
    test(async {
        let mut config = Config::default();
        config.connections.max = Some(1);
        let server = TestServer::start(config);
        let first = Wire::connect(server.address).await;
        until("the first to be let in", || server.metrics.connections().open() == 1).await;
        for bytes in [100, 3 << 20] {
            let answer = send_then_read(server.address, post(&[], bytes)).await;
            assert!(is_refused(&answer, 503), "{answer}");
        }
        drop(first);
    })
    .await;
}

/// As at the endpoint, so at the operator's address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusal_of_the_operator_reaches_a_sending_client() {
    test(async {
        let server = TestServer::start(Config::default());
        let admin = |max_connections, token: Option<&str>| {
            let admin = Admin::bind((Ipv4Addr::LOCALHOST, 0).into(), server.metrics.clone()).unwrap();
            let admin = admin.max_connections(max_connections);
            let admin = match token {
                Some(token) => admin.token(AdminToken::new(token).unwrap()),
                None => admin,
            };
            let address = admin.local_addr();
            tokio::spawn(admin.run());
            address
        };
        let publish = |bytes| {
            let target = "/publish?session=all";
            let request = String::from_utf8(support::request("POST", &[], &vec![b' '; bytes])).unwrap();
            request.replacen("/mcp", target, 1).into_bytes()
        };
        let guarded = admin(16, Some("open-sesame"));
        for bytes in [3 << 20, 20 << 20] {
            let answer = send_then_read(guarded, publish(bytes)).await;
            assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        }
        let answer = send_then_read(admin(16, None), publish(20 << 20)).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        let full = admin(1, None);
        let first = Wire::connect(full).await;
        for bytes in [100, 3 << 20, 100, 3 << 20] {
            let answer = send_then_read(full, publish(bytes)).await;
            assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        }
        drop(first);
    })
    .await;
}

/// The end of a stream behind which the connection closes reaches a client that sent more than its request, though it
/// reads late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn end_of_a_closing_stream_survives_what_was_sent_beyond() {
    test(async {
        for hand_over in [true, false] {
            let mut config = Config::default();
            config.hand_over = hand_over;
            let server = TestServer::start(config);
            let client = server.client().await;
            for round in 0..5 {
                let mut wire = Wire::connect_tiny(server.address).await;
                let arguments = json!({"label": "last", "before": 1, "after": 1, "padding": 12_000});
                let call = json!({"jsonrpc": "2.0", "id": round, "method": "tools/call",
                    "params": {"name": "steps", "arguments": arguments}});
                let headers =
                    [client.headers(), POST_HEADERS.to_vec(), vec![("Connection", "close")]].concat();
                wire.send(&support::request("POST", &headers, call.to_string().as_bytes())).await;
                // The stream has begun: what comes now, nobody reads.
                assert!(wire.more().await);
                wire.send(b"GET /mcp HTTP/1.1\r\nHost").await;
                server.control.release("last");
                until("the answer", || server.control.count("last:answered") > round).await;
                // It does not fit into what this client's system takes, and the server is done with it.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                let mut stream = wire.reply().await.stream().await;
                let events = stream.rest().await;
                assert_eq!(events.last().expect("a response").message()["id"], round);
                assert!(!stream.into_wire().more().await, "the server closed it");
            }
        }
    })
    .await;
}

/// A client that was refused and does not go is waited for a while, not for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_client_that_stays_is_closed() {
    test(async {
        let server = TestServer::start(Config::default());
        let mut silent = Wire::connect(server.address).await;
        silent.send(&post(&[], 5 << 20)[..1000]).await;
        until("the silent client to be closed", || server.metrics.connections().open() == 0).await;
        let address = server.address;
        let endless = std::thread::spawn(move || {
            let mut socket = TcpStream::connect(address).expect("the server listens");
            socket.set_write_timeout(Some(Duration::from_secs(20))).expect("it is a socket");
            socket.write_all(&post(&[], 5 << 20)[..1000]).expect("the server takes it");
            // A little now and then: no silence ends it.
            while socket.write_all(&[b' '; 100]).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        until("the endless client to be let in", || server.metrics.connections().open() == 1).await;
        until("the endless client to be closed", || server.metrics.connections().open() == 0).await;
        endless.join().expect("it sees the end");
    })
    .await;
}
