//! All sessions of this process: found without a lock, expired without a timer each.

use core::fmt;
use core::hash::{BuildHasher, Hasher};
use core::hint::black_box;

use crossbeam_queue::SegQueue;
use crossbeam_utils::CachePadded;
use scc::{Guard, HashIndex};

use super::Settings;
use super::principal::{Holder, Principals};
use super::state::Session;
use super::traffic::Traffic;
use crate::protocol::{Refusal, SessionId, random_tag};
use crate::sse::Frame;
use crate::stream::{Clock, Moment};
use crate::sync::{Arc, AtomicU32, AtomicU64, AtomicUsize, Mutex, Ordering, Weak, lock};

/// What every session of one registry needs.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    /// Written now and then, beside what every message reads: on cache lines of its own.
    pub(super) counters: CachePadded<Counters>,
    pub(super) traffic: Traffic,
    /// How many sessions there are; likewise.
    count: CachePadded<AtomicUsize>,
    /// Responses by the time they were published: the oldest first, so that letting them go costs nothing for
    /// those whose time has not come.
    responses: Queue,
    /// Those handed to a connection that ended as it should, by that time.
    delivered: Queue,
    principals: Principals,
    /// Milliseconds over which clients spread that are told to come back.
    spread_ms: AtomicU32,
}

impl Shared {
    pub(super) fn keep_response(&self, session: &Arc<Session>, stream: u32) {
        self.responses.push(Kept { session: Arc::downgrade(session), stream, since: self.clock.now() });
    }

    pub(super) fn keep_delivered(&self, session: &Arc<Session>, stream: u32) {
        self.delivered.push(Kept { session: Arc::downgrade(session), stream, since: self.clock.now() });
    }

    /// What a client is told to wait before it comes back; `tag` is the random number of its session.
    pub(super) fn retry_ms(&self, tag: u32) -> u32 {
        // Relaxed: a number that orders nothing.
        let spread = u64::from(self.spread_ms.load(Ordering::Relaxed));
        let later = (u64::from(tag) * (spread + 1)) >> 32;
        self.settings.retry_ms.saturating_add(u32::try_from(later).unwrap_or(u32::MAX))
    }
}

/// What happened to connections since the start: numbers that only go up.
#[derive(Debug, Default)]
pub struct Counters {
    resumed: AtomicU64,
    superseded: AtomicU64,
    lagged: AtomicU64,
    missed: AtomicU64,
}

impl Counters {
    /// Connections that went on behind an event ID.
    #[must_use]
    pub fn resumed(&self) -> u64 {
        Self::read(&self.resumed)
    }

    /// Connections that ended because a later one took their stream over.
    #[must_use]
    pub fn superseded(&self) -> u64 {
        Self::read(&self.superseded)
    }

    /// Times a connection was found behind the oldest retained event.
    #[must_use]
    pub fn lagged(&self) -> u64 {
        Self::read(&self.lagged)
    }

    /// Events that were evicted before they were delivered to a client that asked for them.
    #[must_use]
    pub fn missed(&self) -> u64 {
        Self::read(&self.missed)
    }

    pub(super) fn count_resumed(&self) {
        Self::add(&self.resumed, 1);
    }

    pub(super) fn count_superseded(&self) {
        Self::add(&self.superseded, 1);
    }

    pub(super) fn count_lagged(&self, missed: u64) {
        Self::add(&self.lagged, 1);
        Self::add(&self.missed, missed);
    }

    fn read(counter: &AtomicU64) -> u64 {
        // Relaxed: a number for whoever looks, which orders nothing.
        counter.load(Ordering::Relaxed)
    }

