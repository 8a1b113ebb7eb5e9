//! One stream in the writer: frames its events as chunks and sends them to its socket.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::TcpStream;
use std::task::{Context, Poll, Waker};

use bytes::buf::Chain;
use bytes::{Buf, Bytes};

use crate::server::connection::gate::{Admitted, Permit};
use crate::server::connection::patience::Patience;
use crate::server::connection::prefixed::Prefixed;
use crate::server::metrics::connections::{CloseReason, ConnectionCounters};
use crate::server::request::ends::Ends;
use crate::session::{Connection, Piece, PieceBuf};
use crate::sse::{self, Held};
use crate::stream::Moment;

/// The end of a chunked body.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// A larger piece is sent from where it is, without a copy. A smaller one is copied, which costs less than
/// the slices of a vectored one.
const COPIED: usize = 64 << 10;
/// Bytes collected for one send.
const TOGETHER: usize = 64 << 10;
/// Maximum number of slices of one vectored send.
const SLICES: usize = 64;

/// A stream and the socket it is written to.
pub(super) struct StreamEntry {
    pub(super) socket: TcpStream,
    connection: Connection,
    /// State that most entries do not need.
    aside: Option<Box<WaitingBytes>>,
    permit: Permit,
    ends: Ends,
    keep_alive: bool,
    /// The last chunk is written or pending.
    ended: bool,
    /// The socket is full until epoll reports otherwise.
    blocked: bool,
    /// Events were sent since the last round of comments.
    busy: bool,
    /// epoll is registered for writability.
    pub(super) watched: bool,
    /// Its client was told to reconnect.
    sent_back: bool,
}

/// Bytes that are pending outside the stream.
#[derive(Default)]
struct WaitingBytes {
    /// What the socket did not take yet. Until it is sent, nothing is taken from the stream.
    unsent: Option<Unsent>,
    /// When the socket last took some of it, or was found full.
    since: Moment,
    /// What hyper had read beyond the request; almost always empty.
    unread: Bytes,
    /// Charges both to the memory limit, except bytes in shared frames.
    held: Held,
}

/// A copy, a piece that was not copied, and the end of its chunk.
type Unsent = Chain<Chain<Bytes, PieceBuf>, &'static [u8]>;

/// What an entry waits for after it was driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drive {
    /// The next event of its stream.
    Waiting,
    /// Its socket.
    Blocked,
    /// Nothing: everything was sent.
    Done,
    /// Nothing: the socket is broken.
    Broken,
}

impl StreamEntry {
    pub(super) fn new(
        socket: Prefixed<TcpStream>,
        connection: Connection,
        keep_alive: bool,
        admitted: Admitted,
    ) -> Self {
        let Admitted { permit, ends } = admitted;
        let (socket, unread) = socket.into_parts();
        let aside = (!unread.is_empty()).then(|| {
            let held = Held::new(unread.len());
            Box::new(WaitingBytes { unread, held, ..WaitingBytes::default() })
        });
        Self {
            socket,
            connection,
            aside,
            permit,
            ends,
            keep_alive,
            ended: false,
            blocked: false,
            busy: true,
            watched: false,
            sent_back: false,
        }
    }

    /// Whether it carries a standalone stream, which includes the messages to all sessions.
    pub(super) fn is_standalone(&self) -> bool {
        self.connection.is_standalone()
    }

    /// Loads the entry's own memory into the cache, as [`Connection::warm`] does for the stream's.
    pub(super) fn warm(&self) -> bool {
        self.blocked ^ self.aside.is_some()
    }

    /// Loads the memory that [`drive`](Self::drive) will read.
    pub(super) fn warm_connection(&self) -> bool {
        self.connection.warm()
    }

    /// Sends what is pending. `scratch` contains bytes to send first, and is empty afterwards.
    pub(super) fn drive(&mut self, scratch: &mut Vec<u8>) -> Drive {
        if self.blocked {
            return Drive::Blocked;
        }
        // Emptied also if a waker panics: the next entry must not send another client's events.
        let scratch = Emptied(scratch);
        self.try_drive(scratch.0).unwrap_or(Drive::Broken)
    }

    fn try_drive(&mut self, scratch: &mut Vec<u8>) -> io::Result<Drive> {
        loop {
            if self.has_unsent() && !self.send_rest()? {
                return Ok(Drive::Blocked);
            }
            if !self.ended {
                self.connection.put_pending(COPIED, |events| {
                    append_size(scratch, events.wire_len());
                    events.append_to(scratch);
                    scratch.extend_from_slice(b"\r\n");
                });
            }
            // The connection rings a bell instead.
            let mut context = Context::from_waker(Waker::noop());
            let waits = loop {
                if self.ended {
                    break true;
                }
                match self.connection.poll_next(&mut context) {
                    Poll::Pending => break true,
                    Poll::Ready(None) => {
                        scratch.extend_from_slice(LAST_CHUNK);
                        self.ended = true;
                    }
                    Poll::Ready(Some(piece)) if piece.wire_len() <= COPIED => {
                        append_chunk(scratch, &piece);
                        if scratch.len() >= TOGETHER {
                            break false;
                        }
                    }
                    Poll::Ready(Some(piece)) => {
                        append_size(scratch, piece.wire_len());
                        self.leave(scratch, piece.into_buf(), b"\r\n");
                        scratch.clear();
                        break false;
                    }
                }
            };
            if !scratch.is_empty() {
                self.busy = true;
                let sent = send(&self.socket, scratch)?;
                if sent < scratch.len() {
                    self.leave(&scratch[sent..], PieceBuf::Control(Bytes::new()), b"");
                    self.blocked = true;
                    return Ok(Drive::Blocked);
                }
                scratch.clear();
            }
            if waits && !self.has_unsent() {
                return Ok(if self.ended { Drive::Done } else { Drive::Waiting });
            }
        }
    }

