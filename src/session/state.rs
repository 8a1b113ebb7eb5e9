//! One session: its streams, its requests, its end.

use core::any::Any;
use core::fmt;
use core::future::Future;
use std::collections::VecDeque;

use futures_channel::oneshot;
use serde_json::value::RawValue;
use thin_vec::ThinVec;

use super::admission::Victim;
use super::connection::Connection;
use super::principal::{Holder, Principal};
use super::registry::{End, Shared};
use super::request::{Ask, AskError, PublishError, RequestStream};
use super::settings::{AtLimit, Settings};
use crate::protocol::{self, Outcome, ProtocolVersion, Refusal, RequestId, SessionId};
use crate::ring::{Closed, Limits, Position};
use crate::sse::{EventId, Frame, StreamName};
use crate::stream::{Moment, Stream};
use crate::sync::{Arc, AtomicU32, AtomicU64, Mutex, OnceLock, Ordering, lock};

/// Number of the standalone stream in event IDs.
pub(super) const STANDALONE: u32 = 0;
/// Responses that were handed to a connection and are kept all the same, for each session. A client that lost one
/// of them on the way asks for it before it has many others.
const MAX_DELIVERED: usize = 16;

/// What stands in [`Session::progress`]: how far the handshake got.
mod progress {
    /// The byte that holds the version that was agreed on.
    pub(super) const VERSION: u32 = 0xff;
    /// In it: none was agreed on yet.
    pub(super) const NO_VERSION: u32 = 0xff;
    /// The client came back after `initialize`.
    pub(super) const HEARD: u32 = 0x100;
}

/// Related interactions of one client with the server.
// In this order, so that a sweep finds what it looks at side by side.
#[repr(C)]
pub struct Session {
    created: Moment,
    touched: AtomicU64,
    progress: AtomicU32,
    /// Names the session in event IDs.
    tag: u32,
    pub(super) standalone: Stream,
    /// Who may use the session.
    holder: Holder,
    // Here, where sixteen bytes divide its place: nothing is lost to alignment.
    id: SessionId,
    pub(super) shared: Arc<Shared>,
    /// See the module docs for why this is a mutex.
    open: Mutex<Open>,
    /// In a box, since many handlers keep nothing here.
    attachment: OnceLock<Box<Arc<dyn Any + Send + Sync>>>,
}

