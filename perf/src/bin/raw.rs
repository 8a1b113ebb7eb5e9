//! The yardstick: one thread, one epoll, and one `write` for each event and connection. No sessions, no HTTP
//! beyond what a client insists on: what the kernel costs, and hardly anything else.
//!
//! ```text
//! raw --listen ADDR --admin ADDR [--coalesce]     with --coalesce, what is pending leaves in one writev
//! ```
//!
//! Streams are numbered in the order in which they are opened; `POST /publish?session=NUMBER` goes to one,
//! `?session=all` to all. A run uses one or the other, so that positions have no gaps. It keeps the latest
//! frames that went to all, for `Last-Event-ID`.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::rc::Rc;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use ringmain_perf::arguments::Arguments;
use ringmain_perf::{feed, wire};
use socket2::{Domain, Socket, Type};

const LISTEN: Token = Token(0);
const ADMIN: Token = Token(1);
/// Token of the first connection; what comes in at the admin address is numbered down from the largest.
const FIRST: usize = 2;
const PUBLISHERS: usize = usize::MAX >> 1;

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
/// Frames kept for those who come back.
const RETAINED: usize = 256;

type Frame = Rc<[u8]>;

struct Connection {
    stream: TcpStream,
    /// The request as far as it came; `None` once the stream is open.
    request: Option<Vec<u8>>,
    position: u64,
    /// What the socket did not take.
    unwritten: Vec<u8>,
}

struct Raw {
    coalesce: bool,
    connections: Vec<Option<Connection>>,
    /// Connections whose stream is open, in the order of opening.
    opened: Vec<usize>,
    publishers: Vec<(TcpStream, Vec<u8>)>,
    position: u64,
    retained: VecDeque<Frame>,
    buffer: Vec<u8>,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::read();
    let mut poll = Poll::new()?;
    let (mut listener, mut admin) = (listen(arguments.listen)?, listen(arguments.admin)?);
    poll.registry().register(&mut listener, LISTEN, Interest::READABLE)?;
    poll.registry().register(&mut admin, ADMIN, Interest::READABLE)?;
    let mut raw = Raw {
        coalesce: arguments.has("--coalesce"),
        connections: Vec::new(),
        opened: Vec::new(),
        publishers: Vec::new(),
        position: 0,
        retained: VecDeque::new(),
        buffer: vec![0; 256 << 10],
    };
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                LISTEN => raw.accept(&listener, poll.registry())?,
                ADMIN => raw.accept_publisher(&admin, poll.registry())?,
                Token(publisher) if publisher >= PUBLISHERS => raw.publish(publisher - PUBLISHERS),
                Token(number) => raw.serve(number - FIRST, event.is_writable()),
            }
        }
    }
}

fn listen(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into()))
}

impl Raw {
    fn accept(&mut self, listener: &TcpListener, registry: &Registry) -> io::Result<()> {
        while let Ok((mut stream, _)) = listener.accept() {
            stream.set_nodelay(true)?;
            let token = Token(FIRST + self.connections.len());
            registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            let request = Some(Vec::new());
            self.connections.push(Some(Connection { stream, request, position: 0, unwritten: Vec::new() }));
        }
        Ok(())
    }

    fn accept_publisher(&mut self, admin: &TcpListener, registry: &Registry) -> io::Result<()> {
        while let Ok((mut stream, _)) = admin.accept() {
            stream.set_nodelay(true)?;
            registry.register(&mut stream, Token(PUBLISHERS + self.publishers.len()), Interest::READABLE)?;
            self.publishers.push((stream, Vec::new()));
        }
        Ok(())
    }

