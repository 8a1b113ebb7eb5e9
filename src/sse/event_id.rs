//! Event IDs: which session, which stream, which position.
//!
//! # Text
//!
//! All numbers are lower-case hexadecimal. `tag` has 8 digits. The position of the event itself has a fixed width, so
//! that it can be filled in where it stands: 16 digits on the stream of a request, 12 on a standalone stream. All other
//! numbers have no leading zeros.
//!
//! Short IDs are worth something: a Linux client acknowledges small events one by one, at the server's expense, once
//! two of them exceed 536 bytes.
//!
//! | event | text |
//! |---|---|
//! | on the stream of a request | `tag-stream-position`, the stream from 1 on |
//! | on the standalone stream, published to the session | `tag-0.lineage-own.broadcast` |
//! | on the standalone stream, published to all sessions | `tag-0.lineage-own:broadcast` |
//!
//! The ID of a priming event has one more part, the generation of the connection that it opens: `…-generation`. It
//! means "after that position", like the ID of the event at that position, and is never the same text.

use core::fmt;
use core::str::FromStr;

/// The name of a request's stream, as it stands in event IDs.
///
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#resumability-and-redelivery
//# Event IDs SHOULD encode sufficient information to identify the originating stream, enabling the server to
//# correlate a `Last-Event-ID` to the correct stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamName {
    /// A random number that each session draws, so that an ID of another session is told apart. Not a secret,
    /// and no part of the session ID.
    pub tag: u32,
    /// Number of the stream in its session, from 1 on. 0 stands for the standalone stream, whose events are named
    /// by a [`Place::Standalone`].
    pub stream: u32,
}

/// An event ID: a cursor within one stream of one session. What `Display` writes is its text on the wire.
///
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#resumability-and-redelivery
//# If present, the ID MUST be globally unique across all streams within that session
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventId {
    /// The tag of the session.
    pub tag: u32,
    /// The stream, and the event in it.
    pub place: Place,
    /// For a priming event: which connection of the stream it opened.
    pub generation: Option<u32>,
}

/// A stream of a session, and a position in it. Position 0 is before the first event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// On the stream of a request.
    Request {
        /// Number of the stream, from 1 on.
        stream: u32,
        /// Position of the event.
        position: u64,
    },
    /// On the standalone stream, which merges two logs: the session's own events, and those for all sessions.
    Standalone {
        /// Which sequence of connections the event was sent on: a connection that does not resume another begins a
        /// lineage of its own.
        lineage: u32,
        /// Position of the latest event of the session's own.
        own: u64,
        /// Position of the latest event for all sessions.
        broadcast: u64,
        /// Which of the two the event is.
        kind: Log,
    },
}

/// The two logs of a standalone stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Log {
    /// The session's own.
    Own,
    /// The one that all sessions read.
    Broadcast,
}

impl Log {
    /// What stands between the two positions.
    pub(super) const fn mark(self) -> u8 {
        match self {
            Self::Own => b'.',
            Self::Broadcast => b':',
        }
    }
}

/// What the IDs of consecutive events have in common: all but the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// The stream of a request.
    Request(StreamName),
    /// The session's own events on its standalone stream.
    Own {
        /// The tag of the session.
        tag: u32,
        /// The lineage of the connection.
        lineage: u32,
        /// Position of the latest event for all sessions.
        broadcast: u64,
    },
    /// The events for all sessions on a standalone stream.
    Broadcast {
        /// The tag of the session.
        tag: u32,
        /// The lineage of the connection.
        lineage: u32,
        /// Position of the latest event of the session's own.
        own: u64,
    },
    /// A topic outside of any session. The ID is the position.
    Topic,
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
    /// The ID of the event at `position` of the stream `name`.
    #[must_use]
    pub fn event(name: StreamName, position: u64) -> Self {
        Self { tag: name.tag, place: Place::Request { stream: name.stream, position }, generation: None }
    }

    /// The ID of the event that primes connection `generation` of the stream `name` behind `position`.
    #[must_use]
    pub fn priming(name: StreamName, position: u64, generation: u32) -> Self {
        Self { generation: Some(generation), ..Self::event(name, position) }
    }
}

