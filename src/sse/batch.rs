//! A batch of frames as one run of bytes for the socket.

use std::io::IoSlice;

use bytes::Buf;

use super::frame::Frame;
use crate::ring::Batch;

/// Consecutive frames of a stream, as a [`Buf`] whose pieces are the frames' own bytes: nothing is copied, and
/// whatever is pending leaves in one vectored write.
#[derive(Debug)]
pub struct FrameBatch {
    frames: Batch<Frame>,
    /// Which frame is being written, and how much of it was.
    index: usize,
    written: usize,
    remaining: usize,
}

impl FrameBatch {
    /// Makes a batch of which nothing was written yet.
    #[must_use]
    pub fn new(frames: Batch<Frame>) -> Self {
        // A frame's weight is its length.
        let remaining = frames.weight();
        Self { frames, index: 0, written: 0, remaining }
    }

    /// Appends a copy of what was not written yet.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let mut skip = self.written;
        for frame in self.frames.iter_from(self.index) {
            for piece in <[_; 2]>::from(frame.pieces()) {
                out.extend_from_slice(piece.get(skip..).unwrap_or_default());
                skip = skip.saturating_sub(piece.len());
            }
        }
    }

    /// The frames.
    #[must_use]
    pub fn frames(&self) -> &Batch<Frame> {
        &self.frames
    }
}

impl Buf for FrameBatch {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        let Some(frame) = self.frames.get(self.index) else { return &[] };
        let (head, tail) = Frame::pieces_in(&frame);
        if self.written < head.len() { &head[self.written..] } else { &tail[self.written - head.len()..] }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut filled, mut skip) = (0, self.written);
        for frame in self.frames.iter_from(self.index) {
            for piece in <[_; 2]>::from(Frame::pieces_in(&frame)) {
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
        while let Some(frame) = self.frames.get(self.index) {
            let len = frame.len();
            if self.written < len {
                return;
            }
            self.written -= len;
            self.index += 1;
        }
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use super::*;
    use crate::ring::{Cursor, FIRST, Limits, Ring, Step};
    use crate::sse::{Payload, StreamName};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn however_it_is_written_the_bytes_are_those_of_the_frames(
            sizes in proptest::collection::vec((0..60usize, any::<bool>()), 1..50),
            steps in proptest::collection::vec((1..200usize, 1..9usize), 1..60),
        ) {
            let (ring, limits, name) = (Ring::new(), Limits::default(), StreamName { tag: 3, stream: 0x1f });
            for (size, shared) in sizes {
                let data = vec![b'x'; size];
                let frame = if shared {
                    Frame::shared(name, &Payload::encode(|out| out.extend_from_slice(&data)))
                } else {
                    Frame::encode(name, |out| out.extend_from_slice(&data))
                };
                ring.publish(frame, 0, &limits).unwrap();
            }
            let Step::Item(frames) = Cursor::at(FIRST).take(&ring, 1000, usize::MAX) else { panic!("there are some") };
            let expected: Vec<u8> = frames.iter().flat_map(|frame| frame.to_bytes().to_vec()).collect();
            let (mut batch, mut written) = (FrameBatch::new(frames), Vec::new());
            prop_assert_eq!(batch.remaining(), expected.len());
            for (step, vectors) in steps.into_iter().cycle() {
                if !batch.has_remaining() {
                    break;
                }
                let mut slices = vec![IoSlice::new(&[]); vectors];
                let filled = batch.chunks_vectored(&mut slices);
                let shown: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
                prop_assert!(!batch.chunk().is_empty() && shown.starts_with(batch.chunk()));
                let mut copied = Vec::new();
                batch.append_to(&mut copied);
                prop_assert_eq!(&copied[..], &expected[written.len()..]);
                let step = step.min(shown.len());
                written.extend_from_slice(&shown[..step]);
                batch.advance(step);
            }
            prop_assert_eq!(written, expected);
        }
    }
}
