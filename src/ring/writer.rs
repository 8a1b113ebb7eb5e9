//! Publishing, closing and evicting.

use core::fmt;
use core::ops::AddAssign;

use super::chunk::{Link, Pinned, Strong};
use super::position::{Position, is_older, next_chunk_slots};
use super::slot::{Entry, Slot, State};
use super::{Limits, Ring};
use crate::sync::epoch::{self, Guard};

/// The ring is closed; here is the entry back.
pub struct Closed<T>(pub T);

impl<T> fmt::Debug for Closed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Closed(..)")
    }
}

impl<T> fmt::Display for Closed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ring is closed")
    }
}

impl<T> std::error::Error for Closed<T> {}

impl<T: Entry> Ring<T> {
    /// Publishes `entry` and returns its position. `now` is in milliseconds of any clock, the same for all calls on
    /// this ring.
    ///
    /// # Errors
    ///
    /// [`Closed`] with the entry, if the ring was closed or its last entry published.
    pub fn publish(&self, entry: T, now: u64, limits: &Limits) -> Result<Position, Closed<T>> {
        self.append(entry, false, now, limits)
    }

    /// Publishes `entry` as the last one: in the same step the ring is closed.
    ///
    /// # Errors
    ///
    /// [`Closed`] with the entry, if the ring was closed already.
    pub fn publish_last(&self, entry: T, now: u64, limits: &Limits) -> Result<Position, Closed<T>> {
        self.append(entry, true, now, limits)
    }

    /// Reads what the next publish will look at, and changes nothing. Done for several rings before any of them is
    /// published to, their memory arrives together.
    #[inline]
    pub fn warm(&self) -> bool {
        let guard = epoch::pin();
        let Some(chunk) = self.tail.load(&guard) else { return false };
        chunk.slots().get(chunk.hint()).is_some_and(Slot::is_entry)
    }

    fn append(&self, mut entry: T, last: bool, now: u64, limits: &Limits) -> Result<Position, Closed<T>> {
        let guard = epoch::pin();
        let weight = entry.weight() as u64;
        let mut chunk = self.tail_or_first(now, limits, &guard);
        loop {
            let slots = chunk.slots();
            let mut index = chunk.hint();
            while let Some(slot) = slots.get(index) {
                let position = chunk.base + index as u64;
                entry.place(position);
                chunk.touch(now);
                match slot.fill(entry, last) {
                    Ok(()) => {
                        if last {
                            return Ok(position);
                        }
                        chunk.filled(index);
                        if weight > limits.max_weight / 64 {
                            self.seal_if_heavy(chunk, limits);
                        }
                        return Ok(position);
                    }
                    Err((back, State::Entry { last: false, .. } | State::Empty)) => {
                        entry = back;
                        index += 1;
                    }
                    Err((back, State::Sealed)) => {
                        entry = back;
                        break;
                    }
                    Err((back, State::Closed | State::Entry { last: true, .. })) => return Err(Closed(back)),
                }
            }
            chunk = self.chunk_after(chunk, index, now, limits);
        }
    }

    /// Closes the ring behind what is published so far. False if it was closed already.
    pub fn close(&self, now: u64, limits: &Limits) -> bool {
        let guard = epoch::pin();
        let mut chunk = self.tail_or_first(now, limits, &guard);
        loop {
            let mut index = chunk.hint();
            while let Some(slot) = chunk.slots().get(index) {
                match slot.close() {
                    Ok(()) => return true,
                    Err(State::Entry { last: false, .. } | State::Empty) => index += 1,
                    Err(State::Sealed) => break,
                    Err(State::Closed | State::Entry { last: true, .. }) => return false,
                }
            }
            chunk = self.chunk_after(chunk, index, now, limits);
        }
    }

