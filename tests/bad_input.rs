//! What breaks a rule is refused with the right status, code and reason, and hurts nobody else.
//!
//! One table. After each row the same connection takes a good request or is closed (so the server and the client
//! agree where a message ends), and another client's session has lost nothing.

#![cfg(feature = "server")]

mod support;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use ringmain::server::Config;
use serde_json::{Value, json};
use support::raw::{self, PING, Raw, chunked};
use support::{Broken, Client, Http2, POST_HEADERS, TestServer, Wire, hello, number, publish, test, until};

const BODY_LIMIT: usize = 64 << 10;

/// What the server shall do.
enum Expected {
    /// Refuse with this status, JSON-RPC code and part of the message; the answer names this ID.
    Refused(u16, i64, &'static str, Value),
    /// hyper answers before ringmain sees a request: this status, without a body, for this reason.
    Hyper(u16, #[expect(dead_code, reason = "for the reader")] &'static str),
    /// Answer it, and close the connection behind it, for this reason.
    Last(#[expect(dead_code, reason = "for the reader")] &'static str),
    /// Close the connection without an answer, for this reason.
    Closed(#[expect(dead_code, reason = "for the reader")] &'static str),
}

use Expected::{Closed, Hyper, Last};

fn refused(status: u16, code: i64, fragment: &'static str) -> Expected {
    Expected::Refused(status, code, fragment, Value::Null)
}

fn refused_with(id: impl Into<Value>, status: u16, code: i64, fragment: &'static str) -> Expected {
    Expected::Refused(status, code, fragment, id.into())
}

struct Row {
    name: String,
    bytes: Vec<u8>,
    expected: Expected,
    /// Whether the request is whole, so that a good one may follow on the connection.
    is_whole: bool,
}

const PARSE: i64 = -32700;
const INVALID: i64 = -32600;
const BAD: i64 = -32000;
const GONE: i64 = -32001;

fn rows(client: &Client, stranger: &Client) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: &str, raw: Raw, expected| {
        rows.push(Row { name: name.to_owned(), bytes: raw.bytes(), expected, is_whole: true });
    };
    let post = || raw::post(client);
    let get = || raw::get(client);
    let delete = || get().line("DELETE /mcp HTTP/1.1").without("Accept");
    let body = |body: &str| post().body(body);

    // Bodies that are no JSON.
    row("empty body", body(""), refused(400, PARSE, "body is empty"));
    row("no body at all", post().body("").unmeasured(), refused(400, PARSE, "body is empty"));
    row("white space", body(" \r\n\t"), refused(400, PARSE, "body is empty"));
    for text in [
        "{",
        "nul",
        "{}x",
        "{'jsonrpc':'2.0'}",
        "\u{feff}{}",
        "{\"a\":1,}",
        "{\"a\":NaN}",
        "{\"a\":01}",
        "{\"a\":\"\n\"}",
        "{\"a\":1}/**/",
        "<xml/>",
        "jsonrpc=2.0&id=1",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"ping\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\\q\"}",
    ] {
        row(&format!("not JSON: {text:?}"), body(text), refused(400, PARSE, "body is not JSON"));
    }
    for (name, bytes) in [
        ("a lone continuation byte", &b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\x80\"}"[..]),
        ("an overlong NUL", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xc0\x80\"}"),
        ("a surrogate in UTF-8", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xed\xa0\x80\"}"),
        ("a cut sequence", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xe2\x82"),
        ("UTF-16", b"\xff\xfe{\x00}\x00"),
        ("Latin-1", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"caf\xe9\"}"),
    ] {
        row(&format!("not UTF-8: {name}"), post().body(bytes), refused(400, PARSE, "body is not UTF-8"));
    }

    // JSON that is no message.
    for text in ["1", "null", "true", "\"text\"", "-0.5e3"] {
        row(&format!("not an object: {text}"), body(text), refused(400, INVALID, "it is not an object"));
    }
    for text in ["[]", r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, "[[[", " [1]"] {
        row(&format!("batch: {text}"), body(text), refused(400, INVALID, "batches are not supported"));
    }
    for (text, fragment) in [
        ("{}", "jsonrpc is missing"),
        (r#"{"id":1,"method":"ping"}"#, "jsonrpc is missing"),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, "jsonrpc is missing or not"),
        (r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#, "jsonrpc is missing or not"),
        (r#"{"jsonrpc":null,"id":1,"method":"ping"}"#, "jsonrpc is missing or not"),
        (r#"{"JSONRPC":"2.0","id":1,"method":"ping"}"#, "jsonrpc is missing or not"),
        (r#"{"jsonrpc":"2.0","id":1}"#, "no method, no result and no error"),
        (r#"{"jsonrpc":"2.0","id":1,"Method":"ping"}"#, "no method, no result and no error"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, "a method and also a result or an error"),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, "both a result and an error"),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, "method is not a string"),
        (r#"{"jsonrpc":"2.0","id":1,"method":null}"#, "method is not a string"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"\ud800"}"#, "method is not a string"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}"#, "params is not an object"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":"x"}"#, "params is not an object"),
        (r#"{"jsonrpc":"2.0","result":{}}"#, "the response has no id"),
    ] {
        row(&format!("no message: {text}"), body(text), refused(400, INVALID, fragment));
    }
    let long = format!("\"{}\"", "x".repeat(4097));
    for id in [
        "null",
        "1.5",
        "1e-2",
        "1e99",
        "true",
        "{}",
        "[1]",
        "9223372036854775808",
        "-9223372036854775809",
        "\"\\ud800\"",
        &long,
    ] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
        row(
            &format!("id {:.30}", id),
            body(&text),
            refused(400, INVALID, "id must be a 64-bit integer or a string"),
        );
    }
    for text in [
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","\u006dethod":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","x":1,"x":1}"#,
    ] {
        row(&format!("duplicate key: {text}"), body(text), refused(400, INVALID, "has the same key twice"));
    }
    for (name, open, close, depth) in
        [("arrays", "[", "]", 128), ("objects", "{\"a\":", "}", 200), ("many", "[", "]", 30_000)]
    {
        let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":{nested}}}}}"#);
        row(&format!("too deep: {name}"), body(&text), refused(400, INVALID, "nested deeper than 128"));
    }
    let open = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{}"#, "[".repeat(60_000));
    row("too deep and never closed", body(&open), refused(400, INVALID, "nested deeper than 128"));

    // Content-Type and Accept.
    row("no Content-Type", post().without("Content-Type"), refused(415, BAD, "Content-Type must be"));
    for value in [
        "",
        "text/plain",
        "application/jsonx",
        "application/json-rpc",
        "multipart/form-data; boundary=x",
        "application/json; charset=latin1",
        "application/json, text/plain",
        "json",
    ] {
        row(
            &format!("Content-Type {value:?}"),
            post().with("Content-Type", value),
            refused(415, BAD, "Content-Type must be"),
        );
    }
    row(
        "two Content-Types",
        post().and("Content-Type", "text/plain"),
        refused(400, BAD, "content-type is ambiguous"),
    );
    row(
        "Content-Type in Latin-1",
        post().with("Content-Type", b"application/\xe9"),
        refused(400, BAD, "content-type has an invalid value"),
    );
    // What accepts one of the two, or does not say, is served: see `accepting.rs`.
    for value in ["text/html", "*/*;q=0", "application/jsonx", "json", "text/event-streams, image/*"] {
        row(
            &format!("Accept {value:?}"),
            post().with("Accept", value),
            refused(406, BAD, "Accept must list both"),
        );
    }
    row(
        "Accept in Latin-1",
        post().with("Accept", b"*/*, \xe9"),
        refused(400, BAD, "accept has an invalid value"),
    );
    row(
        "GET for JSON",
        get().with("Accept", "application/json"),
        refused(406, BAD, "Accept must list text/event-stream"),
    );

    // Sessions.
    let unknown = "0".repeat(32);
    for (method, good) in [("POST", post()), ("GET", get()), ("DELETE", delete())] {
        let refused = |status, code, fragment| match method {
            "POST" => refused_with("row", status, code, fragment),
            _ => refused(status, code, fragment),
        };
        row(
            &format!("{method} without a session"),
            good.clone().without("Mcp-Session-Id"),
            refused(400, BAD, "Mcp-Session-Id is missing"),
        );
        row(
            &format!("{method} with an unknown session"),
            good.clone().with("Mcp-Session-Id", &unknown),
            refused(404, GONE, "session not found"),
        );
        for id in [
            "",
            "x",
            &client.session[1..],
            &client.session.to_ascii_uppercase(),
            &format!("{}0", client.session),
            "../../../../etc/passwd_________",
        ] {
            // Digits alone have no upper case.
            if id != client.session {
                row(
                    &format!("{method} with session {id:?}"),
                    good.clone().with("Mcp-Session-Id", id),
                    refused(404, GONE, "the session id is malformed"),
                );
            }
        }
        row(
            &format!("{method} with a session in Latin-1"),
            good.clone().with("Mcp-Session-Id", b"\xe9"),
            refused(404, GONE, "the session id is malformed"),
        );
        row(
            &format!("{method} with two sessions"),
            good.clone().and("Mcp-Session-Id", &stranger.session),
            refused(400, BAD, "mcp-session-id is ambiguous"),
        );
        for version in
            ["2024-11-05", "2025-11-26", "2099-01-01", "", "latest", "2025-11-25.", "2025-11-25, 2025-06-18"]
        {
            row(
                &format!("{method} in version {version:?}"),
                good.clone().with("MCP-Protocol-Version", version),
                refused(400, BAD, "unsupported MCP-Protocol-Version"),
            );
        }
        row(
            &format!("{method} in two versions"),
            good.clone().and("MCP-Protocol-Version", "2025-06-18"),
            refused(400, BAD, "mcp-protocol-version is ambiguous"),
        );
        row(
            &format!("{method} in a version in Latin-1"),
            good.clone().with("MCP-Protocol-Version", b"2025-11-2\xe9"),
            refused(400, BAD, "mcp-protocol-version has an invalid value"),
        );
    }
    let notification = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let response = br#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    row(
        "request before initialize",
        post().without("Mcp-Session-Id"),
        refused_with("row", 400, BAD, "Mcp-Session-Id is missing"),
    );
    row(
        "notification before initialize",
        post().without("Mcp-Session-Id").body(notification),
        refused(400, BAD, "Mcp-Session-Id is missing"),
    );
    row(
        "response before initialize",
        post().without("Mcp-Session-Id").body(response),
        refused(400, BAD, "Mcp-Session-Id is missing"),
    );
    row(
        "notification to nobody",
        post().with("Mcp-Session-Id", &unknown).body(notification),
        refused(404, GONE, "session not found"),
    );
    row(
        "initialize twice",
        post().body(hello("2025-11-25")),
        refused_with(0, 400, INVALID, "session is already initialized"),
    );
    row(
        "initialize with an ID of one's own",
        post().with("Mcp-Session-Id", &unknown).body(hello("2025-11-25")),
        refused_with(0, 404, GONE, "the server chooses the session id"),
    );
    row(
        "initialize in an unknown version",
        post().without("Mcp-Session-Id").with("MCP-Protocol-Version", "1.0").body(hello("2025-11-25")),
        refused_with(0, 400, BAD, "unsupported MCP-Protocol-Version"),
    );
    row(
        "initialize as a notification",
        post().without("Mcp-Session-Id").body(r#"{"jsonrpc":"2.0","method":"initialize"}"#),
        refused(400, BAD, "Mcp-Session-Id is missing"),
    );

    // Event IDs. Those of other sessions, and of the future, are in `resuming.rs`.
    for id in [
        "x",
        "-",
        "0",
        "00000000-0-0000000000000000-",
        "00000000-0-00000000000000000",
        "00000000-0-000000000000000G",
    ] {
        row(
            &format!("Last-Event-ID {id:?}"),
            get().and("Last-Event-ID", id),
            refused(400, BAD, "Last-Event-ID is malformed"),
        );
    }
    row(
        "Last-Event-ID in Latin-1",
        get().and("Last-Event-ID", b"\xe9"),
        refused(400, BAD, "last-event-id has an invalid value"),
    );
    row(
        "two Last-Event-IDs",
        get().and("Last-Event-ID", "a").and("Last-Event-ID", "b"),
        refused(400, BAD, "last-event-id is ambiguous"),
    );

    // Host and Origin.
    row("no Host", post().without("Host"), refused(400, BAD, "Host is missing"));
    for host in [
        "",
        "evil.example",
        "192.0.2.1:80",
        "localhost.evil.example",
        "evil@localhost",
        "localhost:",
        "localhost:99999",
        "localhost, evil.example",
        "[::1",
        "2130706433",
        "0x7f.1",
        "http://localhost",
    ] {
        row(&format!("Host {host:?}"), post().with("Host", host), refused(403, BAD, "Host is not allowed"));
    }
    row("Host in Latin-1", post().with("Host", b"localh\xf6st"), refused(403, BAD, "Host is not allowed"));
    row("two Hosts", post().and("Host", "evil.example"), refused(400, BAD, "host is ambiguous"));
    row("the same Host twice", post().and("Host", "localhost"), refused(400, BAD, "host is ambiguous"));
    for origin in [
        "https://evil.example",
        "null",
        "",
        "localhost",
        "http://localhost.evil.example",
        "http://localhost@evil.example",
        "http://localhost/",
        "file://",
        "http://localhost https://evil.example",
    ] {
        row(
            &format!("Origin {origin:?}"),
            post().and("Origin", origin),
            refused(403, BAD, "Origin is not allowed"),
        );
    }
    row(
        "Origin in Latin-1",
        post().and("Origin", b"http://localh\xf6st"),
        refused(403, BAD, "Origin is not allowed"),
    );
    row(
        "two Origins",
        post().and("Origin", "http://localhost").and("Origin", "http://evil.example"),
        refused(403, BAD, "Origin is not allowed"),
    );
    row(
        "GET from another origin",
        get().and("Origin", "https://evil.example"),
        refused(403, BAD, "Origin is not allowed"),
    );
    row(
        "DELETE from another origin",
        delete().and("Origin", "https://evil.example"),
        refused(403, BAD, "Origin is not allowed"),
    );
    row(
        "a question of another origin",
        get().line("OPTIONS /mcp HTTP/1.1").and("Origin", "https://evil.example"),
        refused(403, BAD, "Origin is not allowed"),
    );

    // Methods, paths and forms of the target.
    for method in ["PUT", "PATCH", "TRACE", "QUERY", "post"] {
        row(method, get().line(format!("{method} /mcp HTTP/1.1")), refused(405, BAD, "method not allowed"));
    }
    for path in ["/", "/mcp//", "/mcp/x", "/MCP", "//mcp", "/mcp/..", "/%6dcp", "/mcp;x", "/sse", "*"] {
        row(
            &format!("path {path}"),
            post().line(format!("POST {path} HTTP/1.1")),
            refused(404, BAD, "nothing is served at this path"),
        );
    }
    row(
        "another host in the target",
        post().line("POST http://evil.example/mcp HTTP/1.1"),
        refused(400, BAD, "host is ambiguous"),
    );
    row(
        "another host in the target and in Host",
        post().line("POST http://evil.example/mcp HTTP/1.1").with("Host", "evil.example"),
        refused(403, BAD, "Host is not allowed"),
    );
    row(
        "another port in the target",
        post().line("POST http://localhost:1/mcp HTTP/1.1"),
        refused(400, BAD, "host is ambiguous"),
    );
    row(
        "a user in the target",
        post().line("POST http://u@localhost/mcp HTTP/1.1"),
        refused(403, BAD, "Host is not allowed"),
    );
    row("a relative target", post().line("POST mcp HTTP/1.1"), refused(400, BAD, "host is ambiguous"));
    row(
        "a host as the target",
        post().line("POST localhost HTTP/1.1"),
        refused(404, BAD, "nothing is served at this path"),
    );
    row(
        "CONNECT",
        get().line("CONNECT localhost:80 HTTP/1.1").with("Host", "localhost:80"),
        refused(404, BAD, "nothing is served at this path"),
    );
    row(
        "HTTP/1.0 without Host",
        post().line("POST /mcp HTTP/1.0").without("Host"),
        refused(400, BAD, "Host is missing"),
    );

    // Too much of it.
    let big = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"x":"{}"}}}}"#,
        "x".repeat(BODY_LIMIT)
    );
    row("a body over the limit", body(&big), refused(413, BAD, "body is larger than 65536 bytes"));
    row(
        "a chunked body over the limit",
        post().unmeasured().and("Transfer-Encoding", "chunked").body(chunked(big.as_bytes())),
        refused(413, BAD, "body is larger than 65536 bytes"),
    );
    let huge = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"x":"{}"}}}}"#,
        "x".repeat(BODY_LIMIT * 64)
    );
    row("a body far over the limit", body(&huge), refused(413, BAD, "body is larger than 65536 bytes"));
    row(
        "a chunked body far over the limit",
        post().unmeasured().and("Transfer-Encoding", "chunked").body(chunked(huge.as_bytes())),
        refused(413, BAD, "body is larger than 65536 bytes"),
    );
    let many = (0..88).fold(post(), |raw, index| raw.and(format!("X-{index}"), "x"));
    row("too many headers", many, refused(431, BAD, "request headers are too large"));
    row(
        "a header too large",
        post().and("X", "x".repeat(20_000)),
        refused(431, BAD, "request headers are too large"),
    );
    let many = (0..300).fold(post(), |raw, index| raw.and(format!("X-{index}"), "x"));
    row("far too many headers", many, Hyper(431, "it reads at most 100 of them"));
    row(
        "headers far too large",
        post().and("X", "x".repeat(400_000)),
        Hyper(431, "it buffers 64 KiB of head and what one read adds"),
    );
    row(
        "a target far too long",
        post().line(format!("POST /{} HTTP/1.1", "x".repeat(400_000))),
        Hyper(431, "it buffers 64 KiB of head and what one read adds"),
    );

    // Framing that two programs may read differently: the way to smuggle a request past a proxy.
    row(
        "both framings",
        post().and("Transfer-Encoding", "chunked").body(chunked(PING)),
        Last("the chunks count, and nothing may follow: RFC 9112, 6.1"),
    );
    row(
        "both framings, the other way round",
        post()
            .unmeasured()
            .and("Transfer-Encoding", "chunked")
            .and("Content-Length", "3")
            .body(chunked(PING)),
        Last("the chunks count, and nothing may follow: RFC 9112, 6.1"),
    );
    for coding in ["gzip, chunked", "chunked, chunked", "x, chunked", "gzip;q=1, chunked"] {
        row(
            &format!("Transfer-Encoding {coding}"),
            post().unmeasured().and("Transfer-Encoding", coding).body(chunked(PING)),
            refused(501, BAD, "Transfer-Encoding must be chunked"),
        );
    }
    row(
        "two Transfer-Encodings",
        post()
            .unmeasured()
            .and("Transfer-Encoding", "gzip")
            .and("Transfer-Encoding", "chunked")
            .body(chunked(PING)),
        refused(501, BAD, "Transfer-Encoding must be chunked"),
    );
    for coding in ["gzip", "br", "zstd", "deflate", "x-gzip", "identity, gzip", "GZIP", "\u{e9}"] {
        row(
            &format!("Content-Encoding {coding}"),
            post().and("Content-Encoding", coding).body(b"\x1f\x8b\x08"),
            refused(415, BAD, "Content-Encoding is not supported"),
        );
    }
    row(
        "two Content-Encodings",
        post().and("Content-Encoding", "identity").and("Content-Encoding", "br").body(b"\x1f\x8b\x08"),
        refused(415, BAD, "Content-Encoding is not supported"),
    );
    for coding in ["gzip", "identity", "chunked, gzip", "xchunked", "chunked, identity"] {
        row(
            &format!("Transfer-Encoding {coding}"),
            post().unmeasured().and("Transfer-Encoding", coding).body(chunked(PING)),
            Hyper(400, "chunked is not the last coding"),
        );
    }
    row(
        "Transfer-Encoding in HTTP/1.0",
        post()
            .line("POST /mcp HTTP/1.0")
            .unmeasured()
            .and("Transfer-Encoding", "chunked")
            .body(chunked(PING)),
        Hyper(400, "HTTP/1.0 has no chunks"),
    );
    for length in ["x", "-1", "+44", "0x2c", "4 4", "44, 45", "99999999999999999999"] {
        row(
            &format!("Content-Length {length}"),
            post().unmeasured().and("Content-Length", length),
            Hyper(400, "that is no length"),
        );
    }
    row("two lengths", post().and("Content-Length", "1"), Hyper(400, "lengths that disagree"));

    // Heads that are none.
    for (name, head) in [
        ("a word", &b"GARBAGE\r\n\r\n"[..]),
        ("NUL", b"\0\0\0\0\r\n\r\n"),
        ("the hello of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        ("no target", b"POST HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("a space in the target", b"POST /m cp HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("HTTP/3.0", b"POST /mcp HTTP/3.0\r\nHost: localhost\r\n\r\n"),
        ("HTTP/0.9", b"GET /mcp\r\n\r\n"),
        ("a header without a colon", b"POST /mcp HTTP/1.1\r\nHost localhost\r\n\r\n"),
        ("a header without a name", b"POST /mcp HTTP/1.1\r\n: localhost\r\n\r\n"),
        ("a space before the colon", b"POST /mcp HTTP/1.1\r\nHost : localhost\r\n\r\n"),
        ("a folded header", b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n"),
        ("NUL in a header", b"POST /mcp HTTP/1.1\r\nHost: local\0host\r\n\r\n"),
        ("CR in a header", b"POST /mcp HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n"),
        ("a name in Latin-1", b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nH\xf6st: x\r\n\r\n"),
    ] {
        let row = Row {
            name: format!("head: {name}"),
            bytes: head.to_vec(),
            expected: Hyper(400, "no request"),
            is_whole: true,
        };
        rows.push(row);
    }

    // Requests that stop half-way.
    let mut cut = |name: &str, bytes: Vec<u8>, expected| {
        rows.push(Row { name: name.to_owned(), bytes, expected, is_whole: false });
    };
    let (head, declared) = (post().bytes(), format!("{}", BODY_LIMIT + 1));
    cut(
        "a body that does not come",
        post().unmeasured().and("Content-Length", "100").bytes(),
        refused(408, BAD, "the body did not arrive in time"),
    );
    cut(
        "half a chunk",
        post().unmeasured().and("Transfer-Encoding", "chunked").body("2c\r\n{\"json").bytes(),
        refused(408, BAD, "the body did not arrive in time"),
    );
    cut(
        "a length over the limit",
        post().unmeasured().and("Content-Length", &declared).body("").bytes(),
        refused(413, BAD, "body is larger than 65536 bytes"),
    );
    cut(
        "a chunk size that is none",
        post().unmeasured().and("Transfer-Encoding", "chunked").body("zz\r\n").bytes(),
        refused(400, PARSE, "body is not JSON"),
    );
    cut(
        "a chunk size beyond 64 bits",
        post().unmeasured().and("Transfer-Encoding", "chunked").body("fffffffffffffffff\r\n").bytes(),
        refused(400, PARSE, "body is not JSON"),
    );
    cut(
        "a chunk that is longer than it says",
        post().unmeasured().and("Transfer-Encoding", "chunked").body("2\r\n{}}\r\n0\r\n\r\n").bytes(),
        refused(400, PARSE, "body is not JSON"),
    );
    cut("half a head", head[..60].to_vec(), Closed("no answer fits half a request"));
    cut("one byte", b"P".to_vec(), Closed("no answer fits half a request"));
    cut(
        "half a preface of HTTP/2",
        b"PRI * HTTP/2.0\r\n\r\n".to_vec(),
        Closed("no answer fits half a request"),
    );
    rows
}

async fn check(server: &TestServer, row: Row, good: &Client) {
    let Row { name, bytes, expected, is_whole } = row;
    let mut wire = Wire::connect(server.address).await;
    wire.send_while_open(&bytes).await;
    let reply = wire.try_reply().await;
    let mut wire = match (expected, reply) {
        (Closed(_), Err(Broken)) => return,
        (_, Err(Broken)) => panic!("{name}: closed without an answer"),
        (Closed(_), Ok(reply)) => panic!("{name}: answered with {}", reply.status),
        (Expected::Refused(status, code, fragment, id), Ok(mut reply)) => {
            assert_eq!(reply.status, status, "{name}");
            assert_eq!(reply.header("content-type"), Some("application/json"), "{name}");
            assert_eq!(reply.header("mcp-session-id"), None, "{name}");
            assert_eq!(reply.header("allow").is_some(), status == 405, "{name}");
            let body = reply.json().await;
            assert_eq!(body["jsonrpc"], "2.0", "{name}: {body}");
            assert_eq!(body["error"]["code"], code, "{name}: {body}");
            assert!(body["error"]["message"].as_str().unwrap().contains(fragment), "{name}: {body}");
            assert_eq!(body.get("id").unwrap_or(&Value::Null), &id, "{name}: {body}");
            assert!(!body.to_string().contains(&good.session), "{name}: {body}");
            reply.body.into_wire()
        }
        (Last(_), Ok(mut reply)) => {
            assert_eq!(reply.json().await["result"], json!({}), "{name}");
            let mut wire = reply.body.into_wire();
            wire.send_while_open(&good.post_bytes(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})))
                .await;
            wire.closed().await;
            assert_eq!(String::from_utf8_lossy(&wire.received), "", "{name}");
            return;
        }
        (Hyper(status, _), Ok(mut reply)) => {
            assert_eq!(reply.status, status, "{name}");
            assert_eq!(reply.bytes().await, b"", "{name}");
            reply.body.into_wire()
        }
    };
    if !is_whole {
        return;
    }
    // Either the connection is closed, or it takes the next request for what it is.
    wire.send_while_open(&good.post_bytes(&json!({"jsonrpc": "2.0", "id": "behind", "method": "ping"})))
        .await;
    if let Ok(mut reply) = wire.try_reply().await {
        assert_eq!(reply.status, 200, "{name}: the request behind it");
        assert_eq!(reply.json().await, json!({"jsonrpc": "2.0", "id": "behind", "result": {}}), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_and_hurts_nobody() {
    test(async {
        let mut config = Config::default();
        config.max_body_bytes = BODY_LIMIT;
        config.read_timeout = Duration::from_millis(700);
        let server = TestServer::start(config);
        let (client, other) = (server.client().await, server.client().await);
        let session = server.session(&other);
        let mut listening = other.listen(None).await;
        listening.primed().await;
        let mut call = other.call_stream("long", "steps", json!({"label": "long"})).await;
        call.primed().await;

        let mut failures = Vec::new();
        for (index, row) in rows(&client, &other).into_iter().enumerate() {
            let name = row.name.clone();
            // A row that fails does not hide the others.
            if AssertUnwindSafe(check(&server, row, &client)).catch_unwind().await.is_err() {
                failures.push(name.clone());
            }
            publish(&session, index as u64);
            assert_eq!(number(&listening.message().await.1), index as u64, "behind {name}");
            other.ping(index as u64).await;
            client.ping(index as u64).await;
            assert_eq!(server.sessions.len(), 2, "behind {name}");
        }
        assert_eq!(failures, [""; 0], "their failures are told above");
        server.control.release("long");
        assert_eq!(call.message().await.1["id"], "long");
    })
    .await;
}

/// What the table cannot say in one go of bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_request_is_refused_without_a_body() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let mut wire = Wire::connect(server.address).await;
        wire.send(&raw::get(&client).line("HEAD /mcp HTTP/1.1").and("Connection", "close").bytes()).await;
        wire.closed().await;
        let text = String::from_utf8(wire.received).unwrap();
        assert!(text.starts_with("HTTP/1.1 405 ") && text.ends_with("\r\n\r\n"), "{text}");
        let mut reply = Http2::connect(server.address).await.send("HEAD", &[], b"").await;
        let size: usize = reply.header("content-length").expect("the size of the body").parse().unwrap();
        assert!(size > 0 && text.contains(&format!("content-length: {size}\r\n")), "{text}");
        assert_eq!((reply.status, reply.bytes().await.len()), (405, 0));
    })
    .await;
}

//= https://www.rfc-editor.org/rfc/rfc9110#section-15.5.16
//= type=test
//# If the problem was caused by an unsupported content coding, the Accept-Encoding response header field
//# (Section 12.5.3) ought to be used to indicate which (if any) content codings would have been accepted in the
//# request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_bodies_are_told_what_is_accepted() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let headers = [client.headers(), POST_HEADERS.to_vec()].concat();
        let compressed = [&headers[..], &[("Content-Encoding", "gzip")]].concat();
        let reply = client.send("POST", &compressed, b"\x1f\x8b\x08\0\0\0\0\0").await;
        assert_eq!(reply.header("accept-encoding"), Some("identity"));
        reply.error(415).await;
        let other = [&headers[..], &[("Content-Type", "text/plain")]].concat();
        assert_eq!(client.send("POST", &other, PING).await.header("accept-encoding"), None);
        for plain in ["identity", "Identity", "", "identity, identity"] {
            let plain = [&headers[..], &[("Content-Encoding", plain)]].concat();
            assert_eq!(client.send("POST", &plain, PING).await.status, 200);
        }
    })
    .await;
}

