//! Bodies of answers: nothing, bytes, or a stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::ends::Ends;
use super::keep_alive::{Beat, Turn};
use super::record::Record;
use crate::handler::Handler;
use crate::server::endpoint::Endpoint;
use crate::session::{Connection, Piece, PieceBuf};
use crate::sse;
use crate::sync::{Arc, AtomicBool, Ordering};

/// The body of an answer.
pub(in crate::server) enum AnswerBody<H> {
    Bytes(Option<Bytes>),
    Stream(Box<EventStream<H>>),
}

impl<H> AnswerBody<H> {
    pub(in crate::server) fn empty() -> Self {
        Self::Bytes(None)
    }

    pub(super) fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::Bytes(Some(bytes.into()))
    }
}

/// An event stream, for as long as its connection is open.
pub(in crate::server) struct EventStream<H> {
    connection: Connection,
    endpoint: Arc<Endpoint<H>>,
    /// Its entry in the timer of comments, from the first time it is quiet.
    beat: Option<Beat>,
    /// When its client is told to reconnect.
    ends: Ends,
    sent_back: bool,
    answering: Option<Answering>,
    /// Its line in the access log, which is written when the stream is dropped.
    record: Option<Box<Record>>,
}

/// Marks the connection as busy while a request is being answered.
pub(in crate::server) struct Answering(Arc<AtomicBool>);

impl Answering {
    pub(in crate::server) fn new(answering: &Arc<AtomicBool>) -> Self {
        Self(answering.clone())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        // Relaxed: read by the same task.
        self.0.store(false, Ordering::Relaxed);
    }
}

impl<H: Handler> EventStream<H> {
    pub(super) fn new(connection: Connection, endpoint: Arc<Endpoint<H>>) -> Self {
        Self {
            connection,
            endpoint,
            beat: None,
            ends: Ends::NEVER,
            sent_back: false,
            answering: None,
            record: None,
        }
    }

    /// Attaches the record of the access log.
    pub(super) fn record(&mut self, record: Box<Record>) {
        self.record = Some(record);
    }

    /// Whether the stream stays inside hyper, where its bytes are counted.
    pub(in crate::server) fn is_recorded(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.is_logged())
    }

    /// The session's side of the stream.
    pub(in crate::server) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Takes the session's side out, for the writer.
    pub(in crate::server) fn into_connection(self) -> Connection {
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
        let turn = beat.turn(&self.endpoint.keep_alive, context);
        if turn != Turn::Same && !self.sent_back && self.ends.has_come(self.endpoint.now()) {
            // The task is woken, and finds the end. A stream that cannot be resumed continues to its response.
            self.sent_back = true;
            self.connection.send_back();
        }
        if turn == Turn::Quiet {
            // hyper asks for more only after the socket took what was there, so the client is alive.
            self.connection.session().touch();
            return Poll::Ready(Some(Piece::Control(sse::KEEP_ALIVE)));
        }
        Poll::Pending
    }
}

impl<H> EventStream<H> {
    /// Attaches the end of its connection, and what is released with it.
    pub(in crate::server) fn stay(&mut self, ends: Ends, answering: Option<Answering>) {
        self.ends = ends;
        self.answering = answering;
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
                let polled = stream.poll_piece(context);
                if let (Poll::Ready(Some(piece)), Some(record)) = (&polled, &mut stream.record) {
                    record.add(piece.wire_len());
                }
                polled.map(|piece| piece.map(|piece| Ok(Frame::data(piece.into_buf()))))
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
