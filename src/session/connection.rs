//! One HTTP response that carries a stream right now: what it writes next.

use core::fmt;
use core::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};

use super::request::RequestStream;
use super::state::Session;
use super::traffic::{Ending, Traffic};
use crate::protocol::ProtocolVersion;
use crate::ring::{FIRST, Position};
use crate::sse::{self, EventId, Events, EventsBuf, StreamName};
use crate::stream::{Delivery, Stream, Subscriber};
use crate::sync::Arc;
use crate::wake::Bell;

/// Room for the priming event and its `retry`.
const BEFORE_EVENTS: usize = 96;

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
            Self::Events(events) => PieceBuf::Events(events.into_buf()),
        }
    }
}

/// A [`Piece`] as a [`Buf`].
#[derive(Debug)]
pub enum PieceBuf {
    /// See [`Piece::Control`].
    Control(Bytes),
    /// See [`Piece::Events`].
    Events(EventsBuf),
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

/// A client's hold of one stream. Dropping it detaches the client; the stream stays.
pub struct Connection {
    session: Arc<Session>,
    /// The request stream it carries; `None` is the standalone stream.
    request: Option<Arc<RequestStream>>,
    subscriber: Subscriber,
    version: ProtocolVersion,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was written yet. The priming event comes first, if the version wants one.
    Opening,
    Flowing,
    /// The stream's end was reached.
    Delivered,
    /// The response was taken whole.
    Taken,
    /// Ended for another reason.
    Over,
}

impl Connection {
    pub(super) fn standalone(
        session: Arc<Session>,
        after: Option<Position>,
        version: ProtocolVersion,
    ) -> Self {
        let subscriber = session.standalone.attach(after, session.settings().lag);
        Self::new(session, None, subscriber, version)
    }

    pub(super) fn request(
        session: Arc<Session>,
        request: Arc<RequestStream>,
        after: Option<Position>,
    ) -> Self {
        let subscriber = request.stream.attach(after, session.settings().lag);
        let version = request.version();
        Self::new(session, Some(request), subscriber, version)
    }

    fn new(
        session: Arc<Session>,
        request: Option<Arc<RequestStream>>,
        subscriber: Subscriber,
        version: ProtocolVersion,
    ) -> Self {
        session.touch();
        Self { session, request, subscriber, version, phase: Phase::Opening }
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Takes the response of the request if it is there and nothing else was published on its stream: then it
    /// can be sent as plain JSON. The stream is gone afterwards, as nobody got an ID to resume it with.
    pub fn take_answer(&mut self) -> Option<Bytes> {
        let request = self.request.as_ref()?;
        if !request.is_finished() || request.stream.tail() != FIRST + 1 || self.phase == Phase::Taken {
            return None;
        }
        let Some(Delivery::Frames(frames)) = self.subscriber.try_next(&request.stream) else { return None };
        self.phase = Phase::Taken;
        self.session.forget_request(request.name.stream);
        self.traffic().count_delivered(1);
        frames.get(0).map(|frame| frame.data_bytes())
    }

    /// Takes all that its stream still has, priming included, if the stream is finished and this is no more than
    /// about `max_bytes`: then it can be sent at once. The response can be fetched again for as long as one that
    /// was handed to a connection.
    pub fn take_rest(&mut self, max_bytes: usize) -> Option<Vec<u8>> {
        let request = self.request.as_ref()?;
        let weight = usize::try_from(request.stream.retained_bytes()).unwrap_or(usize::MAX);
        if !request.is_finished() || weight > max_bytes || self.phase == Phase::Taken {
            return None;
        }
        let mut rest = Vec::with_capacity(weight + BEFORE_EVENTS);
        // The end of the stream is there: nobody need be woken.
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(piece)) = self.poll_next(&mut context) {
            piece.append_to(&mut rest);
        }
        Some(rest)
    }

    /// Whether the response is there, or will never be.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.is_finished())
    }

