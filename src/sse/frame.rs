//! One event as finished bytes, and the head of those that are shared.

#![allow(unsafe_code, reason = "a frame gives its one pointer to a slot of the ring and takes it back")]

use core::cell::RefCell;
use core::fmt;

use bytes::Bytes;
use triomphe::{Arc, ThinArc};

use super::event_id::StreamName;
use super::retained;
use crate::ring::{Entry, Position, Ref};

/// What ends an event.
const END: &[u8] = b"\n\n";

thread_local! {
    /// Where a frame is put together before it is copied, at its exact size, to where it stays.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A scratch buffer that grew beyond this is not kept.
const SCRATCH_KEPT: usize = 64 << 10;

/// One event as finished bytes: serialised once, never changed once published.
///
/// One pointer to one counted allocation: 24 bytes and the text. Cloning is one count. There are two kinds:
///
/// - *Whole*, for one stream: the event from its ID to its end. The position is filled in when it is published.
/// - *Shared*, for any number of standalone streams: the data and the end. What differs from stream to stream, the
///   event's ID, says where the frame stands, which is known from where it stands: it is written when the frame is
///   ([`Head`]). So what each stream retains of it is a pointer.
#[derive(Clone)]
pub struct Frame(ThinArc<Header, u8>);

/// What stands before the bytes of a frame. Counts them for as long as it is there.
struct Header {
    head_len: u32,
    /// Bytes that the frame takes, its own fixed part included.
    counted: u32,
}

/// Bytes of a frame before its text.
const FIXED: usize = 24;

impl Header {
    #[inline]
    fn new(head_len: usize, len: usize) -> Self {
        let counted = u32::try_from(FIXED + len).unwrap_or(u32::MAX);
        retained::count(i64::from(counted));
        Self { head_len: head_len as u32, counted }
    }
}

impl Drop for Header {
    #[inline]
    fn drop(&mut self) {
        retained::count(-i64::from(self.counted));
    }
}

impl Frame {
    /// Builds the frame of an event of the stream `name` whose data is what `write` appends: one line, in UTF-8.
    #[inline]
    pub fn whole(name: StreamName, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let head = Head::of(name);
        Self::build(&head.text[..head.len], write)
    }

    /// Builds the frame of an event for any number of standalone streams.
    #[inline]
    pub fn shared(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        Self::build(&[], write)
    }

    #[inline]
    fn build(head: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> Self {
        with_scratch(|scratch| {
            scratch.extend_from_slice(head);
            write(scratch);
            debug_assert!(!scratch[head.len()..].iter().any(|byte| matches!(byte, b'\n' | b'\r')));
            scratch.extend_from_slice(END);
            Self(ThinArc::from_header_and_slice(Header::new(head.len(), scratch.len()), scratch))
        })
    }

    /// The bytes: all of the event, or what is behind its head if the frame is shared.
    #[must_use]
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.slice
    }

    /// Whether the bytes are all of the event.
    #[must_use]
    #[inline]
    pub fn is_whole(&self) -> bool {
        self.head_len() > 0
    }

    #[inline]
    fn head_len(&self) -> usize {
        self.0.header.header.head_len as usize
    }

    /// The bytes of a frame that stands in a ring, for as long as it stands there.
    #[must_use]
    #[inline]
    pub fn bytes_in<'a>(frame: &Ref<'a, Self>) -> &'a [u8] {
        let bytes = frame.as_bytes();
        // SAFETY: `Ref<'a, _>` says that the entry stays for `'a`; the bytes belong to its allocation, do not
        // move, and do not change.
        unsafe { core::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) }
    }

    /// How many bytes there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Never: an event has an end at least.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The data of the event: the bytes of one JSON-RPC message.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.as_bytes()[self.head_len()..self.len() - END.len()]
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
    fn place(&mut self, position: Position) {
        let head_len = self.head_len();
        if head_len > 0 {
            self.0.with_arc_mut(|frame| {
                let frame = Arc::get_mut(frame).expect("a whole frame is not shared before it is published");
                fill_in(&mut frame.slice_mut()[..head_len], position);
            });
        }
    }

    /// How many bytes the event is on the wire.
    #[inline]
    fn weight(&self) -> usize {
        if self.is_whole() { self.len() } else { SHARED_HEAD + self.len() }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("len", &self.len()).finish()
    }
}

#[inline]
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

/// Everything before the data, with room for the longest name, and position 0.
const LONGEST: &[u8; 60] = b"id: 00000000-00000000-0000000000000000\nevent: message\ndata: ";
/// `id: `, the session tag and a hyphen.
const BEFORE_STREAM: usize = 4 + 8 + 1;
/// What stands behind the position.
const BEHIND_POSITION: usize = "\nevent: message\ndata: ".len();

