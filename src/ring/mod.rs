//! A bounded, lock-free log of the latest entries, with many publishers and any number of cursors.
//!
//! A ring numbers what is published to it 1, 2, 3 … and keeps the newest of it. A [`Cursor`] is a position and
//! nothing else: what was published before it subscribed and what comes later are the same read at different
//! positions, so between a snapshot and the live entries there is no seam to lose one in. The stream module
//! calls this one; it knows nothing of bytes, of waiting or of HTTP.
//!
//! # Algorithm
//!
//! ```text
//!   oldest                                tail
//!     |                                     |
//!   [1 2 3 4] -> [5 6 … 20] -> … -> [n … n+k _ _ _]       chunks of slots, linked in order
//!                    ^
//!                  cursor: a chunk and a position
//! ```
//!
//! - *Publish*: from the tail chunk's hint on, put the entry into the first empty slot by one
//!   compare-and-swap. That step is the claim of the position, the place in the order and the publication all
//!   at once: a claimed slot that is not yet written cannot exist, so no publisher ever waits for another. A
//!   lost race tells the entry its next position and tries the next slot. A full chunk: link a new one, help
//!   the tail along, then let old chunks go.
//! - *Read*: one load of the slot under the cursor. At the end of a chunk, hop to the next; if the chunk was
//!   evicted meanwhile, look the position up: in the tail chunk, or else from the oldest chunk on.
//! - *Evict*: move `oldest` one chunk on by compare-and-swap, and give up the ring's count of the chunk passed
//!   over once nobody pinned can still see it ([`chunk`](self) explains when).
//! - *Finish*: the last entry carries a mark in its slot, so publishing the last entry and closing the ring are
//!   one step; [`close`](Ring::close) puts the same mark into an empty slot. The marked chunk is the tail for
//!   ever, and the tail is never evicted: this is how a final response outlives whatever came before it.
//!
//! # Lag and closing
//!
//! A cursor below the oldest position gets [`Step::Lagged`] once, with the number of entries it missed, and
//! goes on at the oldest. One beyond the tail gets [`Step::Empty`] until its position is published. Behind the last
//! entry it gets [`Step::Ended`]; publishing then fails with [`Closed`].
//!
//! A cursor or a batch may outlive its ring: it keeps the chunks that it stands on. A ring whose chunks nobody else
//! holds is freed when it is dropped, unless its first chunk was evicted before; otherwise the rest is freed by the
//! epoch.
//!
//! # Progress
//!
//! Publishing is lock-free: a failed compare-and-swap means that somebody else published. Reading inside a
//! chunk is wait-free; a hop is wait-free. A look-up near the tail takes one step, others a step per retained chunk.
//! No reader delays a publisher, and no publisher that stops half-way delays anybody.
//!
//! # Memory use
//!
//! An empty ring is two null pointers. A chunk is 48 bytes and 8 a slot: the first has 4 slots, later ones 16.
//! What is retained: from the capacity up to the capacity and one chunk more, or fewer if the byte limit says
//! so. A stalled reader keeps the chunk it stands on, and not the chain behind it.
//!
//! # Trade-offs
//!
//! A mutex around a queue publishes as fast when nobody contends. What this buys is on the other side: reads by
//! reference at a few nanoseconds, no reader that stops a publisher, and replay that is the same read. Retired
//! chunks are freed by the epoch, a moment late; [`collect`] brings that moment nearer on an idle process.

mod chunk;
mod cursor;
mod position;
mod slot;
mod writer;

pub(crate) use cursor::Pending;
pub use cursor::{Batch, Cursor, Step};
pub use position::{FIRST, Position};
pub use slot::{Entry, Ref};
pub use writer::Closed;

use core::fmt;

use crate::sync::epoch;
use chunk::Link;

/// How much a ring retains. All limits hold at once; whichever is reached first evicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries to keep, at least; up to one chunk (16) more may be kept. Default 1,024.
    pub capacity: usize,
    /// Weight to keep, at most, as [`Entry::weight`] counts it, not counting the chunk being written, which is
    /// cut short at a quarter of this. Default 1 MiB.
    pub max_weight: u64,
    /// Milliseconds after which an entry goes: when a later one needs a new chunk, or when
    /// [`Ring::evict_older`] is called. Default 5 minutes.
    pub max_age_ms: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { capacity: 1024, max_weight: 1 << 20, max_age_ms: 5 * 60 * 1000 }
    }
}

/// A bounded log of the latest entries. See the module documentation.
pub struct Ring<T: Entry> {
    oldest: Link<T>,
    tail: Link<T>,
}

impl<T: Entry> Ring<T> {
    /// Makes an empty ring, which owns no memory until something is published.
    #[must_use]
    pub fn new() -> Self {
        Self { oldest: Link::null(), tail: Link::null() }
    }

    /// The lowest position still retained, or the next to be published if nothing is. Another thread may
    /// evict it between this call and the next.
    #[must_use]
    pub fn oldest(&self) -> Position {
        let guard = epoch::pin();
        self.oldest.load(&guard).map_or(FIRST, |chunk| chunk.base)
    }

    /// The next position to be published. Another thread may publish it between this call and the next.
    #[must_use]
    pub fn tail(&self) -> Position {
        let guard = epoch::pin();
        let Some(mut chunk) = self.tail.load(&guard).or_else(|| self.oldest.load(&guard)) else {
            return FIRST;
        };
        while let Some(next) = chunk.next() {
            chunk = next;
        }
        // Read once: it may move on meanwhile, and what lies before it would count twice.
        let hint = chunk.hint().min(chunk.slots().len());
        let filled = chunk.slots()[hint..].iter().take_while(|slot| slot.is_entry()).count();
        chunk.base + (hint + filled) as u64
    }

    /// Whether nothing was ever published and the ring is not closed.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.oldest.is_null()
    }
}

impl<T: Entry> Default for Ring<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Entry> Drop for Ring<T> {
    fn drop(&mut self) {
        self.oldest.release_all();
    }
}

impl<T: Entry> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("oldest", &self.oldest()).field("tail", &self.tail()).finish()
    }
}

/// Helps the reclamation of evicted chunks along. A process that publishes all the time need not call it; one
/// that falls idle calls it now and then, so that the last evicted chunks do not wait for the next publish.
pub fn collect() {
    epoch::pin().flush();
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests;
