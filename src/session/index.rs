//! From the ID of a session to the session, without a lock.

use core::hash::{BuildHasher, Hasher};

use scc::HashIndex;

use super::state::Session;
use crate::protocol::SessionId;
use crate::sync::{Arc, Weak};

/// Finds a session by the low half of its ID. Reads take no lock. What is removed stays there until its place is
/// needed: a weak reference, so that a session that ended is not kept.
pub(super) struct Index(HashIndex<u64, Weak<Session>, Random>);

impl Index {
    pub(super) fn new() -> Self {
        Self(HashIndex::with_hasher(Random))
    }

    /// Adds a session. False if there is one with the same key.
    pub(super) fn insert(&self, session: &Arc<Session>) -> bool {
        self.0.insert_sync(key(session.id()), Arc::downgrade(session)).is_ok()
    }

    /// Finds a session that has not ended. Takes no lock.
    pub(super) fn find(&self, id: SessionId) -> Option<Arc<Session>> {
        let found = self.0.peek_with(&key(id), |_, session| session.upgrade()).flatten();
        found.filter(|session| session.id() == id && !session.is_closed())
    }

    pub(super) fn remove(&self, id: SessionId) {
        self.0.remove_sync(&key(id));
    }
}

/// The key of a session in the map.
fn key(id: SessionId) -> u64 {
    id.as_u128() as u64
}

/// Takes a random number for its hash. Only for IDs that this server drew: a client cannot choose one, so it cannot
/// choose a collision.
#[derive(Clone, Copy, Debug, Default)]
struct Random;

impl BuildHasher for Random {
    type Hasher = RandomHasher;

    fn build_hasher(&self) -> RandomHasher {
        RandomHasher(0)
    }
}

#[derive(Debug)]
struct RandomHasher(u64);

impl Hasher for RandomHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used for a `u64` key; correct all the same.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}