/// How long the head of an event of a standalone stream is: the number of that stream has one digit.
const SHARED_HEAD: usize = LONGEST.len() - 7;

/// Fills the position into a head.
#[inline]
fn fill_in(head: &mut [u8], position: Position) {
    let end = head.len() - BEHIND_POSITION;
    head[end - 16..end - 8].copy_from_slice(&digits((position >> 32) as u32));
    head[end - 8..end].copy_from_slice(&digits(position as u32));
}

/// What goes before the data of an event: its ID, and its kind. Made for a stream, filled in for a position.
#[derive(Clone, Copy)]
pub struct Head {
    text: [u8; LONGEST.len()],
    len: usize,
}

impl Head {
    /// Makes the head for events of the stream `name`.
    #[must_use]
    #[inline]
    pub fn of(name: StreamName) -> Self {
        let zeros = (name.stream | 1).leading_zeros() as usize / 4;
        let mut text = [0; LONGEST.len()];
        let len = LONGEST.len() - zeros;
        text[..len].copy_from_slice(&LONGEST[zeros..]);
        text[..4].copy_from_slice(b"id: ");
        text[4..12].copy_from_slice(&digits(name.tag));
        text[12] = b'-';
        let stream = digits(name.stream);
        text[BEFORE_STREAM..BEFORE_STREAM + 8 - zeros].copy_from_slice(&stream[zeros..]);
        text[BEFORE_STREAM + 8 - zeros] = b'-';
        Self { text, len }
    }

    /// How many bytes it has, whatever the position.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The bytes for the event at `position`.
    #[must_use]
    #[inline]
    pub fn at(&mut self, position: Position) -> &[u8] {
        fill_in(&mut self.text[..self.len], position);
        &self.text[..self.len]
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head").field("len", &self.len).finish()
    }
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

    #[test]
    fn a_frame_is_a_pointer() {
        assert_eq!(size_of::<Frame>(), 8);
    }

    /// In a process of its own the number would be exact; here other tests have frames of theirs.
    #[test]
    fn frames_are_counted_while_anybody_has_them() {
        const LARGE: usize = 8 << 20;
        let large = Frame::shared(|out| out.resize(LARGE, b'x'));
        let other = large.clone();
        drop(large);
        assert!(retained::retained_bytes() >= LARGE as u64);
        drop(other);
        assert!(retained::retained_bytes() < LARGE as u64);
        let (head, frame) = (size_of::<Header>() + size_of::<[usize; 2]>(), Frame::shared(|_| {}));
        assert_eq!((head, frame.0.header.header.counted), (FIXED, FIXED as u32 + 2));
    }

    #[test]
    fn a_serialiser_may_build_a_frame_of_its_own() {
        let outer = Frame::shared(|out| {
            out.extend_from_slice(b"outer ");
            let inner = Frame::shared(|out| out.extend_from_slice(b"inner"));
            out.extend_from_slice(inner.data());
        });
        assert_eq!(outer.data(), b"outer inner");
    }

    proptest! {
        #[test]
        fn both_kinds_are_the_same_event(tag: u32, stream: u32, shift in 0..32, position: u64, data in "[^\r\n]{0,300}") {
            let name = StreamName { tag, stream: stream >> shift };
            let frame = Frame::shared(|out| out.extend_from_slice(data.as_bytes()));
            let mut whole = Frame::whole(name, |out| out.extend_from_slice(data.as_bytes()));
            whole.place(7);
            whole.place(position);
            let mut head = Head::of(name);
            let len = head.len();
            let _ = head.at(!position);
            let event = [head.at(position), frame.as_bytes()].concat();
            let id = EventId::event(name, position);
            prop_assert_eq!(String::from_utf8(event).unwrap(), format!("id: {id}\nevent: message\ndata: {data}\n\n"));
            prop_assert_eq!(head.at(position).len(), len);
            prop_assert_eq!([head.at(position), frame.as_bytes()].concat(), whole.as_bytes());
            prop_assert_eq!((whole.data(), whole.weight()), (data.as_bytes(), whole.len()));
            prop_assert!(whole.is_whole() && !frame.is_whole());
            let standalone = Frame::whole(StreamName { tag, stream: 0 }, |out| out.extend_from_slice(data.as_bytes()));
            prop_assert_eq!(frame.weight(), standalone.weight());
            prop_assert_eq!(frame.data(), data.as_bytes());
            prop_assert_eq!(&frame.data_bytes()[..], data.as_bytes());
            prop_assert_eq!(frame.len(), data.len() + 2);
        }
    }
}
