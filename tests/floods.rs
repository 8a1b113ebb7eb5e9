//! Clients that send what costs them little and the server much: their connections end, or what they cost is
//! bounded, and everybody else is served meanwhile.

#![cfg(feature = "server")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringmain::server::Config;
use serde_json::json;
use support::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, frame, request_block, setting,
};
use support::{Client, POST_HEADERS, TestServer, Wire, publish, soon, test, until};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// A client that goes on asking, over a new connection each time, until it is told to stop.
struct Honest {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<u64>,
}

impl Honest {
    async fn begin(server: &TestServer) -> Self {
        let client = server.client().await;
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let task = tokio::spawn(async move {
            let mut served = 0;
            while !until.load(Ordering::Relaxed) || served == 0 {
                client.ping(served).await;
                served += 1;
            }
            served
        });
        Self { stop, task }
    }

    /// Every one of its requests was answered.
    async fn was_served(self) {
        self.stop.store(true, Ordering::Relaxed);
        assert!(soon("the honest client", self.task).await.expect("it was served") > 0);
    }
}

/// Sends `piece` again and again until the connection ends; returns how often. What comes back is read, or not.
async fn flood(frames: &mut Frames, piece: &[u8], reads: bool) -> usize {
    let many = piece.repeat((64 << 10) / piece.len());
    let mut piece = [0; 64 << 10];
    for round in 0..4000 {
        let (mut read, mut write) = frames.wire.socket.split();
        let sent = if reads {
            let mut sending = std::pin::pin!(write.write_all(&many));
            loop {
                tokio::select! {
                    sent = &mut sending => break sent,
                    got = tokio::io::AsyncReadExt::read(&mut read, &mut piece) => match got {
                        Ok(0) => break Err(std::io::ErrorKind::UnexpectedEof.into()),
                        Ok(_) => {}
                        Err(error) => break Err(error),
                    },
                }
            }
        } else {
            match timeout(Duration::from_secs(5), write.write_all(&many)).await {
                Ok(sent) => sent,
                Err(_) => return round,
            }
        };
        if sent.is_err() {
            return round;
        }
    }
    panic!("250 MB of it were taken")
}

/// Each kind of frame that is about nothing ends its connection after some hundred thousand at the most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_end_their_connection() {
    test(async {
        let server = TestServer::start(Config::default());
        let honest = Honest::begin(&server).await;
        let opened = frame(HEADERS, END_HEADERS, 1, &request_block("POST", &POST_HEADERS));
        let floods = [
            ("ping", frame(PING, 0, 0, &[7; 8])),
            ("pong", frame(PING, ACK, 0, &[7; 8])),
            ("settings", frame(SETTINGS, 0, 0, &setting(4, 65_535))),
            ("empty settings", frame(SETTINGS, 0, 0, &[])),
            ("window", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
            ("priority", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 7])),
            ("empty data", frame(DATA, 0, 1, &[])),
            ("unknown", frame(0xbe, 0, 0, &[])),
        ];
        for (ended, (name, piece)) in floods.into_iter().enumerate() {
            let mut frames = Frames::connect(server.address, &[]).await;
            frames.wire.send(&opened).await;
            let rounds = flood(&mut frames, &piece, true).await;
            // In a debug build on a busy machine some megabytes are in the buffers of the kernel.
            assert!(rounds < 400, "{name}: {rounds} times 64 KiB were taken");
            until(name, || server.metrics.connections().open() <= 1).await;
            // h2 may have been first with one of them.
            assert!(server.metrics.connections().closed_flood() <= ended as u64 + 1, "{name}: counted once");
        }
        assert!(server.metrics.connections().closed_flood() >= 5, "{:?}", server.metrics.connections());
        honest.was_served().await;
    })
    .await;
}

/// Requests that are begun and reset at once, as fast as they can be sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_flood_ends_its_connection() {
    test(async {
        let server = TestServer::start(Config::default());
        let honest = Honest::begin(&server).await;
        let fields = request_block("POST", &POST_HEADERS);
        for looked_at in [false, true] {
            let mut frames = Frames::connect(server.address, &[]).await;
            let mut ended = false;
            for batch in 0..2000_u32 {
                // The numbers of streams go up, and their number in one batch stays under every limit.
                let streams = (0..32).map(|number| (batch * 32 + number) * 2 + 1);
                let begin = streams.clone().map(|stream| frame(HEADERS, END_HEADERS, stream, &fields));
                let reset = streams.map(|stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
                let (begin, reset) = (begin.collect::<Vec<_>>().concat(), reset.collect::<Vec<_>>().concat());
                if looked_at {
                    // Behind a ping that was answered, they were looked at, and are work that was begun.
                    let piece = [begin, frame(PING, 0, 0, &[1; 8])].concat();
                    ended |= frames.wire.socket.write_all(&piece).await.is_err();
                    loop {
                        match frames.next().await {
                            Some(frame) if frame.kind == PING && frame.flags == ACK => break,
                            Some(_) => {}
                            None => {
                                ended = true;
                                break;
                            }
                        }
                    }
                    ended |= frames.wire.socket.write_all(&reset).await.is_err();
                } else {
                    ended |= frames.wire.socket.write_all(&[begin, reset].concat()).await.is_err();
                }
                if ended {
                    break;
                }
            }
            assert!(ended, "64,000 requests were begun and reset");
            // h2 notices those that were not looked at, the meter the others.
            assert_eq!(server.metrics.connections().closed_flood(), u64::from(looked_at));
        }
        honest.was_served().await;
    })
    .await;
}

