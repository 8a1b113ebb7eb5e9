//! HTTP/2 by hand, for clients that no library would be.

use std::net::SocketAddr;

use super::{Wire, soon};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// One frame as it goes over the wire.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames are small").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// One setting.
pub fn setting(name: u16, value: u32) -> Vec<u8> {
    [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// Header fields without compression.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| {
        let length = u8::try_from(text.len()).expect("short texts");
        assert!(length < 127, "short texts");
        [&[length], text.as_bytes()].concat()
    };
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// The header block of a request to the endpoint.
pub fn request_block(method: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let begin = [(":method", method), (":scheme", "http"), (":path", "/mcp"), (":authority", "localhost")];
    let fields: Vec<(String, &str)> =
        fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), *value)).collect();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    block(&[&begin[..], &fields].concat())
}

/// A frame that was received.
#[derive(Debug)]
pub struct Received {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// One HTTP/2 connection.
pub struct Frames {
    pub wire: Wire,
}

impl Frames {
    /// Connects and says hello, with these settings.
    pub async fn connect(address: SocketAddr, settings: &[u8]) -> Self {
        let mut wire = Wire::connect(address).await;
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        wire.send(&frame(SETTINGS, 0, 0, settings)).await;
        Self { wire }
    }

    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.wire.send(&frame(kind, flags, stream, payload)).await;
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Received> {
        let received = &mut self.wire.received;
        loop {
            if let [a, b, c, kind, flags, s0, s1, s2, s3, ..] = received[..] {
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                if received.len() >= 9 + length {
                    let frame: Vec<u8> = received.drain(..9 + length).collect();
                    let stream = u32::from_be_bytes([s0, s1, s2, s3]);
                    return Some(Received { kind, flags, stream, payload: frame[9..].to_vec() });
                }
            }
            let mut piece = [0; 16 << 10];
            let read = tokio::io::AsyncReadExt::read(&mut self.wire.socket, &mut piece);
            match soon("a frame of the server", read).await {
                Ok(count) if count > 0 => received.extend_from_slice(&piece[..count]),
                Ok(_) | Err(_) => return None,
            }
        }
    }
}
