//! Answers read as they come in, without keeping them.

use std::io;

use memchr::{memchr, memmem};

/// One answer: its head, and where in its body the reader is.
#[derive(Debug, Default)]
pub struct Answer {
    state: State,
    /// The head as far as it came.
    head: Vec<u8>,
    /// The status; 0 before the head is there.
    pub status: u16,
    /// The value of `Mcp-Session-Id`.
    pub session: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Sized {
        left: usize,
    },
    ChunkSize {
        size: usize,
        in_extension: bool,
    },
    Chunk {
        left: usize,
    },
    /// Behind a chunk, or behind the last one.
    LineEnd {
        last: bool,
    },
    UntilClose,
    Complete,
}

const CHUNK_SIZE: State = State::ChunkSize { size: 0, in_extension: false };

impl Answer {
    /// Takes `bytes` up to the end of the answer and hands those of its body to `body`. Returns how many were
    /// taken.
    ///
    /// # Errors
    ///
    /// That is no HTTP.
    pub fn feed(&mut self, bytes: &[u8], mut body: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut taken = 0;
        while taken < bytes.len() && self.state != State::Complete {
            let rest = &bytes[taken..];
            taken += match self.state {
                State::Head => self.feed_head(rest)?,
                State::Sized { left } => {
                    let part = &rest[..left.min(rest.len())];
                    body(part);
                    self.state = sized(left - part.len());
                    part.len()
                }
                State::Chunk { left } => {
                    let part = &rest[..left.min(rest.len())];
                    body(part);
                    let left = left - part.len();
                    self.state =
                        if left > 0 { State::Chunk { left } } else { State::LineEnd { last: false } };
                    part.len()
                }
                State::ChunkSize { size, in_extension } => {
                    self.state = chunk_size(size, in_extension, rest[0])?;
                    1
                }
                State::LineEnd { last } => match memchr(b'\n', rest) {
                    Some(end) => {
                        self.state = if last { State::Complete } else { CHUNK_SIZE };
                        end + 1
                    }
                    None => rest.len(),
                },
                State::UntilClose => {
                    body(rest);
                    rest.len()
                }
                State::Complete => 0,
            };
        }
        Ok(taken)
    }

    /// Whether the head is there.
    #[must_use]
    pub fn has_head(&self) -> bool {
        self.state != State::Head
    }

    /// Whether all of it is there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Makes ready for the next answer on the same connection.
    pub fn reset(&mut self) {
        self.state = State::Head;
        self.head.clear();
        self.status = 0;
        self.session = None;
    }

    fn feed_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        // The end may stand across two reads.
        let from = before.saturating_sub(3);
        let Some(end) = memmem::find(&self.head[from..], b"\r\n\r\n") else { return Ok(bytes.len()) };
        let end = from + end + 4;
        self.head.truncate(end);
        let head = String::from_utf8_lossy(&self.head).into_owned();
        let bad = || io::Error::new(io::ErrorKind::InvalidData, head.clone());
        self.status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(bad)?;
        self.session = field(&head, "mcp-session-id").map(Into::into);
        self.state = if field(&head, "transfer-encoding").is_some() {
            CHUNK_SIZE
        } else if let Some(length) = field(&head, "content-length") {
            sized(length.parse().map_err(|_| bad())?)
        } else if self.status == 204 {
            State::Complete
        } else {
            State::UntilClose
        };
        self.head = Vec::new();
        Ok(end - before)
    }
}

fn sized(left: usize) -> State {
    if left == 0 { State::Complete } else { State::Sized { left } }
}

fn chunk_size(size: usize, in_extension: bool, byte: u8) -> io::Result<State> {
    Ok(match (byte, char::from(byte).to_digit(16)) {
        (b'\n', _) if size == 0 => State::LineEnd { last: true },
        (b'\n', _) => State::Chunk { left: size },
        (b'\r', _) => State::ChunkSize { size, in_extension },
        (_, Some(digit)) if !in_extension => {
            State::ChunkSize { size: size * 16 + digit as usize, in_extension }
        }
        (b';', _) => State::ChunkSize { size, in_extension: true },
        (_, _) if in_extension => State::ChunkSize { size, in_extension },
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the chunks are broken")),
    })
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_however_they_are_cut() {
        let chunked = "HTTP/1.1 200 OK\r\nMcp-Session-Id: s\r\nTransfer-Encoding: chunked\r\n\r\n\
                       5\r\nhello\r\n0a;x=1\r\n, world: 1\r\n0\r\n\r\n";
        let sized = "HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nabc";
        for (text, status, expected) in [(chunked, 200, "hello, world: 1"), (sized, 404, "abc")] {
            for size in 1..text.len() {
                let (mut answer, mut body) = (Answer::default(), Vec::new());
                for part in text.as_bytes().chunks(size) {
                    assert!(!answer.is_complete());
                    assert_eq!(answer.feed(part, |bytes| body.extend_from_slice(bytes)).unwrap(), part.len());
                }
                assert!(answer.is_complete(), "{size}");
                assert_eq!((answer.status, body.as_slice()), (status, expected.as_bytes()), "{size}");
            }
        }
    }

    #[test]
    fn what_follows_an_answer_is_left() {
        let mut answer = Answer::default();
        let one = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(answer.feed(format!("{one}HTTP").as_bytes(), |_| ()).unwrap(), one.len());
        assert!(answer.is_complete());
    }
}
