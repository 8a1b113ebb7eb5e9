//! Opening, answering and cancelling the requests of a session.

use thin_vec::ThinVec;

use super::open::Open;
use super::responses::Kind;
use super::state::Session;
use crate::protocol::{ProtocolVersion, Refusal, RequestId};
use crate::request::{Ask, BatchStream, Environment, Keeper, PublishError, RequestStream};
use crate::ring::Position;
use crate::sse::StreamName;
use crate::stream::Moment;
use crate::sync::{Arc, MutexGuard, lock};

impl Keeper for Session {
    fn environment(&self) -> &Environment {
        &self.shared.environment
    }

    fn agree(&self, version: ProtocolVersion) {
        Self::agree(self, version);
    }

    /// Moves the request to the finished ones. If nobody is connected to its stream, its time to be fetched begins.
    fn settle(&self, request: &RequestStream) -> Vec<Ask> {
        self.touch();
        let mut open = lock(&self.open);
        let asks = open.finish(request.number(), self.now());
        if request.batch().is_some() {
            let gone = open.remove(request.number());
            drop(open);
            drop(gone);
        } else if asks.is_some() && !request.own_stream().terms().is_attached() {
            self.keep(open, request, Kind::Waiting);
        }
        asks.unwrap_or_default()
    }
}

