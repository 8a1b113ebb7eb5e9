//! Which connection a stream belongs to, and how far it was delivered: one word.

use core::fmt;

use crate::ring::Position;
use crate::sync::{AtomicU64, Ordering};

/// Number of a connection of a stream. Goes up by one with each attach, and wraps after [`GENERATIONS`].
pub type Generation = u32;

/// How many generations there are before one comes again. A holder would have to sleep through so many
/// successors, each of which wakes it, to mistake one for itself. Those that stand by for longer are passed over
/// (`Lease::attach_beside`).
pub const GENERATIONS: u32 = 1 << GENERATION_BITS;

const GENERATION_BITS: u32 = 20;
const DELIVERED_BITS: u32 = 41;
const DELIVERED_MASK: u64 = (1 << DELIVERED_BITS) - 1;
const ATTACHED: u64 = 1 << DELIVERED_BITS;
const HANG_UP: u64 = 1 << (DELIVERED_BITS + 1);
const AWAITED: u64 = 1 << (DELIVERED_BITS + 2);
const GENERATION_SHIFT: u32 = DELIVERED_BITS + 3;

/// What a lease says at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Terms(u64);

impl Terms {
    /// The latest connection's number; 0 before the first.
    #[must_use]
    pub fn generation(self) -> Generation {
        (self.0 >> GENERATION_SHIFT) as u32
    }

    /// Whether that connection is still there.
    #[must_use]
    pub fn is_attached(self) -> bool {
        self.0 & ATTACHED != 0
    }

    /// Whether that connection was asked to end after what is published.
    #[must_use]
    pub fn is_hung_up(self) -> bool {
        self.0 & HANG_UP != 0
    }

    /// Whether publishers may wait for that connection to make space: it wakes them when it does.
    #[must_use]
    pub fn is_awaited(self) -> bool {
        self.0 & AWAITED != 0
    }

    /// The last position handed to a connection; 0 is none.
    #[must_use]
    pub fn delivered(self) -> Position {
        self.0 & DELIVERED_MASK
    }

    fn attached(self, delivered: Position, awaited: bool, is_taken: impl Fn(Generation) -> bool) -> Self {
        // 0 stays the mark of a stream that no connection ever had.
        let next = |generation: Generation| ((generation + 1) % GENERATIONS).max(1);
        let mut generation = next(self.generation());
        while is_taken(generation) {
            generation = next(generation);
        }
        let marks = if awaited { ATTACHED | AWAITED } else { ATTACHED };
        Self(u64::from(generation) << GENERATION_SHIFT | marks | delivered & DELIVERED_MASK)
    }

    fn adopted_by(self, generation: Generation) -> Self {
        Self(u64::from(generation) << GENERATION_SHIFT | ATTACHED | self.delivered())
    }

    fn with_delivered(self, delivered: Position) -> Self {
        Self(self.0 & !DELIVERED_MASK | delivered & DELIVERED_MASK)
    }
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("generation", &self.generation())
            .field("attached", &self.is_attached())
            .field("hung_up", &self.is_hung_up())
            .field("delivered", &self.delivered())
            .finish()
    }
}

/// The lease of a stream: which connection holds it, and how far it was delivered.
///
/// Only the latest connection may deliver, and it says so before it does: [`claim`](Self::claim) moves the
/// delivered position on if, and only if, the connection still holds the lease. So no event goes to two
/// connections, whatever races.
#[derive(Debug, Default)]
pub(crate) struct Lease(AtomicU64);

impl Lease {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Makes a lease that nobody holds, of a log of which everything up to `delivered` is of no concern.
    pub(crate) fn behind(delivered: Position) -> Self {
        Self(AtomicU64::new(delivered & DELIVERED_MASK))
    }

    #[inline]
    pub(crate) fn terms(&self) -> Terms {
        // Acquire: a holder that finds itself superseded sees what its successor did before. Pairs with the
        // AcqRel in `update`.
        Terms(self.0.load(Ordering::Acquire))
    }

    /// Hands the lease to a new connection, which starts behind `from`, or behind what was delivered;
    /// `awaited` says whether publishers may wait for it.
    pub(crate) fn attach(&self, from: Option<Position>, awaited: bool) -> Terms {
        self.update(|terms| Some(terms.attached(from.unwrap_or(terms.delivered()), awaited, |_| false)))
            .unwrap_or_else(|terms| terms)
    }

