//! The JSON-RPC envelope of a body: what kind of message, its id, its method, and the rest untouched.
//!
//! The server calls [`Message::parse`] once per POST. Params, result and error stay the bytes they came as
//! ([`RawValue`]); no tree is built, and what is passed on is passed on as it was written. They are
//! well-formed JSON, but nothing is promised about their fields. The helpers at the end read single fields of
//! them.
//!
//! # Algorithm
//!
//! 1. Check UTF-8, then depth: two passes over the bytes that keep every later step linear and flat.
//! 2. Look at the first byte: only an object goes on.
//! 3. Read the top level once, keep each known value as raw text and count keys that stand twice.
//! 4. Decide by the keys that are there which of the three kinds of message it is.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::json::{MAX_DEPTH, decode_string, field, is_deeper_than, is_plain_integer, whole_number};
use super::refusal::{EnvelopeFault, Refusal};
use super::request_id::RequestId;
use super::version::ProtocolVersion;

/// One JSON-RPC message, borrowed from the body it was read from.
#[derive(Debug, Clone)]
pub enum Message<'a> {
    /// Expects a response with the same id.
    Request(RequestMessage<'a>),
    /// Expects nothing.
    Notification {
        /// What happened.
        method: Cow<'a, str>,
        /// An object, if there is one; `null` counts as absent.
        params: Option<&'a RawValue>,
    },
    /// Answers a request that this side has sent.
    Response {
        /// The id of that request.
        id: RequestId,
        /// Its result or its error.
        outcome: Outcome<'a>,
    },
}

/// A message that expects a response.
#[derive(Debug, Clone)]
pub struct RequestMessage<'a> {
    /// Chosen by the sender, unique among its requests in flight.
    pub id: RequestId,
    /// What is asked for.
    pub method: Cow<'a, str>,
    /// An object, if there is one; `null` counts as absent.
    pub params: Option<&'a RawValue>,
}

