//! Who sessions belong to: names from outside, and the numbers by which sessions know them.
//!
//! A session that belongs to somebody compares one number for each request. [`Principals`] gives a principal its
//! number, and the same number for as long as anybody holds it, a session of that principal or a request on its way,
//! and for [`Principals::LINGER_MS`] after the last of them is gone: limits that go by the number are not reset by
//! ending a session. Then the name is forgotten, and a later request gets a new number.
//!
//! A number stands for one principal and is never given to another, so two principals never share one. A hash of the
//! name would share one now and then, however well it is keyed, and what is shared would be a session.
//!
//! # Memory use
//!
//! The two texts, about 200 bytes beside them, once for each principal that has a session or had one lately; of the
//! latter [`Principals::MAX_LINGERING`] at most. The session itself holds a pointer where it would hold the number.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::num::NonZeroU64;
use std::collections::VecDeque;

use scc::HashMap;

use crate::stream::{Clock, Moment};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, Weak, lock};

/// Somebody, by a name that means one and the same for ever: who vouches, and whom it means there.
///
/// Cheap to clone. `Debug` does not show the name.
///
/// # Examples
///
/// ```
/// use ringmain::session::Principal;
///
/// let ada = Principal::new("https://issuer.example", "ada");
/// assert_eq!((ada.issuer(), ada.subject()), ("https://issuer.example", "ada"));
/// assert_ne!(ada, Principal::new("https://another.example", "ada"));
/// ```
#[derive(Clone, Eq)]
pub struct Principal(Arc<Name>);

#[derive(PartialEq, Eq, Hash)]
struct Name {
    issuer: Box<str>,
    subject: Box<str>,
}

impl Principal {
    /// Names whoever `issuer` calls `subject`. The same subject of another issuer is somebody else.
    pub fn new(issuer: impl Into<Box<str>>, subject: impl Into<Box<str>>) -> Self {
        Self(Arc::new(Name { issuer: issuer.into(), subject: subject.into() }))
    }

    /// Who vouches for the name.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// The name.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.0.subject
    }
}

impl PartialEq for Principal {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Hash for Principal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal").finish_non_exhaustive()
    }
}

/// The number by which sessions know a principal.
///
/// It stands for one principal and is never given to another. It is the same for as long as the principal has a
/// session, and for 10 minutes after that; a later session of the same principal gets another. So it tells sessions of
/// one principal from those of others, and is no key under which to store anything: for that there is
/// [`Session::principal`].
///
/// [`Session::principal`]: super::Session::principal
///
/// # Examples
///
/// ```
/// # use ringmain::session::{Sessions, Settings};
/// # use ringmain::topic::Clock;
/// # let sessions = Sessions::new(Settings::default(), Clock::default());
/// # let [one, other] = [1, 2].map(|number| sessions.create(ringmain::session::PrincipalId::new(number)));
/// assert_ne!(one.principal_id(), other.principal_id());
/// # assert!(one.principal_id().is_some());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrincipalId(NonZeroU64);

impl PrincipalId {
    /// Makes the ID of a number other than 0.
    #[doc(hidden)]
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }
}

/// Whom a session belongs to, for as long as this is held.
///
/// Made by [`Principals::hold`]; [`anybody`](Self::anybody) is the default.
#[derive(Clone, Debug, Default)]
pub struct Holder(Option<Arc<Known>>);

impl Holder {
    /// Whoever knows the session's ID.
    #[must_use]
    pub const fn anybody() -> Self {
        Self(None)
    }

    /// The number that stands for the principal; `None` is anybody.
    #[must_use]
    pub fn id(&self) -> Option<PrincipalId> {
        self.0.as_ref().map(|known| known.id)
    }

    /// The principal; `None` is anybody.
    #[must_use]
    pub fn principal(&self) -> Option<&Principal> {
        self.0.as_ref().map(|known| &known.principal)
    }
}