/// Digits of the position of a request's event.
const POSITION_DIGITS: usize = 16;
/// Digits of each position of a standalone event.
pub(super) const LOG_DIGITS: usize = 12;

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Request { stream, position } => {
                write!(f, "{:08x}-{stream:x}-{position:0POSITION_DIGITS$x}", self.tag)?;
            }
            Place::Standalone { lineage, own, broadcast, kind } => {
                write!(f, "{:08x}-0.{lineage:x}-", self.tag)?;
                match kind {
                    Log::Own => write!(f, "{own:0LOG_DIGITS$x}.{broadcast:x}")?,
                    Log::Broadcast => write!(f, "{own:x}:{broadcast:0LOG_DIGITS$x}")?,
                }
            }
        }
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
        if more.is_some() {
            return Err(MalformedEventId);
        }
        let place = match stream.strip_prefix("0.") {
            None => {
                let (stream, position) = (short(stream, 8)? as u32, fixed(position, POSITION_DIGITS)?);
                if stream == 0 {
                    return Err(MalformedEventId);
                }
                Place::Request { stream, position }
            }
            Some(lineage) => {
                let at = position.find(['.', ':']).ok_or(MalformedEventId)?;
                let (own, broadcast) = (&position[..at], &position[at + 1..]);
                let (kind, own, broadcast) = if position.as_bytes()[at] == Log::Own.mark() {
                    (Log::Own, fixed(own, LOG_DIGITS)?, short(broadcast, LOG_DIGITS)?)
                } else {
                    (Log::Broadcast, short(own, LOG_DIGITS)?, fixed(broadcast, LOG_DIGITS)?)
                };
                Place::Standalone { lineage: short(lineage, 8)? as u32, own, broadcast, kind }
            }
        };
        let tag = fixed(tag, 8)? as u32;
        Ok(Self { tag, place, generation: generation.map(|text| Ok(short(text, 8)? as u32)).transpose()? })
    }
}

/// Reads a number of at most so many digits, without leading zeros.
fn short(text: &str, digits: usize) -> Result<u64, MalformedEventId> {
    if text.len() > digits || (text.len() > 1 && text.starts_with('0')) {
        return Err(MalformedEventId);
    }
    hexadecimal(text)
}

/// Reads a number of exactly so many digits.
fn fixed(text: &str, digits: usize) -> Result<u64, MalformedEventId> {
    if text.len() == digits { hexadecimal(text) } else { Err(MalformedEventId) }
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
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any ID that this server may write.
    pub(in crate::sse) fn event_ids() -> impl Strategy<Value = EventId> {
        let request =
            (1..=u32::MAX, any::<u64>()).prop_map(|(stream, position)| Place::Request { stream, position });
        let kind = prop_oneof![Just(Log::Own), Just(Log::Broadcast)];
        let standalone = (any::<u32>(), 0..1_u64 << 48, 0..1_u64 << 48, kind)
            .prop_map(|(lineage, own, broadcast, kind)| Place::Standalone { lineage, own, broadcast, kind });
        (any::<u32>(), prop_oneof![request, standalone], any::<Option<u32>>())
            .prop_map(|(tag, place, generation)| EventId { tag, place, generation })
    }

    #[test]
    fn only_the_canonical_text_is_accepted() {
        for good in [
            "9f3c21ab-2-000000000000002a",
            "9f3c21ab-2-000000000000002a-1",
            "9f3c21ab-0.1-00000000002a.0",
            "9f3c21ab-0.1-00000000002a.1ffffffff",
            "9f3c21ab-0.1f-2a:000000000001-2",
        ] {
            assert_eq!(good.parse::<EventId>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "-",
            "9f3c21ab",
            "9f3c21ab-2",
            "9f3c21ab-2-2a",
            "9F3C21AB-2-000000000000002a",
            "9f3c21ab-02-000000000000002a",
            "9f3c21ab--000000000000002a",
            "9f3c21ab-0-000000000000002a",
            "9f3c21ab-2-000000000000002a-",
            "9f3c21ab-2-000000000000002a-1-1",
            "9f3c21ab-2-000000000000002a ",
            "9f3c21ab-123456789-000000000000002a",
            "+f3c21ab-2-000000000000002a",
            "9f3c21ab-0.1-00000000002a,1",
            "9f3c21ab-0.1-0000000002a.1",
            "9f3c21ab-0.1-00000000002a.01",
            "9f3c21ab-0.1-00000000002a.",
            "9f3c21ab-0.1-00000000002a.1:1",
            "9f3c21ab-0.1-00000000002a:1",
            "9f3c21ab-0.1-2a:0000000001",
            "9f3c21ab-0.1-:000000000001",
            "9f3c21ab-0.1-00000000002a.1000000000000",
            "9f3c21ab-0.01-00000000002a.1",
            "9f3c21ab-0.-00000000002a.1",
            "9f3c21ab-1.1-00000000002a.1",
            "9f3c21ab-0.1-00000000002é.1",
        ] {
            assert_eq!(bad.parse::<EventId>(), Err(MalformedEventId), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(id in event_ids()) {
            prop_assert_eq!(id.to_string().parse::<EventId>(), Ok(id));
        }

        #[test]
        fn different_ids_have_different_texts(one in event_ids(), other in event_ids()) {
            prop_assert_eq!(one == other, one.to_string() == other.to_string());
        }

        #[test]
        fn what_is_accepted_is_what_would_be_written(text in "[0-9a-fA-F.:-]{0,45}") {
            if let Ok(id) = text.parse::<EventId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn priming_id_never_equals_a_real_id(id in event_ids(), generation: u32) {
            let event = EventId { generation: None, ..id };
            let priming = EventId { generation: Some(generation), ..id };
            prop_assert_ne!(event.to_string(), priming.to_string());
        }
    }
}
