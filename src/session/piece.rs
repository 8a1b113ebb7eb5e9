//! What a connection writes, piece by piece.

use bytes::{Buf, Bytes};

use crate::sse::{Events, EventsBuf};

/// Bytes for the client.
#[derive(Debug)]
pub enum Piece {
    /// Not an event of the stream: priming, `retry`, a keep-alive, the signal of a gap.
    Control(Bytes),
    /// Events.
    Events(Events),
}

impl Piece {
    /// How many bytes it is.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        match self {
            Self::Control(bytes) => bytes.len(),
            Self::Events(events) => events.wire_len(),
        }
    }

    /// Appends a copy of the bytes.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Control(bytes) => out.extend_from_slice(bytes),
            Self::Events(events) => events.append_to(out),
        }
    }

    /// The bytes where they stand.
    #[must_use]
    pub fn into_buf(self) -> PieceBuf {
        match self {
            Self::Control(bytes) => PieceBuf::Control(bytes),
            Self::Events(events) => PieceBuf::Events(Box::new(events.into_buf())),
        }
    }
}

/// A [`Piece`] as a [`Buf`].
#[derive(Debug)]
pub enum PieceBuf {
    /// See [`Piece::Control`].
    Control(Bytes),
    /// See [`Piece::Events`]. In a box, as most of the time there is nothing to write, and hyper keeps places of this
    /// size for each stream.
    Events(Box<EventsBuf>),
}

impl Buf for PieceBuf {
    fn remaining(&self) -> usize {
        match self {
            Self::Control(bytes) => bytes.remaining(),
            Self::Events(events) => events.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Control(bytes) => bytes.chunk(),
            Self::Events(events) => events.chunk(),
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [std::io::IoSlice<'a>]) -> usize {
        match self {
            Self::Control(bytes) => bytes.chunks_vectored(slices),
            Self::Events(events) => events.chunks_vectored(slices),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Control(bytes) => bytes.advance(count),
            Self::Events(events) => events.advance(count),
        }
    }
}
