//! JSON without a tree: depth, one field of an object, one string.
//!
//! Helpers of the message reader and writer. Everything here takes time linear in the text, allocates only
//! for a string with escapes, and never recurses.
//!
//! # Algorithm
//!
//! The depth scan counts opening brackets first, strings included; few bodies have more of them than the
//! limit, and counting needs no branch. Only a body with more is walked, and there a string is skipped as a
//! whole, so that a bracket inside it does not count.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Deepest nesting accepted in a body; the envelope itself is level 1.
///
/// `params` then has at most 127 levels, which is exactly what `serde_json` accepts when a handler reads it
/// into a type of its own. Its reader for [`RawValue`] has no limit, hence the scan.
pub const MAX_DEPTH: usize = 128;

/// Whether brackets nest deeper than `limit`. Text that is not JSON gets some answer, never a panic.
pub(super) fn is_deeper_than(json: &[u8], limit: usize) -> bool {
    if openings(json) <= limit {
        return false;
    }
    let mut depth = 0_usize;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    false
}

/// How many opening brackets there are. Counted in single bytes, sixteen at a time: no run of [`u8::MAX`] overflows.
fn openings(json: &[u8]) -> usize {
    // The two brackets differ in one bit.
    let is_opening = |byte: &u8| u8::from(byte | 0x20 == b'{');
    json.chunks(usize::from(u8::MAX)).map(|run| usize::from(run.iter().map(is_opening).sum::<u8>())).sum()
}

/// Returns the text of a JSON string, borrowed if it has no escapes; `None` for another value or a lone
/// surrogate.
pub(super) fn decode_string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw.get()).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// Returns the value of the field `name` of an object.
///
/// `None` if `raw` is not an object, the field is absent, or it is there twice: readers disagree about which
/// one counts, so neither does.
pub(super) fn field<'a>(raw: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    deserializer.deserialize_map(FieldVisitor { name }).ok().flatten()
}

/// Appends a JSON string.
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is written to memory without failing");
}

/// Returns a JSON string.
pub(super) fn string_to_json(text: &str) -> String {
    serde_json::to_string(text).expect("a string is written to memory without failing")
}

/// Appends an integer.
pub(super) fn write_integer(out: &mut Vec<u8>, number: i64) {
    write!(out, "{number}").expect("an integer is written to memory without failing");
}

struct FieldVisitor<'n> {
    name: &'n str,
}

impl<'de> Visitor<'de> for FieldVisitor<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let mut times = 0;
        while let Some(is_wanted) = map.next_key_seed(IsKey(self.name))? {
            if is_wanted {
                found = Some(map.next_value::<&RawValue>()?);
                times += 1;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found.filter(|_| times == 1))
    }
}

/// Reads a key and says whether it is this one.
struct IsKey<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for IsKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::{MAX_DEPTH, decode_string, field, is_deeper_than};

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn limit_is_inclusive() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nest = |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
            assert!(!is_deeper_than(nest(MAX_DEPTH).as_bytes(), MAX_DEPTH));
            assert!(is_deeper_than(nest(MAX_DEPTH + 1).as_bytes(), MAX_DEPTH));
        }
    }

    #[test]
    fn brackets_in_strings_and_in_a_row_do_not_nest() {
        assert!(!is_deeper_than(format!("[\"{}\"]", "[".repeat(1000)).as_bytes(), MAX_DEPTH));
        assert!(!is_deeper_than(format!("[\"\\\"{}\"]", "[".repeat(1000)).as_bytes(), MAX_DEPTH));
        assert!(!is_deeper_than("[]".repeat(1000).as_bytes(), MAX_DEPTH));
        assert!(is_deeper_than(format!("[\"\\\\\",{}", "[".repeat(128)).as_bytes(), MAX_DEPTH));
    }

    #[test]
    fn params_within_the_limit_are_readable_by_serde_json() {
        let params = format!("{}{}", "[".repeat(MAX_DEPTH - 1), "]".repeat(MAX_DEPTH - 1));
        assert!(serde_json::from_str::<serde_json::Value>(&params).is_ok());
    }

    #[test]
    fn strings_without_escapes_are_borrowed() {
        use std::borrow::Cow;
        assert!(matches!(decode_string(&raw("\"plain é\"")), Some(Cow::Borrowed("plain é"))));
        assert_eq!(decode_string(&raw("\"a\\u0062\\n\"")).as_deref(), Some("ab\n"));
        assert_eq!(decode_string(&raw("\"\"")).as_deref(), Some(""));
        assert_eq!(decode_string(&raw("12")), None);
        assert_eq!(decode_string(&raw("\"\\ud800\"")), None);
    }

    #[test]
    fn field_is_found_once_at_the_top() {
        let value = raw("{\"x\":{\"a\":1},\"\\u0061\": [2] ,\"b\":3,\"b\":3}");
        assert_eq!(field(&value, "a").map(RawValue::get), Some("[2]"));
        assert!(field(&value, "b").is_none(), "twice");
        assert!(field(&value, "c").is_none());
        assert!(field(&raw("[1]"), "a").is_none());
        assert!(field(&raw("null"), "a").is_none());
    }

    /// The scan again, one character at a time and without shortcuts.
    fn is_deeper_than_by_the_book(json: &[u8], limit: usize) -> bool {
        let (mut depth, mut deepest, mut in_string, mut is_escaped) = (0_usize, 0, false, false);
        for byte in json {
            match (in_string, is_escaped, byte) {
                (true, true, _) => is_escaped = false,
                (true, false, b'\\') => is_escaped = true,
                (_, false, b'"') => in_string = !in_string,
                (false, _, b'{' | b'[') => depth += 1,
                (false, _, b'}' | b']') => depth = depth.saturating_sub(1),
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        deepest > limit
    }

    proptest! {
        #[test]
        fn depth_scan_agrees_with_the_book(json in "[\\[\\]{}\"\\\\a]{0,60}", limit in 0_usize..12) {
            let expected = is_deeper_than_by_the_book(json.as_bytes(), limit);
            prop_assert_eq!(is_deeper_than(json.as_bytes(), limit), expected);
        }
    }
}
