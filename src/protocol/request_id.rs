//! The id of a JSON-RPC request: a whole number or a string, limited in size.
//!
//! JSON has one kind of number, so `7`, `7.0` and `70e-1` are the same id. It is written as the integer, whatever
//! spelling it came in: the client finds an equal number.
//!
//! A request's id travels with it through every module and keys the map of requests in flight, so it is small
//! (16 bytes) and owns its text. Progress tokens have the same form and use the same type.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserializer, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::json;

//= https://modelcontextprotocol.io/specification/2025-11-25/basic#requests
//# Requests MUST include a string or integer ID.
/// Identifies a request of one peer within a session; also a progress token.
///
/// Written as JSON by [`Display`](fmt::Display): a string id keeps its quotes, so `1` and `"1"` stay two ids.
///
/// # Examples
///
/// ```
/// use ringmain::protocol::RequestId;
///
/// assert_eq!(RequestId::from(7).to_string(), "7");
/// assert_eq!(RequestId::String("seven".into()).to_string(), r#""seven""#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestId {
    /// A whole number of 64 bits.
    Number(i64),
    /// A string of at most [`MAX_BYTES`](RequestId::MAX_BYTES) bytes of UTF-8.
    String(Box<str>),
}

impl RequestId {
    /// Longest string id accepted, in bytes after escapes are resolved. Costs that much memory per request in
    /// flight.
    pub const MAX_BYTES: usize = 4096;

    /// Reads an id from JSON text; `None` if it is not a string or a whole number, or out of bounds.
    pub(crate) fn from_raw(raw: &RawValue) -> Option<Self> {
        match json::decode_string(raw) {
            Some(text) => Self::from_text(text),
            // Not through serde's number: with a feature of serde_json switched on elsewhere that is a map.
            None => json::whole_number(raw.get()).map(Self::Number),
        }
    }

    /// Appends the id as JSON on a single line.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(number) => json::write_integer(out, *number),
            Self::String(text) => json::write_string(out, text),
        }
    }

    fn from_text(text: Cow<'_, str>) -> Option<Self> {
        (text.len() <= Self::MAX_BYTES).then(|| Self::String(text.into()))
    }
}

impl From<i64> for RequestId {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => fmt::Display::fmt(number, f),
            Self::String(text) => f.write_str(&json::string_to_json(text)),
        }
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::String(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

struct IdVisitor;

impl Visitor<'_> for IdVisitor {
    type Value = RequestId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number or a string of at most {} bytes", RequestId::MAX_BYTES)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<RequestId, E> {
        Ok(RequestId::Number(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<RequestId, E> {
        let number = i64::try_from(number);
        number.map(RequestId::Number).map_err(|_| E::custom("the integer is larger than 64 bits with a sign"))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<RequestId, E> {
        // Beyond, a float stands for several integers.
        const EXACT: f64 = (1_u64 << 53) as f64;
        let is_whole = number.fract() == 0.0 && number.abs() <= EXACT;
        if is_whole {
            Ok(RequestId::Number(number as i64))
        } else {
            Err(E::invalid_type(Unexpected::Float(number), &self))
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RequestId, E> {
        RequestId::from_text(text.into()).ok_or_else(|| E::invalid_length(text.len(), &self))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::RequestId;

    fn read(json: &str) -> Option<RequestId> {
        RequestId::from_raw(&RawValue::from_string(json.to_owned()).unwrap())
    }

    #[test]
    fn is_compact() {
        assert_eq!(size_of::<RequestId>(), 16);
        assert_eq!(size_of::<Option<RequestId>>(), 24);
    }

    #[test]
    fn number_and_string_are_two_ids() {
        let ids: HashSet<_> = ["1", "\"1\"", "1"].into_iter().map(|json| read(json).unwrap()).collect();
        assert_eq!(ids.len(), 2);
    }

    #[test]
    fn bounds_are_inclusive() {
        assert_eq!(read("9223372036854775807"), Some(RequestId::Number(i64::MAX)));
        assert_eq!(read("-9223372036854775808"), Some(RequestId::Number(i64::MIN)));
        assert_eq!(read("9223372036854775808"), None);
        assert!(read(&format!("\"{}\"", "x".repeat(4096))).is_some());
        assert!(read(&format!("\"{}\"", "x".repeat(4097))).is_none());
        // The bound is on the decoded text: 4,096 times the six bytes `\u0078`.
        assert!(read(&format!("\"{}\"", "\\u0078".repeat(4096))).is_some());
    }

    #[test]
    fn other_values_are_no_ids() {
        for json in ["null", "true", "1.5", "1e-3", "1e30", "{}", "[1]", "\"\\ud800\""] {
            assert_eq!(read(json), None, "{json}");
            assert!(serde_json::from_str::<RequestId>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn whole_numbers_are_equal_in_any_spelling() {
        for json in ["1000", "1000.0", "1e3", "10000e-1"] {
            assert_eq!(read(json), Some(RequestId::Number(1000)), "{json}");
            assert_eq!(serde_json::from_str::<RequestId>(json).unwrap(), RequestId::Number(1000), "{json}");
        }
        assert_eq!(read("-0.0").unwrap().to_string(), "0");
    }

    fn any_id() -> impl Strategy<Value = RequestId> {
        prop_oneof![
            any::<i64>().prop_map(RequestId::Number),
            "\\PC{0,40}".prop_map(|text| RequestId::String(text.into())),
            "[\\x00-\\x7f]{0,40}".prop_map(|text| RequestId::String(text.into())),
        ]
    }

    proptest! {
        #[test]
        fn json_round_trips(id in any_id()) {
            let json = id.to_string();
            prop_assert_eq!(read(&json), Some(id.clone()));
            prop_assert_eq!(&serde_json::from_str::<RequestId>(&json).unwrap(), &id);
            prop_assert_eq!(&serde_json::to_string(&id).unwrap(), &json);
            let mut bytes = Vec::new();
            id.write_json(&mut bytes);
            prop_assert_eq!(bytes, json.into_bytes());
        }
    }
}
