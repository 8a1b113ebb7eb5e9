//! The envelope of a body, against a second reading that builds a tree.
#![no_main]

use std::collections::HashSet;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ringmain::internals::handler::Incoming;
use ringmain::internals::protocol::{self, Message, Outcome, Refusal, RequestMessage};
use ringmain::protocol::RequestId;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The members of an object in their order, those that stand twice too.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// An ID, as the specification has it; floats are left to whoever compares.
fn id(value: &Value) -> Option<RequestId> {
    match value {
        Value::Number(number) => number.as_i64().map(RequestId::Number),
        Value::String(text) => {
            (text.len() <= RequestId::MAX_BYTES).then(|| RequestId::String(text.as_str().into()))
        }
        _ => None,
    }
}

/// What the kind of a message must be, decided from the tree.
fn kind(members: &Members) -> &'static str {
    let mut keys = HashSet::new();
    if members.0.iter().any(|(key, _)| !keys.insert(key)) {
        return "duplicate_key";
    }
    let member = |wanted: &str| members.0.iter().find(|(key, _)| key == wanted).map(|(_, value)| value);
    if member("jsonrpc") != Some(&Value::from("2.0")) {
        return "not_json_rpc";
    }
    let has_id = match member("id") {
        None => false,
        Some(value) if id(value).is_some() => true,
        Some(_) => return "invalid_id",
    };
    match (member("method"), member("result"), member("error")) {
        (Some(Value::String(_)), None, None) => match member("params") {
            None | Some(Value::Null | Value::Object(_)) if has_id => "request",
            None | Some(Value::Null | Value::Object(_)) => "notification",
            Some(_) => "not_json_rpc",
        },
        (None, Some(_), None) | (None, None, Some(_)) if has_id => "response",
        _ => "not_json_rpc",
    }
}

fn kind_of(parsed: &Result<Message<'_>, Refusal>) -> &'static str {
    match parsed {
        Ok(Message::Request(_)) => "request",
        Ok(Message::Notification { .. }) => "notification",
        Ok(Message::Response { .. }) => "response",
        Err(refusal) => refusal.kind(),
    }
}

/// Checks that a message is one line and that it is read as it was written.
fn check_written(out: &[u8], check: impl FnOnce(&Message<'_>)) {
    assert!(!out.iter().any(|byte| matches!(byte, b'\n' | b'\r')), "one line");
    check(&Message::parse(out).expect("what is written is read"));
}

fn check_request(request: &RequestMessage<'_>, incoming: &Incoming) {
    let Incoming::Request { request: incoming, id, progress_token, wants } = incoming else {
        panic!("a request")
    };
    assert_eq!((&request.id, &*request.method), (id, incoming.method()));
    assert_eq!(request.params.map(RawValue::get), incoming.params_json());
    assert_eq!(request.method == "initialize", wants.is_some());
    assert_eq!(&protocol::progress_token(request.params), progress_token);
    let mut out = Vec::new();
    protocol::write_request(&mut out, &request.id, &request.method, request.params);
    // Escapes that were spelt longer may make a deep body no deeper: it is read.
    check_written(&out, |again| {
        let Message::Request(again) = again else { panic!("a request") };
        assert_eq!((&again.id, &again.method), (&request.id, &request.method));
        let one_line =
            |params: Option<&RawValue>| params.map(|params| params.get().replace(['\n', '\r'], " "));
        assert_eq!(one_line(again.params), one_line(request.params));
    });
    let mut out = Vec::new();
    protocol::write_error(&mut out, Some(&request.id), -32000, &request.method, request.params);
    check_written(&out, |again| {
        assert!(matches!(again, Message::Response { id, outcome: Outcome::Error(_) } if *id == request.id));
    });
}

fuzz_target!(|data: &[u8]| {
    let incoming = Incoming::parse(Bytes::copy_from_slice(data));
    // Whole numbers among the IDs are handed on as integers; what they stand for stays the same.
    let handed_on = match &incoming {
        Ok(Incoming::Request { request, .. }) => request.json().clone(),
        Ok(Incoming::Notification { notification, .. }) => notification.json().clone(),
        Ok(Incoming::Response(response)) => response.json().clone(),
        Err(_) => Bytes::copy_from_slice(data),
    };
    let parsed = Message::parse(&handed_on);
    assert_eq!(kind_of(&parsed), kind_of(&Message::parse(data)));
    assert_eq!(
        parsed.as_ref().ok().and_then(Message::request_id),
        Message::parse(data).ok().as_ref().and_then(Message::request_id)
    );
    match (&parsed, &incoming) {
        (Ok(Message::Request(request)), Ok(incoming)) => check_request(request, incoming),
        (
            Ok(Message::Notification { method, params }),
            Ok(Incoming::Notification { notification, cancels }),
        ) => {
            assert_eq!(method, notification.method());
            assert_eq!(params.map(RawValue::get), notification.params_json());
            assert!(cancels.is_none() || method == "notifications/cancelled");
            let mut out = Vec::new();
            protocol::write_notification(&mut out, method, *params);
            check_written(&out, |again| assert_eq!(again.method(), Some(&**method)));
        }
        (Ok(Message::Response { id, outcome }), Ok(Incoming::Response(response))) => {
            assert_eq!(response.json(), &handed_on);
            if let Outcome::Result(result) = outcome {
                let mut out = Vec::new();
                protocol::write_result(&mut out, id, result);
                check_written(&out, |again| assert!(matches!(again, Message::Response { .. })));
            }
        }
        (Err(refusal), Err(other)) => {
            assert_eq!(refusal, other);
            let body: Value = serde_json::from_slice(&refusal.body(None)).expect("a refusal is JSON");
            assert_eq!(body["error"]["code"], refusal.code());
        }
        other => panic!("{other:?}"),
    }
    let _ = protocol::negotiated_version(data);
    // The second reading is stricter about numbers and surrogates, and as strict about everything else.
    if let Ok(members) = serde_json::from_slice::<Members>(data) {
        let has_float = members.0.iter().any(|(key, value)| key == "id" && value.is_f64());
        assert!(
            has_float || kind_of(&parsed) == kind(&members),
            "{} is {}",
            kind_of(&parsed),
            kind(&members)
        );
    } else if serde_json::from_slice::<Value>(data).is_ok() {
        assert!(matches!(kind_of(&parsed), "batch" | "not_json_rpc"), "{parsed:?}");
    }
    if parsed.is_ok() {
        assert!(serde_json::from_slice::<&RawValue>(data).is_ok(), "what is accepted is JSON");
    }
});
