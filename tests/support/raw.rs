//! HTTP/1.1 requests to be spoilt: good ones, of which a test takes away, changes or doubles a part.

use super::Client;

/// A request to be spoilt.
#[derive(Clone)]
pub struct Raw {
    pub line: Vec<u8>,
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
    pub has_length: bool,
}

impl Raw {
    pub fn line(mut self, line: impl AsRef<[u8]>) -> Self {
        self.line = line.as_ref().to_vec();
        self
    }

    pub fn without(mut self, wanted: &str) -> Self {
        self.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(wanted.as_bytes()));
        self
    }

    /// Adds a header.
    pub fn and(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// Replaces a header.
    pub fn with(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).and(name, value)
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// Leaves `Content-Length` to the row.
    pub fn unmeasured(mut self) -> Self {
        self.has_length = false;
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = [&self.line[..], b"\r\n"].concat();
        for (name, value) in &self.headers {
            bytes.extend([&name[..], b": ", value, b"\r\n"].concat());
        }
        if self.has_length {
            bytes.extend(format!("Content-Length: {}\r\n", self.body.len()).bytes());
        }
        [&bytes[..], b"\r\n", &self.body].concat()
    }
}

/// The body of a good request.
pub const PING: &[u8] = br#"{"jsonrpc":"2.0","id":"row","method":"ping"}"#;

/// A good POST of `client`.
pub fn post(client: &Client) -> Raw {
    let mut raw = get(client).line("POST /mcp HTTP/1.1").body(PING);
    raw = raw.with("Accept", "application/json, text/event-stream").and("Content-Type", "application/json");
    raw.has_length = true;
    raw
}

/// A good GET of `client`.
pub fn get(client: &Client) -> Raw {
    let raw =
        Raw { line: b"GET /mcp HTTP/1.1".to_vec(), headers: Vec::new(), body: Vec::new(), has_length: false };
    raw.and("Host", "localhost")
        .and("Accept", "text/event-stream")
        .and("Mcp-Session-Id", &client.session)
        .and("MCP-Protocol-Version", client.version)
}

/// A body in chunks.
pub fn chunked(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in body.chunks(8 << 10) {
        bytes.extend(format!("{:x}\r\n", piece.len()).bytes());
        bytes.extend(piece);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}