    /// The chunk to publish to; the first publisher makes the first one.
    fn tail_or_first<'g>(&self, now: u64, limits: &Limits, guard: &'g Guard) -> Pinned<'g, T> {
        if let Some(chunk) = self.tail.load(guard) {
            return chunk;
        }
        let oldest = self.oldest.load(guard).unwrap_or_else(|| {
            let first = Strong::first(next_chunk_slots(0, limits.capacity), now);
            self.oldest.install(first, guard).0
        });
        // Whoever comes here helps. `oldest` moves on only after the tail has, so while the tail names nothing
        // it is the first chunk that was read above; once it names something this step fails and changes nothing.
        self.tail.move_on(None, oldest);
        self.tail.load(guard).unwrap_or(oldest)
    }

    /// The chunk behind `full`, whose entries end at index `end`; links a new one, a step of growth larger, if there
    /// is none.
    fn chunk_after<'g>(&self, full: Pinned<'g, T>, end: usize, now: u64, limits: &Limits) -> Pinned<'g, T> {
        let slots = next_chunk_slots(full.slots().len(), limits.capacity);
        self.link_behind(full, end, slots, now, limits).0
    }

    /// The chunk behind `full`, whose entries end at index `end`; links a new one of `slots` slots if there is none.
    /// Helps the tail along, and the thread that linked evicts.
    fn link_behind<'g>(
        &self,
        full: Pinned<'g, T>,
        end: usize,
        slots: usize,
        now: u64,
        limits: &Limits,
    ) -> (Pinned<'g, T>, Evicted) {
        let (next, linked) = match full.next() {
            Some(next) => (next, false),
            None => {
                let base = full.base + end as u64;
                let weight_before = full.weight_before + weight_of(full);
                full.append(Strong::new(base, weight_before, slots, now))
            }
        };
        self.tail.move_on(Some(full), next);
        let evicted = if linked { self.evict_beyond(now, limits, next) } else { Evicted::default() };
        (next, evicted)
    }

    /// Ends the chunk early once it weighs a quarter of the limit, so that few heavy entries cannot hide from
    /// the limit in a chunk that is not full.
    fn seal_if_heavy(&self, chunk: Pinned<'_, T>, limits: &Limits) {
        if weight_of(chunk) >= limits.max_weight / 4 {
            seal(chunk);
        }
    }

    /// Evicts whole chunks while more is retained than the limits allow. `tail` was just linked, and is empty.
    fn evict_beyond(&self, now: u64, limits: &Limits, tail: Pinned<'_, T>) -> Evicted {
        self.evict_while(|oldest, next| {
            tail.base.saturating_sub(next.base) >= limits.capacity as u64
                || is_older(oldest.stamp(), now, limits.max_age_ms)
                || tail.weight_before.saturating_sub(oldest.weight_before) > limits.max_weight
        })
    }

    /// Evicts what is older than the age limit at `now`, even if nothing new is published. The last entry of a
    /// finished ring stays. Returns how many entries this call evicted.
    pub fn evict_older(&self, now: u64, limits: &Limits) -> u64 {
        let guard = epoch::pin();
        let is_old = |chunk: Pinned<'_, T>| is_older(chunk.stamp(), now, limits.max_age_ms);
        let mut evicted = self.evict_while(|oldest, _| is_old(oldest));
        let (Some(oldest), Some(tail)) = (self.oldest.load(&guard), self.tail.load(&guard)) else {
            return evicted.entries;
        };
        // Only the tail is left, and all of it is old: end it here and put a chunk without slots behind it,
        // which remembers the position and nothing else. A later publish grows the ring anew.
        if oldest.is(tail)
            && !tail.slots().is_empty()
            && is_old(tail)
            && let Some(end) = seal(tail)
        {
            evicted += self.link_behind(tail, end, 0, now, limits).1;
            // Looks at the age again: an entry that came in just before the end made the chunk young, and then
            // the chunk stays.
            evicted += self.evict_while(|oldest, _| is_old(oldest));
        }
        evicted.entries
    }

    /// The weight of everything retained. Another thread may change it between this call and the next.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let guard = epoch::pin();
        let (Some(oldest), Some(tail)) = (self.oldest.load(&guard), self.tail.load(&guard)) else { return 0 };
        tail.weight_before.saturating_sub(oldest.weight_before) + weight_of(tail)
    }

    /// What [`trim`](Self::trim) can let go: the weight of everything retained, or, of a finished ring, of what
    /// does not share the chunk of its last entry. Another thread may change it between this call and the next.
    #[must_use]
    pub fn spare_weight(&self) -> u64 {
        let guard = epoch::pin();
        let (Some(oldest), Some(tail)) = (self.oldest.load(&guard), self.tail.load(&guard)) else { return 0 };
        tail.weight_before.saturating_sub(oldest.weight_before) + open_weight(tail)
    }

    /// Evicts the oldest entries until what can be let go weighs no more than `max_weight`. The last entry of a
    /// finished ring stays, with what shares its chunk, and so does what is published while this call runs. Returns
    /// the weight that this call let go.
    pub fn trim(&self, max_weight: u64, now: u64, limits: &Limits) -> u64 {
        let guard = epoch::pin();
        let Some(tail) = self.tail.load(&guard) else { return 0 };
        // What is published from here on is left for the next time.
        let (entries, open) = entries_of(tail);
        let mut evicted = self.evict_while(|oldest, _| {
            // Another thread may move the oldest past the tail that was seen. What stands there is newer.
            let is_before = oldest.base <= tail.base && !oldest.is(tail);
            is_before && tail.weight_before.saturating_sub(oldest.weight_before) + open > max_weight
        });
        // Only the tail is left: as in `evict_older`. One that grew meanwhile stays.
        if open > max_weight
            && self.oldest.load(&guard).is_some_and(|oldest| oldest.is(tail))
            && seal_at(tail, entries)
        {
            evicted += self.link_behind(tail, entries, 0, now, limits).1;
            evicted += self.evict_while(|oldest, _| oldest.is(tail));
        }
        evicted.weight
    }

    /// Evicts the oldest chunk as long as `surplus` says so of it and the next. Never evicts the tail. Returns what
    /// was evicted here, and not what other threads evicted meanwhile.
    fn evict_while(&self, surplus: impl Fn(Pinned<'_, T>, Pinned<'_, T>) -> bool) -> Evicted {
        let (guard, mut evicted) = (epoch::pin(), Evicted::default());
        while let (Some(oldest), Some(tail)) = (self.oldest.load(&guard), self.tail.load(&guard)) {
            if oldest.is(tail) {
                break;
            }
            let Some(next) = oldest.next() else { break };
            if !surplus(oldest, next) {
                break;
            }
            oldest.mark_evicted();
            if self.oldest.move_on(Some(oldest), next) {
                evicted += Evicted {
                    entries: next.base - oldest.base,
                    weight: next.weight_before - oldest.weight_before,
                };
                Link::retire(oldest);
            }
        }
        evicted
    }
}