/// What became of a request. Any JSON value; its form is the requester's to check.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// The value of `result`.
    Result(&'a RawValue),
    /// The value of `error`.
    Error(&'a RawValue),
}

impl<'a> Message<'a> {
    /// Reads the one message of a body. Takes time linear in its length and memory for the id alone.
    ///
    /// # Errors
    ///
    /// The refusal to answer with: [`InvalidUtf8`](Refusal::InvalidUtf8), [`EmptyBody`](Refusal::EmptyBody),
    /// [`ParseError`](Refusal::ParseError), [`Batch`](Refusal::Batch), [`TooDeep`](Refusal::TooDeep),
    /// [`DuplicateKey`](Refusal::DuplicateKey), [`InvalidId`](Refusal::InvalidId) or
    /// [`NotJsonRpc`](Refusal::NotJsonRpc).
    pub fn parse(body: &'a [u8]) -> Result<Self, Refusal> {
        Ok(Self::parse_with_id(body)?.0)
    }

    /// Reads the one message of a body like [`parse`](Self::parse). With it comes its id as it was written, if it has
    /// one.
    pub(crate) fn parse_with_id(body: &'a [u8]) -> Result<(Self, Option<&'a RawValue>), Refusal> {
        //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports
        //# JSON-RPC messages MUST be UTF-8 encoded.
        let text = str::from_utf8(body).map_err(|_| Refusal::InvalidUtf8)?;
        match text.trim_start_matches([' ', '\t', '\n', '\r']).bytes().next() {
            None => return Err(Refusal::EmptyBody),
            //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
            //# The body of the POST request MUST be a single JSON-RPC request, notification, or response.
            // Only 2025-03-26 allows batches; there `split_batch` takes them apart first.
            Some(b'[') => return Err(Refusal::Batch),
            Some(b'{') => {}
            Some(_) => {
                serde_json::from_str::<IgnoredAny>(text).map_err(|_| Refusal::ParseError)?;
                return Err(Refusal::NotJsonRpc { reason: EnvelopeFault::NotAnObject });
            }
        }
        if is_deeper_than(body, MAX_DEPTH) {
            return Err(Refusal::TooDeep);
        }
        let envelope: Envelope<'a> = serde_json::from_str(text).map_err(|_| Refusal::ParseError)?;
        let id = envelope.id;
        Ok((envelope.classify()?, id))
    }

    /// Returns the id that an answer to this message carries: a request's, else none.
    pub fn request_id(&self) -> Option<&RequestId> {
        match self {
            Self::Request(request) => Some(&request.id),
            _ => None,
        }
    }

    /// Returns the method of a request or a notification.
    pub fn method(&self) -> Option<&str> {
        match self {
            Self::Request(RequestMessage { method, .. }) | Self::Notification { method, .. } => Some(method),
            Self::Response { .. } => None,
        }
    }
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/utilities/progress#progress-flow
//# Progress tokens MUST be a string or integer value
/// Returns `_meta.progressToken` of a request's params, if it is a string or a whole number.
pub fn progress_token(params: Option<&RawValue>) -> Option<RequestId> {
    RequestId::from_raw(raw_progress_token(params)?)
}

/// Returns `_meta.progressToken` of a request's params as it was written.
pub(crate) fn raw_progress_token(params: Option<&RawValue>) -> Option<&RawValue> {
    let params = params?;
    // Most requests have no token; looking for the word is several times faster than looking for the field.
    // An escaped spelling of the word needs `\u`.
    if !params.get().contains("progressToken") && !params.get().contains("\\u") {
        return None;
    }
    field(field(params, "_meta")?, "progressToken")
}

/// Returns `requestId` of the params of `notifications/cancelled`, if it is an id.
pub(crate) fn cancelled_request_id(params: Option<&RawValue>) -> Option<RequestId> {
    RequestId::from_raw(raw_cancelled_id(params)?)
}

/// Returns `requestId` of the params of `notifications/cancelled` as it was written.
pub(crate) fn raw_cancelled_id(params: Option<&RawValue>) -> Option<&RawValue> {
    field(params?, "requestId")
}

/// Returns `progressToken` of the params of `notifications/progress` as it was written.
pub(crate) fn raw_client_token(params: Option<&RawValue>) -> Option<&RawValue> {
    field(params?, "progressToken")
}

/// Returns the integer that an id or a token stands for, if it is a whole number and not spelled as an integer.
pub(crate) fn another_spelling(raw: &RawValue) -> Option<i64> {
    if is_plain_integer(raw.get()) { None } else { whole_number(raw.get()) }
}

/// Returns `protocolVersion` of the params of `initialize`, if it is a string; any string, also an unknown
/// version.
pub(crate) fn requested_version(params: Option<&RawValue>) -> Option<Cow<'_, str>> {
    decode_string(field(params?, "protocolVersion")?)
}

/// Returns `protocolVersion` of the response to `initialize`, if it is a result and this engine speaks that
/// version.
pub fn negotiated_version(response: &[u8]) -> Option<ProtocolVersion> {
    #[derive(Deserialize)]
    struct Response<'a> {
        #[serde(borrow)]
        result: InitializeResult<'a>,
    }
    #[derive(Deserialize)]
    struct InitializeResult<'a> {
        #[serde(borrow, rename = "protocolVersion")]
        protocol_version: Cow<'a, str>,
    }
    let Response { result } = serde_json::from_slice(response).ok()?;
    ProtocolVersion::parse(&result.protocol_version)
}

/// The top level of a message, nothing decided yet.
#[derive(Default)]
struct Envelope<'a> {
    jsonrpc: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    has_duplicate: bool,
}

impl<'a> Envelope<'a> {
    fn classify(self) -> Result<Message<'a>, Refusal> {
        let fault = |reason| Err(Refusal::NotJsonRpc { reason });
        if self.has_duplicate {
            return Err(Refusal::DuplicateKey);
        }
        if self.jsonrpc.and_then(decode_string).as_deref() != Some("2.0") {
            return fault(EnvelopeFault::NotVersion2);
        }
        //= https://modelcontextprotocol.io/specification/2025-11-25/basic#requests
        //# Unlike base JSON-RPC, the ID MUST NOT be null.
        let id = match self.id {
            Some(raw) => Some(RequestId::from_raw(raw).ok_or(Refusal::InvalidId)?),
            None => None,
        };
        match (self.method, self.result, self.error) {
            (Some(method), None, None) => {
                let Some(method) = decode_string(method) else {
                    return fault(EnvelopeFault::MethodIsNoString);
                };
                let params = match self.params.map(|params| (params, params.get().as_bytes()[0])) {
                    None | Some((_, b'n')) => None,
                    Some((params, b'{')) => Some(params),
                    Some(_) => return fault(EnvelopeFault::ParamsIsNoObject),
                };
                Ok(match id {
                    Some(id) => Message::Request(RequestMessage { id, method, params }),
                    None => Message::Notification { method, params },
                })
            }
            (Some(_), _, _) => fault(EnvelopeFault::BothMethodAndOutcome),
            (None, Some(_), Some(_)) => fault(EnvelopeFault::BothResultAndError),
            (None, Some(result), None) => Self::respond(id, Outcome::Result(result)),
            (None, None, Some(error)) => Self::respond(id, Outcome::Error(error)),
            (None, None, None) => fault(EnvelopeFault::NeitherMethodNorOutcome),
        }
    }

    fn respond(id: Option<RequestId>, outcome: Outcome<'a>) -> Result<Message<'a>, Refusal> {
        let id = id.ok_or(Refusal::NotJsonRpc { reason: EnvelopeFault::ResponseWithoutId })?;
        Ok(Message::Response { id, outcome })
    }
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EnvelopeVisitor)
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON-RPC message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut envelope = Envelope::default();
        // Holds unknown keys only, so it stays empty and unallocated; a set, so that many of them cost no
        // square.
        let mut unknown: HashSet<Cow<'de, str>> = HashSet::new();
        while let Some(Key(key)) = map.next_key()? {
            let place = match &*key {
                "jsonrpc" => &mut envelope.jsonrpc,
                "id" => &mut envelope.id,
                "method" => &mut envelope.method,
                "params" => &mut envelope.params,
                "result" => &mut envelope.result,
                "error" => &mut envelope.error,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    envelope.has_duplicate |= !unknown.insert(key);
                    continue;
                }
            };
            let is_second = place.replace(map.next_value()?).is_some();
            envelope.has_duplicate |= is_second;
        }
        Ok(envelope)
    }
}