/// The endpoint is served with and without a slash behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slash_behind_the_path_changes_nothing() {
    test(async {
        for (path, also) in [("/mcp", "/mcp/"), ("/a/mcp/", "/a/mcp"), ("/", "/")] {
            let mut config = Config::default();
            config.path = path.to_owned();
            let server = TestServer::start(config);
            for path in [path, also, &format!("{also}?x=/")] {
                let mut wire = Wire::connect(server.address).await;
                let hello = hello("2025-11-25");
                let length = hello.len();
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json, text/event-stream\r\n\
                     Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
                );
                wire.send(&[head.as_bytes(), &hello].concat()).await;
                assert_eq!(wire.reply().await.status, 200, "{path}");
            }
            assert_eq!(server.sessions.len(), 3);
        }
    })
    .await;
}

/// Half-closing, resetting and going silent at every byte of a request leaves nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_cut_off_anywhere_leave_nothing_behind() {
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let session = server.session(&client);
        let hello = support::request("POST", &POST_HEADERS, &hello("2025-11-25"));
        let get = client.get_bytes(None);
        for (whole, step) in [(&hello, 7), (&get, 5)] {
            for end in (1..whole.len()).step_by(step) {
                let mut wire = Wire::connect(server.address).await;
                wire.send(&whole[..end]).await;
                match end % 3 {
                    0 => wire.reset(),
                    1 => wire.half_close().await,
                    _ => drop(wire),
                }
            }
        }
        client.ping(1).await;
        assert_eq!(server.sessions.len(), 1);
        assert_eq!(session.standalone().terms().generation(), 0, "no connection was opened");
        // A client that goes while its answer is under way takes its session with it, or leaves one that it knows.
        let mut wire = Wire::connect(server.address).await;
        wire.send(&hello).await;
        let mut reply = wire.reply().await;
        reply.json().await;
        until("the session to be there", || server.sessions.len() == 2).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_is_refused_alike() {
    test(async {
        let mut config = Config::default();
        config.max_body_bytes = BODY_LIMIT;
        let server = TestServer::start(config);
        let http2 = Http2::connect(server.address).await;
        let client = Client::initialize_over(http2.clone(), "2025-11-25").await;
        let mut listening = client.listen(None).await;
        listening.primed().await;
        let session = [("mcp-session-id", client.session.as_str())];
        let good = [&POST_HEADERS[..], &session].concat();
        let big = vec![b' '; BODY_LIMIT * 16];
        let long = "x".repeat(20_000);
        for (method, headers, body, status, fragment) in [
            ("POST", good.clone(), &b"{"[..], 400, "body is not JSON"),
            ("POST", good.clone(), &b"\xff"[..], 400, "body is not UTF-8"),
            ("POST", good.clone(), &big[..], 413, "body is larger"),
            ("POST", POST_HEADERS.to_vec(), PING, 400, "Mcp-Session-Id is missing"),
            ("POST", session.to_vec(), PING, 415, "Content-Type must be"),
            (
                "POST",
                [&good[..], &[("origin", "https://evil.example")]].concat(),
                PING,
                403,
                "Origin is not allowed",
            ),
            ("POST", [&good[..], &[("host", "evil.example")]].concat(), PING, 400, "host is ambiguous"),
            (
                "POST",
                [&good[..], &[("host", "localhost"), ("host", "localhost")]].concat(),
                PING,
                400,
                "host is ambiguous",
            ),
            (
                "POST",
                [
                    &good[..],
                    &[("mcp-protocol-version", "2025-11-25"), ("mcp-protocol-version", "2025-06-18")],
                ]
                .concat(),
                PING,
                400,
                "mcp-protocol-version is ambiguous",
            ),
            (
                "POST",
                [&good[..], &[("content-type", "text/plain")]].concat(),
                PING,
                400,
                "content-type is ambiguous",
            ),
            (
                "POST",
                [&good[..], &[("content-encoding", "gzip")]].concat(),
                PING,
                415,
                "Content-Encoding is not supported",
            ),
            ("POST", [&good[..], &[("x", long.as_str())]].concat(), PING, 431, "headers are too large"),
            (
                "GET",
                [&session[..], &[("accept", "text/html")]].concat(),
                b"",
                406,
                "Accept must list text/event-stream",
            ),
            (
                "GET",
                [&session[..], &[("accept", "*/*"), ("last-event-id", "x")]].concat(),
                b"",
                400,
                "Last-Event-ID is malformed",
            ),
            ("DELETE", vec![("mcp-session-id", "x")], b"", 404, "the session id is malformed"),
            ("PUT", good.clone(), PING, 405, "method not allowed"),
        ] {
            let error = http2.send(method, &headers, body).await.error(status).await;
            assert!(error["error"]["message"].as_str().unwrap().contains(fragment), "{error}");
            client.ping(1).await;
        }
        publish(&server.session(&client), 1);
        assert_eq!(number(&listening.message().await.1), 1);
    })
    .await;
}