/// The requests of a session that are being answered, or whose answers may still be fetched.
#[derive(Debug, Default)]
struct Open {
    closed: bool,
    streams_opened: u32,
    asked: u32,
    in_flight: ThinVec<Arc<RequestStream>>,
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
            self.in_flight = ThinVec::new();
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
            progress: AtomicU32::new(progress::NO_VERSION),
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
        ProtocolVersion::from_index((self.progress() & progress::VERSION) as u8)
    }

    fn progress(&self) -> u32 {
        // Relaxed: a number by itself; who needs the rest of the session got it through the map.
        self.progress.load(Ordering::Relaxed)
    }

    /// Notes what `initialize` agreed on. From then on the session is initialised. The response to a request
    /// that was opened to initialise does this by itself.
    pub fn agree(&self, version: ProtocolVersion) {
        let agreed = |found: u32| Some(found & !progress::VERSION | u32::from(version.to_index()));
        // Relaxed, twice: as in `progress`.
        let _ = self.progress.fetch_update(Ordering::Relaxed, Ordering::Relaxed, agreed);
    }

    /// Notes that the client came back after `initialize`, and was heard of just now. Without it the session
    /// expires by [`Settings::init_ms`].
    ///
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/lifecycle#initialization
    //# After successful initialization, the client MUST send an `initialized` notification to indicate it is ready to
    //# begin normal operations
    // Whatever else a client sends with the session's ID counts as well: it shows that somebody is there who got the
    // answer, and not every client sends the notification.
    pub fn hear(&self) {
        if self.progress() & progress::HEARD == 0 {
            // Relaxed: as in `progress`.
            self.progress.fetch_or(progress::HEARD, Ordering::Relaxed);
        }
        self.touch();
    }

    /// Whatever the handler keeps with this session, if it was set.
    #[must_use]
    pub fn attachment(&self) -> Option<&Arc<dyn Any + Send + Sync>> {
        self.attachment.get().map(|attachment| &**attachment)
    }

    /// Keeps something of the handler's with this session. The first call wins.
    pub fn attach(&self, attachment: Arc<dyn Any + Send + Sync>) -> bool {
        self.attachment.set(Box::new(attachment)).is_ok()
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

    /// The settings that its registry was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
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
    /// The session ended, or the message is too large for its stream.
    pub fn publish(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<Position, PublishError> {
        let (frame, limits) = (Frame::whole(self.name(), write), &self.settings().standalone);
        self.shared.check_size(&frame, limits)?;
        self.count(self.standalone.publish(frame, self.now(), limits))
    }

    /// Publishes a message that belongs to `request`, before its response.
    ///
    /// # Errors
    ///
    /// The request has its response, was cancelled, or its session ended; or the message is too large for its
    /// stream.
    pub fn publish_on(
        &self,
        request: &RequestStream,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Position, PublishError> {
        let (frame, limits) = (Frame::whole(request.name, write), &self.settings().request);
        self.shared.check_size(&frame, limits)?;
        self.count(request.stream.publish(frame, self.now(), limits))
    }

    /// Counts an event that a stream took.
    fn count(&self, published: Result<Position, Closed<Frame>>) -> Result<Position, PublishError> {
        if published.is_ok() {
            self.shared.traffic.count_published(1);
        }
        Ok(published?)
    }

    /// Publishes the response to `request`, which ends its stream. If the response is too large for the stream, the
    /// client gets an error in its place, so that it does not wait for ever.
    ///
    /// # Errors
    ///
    /// The request has its response, was cancelled, or its session ended; or the response is too large for its
    /// stream.
    pub fn respond(
        self: &Arc<Self>,
        request: &RequestStream,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Position, PublishError> {
        let (mut frame, limits) = (Frame::whole(request.name, write), &self.settings().request);
        let size = self.shared.check_size(&frame, limits);
        if size.is_err() {
            frame = Frame::whole(request.name, |out| {
                let message = "the response is larger than this server retains";
                protocol::write_error(out, Some(request.id()), protocol::INTERNAL_ERROR, message, None);
            });
        }
        if request.initializes
            && let Some(version) = protocol::negotiated_version(frame.data())
        {
            self.agree(version);
        }
        let published = self.count(request.stream.publish_last(frame, self.now(), limits));
        self.finish(request);
        size?;
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

    /// Lets the stream of a finished request go, for want of memory. Returns how many bytes it retained.
    pub(super) fn give_up_response(&self, stream: u32) -> Option<u64> {
        let mut open = lock(&self.open);
        let bytes = open.find(stream)?.stream.retained_bytes();
        open.forget(stream);
        Some(bytes)
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
            open.asked = open.asked.wrapping_add(1);
            let id = i64::from(open.asked);
            if !open.closed && !request.is_some_and(RequestStream::is_finished) {
                open.rest().asks.push(Ask { id, stream, answer });
            }
            RequestId::from(id)
        };
        // A closed stream refuses the question, and dropping `answer` is the news of it.
        let published = match request {
            Some(request) => self.publish_on(request, |out| write(out, &id)),
            None => self.publish(|out| write(out, &id)),
        };
        let is_large = matches!(published, Err(PublishError::TooLarge { .. }));
        if is_large && let RequestId::Number(id) = id {
            drop(self.take_ask(id));
        }
        async move {
            match answered.await {
                Ok(answer) => answer,
                Err(_) if is_large => Err(AskError::TooLarge),
                Err(_) => Err(AskError::Closed),
            }
        }
    }

    /// Hands the client's answer to whoever asked. False if nobody waits for an answer with this ID.
    pub fn answer(&self, id: &RequestId, outcome: Outcome<'_>) -> bool {
        let RequestId::Number(id) = *id else { return false };
        let Some(ask) = self.take_ask(id) else { return false };
        let answer = match outcome {
            Outcome::Result(result) => Ok(result.to_owned()),
            Outcome::Error(error) => Err(AskError::Refused(error.to_owned())),
        };
        ask.answer.send(answer).is_ok()
    }

    fn take_ask(&self, id: i64) -> Option<Ask> {
        let mut open = lock(&self.open);
        let asks = &mut open.rest.as_mut()?.asks;
        asks.iter().position(|ask| ask.id == id).map(|index| asks.swap_remove(index))
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
        // Before the end is marked, since the last chunk stays behind the mark.
        self.shed();
        self.standalone.close(self.now(), &self.settings().standalone);
        for request in requests {
            if request.finish() {
                request.cancel();
            }
            request.stream.close(self.now(), &self.settings().request);
        }
        true
    }

    /// Lets the events of a session that ended go, unless a connection is on the way to write them: the map keeps an
    /// ended session until it needs its place, and it shall not keep what the session retained. Where the stream has
    /// its end already, up to one chunk of events stays.
    pub(super) fn shed(&self) {
        // Either the end of the last connection finds the session closed, or the end of the session finds nobody
        // connected: the lock of `open` puts the two in an order.
        if self.is_closed() && !self.standalone.terms().is_attached() {
            self.standalone.trim(0, self.now(), &self.settings().standalone);
        }
    }

    /// Looks at each of its streams, with what it may retain.
    pub(super) fn for_each_stream(&self, mut visit: impl FnMut(&Stream, &Limits)) {
        let settings = self.settings();
        if !self.standalone.is_untouched() {
            visit(&self.standalone, &settings.standalone);
        }
        let open = lock(&self.open);
        let finished = open.finished().map(|finished| &finished.request);
        open.in_flight.iter().chain(finished).for_each(|request| visit(&request.stream, &settings.request));
    }

    /// Whether the session ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        lock(&self.open).closed
    }

    /// Whether more events are retained, by all sessions together, than may be: a client that takes nothing just now
    /// is one to let go.
    #[must_use]
    pub fn is_short_of_memory(&self) -> bool {
        self.shared.is_short_of_memory()
    }

    /// What it holds at the moment.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let open = lock(&self.open);
        let asks = open.rest.as_ref().map_or(0, |rest| rest.asks.len());
        Summary { in_flight: open.in_flight.len(), retained: open.finished().count(), asks }
    }

    /// What a sweep wants to know.
    pub(super) fn vitals(&self) -> Vitals {
        Vitals {
            created: self.created,
            touched: self.touched(),
            is_heard: self.progress() & progress::HEARD != 0,
            is_untouched: self.standalone.is_untouched(),
        }
    }

    /// Why its time is up at `now`, if it is.
    pub(super) fn expiry(&self, vitals: Vitals, now: Moment, settings: &Settings) -> Option<End> {
        let age = now.since(vitals.created);
        if age >= settings.absolute_ms {
            return Some(End::Aged);
        }
        if !vitals.is_heard && age >= settings.init_ms {
            return Some(End::Uninitialised);
        }
        let is_idle = now.since(vitals.touched) >= settings.idle_ms && self.summary().in_flight == 0;
        is_idle.then_some(End::Idle)
    }

    fn touched(&self) -> Moment {
        // Relaxed: see `touch`.
        Moment(self.touched.load(Ordering::Relaxed))
    }

    /// Where it stands in the order in which sessions go at the limit.
    pub(super) fn as_victim(&self, at_limit: AtLimit) -> Victim {
        let since = match at_limit {
            AtLimit::EvictLongestIdle => self.touched(),
            AtLimit::EvictOldest | AtLimit::Refuse => self.created,
        };
        Victim { since, id: self.id.as_u128() }
    }
}

/// The few words of a session that a sweep looks at.
#[derive(Clone, Copy)]
pub(super) struct Vitals {
    created: Moment,
    touched: Moment,
    is_heard: bool,
    /// Nothing was ever published on the standalone stream.
    pub(super) is_untouched: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("version", &self.version()).finish_non_exhaustive()
    }
}