    /// Reads a request, or sees that the client is gone.
    fn serve(&mut self, number: usize, is_writable: bool) {
        let Some(connection) = &mut self.connections[number] else { return };
        if is_writable && !connection.unwritten.is_empty() {
            let rest = std::mem::take(&mut connection.unwritten);
            connection.write(&[IoSlice::new(&rest)]);
        }
        loop {
            let count = match connection.stream.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) | Ok(0) => break,
                Ok(count) => count,
            };
            let Some(request) = &mut connection.request else { continue };
            request.extend_from_slice(&self.buffer[..count]);
            if !request.ends_with(b"\r\n\r\n") {
                continue;
            }
            let missed = missed(&self.retained, self.position, request);
            let mut slices = vec![IoSlice::new(HEAD)];
            slices.extend(missed.iter().map(|frame| IoSlice::new(frame)));
            connection.write(&slices);
            connection.request = None;
            self.opened.push(number);
        }
        self.connections[number] = None;
        self.opened.retain(|&opened| opened != number);
    }

    fn publish(&mut self, publisher: usize) {
        loop {
            let (stream, seen) = &mut self.publishers[publisher];
            match stream.read(&mut self.buffer) {
                Err(_) | Ok(0) => return,
                Ok(count) => seen.extend_from_slice(&self.buffer[..count]),
            }
            let mut seen = std::mem::take(seen);
            let mut pending = Vec::new();
            let (taken, count) = feed::take(&seen, |target, message| match target.parse::<usize>() {
                Ok(number) => self.publish_to(number, message),
                Err(_) => {
                    self.position += 1;
                    pending.push(frame(self.position, message));
                }
            });
            seen.drain(..taken);
            self.publish_to_all(pending);
            let (stream, kept) = &mut self.publishers[publisher];
            *kept = seen;
            let _ = stream.write(&feed::ANSWER.repeat(count));
        }
    }

    fn publish_to(&mut self, number: usize, message: &str) {
        let connection = self.opened.get(number).and_then(|&opened| self.connections[opened].as_mut());
        if let Some(connection) = connection {
            connection.position += 1;
            let frame = frame(connection.position, message);
            connection.write(&[IoSlice::new(&frame)]);
        }
    }

    fn publish_to_all(&mut self, pending: Vec<Frame>) {
        let slices: Vec<_> = pending.iter().map(|frame| IoSlice::new(frame)).collect();
        // All that is pending at once, or one after the other to everybody.
        for slices in slices.chunks(if self.coalesce { 64 } else { 1 }) {
            for &number in &self.opened {
                if let Some(connection) = &mut self.connections[number] {
                    connection.write(slices);
                }
            }
        }
        self.retained.extend(pending);
        self.retained.drain(..self.retained.len().saturating_sub(RETAINED));
    }
}

impl Connection {
    /// Writes at once; what the socket does not take waits until it does. Errors show when reading.
    fn write(&mut self, slices: &[IoSlice<'_>]) {
        let mut written = 0;
        if self.unwritten.is_empty() {
            let result = match slices {
                [one] => self.stream.write(one),
                many => self.stream.write_vectored(many),
            };
            written = match result {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(_) => return,
            };
        }
        for slice in slices {
            let skipped = written.min(slice.len());
            written -= skipped;
            self.unwritten.extend_from_slice(&slice[skipped..]);
        }
    }
}

/// The retained frames behind the `Last-Event-ID` of `request`.
fn missed(retained: &VecDeque<Frame>, position: u64, request: &[u8]) -> Vec<Frame> {
    let text = String::from_utf8_lossy(request);
    let last = text.lines().find_map(|line| wire::position(line.strip_prefix("Last-Event-ID: ")?));
    let count = last.map_or(0, |last| position.saturating_sub(last) as usize).min(retained.len());
    retained.range(retained.len() - count..).cloned().collect()
}

/// An event as one chunk of the body.
fn frame(position: u64, message: &str) -> Frame {
    let mut frame = format!("{:x}\r\n", wire::event_length(message)).into_bytes();
    frame.reserve_exact(wire::event_length(message) + 2);
    wire::write_event(&mut frame, position, message);
    frame.extend_from_slice(b"\r\n");
    frame.into()
}