    /// Whether there is nothing to write and never will be: the client resumed behind the end of its stream.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        let behind_the_end = |request: &Arc<RequestStream>| {
            request.is_finished() && self.subscriber.position() + 1 >= request.stream.tail()
        };
        self.request.as_ref().is_some_and(behind_the_end)
    }

    /// From now on `bell` rings with `key` when there may be something to write; the waker that
    /// [`poll_next`](Self::poll_next) is given counts for nothing.
    pub fn ring(&mut self, bell: Arc<dyn Bell>, key: u32) {
        self.subscriber.ring(bell, key);
    }

    /// Ready when something was published on the stream, or it was closed.
    pub fn poll_started(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let stream = self.request.as_ref().map_or(&self.session.standalone, |request| &request.stream);
        self.subscriber.poll_started(stream, context)
    }

    /// Reads what the next [`poll_next`](Self::poll_next) will look at, and changes nothing. Done for several
    /// connections before any of them is polled, their memory arrives together.
    #[inline]
    pub fn warm(&self) -> bool {
        self.subscriber.warm(self.stream()) ^ self.session.warm()
    }

    /// What to write next; `None` is the end of the response.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        match self.phase {
            Phase::Delivered | Phase::Taken | Phase::Over => return Poll::Ready(None),
            Phase::Opening => {
                self.phase = Phase::Flowing;
                self.traffic().count_opened();
            }
            Phase::Flowing => return self.poll_flowing(context),
        }
        if self.version.primes() {
            let generation = self.subscriber.generation();
            let id = EventId::priming(self.name(), self.subscriber.position(), generation);
            return Poll::Ready(Some(Piece::Control(sse::prime(id, self.session.settings().retry_ms))));
        }
        self.poll_flowing(context)
    }

    fn poll_flowing(&mut self, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        let stream = self.request.as_ref().map_or(&self.session.standalone, |request| &request.stream);
        let Poll::Ready(delivery) = self.subscriber.poll_next(stream, context) else { return Poll::Pending };
        Poll::Ready(self.piece(delivery))
    }

    fn piece(&mut self, delivery: Delivery) -> Option<Piece> {
        match delivery {
            Delivery::Frames(frames) => {
                // A client that takes something is alive.
                self.session.touch();
                self.traffic().count_delivered(frames.len());
                if frames.is_last() {
                    self.end(Phase::Delivered, Ending::Finished);
                }
                Some(Piece::Events(Events::new(frames, self.name())))
            }
            Delivery::Lagged { missed, oldest, ends } => {
                if ends {
                    // The connection that resumes counts what was missed.
                    self.end(Phase::Over, Ending::Lagged);
                    return self.version.primes().then(|| self.retry());
                }
                self.session.shared.counters.count_lagged(missed);
                Some(Piece::Control(sse::lag_signal(self.name(), oldest, missed)))
            }
            Delivery::HungUp => {
                self.end(Phase::Over, Ending::HungUp);
                self.version.primes().then(|| self.retry())
            }
            Delivery::Ended => {
                self.end(Phase::Delivered, Ending::Closed);
                None
            }
            Delivery::Superseded => {
                self.session.shared.counters.count_superseded();
                self.end(Phase::Over, Ending::Superseded);
                None
            }
        }
    }

    fn end(&mut self, phase: Phase, ending: Ending) {
        self.phase = phase;
        self.traffic().count_ended(ending);
    }

    fn traffic(&self) -> &Traffic {
        &self.session.shared.traffic
    }

    /// Whether nobody waits for what it has to write: a later connection took its stream over, or the session
    /// ended.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.subscriber.is_superseded(self.stream()) || self.session.is_closed()
    }

    /// Asks the client to go and come back, after what is published by then. False if it would lose its place, as
    /// one that waits for a response and was given no ID to resume with, or if a later connection took over.
    pub fn send_back(&self) -> bool {
        let resumable = self.request.is_none() || self.version.primes();
        resumable && !self.subscriber.is_superseded(self.stream()) && self.stream().hang_up()
    }

    /// Whether the end of its stream is there already.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.is_finished())
    }

    /// Whether [`poll_next`](Self::poll_next) has nothing more to give.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Delivered | Phase::Taken | Phase::Over)
    }

    fn retry(&self) -> Piece {
        Piece::Control(sse::retry(self.session.shared.retry_ms(self.session.name().tag)))
    }

    fn name(&self) -> StreamName {
        self.request.as_ref().map_or(self.session.name(), |request| request.name)
    }

    fn stream(&self) -> &Stream {
        self.request.as_ref().map_or(&self.session.standalone, |request| &request.stream)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let stream = self.request.as_ref().map_or(&self.session.standalone, |request| &request.stream);
        // No touch: that a connection ended says nothing of when its client was last there.
        self.subscriber.detach(stream);
        if self.phase == Phase::Flowing {
            self.traffic().count_ended(Ending::Disconnected);
        }
        match &self.request {
            None => self.session.shed(),
            Some(_) if self.phase == Phase::Taken => {}
            Some(request) => self.session.release(request, self.phase == Phase::Delivered),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("name", &self.name())
            .field("terms", &self.stream().terms())
            .finish()
    }
}
