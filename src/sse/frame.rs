//! One event as finished bytes.

#![allow(unsafe_code, reason = "a frame gives its one pointer to a slot of the ring and takes it back")]

use core::cell::RefCell;
use core::fmt;

use bytes::Bytes;
use triomphe::{Arc, ThinArc};

use super::event_id::StreamName;
use crate::ring::{Entry, Ref};

/// What stands between the event ID and the data.
const BETWEEN: &[u8] = b"\nevent: message\ndata: ";
/// Everything before the data, with room for the longest name, and position 0.
const LONGEST_HEAD: &[u8; 60] = b"id: 00000000-00000000-0000000000000000\nevent: message\ndata: ";
/// What ends an event.
const END: &[u8] = b"\n\n";
/// `id: `, the session tag and a hyphen.
const BEFORE_STREAM: usize = 4 + 8 + 1;

thread_local! {
    /// Where a frame is put together before it is copied, at its exact size, to where it stays.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A scratch buffer that grew beyond this is not kept.
const SCRATCH_KEPT: usize = 64 << 10;

/// Data of an event, serialised once and shared by the frames of any number of streams.
#[derive(Clone)]
pub struct Payload(ThinArc<(), u8>);

impl Payload {
    /// Serialises what `write` appends, which must be one line.
    pub fn encode(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        with_scratch(|scratch| {
            write(scratch);
            debug_assert!(!scratch.contains(&b'\n') && !scratch.contains(&b'\r'));
            scratch.extend_from_slice(END);
            Self(ThinArc::from_header_and_slice((), scratch))
        })
    }

    fn as_bytes(&self) -> &[u8] {
        &self.0.slice
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Payload").field(&self.as_bytes().len()).finish()
    }
}

struct Header {
    position: u64,
    /// What follows the bytes of this frame, if it is shared.
    shared: Option<Payload>,
}

/// One event as finished bytes: built once, shared, never changed once published.
///
/// One pointer to one counted allocation: 32 bytes and the text. A frame whose data is a shared [`Payload`] has
/// only its head there. Cloning is one count.
#[derive(Clone)]
pub struct Frame(ThinArc<Header, u8>);

impl Frame {
    /// Builds the frame of an event of stream `name` whose data is what `write` appends: one line, in UTF-8.
    /// The position is set when the frame is published.
    pub fn encode(name: StreamName, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        with_scratch(|scratch| {
            scratch.extend_from_slice(LONGEST_HEAD);
            write(scratch);
            let data = &scratch[LONGEST_HEAD.len()..];
            debug_assert!(!data.contains(&b'\n') && !data.contains(&b'\r'));
            scratch.extend_from_slice(END);
            Self::finish(name, None, scratch)
        })
    }

    /// Builds the frame of an event of stream `name` whose data is `payload`.
    #[must_use]
    pub fn shared(name: StreamName, payload: &Payload) -> Self {
        Self::finish(name, Some(payload.clone()), LONGEST_HEAD)
    }

    /// Copies `text`, which begins with the longest head, to where it stays; there it gets its name, so that
    /// nothing is read back right after it was written byte by byte.
    #[inline]
    fn finish(name: StreamName, shared: Option<Payload>, text: &[u8]) -> Self {
        let text = &text[LONGEST_HEAD.len() - head_len(name)..];
        let mut frame = ThinArc::from_header_and_slice(Header { position: 0, shared }, text);
        frame.with_arc_mut(|frame| {
            let text = Arc::get_mut(frame).expect("nobody else knows it yet").slice_mut();
            text[..4].copy_from_slice(b"id: ");
            text[BEFORE_STREAM - 1] = b'-';
            write_name(text, name);
        });
        Self(frame)
    }

    /// The position it was published at, or 0.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.0.header.header.position
    }

    /// The bytes, in one or two pieces; the second is empty unless the payload is shared.
    #[must_use]
    #[inline]
    pub fn pieces(&self) -> (&[u8], &[u8]) {
        (&self.0.slice, self.0.header.header.shared.as_ref().map_or(&[], Payload::as_bytes))
    }

    /// The bytes of a frame that stands in a ring, for as long as it stands there.
    #[must_use]
    #[inline]
    pub fn pieces_in<'a>(frame: &Ref<'a, Self>) -> (&'a [u8], &'a [u8]) {
        let (head, tail) = frame.pieces();
        // SAFETY: `Ref<'a, _>` says that the entry stays for `'a`; the bytes belong to its allocation (or to
        // the payload that it counts), do not move, and do not change once published.
        unsafe {
            (
                core::slice::from_raw_parts(head.as_ptr(), head.len()),
                core::slice::from_raw_parts(tail.as_ptr(), tail.len()),
            )
        }
    }

    /// How many bytes the event is on the wire.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        let (head, tail) = self.pieces();
        head.len() + tail.len()
    }

    /// Never: an event has at least its ID.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The whole event as shared bytes. No copy if it is in one piece.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        struct Owner(Frame);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                self.0.pieces().0
            }
        }
        match self.pieces() {
            (_, []) => Bytes::from_owner(Owner(self.clone())),
            (head, tail) => Bytes::from([head, tail].concat()),
        }
    }

    /// The data of the event: the bytes of one JSON-RPC message.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        let (head, tail) = self.pieces();
        let end = |bytes: &'_ [u8]| bytes.len() - END.len();
        if tail.is_empty() { &head[self.head_len()..end(head)] } else { &tail[..end(tail)] }
    }

    /// The data of the event as shared bytes. No copy.
    #[must_use]
    pub fn data_bytes(&self) -> Bytes {
        struct Owner(Frame);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                self.0.data()
            }
        }
        Bytes::from_owner(Owner(self.clone()))
    }

    fn head_len(&self) -> usize {
        position_at(&self.0.slice) + 16 + BETWEEN.len()
    }
}

