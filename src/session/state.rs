//! One session: its streams, its requests, its end.

use core::fmt;

use super::life::Life;
use super::open::{Attachment, Due, Open, Summary};
use super::principal::{Holder, Principal, PrincipalId};
use super::settings::Settings;
use super::shared::Shared;
use super::standalone::{Detached, Lines, Listener, LockLines, Standalone};
use crate::protocol::{ProtocolVersion, SessionId};
use crate::request::PublishError;
use crate::ring::Position;
use crate::sse::Frame;
use crate::stream::{Moment, Stream};
use crate::sync::{Arc, AtomicU8, AtomicU32, Mutex, Ordering, lock};

/// In [`Session::version`]: none was agreed on yet.
const NO_VERSION: u8 = 0xff;

/// Related interactions of one client with the server.
///
/// # Examples
///
/// ```
/// # use ringmain::session::{Sessions, Settings};
/// # use ringmain::topic::Clock;
/// # let sessions = Sessions::new(Settings::default(), Clock::default());
/// # let session = sessions.create(None);
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU32, Ordering};
///
/// // What a handler keeps for a session it keeps with it.
/// session.attach(Arc::new(AtomicU32::new(0)));
///
/// let attachment = session.attachment().expect("it is there until the session ends");
/// let calls = attachment.downcast_ref::<AtomicU32>().expect("it is what was attached");
/// calls.fetch_add(1, Ordering::Relaxed);
/// ```
// In this order, so that a sweep finds what it looks at side by side.
#[repr(C)]
pub struct Session {
    pub(super) life: Life,
    created: Narrow<6>,
    /// Of the messages to all, the first that was published after it began.
    pub(super) first_broadcast: Narrow<5>,
    /// The index of the version that was agreed on.
    version: AtomicU8,
    pub(super) due: Due,
    /// Where it stands in the roster.
    pub(super) place: AtomicU32,
    /// Names the session in event IDs.
    pub(super) tag: u32,
    pub(super) standalone: Standalone,
    /// Who may use the session.
    holder: Holder,
    // Here, where sixteen bytes divide its place: nothing is lost to alignment.
    id: SessionId,
    pub(super) shared: Arc<Shared>,
    /// See the module docs for why this is a mutex.
    pub(super) open: Mutex<Open>,
}

impl Session {
    pub(super) fn new(id: SessionId, tag: u32, holder: Holder, shared: Arc<Shared>) -> Self {
        let (now, first_broadcast) = (shared.clock.now(), shared.broadcasts.tail());
        Self {
            id,
            tag,
            version: AtomicU8::new(NO_VERSION),
            due: Due::never(),
            place: AtomicU32::new(0),
            created: Narrow::new(now.0),
            first_broadcast: Narrow::new(first_broadcast),
            life: Life::new(now),
            holder,
            standalone: Standalone::new(first_broadcast),
            shared,
            open: Mutex::new(Open::default()),
        }
    }

    /// The session's ID. A secret: it belongs in the `Mcp-Session-Id` header and nowhere else.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The number of the [`principal`](Self::principal); `None` is anybody who knows the session's ID.
    #[must_use]
    pub fn principal_id(&self) -> Option<PrincipalId> {
        self.holder.id()
    }

    /// The principal that the session belongs to, and that alone may use it; `None` is anybody who knows its ID. Store
    /// what belongs to a user under this name, not under the session's ID.
    ///
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/security_best_practices#session-hijacking
    //# MCP servers SHOULD bind session IDs to user-specific information.
    #[must_use]
    pub fn principal(&self) -> Option<&Principal> {
        self.holder.principal()
    }

    /// The protocol version that `initialize` agreed on, once it has.
    #[must_use]
    pub fn version(&self) -> Option<ProtocolVersion> {
        // Relaxed: a number by itself; who needs the rest of the session got it through the map.
        ProtocolVersion::from_index(self.version.load(Ordering::Relaxed))
    }

    /// Notes what `initialize` agreed on. From then on the session is initialised. The response to a request
    /// that was opened to initialise does this by itself.
    #[doc(hidden)]
    pub fn agree(&self, version: ProtocolVersion) {
        // Relaxed: as in `version`.
        self.version.store(version.to_index(), Ordering::Relaxed);
    }

    /// Notes that the client came back after `initialize`, and was heard of just now. Without it the session
    /// expires by [`Settings::init_ms`]. False if the session has ended: to the client it does not exist any more.
    ///
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/lifecycle#initialization
    //# After successful initialization, the client MUST send an `initialized` notification to indicate it is ready to
    //# begin normal operations
    // Whatever else a client sends with the session's ID counts as well: it shows that somebody is there who got the
    // answer, and not every client sends the notification.
    #[doc(hidden)]
    pub fn hear(&self) -> bool {
        self.life.hear(self.now())
    }

