//! Reading: one entry by reference, or a batch that keeps its chunks.

use core::fmt;
use core::ops::Range;

use super::Ring;
use super::chunk::{Pinned, Strong, Successor};
use super::position::{Position, index_in};
use super::slot::{Entry, Ref, Slot, State};
use crate::sync::epoch::{self, Guard};

/// What a cursor finds at its position.
#[derive(Debug)]
pub enum Step<V> {
    /// Something to read; the cursor moved behind it.
    Item(V),
    /// Nothing yet.
    Empty,
    /// The entries from the cursor up to the oldest retained one were evicted, `missed` of them; the cursor
    /// moved to the oldest.
    Lagged {
        /// How many entries were missed.
        missed: u64,
    },
    /// The ring is closed and everything before its end was read.
    Ended,
}

/// The next position one reader will read. Owns no part of the ring but the chunk it stands on.
///
/// The methods take the ring that the cursor reads. A cursor may outlive its ring. One that is given another ring
/// keeps its position and reads on in either: what it finds is an entry of one of the two at that position, or an
/// edge. There is no use for that, and no danger.
pub struct Cursor<T: Entry> {
    position: Position,
    chunk: Option<Strong<T>>,
    ended: bool,
}

impl<T: Entry> Cursor<T> {
    /// Makes a cursor that will read `position` first. A position that was not published yet is waited for.
    #[must_use]
    pub fn at(position: Position) -> Self {
        Self { position, chunk: None, ended: false }
    }