/// The one known under a number; `None` is anybody. For tests that keep names and numbers themselves, and do not call
/// [`Principals::hold`] beside it.
impl From<Option<PrincipalId>> for Holder {
    fn from(id: Option<PrincipalId>) -> Self {
        let known = |id: PrincipalId| Known {
            id,
            principal: Principal::new("", id.0.to_string()),
            table: Weak::new(),
        };
        Self(id.map(|id| Arc::new(known(id))))
    }
}

/// A principal and its number.
struct Known {
    id: PrincipalId,
    principal: Principal,
    table: Weak<Table>,
}

impl Drop for Known {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            table.linger(&self.principal);
        }
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").finish_non_exhaustive()
    }
}

/// The principals that hold a session, are about to, or did lately.
#[derive(Clone, Default)]
pub struct Principals(Arc<Table>);

#[derive(Default)]
struct Table {
    entries: HashMap<Principal, Row>,
    given_out: AtomicU64,
    clock: Clock,
    /// Those that nobody held at the time; the first to be let go of first. Never locked together with an entry.
    lingering: Mutex<VecDeque<(Principal, Moment)>>,
}

#[derive(Default)]
struct Row {
    id: Option<PrincipalId>,
    known: Weak<Known>,
    /// It is among the lingering.
    lingers: bool,
}

impl Principals {
    /// Milliseconds for which a principal keeps its number that nobody holds: 10 minutes.
    pub const LINGER_MS: u64 = 10 * 60 * 1000;
    /// How many principals keep their numbers that nobody holds. Beyond that the first to be let go of are forgotten.
    pub const MAX_LINGERING: usize = 1 << 16;

    /// Makes an empty table that goes by `clock`.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Table { clock, ..Table::default() }))
    }

    /// Holds on to `principal`: the number stays while what is returned, or a session made with it, is there.
    ///
    /// Locks one of many buckets for as long as it takes to compare a name.
    #[must_use]
    pub fn hold(&self, principal: &Principal) -> Holder {
        let found = self.0.entries.read_sync(principal, |_, entry| entry.known.upgrade());
        Holder(Some(found.flatten().unwrap_or_else(|| self.meet(principal))))
    }

    fn meet(&self, principal: &Principal) -> Arc<Known> {
        let mut entry = self.0.entries.entry_sync(principal.clone()).or_default();
        // Somebody else may have met the same one just now.
        if let Some(known) = entry.known.upgrade() {
            return known;
        }
        // Relaxed: each number is given out once, in whatever order.
        let next =
            || PrincipalId(NonZeroU64::MIN.saturating_add(self.0.given_out.fetch_add(1, Ordering::Relaxed)));
        let id = *entry.id.get_or_insert_with(next);
        let (principal, table) = (principal.clone(), Arc::downgrade(&self.0));
        let known = Arc::new(Known { id, principal, table });
        entry.known = Arc::downgrade(&known);
        known
    }

    /// Forgets those whom nobody has held for [`LINGER_MS`](Self::LINGER_MS).
    pub fn forget(&self) {
        let now = self.0.clock.now();
        self.0.forget(|_, since| now.since(since) >= Self::LINGER_MS);
    }

    /// How many principals have a number at the moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.entries.len()
    }

    /// Whether none has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.entries.is_empty()
    }
}

impl Table {
    /// Notes that nobody holds `principal` any more.
    fn linger(&self, principal: &Principal) {
        let is_new =
            self.entries.update_sync(principal, |_, entry| !std::mem::replace(&mut entry.lingers, true));
        if is_new == Some(true) {
            lock(&self.lingering).push_back((principal.clone(), self.clock.now()));
            self.forget(|count, _| count > Principals::MAX_LINGERING);
        }
    }