impl Session {
    /// Publishes a message that belongs to `request`, before its response. If the client takes nothing but the
    /// response, the message is counted and dropped, and the position that it would have had is returned.
    ///
    /// # Errors
    ///
    /// The request has its response, was cancelled, or its session ended; or the message is too large for its
    /// stream.
    #[doc(hidden)]
    pub fn publish_on(
        &self,
        request: &RequestStream,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Position, PublishError> {
        request.publish(&self.shared.environment, write)
    }

    /// Publishes the response to `request`, which ends its stream. If the response is too large for the stream, the
    /// client gets an error in its place, so that it does not wait for ever.
    ///
    /// # Errors
    ///
    /// The request has its response, was cancelled, or its session ended; or the response is too large for its
    /// stream, in a batch with the responses that are there.
    #[doc(hidden)]
    pub fn respond(
        &self,
        request: &RequestStream,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Position, PublishError> {
        request.respond(self, write)
    }

    /// Notes that a connection of `request` ended after it detached; `delivered` says whether its client has
    /// everything. If the response is there, its time to be fetched again begins.
    pub(super) fn release(&self, request: &RequestStream, delivered: bool) {
        let mut open = lock(&self.open);
        // Its publisher may be on the way to do the same.
        let asks = if delivered { open.finish(request.number(), self.now()) } else { None };
        // Under the lock, as in `finish` and `expire_responses`: whichever comes later sees what the other did. While
        // a later connection is there, the time begins at its end.
        if request.own_stream().terms().is_attached() {
            drop(open);
        } else {
            self.keep(open, request, if delivered { Kind::Delivered } else { Kind::Waiting });
        }
        drop(asks);
    }

    /// Keeps a response that no client is connected to, if it is there, and lets go of those that are too many.
    /// One whose client took no event stream has no event ID to fetch it by, and is let go at once.
    fn keep(&self, mut open: MutexGuard<'_, Open>, request: &RequestStream, kind: Kind) {
        let (now, number) = (self.now(), request.number());
        if request.is_response_only() {
            let gone = if request.is_finished() { open.remove(number) } else { None };
            // What it retained is freed behind the lock.
            drop(open);
            return drop(gone);
        }
        let Some(extras) = &mut open.extras else { return };
        extras.responses.list(number, kind, now);
        self.due.bring_forward(Moment(now.0.saturating_add(self.shared.times.of(kind))));
        let mut excess = ThinVec::new();
        while let Some((request, unfetched)) = extras.responses.take_excess(self.settings()) {
            if unfetched {
                self.shared.counters.count_response_dropped();
            }
            excess.push(request);
        }
        // What they retained is freed behind the lock.
        drop(open);
    }

    /// Opens the stream of a request that is answered in `version`.
    ///
    /// # Errors
    ///
    /// The session ended; a request with this ID is in flight; too many are.
    #[doc(hidden)]
    pub fn open_request(
        &self,
        id: RequestId,
        progress_token: Option<RequestId>,
        version: ProtocolVersion,
    ) -> Result<Arc<RequestStream>, Refusal> {
        self.open(None, |name| RequestStream::new(name, id, progress_token, version))
    }

    /// Opens the stream of the `initialize` that asks for `version`: its result agrees on one.
    ///
    /// # Errors
    ///
    /// The session ended.
    pub(crate) fn open_initialize(
        &self,
        id: RequestId,
        progress_token: Option<RequestId>,
        version: ProtocolVersion,
    ) -> Result<Arc<RequestStream>, Refusal> {
        self.open(None, |name| RequestStream::new(name, id, progress_token, version).initializing())
    }

    /// Opens the stream of a batch whose requests are answered in `version`. It ends when each of them has its
    /// response, and [`leave_batch`](Self::leave_batch) was called behind the last.
    ///
    /// # Errors
    ///
    /// As those of [`open_request`](Self::open_request).
    pub(crate) fn open_batch(&self, version: ProtocolVersion) -> Result<Arc<BatchStream>, Refusal> {
        Ok(Arc::new(BatchStream::new(self.open(None, |name| RequestStream::carrier(name, version))?)))
    }

    /// Opens a request of a batch.
    ///
    /// # Errors
    ///
    /// As those of [`open_request`](Self::open_request).
    pub(crate) fn open_in_batch(
        &self,
        batch: &Arc<BatchStream>,
        id: RequestId,
        progress_token: Option<RequestId>,
    ) -> Result<Arc<RequestStream>, Refusal> {
        let version = batch.carrier().version();
        let request = self.open(Some(batch), |name| {
            RequestStream::new(name, id, progress_token, version).in_batch(batch.clone())
        })?;
        if batch.carrier().is_response_only() {
            request.want_response_only();
        }
        Ok(request)
    }

    /// Publishes a response on the stream of a batch, to something that is no request to be answered otherwise.
    ///
    /// # Errors
    ///
    /// The session ended, or the response is too large for the stream.
    pub(crate) fn respond_in_batch(
        &self,
        batch: &BatchStream,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Position, PublishError> {
        batch.respond(&self.shared.environment, write)
    }

    /// Notes that one thing fewer is to come on the stream of a batch; behind the last it ends. Called once by who
    /// opened the batch, when all of its requests are opened.
    pub(crate) fn leave_batch(&self, batch: &BatchStream) {
        batch.leave(self);
    }

    fn open(
        &self,
        batch: Option<&BatchStream>,
        make: impl FnOnce(StreamName) -> RequestStream,
    ) -> Result<Arc<RequestStream>, Refusal> {
        let limit = self.settings().max_requests;
        let mut open = lock(&self.open);
        if self.is_closed() {
            return Err(Refusal::UnknownSession);
        }
        if open.in_flight.len() >= limit {
            return Err(Refusal::TooManyRequests { limit });
        }
        // Numbers are not used twice, since event IDs are made of them. When all are used up, after four billion
        // requests, the client begins a session anew.
        open.streams_opened = open.streams_opened.checked_add(1).ok_or(Refusal::UnknownSession)?;
        let name = StreamName { tag: self.tag, stream: open.streams_opened };
        let request = Arc::new(make(name));
        if open.in_flight.iter().any(|other| request.is_open_as(other.id()) && other.is_open_as(request.id()))
        {
            return Err(Refusal::DuplicateRequestId);
        }
        if let Some(batch) = batch {
            batch.enter();
        }
        open.in_flight.push(request.clone());
        // Nothing that will be published there comes of age sooner.
        let max_age_ms = self.settings().request.max_age_ms;
        self.due.bring_forward(Moment(self.now().0.saturating_add(max_age_ms.into())));
        Ok(request)
    }

    /// Lets the stream numbered `stream` go: its response was handed over, or nobody can want it any more.
    pub(crate) fn forget_request(&self, stream: u32) {
        // What it retained is freed behind the lock.
        let _gone = lock(&self.open).remove(stream);
    }

    /// Finds the request in flight with this ID.
    #[must_use]
    #[doc(hidden)]
    pub fn request(&self, id: &RequestId) -> Option<Arc<RequestStream>> {
        let open = lock(&self.open);
        open.in_flight.iter().find(|request| request.is_open_as(id)).cloned()
    }

    /// Whether the client has a request with this ID in flight, or had one whose response may still be fetched.
    #[cfg(feature = "rmcp")]
    pub(crate) fn knows_request(&self, id: &RequestId) -> bool {
        let open = lock(&self.open);
        let finished = open.extras.iter().flat_map(|extras| extras.responses.requests());
        open.in_flight.iter().chain(finished).any(|request| request.is_known_as(id))
    }

    /// Takes a request back, as the client asked: its stream ends without a response. False if there is none
    /// in flight with this ID.
    pub(crate) fn cancel(&self, id: &RequestId) -> bool {
        let Some(request) = self.request(id) else { return false };
        request.cancel(self);
        true
    }
}
