//! The session id: 128 random bits, and their only spelling on the wire.
//!
//! An id is a secret: whoever knows it may speak in the session. So [`Debug`](fmt::Debug) hides it, the
//! header value is marked sensitive, and [`Display`](fmt::Display) is for the wire alone, never for logs or
//! metrics.
//!
//! One id has one spelling (32 lower-case hexadecimal digits), so that two spellings can never reach two
//! owners.

use std::cell::RefCell;
use std::fmt;

use http::HeaderValue;

/// Names a session; unguessable, 128 bits, compared and hashed as one integer.
///
/// # Examples
///
/// ```
/// use ringmain::protocol::SessionId;
///
/// let text = "00112233445566778899aabbccddeeff";
/// let id = SessionId::parse(text).expect("it is the spelling of an ID");
/// assert_eq!(id.to_string(), text);
/// assert_eq!(format!("{id:?}"), "SessionId(..)");
/// assert!(SessionId::parse("short").is_none());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u128);

impl SessionId {
    /// Length of the text form, in bytes.
    #[doc(hidden)]
    pub const TEXT_LEN: usize = 32;

    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#session-management
    //# The session ID SHOULD be globally unique and cryptographically secure (e.g., a securely generated
    //# UUID, a JWT, or a cryptographic hash).
    /// Draws a new id from the operating system's generator.
    ///
    /// # Panics
    ///
    /// If the operating system has no working generator: guessable ids would be worse than stopping.
    #[doc(hidden)]
    pub fn generate() -> Self {
        Self(u128::from_ne_bytes(random()))
    }

    /// Makes an id from its integer, as another node stored it.
    pub(crate) const fn from_u128(value: u128) -> Self {
        Self(value)
    }

    /// Returns the id as an integer, for use as a key.
    pub(crate) const fn as_u128(self) -> u128 {
        self.0
    }

    /// Reads the text form: exactly 32 lower-case hexadecimal digits, else `None`.
    pub fn parse(text: impl AsRef<[u8]>) -> Option<Self> {
        let text: &[u8; Self::TEXT_LEN] = text.as_ref().try_into().ok()?;
        let (high, low) = text.split_at(Self::TEXT_LEN / 2);
        Some(Self(u128::from(parse_half(high)?) << 64 | u128::from(parse_half(low)?)))
    }

    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#session-management
    //# The session ID MUST only contain visible ASCII characters (ranging from 0x21 to 0x7E).
    /// Returns the text form as bytes, all of them ASCII.
    #[doc(hidden)]
    pub fn encode(self) -> [u8; Self::TEXT_LEN] {
        let mut text = [0; Self::TEXT_LEN];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0.to_be_bytes()) {
            pair[0] = hex_digit(byte >> 4);
            pair[1] = hex_digit(byte & 0xf);
        }
        text
    }

    /// Returns the value of the `Mcp-Session-Id` header, marked sensitive so that no log prints it.
    pub(crate) fn to_header_value(self) -> HeaderValue {
        let mut value = header_value(&self.encode());
        value.set_sensitive(true);
        value
    }
}

/// Writes the secret in clear; for the wire, never for logs.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

/// Draws random bytes for one purpose, from those that this thread fetched from the operating system.
fn random<const N: usize>() -> [u8; N] {
    POOL.with_borrow_mut(|pool| {
        if pool.left < N {
            getrandom::fill(&mut pool.bytes).expect("the operating system has a random number generator");
            pool.left = POOL_BYTES;
        }
        pool.left -= N;
        let taken = &mut pool.bytes[pool.left..pool.left + N];
        let drawn = (*taken).try_into().expect("the range has the length");
        // Nothing that was given out stays behind.
        taken.fill(0);
        drawn
    })
}

/// A system call costs about as much as the rest of a new session, so one fetches for a dozen.
const POOL_BYTES: usize = 256;

struct Pool {
    bytes: [u8; POOL_BYTES],
    /// How many from the start were not given out yet.
    left: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; POOL_BYTES], left: 0 }) };
}

/// Draws a random number that is no secret.
pub(crate) fn random_tag() -> u32 {
    u32::from_ne_bytes(random())
}

/// Reads 16 digits. Every digit is looked at, and a bad one is remembered instead of branched on.
fn parse_half(digits: &[u8]) -> Option<u64> {
    let (mut value, mut marks) = (0_u64, 0);
    for &byte in digits {
        let nibble = NIBBLES[usize::from(byte)];
        marks |= nibble;
        value = value << 4 | u64::from(nibble & 0xf);
    }
    (marks & NO_DIGIT == 0).then_some(value)
}

/// Stands in [`NIBBLES`] where a byte is no lower-case hexadecimal digit.
const NO_DIGIT: u8 = 0x80;

/// The value of each hexadecimal digit.
const NIBBLES: [u8; 256] = {
    let mut nibbles = [NO_DIGIT; 256];
    let mut nibble = 0;
    while nibble < 16 {
        nibbles[hex_digit(nibble) as usize] = nibble;
        nibble += 1;
    }
    nibbles
};

const fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

fn header_value(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).expect("hexadecimal digits are valid in a header")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::SessionId;

    #[test]
    fn debug_hides_the_id() {
        let id = SessionId::generate();
        assert_eq!(format!("{id:?}"), "SessionId(..)");
        assert!(id.to_header_value().is_sensitive());
        assert!(!format!("{:?}", id.to_header_value()).contains(&id.to_string()));
    }

    #[test]
    fn generated_ids_differ() {
        let ids: HashSet<_> = (0..1000).map(|_| SessionId::generate()).collect();
        assert_eq!(ids.len(), 1000);
    }

    #[test]
    fn small_values_keep_their_leading_zeros() {
        assert_eq!(SessionId::from_u128(10).to_string(), "0000000000000000000000000000000a");
        assert_eq!(SessionId::parse("0".repeat(32)), Some(SessionId::from_u128(0)));
        assert_eq!(SessionId::parse("f".repeat(32)), Some(SessionId::from_u128(u128::MAX)));
    }

    #[test]
    fn only_the_canonical_spelling_is_read() {
        let good = "0123456789abcdef0123456789abcdef";
        assert!(SessionId::parse(good).is_some());
        for place in 0..32 {
            for bad in ['A', 'F', 'g', '/', ':', '`', ' ', '-', '\0', '\u{7f}'] {
                let mut text = good.to_owned();
                text.replace_range(place..=place, &bad.to_string());
                assert_eq!(SessionId::parse(&text), None, "{text:?}");
            }
        }
        for bad in ["", "0", &good[1..], &format!("{good}0"), &format!(" {}", &good[1..])] {
            assert_eq!(SessionId::parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(value: u128) {
            let id = SessionId::from_u128(value);
            prop_assert_eq!(SessionId::parse(id.to_string()), Some(id));
            prop_assert_eq!(SessionId::parse(id.encode()), Some(id));
            prop_assert_eq!(id.to_string().into_bytes(), id.encode());
            prop_assert_eq!(id.as_u128(), value);
        }

        #[test]
        fn what_is_read_is_written_the_same(text in "[0-9a-fA-Fg]{32}") {
            if let Some(id) = SessionId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
