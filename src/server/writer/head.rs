//! Writes the head of an answer that leaves without hyper.

use std::time::SystemTime;

use http::Response;
use httpdate::HttpDate;

/// The bytes of the head of a chunked answer.
pub(in crate::server) fn write_head<B>(answer: &Response<B>, keep_alive: bool) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {}\r\n", answer.status()).into_bytes();
    for (name, value) in answer.headers() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let date = HttpDate::from(SystemTime::now());
    let connection = if keep_alive { "" } else { "connection: close\r\n" };
    out.extend_from_slice(
        format!("{connection}transfer-encoding: chunked\r\ndate: {date}\r\n\r\n").as_bytes(),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_what_clients_read() {
        let answer = Response::builder().header("content-type", "text/event-stream").body(()).unwrap();
        let head = String::from_utf8(write_head(&answer, false)).unwrap();
        let (rest, date) = head.split_once("date: ").unwrap();
        assert_eq!(
            rest,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\ntransfer-encoding: \
             chunked\r\n"
        );
        assert!(date.ends_with(" GMT\r\n\r\n"));
        assert!(!String::from_utf8(write_head(&answer, true)).unwrap().contains("connection"));
    }
}