    /// The position that is read next.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Reads the next entry by reference.
    #[inline]
    pub fn next<'a>(&'a mut self, ring: &Ring<T>) -> Step<Ref<'a, T>> {
        match self.settle(ring) {
            Step::Item(index) => {
                let Some(chunk) = &self.chunk else { return Step::Empty };
                let State::Entry { entry, last } = chunk.slots()[index].read() else { return Step::Empty };
                self.position += 1;
                self.ended = last;
                Step::Item(entry)
            }
            Step::Empty => Step::Empty,
            Step::Lagged { missed } => self.skip(missed),
            Step::Ended => Step::Ended,
        }
    }

    /// Reads what the next [`take`](Self::take) will look at, and changes nothing. Done for several cursors before
    /// any of them takes, their memory arrives together.
    #[inline]
    pub fn warm(&self) -> bool {
        let Some(chunk) = &self.chunk else { return false };
        chunk.slots().get(index_in(chunk.base, self.position)).is_some_and(Slot::is_entry)
    }

    /// Whether nothing stands at the position yet, as far as a glance at its slot tells. If this is false, taking
    /// tells.
    #[inline]
    pub(crate) fn is_at_edge(&self) -> bool {
        let Some(chunk) = &self.chunk else { return false };
        let index = index_in(chunk.base, self.position);
        // Behind an entry: an empty slot elsewhere may lie beyond the end of the chunk or of the ring.
        let is_next =
            index.checked_sub(1).and_then(|before| chunk.slots().get(before)).is_some_and(Slot::is_entry);
        let is_empty = || chunk.slots().get(index).is_some_and(|slot| matches!(slot.read(), State::Empty));
        is_next && is_empty() && !self.ended && !chunk.is_evicted()
    }

    /// The entries that wait to be read in the chunk that the cursor holds, by reference: nearly always all there are,
    /// and no count is taken for them. Where this is `None`, [`take`](Self::take) tells more. The cursor stays where it
    /// is; see [`pass`](Self::pass).
    #[inline]
    pub(crate) fn peek(&self) -> Option<Pending<'_, T>> {
        let chunk = self.chunk.as_ref().filter(|_| !self.ended)?;
        Pending::new(chunk.slots(), index_in(chunk.base, self.position), self.position)
    }

    /// Moves behind `count` entries that were read by [`peek`](Self::peek).
    #[inline]
    pub(crate) fn pass(&mut self, count: usize) {
        self.position += count as u64;
    }

    /// Takes up to `max_entries` entries, and no more once their weights reach `max_weight`, across chunks.
    /// Costs one count per chunk, not per entry.
    pub fn take(&mut self, ring: &Ring<T>, max_entries: usize, max_weight: usize) -> Step<Batch<T>> {
        let mut batch = Batch {
            first: None,
            more: Vec::new(),
            start: self.position,
            weight: 0,
            last: false,
            newest: false,
        };
        let (mut entries, mut weight) = (0, 0);
        // Pinned at the first hop and for all of them: a pin costs more than the rest of a hop.
        let mut pinned: Option<Guard> = None;
        loop {
            let start = match self.settle(ring) {
                Step::Item(index) => index,
                // What was collected comes first; the next call meets the same edge again.
                edge if entries > 0 => {
                    batch.newest = matches!(edge, Step::Empty);
                    return Step::Item(batch);
                }
                Step::Empty => return Step::Empty,
                Step::Ended => return Step::Ended,
                Step::Lagged { missed } => return self.skip(missed),
            };
            let Some(chunk) = &self.chunk else { return Step::Empty };
            // A chunk behind the tail is taken whole if it fits: its weight is known without a look at its
            // entries, and the ring did not end in it.
            if start == 0 && chunk.has_next() {
                let guard = pinned.get_or_insert_with(epoch::pin);
                if let Successor::Next(next) = chunk.successor(guard) {
                    let (count, together) = chunk.until(next);
                    if entries + count <= max_entries && weight + together < max_weight {
                        entries += count;
                        weight += together;
                        self.position = next.base;
                        let next = next.strong();
                        if let Some(chunk) = self.chunk.replace(next) {
                            batch.push(Span { chunk, range: 0..count });
                        }
                        batch.weight = weight;
                        if entries == max_entries {
                            return Step::Item(batch);
                        }
                        continue;
                    }
                }
            }
            let (mut end, mut is_all) = (start, false);
            for slot in &chunk.slots()[start..] {
                let (entry, last) = match slot.read() {
                    State::Entry { entry, last } => (entry, last),
                    state => {
                        is_all = matches!(state, State::Empty);
                        break;
                    }
                };
                end += 1;
                entries += 1;
                weight += entry.weight();
                self.ended = last;
                if last || entries >= max_entries || weight >= max_weight {
                    break;
                }
            }
            self.position += (end - start) as u64;
            batch.last = self.ended;
            batch.newest = is_all;
            batch.weight = weight;
            batch.push(Span { chunk: chunk.clone(), range: start..end });
            if is_all || self.ended || entries >= max_entries || weight >= max_weight {
                return Step::Item(batch);
            }
        }
    }

    /// Reports a gap, and only now moves over it.
    fn skip<V>(&mut self, missed: u64) -> Step<V> {
        self.position += missed;
        Step::Lagged { missed }
    }

    /// Moves the cursor onto the chunk of its position, which stays the same. `Item` carries the index of a
    /// slot with an entry.
    #[inline]
    fn settle(&mut self, ring: &Ring<T>) -> Step<usize> {
        // Nearly always an entry stands right here.
        if let (Some(chunk), false) = (&self.chunk, self.ended) {
            let index = index_in(chunk.base, self.position);
            if chunk.slots().get(index).is_some_and(Slot::is_entry) {
                return Step::Item(index);
            }
        }
        self.settle_at_edge(ring)
    }

    #[inline(never)]
    fn settle_at_edge(&mut self, ring: &Ring<T>) -> Step<usize> {
        if self.ended {
            return Step::Ended;
        }
        loop {
            let Some(chunk) = &self.chunk else {
                if let Some(edge) = self.look_up(ring) {
                    return edge;
                }
                continue;
            };
            match place_of(index_in(chunk.base, self.position), chunk.slots()) {
                Found::Entry(index) => return Step::Item(index),
                Found::BehindTheEnd => {
                    self.ended = true;
                    return Step::Ended;
                }
                // A chunk of a ring that was dropped is never filled: the ring at hand knows more.
                Found::NothingYet if !chunk.is_evicted() => return Step::Empty,
                Found::NothingYet | Found::BehindTheChunk => {}
            }
            let guard = epoch::pin();
            match chunk.successor(&guard) {
                Successor::Next(next) => {
                    let next = next.strong();
                    self.chunk = Some(next);
                }
                Successor::None => return Step::Empty,
                Successor::Evicted => self.chunk = None,
            }
        }
    }

    /// Finds the chunk of the position: from the tail on if it lies there, as that of most new cursors does, and
    /// otherwise from the oldest on. `Some` is an edge to report: lag, or nothing yet.
    #[cold]
    fn look_up(&mut self, ring: &Ring<T>) -> Option<Step<usize>> {
        let guard = epoch::pin();
        // The tail is read under the guard, like the oldest, and was not given up before it.
        let tail = ring.tail.load(&guard).filter(|tail| tail.base <= self.position);
        let Some(mut chunk): Option<Pinned<'_, T>> = tail.or_else(|| ring.oldest.load(&guard)) else {
            return Some(Step::Empty);
        };
        if let Some(missed @ 1..) = chunk.base.checked_sub(self.position) {
            return Some(Step::Lagged { missed });
        }
        while let Some(next) = chunk.next().filter(|next| next.base <= self.position) {
            chunk = next;
        }
        self.chunk = Some(chunk.strong());
        None
    }
}

/// What stands at a position, as far as its chunk tells.
enum Found {
    /// An entry, in the slot with this index.
    Entry(usize),
    /// Nothing yet: this chunk may still be filled up to there.
    NothingYet,
    /// Nothing in this chunk, which ends before the position. The ring goes on, or will go on, in the next.
    BehindTheChunk,
    /// Nothing ever: the ring ends before the position.
    BehindTheEnd,
}

