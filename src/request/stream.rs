//! The stream of one request, or of the requests of one batch.

use crate::protocol::{ProtocolVersion, RequestId};
use crate::ring::Limits;
use crate::sse::{self, Frame, StreamName};
use crate::stream::Stream;
use crate::sync::{Arc, AtomicU32, AtomicU64, Ordering};
use crate::wake::Waiters;

/// The stream of one request: opened by a POST, ends with the response, outlives its connections.
#[derive(Debug)]
pub struct RequestStream {
    /// [`NO_NAME`] if its events have no IDs.
    name: StreamName,
    stream: Stream,
    id: RequestId,
    progress_token: Option<RequestId>,
    version: ProtocolVersion,
    /// Whether its result tells what version is spoken from then on.
    initializes: bool,
    state: AtomicU32,
    /// Those who want to know when it is cancelled.
    watchers: Waiters,
    /// The batch that it is a request of: then its messages go on the batch's stream, and its own is not used.
    batch: Option<Arc<BatchStream>>,
}

/// Names no stream: streams of requests are numbered from 1 on.
const NO_NAME: StreamName = StreamName { tag: 0, stream: 0 };

/// Requests that are answered on one stream, because they came in one POST. The stream is that of a request that nobody
/// sent, and ends when each of them has its response.
///
/// Any event of that stream may be the only response to a request. So it lets nothing go, whatever its number and age,
/// and what has no space is refused: messages that would take it beyond half of the [limit](super::Environment::limits)
/// of one stream, and responses that would take it beyond all of that, in whose place there is an error.
#[derive(Debug)]
pub struct BatchStream {
    carrier: Arc<RequestStream>,
    /// Requests without a response, and one more until all are opened.
    unfinished: AtomicU32,
    /// What was published on the stream, in bytes.
    bytes: AtomicU64,
}

/// What the stream of a batch retains, whose events are counted before they are published: see [`BatchStream`].
pub(crate) const EVERYTHING: Limits =
    Limits { capacity: usize::MAX, max_weight: u64::MAX, max_age_ms: u32::MAX };

impl BatchStream {
    /// Makes a batch whose requests are answered on the stream of `carrier`.
    pub(crate) fn new(carrier: Arc<RequestStream>) -> Self {
        Self { carrier, unfinished: AtomicU32::new(1), bytes: AtomicU64::new(0) }
    }

    /// The request that stands for all of them: its stream is theirs.
    #[must_use]
    pub fn carrier(&self) -> &Arc<RequestStream> {
        &self.carrier
    }

    /// Counts an event of `bytes`, unless they were more than `limit` with those of all events before.
    pub(super) fn take_room(&self, bytes: u64, limit: u64) -> bool {
        let more = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= limit);
        // Relaxed, twice: a number that orders nothing.
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Notes that one request more is to be answered.
    pub(crate) fn enter(&self) {
        // Relaxed: the opener, which has its own share until the end, does this alone.
        self.unfinished.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that one thing fewer is to come. Returns whether it was the last.
    pub(super) fn leave_one(&self) -> bool {
        // AcqRel: the last one sees what those before it published. Pairs with itself.
        self.unfinished.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// Marks in [`RequestStream::state`].
mod state {
    /// The response is published, or will never be.
    pub(super) const FINISHED: u32 = 1;
    /// The client, or whatever ended with it, took the request back.
    pub(super) const CANCELLED: u32 = 2;
    /// What it takes beside its events is counted among what is retained.
    pub(super) const COUNTED: u32 = 4;
    /// The client takes the response and nothing else.
    pub(super) const RESPONSE_ONLY: u32 = 8;
    /// It stands for the requests of a batch, and has no ID.
    pub(super) const CARRIER: u32 = 16;
}

impl RequestStream {
    /// Makes the stream of a request that is answered in `version`, under a name that no other stream has.
    pub(crate) fn new(
        name: StreamName,
        id: RequestId,
        progress_token: Option<RequestId>,
        version: ProtocolVersion,
    ) -> Self {
        let (stream, state, watchers) = (Stream::new(), AtomicU32::new(0), Waiters::new());
        let (initializes, batch) = (false, None);
        Self { name, stream, id, progress_token, version, initializes, state, watchers, batch }
    }

    /// Makes the stream of a request that stands alone, and is answered in `version`. It has one connection: its events
    /// carry no IDs, since nothing could be resumed.
    #[must_use]
    pub fn alone(id: RequestId, progress_token: Option<RequestId>, version: ProtocolVersion) -> Self {
        Self::new(NO_NAME, id, progress_token, version)
    }

    /// Makes the one that stands for a batch.
    pub(crate) fn carrier(name: StreamName, version: ProtocolVersion) -> Self {
        let carrier = Self::new(name, RequestId::from(0), None, version);
        carrier.set(state::CARRIER);
        carrier
    }

    /// This is `initialize`: its result tells what version is spoken from then on.
    pub(crate) fn initializing(mut self) -> Self {
        self.initializes = true;
        self
    }

    /// This is a request of a batch, and answered on its stream.
    pub(crate) fn in_batch(mut self, batch: Arc<BatchStream>) -> Self {
        self.batch = Some(batch);
        self
    }

    /// Whether its result tells what version is spoken from then on.
    pub(super) fn initializes(&self) -> bool {
        self.initializes
    }

    /// The batch that it is a request of.
    pub(crate) fn batch(&self) -> Option<&Arc<BatchStream>> {
        self.batch.as_ref()
    }

    /// Whether the client sent a request with this ID, which waits for its response.
    pub(crate) fn is_open_as(&self, id: &RequestId) -> bool {
        self.is_known_as(id) && !self.is_finished()
    }

    /// Whether the client sent a request with this ID.
    pub(crate) fn is_known_as(&self, id: &RequestId) -> bool {
        self.id == *id && !self.is_carrier()
    }

    /// Whether it stands for a batch. Then any of its events may be a response.
    pub(crate) fn is_carrier(&self) -> bool {
        self.has(state::CARRIER)
    }

    /// Whose stream its messages go on: its own, or that of its batch.
    fn on(&self) -> &Self {
        self.batch.as_ref().map_or(self, |batch| &batch.carrier)
    }

    /// Makes an event of the stream that its messages go on.
    pub(super) fn frame(&self, write: impl FnOnce(&mut Vec<u8>)) -> Frame {
        match self.name() {
            NO_NAME => Frame::shared(write),
            name => Frame::whole(name, write),
        }
    }

    /// Whether a client that lost its connection can come back for the rest.
    pub(crate) fn is_resumable(&self) -> bool {
        self.name() != NO_NAME
    }

    /// The JSON-RPC ID of the request.
    #[must_use]
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// The token under which the client wants to hear of progress.
    #[must_use]
    pub fn progress_token(&self) -> Option<&RequestId> {
        self.progress_token.as_ref()
    }

    /// The protocol version that this request is answered in.
    #[must_use]
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// The stream's name in event IDs.
    #[must_use]
    pub fn name(&self) -> StreamName {
        self.on().name
    }

    /// The events; those of the whole batch, if it is a request of one.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.on().stream
    }

    /// The number of its own stream, which is not used if it is a request of a batch.
    #[inline]
    pub(crate) fn number(&self) -> u32 {
        self.name.stream
    }

    /// Its own stream, likewise.
    #[inline]
    pub(crate) fn own_stream(&self) -> &Stream {
        &self.stream
    }

    /// Whether the response is published, or will never be.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.has(state::FINISHED)
    }

    /// Whether the request was taken back. Work for it may stop; its response goes nowhere.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.has(state::CANCELLED)
    }