    /// Keeps what the socket did not take: `copied`, then `piece` without a copy, then `end`.
    fn leave(&mut self, copied: &[u8], piece: PieceBuf, end: &'static [u8]) {
        let since = self.connection.session().now();
        let aside = self.aside.get_or_insert_default();
        aside.held.set(aside.unread.len() + copied.len());
        aside.since = since;
        aside.unsent = Some(Bytes::copy_from_slice(copied).chain(piece).chain(end));
    }

    fn has_unsent(&self) -> bool {
        self.aside.as_ref().is_some_and(|aside| aside.unsent.is_some())
    }

    /// Sends what was kept. False if the socket takes no more.
    fn send_rest(&mut self) -> io::Result<bool> {
        self.busy = true;
        while let Some(aside) = &mut self.aside
            && let Some(rest) = &mut aside.unsent
        {
            if !rest.has_remaining() {
                aside.unsent = None;
                aside.held.set(aside.unread.len());
                if aside.unread.is_empty() {
                    self.aside = None;
                }
                break;
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = rest.chunks_vectored(&mut slices);
            match (&self.socket).write_vectored(&slices[..filled]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    rest.advance(sent);
                    aside.since = self.connection.session().now();
                    // A client that reads something, however slowly, is alive.
                    self.connection.session().touch();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Notes that the socket is writable again.
    pub(super) fn unblock(&mut self) {
        self.blocked = false;
    }

    /// One round of comments: a quiet stream gets one. Returns `Broken` if the client has read nothing of what is
    /// pending for longer than `patience`, or never will because the session ended or the client resumed on another
    /// connection. A stream whose connection has reached its age is told to reconnect.
    pub(super) fn beat(
        &mut self,
        scratch: &mut Vec<u8>,
        patience: Patience,
        counters: &ConnectionCounters,
    ) -> Drive {
        if !self.sent_back && self.ends.has_come(self.connection.session().now()) {
            self.sent_back = true;
            self.keep_alive = false;
            counters.count_closed(CloseReason::Age);
            // The bell rings, and the entry is driven to its end. A stream that cannot be resumed continues to its
            // response.
            self.connection.send_back();
        }
        if let Some(aside) = &mut self.aside
            && !aside.unread.is_empty()
            && self.connection.session().is_short_of_memory()
        {
            // The client must send again, on another connection, what it sent ahead.
            aside.held.set(aside.held.bytes() - aside.unread.len());
            aside.unread = Bytes::new();
            self.keep_alive = false;
        }
        if self.blocked {
            let session = self.connection.session();
            let since = self.aside.as_ref().map_or(session.now(), |aside| aside.since);
            if patience.is_over(since, session.now(), session.is_short_of_memory()) {
                counters.count_closed(CloseReason::Stalled);
                return Drive::Broken;
            }
            return if self.connection.is_void() { Drive::Broken } else { Drive::Blocked };
        }
        if !std::mem::take(&mut self.busy) && !self.ended {
            append_chunk(scratch, &Piece::Control(sse::KEEP_ALIVE));
            // The socket took everything so far, so the client is alive.
            self.connection.session().touch();
            let driven = self.drive(scratch);
            // The comment itself shows nothing about the client.
            self.busy = false;
            return driven;
        }
        Drive::Waiting
    }

    /// Takes the connection apart at the end of its stream: the socket with what the client sent ahead,
    /// its permit, and whether it stays open.
    pub(super) fn into_socket(self) -> (Prefixed<TcpStream>, Admitted, bool) {
        let Self { socket, aside, keep_alive, permit, ends, .. } = self;
        let unread = aside.map_or_else(Bytes::new, |aside| aside.unread);
        (Prefixed::new(socket, unread), Admitted { permit, ends }, keep_alive)
    }
}

/// Bytes that are removed when this is dropped.
struct Emptied<'a>(&'a mut Vec<u8>);

impl Drop for Emptied<'_> {
    fn drop(&mut self) {
        self.0.clear();
    }
}

/// Sends as much as the socket takes.
fn send(mut socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.write(&bytes[sent..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(more) => sent += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// Appends the size line of a chunk.
fn append_size(out: &mut Vec<u8>, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|digit| b"0123456789abcdef"[size >> (4 * digit) & 0xf]));
    out.extend_from_slice(b"\r\n");
}

/// Appends `piece` as one chunk.
fn append_chunk(out: &mut Vec<u8>, piece: &Piece) {
    append_size(out, piece.wire_len());
    piece.append_to(out);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_chunk_says_its_size_in_hexadecimal(size in prop_oneof![0..5000_usize, any::<usize>()]) {
            let mut out = Vec::new();
            append_size(&mut out, size);
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{size:x}\r\n"));
        }
    }

    #[test]
    fn an_entry_is_as_small_as_documented() {
        assert_eq!(size_of::<StreamEntry>(), 104);
    }
}
