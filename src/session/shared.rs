//! What the sessions of one registry share: settings, time, counts and limits.

use crossbeam_utils::CachePadded;
use scc::HashMap;

use super::admission::{Rules, Victim};
use super::counters::Counters;
use super::principal::{PrincipalId, Principals};
use super::responses::Kind;
use super::settings::Settings;
use crate::request::Environment;
use crate::stream::Clock;
use crate::sync::{Arc, AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Mutex, Ordering, lock};
use crate::topic::Topic;

/// What every session of one registry needs.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    /// Written now and then, beside what every message reads: on cache lines of its own.
    pub(super) counters: CachePadded<Counters>,
    /// What the requests of all sessions share. Counts what is published elsewhere in sessions, too.
    pub(super) environment: Arc<Environment>,
    /// How many sessions there are, those that are just being made included; on a cache line of its own, too.
    pub(super) count: CachePadded<AtomicUsize>,
    /// How many sessions each principal has. Those with none are not in it.
    own_counts: HashMap<PrincipalId, usize>,
    /// What may change while the process runs. Held to take a count of it, when a session is created and at a
    /// sweep.
    pub(super) rules: Mutex<Arc<Rules>>,
    /// Who ends next at the limit, the very next at the end. Held while one is chosen.
    pub(super) victims: Mutex<Vec<Victim>>,
    pub(super) times: Times,
    pub(super) principals: Principals,
    /// The messages to all sessions.
    pub(super) broadcasts: Arc<Topic>,
    /// Sessions with a client connected to the standalone stream.
    pub(super) listening: CachePadded<AtomicUsize>,
    /// Milliseconds over which clients spread that are told to come back.
    pub(super) spread_ms: AtomicU32,
    /// More is retained than may be. Read now and then, written hardly ever.
    short_of_memory: AtomicBool,
}

impl Shared {
    pub(super) fn new(settings: Settings, clock: Clock) -> Self {
        let environment = Arc::new(Environment::new(settings.request, clock.clone()));
        Self {
            rules: Mutex::new(Arc::new(Rules::new(settings.clone(), &clock))),
            times: Times::new(&settings),
            counters: CachePadded::new(Counters::default()),
            environment,
            count: CachePadded::new(AtomicUsize::new(0)),
            own_counts: HashMap::default(),
            victims: Mutex::new(Vec::new()),
            principals: Principals::new(clock.clone()),
            broadcasts: Topic::new(settings.broadcast, clock.clone()),
            listening: CachePadded::new(AtomicUsize::new(0)),
            spread_ms: AtomicU32::new(0),
            short_of_memory: AtomicBool::new(false),
            settings,
            clock,
        }
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

    /// Counts a session whose client connected to the standalone stream, or left it.
    pub(super) fn count_listening(&self, change: isize) {
        // Relaxed: a number that orders nothing.
        self.listening.fetch_add(change as usize, Ordering::Relaxed);
    }

    /// Takes a place for a session, if fewer than `max` are taken.
    pub(super) fn take_place(&self, max: usize) -> bool {
        let more = |count: usize| (count < max).then_some(count + 1);
        // Relaxed, twice: a number that orders nothing. That it is never exceeded follows from the order of its own
        // changes.
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn give_place_back(&self) {
        // Relaxed: as in `take_place`.
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts one session more for `principal`, if it has fewer than `max`.
    pub(super) fn count_in(&self, principal: Option<PrincipalId>, max: usize) -> bool {
        let Some(principal) = principal else { return true };
        let mut count = self.own_counts.entry_sync(principal).or_insert(0);
        let fits = *count.get() < max;
        if fits {
            *count.get_mut() += 1;
        } else if *count.get() == 0 {
            let _ = count.remove_entry();
        }
        fits
    }

    pub(super) fn count_out(&self, principal: Option<PrincipalId>) {
        let Some(principal) = principal else { return };
        if let scc::hash_map::Entry::Occupied(mut count) = self.own_counts.entry_sync(principal) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                let _ = count.remove_entry();
            }
        }
    }
}

/// For how long responses are kept, by what became of them. Live.
pub(super) struct Times {
    waiting_ms: AtomicU64,
    delivered_ms: AtomicU64,
    /// They changed, and no sweep has looked at everything since.
    changed: AtomicBool,
}

impl Times {
    fn new(settings: &Settings) -> Self {
        let (waiting_ms, delivered_ms) = (settings.response_ttl_ms, settings.delivered_ttl_ms);
        Self {
            waiting_ms: AtomicU64::new(waiting_ms),
            delivered_ms: AtomicU64::new(delivered_ms),
            changed: AtomicBool::new(false),
        }
    }

    /// Milliseconds for which a response is kept.
    pub(super) fn of(&self, kind: Kind) -> u64 {
        // Relaxed, here and below: numbers that order nothing; the mark carries those that changed.
        match kind {
            Kind::Waiting => self.waiting_ms.load(Ordering::Relaxed),
            Kind::Delivered => self.delivered_ms.load(Ordering::Relaxed),
        }
    }

    pub(super) fn change(&self, settings: &Settings) {
        self.waiting_ms.store(settings.response_ttl_ms, Ordering::Relaxed);
        self.delivered_ms.store(settings.delivered_ttl_ms, Ordering::Relaxed);
        self.tell_change();
    }

    pub(super) fn tell_change(&self) {
        // Release: pairs with the Acquire in `take_change`.
        self.changed.store(true, Ordering::Release);
    }

    /// Whether they changed since the last call.
    pub(super) fn take_change(&self) -> bool {
        // Acquire: pairs with the Release in `change`.
        self.changed.swap(false, Ordering::Acquire)
    }
}
