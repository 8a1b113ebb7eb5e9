//! Many event streams held cheaply: one thread, one buffer, and a counter for each connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

/// How a server wants its streams opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// `initialize` by POST, then GET with the session's ID.
    Session,
    /// GET, and that is all.
    Get,
}

/// Streams that count what they are sent.
#[derive(Debug)]
pub struct Streams {
    events: Arc<AtomicU64>,
    holders: Vec<tokio::task::JoinHandle<()>>,
}

/// Connections that are being opened at the same time.
const AT_ONCE: usize = 64;
const DEADLINE: Duration = Duration::from_secs(60);

impl Streams {
    /// Opens `count` streams at `address`.
    ///
    /// # Errors
    ///
    /// A connection is refused or not answered with a stream.
    pub async fn open(address: SocketAddr, count: usize, opening: Opening) -> io::Result<Self> {
        let mut streams = Self { events: Arc::default(), holders: Vec::with_capacity(count) };
        let mut opened = 0;
        while opened < count {
            let batch = AT_ONCE.min(count - opened);
            let opening = (opened..opened + batch).map(|number| open(address, source(number), opening));
            let opening: Vec<_> = opening.map(tokio::spawn).collect();
            for stream in opening {
                let stream = stream.await.map_err(io::Error::other)??;
                streams.holders.push(tokio::spawn(hold(stream, streams.events.clone())));
            }
            opened += batch;
        }
        Ok(streams)
    }

    /// Events received so far, over all streams.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Waits until `events` were received over all streams, or the deadline; returns how many were.
    pub async fn until(&self, events: u64) -> u64 {
        let deadline = Instant::now() + DEADLINE;
        while self.events() < events && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.events()
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.holders.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Loopback has many addresses; each gives another 28,000 ports.
fn source(number: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 2 + (number / 20_000) as u8], 0))
}

async fn connect(address: SocketAddr, source: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(source)?;
    socket.connect(address).await
}

async fn open(address: SocketAddr, source: SocketAddr, opening: Opening) -> io::Result<TcpStream> {
    let mut stream = connect(address, source).await?;
    let session = match opening {
        Opening::Get => String::new(),
        Opening::Session => initialize(&mut stream, address).await?,
    };
    let request =
        format!("GET /mcp HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n{session}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (head, _) = read_head(&mut stream).await?;
    if head.starts_with("HTTP/1.1 200") { Ok(stream) } else { Err(io::Error::other(head)) }
}

/// Begins `count` sessions at `address` over one connection.
///
/// # Errors
///
/// One of them is refused.
pub async fn initialize_many(address: SocketAddr, count: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    for _ in 0..count {
        initialize(&mut stream, address).await?;
    }
    Ok(())
}

/// Begins a session; returns the header line that names it.
async fn initialize(stream: &mut TcpStream, address: SocketAddr) -> io::Result<String> {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"perf","version":"1"}}}"#;
    let request = format!(
        "POST /mcp HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nAccept: application/json, \
                 text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let (head, rest) = read_head(stream).await?;
    let length: usize = field(&head, "content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut left = vec![0; length.saturating_sub(rest.len())];
    stream.read_exact(&mut left).await?;
    let id = field(&head, "mcp-session-id").ok_or_else(|| io::Error::other("no session"))?;
    Ok(format!("Mcp-Session-Id: {id}\r\n"))
}

/// The head of an answer, and what was read beyond it.
async fn read_head(stream: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut seen = Vec::new();
    loop {
        if let Some(end) = seen.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let rest = seen.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&seen).into_owned(), rest));
        }
        let mut buffer = [0; 2048];
        match timeout(DEADLINE, stream.read(&mut buffer)).await?? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => seen.extend_from_slice(&buffer[..count]),
        }
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Reads for ever and counts events: each has one line of data that begins an object.
async fn hold(mut stream: TcpStream, events: Arc<AtomicU64>) {
    const MARK: &[u8] = b"data: {";
    let mut buffer = vec![0; 4096];
    let mut matched = 0;
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let mut found = 0;
        for byte in &buffer[..count] {
            matched = if *byte == MARK[matched] { matched + 1 } else { usize::from(*byte == MARK[0]) };
            if matched == MARK.len() {
                found += 1;
                matched = 0;
            }
        }
        events.fetch_add(found, Ordering::Relaxed);
    }
}

/// A connection to the publish API that is kept open.
#[derive(Debug)]
pub struct Publisher {
    stream: TcpStream,
    request: Vec<u8>,
}

impl Publisher {
    /// Connects to `admin`; every [`publish`](Self::publish) then sends `message` to all sessions.
    ///
    /// # Errors
    ///
    /// The connection is refused.
    pub async fn connect(admin: SocketAddr, message: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(admin).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "POST /publish?session=all HTTP/1.1\r\nHost: {admin}\r\nContent-Length: {}\r\n\r\n{message}",
            message.len()
        );
        Ok(Self { stream, request: request.into_bytes() })
    }

    /// Publishes once and waits for the answer.
    ///
    /// # Errors
    ///
    /// The server is gone, or refuses.
    pub async fn publish(&mut self) -> io::Result<()> {
        self.burst(1).await
    }

    /// Publishes `count` times, sent together, and waits for all the answers.
    ///
    /// # Errors
    ///
    /// The server is gone, or refuses.
    pub async fn burst(&mut self, count: usize) -> io::Result<()> {
        self.stream.write_all(&self.request.repeat(count)).await?;
        let mut answered = Vec::new();
        let mut buffer = [0; 4096];
        while answered.windows(9).filter(|bytes| bytes == b"HTTP/1.1 ").count() < count {
            match timeout(DEADLINE, self.stream.read(&mut buffer)).await?? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => answered.extend_from_slice(&buffer[..read]),
            }
        }
        let good = answered.windows(12).filter(|bytes| bytes == b"HTTP/1.1 200").count();
        if good == count {
            Ok(())
        } else {
            Err(io::Error::other(String::from_utf8_lossy(&answered).into_owned()))
        }
    }
}
