//! One HTTP response that carries a stream right now: what it writes next.

use core::fmt;
use core::task::{Context, Poll, Waker, ready};

use bytes::Bytes;

use super::piece::Piece;
use super::standalone::{Heard, Listener, Positions};
use super::state::Session;
use crate::protocol::ProtocolVersion;
use crate::request::{Ending, RequestStream, Traffic};
use crate::ring::{Batch, FIRST, Position};
use crate::sse::{self, EventId, Events, Frame, Log, PendingEvents, Place, Series};
use crate::stream::{Delivery, Subscriber};
use crate::sync::Arc;
use crate::wake::Bell;

/// Room for the priming event and its `retry`.
const BEFORE_EVENTS: usize = 96;

/// A client's hold of one stream. Dropping it detaches the client; the stream stays.
pub struct Connection {
    session: Arc<Session>,
    source: Source,
    version: ProtocolVersion,
    phase: Phase,
}

/// The stream that a connection carries.
enum Source {
    Request { request: Arc<RequestStream>, subscriber: Subscriber },
    Standalone(Listener),
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
    pub(super) fn standalone(session: Arc<Session>, listener: Listener, version: ProtocolVersion) -> Self {
        Self::new(session, Source::Standalone(listener), version)
    }

    pub(super) fn request(
        session: Arc<Session>,
        request: Arc<RequestStream>,
        after: Option<Position>,
    ) -> Self {
        let subscriber = request.own_stream().attach(after, session.settings().lag);
        let version = request.version();
        Self::new(session, Source::Request { request, subscriber }, version)
    }

