//! One session: its streams, its requests, its end.

use core::any::Any;
use core::fmt;
use core::future::Future;
use std::collections::VecDeque;

use futures_channel::oneshot;
use serde_json::value::RawValue;

use super::connection::Connection;
use super::principal::{Holder, Principal};
use super::registry::Shared;
use super::request::{Ask, AskError, RequestStream};
use crate::protocol::{self, Outcome, ProtocolVersion, Refusal, RequestId, SessionId};
use crate::ring::{Closed, Position};
use crate::sse::{EventId, Frame, StreamName};
use crate::stream::{Moment, Stream};
use crate::sync::{Arc, AtomicU32, AtomicU64, Mutex, OnceLock, Ordering, lock};

/// Number of the standalone stream in event IDs.
pub(super) const STANDALONE: u32 = 0;
/// Responses that were handed to a connection and are kept all the same, for each session. A client that lost one
/// of them on the way asks for it before it has many others.
const MAX_DELIVERED: usize = 16;
/// No version was negotiated yet.
const NO_VERSION: u32 = u32::MAX;

/// Related interactions of one client with the server.
pub struct Session {
    id: SessionId,
    /// Names the session in event IDs.
    tag: u32,
    version: AtomicU32,
    created: Moment,
    touched: AtomicU64,
    /// Who may use the session.
    holder: Holder,
    pub(super) standalone: Stream,
    pub(super) shared: Arc<Shared>,
    /// See the module docs for why this is a mutex.
    open: Mutex<Open>,
    attachment: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// The requests of a session that are being answered, or whose answers may still be fetched.
#[derive(Debug, Default)]
struct Open {
    closed: bool,
    streams_opened: u32,
    asked: i64,
    in_flight: Vec<Arc<RequestStream>>,
    /// What most sessions have nothing of, most of the time: then it is not there.
    rest: Option<Box<Rest>>,
}

#[derive(Debug, Default)]
struct Rest {
    /// The oldest first.
    finished: VecDeque<Finished>,
    asks: Vec<Ask>,
}

/// A request whose response may still be fetched.
#[derive(Debug)]
struct Finished {
    request: Arc<RequestStream>,
    /// It was handed to a connection, which may have broken with it on the way.
    delivered: bool,
}

impl Open {
    fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    fn finished(&self) -> impl Iterator<Item = &Finished> {
        self.rest.iter().flat_map(|rest| &rest.finished)
    }

    /// The stream with this number.
    fn find(&self, stream: u32) -> Option<&Arc<RequestStream>> {
        let finished = self.finished().map(|finished| &finished.request);
        self.in_flight.iter().chain(finished).find(|request| request.name.stream == stream)
    }

    /// Moves a request to the finished ones; its questions are closed.
    fn finish(&mut self, stream: u32) {
        let Some(index) = self.in_flight.iter().position(|request| request.name.stream == stream) else {
            return;
        };
        let request = self.in_flight.swap_remove(index);
        let rest = self.rest();
        rest.asks.retain(|ask| ask.stream != stream);
        rest.finished.push_back(Finished { request, delivered: false });
    }

    /// Notes that a response was handed to a connection. Of those the last few are kept.
    fn deliver(&mut self, stream: u32) {
        // Its publisher may be on the way to do the same.
        self.finish(stream);
        let finished = &mut self.rest().finished;
        if let Some(finished) = finished.iter_mut().find(|finished| finished.request.name.stream == stream) {
            finished.delivered = true;
        }
        if finished.iter().filter(|finished| finished.delivered).count() > MAX_DELIVERED
            && let Some(index) = finished.iter().position(|finished| finished.delivered)
        {
            finished.remove(index);
        }
    }

    /// Lets a stream go, wherever it stands.
    fn forget(&mut self, stream: u32) {
        self.in_flight.retain(|request| request.name.stream != stream);
        if let Some(rest) = &mut self.rest {
            rest.finished.retain(|finished| finished.request.name.stream != stream);
        }
        // An idle session owns no lists.
        if self.in_flight.is_empty() {
            self.in_flight = Vec::new();
        }
        if self.rest.as_ref().is_some_and(|rest| rest.finished.is_empty() && rest.asks.is_empty()) {
            self.rest = None;
        }
    }
}

/// What a session looks like from outside, for logs and limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Requests that have no response yet.
    pub in_flight: usize,
    /// Responses that may still be fetched.
    pub retained: usize,
    /// Questions to the client without an answer yet.
    pub asks: usize,
}

