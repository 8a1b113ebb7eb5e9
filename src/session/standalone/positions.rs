//! Where clients are in the two logs.

use crate::ring::{FIRST, Position};
use crate::sse::Log;

/// A position in each of the two logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Of the latest event of the session's own.
    pub own: Position,
    /// Of the latest event for all sessions.
    pub broadcast: Position,
}

impl Positions {
    pub(super) fn of(self, log: Log) -> Position {
        match log {
            Log::Own => self.own,
            Log::Broadcast => self.broadcast,
        }
    }

    pub(super) fn set(&mut self, log: Log, position: Position) {
        match log {
            Log::Own => self.own = position,
            Log::Broadcast => self.broadcast = position,
        }
    }
}

/// Where a client goes on.
#[derive(Clone, Copy, Debug)]
pub struct Resume {
    /// The lineage in its event ID.
    pub lineage: u32,
    /// The positions in it.
    pub after: Positions,
}

/// The event ID names a lineage or a position that was never given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeverGiven;

/// Positions begin at 1, so that 0 can stand for "before the first".
const _: () = assert!(FIRST == 1);