/// What one call evicted.
#[derive(Clone, Copy, Default)]
struct Evicted {
    entries: u64,
    weight: u64,
}

impl AddAssign for Evicted {
    fn add_assign(&mut self, more: Self) {
        self.entries += more.entries;
        self.weight += more.weight;
    }
}

/// Ends `chunk` before its first empty slot; returns the index where it ends, or `None` if the ring ends in it.
fn seal<T: Entry>(chunk: Pinned<'_, T>) -> Option<usize> {
    let mut index = chunk.hint();
    while let Some(slot) = chunk.slots().get(index) {
        match slot.seal() {
            Ok(()) | Err(State::Sealed) => return Some(index),
            Err(State::Entry { last: false, .. } | State::Empty) => index += 1,
            Err(State::Closed | State::Entry { last: true, .. }) => return None,
        }
    }
    Some(index)
}

/// Ends `chunk` before the slot at `index`, up to which it is filled. False if an entry or the end of the ring stands
/// there.
fn seal_at<T: Entry>(chunk: Pinned<'_, T>, index: usize) -> bool {
    let Some(slot) = chunk.slots().get(index) else { return true };
    matches!(slot.seal(), Ok(()) | Err(State::Sealed))
}

/// Weight of the entries in `tail`, or nothing if the ring ends in it.
fn open_weight<T: Entry>(tail: Pinned<'_, T>) -> u64 {
    entries_of(tail).1
}

/// How many entries stand in `tail` at one moment, and what they weigh; nothing if the ring ends in it.
fn entries_of<T: Entry>(tail: Pinned<'_, T>) -> (usize, u64) {
    let mut entries = 0;
    for slot in tail.slots() {
        match slot.read() {
            State::Entry { last: false, .. } => entries += 1,
            State::Entry { last: true, .. } | State::Closed => return (0, 0),
            State::Empty | State::Sealed => break,
        }
    }
    (entries, weight_of_first(entries, tail))
}

/// Weight of the entries in `chunk` so far.
fn weight_of<T: Entry>(chunk: Pinned<'_, T>) -> u64 {
    weight_of_first(chunk.slots().len(), chunk)
}

/// Weight of the entries in `chunk` so far, but no more than the first `entries`.
fn weight_of_first<T: Entry>(entries: usize, chunk: Pinned<'_, T>) -> u64 {
    let weights = chunk.slots().iter().take(entries).map_while(|slot| match slot.read() {
        State::Entry { entry, .. } => Some(entry.weight() as u64),
        State::Empty | State::Sealed | State::Closed => None,
    });
    weights.sum()
}