/// A key, borrowed if it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Borrowed(key)))
    }

    fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Owned(key.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(body: &str) -> Refusal {
        Message::parse(body.as_bytes()).expect_err(body)
    }

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn reads_the_three_kinds() {
        let body = br#" {"jsonrpc":"2.0","id":"a","method":"tools/call","params":{ "x": 1.50 },"extra":[]}"#;
        let Ok(Message::Request(request)) = Message::parse(body) else { panic!() };
        assert_eq!(request.id, RequestId::String("a".into()));
        assert!(matches!(request.method, Cow::Borrowed("tools/call")));
        assert_eq!(request.params.unwrap().get(), "{ \"x\": 1.50 }", "as it was written");

        let body = br#"{"params":null,"method":"a\/b","jsonrpc":"2.0"}"#;
        let message = Message::parse(body).unwrap();
        assert!(matches!(message, Message::Notification { params: None, .. }));
        assert_eq!(message.method(), Some("a/b"));
        assert_eq!(message.request_id(), None);

        let message = Message::parse(br#"{"jsonrpc":"2.0","id":-3,"result":{}}"#).unwrap();
        assert!(matches!(
            message,
            Message::Response { id: RequestId::Number(-3), outcome: Outcome::Result(_) }
        ));
        assert_eq!(message.request_id(), None, "nobody answers a response");
        let message = Message::parse(br#"{"jsonrpc":"2.0","id":3,"error":{"code":1,"message":""}}"#).unwrap();
        assert!(matches!(message, Message::Response { outcome: Outcome::Error(_), .. }));
    }

    #[test]
    fn each_fault_has_its_refusal() {
        assert_eq!(Message::parse(b"{\"jsonrpc\":\"\xff\"}").unwrap_err(), Refusal::InvalidUtf8);
        for body in ["", " \r\n\t"] {
            assert_eq!(refusal(body), Refusal::EmptyBody);
        }
        for body in
            ["{", "nul", "{}x", "{\"a\":1,}", "{'a':1}", "\u{feff}{}", "{\"\\ud800\":1}", "{\"a\":\"\n\"}"]
        {
            assert_eq!(refusal(body), Refusal::ParseError, "{body}");
        }
        for body in ["[]", " [{}]", r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#] {
            assert_eq!(refusal(body), Refusal::Batch, "{body}");
        }
        for (body, reason) in [
            ("1", EnvelopeFault::NotAnObject),
            ("null", EnvelopeFault::NotAnObject),
            ("{}", EnvelopeFault::NotVersion2),
            (r#"{"id":1,"method":"m"}"#, EnvelopeFault::NotVersion2),
            (r#"{"jsonrpc":2.0,"id":1,"method":"m"}"#, EnvelopeFault::NotVersion2),
            (r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#, EnvelopeFault::NotVersion2),
            (r#"{"jsonrpc":"2.0","id":1}"#, EnvelopeFault::NeitherMethodNorOutcome),
            (r#"{"jsonrpc":"2.0","id":1,"method":"m","result":{}}"#, EnvelopeFault::BothMethodAndOutcome),
            (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":null}"#, EnvelopeFault::BothResultAndError),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, EnvelopeFault::MethodIsNoString),
            (r#"{"jsonrpc":"2.0","id":1,"method":"\ud800"}"#, EnvelopeFault::MethodIsNoString),
            (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":[1]}"#, EnvelopeFault::ParamsIsNoObject),
            (r#"{"jsonrpc":"2.0","result":{}}"#, EnvelopeFault::ResponseWithoutId),
        ] {
            assert_eq!(refusal(body), Refusal::NotJsonRpc { reason }, "{body}");
        }
    }

    #[test]
    fn bad_ids_are_refused() {
        let long = format!("\"{}\"", "x".repeat(4097));
        for id in ["null", "1.5", "1e-2", "1e99", "true", "{}", "[1]", "9223372036854775808", &long] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
            assert_eq!(refusal(&body), Refusal::InvalidId, "{id}");
        }
    }

    #[test]
    fn duplicate_keys_are_refused_in_any_spelling() {
        for body in [
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","\u006dethod":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","method":"ping","x":1,"x":1}"#,
        ] {
            assert_eq!(refusal(body), Refusal::DuplicateKey, "{body}");
        }
        let nested = br#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":1,"a":2}}"#;
        assert!(Message::parse(nested).is_ok(), "what is inside params is the handler's");
    }

    #[test]
    fn depth_counts_from_the_envelope() {
        let body = |levels: usize| {
            let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"a":{open}{close}}}}}"#)
        };
        assert!(Message::parse(body(MAX_DEPTH - 1).as_bytes()).is_ok());
        assert_eq!(refusal(&body(MAX_DEPTH)), Refusal::TooDeep);
        assert_eq!(refusal(&body(1_000_000)), Refusal::TooDeep);
    }

    #[test]
    fn single_fields_are_read() {
        let params = raw(r#"{"arguments":{"_meta":{"progressToken":1}},"_meta":{"progressToken":"t"}}"#);
        assert_eq!(progress_token(Some(&params)), Some(RequestId::String("t".into())));
        let params = raw(r#"{"_meta":{"progress\u0054oken":5}}"#);
        assert_eq!(progress_token(Some(&params)), Some(RequestId::Number(5)));
        for other in
            ["{}", r#"{"_meta":{"progressToken":1.5}}"#, r#"{"_meta":null}"#, r#"{"progressToken":1}"#]
        {
            assert_eq!(progress_token(Some(&raw(other))), None, "{other}");
        }
        assert_eq!(progress_token(None), None);

        let params = raw(r#"{"reason":"x","requestId":12}"#);
        assert_eq!(cancelled_request_id(Some(&params)), Some(RequestId::Number(12)));
        assert_eq!(cancelled_request_id(Some(&raw("{}"))), None);

        let params = raw(r#"{"protocolVersion":"2099-01-01","capabilities":{}}"#);
        assert_eq!(requested_version(Some(&params)).as_deref(), Some("2099-01-01"));
        for (response, version) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18"}}"#,
                Some(ProtocolVersion::V2025_06_18),
            ),
            (
                r#"{"result":{"capabilities":{},"protocolVersion":"2025\u002d06-18"}}"#,
                Some(ProtocolVersion::V2025_06_18),
            ),
            (r#"{"result":{"protocolVersion":"2099-01-01"}}"#, None),
            (r#"{"result":{"protocolVersion":1}}"#, None),
            (r#"{"result":{}}"#, None),
            (r#"{"error":{"code":1,"message":"x"}}"#, None),
        ] {
            assert_eq!(negotiated_version(response.as_bytes()), version, "{response}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::parse(&body);
        }

        #[test]
        fn any_near_miss_is_read_or_refused(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "{", "}", "[", "]", ",", ":", "\"", "\\", "\n", "1", "-", ".5", "null", "\"id\":", "\"2.0\"",
                    "\"jsonrpc\":\"2.0\",", "\"method\":\"m\",", "\"params\":{}", "\"result\":", "\\ud800", "é",
                ]),
                0..25,
            ),
            is_object: bool,
        ) {
            let inner = parts.concat();
            let body = if is_object { format!("{{\"jsonrpc\":\"2.0\",{inner}}}") } else { inner };
            match Message::parse(body.as_bytes()) {
                Ok(_) => prop_assert!(serde_json::from_str::<IgnoredAny>(&body).is_ok()),
                Err(refusal) => prop_assert_eq!(refusal.status(), 400),
            }
        }
    }
}
