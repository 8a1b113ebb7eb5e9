//! A request being answered, and a question to the client being asked.

use core::fmt;
use core::task::{Context, Poll};

use futures_channel::oneshot;
use serde_json::value::RawValue;

use crate::protocol::{ProtocolVersion, RequestId};
use crate::ring::Closed;
use crate::sse::StreamName;
use crate::stream::Stream;
use crate::sync::{AtomicU32, Ordering};
use crate::wake::{Waiter, Waiters};

/// The stream of one request: opened by a POST, ends with the response, outlives its connections.
#[derive(Debug)]
pub struct RequestStream {
    pub(super) name: StreamName,
    pub(super) stream: Stream,
    id: RequestId,
    progress_token: Option<RequestId>,
    version: ProtocolVersion,
    /// Whether its result tells what version the session speaks.
    pub(super) initializes: bool,
    state: AtomicU32,
    watchers: Waiters,
}

/// Marks in [`RequestStream::state`].
mod state {
    /// The response is published, or will never be.
    pub(super) const FINISHED: u32 = 1;
    /// The client, or the end of its session, took the request back.
    pub(super) const CANCELLED: u32 = 2;
}

impl RequestStream {
    pub(super) fn new(
        name: StreamName,
        id: RequestId,
        progress_token: Option<RequestId>,
        version: ProtocolVersion,
        initializes: bool,
    ) -> Self {
        let (stream, state, watchers) = (Stream::new(), AtomicU32::new(0), Waiters::new());
        Self { name, stream, id, progress_token, version, initializes, state, watchers }
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
        self.name
    }

    /// The events.
    #[must_use]
    pub fn stream(&self) -> &Stream {
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

    /// Ready when the request was taken back.
    pub fn poll_cancelled(&self, waiter: &mut Waiter, context: &mut Context<'_>) -> Poll<()> {
        if !self.is_cancelled() {
            self.watchers.register(waiter, context.waker());
        }
        if self.is_cancelled() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Drops what a watcher that gave up left behind; others look once more and wait on.
    pub fn unwatch(&self) {
        self.watchers.wake();
    }

    /// Marks the request finished; true for the one who did.
    pub(super) fn finish(&self) -> bool {
        self.set(state::FINISHED) & state::FINISHED == 0
    }

    /// Marks the request cancelled and wakes who watches for it.
    pub(super) fn cancel(&self) {
        self.set(state::CANCELLED);
        self.watchers.wake();
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

/// Why a message was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// The session ended, or the request has its response or was cancelled.
    Closed,
    /// The message alone is larger than all that its stream may retain.
    TooLarge {
        /// How many bytes the event is.
        bytes: usize,
        /// How many the stream may retain.
        limit: u64,
    },
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the session or the request has ended"),
            Self::TooLarge { bytes, limit } => {
                write!(
                    f,
                    "an event of {bytes} bytes is larger than the {limit} bytes that its stream may retain"
                )
            }
        }
    }
}

impl std::error::Error for PublishError {}

impl<T> From<Closed<T>> for PublishError {
    fn from(_: Closed<T>) -> Self {
        Self::Closed
    }
}

/// Why a question to the client has no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum AskError {
    /// The client answered with an error: its `code`, `message` and `data`.
    Refused(Box<RawValue>),
    /// The request or the session that the question belongs to ended first.
    Closed,
    /// The question alone is larger than all that its stream may retain.
    TooLarge,
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "the client answered with an error: {error}"),
            Self::Closed => f.write_str("the client is gone"),
            Self::TooLarge => f.write_str("the question is larger than its stream may retain"),
        }
    }
}

impl std::error::Error for AskError {}

/// A question to the client that waits for its answer.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) id: i64,
    /// Number of the request stream it was asked on.
    pub(super) stream: u32,
    pub(super) answer: oneshot::Sender<Result<Box<RawValue>, AskError>>,
}
