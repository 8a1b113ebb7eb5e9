//! Many event streams held by one thread: one buffer for all, and for each what it takes to see gaps and doubles.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::http::Answer;
use crate::request;
use crate::socket::{DEADLINE, connect, wait};
use crate::sse::{Reader, Tally};

/// How a server wants its streams opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// GET, and that is all.
    Get,
    /// `initialize` by POST, then GET with the session's ID.
    Session,
    /// The same with `notifications/initialized` between them, for servers that wait for it.
    Handshake,
}

/// Streams that are being opened at the same time.
const AT_ONCE: usize = 64;

/// Many streams.
#[derive(Debug)]
pub struct Fleet {
    poll: Poll,
    events: Events,
    address: SocketAddr,
    opening: Opening,
    lines: Vec<Line>,
    /// How many lines are where they should be.
    settled: usize,
    buffer: Vec<u8>,
    /// What arrived.
    pub tally: Tally,
    failure: Option<io::Error>,
}

/// One connection, and the stream that it carries.
#[derive(Debug)]
struct Line {
    socket: Option<TcpStream>,
    step: Step,
    /// What is not written yet of the request.
    unwritten: Vec<u8>,
    answer: Answer,
    session: Option<Box<str>>,
    reader: Reader,
}

/// Which answer a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Initialize,
    Initialized,
    Get,
    /// The head of the stream is there.
    Open,
}

