//! What goes over the wire, the same for every server: the message, its event, the answers to calls.

/// What stands before the time in [`message`].
const BEFORE_TIME: &str =
    r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","logger":"perf","data":""#;
/// Fills the event up to 256 bytes.
const AFTER_TIME: &str =
    r#" 0123456789012345678901234567890123456789012345678901234567890123456789012345678901"}}"#;
/// Digits of the time in a message, and of a position.
const DIGITS: usize = 16;

/// What calls get, from every server.
pub const CALL_RESULT: &str =
    r#"{"content":[{"type":"text","text":"This is a simple text response for testing."}]}"#;

/// A notification that says when it was published, in nanoseconds since some moment.
#[must_use]
pub fn message(nanoseconds: u64) -> String {
    format!("{BEFORE_TIME}{nanoseconds:0width$}{AFTER_TIME}", width = DIGITS)
}

/// When the message in `data` was published, if it says so.
#[must_use]
pub fn published(data: &[u8]) -> Option<u64> {
    let digits = data.strip_prefix(BEFORE_TIME.as_bytes())?.get(..DIGITS)?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// What stands before the position in an event, and before and behind its data.
const PARTS: [&str; 3] = ["id: 9f3c21ab-0-", "\nevent: message\ndata: ", "\n\n"];

/// The event of `message` at `position`, in the form that ringmain writes.
#[must_use]
pub fn event(position: u64, message: &str) -> Vec<u8> {
    let mut event = Vec::with_capacity(event_length(message));
    write_event(&mut event, position, message);
    event
}

/// How long the event of `message` is, in bytes.
#[must_use]
pub fn event_length(message: &str) -> usize {
    PARTS.iter().map(|part| part.len()).sum::<usize>() + DIGITS + message.len()
}

/// Appends the event of `message` at `position` to `out`.
pub fn write_event(out: &mut Vec<u8>, position: u64, message: &str) {
    out.extend_from_slice(PARTS[0].as_bytes());
    out.extend((0..DIGITS).rev().map(|digit| b"0123456789abcdef"[(position >> (4 * digit) & 15) as usize]));
    for part in [PARTS[1], message, PARTS[2]] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// The position that `Last-Event-ID` names, if it is of that form.
#[must_use]
pub fn position(id: &str) -> Option<u64> {
    let position = id.split('-').nth(2)?;
    // On a standalone stream of ringmain's two logs are merged, and each event is one step in one of them.
    position.split(['.', ':']).map(|part| u64::from_str_radix(part, 16).ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_when_it_was_published() {
        assert_eq!(published(message(12_345).as_bytes()), Some(12_345));
        assert_eq!(published(b"{}"), None);
    }

    #[test]
    fn an_event_has_its_position_in_hexadecimal() {
        assert_eq!(event(0x1f, "{}"), b"id: 9f3c21ab-0-000000000000001f\nevent: message\ndata: {}\n\n");
        assert_eq!(event_length("{}"), event(1, "{}").len());
    }

    #[test]
    fn an_event_is_256_bytes() {
        assert_eq!(event(1, &message(0)).len(), 256);
    }

    #[test]
    fn the_position_is_the_third_part() {
        assert_eq!(position("9f3c21ab-0-00000000000000ff"), Some(255));
        assert_eq!(position("7"), None);
    }
}
