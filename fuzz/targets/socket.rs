//! Whatever a client sends before, during and after a stream, to a server in this process: it answers in HTTP, gives
//! each event once, and goes on.
//!
//! The input is a list of steps. In what is sent, `$S` stands for the session's ID and `$L` for the last event's.
#![no_main]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use ringmain::handler::{Context, Handler, Request, RpcError};
use ringmain::protocol::ProtocolVersion;
use ringmain::server::{Config, Server};
use ringmain::session::{Session, Sessions};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

const LISTEN: &str =
    "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nMcp-Session-Id: $S\r\n\r\n";
const CALL: &str = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nContent-Type: application/json\r\n\
                    Mcp-Session-Id: $S\r\nContent-Length: 41\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"later\"}";
/// How often the server gets its turn before it is held to have nothing to say.
const TURNS: usize = 12;
/// How long the end of a connection may take.
const END: Duration = Duration::from_secs(5);

struct Echo;

impl Handler for Echo {
    async fn request(&self, request: Request, context: Context) {
        match request.method() {
            "ping" => context.respond(&json!({})),
            "later" => {
                let _ = context.notify("test/step", &json!({}));
                tokio::task::yield_now().await;
                let _ = context.notify("test/step", &json!({}));
                context.respond(&json!({}));
            }
            method => context.fail(&RpcError::method_not_found(method)),
        }
    }
}

struct World {
    runtime: Runtime,
    address: SocketAddr,
    sessions: Sessions,
}

fn world() -> World {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut config = Config::default();
    config.max_body_bytes = 4096;
    config.read_timeout = Duration::from_millis(500);
    let (address, sessions) = runtime.block_on(async {
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), Echo, config).unwrap();
        let handle = server.handle();
        tokio::spawn(server.run(std::future::pending()));
        (handle.local_addr(), handle.sessions())
    });
    World { runtime, address, sessions }
}

/// One client, what it received, and how many notes were published for it.
struct Client {
    socket: TcpStream,
    session: Arc<Session>,
    received: Vec<u8>,
    notes: usize,
    is_open: bool,
}

impl Client {
    async fn send(&mut self, bytes: &[u8]) {
        let last = find_last(&self.received, b"\nid: ").map(|at| {
            let id = &self.received[at + 5..];
            id.split(|byte| *byte == b'\n').next().unwrap_or_default().to_vec()
        });
        let bytes = replace(bytes, b"$S", &self.session.id().encode());
        let bytes = replace(&bytes, b"$L", &last.unwrap_or_default());
        self.is_open &= matches!(timeout(END, self.socket.write_all(&bytes)).await, Ok(Ok(())));
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }

