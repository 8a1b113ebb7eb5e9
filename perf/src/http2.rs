//! Very many streams over a few HTTP/2 connections: frames written and read as they are, with prior knowledge.
//!
//! Nothing is kept for a stream but what it takes to see gaps and doubles. Header blocks that come in are not
//! decoded; all that is looked at is that they begin with the status 200.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::socket::{DEADLINE, connect, wait};
use crate::sse::{Reader, Tally};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
/// Streams of one connection that wait for their head at the same time.
const AT_ONCE: usize = 100;
/// The largest window there is, and what a connection's window starts with.
const WINDOW: u32 = (1 << 31) - 1;
const FIRST_WINDOW: u32 = 65_535;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
/// End of the stream, and of its headers.
const END: u8 = 1 | 4;

/// Streams over HTTP/2.
#[derive(Debug)]
pub struct Streams {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    /// What arrived.
    pub tally: Tally,
}

#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    address: SocketAddr,
    /// Read, and not a whole frame yet.
    unread: Vec<u8>,
    unwritten: Vec<u8>,
    /// The sessions whose streams are still to be opened; the last one is next.
    waiting: Vec<Option<Box<str>>>,
    streams: Vec<Reader>,
    answered: usize,
    /// Bytes of data since the window was last widened.
    consumed: u32,
}

impl Streams {
    /// Opens a stream for each of `sessions`, or without a session, over `connections` connections.
    ///
    /// # Errors
    ///
    /// The server refuses one.
    pub fn open(
        address: SocketAddr,
        connections: usize,
        sessions: impl IntoIterator<Item = Option<Box<str>>>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut streams = Self {
            poll,
            events: Events::with_capacity(256),
            connections: Vec::new(),
            buffer: vec![0; 256 << 10],
            tally: Tally::default(),
        };
        for number in 0..connections {
            let mut socket = connect(address, number)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            streams.poll.registry().register(&mut socket, Token(number), interest)?;
            streams.connections.push(Connection::new(socket, address));
        }
        let mut count = 0;
        for session in sessions {
            streams.connections[count % connections].waiting.push(session);
            count += 1;
        }
        for connection in &mut streams.connections {
            connection.request_some();
        }
        let patience = DEADLINE + Duration::from_micros(100) * count as u32;
        streams.drive(patience, |streams| {
            streams.connections.iter().map(|connection| connection.answered).sum::<usize>() == count
        })?;
        Ok(streams)
    }

    /// Reads until `events` arrived over all streams.
    ///
    /// # Errors
    ///
    /// They did not within two minutes, or a stream broke.
    pub fn until(&mut self, events: u64) -> io::Result<()> {
        self.drive(2 * DEADLINE, |streams| streams.tally.events >= events)
    }

    fn drive(&mut self, patience: Duration, done: impl Fn(&Self) -> bool) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        while !done(self) {
            if Instant::now() > deadline {
                let answered: usize = self.connections.iter().map(|connection| connection.answered).sum();
                let text = format!("{answered} streams open, {} events arrived", self.tally.events);
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            wait(&mut self.poll, &mut self.events, Duration::from_millis(200))?;
            for event in &self.events {
                let connection = &mut self.connections[event.token().0];
                connection.serve(&mut self.buffer, &mut self.tally)?;
            }
        }
        Ok(())
    }
}

impl Connection {
    fn new(socket: TcpStream, address: SocketAddr) -> Self {
        let mut unwritten = PREFACE.to_vec();
        // Settings: no push (2), the largest window for each stream (4).
        let mut settings = vec![0, 2, 0, 0, 0, 0, 0, 4];
        settings.extend_from_slice(&WINDOW.to_be_bytes());
        push_frame(&mut unwritten, SETTINGS, 0, 0, &settings);
        push_frame(&mut unwritten, WINDOW_UPDATE, 0, 0, &(WINDOW - FIRST_WINDOW).to_be_bytes());
        Self {
            socket,
            address,
            unread: Vec::new(),
            unwritten,
            waiting: Vec::new(),
            streams: Vec::new(),
            answered: 0,
            consumed: 0,
        }
    }

