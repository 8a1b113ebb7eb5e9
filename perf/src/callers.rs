//! Clients that call: some connections that are kept open, one request at a time on each, all on one thread.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream as Blocking};
use std::ops::Range;
use std::time::{Duration, Instant};

use memchr::memmem;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::fleet::Opening;
use crate::http::Answer;
use crate::request;
use crate::socket::{DEADLINE, wait};

/// Connections that are kept open.
pub const CONNECTIONS: usize = 64;

/// What a caller asks for, again and again.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// A call of a tool, at a path.
    Call(&'static str),
    /// A new session. What is counted is sessions, also where it takes two requests to begin one.
    Initialize,
}

/// Clients that call.
#[derive(Debug)]
pub struct Callers {
    poll: Poll,
    events: Events,
    callers: Vec<Caller>,
    address: SocketAddr,
    opening: Opening,
    work: Work,
    buffer: Vec<u8>,
    /// Requests that may still be begun.
    left: usize,
    /// Requests that are being answered.
    in_flight: usize,
    next_id: u64,
    /// The sessions that were begun, in case somebody wants them.
    begun: Vec<Box<str>>,
}

#[derive(Debug)]
struct Caller {
    socket: TcpStream,
    answer: Answer,
    request: Vec<u8>,
    /// Where the request's ID stands.
    id: Option<Range<usize>>,
    /// Whether a body held what it should.
    has_result: bool,
    /// Whether `notifications/initialized` is what is being answered.
    is_finishing: bool,
}

impl Callers {
    /// Connects, and begins a session on each connection if calls need one.
    ///
    /// # Errors
    ///
    /// The server refuses.
    pub fn connect(address: SocketAddr, opening: Opening, work: Work) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut callers = Vec::with_capacity(CONNECTIONS);
        for number in 0..CONNECTIONS {
            let (socket, request, id) = prepare(address, opening, work)?;
            let mut socket = TcpStream::from_std(socket);
            poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
            let answer = Answer::default();
            callers.push(Caller { socket, answer, request, id, has_result: false, is_finishing: false });
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(CONNECTIONS),
            callers,
            address,
            opening,
            work,
            buffer: vec![0; 64 << 10],
            left: 0,
            in_flight: 0,
            next_id: 1_000_000_000,
            begun: Vec::new(),
        })
    }

    /// Makes `count` requests, and returns when all are answered as they should be.
    ///
    /// # Errors
    ///
    /// One is refused, or there is no answer for a minute.
    pub fn run(&mut self, count: usize) -> io::Result<()> {
        self.left = count;
        for number in 0..self.callers.len() {
            self.begin(number)?;
        }
        let mut heard = Instant::now();
        while self.in_flight > 0 {
            wait(&mut self.poll, &mut self.events, Duration::from_secs(1))?;
            let ready: Vec<_> = self.events.iter().map(|event| event.token().0).collect();
            if !ready.is_empty() {
                heard = Instant::now();
            } else if heard.elapsed() > DEADLINE {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "a call is not answered"));
            }
            for number in ready {
                self.serve(number)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, number: usize) -> io::Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        self.in_flight += 1;
        self.next_id += 1;
        let caller = &mut self.callers[number];
        if let Some(id) = caller.id.clone() {
            caller.request[id].copy_from_slice(format!("{:010}", self.next_id).as_bytes());
        }
        // A few hundred bytes into an empty socket: they fit.
        caller.socket.write_all(&caller.request)
    }

    fn serve(&mut self, number: usize) -> io::Result<()> {
        let caller = &mut self.callers[number];
        loop {
            let count = match caller.socket.read(&mut self.buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let Caller { answer, has_result, .. } = caller;
            answer.feed(&self.buffer[..count], |body| {
                *has_result |= memmem::find(body, b"\"result\"").is_some();
            })?;
            if answer.is_complete() {
                break;
            }
        }
        let status = caller.answer.status;
        let is_good = if caller.is_finishing { status == 202 } else { status == 200 && caller.has_result };
        if !is_good {
            return Err(io::Error::other(format!("refused with status {status}")));
        }
        let session = caller.answer.session.take();
        caller.answer.reset();
        caller.has_result = false;
        if matches!((self.work, self.opening), (Work::Initialize, Opening::Handshake)) && !caller.is_finishing
        {
            let session = session.ok_or_else(|| io::Error::other("no session"))?;
            caller.is_finishing = true;
            caller.socket.write_all(request::initialized(self.address, &session).as_bytes())?;
            self.begun.push(session);
            return Ok(());
        }
        caller.is_finishing = false;
        self.begun.extend(session);
        self.in_flight -= 1;
        self.begin(number)
    }
}

/// Begins `count` sessions at `address` and leaves them alone; returns their IDs.
///
/// # Errors
///
/// One of them is refused.
pub fn begin_sessions(address: SocketAddr, opening: Opening, count: usize) -> io::Result<Vec<Box<str>>> {
    let mut callers = Callers::connect(address, opening, Work::Initialize)?;
    callers.run(count)?;
    Ok(callers.begun)
}

/// A connection, the request to make on it, and where its ID stands.
fn prepare(
    address: SocketAddr,
    opening: Opening,
    work: Work,
) -> io::Result<(Blocking, Vec<u8>, Option<Range<usize>>)> {
    let mut socket = Blocking::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    let (request, id) = match work {
        Work::Initialize => (request::initialize(address), None),
        Work::Call(path) => {
            let session = match opening {
                Opening::Get => None,
                _ => Some(begin_session(&mut socket, address, opening)?),
            };
            let (request, id) = request::call(address, path, session.as_deref());
            (request, Some(id))
        }
    };
    socket.set_nonblocking(true)?;
    Ok((socket, request.into_bytes(), id))
}

fn begin_session(socket: &mut Blocking, address: SocketAddr, opening: Opening) -> io::Result<Box<str>> {
    let answer = exchange(socket, &request::initialize(address))?;
    let session = answer.session.ok_or_else(|| io::Error::other("no session"))?;
    if opening == Opening::Handshake {
        exchange(socket, &request::initialized(address, &session))?;
    }
    Ok(session)
}

/// Sends a request and waits for the whole answer.
fn exchange(socket: &mut Blocking, request: &str) -> io::Result<Answer> {
    socket.write_all(request.as_bytes())?;
    let (mut answer, mut buffer) = (Answer::default(), [0; 16 << 10]);
    while !answer.is_complete() {
        match socket.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => answer.feed(&buffer[..count], |_| ())?,
        };
    }
    match answer.status {
        200 | 202 => Ok(answer),
        status => Err(io::Error::other(format!("refused with status {status}"))),
    }
}
