//! A connection to the publish API of a server under test.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use memchr::memmem;

use crate::socket::DEADLINE;

/// Publishes over one connection that is kept open.
#[derive(Debug)]
pub struct Publisher {
    stream: TcpStream,
    address: SocketAddr,
    request: String,
    /// Publications that are not answered yet.
    unanswered: usize,
    /// What was read of answers and not counted yet.
    seen: Vec<u8>,
}

impl Publisher {
    /// Connects to `address`.
    ///
    /// # Errors
    ///
    /// The connection is refused.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Self { stream, address, request: String::new(), unanswered: 0, seen: Vec::new() })
    }

    /// Sends `message` to each of `targets`, in one write, and waits for nothing.
    ///
    /// # Errors
    ///
    /// The server is gone.
    pub fn send<'a>(&mut self, targets: impl IntoIterator<Item = &'a str>, message: &str) -> io::Result<()> {
        use std::fmt::Write as _;
        self.request.clear();
        for target in targets {
            let (address, length) = (self.address, message.len());
            let _ = write!(
                self.request,
                "POST /publish?session={target} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{message}"
            );
            self.unanswered += 1;
        }
        self.stream.write_all(self.request.as_bytes())
    }

    /// Waits until everything that was sent is answered.
    ///
    /// # Errors
    ///
    /// The server is gone, or refuses.
    pub fn answers(&mut self) -> io::Result<()> {
        const MARK: &[u8] = b"HTTP/1.1 2";
        let mut buffer = [0; 16 << 10];
        while self.unanswered > 0 {
            let read = self.stream.read(&mut buffer)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.seen.extend_from_slice(&buffer[..read]);
            if memmem::find(&self.seen, b"HTTP/1.1 4").or(memmem::find(&self.seen, b"HTTP/1.1 5")).is_some() {
                return Err(io::Error::other(String::from_utf8_lossy(&self.seen).into_owned()));
            }
            let found = memmem::find_iter(&self.seen, MARK).count();
            self.unanswered = self.unanswered.saturating_sub(found);
            // The beginning of a mark may stand at the end.
            let rest = memmem::rfind(&self.seen, MARK).map_or(0, |at| at + MARK.len());
            let rest = rest.max(self.seen.len().saturating_sub(MARK.len() - 1));
            self.seen.drain(..rest);
        }
        Ok(())
    }
}