    /// Asks for streams until enough wait for their head.
    fn request_some(&mut self) {
        while self.streams.len() - self.answered < AT_ONCE {
            let Some(session) = self.waiting.pop() else { return };
            let stream = 2 * self.streams.len() as u32 + 1;
            let block = header_block(&self.address.to_string(), session.as_deref());
            push_frame(&mut self.unwritten, HEADERS, END, stream, &block);
            self.streams.push(Reader::default());
        }
    }

    fn serve(&mut self, buffer: &mut [u8], tally: &mut Tally) -> io::Result<()> {
        loop {
            self.write()?;
            let count = match self.socket.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(()),
                Err(error) => return Err(error),
            };
            tally.reads += 1;
            let mut unread = std::mem::take(&mut self.unread);
            unread.extend_from_slice(&buffer[..count]);
            let mut rest = unread.as_slice();
            while let Some((kind, flags, stream, payload)) = frame(rest) {
                self.take(kind, flags, stream, payload, tally)?;
                rest = &rest[FRAME_HEAD + payload.len()..];
            }
            let done = unread.len() - rest.len();
            unread.drain(..done);
            self.unread = unread;
            self.request_some();
        }
    }

    fn take(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        tally: &mut Tally,
    ) -> io::Result<()> {
        match kind {
            DATA => {
                let reader = self.streams.get_mut(stream as usize / 2);
                reader.ok_or_else(|| io::Error::other("data of an unknown stream"))?.feed(payload, tally);
                self.consumed += payload.len() as u32;
                if self.consumed > WINDOW / 2 {
                    push_frame(&mut self.unwritten, WINDOW_UPDATE, 0, 0, &self.consumed.to_be_bytes());
                    self.consumed = 0;
                }
            }
            HEADERS => {
                // An update of the table's size may come first; 0x88 is `:status: 200`.
                let first = payload.iter().find(|&&byte| !(0x20..0x40).contains(&byte));
                if first != Some(&0x88) {
                    return Err(io::Error::other("a stream is refused"));
                }
                self.answered += 1;
            }
            SETTINGS if flags & ACK == 0 => push_frame(&mut self.unwritten, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => push_frame(&mut self.unwritten, PING, ACK, 0, payload),
            RESET | GOAWAY => return Err(io::Error::other(format!("frame of type {kind}: {payload:?}"))),
            _ => {}
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let mut written = 0;
        while written < self.unwritten.len() {
            match self.socket.write(&self.unwritten[written..]) {
                Ok(count) => written += count,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) =>
                {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        self.unwritten.drain(..written);
        Ok(())
    }
}

/// Type, flags, stream and payload of the frame that `bytes` begins with, if it is there as a whole.
fn frame(bytes: &[u8]) -> Option<(u8, u8, u32, &[u8])> {
    let head = bytes.get(..FRAME_HEAD)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some((head[3], head[4], stream, bytes.get(FRAME_HEAD..FRAME_HEAD + length)?))
}

fn push_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A GET of an event stream: from the static table what is there, the rest spelled out, nothing remembered.
fn header_block(authority: &str, session: Option<&str>) -> Vec<u8> {
    fn push(block: &mut Vec<u8>, text: &str) {
        block.push(text.len() as u8);
        block.extend_from_slice(text.as_bytes());
    }
    // `:method: GET` and `:scheme: http`.
    let mut block = vec![0x82, 0x86];
    // `:path`, `:authority` and `accept` by the numbers of their names.
    for (name, value) in [(&[0x04][..], "/mcp"), (&[0x01], authority), (&[0x0f, 0x04], "text/event-stream")] {
        block.extend_from_slice(name);
        push(&mut block, value);
    }
    if let Some(session) = session {
        for (name, value) in [("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")] {
            block.push(0);
            push(&mut block, name);
            push(&mut block, value);
        }
    }
    block
}