    fn new(session: Arc<Session>, source: Source, version: ProtocolVersion) -> Self {
        session.touch();
        Self { session, source, version, phase: Phase::Opening }
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Whether it carries the standalone stream, and so the messages to all sessions as well.
    #[must_use]
    pub fn is_standalone(&self) -> bool {
        matches!(self.source, Source::Standalone(_))
    }

    /// The request whose stream it carries.
    fn carried_request(&self) -> Option<&Arc<RequestStream>> {
        match &self.source {
            Source::Request { request, .. } => Some(request),
            Source::Standalone(_) => None,
        }
    }

    /// Takes the response of the request if it is there and nothing else was published on its stream: then it
    /// can be sent as plain JSON. The stream is gone afterwards, as nobody got an ID to resume it with.
    pub fn take_answer(&mut self) -> Option<Bytes> {
        let Source::Request { request, subscriber } = &mut self.source else { return None };
        if !request.is_finished() || request.own_stream().tail() != FIRST + 1 || self.phase == Phase::Taken {
            return None;
        }
        let Some(Delivery::Frames(frames)) = subscriber.try_next(request.own_stream()) else { return None };
        self.phase = Phase::Taken;
        self.session.forget_request(request.number());
        self.traffic().count_delivered(1);
        frames.get(0).map(|frame| frame.data_bytes())
    }

    /// Takes all that its stream still has, priming included, if the stream is finished and this is no more than
    /// about `max_bytes`: then it can be sent at once. The response can be fetched again for as long as one that
    /// was handed to a connection.
    pub fn take_rest(&mut self, max_bytes: usize) -> Option<Vec<u8>> {
        let request = self.carried_request()?;
        let weight = usize::try_from(request.own_stream().retained_bytes()).unwrap_or(usize::MAX);
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

    /// Ready when the stream has ended; what it carried is in `responses` then. Of a request whose client takes nothing
    /// else ([`RequestStream::want_response_only`]) that is the response, or nothing if the request was taken back. The
    /// stream is gone afterwards, as nobody got an ID to resume it with.
    pub fn poll_responses(&mut self, context: &mut Context<'_>, responses: &mut Vec<Bytes>) -> Poll<()> {
        let Source::Request { request, subscriber } = &mut self.source else { return Poll::Ready(()) };
        loop {
            match ready!(subscriber.poll_next(request.own_stream(), context)) {
                Delivery::Frames(frames) => {
                    self.session.shared.environment.traffic().count_delivered(frames.len());
                    let data = (0..frames.len()).filter_map(|index| frames.get(index));
                    responses.extend(data.map(|frame| frame.data_bytes()));
                    if !frames.is_last() {
                        continue;
                    }
                }
                Delivery::Lagged { missed, ends, .. } => {
                    self.session.shared.counters.count_lagged(missed);
                    if !ends {
                        continue;
                    }
                }
                Delivery::Ended | Delivery::HungUp => {}
                Delivery::Superseded => {
                    self.phase = Phase::Over;
                    return Poll::Ready(());
                }
            }
            self.phase = Phase::Taken;
            self.session.forget_request(request.number());
            return Poll::Ready(());
        }
    }

    /// Takes what [`poll_responses`](Self::poll_responses) waits for, if the stream has ended and exactly `count`
    /// messages were published on it.
    pub fn take_responses(&mut self, count: usize) -> Option<Vec<Bytes>> {
        let request = self.carried_request()?;
        if !request.is_finished() || request.own_stream().tail() != FIRST + count as Position {
            return None;
        }
        let mut responses = Vec::with_capacity(count);
        let mut context = Context::from_waker(Waker::noop());
        self.poll_responses(&mut context, &mut responses).is_ready().then_some(responses)
    }

    /// Whether the response is there, or will never be.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.carried_request().is_some_and(|request| request.is_finished())
    }

    /// Whether the response is published, and whoever published it has yet to mark the request as finished: the matter
    /// of a moment.
    #[must_use]
    pub fn is_finishing(&self) -> bool {
        self.carried_request()
            .is_some_and(|request| !request.is_finished() && request.own_stream().has_last())
    }

    /// Whether there is nothing to write and never will be: the client resumed behind the end of its stream.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        match &self.source {
            Source::Request { request, subscriber } => {
                request.is_finished() && subscriber.position() + 1 >= request.own_stream().tail()
            }
            Source::Standalone(_) => false,
        }
    }

    /// From now on `bell` rings with `key` when there may be something to write; the waker that
    /// [`poll_next`](Self::poll_next) is given counts for nothing. For a standalone stream whoever owns the bell
    /// watches [`Sessions::broadcasts`](super::Sessions::broadcasts) as well, and polls when something was published
    /// there.
    pub fn ring(&mut self, bell: Arc<dyn Bell>, key: u32) {
        match &mut self.source {
            Source::Request { subscriber, .. } => subscriber.ring(bell, key),
            Source::Standalone(listener) => listener.ring(bell, key),
        }
    }

    /// Ready when something was published on the stream of the request, or it was closed; at once for a standalone
    /// stream.
    pub fn poll_started(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.source {
            Source::Request { request, subscriber } => subscriber.poll_started(request.own_stream(), context),
            Source::Standalone(_) => Poll::Ready(()),
        }
    }

    /// Reads what the next [`poll_next`](Self::poll_next) will look at, and changes nothing. Done for several
    /// connections before any of them is polled, their memory arrives together.
    #[inline]
    pub fn warm(&self) -> bool {
        let is_warm = match &self.source {
            Source::Request { request, subscriber } => subscriber.warm(request.own_stream()),
            Source::Standalone(listener) => listener.warm(&self.session.standalone),
        };
        is_warm ^ self.session.warm()
    }

    /// Gives the events that wait on a standalone stream to `put`, where they stand, if nothing else is to be written
    /// first and they are no more than `max_bytes` in each of its two logs. What there is besides,
    /// [`poll_next`](Self::poll_next) tells.
    #[inline]
    pub(crate) fn put_pending(&mut self, max_bytes: usize, put: impl FnMut(&PendingEvents<'_>)) {
        let (Source::Standalone(listener), Phase::Flowing) = (&mut self.source, self.phase) else { return };
        let session = &*self.session;
        let topic = &session.shared.broadcasts;
        let count = listener.put_pending(&session.standalone, topic, session.tag, max_bytes, put);
        if count > 0 {
            // A client that takes something is alive.
            session.touch();
            self.traffic().count_delivered(count);
        }
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
            let retry_ms = self.session.settings().retry_ms;
            return Poll::Ready(Some(Piece::Control(sse::prime(self.priming_id(), retry_ms))));
        }
        self.poll_flowing(context)
    }

    fn priming_id(&self) -> EventId {
        match &self.source {
            Source::Request { request, subscriber } => {
                EventId::priming(request.name(), subscriber.position(), subscriber.generation())
            }
            Source::Standalone(listener) => {
                let start = listener.start(&self.session.standalone);
                let id = standalone_id(&self.session, listener, Log::Own, start);
                EventId { generation: Some(listener.generation()), ..id }
            }
        }
    }

    fn poll_flowing(&mut self, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        match &mut self.source {
            Source::Request { request, subscriber } => {
                let delivery = ready!(subscriber.poll_next(request.own_stream(), context));
                Poll::Ready(self.piece(delivery))
            }
            Source::Standalone(listener) => {
                let (session, topic) = (&*self.session, &self.session.shared.broadcasts);
                let heard = ready!(listener.poll_next(&session.standalone, topic, session, context));
                Poll::Ready(self.standalone_piece(heard))
            }
        }
    }

    fn piece(&mut self, delivery: Delivery) -> Option<Piece> {
        let name = self.carried_request()?.name();
        match delivery {
            Delivery::Frames(frames) => Some(self.events(frames, Series::Request(name))),
            Delivery::Lagged { missed, oldest, ends } => {
                self.lagged(EventId::event(name, oldest.saturating_sub(1)), missed, ends)
            }
            Delivery::HungUp => self.hung_up(),
            Delivery::Ended => self.end_with(Phase::Delivered, Ending::Closed),
            Delivery::Superseded => self.superseded(),
        }
    }

    fn standalone_piece(&mut self, heard: Heard) -> Option<Piece> {
        let Source::Standalone(listener) = &self.source else { return None };
        let (tag, lineage) = (self.session.tag, listener.lineage());
        match heard {
            Heard::Events { frames, log: Log::Own, other } => {
                Some(self.events(frames, Series::Own { tag, lineage, broadcast: other }))
            }
            Heard::Events { frames, log: Log::Broadcast, other } => {
                Some(self.events(frames, Series::Broadcast { tag, lineage, own: other }))
            }
            Heard::Missed { missed, log, at, ends } => {
                self.lagged(standalone_id(&self.session, listener, log, at), missed, ends)
            }
            Heard::HungUp => self.hung_up(),
            Heard::Ended => self.end_with(Phase::Delivered, Ending::Closed),
            Heard::Superseded => self.superseded(),
        }
    }

    fn events(&mut self, frames: Batch<Frame>, series: Series) -> Piece {
        // A client that takes something is alive.
        self.session.touch();
        self.traffic().count_delivered(frames.len());
        if frames.is_last() {
            self.end(Phase::Delivered, Ending::Finished);
        }
        Piece::Events(Events::new(frames, series))
    }

    fn lagged(&mut self, last_missed: EventId, missed: u64, ends: bool) -> Option<Piece> {
        if ends {
            // The connection that resumes counts what was missed.
            self.end(Phase::Over, Ending::Lagged);
            return self.version.primes().then(|| self.retry());
        }
        self.session.shared.counters.count_lagged(missed);
        Some(Piece::Control(sse::lag_signal(last_missed, missed)))
    }

    fn hung_up(&mut self) -> Option<Piece> {
        self.end(Phase::Over, Ending::HungUp);
        self.version.primes().then(|| self.retry())
    }

    fn superseded(&mut self) -> Option<Piece> {
        self.session.shared.counters.count_superseded();
        self.end_with(Phase::Over, Ending::Superseded)
    }

    fn end_with(&mut self, phase: Phase, ending: Ending) -> Option<Piece> {
        self.end(phase, ending);
        None
    }

    fn end(&mut self, phase: Phase, ending: Ending) {
        self.phase = phase;
        self.traffic().count_ended(ending);
    }

    fn traffic(&self) -> &Traffic {
        self.session.shared.environment.traffic()
    }

    fn is_superseded(&self) -> bool {
        match &self.source {
            Source::Request { request, subscriber } => subscriber.is_superseded(request.own_stream()),
            Source::Standalone(listener) => self.session.standalone.is_superseded(&*self.session, listener),
        }
    }

    /// Whether nobody waits for what it has to write: a later connection took its stream over, or the session
    /// ended.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.is_superseded() || self.session.is_closed()
    }

    /// Asks the client to go and come back, after what is published by then. False if it would lose its place, as
    /// one that waits for a response and was given no ID to resume with, or if a later connection took over.
    pub fn send_back(&self) -> bool {
        match &self.source {
            Source::Request { request, subscriber } => {
                self.version.primes()
                    && !subscriber.is_superseded(request.own_stream())
                    && request.own_stream().hang_up()
            }
            Source::Standalone(listener) => self.session.standalone.send_back(&*self.session, listener),
        }
    }

    /// Whether the end of its stream is there already.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.is_finished()
    }

    /// Whether [`poll_next`](Self::poll_next) has nothing more to give.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Delivered | Phase::Taken | Phase::Over)
    }

    fn retry(&self) -> Piece {
        Piece::Control(sse::retry(self.session.shared.retry_ms(self.session.tag)))
    }
}

/// The ID of the event at a place of a standalone stream.
fn standalone_id(session: &Session, listener: &Listener, kind: Log, at: Positions) -> EventId {
    let Positions { own, broadcast } = at;
    let place = Place::Standalone { lineage: listener.lineage(), own, broadcast, kind };
    EventId { tag: session.tag, place, generation: None }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A client that resumed behind the end has everything.
        let delivered = self.phase == Phase::Delivered || self.is_exhausted();
        // No touch: that a connection ended says nothing of when its client was last there.
        match &mut self.source {
            Source::Request { request, subscriber } => subscriber.detach(request.own_stream()),
            Source::Standalone(listener) => self.session.unlisten(listener),
        }
        if self.phase == Phase::Flowing {
            self.traffic().count_ended(Ending::Disconnected);
        }
        match self.carried_request() {
            None => self.session.shed(),
            Some(_) if self.phase == Phase::Taken => {}
            Some(request) => self.session.release(request, delivered),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("is_standalone", &self.is_standalone()).finish_non_exhaustive()
    }
}