    fn add(counter: &AtomicU64, count: u64) {
        // Relaxed: as in `read`.
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// A request stream that goes when its time has come.
struct Kept {
    session: Weak<Session>,
    stream: u32,
    since: Moment,
}

/// A queue in order of time, and the first of it that a sweep took out too early.
#[derive(Default)]
struct Queue {
    queue: SegQueue<Kept>,
    /// Held by a sweep for its duration, and by nobody else: a second sweep at the same time waits.
    first: Mutex<Option<Kept>>,
}

impl Queue {
    fn push(&self, kept: Kept) {
        self.queue.push(kept);
    }

    /// Forgets every request stream that was kept for `ttl_ms` at `now`; returns how many.
    fn expire(&self, now: Moment, ttl_ms: u64) -> usize {
        let mut first = lock(&self.first);
        let mut expired = 0;
        while let Some(kept) = first.take().or_else(|| self.queue.pop()) {
            if now.since(kept.since) < ttl_ms {
                *first = Some(kept);
                break;
            }
            if let Some(session) = kept.session.upgrade() {
                session.forget_request(kept.stream);
                expired += 1;
            }
        }
        expired
    }
}

/// So many sessions are looked at before the first of them is published to: what the cache does not hold of them
/// arrives together, not one after the other.
const AHEAD: usize = 16;

/// How far a message got that was published to sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Sessions it was published to.
    pub sessions: u64,
    /// Those with a client connected to the stream.
    pub delivered: u64,
    /// Those where it waits for the client to connect.
    pub retained: u64,
}

impl Reach {
    /// Counts one session, with a client connected or without.
    pub fn count(&mut self, attached: bool) {
        self.sessions += 1;
        *(if attached { &mut self.delivered } else { &mut self.retained }) += 1;
    }
}

/// The sessions of one endpoint.
///
/// Cheap to clone; clones are the same registry.
#[derive(Clone)]
pub struct Sessions {
    /// Reads take no lock. The hash is the low half of the ID, which is random.
    map: Arc<HashIndex<u128, Arc<Session>, LowHalf>>,
    shared: Arc<Shared>,
}

impl Sessions {
    /// Makes an empty registry that goes by `clock`.
    #[must_use]
    pub fn new(settings: Settings, clock: Clock) -> Self {
        let (responses, delivered) = (Queue::default(), Queue::default());
        let principals = Principals::new(clock.clone());
        Self {
            map: Arc::new(HashIndex::with_hasher(LowHalf)),
            shared: Arc::new(Shared {
                settings,
                clock,
                counters: CachePadded::new(Counters::default()),
                traffic: Traffic::default(),
                count: CachePadded::new(AtomicUsize::new(0)),
                responses,
                delivered,
                principals,
                spread_ms: AtomicU32::new(0),
            }),
        }
    }

    /// Creates a session that belongs to `holder` ([`Holder::anybody`], or 0: to whoever knows its ID).
    ///
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#session-management
    //# The session ID SHOULD be globally unique and cryptographically secure
    #[must_use]
    pub fn create(&self, holder: impl Into<Holder>) -> Arc<Session> {
        let holder = holder.into();
        loop {
            let id = SessionId::generate();
            let tag = random_tag();
            let session = Arc::new(Session::new(id, tag, holder.clone(), self.shared.clone()));
            // A second session with the same 128 random bits does not happen; if it does, it draws again.
            if self.map.insert_sync(id.as_u128(), session.clone()).is_ok() {
                // Relaxed: a number for limits and logs that orders nothing.
                self.shared.count.fetch_add(1, Ordering::Relaxed);
                return session;
            }
        }
    }

    /// Finds a session. Takes no lock.
    ///
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#session-management
    //# The server MAY terminate the session at any time, after which it MUST respond to requests containing that
    //# session ID with HTTP 404 Not Found.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownSession`] if there is none with this ID that belongs to `principal`.
    pub fn find(&self, id: SessionId, principal: u64) -> Result<Arc<Session>, Refusal> {
        let found = self.map.peek_with(&id.as_u128(), |_, session| session.clone());
        found.filter(|session| session.principal() == principal).ok_or(Refusal::UnknownSession)
    }

    /// Finds a session, whoever it belongs to: for the operator, who may reach all of them.
    #[must_use]
    pub fn find_any(&self, id: SessionId) -> Option<Arc<Session>> {
        self.map.peek_with(&id.as_u128(), |_, session| session.clone())
    }

