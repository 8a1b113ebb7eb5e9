//! What the benches share: the event, and the rivals that keep and hand out the same events.

#![allow(dead_code, reason = "each bench uses a part of it")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write;
use std::hint::black_box;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use ringmain::internals::ring::Limits;
use ringmain::internals::sse::{Frame, StreamName};
use ringmain::internals::sync::{Mutex, lock};
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::streamable_http_server::SessionManager;
use rmcp::transport::streamable_http_server::session::local::{LocalSessionManager, SessionConfig};
use rmcp::transport::streamable_http_server::session::{ServerSseMessage, SessionId};
use sse_stream::{Sse, SseBody};
use tokio::runtime::Runtime;
use tokio::sync::broadcast;

/// Every side allocates with the same allocator, the one the binary uses.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The stream of the benches.
pub(crate) const NAME: StreamName = StreamName { tag: 0x9f3c_21ab, stream: 1 };

/// What every side retains.
pub(crate) const RETAINED: usize = 256;

/// The same for our ring: 256 frames, and no limit by bytes, which the rivals do not have.
pub(crate) const LIMITS: Limits = Limits { capacity: RETAINED, max_weight: 1 << 40, max_age_ms: 300_000 };

/// A logging notification of 201 bytes, whose frame is 256 bytes.
pub(crate) const MESSAGE: &[u8; 201] = br#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","logger":"worker","data":"job 7: 1280 of 4096 records imported into the staging table, about 3 minutes and 20 seconds left."}}"#;

/// The frame of [`MESSAGE`], built.
pub(crate) fn frame() -> Frame {
    Frame::whole(NAME, |out| out.extend_from_slice(MESSAGE))
}

/// How a rival makes its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// At its best: bytes are put together by hand in a buffer of the right size, and become `Bytes`.
    ByHand,
    /// As most servers do: `format!`, and the string becomes `Bytes`.
    Format,
}

impl Build {
    /// The frame of [`MESSAGE`] at `position`: the same bytes as ours.
    #[inline]
    pub(crate) fn frame(self, position: u64) -> Bytes {
        match self {
            Self::ByHand => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                let mut out = Vec::with_capacity(256);
                out.extend_from_slice(b"id: 9f3c21ab-0-");
                let mut digits = [0; 16];
                let mut rest = position;
                for digit in digits.iter_mut().rev() {
                    *digit = DIGITS[(rest & 15) as usize];
                    rest >>= 4;
                }
                out.extend_from_slice(&digits);
                out.extend_from_slice(b"\nevent: message\ndata: ");
                out.extend_from_slice(MESSAGE);
                out.extend_from_slice(b"\n\n");
                Bytes::from(out)
            }
            Self::Format => {
                let data = str::from_utf8(MESSAGE).expect("it is ASCII");
                let mut out = String::with_capacity(256);
                let (tag, stream) = (NAME.tag, NAME.stream);
                write!(out, "id: {tag:08x}-{stream:x}-{position:016x}\nevent: message\ndata: {data}\n\n")
                    .expect("a string takes everything");
                Bytes::from(out)
            }
        }
    }
}

/// A mutexed queue of the latest frames, read by index.
#[derive(Debug)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    build: Build,
}

#[derive(Debug)]
struct Inner {
    frames: VecDeque<Bytes>,
    /// Position of the first frame in the queue.
    oldest: u64,
}

impl Queue {
    /// Makes an empty queue with room for [`RETAINED`] frames.
    pub(crate) fn new(build: Build) -> Self {
        let frames = VecDeque::with_capacity(RETAINED + 1);
        Self { inner: Mutex::new(Inner { frames, oldest: 1 }), build }
    }

    /// Appends the next frame.
    #[inline]
    pub(crate) fn publish(&self) {
        self.publish_then(|_| ());
    }

    /// As `publish`; `then` runs under the lock, so that what it does has the order of the positions.
    #[inline]
    fn publish_then(&self, then: impl FnOnce(&Bytes)) {
        let mut inner = lock(&self.inner);
        let position = inner.oldest + inner.frames.len() as u64;
        let frame = self.build.frame(position);
        then(&frame);
        if inner.frames.len() == RETAINED {
            inner.frames.pop_front();
            inner.oldest += 1;
        }
        inner.frames.push_back(frame);
    }

    /// The next frame of a reader at `cursor`, which moves behind it, over what is gone by now.
    #[inline]
    pub(crate) fn next(&self, cursor: &mut u64) -> Option<Bytes> {
        let inner = lock(&self.inner);
        *cursor = (*cursor).max(inner.oldest);
        let frame = inner.frames.get((*cursor - inner.oldest) as usize)?.clone();
        *cursor += 1;
        Some(frame)
    }

