//! Messages to JSON text, each on a single line.
//!
//! An event's data ends at the first line break, so no message may contain one. Text taken over from
//! elsewhere (a [`RawValue`]) may: JSON allows line breaks between its tokens, and nowhere else, because
//! inside a string they are escaped. So each becomes a space, and the value stays the same.

use serde_json::value::RawValue;

use super::json::{write_integer, write_string};
use super::request_id::RequestId;

/// Appends a request.
pub fn write_request(out: &mut Vec<u8>, id: &RequestId, method: &str, params: Option<&RawValue>) {
    write_head(out, Some(id));
    write_call(out, method, params);
}

/// Appends a notification.
pub fn write_notification(out: &mut Vec<u8>, method: &str, params: Option<&RawValue>) {
    write_head(out, None);
    write_call(out, method, params);
}

/// Appends the response to a request that succeeded.
pub fn write_result(out: &mut Vec<u8>, id: &RequestId, result: &RawValue) {
    write_head(out, Some(id));
    out.extend_from_slice(b",\"result\":");
    write_single_line(out, result.get());
    out.push(b'}');
}

/// Appends the response to a request that failed; without an id if it could not be read.
pub fn write_error(
    out: &mut Vec<u8>,
    id: Option<&RequestId>,
    code: i32,
    message: &str,
    data: Option<&RawValue>,
) {
    write_head(out, id);
    out.extend_from_slice(b",\"error\":{\"code\":");
    write_integer(out, code.into());
    out.extend_from_slice(b",\"message\":");
    write_string(out, message);
    if let Some(data) = data {
        out.extend_from_slice(b",\"data\":");
        write_single_line(out, data.get());
    }
    out.extend_from_slice(b"}}");
}

/// Appends JSON text with every line break (`\n`, `\r`) turned into a space.
///
/// `raw` is valid JSON, where a line break is always white space between tokens. One copy and one pass
/// without branches, whether or not there is a line break.
pub fn write_single_line(out: &mut Vec<u8>, raw: &str) {
    let start = out.len();
    out.extend_from_slice(raw.as_bytes());
    for byte in &mut out[start..] {
        *byte = if matches!(*byte, b'\n' | b'\r') { b' ' } else { *byte };
    }
}

fn write_head(out: &mut Vec<u8>, id: Option<&RequestId>) {
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\"");
    if let Some(id) = id {
        out.extend_from_slice(b",\"id\":");
        id.write_json(out);
    }
}

fn write_call(out: &mut Vec<u8>, method: &str, params: Option<&RawValue>) {
    out.extend_from_slice(b",\"method\":");
    write_string(out, method);
    if let Some(params) = params {
        out.extend_from_slice(b",\"params\":");
        write_single_line(out, params.get());
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::super::message::{Message, Outcome};
    use super::*;

    /// JSON text with line breaks between its tokens.
    fn loose_object() -> impl Strategy<Value = Box<RawValue>> {
        ("\\PC{0,20}", any::<i32>(), "[ \\n\\r\\t]{0,5}").prop_map(|(text, number, gap)| {
            let text = serde_json::to_string(&text).unwrap();
            let json = format!("{{{gap}{text}{gap}:{gap}[{number},{gap}{text}{gap}]{gap}}}");
            RawValue::from_string(json).unwrap()
        })
    }

    fn any_id() -> impl Strategy<Value = RequestId> {
        prop_oneof![
            any::<i64>().prop_map(RequestId::Number),
            "(?s).{0,30}".prop_map(|text| RequestId::String(text.into())),
        ]
    }

    fn value(raw: &RawValue) -> Value {
        serde_json::from_str(raw.get()).unwrap()
    }

    fn has_line_break(out: &[u8]) -> bool {
        out.iter().any(|byte| matches!(byte, b'\n' | b'\r'))
    }

    #[test]
    fn writes_the_plain_forms() {
        let params = RawValue::from_string("{\n}".to_owned()).unwrap();
        let mut out = Vec::new();
        write_request(&mut out, &7.into(), "ping", None);
        assert_eq!(out, br#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#);
        out.clear();
        write_notification(&mut out, "a/b", Some(&params));
        assert_eq!(out, br#"{"jsonrpc":"2.0","method":"a/b","params":{ }}"#);
        out.clear();
        write_result(&mut out, &RequestId::String("x".into()), &params);
        assert_eq!(out, br#"{"jsonrpc":"2.0","id":"x","result":{ }}"#);
        out.clear();
        write_error(&mut out, None, -32700, "no\nline", Some(&params));
        assert_eq!(out, br#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"no\nline","data":{ }}}"#);
    }

    #[test]
    fn appends_and_leaves_what_was_there() {
        let mut out = b"a\nb".to_vec();
        write_single_line(&mut out, "[1,\r\n2]");
        assert_eq!(out, b"a\nb[1,  2]");
    }

    proptest! {
        #[test]
        fn requests_parse_back(id in any_id(), method in "(?s).{1,30}", params in proptest::option::of(loose_object())) {
            let mut out = Vec::new();
            write_request(&mut out, &id, &method, params.as_deref());
            prop_assert!(!has_line_break(&out));
            let Ok(Message::Request(request)) = Message::parse(&out) else { panic!("not a request") };
            prop_assert_eq!(request.id, id);
            prop_assert_eq!(request.method, method);
            prop_assert_eq!(request.params.map(value), params.as_deref().map(value));
        }

        #[test]
        fn notifications_parse_back(method in "(?s).{1,30}", params in proptest::option::of(loose_object())) {
            let mut out = Vec::new();
            write_notification(&mut out, &method, params.as_deref());
            prop_assert!(!has_line_break(&out));
            let Ok(Message::Notification { method: read, params: read_params }) = Message::parse(&out) else {
                panic!("not a notification")
            };
            prop_assert_eq!(read, method);
            prop_assert_eq!(read_params.map(value), params.as_deref().map(value));
        }

        #[test]
        fn responses_parse_back(id in any_id(), result in loose_object(), code: i32, text in "(?s).{0,30}") {
            let mut out = Vec::new();
            write_result(&mut out, &id, &result);
            prop_assert!(!has_line_break(&out));
            match Message::parse(&out) {
                Ok(Message::Response { id: read, outcome: Outcome::Result(raw) }) => {
                    prop_assert_eq!(&read, &id);
                    prop_assert_eq!(value(raw), value(&result));
                }
                other => panic!("{other:?}"),
            }
            out.clear();
            write_error(&mut out, Some(&id), code, &text, Some(&result));
            prop_assert!(!has_line_break(&out));
            match Message::parse(&out) {
                Ok(Message::Response { id: read, outcome: Outcome::Error(raw) }) => {
                    prop_assert_eq!(&read, &id);
                    let error = value(raw);
                    prop_assert_eq!(&error["code"], code);
                    prop_assert_eq!(&error["message"], &text);
                    prop_assert_eq!(&error["data"], &value(&result));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
