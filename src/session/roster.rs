//! Every session there is, each in one place from its beginning to its end.
//!
//! The map finds one session by its ID. Whatever looks at all of them walks here: the map's own iterator may visit an
//! entry again while the map grows.
//!
//! # Algorithm
//!
//! Sessions lie in chunks of 64 places; a session keeps its place until it ends. A walk goes from chunk to chunk. So it
//! visits each session that lives through the walk once; one that begins or ends meanwhile may be among them or not.
//! The place of a session that ended is given to another.
//!
//! # Progress
//!
//! The chunks are spread over shards, each behind a mutex. It is held to put a session into its place, to take it out,
//! and while a walk looks at one chunk.
//!
//! # Memory use
//!
//! 8 bytes for each place, and about 40 for each chunk. A chunk whose last session ended is freed.

use core::array;

use crossbeam_utils::CachePadded;

use super::state::Session;
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering, lock};

const SHARDS: usize = 16;
/// Places of a chunk: one bit of a word each.
pub(super) const PLACES: usize = 64;

type Places = [Option<Arc<Session>>; PLACES];

/// See the [module documentation](self).
pub(super) struct Roster {
    shards: [CachePadded<Mutex<Shard>>; SHARDS],
    /// Where the next walk begins.
    start: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    chunks: Vec<Chunk>,
    /// The chunks with a place that is free.
    open: Vec<u32>,
}

#[derive(Default)]
struct Chunk {
    /// A bit for each place that is taken.
    taken: u64,
    /// Not there while no place is taken.
    places: Option<Box<Places>>,
}

impl Roster {
    pub(super) fn new() -> Self {
        Self { shards: array::from_fn(|_| CachePadded::default()), start: AtomicUsize::new(0) }
    }

    fn shard(&self, session: &Session) -> &Mutex<Shard> {
        // The low half of the ID is the key in the map.
        &self.shards[(session.id().as_u128() >> 64) as usize % SHARDS]
    }

    /// Gives a new session its place.
    pub(super) fn insert(&self, session: &Arc<Session>) {
        let mut shard = lock(self.shard(session));
        let place = shard.insert(session.clone());
        // Relaxed: read under the same lock.
        session.place.store(place, Ordering::Relaxed);
    }

    /// Takes a session out that ended. It is dropped by the caller, and not under the lock.
    pub(super) fn remove(&self, session: &Session) -> Option<Arc<Session>> {
        let mut shard = lock(self.shard(session));
        // Relaxed: written under the same lock.
        let place = session.place.load(Ordering::Relaxed);
        shard.remove(place, session)
    }

    /// A walk over all sessions. Each begins at another shard, so that what one walk does not come to, another does.
    pub(super) fn walk(&self) -> Walk<'_> {
        // Relaxed: it only spreads the walks.
        let first = self.start.fetch_add(1, Ordering::Relaxed);
        Walk { roster: self, first, shard: 0, chunk: 0 }
    }

    /// Visits each session. The lock is not held meanwhile.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&Arc<Session>)) {
        let (mut walk, mut some) = (self.walk(), Vec::with_capacity(PLACES));
        while walk.step(|places| some.extend(places.iter().flatten().cloned())) {
            some.drain(..).for_each(|session| visit(&session));
        }
    }

    /// Looks at about `count` sessions from all shards, each time at others.
    pub(super) fn sample(&self, count: usize, mut look: impl FnMut(&Session)) {
        // Relaxed: it only spreads the samples.
        let first = self.start.fetch_add(1, Ordering::Relaxed);
        for shard in &self.shards {
            let shard = lock(shard);
            let (mut left, chunks) = (count / SHARDS, shard.chunks.len().max(1));
            let from = first * (count / SHARDS / PLACES).max(1) % chunks;
            for chunk in shard.chunks.iter().cycle().skip(from).take(chunks) {
                for session in chunk.places.iter().flat_map(|places| places.iter()).flatten() {
                    look(session);
                    left = left.saturating_sub(1);
                }
                if left == 0 {
                    break;
                }
            }
        }
    }
}

/// See [`Roster::walk`].
pub(super) struct Walk<'a> {
    roster: &'a Roster,
    first: usize,
    shard: usize,
    chunk: usize,
}