// SAFETY: `ThinArc` is one pointer to a counted allocation that begins with an `AtomicUsize`, so it is aligned
// to 8 bytes on 64-bit and 4 on 32-bit targets, and it does not move. `from_raw` is its own inverse.
unsafe impl Entry for Frame {
    fn into_raw(self) -> *mut () {
        self.0.into_raw().cast_mut().cast()
    }

    #[inline]
    unsafe fn from_raw(raw: *mut ()) -> Self {
        // SAFETY: the caller passes what `into_raw` gave.
        Self(unsafe { ThinArc::from_raw(raw.cast()) })
    }

    #[inline]
    fn place(&mut self, position: u64) {
        self.0.with_arc_mut(|frame| {
            let frame = Arc::get_mut(frame).expect("a frame is not shared before it is published");
            frame.header_mut().position = position;
            let text = frame.slice_mut();
            let at = position_at(text);
            let text = &mut text[at..at + 16];
            text[..8].copy_from_slice(&digits((position >> 32) as u32));
            text[8..].copy_from_slice(&digits(position as u32));
        });
    }

    #[inline]
    fn weight(&self) -> usize {
        self.len()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("position", &self.position()).field("len", &self.len()).finish()
    }
}

fn with_scratch<R>(build: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    // Taken out and not borrowed, so that a serialiser that builds a frame of its own finds an empty one.
    let mut scratch = SCRATCH.take();
    scratch.clear();
    let built = build(&mut scratch);
    if scratch.capacity() <= SCRATCH_KEPT {
        SCRATCH.set(scratch);
    }
    built
}

/// Puts the name of the stream, a digit or eight of it, where [`LONGEST_HEAD`] left room for eight.
fn write_name(text: &mut [u8], name: StreamName) {
    text[4..12].copy_from_slice(&digits(name.tag));
    // One word: the digits of the stream without leading zeros, then of what follows them as much as fits.
    let zeros = (name.stream | 1).leading_zeros() & !3;
    let follows = 0x2d30_3030_3030_3030_u64.checked_shr(64 - 2 * zeros).unwrap_or(0);
    let word = u64::from_be_bytes(digits(name.stream)) << (2 * zeros) | follows;
    text[BEFORE_STREAM..BEFORE_STREAM + 8].copy_from_slice(&word.to_be_bytes());
}

/// How many bytes stand before the data.
fn head_len(name: StreamName) -> usize {
    LONGEST_HEAD.len() - (name.stream | 1).leading_zeros() as usize / 4
}

/// Where the digits of the position begin: behind the hyphen that follows the stream, 1 to 8 digits long.
#[inline]
fn position_at(frame: &[u8]) -> usize {
    let mut at = BEFORE_STREAM + 1;
    while frame[at] != b'-' {
        at += 1;
    }
    at + 1
}

/// The lower-case hexadecimal digits of `value`, with leading zeros: all eight at once, a byte each.
#[inline]
fn digits(value: u32) -> [u8; 8] {
    let mut each = u64::from(value);
    each = (each | each << 16) & 0x0000_ffff_0000_ffff;
    each = (each | each << 8) & 0x00ff_00ff_00ff_00ff;
    each = (each | each << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 in each byte that is ten or more: there the letters begin.
    let letters = (each + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (each + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::EventId;
    use proptest::prelude::*;

    fn text(frame: &Frame) -> String {
        let (head, tail) = frame.pieces();
        String::from_utf8([head, tail].concat()).unwrap()
    }

    #[test]
    fn a_frame_is_a_pointer() {
        assert_eq!(size_of::<Frame>(), 8);
        assert_eq!(size_of::<Option<Payload>>(), 8);
    }

    #[test]
    fn a_serialiser_may_build_a_frame_of_its_own() {
        let name = StreamName { tag: 1, stream: 0 };
        let outer = Frame::encode(name, |out| {
            out.extend_from_slice(b"outer ");
            let inner = Frame::encode(name, |out| out.extend_from_slice(b"inner"));
            out.extend_from_slice(inner.data());
        });
        assert_eq!(outer.data(), b"outer inner");
    }

    proptest! {
        #[test]
        fn both_kinds_of_frame_have_the_same_bytes(tag: u32, stream: u32, position: u64, data in "[^\r\n]{0,300}") {
            let name = StreamName { tag, stream };
            let mut owned = Frame::encode(name, |out| out.extend_from_slice(data.as_bytes()));
            let mut shared = Frame::shared(name, &Payload::encode(|out| out.extend_from_slice(data.as_bytes())));
            owned.place(7);
            owned.place(position);
            shared.place(position);
            let id = EventId::event(name, position);
            let expected = format!("id: {id}\nevent: message\ndata: {data}\n\n");
            for frame in [&owned, &shared] {
                prop_assert_eq!(text(frame), &expected[..]);
                prop_assert_eq!(&frame.to_bytes()[..], expected.as_bytes());
                prop_assert_eq!(frame.data(), data.as_bytes());
                prop_assert_eq!(frame.len(), expected.len());
                prop_assert_eq!(frame.position(), position);
            }
        }
    }
}