    /// The same, behind what was delivered, where other connections stand by: the new one gets a generation that
    /// is not taken. Some are free.
    pub(crate) fn attach_beside(&self, awaited: bool, is_taken: impl Fn(Generation) -> bool) -> Terms {
        self.update(|terms| Some(terms.attached(terms.delivered(), awaited, &is_taken)))
            .unwrap_or_else(|terms| terms)
    }

    /// Hands the lease to the connection `generation` of another lease that goes with this one. What was delivered
    /// stays.
    pub(crate) fn adopt(&self, generation: Generation) -> Terms {
        self.update(|terms| Some(terms.adopted_by(generation))).unwrap_or_else(|terms| terms)
    }

    /// Notes, for the holder `generation`, that everything up to `delivered` is its to deliver.
    #[inline]
    pub(crate) fn claim(&self, generation: Generation, delivered: Position) -> bool {
        self.update(|terms| (terms.generation() == generation).then(|| terms.with_delivered(delivered)))
            .is_ok()
    }

    /// Ends the hold of `generation`; nothing happens if it was superseded.
    pub(crate) fn release(&self, generation: Generation) -> bool {
        self.update(|terms| {
            (terms.generation() == generation && terms.is_attached())
                .then_some(Terms(terms.0 & !(ATTACHED | AWAITED | HANG_UP)))
        })
        .is_ok()
    }

    /// Asks the holder to end its connection. False if there is none.
    pub(crate) fn hang_up(&self) -> bool {
        self.update(|terms| terms.is_attached().then_some(Terms(terms.0 | HANG_UP))).is_ok()
    }

    fn update(&self, change: impl Fn(Terms) -> Option<Terms>) -> Result<Terms, Terms> {
        // Relaxed: a first guess; the exchange corrects it.
        let mut terms = Terms(self.0.load(Ordering::Relaxed));
        while let Some(changed) = change(terms) {
            // AcqRel: each change sees what the one before it did, in the order of this word. Pairs with itself
            // and with the Acquire in `terms`. Relaxed on failure: only the word itself is used.
            match self.0.compare_exchange_weak(terms.0, changed.0, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Ok(changed),
                Err(found) => terms = Terms(found),
            }
        }
        Err(terms)
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_holder_delivers() {
        let lease = Lease::new();
        let first = lease.attach(None, false);
        assert!(lease.claim(first.generation(), 3));
        let second = lease.attach(None, false);
        assert_eq!(second.delivered(), 3);
        assert!(!lease.claim(first.generation(), 4));
        assert!(!lease.release(first.generation()));
        assert!(lease.terms().is_attached());
        assert!(lease.claim(second.generation(), 4));
        assert!(lease.release(second.generation()));
        assert!(!lease.terms().is_attached());
        assert_eq!(lease.terms().delivered(), 4);
    }

    #[test]
    fn a_resume_says_where_it_starts() {
        let lease = Lease::new();
        let first = lease.attach(None, false);
        lease.claim(first.generation(), 9);
        assert_eq!(lease.attach(Some(4), false).delivered(), 4);
    }

    #[test]
    fn hanging_up_needs_a_holder_and_ends_with_it() {
        let lease = Lease::new();
        assert!(!lease.hang_up());
        let first = lease.attach(None, false);
        assert!(lease.hang_up() && lease.terms().is_hung_up());
        assert!(!lease.attach(None, false).is_hung_up());
        assert_eq!(lease.terms().generation(), first.generation() + 1);
    }

    #[test]
    fn generations_wrap_without_touching_the_rest() {
        let lease = Lease(AtomicU64::new(u64::from(GENERATIONS - 1) << GENERATION_SHIFT | 77));
        let terms = lease.attach(None, false);
        assert_eq!((terms.generation(), terms.delivered(), terms.is_attached()), (1, 77, true));
    }

    #[test]
    fn a_generation_that_is_taken_is_passed_over() {
        let lease = Lease(AtomicU64::new(u64::from(GENERATIONS - 2) << GENERATION_SHIFT | 77));
        let taken = [GENERATIONS - 1, 1, 2, 4];
        let terms = lease.attach_beside(false, |generation| taken.contains(&generation));
        assert_eq!((terms.generation(), terms.delivered(), terms.is_attached()), (3, 77, true));
        assert_eq!(lease.attach_beside(false, |generation| taken.contains(&generation)).generation(), 5);
    }
}
