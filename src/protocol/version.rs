//! The protocol versions this engine speaks, and what differs between them.
//!
//! Nobody else compares version strings: a caller asks a question such as [`ProtocolVersion::primes`].
//! Versions are ordered by date, so a later version compares greater.

use std::fmt;

/// A dated revision of the protocol, as sent in `MCP-Protocol-Version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ProtocolVersion {
    /// `2025-03-26`, the first with Streamable HTTP.
    V2025_03_26,
    /// `2025-06-18`, the first with the `MCP-Protocol-Version` header.
    V2025_06_18,
    /// `2025-11-25`, the first with priming events and `retry`.
    V2025_11_25,
}

impl ProtocolVersion {
    /// Every version this engine speaks, oldest first.
    pub const ALL: &'static [Self] = &[Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25];

    /// The newest version this engine speaks.
    pub const LATEST: Self = Self::V2025_11_25;

    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#protocol-version-header
    //# For backwards compatibility, if the server does not receive an MCP-Protocol-Version header, and has no
    //# other way to identify the version - for example, by relying on the protocol version negotiated during
    //# initialization - the server SHOULD assume protocol version 2025-03-26.
    /// The version of a request that has neither the header nor a session.
    pub(crate) const ASSUMED: Self = Self::V2025_03_26;

    /// Reads a version as it stands in the header or in `initialize`; `None` if this engine does not speak
    /// it.
    ///
    /// The comparison is exact: no white space, no other spelling of the date.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmain::protocol::ProtocolVersion;
    ///
    /// assert_eq!(ProtocolVersion::parse("2025-11-25"), Some(ProtocolVersion::LATEST));
    /// assert_eq!(ProtocolVersion::parse("2024-11-05"), None);
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|version| version.as_str() == text)
    }

    /// Returns the text sent on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
        }
    }

    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
    //# The server SHOULD immediately send an SSE event consisting of an event ID and an empty data field in
    //# order to prime the client to reconnect (using that event ID as Last-Event-ID).
    /// Whether streams open with a priming event and carry `retry`: from `2025-11-25` on.
    ///
    /// Older clients may hand the empty event to their JSON parser, so they never get one.
    pub(crate) const fn primes(self) -> bool {
        matches!(self, Self::V2025_11_25)
    }

    //= https://modelcontextprotocol.io/specification/2025-03-26/basic#batching
    //# MCP implementations MAY support sending JSON-RPC batches, but MUST support receiving JSON-RPC batches.
    /// Whether one POST may have several messages: in `2025-03-26`, and not later.
    pub(crate) const fn has_batches(self) -> bool {
        matches!(self, Self::V2025_03_26)
    }

    /// Returns the place of this version in [`ALL`](Self::ALL), to store it in one byte.
    pub(crate) const fn to_index(self) -> u8 {
        match self {
            Self::V2025_03_26 => 0,
            Self::V2025_06_18 => 1,
            Self::V2025_11_25 => 2,
        }
    }

    /// Returns the version at a place in [`ALL`](Self::ALL), or `None` past its end.
    pub(crate) fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::ProtocolVersion;

    #[test]
    fn every_version_round_trips() {
        for (index, version) in ProtocolVersion::ALL.iter().enumerate() {
            assert_eq!(ProtocolVersion::parse(version.as_str()), Some(*version));
            assert_eq!(usize::from(version.to_index()), index);
            assert_eq!(ProtocolVersion::from_index(version.to_index()), Some(*version));
        }
        assert_eq!(ProtocolVersion::from_index(3), None);
    }

    #[test]
    fn versions_are_ordered_by_date() {
        assert!(ProtocolVersion::ALL.is_sorted());
        assert!(ProtocolVersion::ALL.is_sorted_by_key(|version| version.as_str()));
        assert_eq!(ProtocolVersion::ALL.last(), Some(&ProtocolVersion::LATEST));
    }

    #[test]
    fn other_spellings_are_unknown() {
        for text in ["", "2024-11-05", "2025-11-25 ", "2025-11-25,2025-11-25", "DRAFT-2026-v1", "2025-1-1"] {
            assert_eq!(ProtocolVersion::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn priming_is_gated_by_version() {
        assert!(!ProtocolVersion::V2025_03_26.primes());
        assert!(!ProtocolVersion::V2025_06_18.primes());
        assert!(ProtocolVersion::V2025_11_25.primes());
    }
}
