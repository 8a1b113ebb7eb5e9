//! A run of slots, linked to the next: the unit that is allocated, evicted and reclaimed.
//!
//! # Who keeps a chunk alive
//!
//! A chunk is counted. The ring holds one count while the chunk lies between its oldest and its tail; each
//! cursor or batch standing on it holds one. The link to the next chunk holds none: a reader that stopped
//! pins the one chunk it stands on, never the chain behind it.
//!
//! A link may therefore point to memory that is about to be freed. Whoever follows one is pinned in the
//! epoch, and the ring gives up its count only through the epoch, after the chunk can no longer be reached:
//!
//! 1. A chunk reached from the ring's own `oldest` or `tail` under a guard has not been given up before the
//!    pin, so it stays until the unpin; and so does every chunk behind it, since chunks are given up in order.
//!    [`Pinned`] is such a chunk.
//! 2. A chunk held by a count may have been evicted long ago, and its successor too. `evicted` is set before
//!    the ring moves on, hence before the successor can be evicted: if it still reads false under the guard,
//!    the successor was not given up before the pin. [`Strong::successor`] is this check.
//!
//! The drop of a ring keeps the second rule. A cursor borrows its ring only while it reads, so it may be reading
//! from another ring when its own is dropped. [`Link::release_all`] therefore frees at once only those chunks that
//! nobody can be about to reach: the ring's first chunk has no predecessor, and a chunk whose count is one is held
//! by the ring alone, so nobody follows its link. From the first chunk on that may be reached, all are marked as
//! evicted and given up through the epoch.
//!
//! # Memory ordering
//!
//! `evicted` is stored before the compare-and-swap (`AcqRel`) that moves the ring's `oldest`; a later evictor
//! acquires that. The sequentially consistent fences of the epoch order the rest: either the collector sees
//! our pin and keeps the successor, or our read of `evicted` comes after its fence and sees true.

#![allow(unsafe_code, reason = "allocation, counts and links of chunks are kept in this one file")]

use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use std::alloc;

use super::position::{FIRST, Position};
use super::slot::{Entry, Slot};
use crate::sync::epoch::{self, Guard};
use crate::sync::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// The fixed part of a chunk; its slots follow in the same allocation.
#[repr(C)]
pub(super) struct Chunk<T: Entry> {
    /// Position of the first slot.
    pub(super) base: Position,
    /// Weight of all entries published to the ring before this chunk.
    pub(super) weight_before: u64,
    next: Link<T>,
    counts: AtomicUsize,
    /// Where a publisher starts to look for an empty slot: every slot before it is filled.
    hint: AtomicU32,
    evicted: AtomicBool,
    /// Whether this is the first chunk of its ring, so that no chunk ever linked to it.
    is_first: bool,
    slot_count: u16,
    /// When the latest entry was published here, in milliseconds.
    stamp: AtomicU64,
    slots: [Slot<T>; 0],
}

/// A process with more counts of one chunk than this is ended, as by the standard library's `Arc`.
const MOST_COUNTS: usize = isize::MAX as usize;

impl<T: Entry> Chunk<T> {
    fn layout(slot_count: usize) -> Layout {
        let slots = Layout::array::<Slot<T>>(slot_count).expect("a chunk has a handful of slots");
        Layout::new::<Self>().extend(slots).expect("a chunk has a handful of slots").0.pad_to_align()
    }

    /// Allocates a chunk of empty slots with a count of one.
    fn allocate(
        base: Position,
        weight_before: u64,
        slot_count: usize,
        stamp: u64,
        is_first: bool,
    ) -> NonNull<Self> {
        let layout = Self::layout(slot_count);
        // SAFETY: the layout has the size of the fixed part at least, so it is not zero.
        let Some(chunk) = NonNull::new(unsafe { alloc::alloc(layout) }.cast::<Self>()) else {
            alloc::handle_alloc_error(layout)
        };
        let fixed = Self {
            base,
            weight_before,
            next: Link::null(),
            counts: AtomicUsize::new(1),
            hint: AtomicU32::new(0),
            evicted: AtomicBool::new(false),
            is_first,
            slot_count: u16::try_from(slot_count).expect("a chunk has a handful of slots"),
            stamp: AtomicU64::new(stamp),
            slots: [],
        };
        // SAFETY: the allocation is large enough and aligned for the fixed part, and nobody else knows it yet.
        unsafe { chunk.write(fixed) };
        for index in 0..slot_count {
            // SAFETY: the layout holds `slot_count` slots behind the fixed part, and `index` is below that.
            unsafe { Self::slot_pointer(chunk).add(index).write(Slot::new()) };
        }
        chunk
    }