    fn publish(&mut self) {
        let note = format!(r#"{{"jsonrpc":"2.0","method":"note","params":{{"note":{}}}}}"#, self.notes);
        if self.session.publish(|out| out.extend_from_slice(note.as_bytes())).is_ok() {
            self.notes += 1;
        }
    }

    /// Reads what the server has to say by now; false if that is nothing.
    async fn read(&mut self) -> bool {
        // Each time round the server's tasks and sockets get their turn.
        for _ in 0..TURNS {
            match timeout(Duration::ZERO, self.read_once()).await {
                Ok(more) => return more,
                Err(_) => tokio::task::yield_now().await,
            }
        }
        false
    }

    async fn read_once(&mut self) -> bool {
        let mut piece = [0; 8192];
        let count = self.socket.read(&mut piece).await.unwrap_or(0);
        self.received.extend_from_slice(&piece[..count]);
        self.is_open &= count > 0;
        self.is_open
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

fn find_last(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).rposition(|window| window == wanted)
}

fn replace(text: &[u8], wanted: &[u8], with: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = find(rest, wanted) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(with);
        rest = &rest[at + wanted.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// Takes one answer from the front; `None` if it is not whole. The end of the connection may cut the last one.
fn answer<'a>(wire: &mut &'a [u8]) -> Option<(&'a str, Vec<u8>)> {
    let end = find(wire, b"\r\n\r\n")?;
    let head = str::from_utf8(&wire[..end]).expect("a head is text");
    assert!(head.starts_with("HTTP/1.1 ") || head.starts_with("HTTP/1.0 "), "not an answer: {head:.80}");
    let header = |wanted: &str| {
        let line =
            |line: &'a str| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        head.lines().find_map(line).map(|(_, value)| value)
    };
    let mut rest = &wire[end + 4..];
    let mut body = Vec::new();
    match (header("content-length"), header("transfer-encoding")) {
        (Some(length), None) => {
            let length = length.parse().expect("a length");
            if rest.len() < length {
                return None;
            }
            body.extend_from_slice(&rest[..length]);
            rest = &rest[length..];
        }
        (None, Some("chunked")) => loop {
            let line = find(rest, b"\r\n")?;
            let size =
                str::from_utf8(&rest[..line]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
            let size = size.expect("the size of a chunk");
            if rest.len() < line + 2 + size + 2 {
                // What came of the chunk counts.
                body.extend_from_slice(&rest[line + 2..rest.len().min(line + 2 + size)]);
                check_events(&body);
                return None;
            }
            body.extend_from_slice(&rest[line + 2..line + 2 + size]);
            assert_eq!(&rest[line + 2 + size..line + 4 + size], b"\r\n", "a chunk ends as it says");
            rest = &rest[line + 4 + size..];
            if size == 0 {
                break;
            }
        },
        (None, None) => {
            // To the end of the connection, or nothing at all.
            if header("content-type").is_some() {
                body.extend_from_slice(rest);
                rest = &[];
            }
        }
        both => panic!("unclear framing: {both:?}"),
    }
    *wire = rest;
    Some((head, body))
}

/// Events end as they must, and each has its fields.
fn check_events(body: &[u8]) {
    let Some(end) = find_last(body, b"\n\n") else { return };
    let text = str::from_utf8(&body[..end]).expect("events are text");
    for block in text.split("\n\n") {
        let known = |line: &str| {
            ["id: ", "event: message", "data: ", "retry: ", ": keep"].iter().any(|k| line.starts_with(k))
        };
        assert!(block.lines().all(known), "{block:?}");
    }
}

/// The numbers of the notes in the order in which they came.
fn notes(received: &[u8]) -> Vec<usize> {
    let text = String::from_utf8_lossy(received);
    text.split("{\"note\":").skip(1).filter_map(|rest| rest.split_once('}')?.0.parse().ok()).collect()
}

async fn run(world: &World, data: &[u8]) {
    let socket = TcpStream::connect(world.address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let session = world.sessions.create(None);
    session.agree(ProtocolVersion::LATEST);
    let mut client = Client { socket, session, received: Vec::new(), notes: 0, is_open: true };
    for step in data.split(|byte| *byte == 0xff).take(24) {
        let Some((first, rest)) = step.split_first() else { continue };
        match first % 8 {
            0 => client.send(LISTEN.as_bytes()).await,
            1 => client.send(CALL.as_bytes()).await,
            2 | 3 => client.send(rest).await,
            4 => client.publish(),
            5 | 6 => drop(client.read().await),
            _ => drop(client.socket.shutdown().await),
        }
        if !client.is_open {
            break;
        }
    }
    let resumes = find(&data.to_ascii_lowercase(), b"last-").is_some();
    // The session's end ends its streams; then the connection has nothing left to wait for.
    client.publish();
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    world.sessions.terminate(&client.session);
    while client.read().await {}
    let _ = client.socket.shutdown().await;
    while client.is_open && matches!(timeout(END, client.read_once()).await, Ok(true)) {}
    assert!(!client.is_open, "the server lets go of a connection that ended");

    let mut wire = &client.received[..];
    while !wire.is_empty() {
        let Some((head, body)) = answer(&mut wire) else { break };
        if head.to_ascii_lowercase().contains("text/event-stream") {
            check_events(&body);
        }
    }
    let notes = notes(&client.received);
    let in_order = notes.windows(2).all(|pair| pair[1] == pair[0] + 1);
    assert!(resumes || in_order, "each once, in order: {notes:?}");
    assert!(notes.iter().all(|note| *note < client.notes));
}

/// Whether a client that breaks no rule is served.
async fn ping(world: &World) {
    let session = world.sessions.create(None);
    session.agree(ProtocolVersion::LATEST);
    let mut socket = TcpStream::connect(world.address).await.unwrap();
    let call = replace(CALL.as_bytes(), b"$S", &session.id().encode());
    let call = replace(&replace(&call, b"later", b"ping"), b"Length: 41", b"Length: 40");
    socket.write_all(&call).await.unwrap();
    let mut piece = [0; 1024];
    let count = timeout(END, socket.read(&mut piece)).await.expect("an answer").unwrap();
    assert!(piece[..count].starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&piece[..count]));
    world.sessions.terminate(&session);
    assert_eq!(world.sessions.len(), 0, "no session is left behind");
}

/// The world, and how many runs it has seen.
static WORLD: Mutex<Option<(World, u64)>> = Mutex::new(None);

fuzz_target!(|data: &[u8]| {
    let mut world = WORLD.lock().unwrap();
    let (world, runs) = world.get_or_insert_with(|| (self::world(), 0));
    world.runtime.block_on(run(world, data));
    *runs += 1;
    if *runs % 256 == 0 {
        world.runtime.block_on(ping(world));
    }
});