    /// The frames behind `after`: taken under the lock, used when it is free again.
    #[inline]
    pub(crate) fn replay(&self, after: u64) -> Vec<Bytes> {
        let inner = lock(&self.inner);
        let skip = (after + 1).saturating_sub(inner.oldest) as usize;
        inner.frames.iter().skip(skip).cloned().collect()
    }
}

/// What most servers do: a broadcast channel for those who are connected, a mutexed queue for those who come
/// back.
#[derive(Debug)]
pub(crate) struct Broadcast {
    pub(crate) sender: broadcast::Sender<Bytes>,
    pub(crate) queue: Queue,
}

impl Broadcast {
    /// Makes both, empty.
    pub(crate) fn new(build: Build) -> Self {
        Self { sender: broadcast::channel(RETAINED).0, queue: Queue::new(build) }
    }

    /// Formats the next frame, keeps it and sends it, under one lock so that both have the same order.
    #[inline]
    pub(crate) fn publish(&self) {
        self.queue.publish_then(|frame| {
            // An error says that nobody is connected.
            let _ = self.sender.send(frame.clone());
        });
    }
}

/// A body as rmcp writes it to the socket.
type RmcpBody = Pin<Box<SseBody<Pin<Box<dyn futures_util::Stream<Item = Result<Sse, Infallible>>>>>>>;

/// A session of rmcp's own: its `LocalSessionManager`, its worker task, its channels, and the last step of its
/// HTTP response (`serde_json::to_string` of each message, then `SseBody`), which rmcp does not export and
/// which is copied here from its `common/server_side_http.rs`. One thread, so that no wake crosses threads;
/// [`RETAINED`] events in its cache and channels.
pub(crate) struct Rmcp {
    pub(crate) runtime: Runtime,
    pub(crate) session: RmcpSession,
}

/// The session, apart from the runtime that runs its worker.
pub(crate) struct RmcpSession {
    manager: LocalSessionManager,
    transport: <LocalSessionManager as SessionManager>::Transport,
    id: SessionId,
    message: ServerJsonRpcMessage,
}

impl Rmcp {
    /// Makes one session and initialises it.
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut config = SessionConfig::default();
        config.channel_capacity = RETAINED;
        let mut manager = LocalSessionManager::default();
        manager.session_config = config;
        let (id, transport) = runtime.block_on(async {
            let (id, mut transport) = manager.create_session().await.expect("a session");
            let initialize: ClientJsonRpcMessage = serde_json::from_str(
                r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25",
                    "capabilities":{},"clientInfo":{"name":"bench","version":"0"}}}"#,
            )
            .expect("an initialize request");
            let answer: ServerJsonRpcMessage = serde_json::from_str(
                r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{},
                    "serverInfo":{"name":"bench","version":"0"}}}"#,
            )
            .expect("an initialize result");
            let handler = async {
                transport.receive().await.expect("the request");
                transport.send(answer).await.expect("the worker takes it");
                transport
            };
            let (initialized, transport) =
                futures_util::join!(manager.initialize_session(&id, initialize), handler);
            initialized.expect("it is initialised");
            (id, transport)
        });
        let message = serde_json::from_slice(MESSAGE).expect("a notification");
        Self { runtime, session: RmcpSession { manager, transport, id, message } }
    }
}

impl RmcpSession {
    /// Publishes one event as a handler does: to the worker task, which keeps it and sends it on.
    pub(crate) async fn publish(&mut self) {
        self.transport.send(self.message.clone()).await.expect("the worker takes it");
    }

    /// Connects the standalone stream.
    pub(crate) async fn connect(&self) -> RmcpBody {
        Self::body(self.manager.create_standalone_stream(&self.id).await.expect("a stream"))
    }

    /// Resumes the standalone stream behind event `after`.
    pub(crate) async fn resume(&self, after: usize) -> RmcpBody {
        Self::body(self.manager.resume(&self.id, after.to_string()).await.expect("a stream"))
    }

    fn body(messages: impl futures_util::Stream<Item = ServerSseMessage> + 'static) -> RmcpBody {
        let events = messages.map(|message| {
            let mut event = match &message.message {
                Some(message) => {
                    Sse::default().data(serde_json::to_string(&**message).expect("a valid message"))
                }
                None => Sse::default().data(""),
            };
            event.id = message.event_id;
            Ok(event)
        });
        let events: Pin<Box<dyn futures_util::Stream<Item = Result<Sse, Infallible>>>> = Box::pin(events);
        Box::pin(SseBody::new(events))
    }

    /// The bytes of the next event.
    pub(crate) async fn next(body: &mut RmcpBody) -> Bytes {
        let frame = body.frame().await.expect("the stream goes on").expect("it cannot fail");
        frame.into_data().expect("an event is data")
    }
}

/// Looks at the first and the last byte of a frame and at its length, so that somebody did read it.
#[inline]
pub(crate) fn look_at(bytes: &[u8]) {
    black_box(bytes.len() as u64 + u64::from(bytes[0]) + u64::from(bytes[bytes.len() - 1]));
}
