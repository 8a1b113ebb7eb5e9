//! Who sessions belong to: names from outside, and the numbers by which sessions know them.
//!
//! A session that belongs to somebody compares one number for each request. [`Principals`] gives a principal its
//! number, and the same number for as long as anybody holds it: a session of that principal, or a request on its
//! way. When the last of them is gone the name is forgotten, and a later request gets a new number.
//!
//! A number stands for one principal and is never given out again, so two principals never share one. A hash of
//! the name would share one now and then, however well it is keyed, and what is shared would be a session.
//!
//! # Memory use
//!
//! The two texts, about 150 bytes beside them, once for each principal that has a session. The session itself holds
//! a pointer where it would hold the number.

use core::fmt;
use core::hash::{Hash, Hasher};

use scc::HashMap;

use crate::sync::{Arc, AtomicU64, Ordering, Weak};

/// Somebody, by a name that means one and the same for ever: who vouches, and whom it means there.
///
/// Cheap to clone. `Debug` does not show the name.
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

    /// The number that stands for the principal; 0 is anybody.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.0.as_ref().map_or(0, |known| known.number)
    }

    /// The principal; `None` is anybody.
    #[must_use]
    pub fn principal(&self) -> Option<&Principal> {
        self.0.as_ref().map(|known| &known.principal)
    }
}

/// The one known under a number; 0 is anybody. For edges and tests that keep names and numbers themselves, and do
/// not call [`Principals::hold`] beside it.
impl From<u64> for Holder {
    fn from(number: u64) -> Self {
        let principal = || Principal::new("", number.to_string());
        Self((number != 0).then(|| Arc::new(Known { number, principal: principal(), table: Weak::new() })))
    }
}

/// A principal and its number.
struct Known {
    number: u64,
    principal: Principal,
    table: Weak<Table>,
}

impl Drop for Known {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            // Unless somebody else of that name came in the meantime and has a number of their own.
            table.known.remove_if_sync(&self.principal, |(number, _)| *number == self.number);
        }
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").finish_non_exhaustive()
    }
}

/// The principals that hold a session, or are about to.
#[derive(Clone, Default)]
pub struct Principals(Arc<Table>);

#[derive(Default)]
struct Table {
    known: HashMap<Principal, (u64, Weak<Known>)>,
    given_out: AtomicU64,
}

impl Principals {
    /// Holds on to `principal`: the number stays while what is returned, or a session made with it, is there.
    ///
    /// Locks one of many buckets for as long as it takes to compare a name.
    #[must_use]
    pub fn hold(&self, principal: &Principal) -> Holder {
        let found = self.0.known.read_sync(principal, |_, (_, known)| known.upgrade());
        Holder(Some(found.flatten().unwrap_or_else(|| self.meet(principal))))
    }

    fn meet(&self, principal: &Principal) -> Arc<Known> {
        let mut entry = self.0.known.entry_sync(principal.clone()).or_default();
        // Somebody else may have met the same one just now.
        if let Some(known) = entry.1.upgrade() {
            return known;
        }
        // Relaxed: each number is given out once, in whatever order. 0 means anybody.
        let number = self.0.given_out.fetch_add(1, Ordering::Relaxed) + 1;
        let table = Arc::downgrade(&self.0);
        let known = Arc::new(Known { number, principal: principal.clone(), table });
        *entry = (number, Arc::downgrade(&known));
        known
    }

    /// How many principals are held at the moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.known.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.known.is_empty()
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
        let principals = Principals::default();
        let ada = || Principal::new("https://issuer.example", "ada");
        let first = principals.hold(&ada());
        assert_eq!(principals.hold(&ada()).number(), first.number());
        for other in [
            Principal::new("https://issuer.example", "bob"),
            Principal::new("https://other.example", "ada"),
            Principal::new("https://issuer.exampleada", ""),
            Principal::new("", "https://issuer.exampleada"),
        ] {
            assert_ne!(principals.hold(&other).number(), first.number());
        }
        assert_eq!(first.principal(), Some(&ada()));
        assert_eq!(principals.len(), 1);
        let number = first.number();
        drop(first);
        assert!(principals.is_empty());
        assert_ne!(principals.hold(&ada()).number(), number);
        assert_eq!(Holder::anybody().number(), 0);
    }

    #[test]
    fn threads_that_meet_the_same_principal_get_the_same_number() {
        let principals = Principals::default();
        let held = principals.hold(&Principal::new("i", "kept"));
        let rounds = if cfg!(miri) { 20 } else { 20_000 };
        let at_once = |name: &'static str, expected: Option<u64>| {
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        for _ in 0..rounds {
                            let one = principals.hold(&Principal::new("i", name));
                            let two = principals.hold(&Principal::new("i", name));
                            assert_eq!(one.number(), two.number());
                            assert!(expected.is_none_or(|expected| expected == one.number()));
                        }
                    });
                }
            });
        };
        at_once("kept", Some(held.number()));
        at_once("fleeting", None);
        drop(held);
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
