//! An MCP client of one session, over HTTP/1.1 with a connection for each request, or over one HTTP/2
//! connection.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::wire::Body;
use super::{Reply, Stream, Wire, soon};

/// A request to the endpoint as HTTP/1.1 writes it. `Host` is there; `Content-Length` if there is a body.
pub fn request(method: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} /mcp HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// One HTTP/2 connection.
#[derive(Clone)]
pub struct Http2(http2::SendRequest<Full<Bytes>>);

impl Http2 {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, 1 << 20).await
    }

    /// A connection whose streams take `window` bytes each before the client reads.
    pub async fn connect_with(address: SocketAddr, window: u32) -> Self {
        let socket = soon("a connection", TcpStream::connect(address)).await.expect("the server listens");
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window).initial_connection_window_size(16 << 20);
        let handshake = builder.handshake(TokioIo::new(socket));
        let (sender, connection) = soon("the handshake", handshake).await.expect("the server speaks HTTP/2");
        tokio::spawn(connection);
        Self(sender)
    }

    /// Waits until the connection takes no further request.
    pub async fn closed(&self) {
        let mut look = tokio::time::interval(std::time::Duration::from_millis(2));
        while !self.0.is_closed() {
            look.tick().await;
        }
    }

    pub async fn send(&self, method: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut request = http::Request::builder().method(method).uri("http://localhost/mcp");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request =
            request.body(Full::new(Bytes::copy_from_slice(body))).expect("the request is well-formed");
        let mut sender = self.0.clone();
        soon("the connection", sender.ready()).await.expect("the connection is open");
        let answer = soon("an answer", sender.send_request(request)).await.expect("an answer");
        let (head, body) = answer.into_parts();
        let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (name.as_str().to_owned(), value.to_str().expect("headers are ASCII").to_owned())
        };
        let headers = head.headers.iter().map(header).collect();
        Reply { status: head.status.as_u16(), headers, body: Body::Http2(body) }
    }
}

#[derive(Clone)]
enum Transport {
    /// A connection for each request.
    Http1(SocketAddr),
    Http2(Http2),
}

/// A client of one session.
#[derive(Clone)]
pub struct Client {
    transport: Transport,
    pub session: String,
    pub version: &'static str,
    /// What it sends as `Authorization`.
    pub authorization: Option<String>,
}

impl Client {
    pub async fn initialize(address: SocketAddr, version: &'static str) -> Self {
        Self::begin(Transport::Http1(address), version, None).await
    }

    /// A client that sends a bearer token with every request.
    pub async fn initialize_as(address: SocketAddr, version: &'static str, token: &str) -> Self {
        Self::begin(Transport::Http1(address), version, Some(format!("Bearer {token}"))).await
    }

    pub async fn initialize_over(http2: Http2, version: &'static str) -> Self {
        Self::begin(Transport::Http2(http2), version, None).await
    }

    async fn begin(transport: Transport, version: &'static str, authorization: Option<String>) -> Self {
        let mut client = Self { transport, session: String::new(), version, authorization };
        let authorization = client.authorization.as_deref().map(|value| ("Authorization", value));
        let headers: Vec<_> = POST_HEADERS.into_iter().chain(authorization).collect();
        let mut reply = client.send("POST", &headers, &hello(version)).await;
        client.session = reply.header("mcp-session-id").expect("a session id").to_owned();
        let answer = if reply.is_stream() {
            reply.stream().await.rest().await.last().expect("a result").message()
        } else {
            reply.json().await
        };
        assert_eq!(answer["result"]["protocolVersion"], version, "{answer}");
        client.notify("notifications/initialized", json!({})).await;
        client
    }

    /// The same client over one HTTP/2 connection.
    pub fn over(&self, http2: Http2) -> Self {
        Self { transport: Transport::Http2(http2), ..self.clone() }
    }

    /// Sends a request with just these headers.
    pub async fn send(&self, method: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        match &self.transport {
            Transport::Http1(address) => {
                let mut wire = Wire::connect(*address).await;
                wire.send(&request(method, headers, body)).await;
                wire.reply().await
            }
            Transport::Http2(http2) => http2.send(method, headers, body).await,
        }
    }

    /// The headers of the session.
    pub fn headers(&self) -> Vec<(&str, &str)> {
        let mut headers = vec![("Mcp-Session-Id", &*self.session), ("MCP-Protocol-Version", self.version)];
        headers.extend(self.authorization.as_deref().map(|value| ("Authorization", value)));
        headers
    }

    /// What [`post`](Self::post) sends, as HTTP/1.1 writes it.
    pub fn post_bytes(&self, message: &Value) -> Vec<u8> {
        let headers = [self.headers(), POST_HEADERS.to_vec()].concat();
        request("POST", &headers, message.to_string().as_bytes())
    }

    /// What [`get`](Self::get) sends, as HTTP/1.1 writes it.
    pub fn get_bytes(&self, last_event_id: Option<&str>) -> Vec<u8> {
        request("GET", &self.get_headers(last_event_id), b"")
    }

    fn get_headers<'a>(&'a self, last_event_id: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
        let mut headers = self.headers();
        headers.push(("Accept", "text/event-stream"));
        headers.extend(last_event_id.map(|id| ("Last-Event-ID", id)));
        headers
    }

    pub async fn post(&self, message: &Value) -> Reply {
        let headers = [self.headers(), POST_HEADERS.to_vec()].concat();
        self.send("POST", &headers, message.to_string().as_bytes()).await
    }

    pub async fn request(&self, id: impl Into<Value>, method: &str, params: Value) -> Reply {
        self.post(&json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params})).await
    }

    pub async fn call(&self, id: impl Into<Value>, tool: &str, arguments: Value) -> Reply {
        self.request(id, "tools/call", json!({"name": tool, "arguments": arguments})).await
    }

    /// Calls a tool that answers with a stream.
    pub async fn call_stream(&self, id: impl Into<Value>, tool: &str, arguments: Value) -> Stream {
        self.call(id, tool, arguments).await.stream().await
    }

    pub async fn notify(&self, method: &str, params: Value) {
        let reply = self.post(&json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
        reply.nothing(202).await;
    }

    pub async fn get(&self, last_event_id: Option<&str>) -> Reply {
        self.send("GET", &self.get_headers(last_event_id), b"").await
    }

    /// Opens the standalone stream, or resumes one.
    pub async fn listen(&self, last_event_id: Option<&str>) -> Stream {
        self.get(last_event_id).await.stream().await
    }

    pub async fn delete(&self) -> Reply {
        self.send("DELETE", &self.headers(), b"").await
    }

    /// Asks for the least there is, and gets it.
    pub async fn ping(&self, id: impl Into<Value>) {
        let mut reply = self.request(id, "ping", json!({})).await;
        assert_eq!(reply.status, 200);
        let answer = if reply.is_stream() {
            reply.stream().await.rest().await.last().expect("a response").message()
        } else {
            reply.json().await
        };
        assert_eq!(answer["result"], json!({}), "{answer}");
    }
}

/// What every POST of a well-behaved client carries.
pub const POST_HEADERS: [(&str, &str); 2] =
    [("Accept", "application/json, text/event-stream"), ("Content-Type", "application/json")];

/// The body of `initialize`.
pub fn hello(version: &str) -> Vec<u8> {
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}
    }})
    .to_string()
    .into_bytes()
}
