//! Bodies of answers: nothing, bytes, or a stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::Endpoint;
use super::keep_alive::Beat;
use crate::handler::Handler;
use crate::session::{Connection, Piece, PieceBuf};
use crate::sse;
use crate::sync::Arc;

/// The body of an answer.
pub(super) enum AnswerBody<H> {
    Bytes(Option<Bytes>),
    Stream(Box<EventStream<H>>),
}

impl<H> AnswerBody<H> {
    pub(super) fn empty() -> Self {
        Self::Bytes(None)
    }

    pub(super) fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::Bytes(Some(bytes.into()))
    }
}

/// A stream as long as its connection lasts.
pub(super) struct EventStream<H> {
    connection: Connection,
    endpoint: Arc<Endpoint<H>>,
    /// Its place among those that get comments, from the first time it is quiet.
    beat: Option<Beat>,
}

impl<H: Handler> EventStream<H> {
    pub(super) fn new(connection: Connection, endpoint: Arc<Endpoint<H>>) -> Self {
        Self { connection, endpoint, beat: None }
    }

    /// What it carries.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What it carries, for somebody else to write.
    pub(super) fn into_connection(self) -> Connection {
        self.connection
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        if let Poll::Ready(piece) = self.connection.poll_next(context) {
            if let Some(beat) = &mut self.beat {
                beat.busy();
            }
            return Poll::Ready(piece);
        }
        let beat = self.beat.get_or_insert_with(|| self.endpoint.keep_alive.join());
        if beat.is_due(&self.endpoint.keep_alive, context) {
            // hyper asks for more only when the socket took what was there: the client is alive.
            self.connection.session().touch();
            return Poll::Ready(Some(Piece::Control(sse::KEEP_ALIVE)));
        }
        Poll::Pending
    }
}

impl<H: Handler> Body for AnswerBody<H> {
    type Data = PieceBuf;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<PieceBuf>, Self::Error>>> {
        match self.get_mut() {
            Self::Bytes(bytes) => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(PieceBuf::Control(bytes)))))
            }
            Self::Stream(stream) => {
                stream.poll_piece(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece.into_buf()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_none(),
            Self::Stream(stream) => stream.connection.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Bytes(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.remaining() as u64))
            }
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