impl Fleet {
    /// Makes a fleet without streams that goes to `address`.
    ///
    /// # Errors
    ///
    /// There are no more descriptors.
    pub fn new(address: SocketAddr, opening: Opening) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            address,
            opening,
            lines: Vec::new(),
            settled: 0,
            buffer: vec![0; 256 << 10],
            tally: Tally::default(),
            failure: None,
        })
    }

    /// Opens `count` streams, some at a time.
    ///
    /// # Errors
    ///
    /// A connection is refused or not answered with a stream.
    pub fn open(&mut self, count: usize) -> io::Result<()> {
        let all = self.lines.len() + count;
        while self.settled < all {
            while self.lines.len() < all && self.lines.len() - self.settled < AT_ONCE {
                self.launch()?;
            }
            let settled = self.settled;
            self.drive(DEADLINE, |fleet| fleet.settled > settled)?;
        }
        Ok(())
    }

    fn launch(&mut self) -> io::Result<()> {
        let number = self.lines.len();
        let (step, request) = match self.opening {
            Opening::Get => (Step::Get, request::get(self.address, &number.to_string(), None, None)),
            _ => (Step::Initialize, request::initialize(self.address)),
        };
        let mut line = Line {
            socket: None,
            step,
            unwritten: Vec::new(),
            answer: Answer::default(),
            session: None,
            reader: Reader::default(),
        };
        line.call(&self.poll, self.address, number, request)?;
        self.lines.push(line);
        Ok(())
    }

    /// Cuts all connections at once.
    pub fn cut(&mut self) {
        for line in &mut self.lines {
            line.socket = None;
            line.reader.reconnect();
        }
        self.settled = 0;
    }

    /// Connects all streams again, all at once, each behind the latest event it saw.
    ///
    /// # Errors
    ///
    /// There are no more descriptors or ports.
    pub fn resume(&mut self) -> io::Result<()> {
        for (number, line) in self.lines.iter_mut().enumerate() {
            line.step = Step::Get;
            line.answer = Answer::default();
            let last_id = (!line.reader.last_id.is_empty()).then_some(&*line.reader.last_id);
            let request = request::get(self.address, &number.to_string(), line.session.as_deref(), last_id);
            line.call(&self.poll, self.address, number, request)?;
        }
        Ok(())
    }

    /// Who can be published to: the session of each stream, or its number.
    #[must_use]
    pub fn targets(&self) -> Vec<String> {
        let target = |(number, line): (usize, &Line)| {
            line.session.as_deref().map_or_else(|| number.to_string(), ToOwned::to_owned)
        };
        self.lines.iter().enumerate().map(target).collect()
    }

    /// How many streams are open.
    #[must_use]
    pub fn opened(&self) -> usize {
        self.settled
    }

    /// Reads until `events` arrived over all streams.
    ///
    /// # Errors
    ///
    /// They did not within a minute, or a stream broke.
    pub fn until(&mut self, events: u64) -> io::Result<()> {
        self.drive(DEADLINE, |fleet| fleet.tally.events >= events)
    }

    /// Reads until `done` says so.
    ///
    /// # Errors
    ///
    /// It did not within `patience`, or a stream broke.
    pub fn drive(&mut self, patience: Duration, done: impl Fn(&Self) -> bool) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        while !done(self) {
            if Instant::now() > deadline {
                let Tally { events, missing, doubled, .. } = self.tally;
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!(
                        "{events} events arrived ({missing} missing, {doubled} doubled), {} streams open",
                        self.settled
                    ),
                ));
            }
            self.turn(Duration::from_millis(200))?;
        }
        Ok(())
    }

    /// Reads what is there, or waits for something.
    ///
    /// # Errors
    ///
    /// A stream broke.
    pub fn turn(&mut self, patience: Duration) -> io::Result<()> {
        wait(&mut self.poll, &mut self.events, patience)?;
        let ready: Vec<_> = self.events.iter().map(|event| (event.token(), event.is_writable())).collect();
        for (Token(number), is_writable) in ready {
            if let Err(error) = self.serve(number, is_writable) {
                self.failure.get_or_insert(error);
            }
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    fn serve(&mut self, number: usize, is_writable: bool) -> io::Result<()> {
        let line = &mut self.lines[number];
        if is_writable {
            line.write()?;
        }
        loop {
            let Some(socket) = &mut line.socket else { return Ok(()) };
            let count = match socket.read(&mut self.buffer) {
                Ok(0) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{:?}", line.step)));
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.tally.reads += 1;
            let Line { answer, reader, step, .. } = line;
            let is_stream = matches!(step, Step::Get | Step::Open);
            answer.feed(&self.buffer[..count], |body| {
                if is_stream {
                    reader.feed(body, &mut self.tally);
                }
            })?;
            if line.step == Step::Open && line.answer.is_complete() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a stream came to its end"));
            }
            if line.advance(self.opening, self.address, number)? {
                self.settled += 1;
            }
            // Edge-triggered, but a short read says that nothing is left.
            if count < self.buffer.len() && line.unwritten.is_empty() {
                return Ok(());
            }
        }
    }
}

impl Line {
    /// Connects and sends `request`.
    fn call(&mut self, poll: &Poll, address: SocketAddr, number: usize, request: String) -> io::Result<()> {
        let mut socket = connect(address, number)?;
        poll.registry().register(&mut socket, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        self.socket = Some(socket);
        self.unwritten = request.into_bytes();
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        while !self.unwritten.is_empty() {
            match socket.write(&self.unwritten) {
                Ok(count) => drop(self.unwritten.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.unwritten = Vec::new();
        Ok(())
    }

    /// Goes one step on if the answer to the one before is there. True if that was the last.
    fn advance(&mut self, opening: Opening, address: SocketAddr, number: usize) -> io::Result<bool> {
        let refused = |answer: &Answer| io::Error::other(format!("refused with status {}", answer.status));
        match self.step {
            Step::Open => return Ok(false),
            Step::Get => {
                if self.answer.has_head() {
                    if self.answer.status != 200 {
                        return Err(refused(&self.answer));
                    }
                    self.step = Step::Open;
                    return Ok(true);
                }
                return Ok(false);
            }
            Step::Initialize | Step::Initialized if !self.answer.is_complete() => return Ok(false),
            Step::Initialize | Step::Initialized => {}
        }
        if !matches!(self.answer.status, 200 | 202) {
            return Err(refused(&self.answer));
        }
        if self.step == Step::Initialize {
            self.session = self.answer.session.take();
        }
        let session = self.session.as_deref().ok_or_else(|| io::Error::other("no session"))?;
        let request = if self.step == Step::Initialize && opening == Opening::Handshake {
            self.step = Step::Initialized;
            request::initialized(address, session)
        } else {
            self.step = Step::Get;
            request::get(address, &number.to_string(), Some(session), None)
        };
        self.answer.reset();
        self.unwritten = request.into_bytes();
        self.write()?;
        Ok(false)
    }
}
