//! The table of refusals is sound, and the documentation says the same.

use std::collections::HashSet;
use std::fmt::Write;
use std::{env, fs};

use http::HeaderName;
use http::header::{ACCEPT, RETRY_AFTER};
use serde_json::Value;

use super::super::ProtocolVersion;
use super::super::json::MAX_DEPTH;
use super::table::{Row, rows};
use super::{EnvelopeFault, Refusal, RequestId};

/// A value for a field of a refusal.
pub(super) trait Example {
    fn example() -> Self;
}

impl Example for usize {
    fn example() -> Self {
        987
    }
}

impl Example for u32 {
    fn example() -> Self {
        654
    }
}

impl Example for u64 {
    fn example() -> Self {
        321
    }
}

impl Example for HeaderName {
    fn example() -> Self {
        ACCEPT
    }
}

impl Example for EnvelopeFault {
    fn example() -> Self {
        Self::NotVersion2
    }
}

/// One of each refusal, in the order of the table.
fn all() -> Vec<Refusal> {
    rows().into_iter().map(|row| row.refusal).collect()
}

/// What stands in `docs/operations.md` between the marks of the refusals.
fn documentation() -> String {
    let mut text = String::from("\n\n| kind | HTTP | JSON-RPC | header | what is wrong | message |\n");
    text.push_str("|---|---|---|---|---|---|\n");
    for Row { refusal, cause, message } in rows() {
        let (kind, status, code) = (refusal.kind(), refusal.status().as_u16(), refusal.code());
        let header = match refusal.header_name() {
            Some(name) => format!("`{name}`"),
            None => String::new(),
        };
        writeln!(text, "| `{kind}` | {status} | {code} | {header} | {cause} | {message} |").unwrap();
    }
    text.push_str("\nThe `{reason}` of `not_json_rpc` is one of:\n\n");
    for fault in EnvelopeFault::ALL {
        writeln!(text, "- {fault}").unwrap();
    }
    text.push('\n');
    text
}

#[test]
fn documentation_has_the_same_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let docs = fs::read_to_string(path).expect("the documentation is there");
    let (before, rest) = docs.split_once("<!-- refusals -->").expect("the table begins");
    let (found, after) = rest.split_once("<!-- end of refusals -->").expect("the table ends");
    let wanted = documentation();
    if env::var_os("UPDATE_DOCS").is_some() {
        let docs = [before, "<!-- refusals -->", &wanted, "<!-- end of refusals -->", after].concat();
        fs::write(path, docs).expect("the documentation is written");
        return;
    }
    let odd = |ours: &str, theirs: &str| {
        ours.lines().find(|line| theirs.lines().all(|other| other != *line)).map(str::to_owned)
    };
    assert!(
        found == wanted,
        "docs/operations.md differs from src/protocol/refusal/table.rs; write it with\n\
         UPDATE_DOCS=1 cargo test -p ringmain --lib protocol::refusal\n\
         missing: {:?}\nto be removed: {:?}",
        odd(&wanted, found),
        odd(found, &wanted)
    );
}

#[test]
fn documentation_advises_on_every_status() {
    let docs = include_str!("../../../docs/operations.md");
    for refusal in all() {
        let row = format!("\n| {} | ", refusal.status().as_u16());
        assert!(docs.contains(&row), "docs/operations.md needs a row of what to do after {row}");
    }
}

#[test]
fn kinds_are_distinct_labels() {
    let kinds: HashSet<_> = all().iter().map(Refusal::kind).collect();
    assert_eq!(kinds.len(), all().len());
    for kind in kinds {
        assert!(kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'8'), "{kind}");
    }
}

#[test]
fn statuses_keep_their_meaning() {
    let with = |status: u16| -> Vec<_> {
        all().iter().filter(|refusal| refusal.status() == status).map(Refusal::kind).collect()
    };
    let gone = ["unknown_session", "malformed_session_id", "session_not_allowed", "not_found_path"];
    assert_eq!(with(404), gone);
    assert_eq!(
        with(429),
        [
            "too_many_requests",
            "too_many_own_sessions",
            "principal_request_rate",
            "address_request_rate",
            "session_rate",
            "caller_session_rate"
        ]
    );
    assert_eq!(with(503), ["identity_unavailable", "too_many_sessions", "busy", "draining"]);
    assert_eq!(with(500), ["internal"]);
}

#[test]
fn whoever_shall_come_again_is_told_when() {
    for refusal in all() {
        let later = matches!(refusal.status().as_u16(), 429 | 503);
        assert_eq!(refusal.retry_after().is_some_and(|seconds| seconds > 0), later, "{refusal:?}");
        assert_eq!(refusal.header_name() == Some(RETRY_AFTER), later, "{refusal:?}");
    }
    assert_eq!(Refusal::SessionRate { seconds: 7 }.retry_after(), Some(7));
}

#[test]
fn bodies_are_json_rpc_errors() {
    let id = RequestId::String("a\"\n".into());
    for refusal in all() {
        let body: Value = serde_json::from_slice(&refusal.body(Some(&id))).unwrap();
        assert_eq!(body["jsonrpc"], "2.0");
        assert_eq!(body["id"], "a\"\n");
        assert_eq!(body["error"]["code"], refusal.code());
        assert_eq!(body["error"]["message"], *refusal.message());
        let body: Value = serde_json::from_slice(&refusal.body(None)).unwrap();
        assert!(body.get("id").is_none());
    }
}

#[test]
fn messages_are_phrases_with_their_fields_filled_in() {
    for Row { refusal, cause, message } in rows() {
        let filled =
            message.replace("{name}", "accept").replace("{reason}", EnvelopeFault::example().as_str());
        let filled = filled.replace("{seconds}", "654");
        let limit = if let Refusal::EventTooLarge { .. } = refusal { "321" } else { "987" };
        assert_eq!(refusal.message(), filled.replace("{limit}", limit));
        assert_eq!(refusal.to_string(), refusal.message());
        assert!(!message.is_empty() && !message.ends_with('.'), "{message}");
        assert!(
            cause.ends_with('.') && !cause.contains("]("),
            "the documentation cannot have a link: {cause}"
        );
    }
}

#[test]
fn messages_name_the_real_limits() {
    for version in ProtocolVersion::ALL {
        assert!(Refusal::UnsupportedVersion.message().contains(version.as_str()));
    }
    assert!(Refusal::TooDeep.message().contains(&MAX_DEPTH.to_string()));
    assert!(Refusal::InvalidId.message().contains(&RequestId::MAX_BYTES.to_string()));
}

#[test]
fn only_a_wrong_method_lists_the_right_ones() {
    let allowing: Vec<_> = all().into_iter().filter(|refusal| refusal.allow().is_some()).collect();
    assert_eq!(allowing, [Refusal::MethodNotAllowed]);
}