    fn slot_pointer(chunk: NonNull<Self>) -> *mut Slot<T> {
        // SAFETY: `slots` is a field of the allocated chunk; no reference is made, so that the pointer keeps
        // the right to the slots that follow.
        unsafe { &raw mut (*chunk.as_ptr()).slots }.cast()
    }

    /// Gives up one count; the last one frees the chunk and drops its entries.
    ///
    /// # Safety
    ///
    /// The caller owns the count and gives it up with this call.
    unsafe fn release(chunk: NonNull<Self>) {
        // SAFETY: the count that the caller owns keeps the chunk alive up to here.
        let counts = unsafe { &chunk.as_ref().counts };
        // AcqRel: Release puts everything this owner did with the chunk before the drop, Acquire lets the
        // last owner see what all others did. Pairs with itself in other threads.
        if counts.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        // SAFETY: the count was the last one, so nobody else can reach the chunk.
        let slot_count = usize::from(unsafe { chunk.as_ref() }.slot_count);
        for index in 0..slot_count {
            // SAFETY: as above; `index` is below the number of slots, and each is cleared and dropped once.
            unsafe {
                let slot = Self::slot_pointer(chunk).add(index);
                (*slot).clear();
                slot.drop_in_place();
            }
        }
        // SAFETY: the fixed part was written by `allocate` and is dropped once, here.
        unsafe { chunk.drop_in_place() };
        // SAFETY: allocated by `allocate` with this same layout.
        unsafe { alloc::dealloc(chunk.as_ptr().cast(), Self::layout(slot_count)) };
    }

    /// Gives up one count of `chunk` and of every chunk behind it.
    ///
    /// # Safety
    ///
    /// The caller owns these counts and gives them up with this call. No chunk is linked behind the last one any
    /// more.
    unsafe fn release_chain(chunk: NonNull<Self>) {
        let mut rest = Some(chunk);
        while let Some(chunk) = rest {
            // SAFETY: the count that the caller owns keeps the chunk alive until it is given up below.
            rest = NonNull::new(unsafe { chunk.as_ref() }.next.load_raw());
            // SAFETY: the caller owns the count, and each is given up once.
            unsafe { Self::release(chunk) };
        }
    }

    /// The slots of `chunk`.
    ///
    /// # Safety
    ///
    /// The chunk stays alive for `'a`.
    #[inline]
    unsafe fn slots_of<'a>(chunk: NonNull<Self>) -> &'a [Slot<T>] {
        // SAFETY: `allocate` wrote `slot_count` slots there; the caller keeps the chunk alive.
        unsafe {
            core::slice::from_raw_parts(Self::slot_pointer(chunk), usize::from(chunk.as_ref().slot_count))
        }
    }

    /// Takes one more count.
    #[inline]
    fn retain(&self) {
        // Relaxed: whoever takes a count has one, or is pinned, so the chunk is alive during this step.
        if self.counts.fetch_add(1, Ordering::Relaxed) > MOST_COUNTS {
            // Batches were forgotten without end. One more might wrap the count, and free what is in use.
            std::process::abort();
        }
    }

    /// Index of the first slot that may be empty.
    #[inline]
    pub(super) fn hint(&self) -> usize {
        // Acquire: the slots before the hint are seen filled, so that the slots of a chunk are filled in
        // order. Pairs with the Release in `filled`.
        self.hint.load(Ordering::Acquire) as usize
    }

