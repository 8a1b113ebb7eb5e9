//! Publishing, closing and evicting.

use core::fmt;

use super::chunk::{Link, Pinned, Strong};
use super::position::{FIRST, Position, is_older, next_chunk_slots};
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
    /// Publishes `entry` and returns its position. `now` is in milliseconds of any wrapping clock.
    ///
    /// # Errors
    ///
    /// [`Closed`] with the entry, if the ring was closed or its last entry published.
    pub fn publish(&self, entry: T, now: u32, limits: &Limits) -> Result<Position, Closed<T>> {
        self.append(entry, false, now, limits)
    }

    /// Publishes `entry` as the last one: in the same step the ring is closed.
    ///
    /// # Errors
    ///
    /// [`Closed`] with the entry, if the ring was closed already.
    pub fn publish_last(&self, entry: T, now: u32, limits: &Limits) -> Result<Position, Closed<T>> {
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

    fn append(&self, mut entry: T, last: bool, now: u32, limits: &Limits) -> Result<Position, Closed<T>> {
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
            chunk = self.chunk_after(chunk, index, now, limits, None);
        }
    }

    /// Closes the ring behind what is published so far. False if it was closed already.
    pub fn close(&self, now: u32, limits: &Limits) -> bool {
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
            chunk = self.chunk_after(chunk, index, now, limits, None);
        }
    }

    /// The chunk to publish to; the first publisher makes the first one.
    fn tail_or_first<'g>(&self, now: u32, limits: &Limits, guard: &'g Guard) -> Pinned<'g, T> {
        if let Some(chunk) = self.tail.load(guard) {
            return chunk;
        }
        let oldest = self.oldest.load(guard).unwrap_or_else(|| {
            let first = Strong::new(FIRST, 0, next_chunk_slots(0, limits.capacity), now);
            self.oldest.install(first, guard).0
        });
        // Whoever comes here helps. `oldest` moves on only after the tail has, so while the tail names nothing
        // it is the first chunk that was read above; once it names something this step fails and changes nothing.
        self.tail.move_on(None, oldest);
        self.tail.load(guard).unwrap_or(oldest)
    }

    /// The chunk behind `full`, whose entries end at index `end`; links a new one of `slots` slots (by default:
    /// the next step of growth) if there is none. Helps the tail along, and the thread that linked evicts.
    fn chunk_after<'g>(
        &self,
        full: Pinned<'g, T>,
        end: usize,
        now: u32,
        limits: &Limits,
        slots: Option<usize>,
    ) -> Pinned<'g, T> {
        let (next, linked) = match full.next() {
            Some(next) => (next, false),
            None => {
                let base = full.base + end as u64;
                let weight_before = full.weight_before + weight_of(full);
                let slots = slots.unwrap_or_else(|| next_chunk_slots(full.slots().len(), limits.capacity));
                full.append(Strong::new(base, weight_before, slots, now))
            }
        };
        self.tail.move_on(Some(full), next);
        if linked {
            self.evict_beyond(now, limits, next);
        }
        next
    }

    /// Ends the chunk early once it weighs a quarter of the limit, so that few heavy entries cannot hide from
    /// the limit in a chunk that is not full.
    fn seal_if_heavy(&self, chunk: Pinned<'_, T>, limits: &Limits) {
        if weight_of(chunk) >= limits.max_weight / 4 {
            seal(chunk);
        }
    }

    /// Evicts whole chunks while more is retained than the limits allow. `tail` was just linked, and is empty.
    fn evict_beyond(&self, now: u32, limits: &Limits, tail: Pinned<'_, T>) {
        self.evict_while(|oldest, next| {
            tail.base.saturating_sub(next.base) >= limits.capacity as u64
                || is_older(oldest.stamp(), now, limits.max_age_ms)
                || tail.weight_before.saturating_sub(oldest.weight_before) > limits.max_weight
        });
    }

    /// Weight of what is retained. Other threads may publish and evict meanwhile.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let guard = epoch::pin();
        let Some(oldest) = self.oldest.load(&guard) else { return 0 };
        let tail = self.tail.load(&guard).unwrap_or(oldest);
        (tail.weight_before + weight_of(tail)).saturating_sub(oldest.weight_before)
    }

    /// Evicts what is older than the age limit at `now`, even if nothing new is published. The last entry of a
    /// finished ring stays. Returns how many positions were passed over.
    pub fn evict_older(&self, now: u32, limits: &Limits) -> u64 {
        let guard = epoch::pin();
        let Some(first) = self.oldest.load(&guard).map(|chunk| chunk.base) else { return 0 };
        self.evict_while(|oldest, _| is_older(oldest.stamp(), now, limits.max_age_ms));
        let (Some(oldest), Some(tail)) = (self.oldest.load(&guard), self.tail.load(&guard)) else { return 0 };
        // Only the tail is left, and all of it is old: end it here and put a chunk without slots behind it,
        // which remembers the position and nothing else. A later publish grows the ring anew.
        if oldest.is(tail)
            && !tail.slots().is_empty()
            && is_older(tail.stamp(), now, limits.max_age_ms)
            && let Some(end) = seal(tail)
        {
            self.chunk_after(tail, end, now, limits, Some(0));
            // Looks at the age again: an entry that came in just before the end made the chunk young, and then
            // the chunk stays.
            self.evict_while(|oldest, _| is_older(oldest.stamp(), now, limits.max_age_ms));
        }
        self.oldest.load(&guard).map_or(0, |oldest| oldest.base.saturating_sub(first))
    }

    /// Evicts the oldest chunk as long as `surplus` says so of it and the next. Never evicts the tail.
    fn evict_while(&self, surplus: impl Fn(Pinned<'_, T>, Pinned<'_, T>) -> bool) {
        let guard = epoch::pin();
        while let (Some(oldest), Some(tail)) = (self.oldest.load(&guard), self.tail.load(&guard)) {
            if oldest.is(tail) {
                return;
            }
            let Some(next) = oldest.next() else { return };
            if !surplus(oldest, next) {
                return;
            }
            oldest.mark_evicted();
            if self.oldest.move_on(Some(oldest), next) {
                Link::retire(oldest);
            }
        }
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

/// Weight of the entries in `chunk` so far.
fn weight_of<T: Entry>(chunk: Pinned<'_, T>) -> u64 {
    let weights = chunk.slots().iter().map_while(|slot| match slot.read() {
        State::Entry { entry, .. } => Some(entry.weight() as u64),
        State::Empty | State::Sealed | State::Closed => None,
    });
    weights.sum()
}