/// What stands at `index` of a chunk of these slots.
///
/// A cursor may have been set beyond the tail. Its slot is then not the first empty one, and stays empty when the
/// chunk or the ring is ended before it. So the latest slot that is not empty, up to `index`, decides.
fn place_of<T: Entry>(index: usize, slots: &[Slot<T>]) -> Found {
    let latest = (0..slots.len().min(index.saturating_add(1))).rev().find_map(|at| match slots[at].read() {
        State::Empty => None,
        state => Some((at, state)),
    });
    match latest {
        Some((at, State::Entry { .. })) if at == index => Found::Entry(index),
        Some((_, State::Closed | State::Entry { last: true, .. })) => Found::BehindTheEnd,
        Some((_, State::Sealed)) => Found::BehindTheChunk,
        Some((at, State::Entry { .. })) if at + 1 == slots.len() => Found::BehindTheChunk,
        None if slots.is_empty() => Found::BehindTheChunk,
        Some((_, State::Entry { .. } | State::Empty)) | None => Found::NothingYet,
    }
}

impl<T: Entry> fmt::Debug for Cursor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor").field("position", &self.position).field("ended", &self.ended).finish()
    }
}

impl<T: Entry> Ring<T> {
    /// The entries from `position` on in the last chunk, by reference, and without a count: the guard keeps them. Where
    /// this is `None`, a [`Cursor`] tells more.
    #[inline]
    pub(crate) fn peek_from<'g>(&self, position: Position, guard: &'g Guard) -> Option<Pending<'g, T>> {
        let chunk = self.tail.load(guard).filter(|tail| tail.base <= position)?;
        Pending::new(chunk.slots(), index_in(chunk.base, position), position)
    }
}

/// Consecutive entries that stand in one chunk. The one that ends its ring is never among them.
pub(crate) struct Pending<'a, T: Entry> {
    slots: &'a [Slot<T>],
    start: Position,
}

impl<'a, T: Entry> Pending<'a, T> {
    /// Takes the entries from `index` on, the first of which stands at `start`. `None` if there is none.
    #[inline]
    fn new(slots: &'a [Slot<T>], index: usize, start: Position) -> Option<Self> {
        let slots = slots.get(index..)?;
        let is_more = |slot: &&Slot<T>| matches!(slot.read(), State::Entry { last: false, .. });
        let count = slots.iter().take_while(is_more).count();
        (count > 0).then(|| Self { slots: &slots[..count], start })
    }

    /// The entries in order, each with its position.
    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Position, Ref<'a, T>)> {
        let entry = |slot: &'a Slot<T>| match slot.read() {
            State::Entry { entry, .. } => Some(entry),
            _ => None,
        };
        (self.start..).zip(self.slots.iter().filter_map(entry))
    }

    /// How many there are; at least one.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Position of the last one.
    #[inline]
    pub(crate) fn end(&self) -> Position {
        self.start + self.slots.len() as u64 - 1
    }
}

/// Some consecutive entries, kept alive by the chunks they stand in.
pub struct Batch<T: Entry> {
    first: Option<Span<T>>,
    /// Empty, and without memory, unless the batch spans chunks.
    more: Vec<Span<T>>,
    start: Position,
    weight: usize,
    last: bool,
    newest: bool,
}

struct Span<T: Entry> {
    chunk: Strong<T>,
    range: Range<usize>,
}

/// As many chunks as the largest batch spans that the stream module asks for.
const SPANS: usize = 17;

impl<T: Entry> Batch<T> {
    fn push(&mut self, span: Span<T>) {
        match self.first {
            None => self.first = Some(span),
            Some(_) => {
                if self.more.is_empty() {
                    self.more.reserve(SPANS);
                }
                self.more.push(span);
            }
        }
    }

    fn spans(&self) -> impl Iterator<Item = &Span<T>> {
        self.first.iter().chain(&self.more)
    }

    /// The entries in order, by reference.
    pub fn iter(&self) -> impl Iterator<Item = Ref<'_, T>> {
        self.iter_from(0)
    }

    /// The entries from the one at `index` on.
    pub fn iter_from(&self, index: usize) -> impl Iterator<Item = Ref<'_, T>> {
        let mut skip = index;
        self.spans().flat_map(move |span| {
            let skipped = skip.min(span.range.len());
            skip -= skipped;
            span.chunk.slots()[span.range.start + skipped..span.range.end].iter().filter_map(
                |slot| match slot.read() {
                    State::Entry { entry, .. } => Some(entry),
                    _ => None,
                },
            )
        })
    }

    /// The entry at `index`, if there are so many.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Ref<'_, T>> {
        self.iter_from(index).next()
    }

    /// How many entries there are; at least one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans().map(|span| span.range.len()).sum()
    }

    /// Whether there are none, which does not happen to a batch that was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The sum of the entries' weights.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// The positions of the entries.
    #[must_use]
    pub fn positions(&self) -> Range<Position> {
        self.start..self.start + self.len() as u64
    }

    /// Whether nothing stood behind this batch when it was taken.
    #[must_use]
    pub fn is_newest(&self) -> bool {
        self.newest
    }

    /// Whether the ring ends behind this batch.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.last
    }
}

impl<T: Entry> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("entries", &self.len()).field("last", &self.last).finish()
    }
}