/// A head that never ends, and heads that are too large.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_heads_end_their_connection() {
    test(async {
        let server = TestServer::start(Config::default());
        let honest = Honest::begin(&server).await;
        let field = support::frames::block(&[("x-padding", &"x".repeat(100))]);
        for piece in [vec![], field.clone(), field.repeat(100)] {
            let mut frames = Frames::connect(server.address, &[]).await;
            frames.send(HEADERS, 0, 1, &request_block("POST", &POST_HEADERS)).await;
            let rounds = flood(&mut frames, &frame(CONTINUATION, 0, 1, &piece), true).await;
            assert!(rounds < 200, "{rounds} times 64 KiB of a head were taken");
        }
        // One that ends, and is too large, is refused.
        let mut frames = Frames::connect(server.address, &[]).await;
        frames.send(HEADERS, 0, 1, &request_block("GET", &[])).await;
        for last in [false, false, false, false, false, true] {
            let flags = if last { END_HEADERS } else { 0 };
            frames.wire.send_while_open(&frame(CONTINUATION, flags, 1, &field.repeat(140))).await;
        }
        let mut refused = false;
        while let Some(frame) = frames.next().await {
            refused |=
                matches!(frame.kind, RST_STREAM | GOAWAY) || frame.kind == HEADERS && frame.stream == 1;
            if refused {
                break;
            }
        }
        assert!(refused);
        until("the heads to be gone", || server.metrics.connections().open() <= 2).await;
        honest.was_served().await;
    })
    .await;
}

/// A client that asks for much and gives no window loses the streams, one by one, and not the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_without_a_window_is_reset() {
    test(async {
        let mut config = Config::default();
        config.stalled_after = Duration::from_millis(600);
        config.keep_alive = Duration::from_millis(200);
        let server = TestServer::start(config);
        let honest = Honest::begin(&server).await;
        for window in [0, 1] {
            let client = server.client().await;
            let session = server.session(&client);
            let mut frames = Frames::connect(server.address, &setting(4, window)).await;
            let before = server.metrics.connections().closed_stalled();
            let headers = [client.headers(), POST_HEADERS.to_vec()].concat();
            let post = request_block("POST", &headers);
            let quick = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                "params": {"name": "quick", "arguments": {"padding": 100_000}}});
            for number in 0..10_u32 {
                let body = json!({"id": number}).as_object().cloned().unwrap();
                let mut message = quick.clone();
                message["id"] = body["id"].clone();
                frames.send(HEADERS, END_HEADERS, number * 2 + 1, &post).await;
                frames.send(DATA, END_STREAM, number * 2 + 1, message.to_string().as_bytes()).await;
            }
            // A stream that goes on, and is published to.
            let get = [client.headers(), vec![("Accept", "text/event-stream")]].concat();
            frames.send(HEADERS, END_HEADERS | END_STREAM, 21, &request_block("GET", &get)).await;
            until("the stream to be attached", || session.standalone().terms().is_attached()).await;
            (1..=100).for_each(|number| publish(&session, number));
            let mut reset = Vec::new();
            while reset.len() < 11 {
                let frame = frames.next().await.expect("the connection stays");
                assert_ne!(frame.kind, GOAWAY, "the connection stays");
                if frame.kind == RST_STREAM {
                    reset.push(frame.stream);
                }
            }
            reset.sort_unstable();
            assert_eq!(reset, (0..11).map(|number| number * 2 + 1).collect::<Vec<u32>>());
            assert_eq!(server.metrics.connections().closed_stalled() - before, 11);
            until("the stream to be free", || !session.standalone().terms().is_attached()).await;
            // With a window the connection is as good as any.
            frames.send(SETTINGS, 0, 0, &setting(4, 1 << 20)).await;
            frames.send(HEADERS, END_HEADERS, 23, &post).await;
            let ping = json!({"jsonrpc": "2.0", "id": 99, "method": "ping"}).to_string();
            frames.send(DATA, END_STREAM, 23, ping.as_bytes()).await;
            loop {
                let frame = frames.next().await.expect("the connection stays");
                if frame.kind == DATA && frame.stream == 23 {
                    break;
                }
            }
        }
        honest.was_served().await;
    })
    .await;
}

/// Requests without end, whose answers are not read: the server stops reading, and then stops waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelining_flood_is_bounded_and_ends() {
    test(async {
        let mut config = Config::default();
        config.stalled_after = Duration::from_millis(700);
        let server = TestServer::start(config);
        let client = server.client().await;
        let honest = Honest::begin(&server).await;
        let ping = client.post_bytes(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
        let mut wire = Wire::connect_narrow(server.address).await;
        let many = ping.repeat(100);
        let sending = async {
            let mut sent = 0_usize;
            while wire.socket.write_all(&many).await.is_ok() {
                sent += many.len();
                assert!(sent < 256 << 20, "the server reads for ever");
            }
        };
        timeout(Duration::from_secs(30), sending).await.expect("the connection ends");
        until("it to be counted", || server.metrics.connections().closed_stalled() == 1).await;
        honest.was_served().await;
    })
    .await;
}

/// What a client sends while a stream is on is its own affair: it waits in the kernel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_during_a_stream_are_not_taken() {
    test(async {
        let server = TestServer::start(Config::default());
        let client: Client = server.client().await;
        let session = server.session(&client);
        let mut stream = client.listen(None).await;
        stream.primed().await;
        let mut wire = stream.into_wire();
        let megabyte = vec![b'x'; 1 << 20];
        let mut sent = 0;
        while timeout(Duration::from_millis(300), wire.socket.write_all(&megabyte)).await.is_ok() {
            sent += 1;
            assert!(sent < 64, "{sent} MB were taken");
        }
        publish(&session, 1);
        while !String::from_utf8_lossy(&wire.received).contains("test/note") {
            assert!(wire.more().await, "the stream goes on");
        }
    })
    .await;
}