    /// Notes that an entry is about to be published here at `now`. Called before the slot is filled, so that
    /// whoever sees the entry sees that it is young. Never goes back: a publisher with an earlier time does not
    /// age an entry beside its own.
    #[inline]
    pub(super) fn touch(&self, now: u64) {
        // Relaxed, here and below: the Release of the slot that is filled next carries it along. Pairs with the
        // Acquire in `Slot::read` and in a failed `Slot::seal`.
        let mut stamp = self.stamp.load(Ordering::Relaxed);
        // Within a millisecond there is nothing to note.
        while stamp < now {
            match self.stamp.compare_exchange_weak(stamp, now, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(found) => stamp = found,
            }
        }
    }

    /// Notes that the slot at `index` and all before it are filled. Two publishers may note out of order and
    /// leave the hint too low, which costs a look at a filled slot and nothing else. Never called for the last
    /// entry of a ring: later publishers must meet it.
    #[inline]
    pub(super) fn filled(&self, index: usize) {
        // Release: the slots up to `index` were seen filled before. Pairs with the Acquire in `hint`.
        self.hint.store(index as u32 + 1, Ordering::Release);
    }

    pub(super) fn stamp(&self) -> u64 {
        // Relaxed: see `touch`.
        self.stamp.load(Ordering::Relaxed)
    }

    pub(super) fn mark_evicted(&self) {
        // Release: pairs with the Acquire in `is_evicted`; see the module docs for what it protects.
        self.evicted.store(true, Ordering::Release);
    }

    /// Whether the ring gave the chunk up, or was dropped. Nothing is published to it any more.
    #[inline]
    pub(super) fn is_evicted(&self) -> bool {
        // Acquire: pairs with the Release in `mark_evicted`. The epoch's fences do the rest (module docs).
        self.evicted.load(Ordering::Acquire)
    }
}

impl<T: Entry> fmt::Debug for Chunk<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk")
            .field("base", &self.base)
            .field("slots", &self.slot_count)
            .finish_non_exhaustive()
    }
}

/// One count of a chunk.
pub(super) struct Strong<T: Entry> {
    chunk: NonNull<Chunk<T>>,
    owned: PhantomData<Chunk<T>>,
}

// SAFETY: a counted pointer to atomics and to entries that are themselves `Send` and `Sync`.
unsafe impl<T: Entry> Send for Strong<T> {}
// SAFETY: as above; `&Strong` gives only `&Chunk`.
unsafe impl<T: Entry> Sync for Strong<T> {}

impl<T: Entry> Strong<T> {
    /// Allocates the first chunk of a ring. Nobody else knows it yet.
    pub(super) fn first(slot_count: usize, stamp: u64) -> Self {
        Self { chunk: Chunk::allocate(FIRST, 0, slot_count, stamp, true), owned: PhantomData }
    }

    /// Allocates a later chunk of a ring. Nobody else knows it yet.
    pub(super) fn new(base: Position, weight_before: u64, slot_count: usize, stamp: u64) -> Self {
        Self { chunk: Chunk::allocate(base, weight_before, slot_count, stamp, false), owned: PhantomData }
    }

    /// The chunk behind this one: see the second rule in the module docs.
    pub(super) fn successor<'g>(&self, guard: &'g Guard) -> Successor<'g, T> {
        let next = self.next.load_raw();
        if self.is_evicted() {
            return Successor::Evicted;
        }
        match NonNull::new(next) {
            None => Successor::None,
            // `evicted` read false after the guard was pinned, so the successor was not given up before the
            // pin and stays until the unpin.
            Some(chunk) => Successor::Next(Pinned { chunk, guard }),
        }
    }

    /// Whether a chunk was linked behind this one.
    #[inline]
    pub(super) fn has_next(&self) -> bool {
        !self.next.is_null()
    }

    /// How many entries stand in this chunk, and what they weigh together, given its successor: nothing is
    /// published to a chunk that has one.
    #[inline]
    pub(super) fn until(&self, next: Pinned<'_, T>) -> (usize, usize) {
        ((next.base - self.base) as usize, (next.weight_before - self.weight_before) as usize)
    }

    /// The slots, in order.
    #[inline]
    pub(super) fn slots(&self) -> &[Slot<T>] {
        // SAFETY: the count keeps the chunk alive.
        unsafe { Chunk::slots_of(self.chunk) }
    }
}

