//! Event IDs: which session, which stream, which position.

use core::fmt;
use core::str::FromStr;

/// The name of a stream, as it stands in event IDs.
///
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#resumability-and-redelivery
//# Event IDs SHOULD encode sufficient information to identify the originating stream, enabling the server to
//# correlate a `Last-Event-ID` to the correct stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamName {
    /// A random number that each session draws, so that an ID of another session is told apart. Not a secret,
    /// and no part of the session ID.
    pub tag: u32,
    /// Number of the stream in its session; 0 is the standalone stream.
    pub stream: u32,
}

/// An event ID: a cursor within one stream of one session.
///
/// The text is `tag-stream-position` in lower-case hexadecimal: 8 digits, 1 to 8 digits without leading zeros,
/// 16 digits. The position has a fixed width so that it can be patched in place. The ID of a priming event has
/// a fourth part, the connection's generation: `tag-stream-position-generation`. So it means "after that
/// position" like the event at that position does, and yet is never the same text.
///
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#resumability-and-redelivery
//# If present, the ID MUST be globally unique across all streams within that session
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventId {
    /// The stream.
    pub name: StreamName,
    /// The position of the event, or the last one before a priming event (0: none yet).
    pub position: u64,
    /// For a priming event: which connection of the stream it opened.
    pub generation: Option<u32>,
}

/// The text is not an event ID that this server writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedEventId;

impl fmt::Display for MalformedEventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an event id of this server")
    }
}

impl std::error::Error for MalformedEventId {}

impl EventId {
    /// The ID of the event at `position`.
    #[must_use]
    pub fn event(name: StreamName, position: u64) -> Self {
        Self { name, position, generation: None }
    }

    /// The ID of the event that primes connection `generation` behind `position`.
    #[must_use]
    pub fn priming(name: StreamName, position: u64, generation: u32) -> Self {
        Self { name, position, generation: Some(generation) }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:x}-{:016x}", self.name.tag, self.name.stream, self.position)?;
        match self.generation {
            Some(generation) => write!(f, "-{generation:x}"),
            None => Ok(()),
        }
    }
}

impl FromStr for EventId {
    type Err = MalformedEventId;

    /// Accepts exactly what `Display` writes.
    fn from_str(text: &str) -> Result<Self, MalformedEventId> {
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or(MalformedEventId);
        let (tag, stream, position) = (part()?, part()?, part()?);
        let (generation, more) = (parts.next(), parts.next());
        if more.is_some() || tag.len() != 8 || position.len() != 16 {
            return Err(MalformedEventId);
        }
        Ok(Self {
            name: StreamName { tag: hexadecimal(tag)? as u32, stream: short(stream)? },
            position: hexadecimal(position)?,
            generation: generation.map(short).transpose()?,
        })
    }
}

/// Reads 1 to 8 digits without leading zeros.
fn short(text: &str) -> Result<u32, MalformedEventId> {
    if text.len() > 8 || (text.len() > 1 && text.starts_with('0')) {
        return Err(MalformedEventId);
    }
    hexadecimal(text).map(|value| value as u32)
}

/// Reads 1 to 16 lower-case digits.
fn hexadecimal(text: &str) -> Result<u64, MalformedEventId> {
    if text.is_empty() || text.len() > 16 {
        return Err(MalformedEventId);
    }
    text.bytes().try_fold(0, |value, byte| match byte {
        b'0'..=b'9' => Ok(value << 4 | u64::from(byte - b'0')),
        b'a'..=b'f' => Ok(value << 4 | u64::from(byte - b'a' + 10)),
        _ => Err(MalformedEventId),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_canonical_text_is_accepted() {
        let good = "9f3c21ab-2-000000000000002a";
        assert_eq!(good.parse::<EventId>().unwrap().to_string(), good);
        for bad in [
            "",
            "-",
            "9f3c21ab",
            "9f3c21ab-2",
            "9f3c21ab-2-2a",
            "9F3C21AB-2-000000000000002a",
            "9f3c21ab-02-000000000000002a",
            "9f3c21ab--000000000000002a",
            "9f3c21ab-2-000000000000002a-",
            "9f3c21ab-2-000000000000002a-1-1",
            "9f3c21ab-2-000000000000002a ",
            "9f3c21ab-123456789-000000000000002a",
            "+f3c21ab-2-000000000000002a",
        ] {
            assert_eq!(bad.parse::<EventId>(), Err(MalformedEventId), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(tag: u32, stream: u32, position: u64, generation: Option<u32>) {
            let id = EventId { name: StreamName { tag, stream }, position, generation };
            prop_assert_eq!(id.to_string().parse::<EventId>(), Ok(id));
        }

        #[test]
        fn priming_id_never_equals_a_real_id(tag: u32, stream: u32, a: u64, b: u64, generation: u32) {
            let name = StreamName { tag, stream };
            prop_assert_ne!(EventId::priming(name, a, generation).to_string(), EventId::event(name, b).to_string());
            prop_assert_ne!(EventId::priming(name, a, generation).to_string(), EventId::event(name, a).to_string());
        }

        #[test]
        fn what_is_accepted_is_what_would_be_written(text in "[0-9a-fA-F-]{0,40}") {
            if let Ok(id) = text.parse::<EventId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