impl Session {
    pub(super) fn new(id: SessionId, tag: u32, holder: Holder, shared: Arc<Shared>) -> Self {
        let now = shared.clock.now();
        Self {
            id,
            tag,
            version: AtomicU32::new(NO_VERSION),
            created: now,
            touched: AtomicU64::new(now.0),
            holder,
            standalone: Stream::new(),
            shared,
            open: Mutex::new(Open::default()),
            attachment: OnceLock::new(),
        }
    }

    /// The session's ID. A secret: it belongs in the `Mcp-Session-Id` header and nowhere else.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Who may use the session; 0 is anybody who knows its ID.
    #[must_use]
    pub fn principal(&self) -> u64 {
        self.holder.number()
    }

    /// Whom the session belongs to, and alone may use it; `None` is anybody who knows its ID. Whatever is kept for
    /// somebody belongs under this name, not under the session's ID.
    ///
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/security_best_practices#session-hijacking
    //# MCP servers SHOULD bind session IDs to user-specific information.
    #[must_use]
    pub fn belongs_to(&self) -> Option<&Principal> {
        self.holder.principal()
    }

    /// The protocol version that `initialize` agreed on, once it has.
    #[must_use]
    pub fn version(&self) -> Option<ProtocolVersion> {
        // Relaxed: a number by itself; who needs the rest of the session got it through the map.
        u8::try_from(self.version.load(Ordering::Relaxed)).ok().and_then(ProtocolVersion::from_index)
    }

    /// Notes what `initialize` agreed on. From then on the session is initialised. The response to a request
    /// that was opened to initialise does this by itself.
    pub fn agree(&self, version: ProtocolVersion) {
        // Relaxed: as in `version`.
        self.version.store(version.to_index().into(), Ordering::Relaxed);
    }

    /// Whatever the handler keeps with this session, if it was set.
    #[must_use]
    pub fn attachment(&self) -> Option<&Arc<dyn Any + Send + Sync>> {
        self.attachment.get()
    }

    /// Keeps something of the handler's with this session. The first call wins.
    pub fn attach(&self, attachment: Arc<dyn Any + Send + Sync>) -> bool {
        self.attachment.set(attachment).is_ok()
    }

    /// Notes that the client was heard of, or took something, just now.
    pub fn touch(&self) {
        // Relaxed: a number that orders nothing.
        self.touched.store(self.shared.clock.now().0, Ordering::Relaxed);
    }

    /// Reads what publishing and delivering touch besides the stream.
    #[inline]
    pub(super) fn warm(&self) -> bool {
        // Relaxed: nothing follows from it.
        self.touched.load(Ordering::Relaxed) != self.shared.clock.now().0
    }