impl<T: Entry> Clone for Strong<T> {
    fn clone(&self) -> Self {
        self.retain();
        Self { chunk: self.chunk, owned: PhantomData }
    }
}

impl<T: Entry> Deref for Strong<T> {
    type Target = Chunk<T>;

    #[inline]
    fn deref(&self) -> &Chunk<T> {
        // SAFETY: the count keeps the chunk alive.
        unsafe { self.chunk.as_ref() }
    }
}

impl<T: Entry> Drop for Strong<T> {
    fn drop(&mut self) {
        // SAFETY: this handle owns one count and is gone after this.
        unsafe { Chunk::release(self.chunk) };
    }
}

impl<T: Entry> fmt::Debug for Strong<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// What lies behind a chunk that is held by a count.
pub(super) enum Successor<'g, T: Entry> {
    /// The next chunk.
    Next(Pinned<'g, T>),
    /// None yet.
    None,
    /// Unknown: the chunk was evicted, so ask the ring for its oldest.
    Evicted,
}

/// A chunk reached from the ring under a guard: it and all behind it stay while the guard is held.
pub(super) struct Pinned<'g, T: Entry> {
    chunk: NonNull<Chunk<T>>,
    guard: &'g Guard,
}

impl<T: Entry> Clone for Pinned<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Entry> Copy for Pinned<'_, T> {}

impl<'g, T: Entry> Pinned<'g, T> {
    /// The next chunk, if there is one.
    pub(super) fn next(self) -> Option<Self> {
        self.next.load(self.guard)
    }

    /// Appends `fresh`, unless another thread was quicker: then that one's chunk is returned. The flag says
    /// whether it was ours.
    pub(super) fn append(self, fresh: Strong<T>) -> (Self, bool) {
        self.next.install(fresh, self.guard)
    }

    /// Takes a count.
    pub(super) fn strong(self) -> Strong<T> {
        self.retain();
        Strong { chunk: self.chunk, owned: PhantomData }
    }

    /// The slots, in order, for as long as the guard is held.
    #[inline]
    pub(super) fn slots(self) -> &'g [Slot<T>] {
        // SAFETY: the guard keeps the chunk alive.
        unsafe { Chunk::slots_of(self.chunk) }
    }

    /// Whether both are the same chunk.
    pub(super) fn is(self, other: Self) -> bool {
        self.chunk == other.chunk
    }
}

impl<T: Entry> Deref for Pinned<'_, T> {
    type Target = Chunk<T>;

    #[inline]
    fn deref(&self) -> &Chunk<T> {
        // SAFETY: the guard keeps the chunk alive.
        unsafe { self.chunk.as_ref() }
    }
}

/// A place that names a chunk of one ring: its oldest, its tail, or the next of a chunk.
pub(super) struct Link<T: Entry>(AtomicPtr<Chunk<T>>);

impl<T: Entry> Link<T> {
    pub(super) fn null() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    #[inline]
    fn load_raw(&self) -> *mut Chunk<T> {
        // Acquire: the fixed part of the chunk is visible. Pairs with the Release in `install` and `move_on`.
        self.0.load(Ordering::Acquire)
    }