    /// Notes that the client takes the response and nothing else: it does not accept event streams. Called before
    /// anything is published on the stream. Messages before the response are counted and dropped, and the client
    /// cannot be asked anything.
    pub fn want_response_only(&self) {
        self.set(state::RESPONSE_ONLY);
    }

    /// Whether the client takes nothing but the response.
    #[must_use]
    pub fn is_response_only(&self) -> bool {
        self.has(state::RESPONSE_ONLY)
    }

    /// Marks the request finished; true for the one who did.
    pub(crate) fn mark_finished(&self) -> bool {
        self.set(state::FINISHED) & state::FINISHED == 0
    }

    /// Marks the request cancelled.
    pub(super) fn mark_cancelled(&self) {
        self.set(state::CANCELLED);
    }

    /// Those who want to know when it is cancelled.
    pub(super) fn watchers(&self) -> &Waiters {
        &self.watchers
    }

    /// What it takes beside its events: itself with its counts, its texts, the first chunk of its ring, and its place
    /// among the responses of its session.
    fn overhead(&self) -> u64 {
        const COUNTS: usize = 2 * size_of::<usize>();
        const CHUNK: usize = 96;
        const PLACE: usize = 72;
        let text = |id: &RequestId| match id {
            RequestId::Number(_) => 0,
            RequestId::String(text) => text.len(),
        };
        let texts = text(&self.id) + self.progress_token.as_ref().map_or(0, text);
        (COUNTS + size_of::<Self>() + texts + CHUNK + PLACE) as u64
    }

    /// What it takes, its events included.
    pub(crate) fn memory(&self) -> u64 {
        self.overhead() + self.stream.retained_bytes()
    }

    /// From now on what it takes beside its events counts among what is retained.
    pub(crate) fn count_memory(&self) {
        if self.set(state::COUNTED) & state::COUNTED == 0 {
            sse::count_retained(self.overhead() as i64);
        }
    }

    fn has(&self, mark: u32) -> bool {
        // Acquire: whoever sees the mark sees what was done before it. Pairs with the AcqRel in `set`.
        self.state.load(Ordering::Acquire) & mark != 0
    }

    fn set(&self, mark: u32) -> u32 {
        // AcqRel: pairs with itself and with the Acquire in `has`. The watchers' own word orders the wake.
        self.state.fetch_or(mark, Ordering::AcqRel)
    }
}

impl Drop for RequestStream {
    fn drop(&mut self) {
        if self.has(state::COUNTED) {
            sse::count_retained(-(self.overhead() as i64));
        }
    }
}
