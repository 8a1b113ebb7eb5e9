//! The binary refuses what is wrong as its documentation says: every verb, every header, body and framing.
//!
//! One table. A row names a kind of refusal, and `docs/operations.md` says its status, its code, its header and its
//! words. Behind each row the connection is closed or takes a good request, and a session that had no part
//! in it goes on. `bad_input.rs` has the same for limits that a test sets.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use ringmain::server::Config;
use serde_json::{Value, json};
use support::raw::{self, PING, Raw, chunked};
use support::{Binary, Broken, Client, POST_HEADERS, Reply, TestServer, Wire, hello, test, until};

/// What the server shall do.
#[derive(Clone)]
enum Expected {
    /// Refuse as this kind, as documented; the body names this ID.
    Refused(&'static str, Value),
    /// Answer with an error of this code, which begins with these words: the server's own, not a refusal.
    Failed(i64, &'static str),
    /// hyper answers before ringmain sees a request: this status, no body, for this reason.
    Hyper(u16, #[expect(dead_code, reason = "for the reader")] &'static str),
    /// Close the connection without an answer, for this reason.
    Closed(#[expect(dead_code, reason = "for the reader")] &'static str),
    /// Answer it, and close the connection behind it, for this reason.
    Last(#[expect(dead_code, reason = "for the reader")] &'static str),
}

use Expected::{Closed, Failed, Hyper, Last};

fn refused(kind: &'static str) -> Expected {
    Expected::Refused(kind, Value::Null)
}

fn refused_with(kind: &'static str, id: impl Into<Value>) -> Expected {
    Expected::Refused(kind, id.into())
}

/// One line of the table of refusals.
struct Documented {
    status: u16,
    code: i64,
    /// The name of the header that comes with it, or nothing.
    header: String,
    message: String,
}

/// The table of refusals in `docs/operations.md`, by kind.
fn documentation() -> BTreeMap<String, Documented> {
    let mut kinds = BTreeMap::new();
    let docs = include_str!("../../docs/operations.md");
    let (_, table) = docs.split_once("<!-- refusals -->").expect("the table begins");
    let (table, _) = table.split_once("<!-- end of refusals -->").expect("the table ends");
    for line in table.lines() {
        let Some(cells) = line.strip_prefix("| `") else { continue };
        let cells: Vec<&str> = cells.split('|').map(str::trim).collect();
        let [kind, status, code, header, _, message, ""] = cells[..] else { continue };
        let (status, code) = (status.parse().expect("a status"), code.parse().expect("a code"));
        let (header, message) = (header.trim_matches('`').to_owned(), message.to_owned());
        let documented = Documented { status, code, header, message };
        kinds.insert(kind.trim_end_matches('`').to_owned(), documented);
    }
    assert!(kinds.len() > 30, "the table of refusals was found");
    kinds
}

impl Documented {
    /// Whether these are its words, whatever stands in the place of `{…}`.
    fn says(&self, message: &str) -> bool {
        match (self.message.split_once('{'), self.message.rsplit_once('}')) {
            (Some((before, _)), Some((_, after))) => message.starts_with(before) && message.ends_with(after),
            _ => self.message == message,
        }
    }
}

/// Kinds that this table does not meet, and why.
const ELSEWHERE: &[(&str, &str)] = &[
    ("address_request_rate", "needs a limit; proxies.rs"),
    ("batch_too_large", "needs a session of 2025-03-26; batches.rs"),
    ("body_timeout", "needs a wait; bad_input.rs"),
    ("caller_session_rate", "needs a limit; limits.rs"),
    ("draining", "needs a drain; statuses_are_distinct"),
    ("empty_batch", "needs a session of 2025-03-26; batches.rs"),
    ("event_too_large", "only for the operator; publishing.rs"),
    ("expired_token", "needs an authenticator; identity.rs"),
    ("identity_unavailable", "needs an authenticator; identity.rs"),
    ("initialize_in_batch", "needs a session of 2025-03-26; batches.rs"),
    ("insufficient_scope", "needs an authenticator; identity.rs"),
    ("internal", "needs a handler that fails; sending.rs"),
    ("invalid_token", "needs an authenticator; identity.rs"),
    ("malformed_credentials", "needs an authenticator; identity.rs"),
    ("missing_token", "needs an authenticator; identity.rs"),
    ("not_initialized", "needs a slow handler; sending.rs"),
    ("not_permitted", "needs an authenticator; identity.rs"),
    ("principal_request_rate", "needs a limit; proxies.rs"),
    ("session_rate", "needs a limit; limits.rs"),
    ("too_many_own_sessions", "needs a limit; limits.rs"),
    ("too_many_requests", "needs a limit; statuses_are_distinct"),
    ("busy", "needs a limit; connection_limits.rs"),
    ("too_many_sessions", "needs a limit; limits.rs"),
    ("unknown_stream", "needs a stream that is gone; resuming.rs"),
];

struct Row {
    name: String,
    bytes: Vec<u8>,
    expected: Expected,
}

/// The rows, as they grow.
struct Table(Vec<Row>);

impl Table {
    fn row(&mut self, name: impl Into<String>, raw: Raw, expected: Expected) {
        self.bytes(name, raw.bytes(), expected);
    }

    fn bytes(&mut self, name: impl Into<String>, bytes: Vec<u8>, expected: Expected) {
        self.0.push(Row { name: name.into(), bytes, expected });
    }
}

/// The verbs of the endpoint, each with a good request.
fn verbs(client: &Client) -> [(&'static str, Raw); 4] {
    let get = raw::get(client);
    [
        ("POST", raw::post(client)),
        ("GET", get.clone()),
        ("DELETE", get.clone().without("Accept").line("DELETE /mcp HTTP/1.1")),
        ("OPTIONS", get.without("Accept").line("OPTIONS /mcp HTTP/1.1")),
    ]
}

fn rows_of_hosts_and_origins(table: &mut Table, client: &Client) {
    for (verb, good) in verbs(client) {
        for host in [
            "",
            "rebound.example",
            "localhost.rebound.example",
            "localhost:0",
            "localhost:080",
            "localhost:65536",
            "user@localhost",
            "localhost/mcp",
            "localhost.",
            "127.1",
            "[::1%25lo]",
            "localhost,localhost",
        ] {
            table.row(format!("{verb} Host {host:?}"), good.clone().with("Host", host), refused("bad_host"));
        }
        table.row(format!("{verb} no Host"), good.clone().without("Host"), refused("missing_host"));
        let latin = good.clone().with("Host", b"localh\xf6st");
        table.row(format!("{verb} Host in Latin-1"), latin, refused("bad_host"));
        let twice = good.clone().and("hOST", "localhost");
        table.row(format!("{verb} Host twice, in another case"), twice, refused("conflicting_headers"));
        for origin in [
            "",
            "null",
            "https://app.example.com",
            "http://localhost.rebound.example",
            "http://localhost:80:80",
            "http://localhost/",
            "http://user@localhost",
            "file://",
            "http://localhost, http://localhost",
        ] {
            let raw = good.clone().and("Origin", origin);
            table.row(format!("{verb} Origin {origin:?}"), raw, refused("bad_origin"));
        }
        let twice = good.clone().and("Origin", "http://localhost").and("oRIGIN", "http://[::1]");
        table.row(format!("{verb} two Origins"), twice, refused("bad_origin"));
        let latin = good.clone().and("Origin", b"http://localh\xf6st");
        table.row(format!("{verb} Origin in Latin-1"), latin, refused("bad_origin"));
    }
}

fn rows_of_sessions(table: &mut Table, client: &Client, stranger: &Client) {
    let unknown = "f".repeat(32);
    for (verb, good) in verbs(client).into_iter().filter(|(verb, _)| *verb != "OPTIONS") {
        let refused = |kind| if verb == "POST" { refused_with(kind, "row") } else { refused(kind) };
        let nobody = good.clone().without("Mcp-Session-Id");
        table.row(format!("{verb} no session"), nobody.clone(), refused("missing_session"));
        let gone = nobody.clone().and("MCP-SESSION-ID", &unknown);
        table.row(format!("{verb} an unknown session"), gone, refused("unknown_session"));
        let (half, upper) = (&client.session[..16], format!("F{}", &client.session[1..]));
        let (more, quoted) = (format!("{}0", client.session), format!("\"{}\"", client.session));
        let list = format!("{}, {}", client.session, client.session);
        let zero = format!("{}\u{7f}", &client.session[1..]);
        for id in
            ["", "0", half, &upper, &more, &quoted, &list, "../../mcp", "null", "%00", &"x".repeat(4000)]
        {
            let raw = nobody.clone().and("Mcp-Session-Id", id);
            table.row(
                format!("{verb} session {:?}", short(id.as_bytes())),
                raw,
                refused("malformed_session_id"),
            );
        }
        let latin = nobody.clone().and("Mcp-Session-Id", b"\xff\xfe");
        table.row(format!("{verb} a session in Latin-1"), latin, refused("malformed_session_id"));
        let delete = nobody.clone().and("Mcp-Session-Id", &zero);
        table.row(
            format!("{verb} DEL in a session"),
            delete,
            Hyper(400, "no control characters in a header"),
        );
        let two = good.clone().and("mcp-session-id", &stranger.session);
        table.row(format!("{verb} two sessions"), two, refused("conflicting_headers"));
        let one_empty = good.clone().and("mcp-session-id", "");
        table.row(format!("{verb} a session and an empty one"), one_empty, refused("conflicting_headers"));

        for version in [
            "",
            "1",
            "2024-11-05",
            "2025-11-24",
            "2025-11-25x",
            "2025-11-25, 2025-11-25",
            "\"2025-11-25\"",
            "2025-6-18",
            "DRAFT",
        ] {
            let raw = good.clone().with("MCP-Protocol-Version", version);
            table.row(format!("{verb} version {version:?}"), raw, refused("unsupported_version"));
        }
        let two = good.clone().and("mcp-protocol-version", "2025-03-26");
        table.row(format!("{verb} two versions"), two, refused("conflicting_headers"));
        let latin = good.clone().with("MCP-Protocol-Version", b"2025\x80");
        table.row(format!("{verb} a version in Latin-1"), latin, refused("invalid_header"));
    }
    let start = raw::post(client).without("Mcp-Session-Id").body(hello("2025-11-25"));
    for id in [&unknown, "mine", ""] {
        let kind = if id.len() == 32 { "session_not_allowed" } else { "malformed_session_id" };
        table.row(
            format!("initialize with session {id:?}"),
            start.clone().and("Mcp-Session-Id", id),
            refused_with(kind, 0),
        );
    }
    let again = start.clone().and("Mcp-Session-Id", &client.session);
    table.row("initialize again", again, refused_with("already_initialized", 0));
    let unspoken = start.clone().with("MCP-Protocol-Version", "2024-10-07");
    table.row("initialize in an unknown version", unspoken, refused_with("unsupported_version", 0));
    for (what, body) in [
        ("a notification", r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#),
        ("a result", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#),
        ("an error", r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#),
    ] {
        let body = raw::post(client).body(body);
        table.row(
            format!("{what} of nobody"),
            body.clone().without("Mcp-Session-Id"),
            refused("missing_session"),
        );
        table.row(
            format!("{what} of a session that is gone"),
            body.with("Mcp-Session-Id", &unknown),
            refused("unknown_session"),
        );
    }
}

fn rows_of_media_types(table: &mut Table, client: &Client) {
    let (post, get) = (raw::post(client), raw::get(client));
    for coding in ["gzip", "br", "identity, gzip"] {
        let coded = post.clone().and("Content-Encoding", coding);
        table.row(format!("a body in {coding}"), coded, refused("unsupported_encoding"));
    }
    for accept in [
        "",
        ",",
        "application/json",
        "text/event-stream",
        "application/*",
        "text/*",
        "*",
        "*/json, */event-stream",
        "application/json;q=0, text/event-stream",
        "application/json, text/event-stream;q=0.000",
        "application/json, text/event-stream;q=-1",
        "application/json, text/event-stream;q=1.001",
        "application/json, text/event-stream;q=0.5000",
        "application/json, text/event-stream;q=x",
        "application/json; text/event-stream",
        "application/json text/event-stream",
        "*/*;q=0, application/json",
        "text/event-stream, application/json-rpc",
        "application/json, \"text/event-stream\"",
    ] {
        let raw = post.clone().with("Accept", accept);
        table.row(format!("POST Accept {accept:?}"), raw, refused("not_acceptable_post"));
    }
    let lists = post.clone().with("aCCept", "application/json").and("ACCEPT", "text/html, */*;q=0");
    table.row("POST Accept in two lines that disagree", lists, refused("not_acceptable_post"));
    table.row("POST no Accept", post.clone().without("Accept"), refused("not_acceptable_post"));
    let latin = post.clone().with("Accept", b"*/*\xa0");
    table.row("POST Accept in Latin-1", latin, refused("invalid_header"));
    for accept in [
        "",
        "application/json",
        "text/plain",
        "application/*",
        "text/event-stream;q=0",
        "text/event-stream;q=0.0, */*",
        "*/*;q=0",
        "text/*;q=0, */*",
        "text/event-stream-x",
        "event-stream",
    ] {
        let raw = get.clone().with("Accept", accept);
        table.row(format!("GET Accept {accept:?}"), raw, refused("not_acceptable_get"));
    }
    table.row("GET no Accept", get.clone().without("Accept"), refused("not_acceptable_get"));
    for kind in [
        "",
        "application",
        "application/",
        "application/*",
        "*/*",
        "application/JSON5",
        "application/problem+json",
        "application/x-www-form-urlencoded",
        "text/plain;charset=UTF-8",
        "multipart/form-data; boundary=application/json",
        "application/json; charset=utf-16",
        "application/json; charset=\"iso-8859-1\"",
        "application/json; charset=utf-8; charset=ascii",
        "application/json, application/json",
        ";application/json",
    ] {
        let raw = post.clone().with("Content-Type", kind);
        table.row(format!("Content-Type {kind:?}"), raw, refused("unsupported_content_type"));
    }
    table.row("no Content-Type", post.clone().without("Content-Type"), refused("unsupported_content_type"));
    let two = post.clone().and("content-TYPE", "application/json; charset=utf-8");
    table.row("two Content-Types", two, refused("conflicting_headers"));
    let latin = post.with("Content-Type", b"application/json; x=\xe9");
    table.row("Content-Type in Latin-1", latin, refused("invalid_header"));
}

fn rows_of_event_ids(table: &mut Table, client: &Client, primed: &str, foreign: &str) {
    let get = raw::get(client);
    let mut row = |id: &[u8], kind| {
        let name = format!("Last-Event-ID {:?}", short(id));
        table.row(name, get.clone().and("Last-Event-ID", id), refused(kind));
    };
    let tag = &primed[..8];
    for id in ["0", "-", "--", "1-2-3", "null", "\"0\"", "9f3c21ab", "{}", "9f3c21ab-0-1", "é"] {
        row(id.as_bytes(), if id == "é" { "invalid_header" } else { "malformed_event_id" });
    }
    for id in [
        format!("{tag}-0-"),
        format!("{tag}-0-000000000000000"),
        format!("{tag}-00-0000000000000000"),
        format!("{tag}-1-000000000000000g"),
        format!("{tag}-1-0000000000000000-"),
        format!("{tag}-1-0000000000000000-01"),
        format!("{tag}-1-0000000000000000-1-1"),
        format!("{tag}-0.1-000000000000.g"),
        format!("{tag}-0.1-000000000000,0"),
        format!("{tag}-0.1-000000000000.00"),
        format!("{tag}-0.1-000000000000.0-01"),
        format!("{tag}-fffffffff-0000000000000000"),
        format!("{primed}, {primed}"),
        format!("0x{primed}"),
        "0".repeat(8000),
    ] {
        row(id.as_bytes(), "malformed_event_id");
    }
    row(format!("{tag}-0-0000000000000000").as_bytes(), "malformed_event_id");
    row(format!("{tag}-0.1-0000000000ff.0").as_bytes(), "future_event_id");
    row(format!("{tag}-0.1-ffffffffffff.0").as_bytes(), "future_event_id");
    row(format!("{tag}-0.1-0:0000000000ff").as_bytes(), "future_event_id");
    row(format!("{tag}-0.ff-000000000000.0").as_bytes(), "future_event_id");
    row(foreign.as_bytes(), "foreign_event_id");
    let two =
        get.clone().and("Last-Event-ID", primed).and("LAST-EVENT-ID", format!("{tag}-0.1-000000000000.0"));
    table.row("two Last-Event-IDs", two, refused("conflicting_headers"));
}

fn rows_of_targets(table: &mut Table, client: &Client) {
    let (post, get) = (raw::post(client), raw::get(client));
    for method in ["PUT", "PATCH", "TRACE", "PROPFIND", "get", "Post", "M-SEARCH", "X!#$%&'*+.^_`|~"] {
        let raw = get.clone().line(format!("{method} /mcp HTTP/1.1"));
        table.row(format!("method {method}"), raw.clone(), refused("method_not_allowed"));
        let bare = raw.without("Mcp-Session-Id").without("Accept");
        table.row(format!("method {method} of nobody"), bare, refused("method_not_allowed"));
    }
    for (verb, good) in verbs(client) {
        for path in
            ["/", "/mcp//", "/mcp/mcp", "/MCP", "/mcp%2f", "/./mcp", "/mcp%00", "/favicon.ico", "/mcp;v=1"]
        {
            let raw = good.clone().line(format!("{verb} {path} HTTP/1.1"));
            table.row(format!("{verb} {path}"), raw, refused("not_found_path"));
        }
        let elsewhere = good.clone().line(format!("{verb} http://rebound.example/mcp HTTP/1.1"));
        table.row(
            format!("{verb} another host in the target"),
            elsewhere.clone(),
            refused("conflicting_headers"),
        );
        let agreed = elsewhere.with("Host", "rebound.example");
        table.row(format!("{verb} another host in both"), agreed, refused("bad_host"));
    }
    for line in [
        "POST /mcp",
        "GET /mcp",
        "POST /mcp HTTP/0.9",
        "POST /mcp HTTP/1.2",
        "POST /mcp HTTP/2",
        "POST  /mcp HTTP/1.1",
    ] {
        table.row(format!("line {line:?}"), post.clone().line(line), Hyper(400, "no line of HTTP/1.1"));
    }
    for line in
        ["POST /m\tcp HTTP/1.1", "P\u{e9}ST /mcp HTTP/1.1", "POST /mcp HTTP/1.1 x", "(POST) /mcp HTTP/1.1"]
    {
        table.row(format!("line {line:?}"), post.clone().line(line), Hyper(400, "no line of HTTP/1.1"));
    }
    let old = post.clone().line("POST /mcp HTTP/1.0").without("Host");
    table.row("HTTP/1.0 without Host", old, refused("missing_host"));
    // Where several things are wrong, the door comes first, then the target, the head, the body, the session.
    let bad = post.clone().without("Content-Type").without("Accept").with("Mcp-Session-Id", "x").body("{");
    let lost = bad.clone().line("PUT /nowhere HTTP/1.1");
    table.row("everything wrong", lost.clone().with("Host", "x").and("Origin", "x"), refused("bad_host"));
    table.row("all but the host wrong", lost.clone().and("Origin", "x"), refused("bad_origin"));
    table.row("target, head, body and session wrong", lost, refused("not_found_path"));
    table.row("head, body and session wrong", bad.clone(), refused("unsupported_content_type"));
    let bad = bad.and("Content-Type", "application/json");
    table.row("Accept, body and session wrong", bad.clone(), refused("not_acceptable_post"));
    table.row("body and session wrong", bad.and("Accept", "*/*"), refused("parse_error"));
}

fn rows_of_bodies(table: &mut Table, client: &Client) {
    let post = raw::post(client);
    let mut row = |body: &[u8], kind| {
        table.row(format!("body {:?}", short(body)), post.clone().body(body), refused(kind));
    };
    for body in ["", " ", "\r\n\t "] {
        row(body.as_bytes(), "empty_body");
    }
    for body in [
        "{",
        "}",
        "tru",
        "{]",
        "{\"a\"}",
        "{a:1}",
        "{\"a\":.5}",
        "{\"a\":1e}",
        "{\"a\":+1}",
        "{\"a\":'b'}",
        "{\"a\":\"\t\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12\"}",
        "{\"a\":1 \"b\":2}",
        "{,}",
        "{}{}",
        "{} null",
        "\u{a0}{}",
        "// no\n{}",
        "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
        "-",
        "\"",
        "{\"a\":Infinity}",
        "%7B%7D",
    ] {
        row(body.as_bytes(), "parse_error");
    }
    for body in [&b"\xff"[..], b"{\"a\":\"\xc3\"}", b"{\"\xf0\x80\x80\x80\":1}", b"{}\xfe", b"\xef\xbb{}"] {
        row(body, "invalid_utf8");
    }
    for body in ["[]", "[1,2]", " \n[{}]", "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]", "["] {
        row(body.as_bytes(), "batch");
    }
    for body in [
        "0",
        "-1.5e-3",
        "\"ping\"",
        "null",
        "false",
        "{}",
        r#"{"id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":2,"id":1,"method":"ping"}"#,
        r#"{"jsonrpc":["2.0"],"id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0"}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","params":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":["ping"]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"\udc00"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":0}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":false}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","error":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
        r#"{"jsonrpc":"2.0","error":{}}"#,
    ] {
        row(body.as_bytes(), "not_json_rpc");
    }
    let huge = "9".repeat(3000);
    let long = format!("\"{}\"", "i".repeat(4097));
    for id in [
        "null",
        "0.5",
        "-1.5",
        "1E-1",
        "true",
        "[]",
        "{\"a\":1}",
        "-9223372036854775809",
        "18446744073709551615",
        "\"\\ud800x\"",
        &huge,
        &long,
    ] {
        let request = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
        row(request.as_bytes(), "invalid_id");
        let response = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":1}}"#);
        row(response.as_bytes(), "invalid_id");
    }
    for body in [
        r#"{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"\u0069d":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{},"params":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":1,"result":2}"#,
        r#"{"a":1,"b":2,"a":1}"#,
        r#"{"":1,"":2}"#,
    ] {
        row(body.as_bytes(), "duplicate_key");
    }
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"\":", "}]")] {
        let depth = 128;
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":{}0{}}}}}"#,
            open.repeat(depth),
            close.repeat(depth)
        );
        row(body.as_bytes(), "too_deep");
        let open = format!(r#"{{"a":{}"#, open.repeat(200_000));
        row(open.as_bytes(), "too_deep");
    }
    let held = r#"{"jsonrpc":"2.0","id":"held","method":"ping"}"#;
    table.row("an id in flight", post.body(held), refused_with("duplicate_request_id", "held"));
}

/// Wrong parameters of the methods that the demonstration server has.
fn rows_of_parameters(table: &mut Table, client: &Client) {
    let start = raw::post(client).without("Mcp-Session-Id");
    let type_of_text = "invalid type: integer `5`, expected a string";
    for (method, params, words) in [
        ("tools/call", "{}", "missing field `name`"),
        ("tools/call", "{\"name\":5}", type_of_text),
        ("tools/list", "{\"cursor\":5}", type_of_text),
        ("prompts/get", "{}", "missing field `name`"),
        ("prompts/list", "{\"cursor\":5}", type_of_text),
        ("resources/read", "{}", "missing field `uri`"),
        ("resources/list", "{\"cursor\":5}", type_of_text),
        ("resources/templates/list", "{\"cursor\":5}", type_of_text),
        ("resources/subscribe", "{}", "missing field `uri`"),
        ("resources/unsubscribe", "{}", "missing field `uri`"),
        ("completion/complete", "{}", "missing field `ref`"),
        ("logging/setLevel", "{}", "missing field `level`"),
        ("initialize", "{}", "missing field `protocolVersion`"),
        (
            "initialize",
            r#"{"protocolVersion":"2025-11-25","capabilities":{},"clientName":{"name":"a","version":"0"}}"#,
            "missing field `clientInfo`",
        ),
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":5,"method":"{method}","params":{params}}}"#);
        let raw = if method == "initialize" { start.clone() } else { raw::post(client) };
        table.row(format!("{method} of {params}"), raw.body(body), Failed(-32602, words));
    }
    let unknown = raw::post(client).body(r#"{"jsonrpc":"2.0","id":5,"method":"no/such"}"#);
    table.row("a method that is unknown", unknown, Failed(-32601, "no/such"));
}

fn rows_of_framing(table: &mut Table, client: &Client) {
    let post = raw::post(client);
    let bare = post.clone().unmeasured().body("");
    for (name, raw) in [
        ("both framings", post.clone().and("Transfer-Encoding", "chunked").body(chunked(PING))),
        (
            "both framings, the length smaller",
            bare.clone().and("Content-Length", "4").and("Transfer-Encoding", "chunked").body(chunked(PING)),
        ),
        (
            "both framings, the coding in capitals",
            bare.clone().and("Transfer-Encoding", "CHUNKED").and("Content-Length", "9").body(chunked(PING)),
        ),
    ] {
        table.row(name, raw, Last("the chunks count, and nothing may follow: RFC 9112, 6.1"));
    }
    for coding in
        ["", "chunked,", "identity", "chunked, chunkedx", "x", "chunked; q=1", "\"chunked\"", "gzip, deflate"]
    {
        let raw = bare.clone().and("Transfer-Encoding", coding).body(chunked(PING));
        // A last comma is an empty member of the list, which counts for nothing.
        if coding != "chunked," {
            table.row(
                format!("Transfer-Encoding {coding:?}"),
                raw,
                Hyper(400, "chunked is not the last coding"),
            );
        }
    }
    for coding in ["gzip, chunked", "chunked, chunked"] {
        let raw = bare.clone().and("Transfer-Encoding", coding).body(chunked(PING));
        let name = format!("Transfer-Encoding {coding:?}");
        table.row(name, raw, refused("unsupported_transfer"));
    }
    let two = bare.clone().and("Transfer-Encoding", "chunked").and("Transfer-Encoding", "identity");
    table.row("two codings", two.body(chunked(PING)), Hyper(400, "chunked is not the last coding"));
    for length in
        ["", " ", "a", "1x", "-0", "+1", "0x10", "1e2", "1 1", "1,1", "1;1", "٣", "18446744073709551616"]
    {
        let raw = bare.clone().and("Content-Length", length);
        table.row(format!("Content-Length {length:?}"), raw, Hyper(400, "that is no length"));
    }
    let lengths = bare.clone().and("Content-Length", "0").and("Content-Length", "44").body(PING);
    table.row("two lengths", lengths, Hyper(400, "lengths that disagree"));
    for declared in ["4194305", "99999999999", "9223372036854775807"] {
        let raw = bare.clone().and("Content-Length", declared);
        table.row(format!("a body of {declared} bytes declared"), raw, refused("body_too_large"));
    }
    let large = chunked(&vec![b' '; (4 << 20) + 1]);
    table.row(
        "a body too large in chunks",
        bare.clone().and("Transfer-Encoding", "chunked").body(large),
        refused("body_too_large"),
    );
    for chunks in [
        "x\r\n",
        "-1\r\n{\r\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "2 \n{}",
        "\r\n2\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        "2\r\n{}\n0\n\n",
        "ffffffffffffffff0\r\n",
        "2\r\n{}\r\n0\r\nX\u{0}: y\r\n\r\n",
        "+2\r\n{}\r\n0\r\n\r\n",
        "2;\u{0}\n",
    ] {
        let raw = bare.clone().and("Transfer-Encoding", "chunked").body(chunks);
        table.row(format!("chunks {chunks:?}"), raw, refused("parse_error"));
    }
    let mut head = |name: &str, bytes: &[u8]| {
        table.bytes(format!("head: {name}"), bytes.to_vec(), Hyper(400, "that is no head"));
    };
    head("nothing but NUL", b"\0\0\0\0\0\0\0\0\r\n\r\n");
    head("a colon", b":\r\n\r\n");
    head("an answer", b"HTTP/1.1 200 OK\r\n\r\n");
    head("the hello of TLS", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n");
    head("SSH", b"SSH-2.0-OpenSSH_9.6\r\n\r\n");
    head("a Redis command", b"*1\r\n$4\r\nPING\r\n");
    head("folded", b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: a,\r\n b\r\n\r\n");
    head("folded at the first header", b"POST /mcp HTTP/1.1\r\n Host: localhost\r\n\r\n");
    head(
        "a space before the colon",
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length : 4\r\n\r\nPOST",
    );
    head("a space in a name", b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX Y: 4\r\n\r\n");
    head("no name", b"POST /mcp HTTP/1.1\r\n: x\r\n\r\n");
    head("no colon", b"POST /mcp HTTP/1.1\r\nHost\r\n\r\n");
    head("CR alone", b"POST /mcp HTTP/1.1\r\nHost: localhost\rTransfer-Encoding: chunked\r\n\r\n");
    head("NUL in a value", b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n");
    head("ESC in a value", b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX: \x1b[2J\r\n\r\n");
    head("a name in UTF-8", "POST /mcp HTTP/1.1\r\nHost: localhost\r\né: x\r\n\r\n".as_bytes());
    let many = (0..89).fold(post.clone(), |raw, index| raw.and(format!("X-{index}"), ""));
    table.row("91 headers and more", many, refused("headers_too_large"));
    table.row("a header of 17 KB", post.clone().and("X", "x".repeat(17_000)), refused("headers_too_large"));
    table.row(
        "a cookie of 17 KB",
        post.clone().and("Cookie", "x".repeat(17_000)),
        refused("headers_too_large"),
    );
    let many = (0..200).fold(post.clone(), |raw, index| raw.and(format!("X-{index}"), ""));
    table.row("200 headers", many, Hyper(431, "it reads 100 of them"));
    table.row(
        "a header of 300 KB",
        post.clone().and("X", "x".repeat(300_000)),
        Hyper(431, "it buffers 64 KiB"),
    );
    let long = post.clone().line(format!("POST /{} HTTP/1.1", "m".repeat(300_000)));
    table.row("a target of 300 KB", long, Hyper(431, "it buffers 64 KiB"));
    // Half a request gets no answer: its client goes away first.
    for (name, end) in [("a head", 40), ("a line", 9), ("a verb", 2)] {
        let half = post.bytes()[..end].to_vec();
        table.bytes(format!("half {name}"), half, Closed("no answer fits half a request"));
    }
}

/// Enough of a value to tell the row by.
fn short(value: &[u8]) -> String {
    String::from_utf8_lossy(value).chars().take(80).collect()
}

/// The response to a request, as JSON or as a stream, and the connection.
async fn response(mut reply: Reply) -> (Value, Wire) {
    if !reply.is_stream() {
        return (reply.json().await, reply.body.into_wire());
    }
    let mut stream = reply.stream().await;
    let message = stream.rest().await.last().expect("a response").message();
    (message, stream.into_wire())
}

/// Sends a row and checks the answer.
async fn check(binary: &Binary, documented: &BTreeMap<String, Documented>, row: Row, good: &Client) {
    let Row { name, bytes, expected } = row;
    let mut wire = Wire::connect(binary.address).await;
    wire.send_while_open(&bytes).await;
    if matches!(expected, Closed(_)) {
        wire.half_close().await;
    }
    let ping = good.post_bytes(&json!({"jsonrpc": "2.0", "id": "behind", "method": "ping"}));
    let mut wire = match (expected, wire.try_reply().await) {
        (Closed(_), Err(Broken)) => return,
        (_, Err(Broken)) => panic!("{name}: closed without an answer"),
        (Closed(_), Ok(reply)) => panic!("{name}: answered with {}", reply.status),
        (Expected::Refused(kind, id), Ok(mut reply)) => {
            let documented = &documented[kind];
            let body = if reply.header("content-type") == Some("application/json") {
                reply.json().await
            } else {
                Value::Null
            };
            assert_eq!(reply.status, documented.status, "{name}: {kind} {body}");
            assert_eq!(reply.header("mcp-session-id"), None, "{name}");
            for header in ["allow", "accept-encoding", "retry-after", "www-authenticate"] {
                assert_eq!(reply.header(header).is_some(), header == documented.header, "{name}: {header}");
            }
            assert_eq!(body["jsonrpc"], "2.0", "{name}: {body}");
            assert_eq!(body["error"]["code"], documented.code, "{name}: {kind} {body}");
            assert!(documented.says(body["error"]["message"].as_str().unwrap()), "{name}: {kind} {body}");
            assert_eq!(body.get("id").unwrap_or(&Value::Null), &id, "{name}: {body}");
            assert!(!body.to_string().contains(&good.session), "{name}: {body}");
            reply.body.into_wire()
        }
        (Failed(code, words), Ok(reply)) => {
            assert_eq!((reply.status, reply.header("mcp-session-id")), (200, None), "{name}");
            let (message, wire) = response(reply).await;
            assert_eq!((&message["id"], &message["error"]["code"]), (&json!(5), &json!(code)), "{name}");
            assert!(message["error"]["message"].as_str().unwrap().starts_with(words), "{name}: {message}");
            wire
        }
        (Hyper(status, _), Ok(mut reply)) => {
            assert_eq!((reply.status, reply.bytes().await), (status, Vec::new()), "{name}");
            reply.body.into_wire()
        }
        (Last(_), Ok(reply)) => {
            let (message, mut wire) = response(reply).await;
            assert_eq!(message["result"], json!({}), "{name}");
            wire.send_while_open(&ping).await;
            wire.closed().await;
            assert_eq!(String::from_utf8_lossy(&wire.received), "", "{name}");
            return;
        }
    };
    // Either the connection is closed, or it takes the next request for what it is.
    wire.send_while_open(&ping).await;
    if let Ok(reply) = wire.try_reply().await {
        assert_eq!(reply.status, 200, "{name}: the request behind it");
        assert_eq!(
            response(reply).await.0,
            json!({"jsonrpc": "2.0", "id": "behind", "result": {}}),
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_binary_refuses_as_documented() {
    test(async {
        let documented = documentation();
        let mut binary = Binary::start(env!("CARGO_BIN_EXE_ringmain"), &["--accept", "strict"]);
        let (client, stranger) = (binary.client().await, binary.client().await);
        let mut listening = client.listen(None).await;
        let mut listening_too = stranger.listen(None).await;
        let (primed, foreign) = (listening.primed().await, listening_too.primed().await);
        // A request that takes its time.
        let slow = json!({"count": 2, "interval_ms": 60_000});
        let mut held = client.call_stream("held", "test_progress_stream", slow).await;
        held.primed().await;

        let mut table = Table(Vec::new());
        rows_of_hosts_and_origins(&mut table, &client);
        rows_of_sessions(&mut table, &client, &stranger);
        rows_of_media_types(&mut table, &client);
        rows_of_event_ids(&mut table, &client, &primed, &foreign);
        rows_of_targets(&mut table, &client);
        rows_of_bodies(&mut table, &client);
        rows_of_parameters(&mut table, &client);
        rows_of_framing(&mut table, &client);
        let count = table.0.len();
        assert!(count >= 200, "{count} rows");

        let (mut met, mut failed) = (BTreeSet::new(), Vec::new());
        for row in table.0 {
            let name = row.name.clone();
            if let Expected::Refused(kind, _) = row.expected {
                met.insert(kind);
            }
            // A row that fails does not hide the others.
            if AssertUnwindSafe(check(&binary, &documented, row, &client)).catch_unwind().await.is_err() {
                failed.push(name.clone());
            }
            stranger.ping("beside").await;
        }
        println!("{count} negative requests");
        assert_eq!(failed, [""; 0], "their failures are told above");
        // Every refusal that is documented is met, here or elsewhere.
        for kind in documented.keys() {
            let elsewhere = ELSEWHERE.iter().any(|(other, _)| other == kind);
            assert!(met.contains(kind.as_str()) || elsewhere, "no row meets {kind}");
        }
        // Whoever had no part in it has lost nothing: the request in flight still is, and streams flow.
        client.notify("notifications/cancelled", json!({"requestId": "held"})).await;
        held.ended().await;
        let changed = stranger.call_stream(1, "test_trigger_tool_change", json!({})).await.rest().await;
        assert!(changed.last().expect("a response").message()["result"].is_object());
        assert!(binary.is_running());
        drop((listening, listening_too));
    })
    .await;
}

/// 404 is gone for good, 503 later, 429 slow down, and the rest of 4xx: the request is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_are_distinct() {
    test(async {
        let mut config = Config::default();
        config.sessions.max_requests = 1;
        config.max_body_bytes = 1000;
        let server = TestServer::start(config);
        let (client, busy) = (server.client().await, server.client().await);
        let mut call = busy.call_stream("busy", "steps", json!({"label": "busy"})).await;
        call.primed().await;
        let mut met = BTreeMap::new();
        let mut meet = |status: u16, error: Value| {
            let error = (error["error"]["code"].clone(), error["error"]["message"].clone());
            assert_eq!(met.insert(status, error), None, "each status once");
        };
        let session = [("Mcp-Session-Id", client.session.as_str())];
        let good = [&POST_HEADERS[..], &session].concat();
        let gone = [&POST_HEADERS[..], &[("Mcp-Session-Id", "0123456789abcdef0123456789abcdef")]].concat();
        let foreign = [&good[..], &[("Origin", "https://app.example.com")]].concat();
        let text = [session[0], POST_HEADERS[0], ("Content-Type", "text/plain")];
        let html = [session[0], POST_HEADERS[1], ("Accept", "text/html")];
        for (status, headers, body) in [
            (400, &good[..], &b"{"[..]),
            (403, &foreign, PING),
            (404, &gone, PING),
            (406, &html, PING),
            (413, &good, &[b' '; 2000]),
            (415, &text, PING),
        ] {
            meet(status, client.send("POST", headers, body).await.error(status).await);
        }
        meet(405, client.send("PUT", &session, b"").await.error(405).await);
        meet(429, busy.request("more", "ping", json!({})).await.error(429).await);
        // A request whose head is there and whose body is not, when the drain begins.
        let whole = support::request("POST", &POST_HEADERS, &hello("2025-11-25"));
        let mut late = Wire::connect(server.address).await;
        late.send(&whole[..whole.len() - 1]).await;
        client.ping("read").await;
        server.handle.drain();
        until("the listener to go", || std::net::TcpStream::connect(server.address).is_err()).await;
        late.send(&whole[whole.len() - 1..]).await;
        meet(503, late.reply().await.error(503).await);
        let code = |status| met[&status].0.as_i64().unwrap();
        assert!(
            met.keys().all(|status| (code(*status) == -32001) == (*status == 404)),
            "only 404 is the end: {met:?}"
        );
        let words: BTreeSet<String> = met.values().map(|(_, message)| message.to_string()).collect();
        assert_eq!(words.len(), met.len(), "each says something of its own");
        server.control.release("busy");
        call.rest().await;
        server.stopped().await;
    })
    .await;
}

/// What a peer of HTTP/2 answers to one request.
#[derive(Debug, PartialEq, Eq)]
enum Http2Answer {
    /// Headers on the request's stream, with this first byte: an index into the table that both sides know.
    Headers(u8),
    /// The stream is reset with this code.
    Reset(u32),
    /// The connection ends with this code.
    GoAway(u32),
}

const PROTOCOL_ERROR: u32 = 1;

/// Sends one request over HTTP/2 with just these headers, and returns the answer.
async fn over_http2(binary: &Binary, headers: &[(&str, &str)], body: Option<&[u8]>) -> Http2Answer {
    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = &(payload.len() as u32).to_be_bytes()[1..];
        [length, &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }
    let mut block = Vec::new();
    for (name, value) in headers {
        // Literal, not indexed, name and value as they are: RFC 7541, 6.2.2.
        for text in [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()] {
            block.extend_from_slice(text);
        }
    }
    let mut wire = Wire::connect(binary.address).await;
    let ends = if body.is_none() { 0x5 } else { 0x4 };
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(0x4, 0, 0, b""));
    bytes.extend(frame(0x1, ends, 1, &block));
    if let Some(body) = body {
        bytes.extend(frame(0x0, 0x1, 1, body));
    }
    wire.send(&bytes).await;
    loop {
        while wire.received.len() < 9 {
            assert!(wire.more().await, "the connection ends without a word");
        }
        let length = wire.received[..3].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        while wire.received.len() < 9 + length {
            assert!(wire.more().await, "the connection ends within a frame");
        }
        let frame: Vec<u8> = wire.received.drain(..9 + length).collect();
        let number = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        match frame[3] {
            0x1 => {
                // The size of the table may be said first.
                let first = frame[9..].iter().find(|byte| **byte & 0xe0 != 0x20);
                return Http2Answer::Headers(*first.expect("a status"));
            }
            0x3 => return Http2Answer::Reset(number(9)),
            0x7 => return Http2Answer::GoAway(number(13)),
            _ => {}
        }
    }
}

/// Requests that HTTP/1.1 has no words for, and those that must mean the same in both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_binary_refuses_malformed_http2() {
    test(async {
        let mut binary = Binary::start(env!("CARGO_BIN_EXE_ringmain"), &[]);
        let client = binary.client().await;
        let mut listening = client.listen(None).await;
        listening.primed().await;
        let good = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/mcp"),
            (":authority", "localhost"),
            ("accept", "application/json, text/event-stream"),
            ("content-type", "application/json"),
            ("mcp-session-id", client.session.as_str()),
        ];
        let without = |wanted: &str| good.into_iter().filter(|(name, _)| *name != wanted).collect::<Vec<_>>();
        let with = |name, value| good.into_iter().chain([(name, value)]).collect::<Vec<_>>();
        let first = |name, value| [(name, value)].into_iter().chain(good).collect::<Vec<_>>();
        // Indexes of the table that both sides know: RFC 7541, appendix A.
        let (ok, bad) = (Http2Answer::Headers(0x80 | 8), Http2Answer::Headers(0x80 | 12));
        let malformed = || Http2Answer::Reset(PROTOCOL_ERROR);
        // What h2 cannot decode ends the connection with it: RFC 9113, 5.4.1.
        let undecodable = || Http2Answer::GoAway(PROTOCOL_ERROR);
        assert_eq!(over_http2(&binary, &good, Some(PING)).await, ok, "the good request");
        for (name, headers, body, expected) in [
            ("no method", without(":method"), Some(PING), malformed()),
            ("no scheme", without(":scheme"), Some(PING), malformed()),
            ("no path", without(":path"), Some(PING), malformed()),
            ("an empty path", [vec![(":path", "")], without(":path")].concat(), Some(PING), malformed()),
            ("two paths", first(":path", "/mcp"), Some(PING), malformed()),
            ("two methods", first(":method", "GET"), Some(PING), malformed()),
            ("a pseudo-header behind headers", with(":authority", "localhost"), Some(PING), malformed()),
            ("an unknown pseudo-header", first(":proxy", "x"), Some(PING), undecodable()),
            ("a pseudo-header of answers", first(":status", "200"), Some(PING), malformed()),
            ("a name in capitals", with("X-Upper", "x"), Some(PING), undecodable()),
            ("a header of the connection", with("connection", "keep-alive"), Some(PING), malformed()),
            ("chunks", with("transfer-encoding", "chunked"), Some(PING), malformed()),
            ("an upgrade", with("upgrade", "h2c"), Some(PING), malformed()),
            ("keep-alive", with("keep-alive", "300"), Some(PING), malformed()),
            ("te", with("te", "gzip"), Some(PING), malformed()),
            ("a line break in a value", with("x", "a\r\nb"), Some(PING), undecodable()),
            ("a length that is too short", with("content-length", "3"), Some(PING), malformed()),
            ("a length that is too long", with("content-length", "300"), Some(PING), malformed()),
            ("a length that is none", with("content-length", "x"), Some(PING), malformed()),
            ("no body", good.to_vec(), None, bad),
        ] {
            let answer = over_http2(&binary, &headers, body).await;
            assert_eq!(answer, expected, "{name}");
            client.ping(name).await;
        }
        assert!(binary.is_running());
    })
    .await;
}