    /// Whatever the handler keeps with this session, if it was set and the session has not ended.
    #[must_use]
    pub fn attachment(&self) -> Option<Attachment> {
        lock(&self.open).attachment.as_deref().cloned()
    }

    /// Keeps something of the handler's with this session, until the session ends. The first call wins. False if
    /// something is kept already, or the session has ended.
    pub fn attach(&self, attachment: Attachment) -> bool {
        let mut open = lock(&self.open);
        let keeps = open.attachment.is_none() && !self.is_closed();
        if keeps {
            open.attachment = Some(Box::new(attachment));
        }
        keeps
    }

    /// Takes out what the handler keeps with a session that ended. Dropped by the caller, and not under the lock.
    pub(super) fn detach(&self) -> Option<Box<Attachment>> {
        lock(&self.open).attachment.take()
    }

    /// Notes that the client was heard of, or took something, just now. False if the session has ended.
    #[doc(hidden)]
    pub fn touch(&self) -> bool {
        self.life.touch(self.now())
    }

    /// Reads what publishing and delivering touch besides the stream.
    #[inline]
    pub(super) fn warm(&self) -> bool {
        self.life.look().touched() != self.shared.clock.now()
    }

    /// The time that the session goes by.
    #[must_use]
    #[doc(hidden)]
    pub fn now(&self) -> Moment {
        self.shared.clock.now()
    }

    /// The settings that its registry was made with.
    #[must_use]
    #[doc(hidden)]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The random number that names the session in event IDs. Not a secret.
    #[must_use]
    #[doc(hidden)]
    pub fn tag(&self) -> u32 {
        self.tag
    }

    /// The session's own events on the standalone stream. Those for all sessions are in [`Sessions::broadcasts`].
    ///
    /// [`Sessions::broadcasts`]: super::Sessions::broadcasts
    #[must_use]
    #[doc(hidden)]
    pub fn standalone(&self) -> &Stream {
        self.standalone.stream()
    }

    /// Publishes a message that belongs to no request. `write` appends it as JSON; line breaks in it become spaces.
    ///
    /// # Errors
    ///
    /// The session ended, or the message is too large for its stream.
    pub fn publish(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<Position, PublishError> {
        let (frame, limits) = (Frame::shared(write), &self.settings().standalone);
        let environment = &self.shared.environment;
        environment.check_size(&frame, limits)?;
        environment.count(self.standalone.publish(frame, self.now(), limits))
    }

    /// Notes that a connection of the standalone stream ended.
    pub(super) fn unlisten(&self, listener: &Listener) {
        let Detached { was_last, wakes } = self.standalone.detach(self, listener);
        if was_last {
            self.shared.count_listening(-1);
        }
        if wakes {
            self.standalone.wake_in_drop();
        }
    }

    /// Asks the clients connected to the standalone stream to go and come back, after what is published by then. False
    /// if there are none.
    pub fn hang_up(&self) -> bool {
        self.standalone.hang_up(self)
    }

    /// Whether the session ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.life.is_ended()
    }

    /// Whether more events are retained, by all sessions together, than may be: a client that takes nothing just now
    /// is one to let go.
    #[must_use]
    pub(crate) fn is_short_of_memory(&self) -> bool {
        self.shared.is_short_of_memory()
    }

    /// What it holds at the moment.
    #[must_use]
    pub fn summary(&self) -> Summary {
        lock(&self.open).summary()
    }

    pub(super) fn created(&self) -> Moment {
        Moment(self.created.get())
    }
}

impl LockLines for Session {
    fn with_lines<R>(&self, act: impl FnOnce(&mut Lines) -> R) -> R {
        lock(&self.open).with_lines(act)
    }
}

/// A number in few bytes. The highest that they hold stands for all that are higher.
pub(super) struct Narrow<const BYTES: usize>([u8; BYTES]);

impl<const BYTES: usize> Narrow<BYTES> {
    fn new(number: u64) -> Self {
        let mut bytes = [0; BYTES];
        bytes.copy_from_slice(&number.min((1 << (8 * BYTES)) - 1).to_le_bytes()[..BYTES]);
        Self(bytes)
    }

    pub(super) fn get(&self) -> u64 {
        let mut number = [0; 8];
        number[..BYTES].copy_from_slice(&self.0);
        u64::from_le_bytes(number)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("version", &self.version()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_number_is_itself_or_the_highest() {
        for number in [0, 1, 0x12_3456_789a, (1 << 40) - 1] {
            assert_eq!((Narrow::<5>::new(number).get(), Narrow::<6>::new(number).get()), (number, number));
        }
        for number in [1 << 40, u64::MAX] {
            assert_eq!(Narrow::<5>::new(number).get(), (1 << 40) - 1);
        }
    }
}
