//! Where a socket goes between two requests: from hyper to the writer, back to hyper, any number of times. What the
//! client sent ahead goes with it.

#![cfg(feature = "server")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use ringmain::handler::{Context, Handler, Notification, Request};
use ringmain::server::Config;
use ringmain::session::Session;
use serde_json::json;
use support::{Client, Http2, POST_HEADERS, Reply, TestServer, Wire, note, publish_json, soon, test, until};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Requests sent without waiting for an answer.
const PIPELINED: u64 = 1000;

/// Answers calls with streams that go on for a moment.
struct Streams;

impl Handler for Streams {
    async fn request(&self, request: Request, context: Context) {
        match request.method() {
            "initialize" => {
                let version = context.version().as_str();
                context.respond(&json!({
                    "protocolVersion": version, "capabilities": {}, "serverInfo": {"name": "streams", "version": "0"},
                }));
            }
            "tools/call" => {
                let _ = context.notify("test/step", &json!({"number": 1}));
                // Long enough that the answer becomes a stream.
                for _ in 0..30 {
                    tokio::task::yield_now().await;
                }
                let _ = context.notify("test/step", &json!({"number": 2}));
                context.respond(&json!({}));
            }
            _ => context.respond(&json!({})),
        }
    }

    async fn notification(&self, _: Notification, _: Arc<Session>) {}
}

/// What an answer must be.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// The response to this request.
    Response(u64),
    /// 400, as the body is no message.
    NoMessage,
}

/// A pipelined request, and its answer. Some bodies are requests themselves: if a server lost its place in the bytes,
/// it would end the session.
fn pipelined(client: &Client, number: u64) -> (Vec<u8>, Expected) {
    let delete = support::request("DELETE", &client.headers(), b"");
    let text = String::from_utf8(delete.clone()).expect("it is ASCII");
    let message =
        |method: &str| json!({"jsonrpc": "2.0", "id": number, "method": method, "params": {"text": text}});
    let headers = [client.headers(), POST_HEADERS.to_vec()].concat();
    let bytes = match number % 8 {
        0 | 5 => client.post_bytes(&message("ping")),
        1..=3 => client.post_bytes(&message("tools/call")),
        4 => {
            // More than hyper reads at once, most of it white space.
            let body = format!("{}{}", "\r\n\r\n".repeat(5000), message("tools/call"));
            support::request("POST", &headers, body.as_bytes())
        }
        6 => return (support::request("POST", &headers, &delete.repeat(30)), Expected::NoMessage),
        _ => client.post_bytes(&message("tools/call")),
    };
    (bytes, Expected::Response(number))
}

/// Reads one answer, checks it, and gives the connection back. Whether it was a stream of chunks.
async fn check(reply: Reply, expected: Expected) -> (Wire, bool) {
    let is_chunked = reply.header("transfer-encoding").is_some();
    match expected {
        Expected::NoMessage => {
            let mut reply = reply;
            assert_eq!(reply.status, 400);
            assert_eq!(reply.json().await["error"]["code"], -32700);
            (reply.body.into_wire(), false)
        }
        Expected::Response(id) if reply.is_stream() => {
            let mut stream = reply.stream().await;
            let last = stream.rest().await.last().expect("a response").message();
            assert_eq!(last["id"], id, "{last}");
            (stream.into_wire(), is_chunked)
        }
        Expected::Response(id) => {
            let mut reply = reply;
            assert_eq!((reply.status, &reply.json().await["id"]), (200, &json!(id)));
            (reply.body.into_wire(), false)
        }
    }
}

/// A connection of which one half can be written while the other is read.
fn connect_twice(address: std::net::SocketAddr) -> (TcpStream, Wire) {
    let socket = std::net::TcpStream::connect(address).expect("the server listens");
    socket.set_nonblocking(true).expect("it is a socket");
    let other = socket.try_clone().expect("a descriptor");
    let [one, other] =
        [socket, other].map(|socket| TcpStream::from_std(socket).expect("the runtime watches it"));
    (one, Wire { socket: other, received: Vec::new() })
}

/// Every answer comes, in order, once, wherever the socket went meanwhile; and no body runs as a request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_survive_every_hand_over() {
    test(async {
        for hand_over in [true, false] {
            let mut config = Config::default();
            config.hand_over = hand_over;
            let server = TestServer::start_with(Streams, config);
            let client = server.client().await;
            let (mut sending, mut wire) = connect_twice(server.address);
            let (requests, expected): (Vec<_>, Vec<_>) =
                (1..=PIPELINED).map(|number| pipelined(&client, number)).unzip();
            let sent =
                tokio::spawn(async move { sending.write_all(&requests.concat()).await.map(|()| sending) });
            let mut streams = 0;
            for expected in expected {
                let reply = wire.try_reply().await.unwrap_or_else(|_| panic!("no answer: {expected:?}"));
                let (back, is_chunked) = check(reply, expected).await;
                (wire, streams) = (back, streams + u64::from(is_chunked));
            }
            let _open =
                soon("everything to be sent", sent).await.unwrap().expect("the server reads everything");
            assert!(streams > PIPELINED / 4, "{streams} answers were streams");
            assert_eq!(wire.received, b"", "nothing is answered twice");
            client.ping(PIPELINED + 1).await;
        }
    })
    .await;
}

/// A client that takes nothing of its stream is ended however many keep-alives that patience is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patience_of_more_than_255_keep_alives_ends() {
    test(async {
        for (hand_over, http2) in [(true, false), (false, false), (false, true)] {
            let mut config = Config::default();
            config.hand_over = hand_over;
            config.keep_alive = Duration::from_millis(2);
            config.stalled_after = 300 * config.keep_alive;
            config.sessions.standalone.max_weight = 64 << 20;
            let server = TestServer::start(config);
            let (client, _stream, _wire) = if http2 {
                let client =
                    Client::initialize_over(Http2::connect_with(server.address, 1000).await, "2025-11-25")
                        .await;
                let stream = client.listen(None).await;
                (client, Some(stream), None)
            } else {
                let client = server.client().await;
                let mut wire = Wire::connect_tiny(server.address).await;
                wire.send(&client.get_bytes(None)).await;
                (client, None, Some(wire))
            };
            let session = server.session(&client);
            until("the stream to be attached", || session.standalone().terms().is_attached()).await;
            for number in 1..=200 {
                publish_json(&session, &note(number, 60_000));
            }
            until("the stalled stream to end", || server.metrics.connections().closed_stalled() == 1).await;
        }
    })
    .await;
}
