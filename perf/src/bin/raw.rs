//! The yardstick: accepts streams, and writes each event to each with one `write`. No sessions, no replay, no
//! HTTP beyond the first line: what the kernel costs, and nothing else.
//!
//! ```text
//! raw --listen ADDR --admin ADDR [--coalesce]     with --coalesce, what is pending leaves in one write
//! ```

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use ringmain_perf::arguments::Arguments;

type Streams = Arc<Mutex<Vec<TcpStream>>>;

fn main() -> io::Result<()> {
    let arguments = Arguments::read();
    let streams = Streams::default();
    let listener = TcpListener::bind(arguments.listen)?;
    let admin = TcpListener::bind(arguments.admin)?;
    let opened = streams.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Ok(stream) = open(stream) {
                opened.lock().unwrap().push(stream);
            }
        }
    });
    for publisher in admin.incoming().flatten() {
        let streams = streams.clone();
        let coalesce = arguments.coalesce;
        thread::spawn(move || publish(publisher, &streams, coalesce));
    }
    Ok(())
}

fn open(mut stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let (mut seen, mut buffer) = (Vec::new(), [0; 1024]);
    while !seen.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => seen.extend_from_slice(&buffer[..count]),
        }
    }
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Publishes the bodies of the requests that come in on one connection.
fn publish(mut publisher: TcpStream, streams: &Streams, coalesce: bool) -> io::Result<()> {
    let (mut seen, mut buffer, mut position) = (Vec::new(), [0; 64 << 10], 0_u64);
    loop {
        match publisher.read(&mut buffer)? {
            0 => return Ok(()),
            count => seen.extend_from_slice(&buffer[..count]),
        }
        let mut frames = Vec::new();
        while let Some((end, body)) = request(&seen) {
            position += 1;
            let frame = format!("id: 9f3c21ab-0-{position:016x}\nevent: message\ndata: {body}\n\n");
            frames.push(format!("{:x}\r\n{frame}\r\n", frame.len()).into_bytes());
            seen.drain(..end);
        }
        let writes = if coalesce { vec![frames.concat()] } else { frames.clone() };
        for bytes in writes.iter().filter(|bytes| !bytes.is_empty()) {
            for stream in streams.lock().unwrap().iter_mut() {
                // A reader that is behind loses what does not fit: the yardstick keeps nothing.
                let _ = stream.write(bytes);
            }
        }
        publisher.write_all(&b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".repeat(frames.len()))?;
    }
}

/// The end and the body of the first whole request in `seen`.
fn request(seen: &[u8]) -> Option<(usize, String)> {
    let head = seen.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let text = str::from_utf8(&seen[..head]).ok()?;
    let length =
        text.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok())?;
    let body = seen.get(head..head + length)?;
    Some((head + length, String::from_utf8_lossy(body).into_owned()))
}