impl Walk<'_> {
    /// Looks at the next few sessions, under the lock of their shard. False if there are no more.
    pub(super) fn step(&mut self, look: impl FnOnce(&[Option<Arc<Session>>])) -> bool {
        while self.shard < SHARDS {
            let shard = lock(&self.roster.shards[(self.first + self.shard) % SHARDS]);
            while let Some(chunk) = shard.chunks.get(self.chunk) {
                self.chunk += 1;
                if let Some(places) = &chunk.places {
                    look(&places[..]);
                    return true;
                }
            }
            (self.shard, self.chunk) = (self.shard + 1, 0);
        }
        false
    }
}

impl Shard {
    fn insert(&mut self, session: Arc<Session>) -> u32 {
        let index = self.open.last().copied().unwrap_or_else(|| {
            let index = u32::try_from(self.chunks.len()).expect("there are fewer sessions than 2^32");
            self.chunks.push(Chunk::default());
            self.open.push(index);
            index
        });
        let chunk = &mut self.chunks[index as usize];
        let place = chunk.taken.trailing_ones();
        chunk.taken |= 1 << place;
        let places = chunk.places.get_or_insert_with(|| Box::new([const { None }; PLACES]));
        places[place as usize] = Some(session);
        if chunk.taken == u64::MAX {
            self.open.pop();
        }
        index * PLACES as u32 + place
    }

    /// Empties a place, if `session` is in it.
    fn remove(&mut self, place: u32, session: &Session) -> Option<Arc<Session>> {
        let (index, place) = (place / PLACES as u32, place % PLACES as u32);
        let chunk = self.chunks.get_mut(index as usize)?;
        let kept = chunk.places.as_mut()?[place as usize]
            .take_if(|kept| core::ptr::eq(&raw const **kept, session))?;
        if chunk.taken == u64::MAX {
            self.open.push(index);
        }
        chunk.taken &= !(1 << place);
        if chunk.taken == 0 {
            chunk.places = None;
        }
        Some(kept)
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::session::{Sessions, Settings};
    use crate::stream::Clock;

    fn seen(roster: &Roster) -> Vec<u128> {
        let mut seen = Vec::new();
        roster.for_each(|session| seen.push(session.id().as_u128()));
        seen
    }

    #[test]
    fn each_session_is_visited_once_while_others_come_and_go() {
        let sessions = Sessions::new(Settings::default(), Clock::default());
        let (roster, made) = (Roster::new(), || sessions.create(None));
        let stay: Vec<_> = (0..3000).map(|_| made()).inspect(|session| roster.insert(session)).collect();
        let (mut passing, mut visited) = (Vec::new(), Vec::new());
        roster.for_each(|session| {
            visited.push(session.id().as_u128());
            (0..3).for_each(|_| passing.push(made()));
            passing[passing.len() - 3..].iter().for_each(|session| roster.insert(session));
            if passing.len() % 2 == 0 {
                let gone = passing.swap_remove(passing.len() / 2);
                assert!(roster.remove(&gone).is_some() && roster.remove(&gone).is_none());
            }
        });
        let distinct: HashSet<_> = visited.iter().collect();
        assert_eq!(distinct.len(), visited.len());
        assert!(stay.iter().all(|session| distinct.contains(&session.id().as_u128())));
        let mut all: Vec<_> = stay.iter().chain(&passing).map(|session| session.id().as_u128()).collect();
        let mut left = seen(&roster);
        all.sort_unstable();
        left.sort_unstable();
        assert_eq!(all, left);
        stay.iter().chain(&passing).for_each(|session| assert!(roster.remove(session).is_some()));
        assert!(seen(&roster).is_empty());
        let empty =
            |shard: &CachePadded<Mutex<Shard>>| lock(shard).chunks.iter().all(|chunk| chunk.places.is_none());
        assert!(roster.shards.iter().all(empty));
    }

    #[test]
    fn a_sample_is_of_about_as_many_as_were_asked_for_and_each_time_of_others() {
        let sessions = Sessions::new(Settings::default(), Clock::default());
        let (roster, made) = (Roster::new(), || sessions.create(None));
        let _all: Vec<_> = (0..16_000).map(|_| made()).inspect(|session| roster.insert(session)).collect();
        let mut seen = HashSet::new();
        for round in 1..=8 {
            let mut count = 0;
            roster.sample(2048, |session| {
                count += 1;
                seen.insert(session.id().as_u128());
            });
            assert!((2000..=2048 + SHARDS * PLACES).contains(&count), "{count}");
            assert!(seen.len() > round * 1500 || seen.len() > 12_000, "{}", seen.len());
        }
    }
}
