//! All sessions of this process: found without a lock, expired without a timer each.

use core::fmt;
use core::hash::{BuildHasher, Hasher};
use core::hint::black_box;

use crossbeam_queue::SegQueue;
use crossbeam_utils::CachePadded;
use scc::{Guard, HashIndex, HashMap};

use super::admission::{Creator, Rules, SAMPLE, Selection, Victim};
use super::counters::Counters;
use super::principal::{Holder, Principals};
use super::request::PublishError;
use super::settings::{AtLimit, Settings};
use super::state::Session;
use super::traffic::Traffic;
use crate::protocol::{Refusal, SessionId, random_tag};
use crate::ring::{Entry, Limits};
use crate::sse::Frame;
use crate::stream::{Clock, Moment};
use crate::sync::{Arc, AtomicBool, AtomicU32, AtomicUsize, Mutex, Ordering, Weak, lock};

/// What every session of one registry needs.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    /// Written now and then, beside what every message reads: on cache lines of its own.
    pub(super) counters: CachePadded<Counters>,
    pub(super) traffic: Traffic,
    /// How many sessions there are, those that are just being made included; on a cache line of its own, too.
    count: CachePadded<AtomicUsize>,
    /// How many sessions each principal has. Those with none are not in it.
    own_counts: HashMap<u64, usize>,
    /// What may change while the process runs. Held to take a count of it, when a session is created and at a
    /// sweep.
    rules: Mutex<Arc<Rules>>,
    /// Who ends next at the limit, the very next at the end. Held while one is chosen.
    victims: Mutex<Vec<Victim>>,
    /// Responses by the time they were published: the oldest first, so that letting them go costs nothing for
    /// those whose time has not come.
    pub(super) responses: Queue,
    /// Those handed to a connection that ended as it should, by that time.
    pub(super) delivered: Queue,
    principals: Principals,
    /// Milliseconds over which clients spread that are told to come back.
    spread_ms: AtomicU32,
    /// More is retained than may be. Read now and then, written hardly ever.
    short_of_memory: AtomicBool,
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

    pub(super) fn rules(&self) -> Arc<Rules> {
        lock(&self.rules).clone()
    }

    pub(super) fn is_short_of_memory(&self) -> bool {
        // Relaxed: a hint that orders nothing.
        self.short_of_memory.load(Ordering::Relaxed)
    }

    pub(super) fn tell_shortage(&self, is_short: bool) {
        if self.is_short_of_memory() != is_short {
            // Relaxed: as above.
            self.short_of_memory.store(is_short, Ordering::Relaxed);
        }
    }

    /// Refuses a frame that is larger than all that its stream may retain.
    #[inline]
    pub(super) fn check_size(&self, frame: &Frame, limits: &Limits) -> Result<(), PublishError> {
        if frame.weight() as u64 <= limits.max_weight { Ok(()) } else { self.refuse_size(frame, limits) }
    }

    #[cold]
    fn refuse_size(&self, frame: &Frame, limits: &Limits) -> Result<(), PublishError> {
        self.counters.count_too_large();
        Err(PublishError::TooLarge { bytes: frame.weight(), limit: limits.max_weight })
    }

    /// Takes a place for a session, if fewer than `max` are taken.
    fn take_place(&self, max: usize) -> bool {
        let more = |count: usize| (count < max).then_some(count + 1);
        // Relaxed, twice: a number that orders nothing. That it is never exceeded follows from the order of its own
        // changes.
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_place_back(&self) {
        // Relaxed: as in `take_place`.
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts one session more for `principal`, if it has fewer than `max`.
    fn count_in(&self, principal: u64, max: usize) -> bool {
        if principal == 0 {
            return true;
        }
        let mut count = self.own_counts.entry_sync(principal).or_insert(0);
        let fits = *count.get() < max;
        if fits {
            *count.get_mut() += 1;
        } else if *count.get() == 0 {
            let _ = count.remove_entry();
        }
        fits
    }

    fn count_out(&self, principal: u64) {
        if principal == 0 {
            return;
        }
        if let scc::hash_map::Entry::Occupied(mut count) = self.own_counts.entry_sync(principal) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                let _ = count.remove_entry();
            }
        }
    }
}

/// Sessions that a sweep looks at together.
const TOGETHER: usize = 32;

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// Nothing was heard of it for too long.
    Idle,
    /// Its client never came back after `initialize`.
    Uninitialised,
    /// It was as old as sessions may become.
    Aged,
    /// Another needed its place.
    Evicted,
    /// Its client ended it.
    Deleted,
    /// The server chose so: `initialize` failed, the server stops, the application wants it.
    Closed,
}

/// A request stream that goes when its time has come.
pub(super) struct Kept {
    pub(super) session: Weak<Session>,
    pub(super) stream: u32,
    since: Moment,
}

