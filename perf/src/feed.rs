//! The publish API as every server under test but the binary `ringmain` serves it: the least HTTP that works, so
//! that what is measured is the delivery and not the way in.
//!
//! `POST /publish?session=TARGET` with a `Content-Length`; requests may be sent without waiting for answers.

use std::io;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The answer to every publication.
pub const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Hands target and message of each whole request in `bytes` to `publish`. Returns the number of bytes and of
/// requests that were taken.
pub fn take(bytes: &[u8], mut publish: impl FnMut(&str, &str)) -> (usize, usize) {
    let (mut taken, mut count) = (0, 0);
    while let Some((length, target, message)) = request(&bytes[taken..]) {
        publish(target, message);
        taken += length;
        count += 1;
    }
    (taken, count)
}

/// Length, target and body of the request that `bytes` begins with, if it is there as a whole.
fn request(bytes: &[u8]) -> Option<(usize, &str, &str)> {
    let head_length = memmem::find(bytes, b"\r\n\r\n")? + 4;
    let head = str::from_utf8(&bytes[..head_length]).ok()?;
    let (line, fields) = head.split_once("\r\n")?;
    let target = line.split_once("?session=")?.1.split(' ').next()?;
    let length: usize = fields.split_once("Content-Length: ")?.1.split('\r').next()?.parse().ok()?;
    let body = bytes.get(head_length..head_length + length)?;
    Some((head_length + length, target, str::from_utf8(body).ok()?))
}

/// Serves publishers on `listener` for ever.
pub async fn serve(listener: TcpListener, publish: impl Fn(&str, &str) + Clone + Send + 'static) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        tokio::spawn(take_all(stream, publish.clone()));
    }
}

async fn take_all(mut stream: TcpStream, publish: impl Fn(&str, &str)) -> io::Result<()> {
    let mut seen = Vec::with_capacity(64 << 10);
    while stream.read_buf(&mut seen).await? > 0 {
        let (taken, count) = take(&seen, &publish);
        seen.drain(..taken);
        stream.write_all(&ANSWER.repeat(count)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_requests_are_taken_and_the_rest_stays() {
        let one = "POST /publish?session=all HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}";
        let bytes = format!("{one}{one}{}", &one[..one.len() - 1]);
        let mut seen = Vec::new();
        let taken =
            take(bytes.as_bytes(), |target, message| seen.push((target.to_owned(), message.to_owned())));
        assert_eq!(taken, (2 * one.len(), 2));
        assert_eq!(seen, vec![("all".to_owned(), "{}".to_owned()); 2]);
    }
}
