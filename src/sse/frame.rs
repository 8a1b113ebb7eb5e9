//! One event as finished bytes, and the head of those that are shared.

#![allow(unsafe_code, reason = "a frame gives its one pointer to a slot of the ring and takes it back")]

use core::cell::RefCell;
use core::fmt;

use bytes::Bytes;
use triomphe::{Arc, ThinArc};

use super::event_id::{LOG_DIGITS, Log, Series, StreamName};
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
/// - *Shared*, for standalone streams and topics: the data and the end. The event's ID differs from connection to
///   connection, so it is written when the frame is ([`EventHead`]). Any number of logs may hold the frame; each holds
///   one pointer.
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
    /// Builds the frame of an event of the stream `name`. Its data is what `write` appends, in UTF-8; line breaks in
    /// it become spaces, which means the same in JSON.
    #[inline]
    pub fn whole(name: StreamName, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let head = EventHead::of(Series::Request(name));
        Self::build(head.as_bytes(), write)
    }

    /// Builds the frame of an event for standalone streams and topics. Its data is what `write` appends, as in
    /// [`whole`](Self::whole).
    #[inline]
    pub fn shared(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        Self::build(&[], write)
    }

    #[inline]
    fn build(head: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> Self {
        with_scratch(|scratch| {
            scratch.extend_from_slice(head);
            write(scratch);
            make_one_line(&mut scratch[head.len()..]);
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

    /// Becomes a copy with `position` in its ID, because a clone stands elsewhere under another position.
    #[cold]
    fn replace_by_copy(&mut self, position: Position) {
        with_scratch(|scratch| {
            scratch.extend_from_slice(self.as_bytes());
            let head_len = self.head_len();
            fill_in(position_in(&mut scratch[..head_len]), position);
            *self = Self(ThinArc::from_header_and_slice(Header::new(head_len, scratch.len()), scratch));
        });
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
            let is_filled_in = self.0.with_arc_mut(|frame| {
                let frame = Arc::get_mut(frame)?;
                fill_in(position_in(&mut frame.slice_mut()[..head_len]), position);
                Some(())
            });
            if is_filled_in.is_none() {
                self.replace_by_copy(position);
            }
        }
    }

    /// How many bytes the event is on the wire. A shared one counts with the head of a first lineage.
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

/// Replaces line breaks by spaces. A line break would end the field, and the event with it.
///
//= https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
//# Lines must be separated by either a U+000D CARRIAGE RETURN U+000A LINE FEED (CRLF) character pair, a single
//# U+000A LINE FEED (LF) character, or a single U+000D CARRIAGE RETURN (CR) character.
#[inline]
fn make_one_line(data: &mut [u8]) {
    let mut from = 0;
    while let Some(index) = memchr::memchr2(b'\n', b'\r', &data[from..]) {
        from += index;
        data[from] = b' ';
    }
}

/// What stands between the ID and the data.
const BEFORE_DATA: &[u8] = b"\nevent: message\ndata: ";
/// The longest head: `id: `, tag, `-0.`, lineage, hyphen, two positions with a mark between them.
const LONGEST: usize = 4 + 8 + 3 + 8 + 1 + LOG_DIGITS + 1 + LOG_DIGITS + BEFORE_DATA.len();
/// The head of an event of a first lineage, with a position of one digit in the other log.
const SHARED_HEAD: usize = LONGEST - 7 - (LOG_DIGITS - 1);
/// Digits of the position of a request's event.
const POSITION_DIGITS: usize = 16;

/// The place of the position in the head of a whole frame.
fn position_in(head: &mut [u8]) -> &mut [u8] {
    let end = head.len() - BEFORE_DATA.len();
    &mut head[end - POSITION_DIGITS..end]
}

/// Fills the lowest digits of `position` into `place`.
#[inline]
fn fill_in(place: &mut [u8], position: Position) {
    let (high, low) = place.split_at_mut(place.len() - 8);
    low.copy_from_slice(&digits(position as u32));
    high.copy_from_slice(&digits((position >> 32) as u32)[8 - high.len()..]);
}

/// What goes before the data of an event: its ID and its kind. Made for a series, filled in for each position.
#[derive(Clone, Copy)]
pub struct EventHead {
    text: [u8; LONGEST],
    len: usize,
    /// Where the position stands.
    position: usize,
    position_len: usize,
}

impl EventHead {
    /// How many bytes the head for the events of `series` has, whatever the position.
    #[must_use]
    #[inline]
    pub(super) fn len_of(series: Series) -> usize {
        let digits = match series {
            Series::Request(StreamName { stream, .. }) => 8 + 1 + short_len(stream) + 1 + POSITION_DIGITS,
            Series::Own { lineage, broadcast: other, .. } | Series::Broadcast { lineage, own: other, .. } => {
                8 + 3 + short_len(lineage) + 1 + LOG_DIGITS + 1 + short_position_len(other)
            }
            Series::Topic => POSITION_DIGITS,
        };
        4 + digits + BEFORE_DATA.len()
    }

    /// Makes the head for the events of `series`.
    #[must_use]
    #[inline]
    pub fn of(series: Series) -> Self {
        let mut head = Self { text: [0; LONGEST], len: 0, position: 0, position_len: 0 };
        head.push(b"id: ");
        match series {
            Series::Request(StreamName { tag, stream }) => {
                head.push(&digits(tag));
                head.push(b"-");
                head.push_short(stream);
                head.push(b"-");
                head.push_position(POSITION_DIGITS);
            }
            Series::Own { tag, lineage, broadcast } => {
                head.push_lineage(tag, lineage);
                head.push_position(LOG_DIGITS);
                head.push(&[Log::Own.mark()]);
                head.push_short_position(broadcast);
            }
            Series::Broadcast { tag, lineage, own } => {
                head.push_lineage(tag, lineage);
                head.push_short_position(own);
                head.push(&[Log::Broadcast.mark()]);
                head.push_position(LOG_DIGITS);
            }
            Series::Topic => head.push_position(POSITION_DIGITS),
        }
        head.push(BEFORE_DATA);
        head
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        self.text[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends a number without leading zeros.
    #[inline]
    fn push_short(&mut self, number: u32) {
        self.push(&digits(number)[8 - short_len(number)..]);
    }

    #[inline]
    fn push_lineage(&mut self, tag: u32, lineage: u32) {
        if lineage < 0x10 {
            // Nearly always, and in steps of a fixed length.
            self.push(&digits(tag));
            return self.push(&[b'-', b'0', b'.', digits(lineage)[7], b'-']);
        }
        self.push(&digits(tag));
        self.push(b"-0.");
        self.push_short(lineage);
        self.push(b"-");
    }

    /// Appends the position in the other log, without leading zeros.
    #[inline]
    fn push_short_position(&mut self, position: Position) {
        let high = (position >> 32) as u32;
        if high > 0 {
            self.push_short(high);
            self.push(&digits(position as u32));
        } else {
            self.push_short(position as u32);
        }
    }

    /// Leaves the place of the position that differs from event to event.
    #[inline]
    fn push_position(&mut self, position_len: usize) {
        (self.position, self.position_len) = (self.len, position_len);
        self.len += position_len;
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
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
        fill_in(&mut self.text[self.position..self.position + self.position_len], position);
        self.as_bytes()
    }
}

impl fmt::Debug for EventHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventHead").field("len", &self.len).finish()
    }
}

/// How many digits a number has without leading zeros.
#[inline]
fn short_len(number: u32) -> usize {
    8 - (number | 1).leading_zeros() as usize / 4
}

/// The same of a position.
#[inline]
fn short_position_len(position: Position) -> usize {
    16 - (position | 1).leading_zeros() as usize / 4
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
    use crate::sse::event_id::tests::event_ids;
    use crate::sse::{EventId, Place};
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

    #[test]
    fn a_line_break_in_the_data_does_not_end_the_event() {
        let frame = Frame::shared(|out| out.extend_from_slice(b"{\r\n\"a\":\n1}\r"));
        assert_eq!(frame.data(), b"{  \"a\": 1} ");
    }

    #[test]
    fn a_clone_that_is_published_elsewhere_leaves_the_other_as_it_was() {
        let name = StreamName { tag: 1, stream: 2 };
        let mut first = Frame::whole(name, |out| out.extend_from_slice(b"x"));
        first.place(7);
        let mut second = first.clone();
        second.place(8);
        let text = |position| format!("id: {}\nevent: message\ndata: x\n\n", EventId::event(name, position));
        assert_eq!(first.as_bytes(), text(7).as_bytes());
        assert_eq!(second.as_bytes(), text(8).as_bytes());
    }

    #[test]
    fn a_topic_s_ids_are_its_positions() {
        assert_eq!(EventHead::of(Series::Topic).at(42), b"id: 000000000000002a\nevent: message\ndata: ");
    }

    /// The series in which an event with this ID stands, and its position there.
    fn series_of(id: EventId) -> (Series, Position) {
        let EventId { tag, place, .. } = id;
        match place {
            Place::Request { stream, position } => (Series::Request(StreamName { tag, stream }), position),
            Place::Standalone { lineage, own, broadcast, kind: Log::Own } => {
                (Series::Own { tag, lineage, broadcast }, own)
            }
            Place::Standalone { lineage, own, broadcast, kind: Log::Broadcast } => {
                (Series::Broadcast { tag, lineage, own }, broadcast)
            }
        }
    }

    proptest! {
        #[test]
        fn both_kinds_are_the_same_event(id in event_ids(), data in "[^\r\n]{0,300}") {
            let id = EventId { generation: None, ..id };
            let (series, position) = series_of(id);
            let frame = Frame::shared(|out| out.extend_from_slice(data.as_bytes()));
            let mut head = EventHead::of(series);
            prop_assert_eq!(head.len(), EventHead::len_of(series));
            let len = head.len();
            let _ = head.at(!position);
            let event = [head.at(position), frame.as_bytes()].concat();
            prop_assert_eq!(head.at(position).len(), len);
            prop_assert_eq!(String::from_utf8(event).unwrap(), format!("id: {id}\nevent: message\ndata: {data}\n\n"));
            if let Series::Request(name) = series {
                let mut whole = Frame::whole(name, |out| out.extend_from_slice(data.as_bytes()));
                whole.place(7);
                whole.place(position);
                prop_assert_eq!([head.at(position), frame.as_bytes()].concat(), whole.as_bytes());
                prop_assert_eq!((whole.data(), whole.weight()), (data.as_bytes(), whole.len()));
                prop_assert!(whole.is_whole());
            }
            let first = EventHead::of(Series::Own { tag: id.tag, lineage: 1, broadcast: 0 });
            prop_assert_eq!(frame.weight(), first.len() + frame.len());
            prop_assert!(!frame.is_whole());
            prop_assert_eq!(frame.data(), data.as_bytes());
            prop_assert_eq!(&frame.data_bytes()[..], data.as_bytes());
            prop_assert_eq!(frame.len(), data.len() + 2);
        }
    }
}
