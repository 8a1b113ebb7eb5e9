//! HTTP/1.1 by hand: what is sent is what the test wrote, and what comes is read strictly.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{Stream, soon};

/// The connection ended where it must not.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

/// One TCP connection.
pub struct Wire {
    pub socket: TcpStream,
    /// Received and not consumed yet.
    pub received: Vec<u8>,
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = soon("a connection", TcpStream::connect(address)).await.expect("the server listens");
        socket.set_nodelay(true).expect("it is a TCP socket");
        Self { socket, received: Vec::new() }
    }

    /// A connection whose kernel takes little before the client reads. As its window is shorter than a segment, the
    /// server's kernel may wait 200 ms before each piece: read little over it.
    pub async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("it is a TCP socket");
        let socket = soon("a connection", socket.connect(address)).await.expect("the server listens");
        Self { socket, received: Vec::new() }
    }

    /// A connection for which the server's kernel keeps little as well: of segments so short it queues few. They are
    /// shorter than the window, so it waits for nothing but the client.
    pub async fn connect_tiny(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("it is a TCP socket");
        socket2::SockRef::from(&socket).set_tcp_mss(536).expect("it is a TCP socket");
        let socket = soon("a connection", socket.connect(address)).await.expect("the server listens");
        Self { socket, received: Vec::new() }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        soon("the server to read", self.socket.write_all(bytes)).await.expect("the connection is open");
    }

    /// Sends what the server will take; it may close before it has everything.
    pub async fn send_while_open(&mut self, bytes: &[u8]) {
        let _ = soon("the server to read", self.socket.write_all(bytes)).await;
    }

    /// Sends no more, but goes on reading.
    pub async fn half_close(&mut self) {
        self.socket.shutdown().await.expect("the connection is open");
    }

    /// Ends the connection the hard way.
    pub fn reset(self) {
        socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).expect("it is a TCP socket");
    }

    /// Reads more; false at the end, however it came.
    pub async fn more(&mut self) -> bool {
        let mut piece = [0; 16 << 10];
        let count = soon("bytes of the server", self.socket.read(&mut piece)).await.unwrap_or(0);
        self.received.extend_from_slice(&piece[..count]);
        count > 0
    }

    /// Reads to the end of the connection.
    pub async fn closed(&mut self) {
        while self.more().await {}
    }

    async fn line(&mut self) -> Result<String, Broken> {
        loop {
            if let Some(end) = self.received.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.received.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8(line).expect("heads are ASCII"));
            }
            if !self.more().await {
                return Err(Broken);
            }
        }
    }

    /// Reads the head of an answer.
    pub async fn try_reply(mut self) -> Result<Reply, Broken> {
        let status_line = self.line().await?;
        let mut words = status_line.splitn(3, ' ');
        let version = words.next().expect("a version");
        assert!(matches!(version, "HTTP/1.1" | "HTTP/1.0"), "{status_line}");
        let status = words.next().and_then(|status| status.parse().ok()).expect("a status");
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").expect("a header");
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let header =
            |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let framing = match (header("transfer-encoding"), header("content-length")) {
            _ if status == 204 || status == 304 => Framing::Length(0),
            (Some("chunked"), None) => Framing::Chunked { left: 0 },
            (None, Some(length)) => Framing::Length(length.parse().expect("a length")),
            (None, None) => Framing::Close,
            both => panic!("unclear framing: {both:?}"),
        };
        Ok(Reply { status, headers, body: Body::Http1 { wire: self, framing } })
    }

    pub async fn reply(self) -> Reply {
        self.try_reply().await.expect("an answer")
    }
}

/// How the end of a body is known.
pub enum Framing {
    Length(usize),
    Chunked { left: usize },
    Close,
}

/// What an answer's body comes from.
pub enum Body {
    Http1 { wire: Wire, framing: Framing },
    Http2(Incoming),
}

impl Body {
    /// Some more of the body; `None` at its proper end.
    pub async fn more(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        match self {
            Self::Http2(body) => loop {
                match soon("a frame of the server", body.frame()).await {
                    None => return Ok(None),
                    Some(Err(_)) => return Err(Broken),
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Ok(Some(data.to_vec()));
                        }
                    }
                }
            },
            Self::Http1 { wire, framing } => framing.more(wire).await,
        }
    }

    /// Gives the HTTP/1.1 connection back.
    pub fn into_wire(self) -> Wire {
        match self {
            Self::Http1 { wire, .. } => wire,
            Self::Http2(_) => panic!("HTTP/2 shares its connection"),
        }
    }
}

impl Framing {
    async fn more(&mut self, wire: &mut Wire) -> Result<Option<Vec<u8>>, Broken> {
        let wanted = match self {
            Self::Length(0) => return Ok(None),
            Self::Length(left) => *left,
            Self::Close => usize::MAX,
            Self::Chunked { left: 0 } => {
                let size = wire.line().await?;
                let size = usize::from_str_radix(&size, 16).expect("the size of a chunk");
                if size == 0 {
                    assert_eq!(wire.line().await?, "", "no trailers");
                    *self = Self::Length(0);
                    return Ok(None);
                }
                *self = Self::Chunked { left: size };
                size
            }
            Self::Chunked { left } => *left,
        };
        if wire.received.is_empty() && !wire.more().await {
            return if matches!(self, Self::Close) { Ok(None) } else { Err(Broken) };
        }
        let count = wanted.min(wire.received.len());
        let piece = wire.received.drain(..count).collect();
        match self {
            Self::Length(left) => *left -= count,
            Self::Chunked { left } => {
                *left -= count;
                if *left == 0 {
                    assert_eq!(wire.line().await?, "", "a chunk ends as it says");
                }
            }
            Self::Close => {}
        }
        Ok(Some(piece))
    }
}

/// An answer whose body is still to come.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

impl Reply {
    pub fn header(&self, wanted: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }

    pub async fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.body.more().await.expect("the whole body") {
            bytes.extend(piece);
        }
        bytes
    }

    /// The body of an answer that is one JSON-RPC message.
    pub async fn json(&mut self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "status {}", self.status);
        let bytes = self.bytes().await;
        serde_json::from_slice(&bytes).expect("the body is JSON")
    }

    /// The JSON-RPC error of an answer with this status.
    pub async fn error(mut self, status: u16) -> Value {
        let body = self.json().await;
        assert_eq!(self.status, status, "{body}");
        assert_eq!(body["jsonrpc"], "2.0", "{body}");
        assert!(body["error"]["code"].is_i64() && body["error"]["message"].is_string(), "{body}");
        body
    }

    /// An answer without a body.
    pub async fn nothing(mut self, status: u16) {
        assert_eq!(self.status, status);
        assert_eq!(self.bytes().await, b"", "no body");
    }

    /// The events of an answer that is a stream.
    pub async fn stream(mut self) -> Stream {
        if self.status != 200 {
            let body = self.bytes().await;
            panic!("status {} instead of a stream: {}", self.status, String::from_utf8_lossy(&body));
        }
        let is_stream = self.header("content-type") == Some("text/event-stream");
        assert!(is_stream, "not a stream: {:?}", self.headers);
        Stream::new(self)
    }

    pub fn is_stream(&self) -> bool {
        self.header("content-type") == Some("text/event-stream")
    }
}