    /// Forgets the first that linger while `is_time`, which is given how many there are and since when the first is.
    fn forget(&self, is_time: impl Fn(usize, Moment) -> bool) {
        loop {
            let mut lingering = lock(&self.lingering);
            let count = lingering.len();
            if !lingering.front().is_some_and(|(_, since)| is_time(count, *since)) {
                return;
            }
            let Some((principal, _)) = lingering.pop_front() else { return };
            drop(lingering);
            // Whoever is held again lingers anew when that is over.
            let _ = self.entries.update_sync(&principal, |_, entry| entry.lingers = false);
            self.entries
                .remove_if_sync(&principal, |entry| !entry.lingers && entry.known.strong_count() == 0);
        }
    }
}

impl fmt::Debug for Principals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principals").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_principal_keeps_its_number_while_it_is_held_and_no_other_gets_it() {
        let clock = Clock::default();
        let principals = Principals::new(clock.clone());
        let ada = || Principal::new("https://issuer.example", "ada");
        let first = principals.hold(&ada());
        assert_eq!(principals.hold(&ada()).id(), first.id());
        for other in [
            Principal::new("https://issuer.example", "bob"),
            Principal::new("https://other.example", "ada"),
            Principal::new("https://issuer.exampleada", ""),
            Principal::new("", "https://issuer.exampleada"),
        ] {
            assert_ne!(principals.hold(&other).id(), first.id());
        }
        assert_eq!(first.principal(), Some(&ada()));
        let number = first.id();
        drop(first);
        // A little later it is the same one again.
        clock.advance(Moment(Principals::LINGER_MS - 1));
        principals.forget();
        assert_eq!(principals.hold(&ada()).id(), number);
        let held = principals.hold(&ada());
        clock.advance(Moment(5 * Principals::LINGER_MS));
        principals.forget();
        assert_eq!((principals.len(), held.id()), (1, number));
        drop(held);
        principals.forget();
        assert_eq!(principals.len(), 1);
        clock.advance(Moment(6 * Principals::LINGER_MS));
        principals.forget();
        assert!(principals.is_empty());
        assert_ne!(principals.hold(&ada()).id(), number);
        assert_eq!(Holder::anybody().id(), None);
    }

    #[test]
    fn no_more_than_so_many_linger() {
        let principals = Principals::default();
        let count = Principals::MAX_LINGERING + 100;
        let held = principals.hold(&Principal::new("i", "0"));
        (1..count).for_each(|name| drop(principals.hold(&Principal::new("i", name.to_string()))));
        assert_eq!(principals.len(), Principals::MAX_LINGERING + 1);
        assert_eq!(principals.hold(&Principal::new("i", "0")).id(), held.id());
        assert_eq!(
            principals.hold(&Principal::new("i", (count - 1).to_string())).id(),
            PrincipalId::new(count as u64)
        );
    }

    #[test]
    fn threads_that_meet_the_same_principal_get_the_same_number() {
        let principals = Principals::default();
        let held = principals.hold(&Principal::new("i", "kept"));
        let rounds = if cfg!(miri) { 20 } else { 20_000 };
        let at_once = |name: &'static str, expected: Option<PrincipalId>| {
            std::thread::scope(|scope| {
                let meet = || {
                    for _ in 0..rounds {
                        let one = principals.hold(&Principal::new("i", name));
                        let two = principals.hold(&Principal::new("i", name));
                        assert_eq!(one.id(), two.id());
                        assert!(expected.is_none() || expected == one.id());
                    }
                };
                // Joined by hand: the thread sanitizer does not see how a scope waits.
                let threads = [(); 3].map(|()| scope.spawn(meet));
                threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
            });
        };
        at_once("kept", held.id());
        at_once("fleeting", None);
        drop(held);
        assert_eq!(principals.len(), 2);
        principals.0.clock.advance(Moment(Principals::LINGER_MS));
        principals.forget();
        assert!(principals.is_empty());
    }

    #[test]
    fn names_are_not_shown() {
        let principals = Principals::default();
        let principal = Principal::new("secretissuer", "secretsubject");
        let text = format!("{principal:?} {:?} {principals:?}", principals.hold(&principal));
        assert!(!text.contains("secret"), "{text}");
    }
}
