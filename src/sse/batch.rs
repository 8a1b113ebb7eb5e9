//! Consecutive events of a stream as bytes for the socket.

use core::cell::OnceCell;
use core::fmt;
use std::io::IoSlice;

use bytes::Buf;

use super::event_id::Series;
use super::frame::{EventHead, Frame};
use crate::ring::{Batch, Pending, Position, Ref};

/// Consecutive events of one stream.
pub struct Events {
    frames: Batch<Frame>,
    series: Series,
    wire_len: usize,
}

impl Events {
    /// Takes `frames` for events of `series`.
    #[must_use]
    pub fn new(frames: Batch<Frame>, series: Series) -> Self {
        let head_len = EventHead::len_of(series);
        let wire_len = frames.iter().map(|frame| wire_len(&frame, head_len)).sum();
        Self { frames, series, wire_len }
    }

    /// The frames.
    #[must_use]
    pub fn frames(&self) -> &Batch<Frame> {
        &self.frames
    }

    /// How many bytes they are on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.wire_len
    }

    /// Appends a copy of the bytes: what a small batch leaves by.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        append(self.frames.positions().zip(self.frames.iter()), self.series, out);
    }

    /// The bytes where they stand, for vectored writes: what a large batch leaves by.
    #[must_use]
    pub fn into_buf(self) -> EventsBuf {
        let remaining = self.wire_len();
        EventsBuf { events: self, heads: OnceCell::new(), index: 0, written: 0, remaining }
    }
}

/// Consecutive events of one stream, read where they stand in its ring.
pub(crate) struct PendingEvents<'a> {
    frames: Pending<'a, Frame>,
    series: Series,
    wire_len: usize,
}

impl<'a> PendingEvents<'a> {
    /// Takes `frames` for events of `series`.
    #[inline]
    pub(crate) fn new(frames: Pending<'a, Frame>, series: Series) -> Self {
        let head_len = EventHead::len_of(series);
        let wire_len = frames.iter().map(|(_, frame)| wire_len(&frame, head_len)).sum();
        Self { frames, series, wire_len }
    }

    /// How many bytes they are on the wire.
    #[inline]
    pub(crate) fn wire_len(&self) -> usize {
        self.wire_len
    }

    /// How many there are; at least one.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Position of the last one.
    #[inline]
    pub(crate) fn end(&self) -> Position {
        self.frames.end()
    }

    /// Appends a copy of the bytes.
    #[inline]
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        append(self.frames.iter(), self.series, out);
    }
}

/// Appends events of `series`.
#[inline]
fn append<'a>(frames: impl Iterator<Item = (Position, Ref<'a, Frame>)>, series: Series, out: &mut Vec<u8>) {
    let mut head = EventHead::of(series);
    for (position, frame) in frames {
        if !frame.is_whole() {
            out.extend_from_slice(head.at(position));
        }
        out.extend_from_slice(frame.as_bytes());
    }
}

/// How many bytes a frame is on the wire where shared ones get a head of `head_len` bytes.
#[inline]
fn wire_len(frame: &Frame, head_len: usize) -> usize {
    if frame.is_whole() { frame.len() } else { head_len + frame.len() }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("positions", &self.frames.positions()).finish_non_exhaustive()
    }
}

/// Events as a [`Buf`] whose pieces are the frames' own bytes, and heads before shared ones: the data is not copied,
/// and whatever is pending leaves in one vectored write.
pub struct EventsBuf {
    events: Events,
    /// The heads of all events, made when the first shared frame is met.
    heads: OnceCell<Box<[u8]>>,
    /// Which event is being written, and how much of it was.
    index: usize,
    written: usize,
    remaining: usize,
}

impl EventsBuf {
    /// What goes before the bytes of a frame.
    fn head(&self, index: usize, frame: &Frame) -> &[u8] {
        if frame.is_whole() {
            return &[];
        }
        let (frames, mut head) = (&self.events.frames, EventHead::of(self.events.series));
        let heads = self.heads.get_or_init(|| {
            let mut heads = Vec::with_capacity(frames.len() * head.len());
            frames.positions().for_each(|position| heads.extend_from_slice(head.at(position)));
            heads.into()
        });
        &heads[index * head.len()..(index + 1) * head.len()]
    }
}

impl Buf for EventsBuf {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        let Some(frame) = self.events.frames.get(self.index) else { return &[] };
        let head = self.head(self.index, &frame);
        match self.written.checked_sub(head.len()) {
            None => &head[self.written..],
            Some(written) => &Frame::bytes_in(&frame)[written..],
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut filled, mut skip) = (0, self.written);
        for (index, frame) in (self.index..).zip(self.events.frames.iter_from(self.index)) {
            for piece in [self.head(index, &frame), Frame::bytes_in(&frame)] {
                let rest = piece.get(skip..).unwrap_or_default();
                skip = skip.saturating_sub(piece.len());
                if rest.is_empty() {
                    continue;
                }
                if filled == slices.len() {
                    return filled;
                }
                slices[filled] = IoSlice::new(rest);
                filled += 1;
            }
        }
        filled
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining, "cannot advance past the end of the batch");
        self.remaining -= count;
        self.written += count;
        while let Some(frame) = self.events.frames.get(self.index) {
            let len = self.head(self.index, &frame).len() + frame.len();
            if self.written < len {
                return;
            }
            self.written -= len;
            self.index += 1;
        }
    }
}

impl fmt::Debug for EventsBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventsBuf").field("remaining", &self.remaining).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use super::*;
    use crate::ring::{Cursor, FIRST, Limits, Ring, Step};
    use crate::sse::StreamName;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_way_of_writing_gives_the_same_bytes(
            data in prop::collection::vec(("[^\r\n]{0,40}", any::<bool>()), 1..40),
            stream in 1..=u32::MAX,
            steps in prop::collection::vec((1..200usize, 1..5usize), 1..50),
        ) {
            let (ring, name) = (Ring::new(), StreamName { tag: 1, stream });
            for (text, is_whole) in &data {
                let write = |out: &mut Vec<u8>| out.extend_from_slice(text.as_bytes());
                let frame = if *is_whole { Frame::whole(name, write) } else { Frame::shared(write) };
                ring.publish(frame, 0, &Limits::default()).unwrap();
            }
            let Step::Item(frames) = Cursor::at(FIRST).take(&ring, 1000, usize::MAX) else { panic!("there are some") };
            let expected: String = (FIRST..).zip(&data).map(|(position, (text, _))| {
                let id = crate::sse::EventId::event(name, position);
                format!("id: {id}\nevent: message\ndata: {text}\n\n")
            }).collect();
            let events = Events::new(frames, Series::Request(name));
            let mut copied = Vec::new();
            events.append_to(&mut copied);
            prop_assert_eq!(&copied[..], expected.as_bytes());
            prop_assert_eq!(events.wire_len(), expected.len());
            let (mut batch, mut written) = (events.into_buf(), Vec::new());
            prop_assert_eq!(batch.remaining(), expected.len());
            for (step, vectors) in steps.into_iter().cycle() {
                if !batch.has_remaining() {
                    break;
                }
                let mut slices = vec![IoSlice::new(&[]); vectors];
                let filled = batch.chunks_vectored(&mut slices);
                let shown: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
                prop_assert!(!batch.chunk().is_empty() && shown.starts_with(batch.chunk()));
                let step = step.min(shown.len());
                written.extend_from_slice(&shown[..step]);
                batch.advance(step);
            }
            prop_assert_eq!(&written[..], expected.as_bytes());
        }
    }
}
