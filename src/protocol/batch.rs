//! Batches: several messages in the body of one POST.
//!
//! Only `2025-03-26` has them ([`ProtocolVersion::has_batches`](super::ProtocolVersion::has_batches)).

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json::{MAX_DEPTH, is_deeper_than};
use super::refusal::Refusal;

/// Messages that a batch may have.
pub const MAX_BATCH: usize = 100;

/// Whether a body is a batch: an array, whatever stands in it.
pub(crate) fn is_batch(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"[")
}

/// Takes a batch apart. What each of its parts is remains to be read.
///
/// # Errors
///
/// [`InvalidUtf8`](Refusal::InvalidUtf8), [`TooDeep`](Refusal::TooDeep), [`ParseError`](Refusal::ParseError),
/// [`EmptyBatch`](Refusal::EmptyBatch) or [`BatchTooLarge`](Refusal::BatchTooLarge).
//= https://www.jsonrpc.org/specification#batch
//# To send several Request objects at the same time, the Client MAY send an Array filled with Request objects.
pub(crate) fn split_batch(body: &[u8]) -> Result<Vec<&RawValue>, Refusal> {
    let text = str::from_utf8(body).map_err(|_| Refusal::InvalidUtf8)?;
    if is_deeper_than(body, MAX_DEPTH + 1) {
        return Err(Refusal::TooDeep);
    }
    let Parts { parts, count } = serde_json::from_str(text).map_err(|_| Refusal::ParseError)?;
    match count {
        0 => Err(Refusal::EmptyBatch),
        1..=MAX_BATCH => Ok(parts),
        _ => Err(Refusal::BatchTooLarge { limit: MAX_BATCH }),
    }
}

/// The first [`MAX_BATCH`] parts of an array, and how many there are.
struct Parts<'a> {
    parts: Vec<&'a RawValue>,
    count: usize,
}

impl<'de> Deserialize<'de> for Parts<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(PartsVisitor)
    }
}

struct PartsVisitor;

impl<'de> Visitor<'de> for PartsVisitor {
    type Value = Parts<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Parts<'de>, A::Error> {
        let mut parts = Vec::new();
        while parts.len() < MAX_BATCH
            && let Some(part) = seq.next_element()?
        {
            parts.push(part);
        }
        let mut count = parts.len();
        while seq.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Parts { parts, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(body: &str) -> Result<Vec<&str>, Refusal> {
        Ok(split_batch(body.as_bytes())?.into_iter().map(RawValue::get).collect())
    }

    #[test]
    fn an_array_is_taken_apart() {
        assert!(is_batch(b" \r\n\t[") && !is_batch(b"{}") && !is_batch(b""));
        assert_eq!(parts("[{\"a\": [1]}, 2 ,[ ]]"), Ok(vec!["{\"a\": [1]}", "2", "[ ]"]));
        assert_eq!(parts(" [ ] "), Err(Refusal::EmptyBatch));
        for body in ["[", "[1", "[1,]", "[1]x", "[}"] {
            assert_eq!(parts(body), Err(Refusal::ParseError), "{body}");
        }
        assert_eq!(split_batch(b"[\"\xff\"]").unwrap_err(), Refusal::InvalidUtf8);
        let many = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
        assert_eq!(parts(&many(MAX_BATCH)).map(|parts| parts.len()), Ok(MAX_BATCH));
        assert_eq!(parts(&many(MAX_BATCH + 1)), Err(Refusal::BatchTooLarge { limit: MAX_BATCH }));
        assert_eq!(parts(&"[".repeat(100_000)), Err(Refusal::TooDeep));
    }
}
