//! One place in the ring: empty, an entry, or the mark that no entry will ever stand here.
//!
//! A slot changes once, from empty to its final state, by one compare-and-swap. That step is the claim of the
//! position, the place in the order and the publication all at once, so no reader can meet a position that is
//! claimed and not yet written.

#![allow(unsafe_code, reason = "handles become pointers and back in this one file")]

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::Deref;

use crate::sync::{AtomicPtr, Ordering};

/// What a ring holds: a handle of one pointer, so that a slot can take it in a single atomic step.
///
/// # Safety
///
/// `into_raw` returns a pointer that is not null and aligned to 4 bytes or more; `from_raw` turns exactly such
/// a pointer back into an equal handle; moving the handle does not move what it points to. The type is `Send`
/// and `Sync` because entries are read and dropped by any thread, `'static` because that may happen late.
pub unsafe trait Entry: Send + Sync + Sized + 'static {
    /// Gives up the handle for its pointer.
    fn into_raw(self) -> *mut ();

    /// Takes the handle back.
    ///
    /// # Safety
    ///
    /// `raw` comes from [`into_raw`](Self::into_raw), and of all handles made from it at most one is dropped.
    unsafe fn from_raw(raw: *mut ()) -> Self;

    /// Told the position just before each attempt to publish at it. A lost race calls it again with a later
    /// position, so that what depends on the position is patched rather than rebuilt.
    fn place(&mut self, _position: u64) {}

    /// What this entry counts against the ring's byte limit.
    fn weight(&self) -> usize {
        0
    }
}

// SAFETY: a box of a sized value is one pointer, never null. The alignment is enforced below: a box of a type
// aligned to less than 4 bytes does not compile.
unsafe impl<T: Send + Sync + 'static> Entry for Box<T> {
    fn into_raw(self) -> *mut () {
        const { assert!(align_of::<T>() >= 4, "the slot needs two bits of the pointer") };
        Self::into_raw(self).cast()
    }

    unsafe fn from_raw(raw: *mut ()) -> Self {
        // SAFETY: the caller passes what `into_raw` gave.
        unsafe { Self::from_raw(raw.cast()) }
    }
}

/// An entry borrowed from its slot.
pub struct Ref<'a, T> {
    entry: ManuallyDrop<T>,
    slot: PhantomData<&'a T>,
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.entry
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// What a reader finds in a slot.
#[derive(Debug)]
pub(super) enum State<'a, T> {
    /// Nothing yet; a publisher may fill it at any moment.
    Empty,
    /// An entry; if `last`, the ring ends behind it.
    Entry { entry: Ref<'a, T>, last: bool },
    /// No entry comes here or later in this chunk; the ring goes on in the next.
    Sealed,
    /// The ring ended before this slot.
    Closed,
}

/// The marks in the two low bits of a slot's word.
mod mark {
    /// The ring ends here: with a pointer, behind that entry; alone, before this slot.
    pub(super) const LAST: usize = 0b01;
    /// The chunk ends before this slot.
    pub(super) const SEALED: usize = 0b10;
    pub(super) const ALL: usize = 0b11;
}

pub(super) struct Slot<T> {
    word: AtomicPtr<()>,
    entry: PhantomData<T>,
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

impl<T: Entry> Slot<T> {
    pub(super) fn new() -> Self {
        Self { word: AtomicPtr::new(core::ptr::null_mut()), entry: PhantomData }
    }

    /// Puts `entry` here if the slot is empty, otherwise gives it back with what stands here.
    #[inline]
    pub(super) fn fill(&self, entry: T, last: bool) -> Result<(), (T, State<'_, T>)> {
        let raw = entry.into_raw();
        debug_assert_eq!(raw.addr() & mark::ALL, 0);
        let word = if last { raw.map_addr(|address| address | mark::LAST) } else { raw };
        self.settle(word).map_err(|found| {
            // SAFETY: `raw` is from `into_raw` above and did not enter the slot, so this is its only handle.
            let entry = unsafe { T::from_raw(raw) };
            (entry, found)
        })
    }

    /// Ends the chunk before this slot. `Err` tells what stands here already.
    pub(super) fn seal(&self) -> Result<(), State<'_, T>> {
        self.settle(core::ptr::without_provenance_mut(mark::SEALED))
    }

    /// Ends the ring before this slot. `Err` tells what stands here already.
    pub(super) fn close(&self) -> Result<(), State<'_, T>> {
        self.settle(core::ptr::without_provenance_mut(mark::LAST))
    }

    #[inline]
    fn settle(&self, word: *mut ()) -> Result<(), State<'_, T>> {
        // AcqRel: Release publishes the entry's bytes, and pairs with the Acquire in `read`. Acquire on the way
        // out of a failure lets the caller look at the entry that won.
        match self.word.compare_exchange(core::ptr::null_mut(), word, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(found) => Err(Self::state_of(found)),
        }
    }

    /// What stands here now.
    #[inline]
    pub(super) fn read(&self) -> State<'_, T> {
        // Acquire: what the publisher wrote into the entry is visible. Pairs with the Release in `settle`.
        Self::state_of(self.word.load(Ordering::Acquire))
    }

    /// Whether an entry stands here.
    #[inline]
    pub(super) fn is_entry(&self) -> bool {
        matches!(self.read(), State::Entry { .. })
    }

    #[inline]
    fn state_of<'a>(word: *mut ()) -> State<'a, T> {
        if word.is_null() {
            return State::Empty;
        }
        let marks = word.addr() & mark::ALL;
        let raw = word.map_addr(|address| address & !mark::ALL);
        if raw.is_null() {
            return if marks & mark::SEALED != 0 { State::Sealed } else { State::Closed };
        }
        // SAFETY: a word with a pointer in it was stored by `fill` and never changes again; the entry lives
        // until the chunk is dropped, which the borrow of the slot prevents. `ManuallyDrop` keeps this handle
        // from being the one that is dropped.
        let entry = ManuallyDrop::new(unsafe { T::from_raw(raw) });
        State::Entry { entry: Ref { entry, slot: PhantomData }, last: marks & mark::LAST != 0 }
    }
}

impl<T> Slot<T> {
    /// Drops the entry that stands here, if one does. Called once, by the drop of the chunk.
    pub(super) fn clear(&mut self)
    where
        T: Entry,
    {
        // Relaxed: `&mut self` says that nobody else can reach the slot.
        let raw = self.word.load(Ordering::Relaxed).map_addr(|address| address & !mark::ALL);
        // Relaxed: as above.
        self.word.store(core::ptr::null_mut(), Ordering::Relaxed);
        if !raw.is_null() {
            // SAFETY: the pointer was stored by `fill`, and the word no longer holds it, so this is the one
            // handle of it that is dropped.
            drop(unsafe { T::from_raw(raw) });
        }
    }
}