    /// The chunk named here. Called on the ring's own links, and on `next` of a [`Pinned`].
    #[inline]
    pub(super) fn load<'g>(&self, guard: &'g Guard) -> Option<Pinned<'g, T>> {
        // A chunk named by the ring's own links holds the ring's count when it is read, and one behind it too
        // (first rule in the module docs); the guard was pinned before.
        NonNull::new(self.load_raw()).map(|chunk| Pinned { chunk, guard })
    }

    /// Whether nothing was ever named here.
    pub(super) fn is_null(&self) -> bool {
        self.load_raw().is_null()
    }

    /// Puts `fresh` here, with its count, if nothing is named yet; otherwise drops it. Returns what is named
    /// now, and whether it is `fresh`.
    pub(super) fn install<'g>(&self, fresh: Strong<T>, guard: &'g Guard) -> (Pinned<'g, T>, bool) {
        let chunk = fresh.chunk;
        // AcqRel: Release publishes the fixed part and the empty slots, pairs with the Acquire in `load_raw`.
        match self.0.compare_exchange(ptr::null_mut(), chunk.as_ptr(), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                // The count is the ring's now.
                core::mem::forget(fresh);
                (Pinned { chunk, guard }, true)
            }
            Err(found) => {
                let chunk = NonNull::new(found).expect("the exchange failed because the link was not null");
                (Pinned { chunk, guard }, false)
            }
        }
    }

    /// Names `to` instead of `from` (`None`: instead of nothing). False if it names something else by now.
    /// Takes and gives no count.
    pub(super) fn move_on(&self, from: Option<Pinned<'_, T>>, to: Pinned<'_, T>) -> bool {
        let expected = from.map_or(ptr::null_mut(), |from| from.chunk.as_ptr());
        let target = to.chunk.as_ptr();
        // AcqRel: Release hands on what this thread knows of the chunks passed over (their `evicted` marks),
        // Acquire takes what earlier movers knew. Pairs with itself and with the Acquire in `load_raw`.
        // Relaxed on failure: the caller looks again.
        self.0.compare_exchange(expected, target, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Gives up the ring's count of `chunk` once nobody pinned now can still reach it.
    pub(super) fn retire(chunk: Pinned<'_, T>) {
        let retired = Strong { chunk: chunk.chunk, owned: PhantomData };
        // SAFETY: the caller moved `oldest` past the chunk, so no later pin reaches it, and moved it alone, so
        // the ring's count is given up once. Entries are `Send`, so any thread may drop them.
        unsafe { chunk.guard.defer_unchecked(move || drop(retired)) };
    }

    /// Gives up the ring's counts of this chunk and all behind it. Called by the drop of the ring, which nobody
    /// borrows any more; cursors of the ring may be reading from another one meanwhile.
    pub(super) fn release_all(&mut self) {
        let Some(oldest) = NonNull::new(self.load_raw()) else { return };
        // Whether nobody who holds no count of the next chunk can be about to take one: see the module docs.
        // SAFETY: the ring's count keeps the chunk alive.
        let mut is_unreachable = unsafe { oldest.as_ref() }.is_first;
        let mut rest = Some(oldest);
        while let Some(chunk) = rest {
            if !is_unreachable {
                // SAFETY: the ring's counts of this chunk and all behind it are given up once, here.
                return unsafe { Self::retire_chain(chunk) };
            }
            // SAFETY: the ring's count keeps the chunk alive until it is given up below.
            let fixed = unsafe { chunk.as_ref() };
            rest = NonNull::new(fixed.next.load_raw());
            // Acquire: whoever held this chunk and hopped to the next took a count of that one first. Pairs with
            // the Release in `Chunk::release`.
            if fixed.counts.load(Ordering::Acquire) != 1 {
                // A cursor or a batch holds it, so somebody may be on the way to the next chunk.
                fixed.mark_evicted();
                is_unreachable = false;
            }
            // SAFETY: the ring's count of this chunk is given up once, here. The chunk is not used below.
            unsafe { Chunk::release(chunk) };
        }
    }

    /// Gives up the ring's counts of `chunk` and all behind it once nobody pinned now can still reach them.
    ///
    /// # Safety
    ///
    /// The ring is being dropped, and the caller gives up these counts with this call.
    #[cold]
    unsafe fn retire_chain(chunk: NonNull<Chunk<T>>) {
        let guard = epoch::pin();
        let mut rest = Some(chunk);
        while let Some(chunk) = rest {
            // SAFETY: the ring's count keeps the chunk alive until the closure below runs.
            let fixed = unsafe { chunk.as_ref() };
            fixed.mark_evicted();
            rest = NonNull::new(fixed.next.load_raw());
        }
        // SAFETY: every chunk that links to one of these is marked as evicted, so no later pin reaches one without
        // a count of its own. Entries are `Send`, so any thread may drop them.
        unsafe { guard.defer_unchecked(move || Chunk::release_chain(chunk)) };
    }
}

impl<T: Entry> fmt::Debug for Link<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.load_raw()).finish()
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_as_documented() {
        assert_eq!(Chunk::<Box<u64>>::layout(4).size(), 48 + 4 * 8);
    }
}