/// A queue in order of time, and the first of it that a sweep took out too early.
#[derive(Default)]
pub(super) struct Queue {
    queue: SegQueue<Kept>,
    /// Held by a sweep for its duration, and by nobody else: a second sweep at the same time waits.
    first: Mutex<Option<Kept>>,
}

impl Queue {
    fn push(&self, kept: Kept) {
        self.queue.push(kept);
    }

    /// Forgets every request stream that was kept for `ttl_ms` at `now`.
    fn expire(&self, now: Moment, ttl_ms: u64) {
        self.take_while(|kept| {
            let is_over = now.since(kept.since) >= ttl_ms;
            if is_over && let Some(session) = kept.session.upgrade() {
                session.forget_request(kept.stream);
            }
            is_over
        });
    }

    /// Takes the oldest out as long as `wanted` says so of it.
    pub(super) fn take_while(&self, mut wanted: impl FnMut(&Kept) -> bool) {
        let mut first = lock(&self.first);
        while let Some(kept) = first.take().or_else(|| self.queue.pop()) {
            if !wanted(&kept) {
                *first = Some(kept);
                return;
            }
        }
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
    pub(super) shared: Arc<Shared>,
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
                rules: Mutex::new(Arc::new(Rules::new(settings.clone(), &clock))),
                settings,
                clock,
                counters: CachePadded::new(Counters::default()),
                traffic: Traffic::default(),
                count: CachePadded::new(AtomicUsize::new(0)),
                own_counts: HashMap::default(),
                victims: Mutex::new(Vec::new()),
                responses,
                delivered,
                principals,
                spread_ms: AtomicU32::new(0),
                short_of_memory: AtomicBool::new(false),
            }),
        }
    }

    /// Takes over those of `settings` that are marked *live*; the others have no effect. What is there already is
    /// not ended to fit lower limits on the number of sessions; it is not added to either. A rate that changes
    /// starts anew.
    pub fn reconfigure(&self, settings: Settings) {
        let mut rules = lock(&self.shared.rules);
        let changed = rules.with(settings, &self.shared.clock);
        *rules = Arc::new(changed);
    }

    /// Creates a session that belongs to `holder` ([`Holder::anybody`], or 0: to whoever knows its ID), whatever the limits say. For
    /// the application's own use; what a client asks for goes through [`admit`](Self::admit).
    #[must_use]
    pub fn create(&self, holder: impl Into<Holder>) -> Arc<Session> {
        let holder = holder.into();
        self.shared.take_place(usize::MAX);
        self.shared.count_in(holder.number(), usize::MAX);
        self.insert(&holder)
    }

    /// Creates a session for a client, if the limits allow it. A session that ends to make room for it is given
    /// to `ended`.
    ///
    /// # Errors
    ///
    /// [`Refusal::CallerSessionRate`] or [`Refusal::SessionRate`] if sessions are created too fast,
    /// [`Refusal::TooManyOwnSessions`] if the principal has as many as it may have, [`Refusal::TooManySessions`]
    /// if there are as many as there may be and none ends for the new one.
    pub fn admit(&self, creator: Creator, ended: impl FnMut(Arc<Session>)) -> Result<Arc<Session>, Refusal> {
        let admitted = self.find_place(&creator, ended);
        admitted.inspect_err(|refusal| self.shared.counters.count_refused(refusal))?;
        Ok(self.insert(&creator.holder))
    }

    fn find_place(&self, creator: &Creator, mut ended: impl FnMut(Arc<Session>)) -> Result<(), Refusal> {
        let rules = self.shared.rules();
        rules.check_rates(creator)?;
        let Settings { max_sessions, at_limit, max_sessions_per_principal, .. } = rules.settings;
        let limit = max_sessions_per_principal.unwrap_or(usize::MAX);
        if !self.shared.count_in(creator.holder.number(), limit) {
            return Err(Refusal::TooManyOwnSessions { limit });
        }
        // Another thread may be quicker to take the place of the one that ended. Then another ends.
        while !self.shared.take_place(max_sessions) {
            match self.evict_one(at_limit) {
                Some(evicted) => ended(evicted),
                None => {
                    self.shared.count_out(creator.holder.number());
                    return Err(Refusal::TooManySessions);
                }
            }
        }
        Ok(())
    }

    /// Makes a session in a place that was taken for it.
    ///
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#session-management
    //# The session ID SHOULD be globally unique and cryptographically secure
    fn insert(&self, holder: &Holder) -> Arc<Session> {
        self.shared.counters.count_created();
        loop {
            let id = SessionId::generate();
            let tag = random_tag();
            let session = Arc::new(Session::new(id, tag, holder.clone(), self.shared.clone()));
            // A second session with the same 128 random bits does not happen; if it does, it draws again.
            if self.map.insert_sync(id.as_u128(), session.clone()).is_ok() {
                return session;
            }
        }
    }

    /// Ends the session whose turn it is.
    fn evict_one(&self, at_limit: AtLimit) -> Option<Arc<Session>> {
        if at_limit == AtLimit::Refuse {
            return None;
        }
        let mut victims = lock(&self.shared.victims);
        let mut looked = false;
        loop {
            let Some(victim) = victims.pop() else {
                if core::mem::replace(&mut looked, true) {
                    return None;
                }
                let mut selection = Selection::of(self.len().min(SAMPLE));
                let guard = Guard::new();
                let sample = self.map.iter(&guard).take(SAMPLE);
                sample.for_each(|(_, session)| selection.look_at(session.as_victim(at_limit)));
                *victims = selection.into_victims();
                continue;
            };
            let found = self.map.peek_with(&victim.id, |_, session| session.clone());
            // Whoever did something since it was noted is not the one.
            let stays = |session: &Session| {
                session.as_victim(at_limit) != victim
                    || at_limit == AtLimit::EvictLongestIdle && session.summary().in_flight > 0
            };
            if let Some(session) = found.filter(|session| !stays(session))
                && self.end(&session, End::Evicted)
            {
                return Some(session);
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

    /// Ends a session at once, because the server chose so: it cannot be found any more, and its connections end.
    /// False if it had ended.
    pub fn terminate(&self, session: &Session) -> bool {
        self.end(session, End::Closed)
    }

    /// Ends a session at once, for the reason given: it cannot be found any more, and its connections end. False
    /// if it had ended.
    pub fn end(&self, session: &Session, why: End) -> bool {
        if !session.close() {
            return false;
        }
        if self.map.remove_sync(&session.id().as_u128()) {
            self.shared.give_place_back();
            self.shared.count_out(session.principal());
            self.shared.counters.count_ended(why);
        }
        true
    }

    /// How many sessions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        // Relaxed: as in `take_place`.
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

    /// What happened to sessions and connections so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// What flowed through the sessions so far.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.shared.traffic
    }

    /// What the registry was made with; [`reconfigure`](Self::reconfigure) does not show here.
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
    ///
    /// # Errors
    ///
    /// [`PublishError::TooLarge`] if the message is too large for a stream; then no session gets it.
    pub fn publish(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<Reach, PublishError> {
        let (frame, now, mut reach) = (Frame::shared(write), self.shared.clock.now(), Reach::default());
        let limits = &self.shared.settings.standalone;
        self.shared.check_size(&frame, limits)?;
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
                return Ok(reach);
            }
        }
    }

    /// Ends sessions whose time is up, lets old responses and old events go, and gives the ended sessions to
    /// `ended`. Took 36 and 61 ns a session in two runs on a busy machine (`benches/session.rs`): call it now and then, from
    /// where a pause does no harm.
    pub fn sweep(&self, mut ended: impl FnMut(Arc<Session>)) {
        let (now, rules) = (self.shared.clock.now(), self.shared.rules());
        let settings = &rules.settings;
        self.shared.delivered.expire(now, settings.delivered_ttl_ms);
        self.shared.responses.expire(now, settings.response_ttl_ms);
        self.shared.principals.forget();
        let mut expired = Vec::new();
        let mut selection = self.is_nearly_full(settings).then(|| Selection::of(self.len()));
        let guard = Guard::new();
        let mut sessions = self.map.iter(&guard).map(|(_, session)| session);
        let (mut some, mut vitals) = (Vec::with_capacity(TOGETHER), Vec::with_capacity(TOGETHER));
        loop {
            some.extend(sessions.by_ref().take(TOGETHER));
            // The map's iterator begins anew when it is asked again behind its end, and says that it does not.
            let are_last = some.len() < TOGETHER;
            // Nearly all of the time goes by waiting for memory: with nothing else in between, for several at once.
            vitals.extend(some.iter().map(|session| session.vitals()));
            for (session, vitals) in some.drain(..).zip(vitals.drain(..)) {
                if let Some(why) = session.expiry(vitals, now, settings) {
                    expired.push((session.clone(), why));
                    continue;
                }
                if let Some(selection) = &mut selection {
                    selection.look_at(session.as_victim(settings.at_limit));
                }
                if !vitals.is_untouched {
                    session.standalone.evict_older(now, &self.shared.settings.standalone);
                }
            }
            if are_last {
                break;
            }
        }
        drop(guard);
        *lock(&self.shared.victims) = selection.map_or_else(Vec::new, Selection::into_victims);
        for (session, why) in expired {
            if self.end(&session, why) {
                ended(session);
            }
        }
        crate::ring::collect();
    }

    /// Whether sessions may have to go for others before the next sweep.
    fn is_nearly_full(&self, settings: &Settings) -> bool {
        settings.at_limit != AtLimit::Refuse && self.len() >= settings.max_sessions / 8 * 7
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
