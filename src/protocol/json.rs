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
pub(crate) const MAX_DEPTH: usize = 128;

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

/// Returns the value of a whole number of 64 bits, however it is spelled: `10`, `10.0`, `1e1`, `100e-1`. `None` for
/// another value or a larger number.
///
/// Exact, since a float of 64 bits does not hold every integer of 64 bits.
pub(super) fn whole_number(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    if !unsigned.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let (digits, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (mut whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if whole.is_empty() && fraction.is_empty() {
        return Some(0);
    }
    // The number is `whole` and `fraction` in a row, with so many zeros behind; if fewer than none, it is no whole one.
    let mut zeros = exponent.parse::<i64>().ok()?.checked_sub(fraction.len() as i64)?;
    if fraction.is_empty() {
        let significant = whole.trim_end_matches('0');
        zeros = zeros.checked_add((whole.len() - significant.len()) as i64)?;
        whole = significant;
    }
    let factor = 10_i128.checked_pow(u32::try_from(zeros).ok()?)?;
    let add = |sum: i128, digit: u8| sum.checked_mul(10)?.checked_add(i128::from(digit - b'0'));
    let sum = whole.bytes().chain(fraction.bytes()).try_fold(0, add)?;
    let number = sum.checked_mul(factor)?;
    i64::try_from(if unsigned.len() < text.len() { -number } else { number }).ok()
}

/// Whether a number is spelled as [`write_integer`] writes it.
pub(super) fn is_plain_integer(text: &str) -> bool {
    text != "-0" && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
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

    use super::{MAX_DEPTH, decode_string, field, is_deeper_than, is_plain_integer, whole_number};

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
    fn whole_numbers_are_read_in_any_spelling() {
        for (text, number) in [
            ("0", 0),
            ("-0", 0),
            ("0.000e99999999999999999999", 0),
            ("1.0", 1),
            ("1e2", 100),
            ("12.5E+1", 125),
            ("-1200e-2", -12),
            ("0.00007e5", 7),
            ("9007199254740993.0", 9_007_199_254_740_993),
            ("922337203685477580.70e1", i64::MAX),
            ("-9223372036854775808.0", i64::MIN),
        ] {
            assert_eq!(whole_number(text), Some(number), "{text}");
        }
        let long = format!("1{}.0e-1", "0".repeat(1000));
        for text in [
            "1.5",
            "1e-1",
            "0.1",
            "125e-1",
            "9223372036854775808",
            "9223372036854775808.0",
            "1e19",
            "1e99999999999999999999",
            "1e-99999999999999999999",
            "1e9223372036854775807",
            &long,
            "null",
            "true",
            "{}",
            "\"1\"",
        ] {
            assert_eq!(whole_number(text), None, "{text}");
        }
        assert!(is_plain_integer("-12") && !is_plain_integer("-0") && !is_plain_integer("1e0"));
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
        fn whole_numbers_keep_their_value(number: i64, zeros in 0_usize..30, digits in 0_usize..30) {
            let nothing = "0".repeat(zeros);
            let sign = if number < 0 { "-" } else { "" };
            let mut text = number.unsigned_abs().to_string();
            let exponent = text.len().min(digits);
            text.insert(text.len() - exponent, '.');
            for spelled in [
                format!("{number}.{nothing}0"),
                format!("{number}{nothing}E-{zeros}"),
                format!("{sign}0{text}{nothing}e+{exponent}"),
            ] {
                prop_assert_eq!(whole_number(&spelled), Some(number), "{}", spelled);
            }
        }

        #[test]
        fn any_number_is_read_or_not(text in "-?[0-9]{1,22}(\\.[0-9]{1,22})?([eE][+-]?[0-9]{1,20})?") {
            if let Some(number) = whole_number(&text) {
                let float: f64 = text.parse().unwrap();
                prop_assert!((float - number as f64).abs() <= float.abs() * 1e-15, "{}", text);
            }
        }

        #[test]
        fn depth_scan_agrees_with_the_book(json in "[\\[\\]{}\"\\\\a]{0,60}", limit in 0_usize..12) {
            let expected = is_deeper_than_by_the_book(json.as_bytes(), limit);
            prop_assert_eq!(is_deeper_than(json.as_bytes(), limit), expected);
        }
    }
}