    /// The principals that sessions belong to.
    #[must_use]
    pub fn principals(&self) -> &Principals {
        &self.shared.principals
    }

    /// Ends a session at once: it cannot be found any more, and its connections end. False if it had ended.
    pub fn terminate(&self, session: &Session) -> bool {
        if !session.close() {
            return false;
        }
        if self.map.remove_sync(&session.id().as_u128()) {
            // Relaxed: as in `create`.
            self.shared.count.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }

    /// How many sessions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        // Relaxed: as in `create`.
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From now on clients that are told to come back are told to wait up to `window_ms` longer, each another time,
    /// so that they do not all come at once.
    pub fn spread_returns(&self, window_ms: u32) {
        // Relaxed: a number that orders nothing.
        self.shared.spread_ms.store(window_ms, Ordering::Relaxed);
    }

    /// The time that the sessions go by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// What happened to connections so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// What flowed through the sessions so far.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.shared.traffic
    }

    /// What the sessions were made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Every session there is. One that begins or ends meanwhile may be among them or not.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<Session>)) {
        let guard = Guard::new();
        self.map.iter(&guard).for_each(|(_, session)| visit(session));
    }

    /// Publishes a message to the standalone stream of every session. It is serialised once: `write` appends it,
    /// as one line of JSON. Takes about a tenth of a microsecond a session, and more where a client waits.
    pub fn publish(&self, write: impl FnOnce(&mut Vec<u8>)) -> Reach {
        let (frame, now, mut reach) = (Frame::shared(write), self.shared.clock.now(), Reach::default());
        let limits = &self.shared.settings.standalone;
        let guard = Guard::new();
        let mut sessions = self.map.iter(&guard).map(|(_, session)| session);
        let mut ahead: [Option<&Arc<Session>>; AHEAD] = [None; AHEAD];
        loop {
            let taken = ahead.iter_mut().zip(&mut sessions).map(|(place, next)| *place = Some(next)).count();
            let ahead = || ahead[..taken].iter().flatten();
            black_box(ahead().fold(false, |any, session| any ^ session.standalone.terms().is_attached()));
            black_box(ahead().fold(false, |any, session| any ^ session.standalone.warm()));
            for session in ahead() {
                if session.standalone.publish(frame.clone(), now, limits).is_ok() {
                    reach.count(session.standalone.terms().is_attached());
                }
            }
            if taken < AHEAD {
                self.shared.traffic.count_published(reach.sessions);
                return reach;
            }
        }
    }

    /// Ends sessions whose time is up, lets old responses and old events go, and gives the ended sessions to
    /// `ended`. Takes about 64 ns a session: call it now and then, from where a pause does no harm.
    pub fn sweep(&self, mut ended: impl FnMut(Arc<Session>)) {
        let (now, settings) = (self.shared.clock.now(), &self.shared.settings);
        self.shared.delivered.expire(now, settings.delivered_ttl_ms);
        self.shared.responses.expire(now, settings.response_ttl_ms);
        self.shared.principals.forget();
        let mut expired = Vec::new();
        self.for_each(|session| {
            if session.is_expired(now) {
                expired.push(session.clone());
            } else if !session.standalone.is_untouched() {
                session.standalone.evict_older(now, &settings.standalone);
            }
        });
        for session in expired {
            if self.terminate(&session) {
                ended(session);
            }
        }
        crate::ring::collect();
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Hashes a random 128-bit number by its low half. Only for IDs that this server drew: a client cannot choose
/// one, so it cannot choose a collision.
#[derive(Clone, Copy, Debug, Default)]
struct LowHalf;

impl BuildHasher for LowHalf {
    type Hasher = LowHalfHasher;

    fn build_hasher(&self) -> LowHalfHasher {
        LowHalfHasher(0)
    }
}

#[derive(Debug)]
struct LowHalfHasher(u64);

impl Hasher for LowHalfHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = id as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used for a `u128` key; correct all the same.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}