    /// The time that the session goes by.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.shared.clock.now()
    }

    /// The settings it was made with.
    #[must_use]
    pub fn settings(&self) -> &super::Settings {
        &self.shared.settings
    }

    /// The name of the standalone stream in event IDs.
    #[must_use]
    pub fn name(&self) -> StreamName {
        StreamName { tag: self.tag, stream: STANDALONE }
    }

    /// The standalone stream.
    #[must_use]
    pub fn standalone(&self) -> &Stream {
        &self.standalone
    }

    /// Publishes a message that belongs to no request: `write` appends it, as one line of JSON.
    ///
    /// # Errors
    ///
    /// [`Closed`] if the session ended.
    pub fn publish(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<Position, Closed<Frame>> {
        let frame = Frame::whole(self.name(), write);
        self.count(self.standalone.publish(frame, self.now(), &self.settings().standalone))
    }

    /// Publishes a message that belongs to `request`, before its response.
    ///
    /// # Errors
    ///
    /// [`Closed`] if the request has its response, was cancelled, or its session ended.
    pub fn publish_on(
        &self,
        request: &RequestStream,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Position, Closed<Frame>> {
        let frame = Frame::whole(request.name, write);
        self.count(request.stream.publish(frame, self.now(), &self.settings().request))
    }

    /// Counts an event that a stream took.
    fn count(&self, published: Result<Position, Closed<Frame>>) -> Result<Position, Closed<Frame>> {
        if published.is_ok() {
            self.shared.traffic.count_published(1);
        }
        published
    }

    /// Publishes the response to `request`, which ends its stream.
    ///
    /// # Errors
    ///
    /// [`Closed`] if the request has its response, was cancelled, or its session ended.
    pub fn respond(
        self: &Arc<Self>,
        request: &RequestStream,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Position, Closed<Frame>> {
        let frame = Frame::whole(request.name, write);
        if request.initializes
            && let Some(version) = protocol::negotiated_version(frame.data())
        {
            self.agree(version);
        }
        let published = self.count(request.stream.publish_last(frame, self.now(), &self.settings().request));
        self.finish(request);
        published
    }

    /// Notes that nothing more comes on `request`. Its questions are closed; if nobody is connected to its
    /// stream, its time to be fetched begins.
    fn finish(self: &Arc<Self>, request: &RequestStream) {
        if request.finish() {
            self.touch();
            let mut open = lock(&self.open);
            open.finish(request.name.stream);
            // Under the lock, as in `release`: whichever comes second sees what the other did.
            if !request.stream.terms().is_attached() {
                self.shared.keep_response(self, request.name.stream);
            }
        }
    }

    /// Notes that a connection of `request` ended after it detached; `delivered` says whether it carried
    /// everything. If the response is there, its time to be fetched again begins.
    pub(super) fn release(self: &Arc<Self>, request: &RequestStream, delivered: bool) {
        let mut open = lock(&self.open);
        if delivered {
            open.deliver(request.name.stream);
            self.shared.keep_delivered(self, request.name.stream);
        } else if request.is_finished() {
            self.shared.keep_response(self, request.name.stream);
        }
    }

    /// Opens the stream of a request that is answered in `version`.
    ///
    /// # Errors
    ///
    /// The session ended; a request with this ID is in flight; too many are.
    pub fn open_request(
        &self,
        id: RequestId,
        progress_token: Option<RequestId>,
        version: ProtocolVersion,
    ) -> Result<Arc<RequestStream>, Refusal> {
        self.open(id, progress_token, version, false)
    }

    /// Opens the stream of the `initialize` that asks for `version`: its result agrees on one.
    ///
    /// # Errors
    ///
    /// The session ended.
    pub fn open_initialize(
        &self,
        id: RequestId,
        progress_token: Option<RequestId>,
        version: ProtocolVersion,
    ) -> Result<Arc<RequestStream>, Refusal> {
        self.open(id, progress_token, version, true)
    }

    fn open(
        &self,
        id: RequestId,
        progress_token: Option<RequestId>,
        version: ProtocolVersion,
        initializes: bool,
    ) -> Result<Arc<RequestStream>, Refusal> {
        let limit = self.settings().max_requests;
        let mut open = lock(&self.open);
        if open.closed {
            return Err(Refusal::UnknownSession);
        }
        if open.in_flight.iter().any(|request| *request.id() == id && !request.is_finished()) {
            return Err(Refusal::DuplicateRequestId);
        }
        if open.in_flight.len() >= limit {
            return Err(Refusal::TooManyRequests { limit });
        }
        open.streams_opened += 1;
        let name = StreamName { tag: self.tag, stream: open.streams_opened };
        let request = Arc::new(RequestStream::new(name, id, progress_token, version, initializes));
        open.in_flight.push(request.clone());
        Ok(request)
    }

    /// Lets the stream numbered `stream` go: its response was handed over, or nobody can want it any more.
    pub fn forget_request(&self, stream: u32) {
        lock(&self.open).forget(stream);
    }

    /// Finds the request in flight with this ID.
    #[must_use]
    pub fn request(&self, id: &RequestId) -> Option<Arc<RequestStream>> {
        self.find(|request| request.id() == id)
    }

    /// Finds the request in flight whose progress goes under this token.
    #[must_use]
    pub fn request_by_token(&self, token: &RequestId) -> Option<Arc<RequestStream>> {
        self.find(|request| request.progress_token() == Some(token))
    }

    fn find(&self, wanted: impl Fn(&RequestStream) -> bool) -> Option<Arc<RequestStream>> {
        let open = lock(&self.open);
        open.in_flight.iter().find(|request| !request.is_finished() && wanted(request)).cloned()
    }

    /// Takes a request back, as the client asked: its stream ends without a response. False if there is none
    /// in flight with this ID.
    pub fn cancel(self: &Arc<Self>, id: &RequestId) -> bool {
        let Some(request) = self.request(id) else { return false };
        request.cancel();
        request.stream.close(self.now(), &self.settings().request);
        self.finish(&request);
        true
    }

    /// Asks the client something, on the stream of `request`, or on the standalone stream. The future resolves
    /// with the client's result. `write` appends the request, given its ID.
    ///
    /// # Errors
    ///
    /// The future: the client answered with an error, or the request or the session ended first.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the question; a late answer to it is ignored.
    pub fn ask(
        &self,
        request: Option<&RequestStream>,
        write: impl FnOnce(&mut Vec<u8>, &RequestId),
    ) -> impl Future<Output = Result<Box<RawValue>, AskError>> + Send + 'static {
        let (answer, answered) = oneshot::channel();
        let stream = request.map_or(STANDALONE, |request| request.name.stream);
        let id = {
            let mut open = lock(&self.open);
            open.rest().asks.retain(|ask| !ask.answer.is_canceled());
            open.asked += 1;
            let id = open.asked;
            if !open.closed && !request.is_some_and(RequestStream::is_finished) {
                open.rest().asks.push(Ask { id, stream, answer });
            }
            RequestId::from(id)
        };
        // A closed stream refuses the question, and dropping `answer` is the news of it.
        let _ = match request {
            Some(request) => self.publish_on(request, |out| write(out, &id)),
            None => self.publish(|out| write(out, &id)),
        };
        async move { answered.await.unwrap_or(Err(AskError::Closed)) }
    }

    /// Hands the client's answer to whoever asked. False if nobody waits for an answer with this ID.
    pub fn answer(&self, id: &RequestId, outcome: Outcome<'_>) -> bool {
        let RequestId::Number(id) = *id else { return false };
        let ask = {
            let mut open = lock(&self.open);
            let Some(rest) = &mut open.rest else { return false };
            let Some(index) = rest.asks.iter().position(|ask| ask.id == id) else { return false };
            rest.asks.swap_remove(index)
        };
        let answer = match outcome {
            Outcome::Result(result) => Ok(result.to_owned()),
            Outcome::Error(error) => Err(AskError::Refused(error.to_owned())),
        };
        ask.answer.send(answer).is_ok()
    }

    /// Connects the client to a stream: the one that `last_event_id` names, behind that event; or else the
    /// standalone stream, behind what was delivered.
    ///
    /// # Errors
    ///
    /// The event ID is malformed, of another session, of a stream that is gone, or from the future.
    pub fn connect(self: &Arc<Self>, last_event_id: Option<&str>) -> Result<Connection, Refusal> {
        let version = self.version().unwrap_or(ProtocolVersion::ASSUMED);
        let Some(text) = last_event_id else {
            return Ok(Connection::standalone(self.clone(), None, version));
        };
        let id: EventId = text.parse().map_err(|_| Refusal::MalformedEventId)?;
        if id.name.tag != self.tag {
            return Err(Refusal::ForeignEventId);
        }
        let request = match id.name.stream {
            STANDALONE => None,
            stream => {
                let open = lock(&self.open);
                if stream > open.streams_opened {
                    return Err(Refusal::FutureEventId);
                }
                Some(open.find(stream).cloned().ok_or(Refusal::UnknownStream)?)
            }
        };
        let stream = request.as_ref().map_or(&self.standalone, |request| &request.stream);
        if id.position >= stream.tail() {
            return Err(Refusal::FutureEventId);
        }
        self.shared.counters.count_resumed();
        Ok(match request {
            Some(request) => Connection::request(self.clone(), request, Some(id.position)),
            None => Connection::standalone(self.clone(), Some(id.position), version),
        })
    }

    /// Connects the client to the stream of the request it just sent.
    #[must_use]
    pub fn connect_request(self: &Arc<Self>, request: Arc<RequestStream>) -> Connection {
        Connection::request(self.clone(), request, None)
    }

    /// Ends the session: its streams close, its connections end, its requests count as cancelled and its
    /// questions as unanswered. Returns false if it had ended.
    pub(super) fn close(&self) -> bool {
        let (requests, asks) = {
            let mut open = lock(&self.open);
            if core::mem::replace(&mut open.closed, true) {
                return false;
            }
            let Rest { finished, asks } = *open.rest.take().unwrap_or_default();
            let finished = finished.into_iter().map(|finished| finished.request);
            (core::mem::take(&mut open.in_flight).into_iter().chain(finished), asks)
        };
        drop(asks);
        self.standalone.close(self.now(), &self.settings().standalone);
        for request in requests {
            if request.finish() {
                request.cancel();
            }
            request.stream.close(self.now(), &self.settings().request);
        }
        true
    }

    /// Whether the session ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        lock(&self.open).closed
    }

    /// What it holds at the moment.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let open = lock(&self.open);
        let asks = open.rest.as_ref().map_or(0, |rest| rest.asks.len());
        Summary { in_flight: open.in_flight.len(), retained: open.finished().count(), asks }
    }

    /// Whether its time is up at `now`.
    #[must_use]
    pub fn is_expired(&self, now: Moment) -> bool {
        if now.since(self.created) >= self.settings().absolute_ms {
            return true;
        }
        // Relaxed: see `touch`.
        let touched = Moment(self.touched.load(Ordering::Relaxed));
        now.since(touched) >= self.settings().idle_ms && self.summary().in_flight == 0
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("version", &self.version()).finish_non_exhaustive()
    }
}
