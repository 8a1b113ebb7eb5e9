//! The connections of one standalone stream, and which lineage was given which events.

use super::positions::Positions;
use crate::ring::Position;
use crate::sse::Log;
use crate::stream::Generation;

/// Changes of lineage that are remembered.
const MAX_HISTORY: usize = 32;

/// Which connections there are beside the holder, and which lineage was given what. Guarded by one lock for each
/// session.
#[derive(Debug, Default)]
pub struct Lines {
    /// How many lineages there were, if there was more than one.
    pub(super) lineages: u32,
    /// All connections, the newest last, if there is more than one.
    pub(super) connections: Vec<Line>,
    /// Who was given what, the latest last. Empty: all of it was given to the first lineage.
    history: Vec<Given>,
}

/// One of several connections.
#[derive(Debug)]
pub(super) struct Line {
    /// The generation by which its listener knows itself.
    pub(super) generation: Generation,
    pub(super) lineage: u32,
    /// Publishers may wait for it while it holds the stream.
    pub(super) awaited: bool,
    /// The generation as which it holds the stream, until its listener has taken notice.
    pub(super) promoted: Option<Generation>,
    /// It shall end, and its client come back.
    pub(super) hung_up: bool,
    /// The session ended.
    pub(super) ended: bool,
}

impl Line {
    /// The generation that the lease word has while this connection holds the stream.
    pub(super) fn holds_as(&self) -> Generation {
        self.promoted.unwrap_or(self.generation)
    }
}

/// From here on, until the next, events were given to this lineage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    lineage: u32,
    behind: Positions,
}

/// A run of positions to be replayed: those behind `behind` up to `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) behind: Position,
    pub(super) until: Position,
    /// Whether these events may be replayed. Otherwise it is not known any more whom they were given to, and they are
    /// reported as missed.
    pub(super) is_known: bool,
}

impl Lines {
    /// Whether it remembers nothing, and need not be kept.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.lineages == 0 && self.connections.is_empty() && self.history.is_empty()
    }

    /// Notes that the session ended: connections that stand by end as well.
    pub(in crate::session) fn end_all(&mut self) {
        self.connections.iter_mut().for_each(|line| line.ended = true);
    }

    pub(super) fn current_lineage(&self) -> u32 {
        self.history.last().map_or(1, |given| given.lineage)
    }

    /// Notes that from `behind` on events are given to `lineage`.
    pub(super) fn give(&mut self, lineage: u32, behind: Positions) {
        while let Some(last) = self.history.last() {
            if last.lineage == lineage {
                return;
            }
            if last.behind != behind {
                break;
            }
            // It was given nothing.
            self.history.pop();
        }
        if self.history.is_empty() {
            if lineage == 1 {
                return;
            }
            self.history.push(Given { lineage: 1, behind: Positions::default() });
        }
        self.history.push(Given { lineage, behind });
        if self.history.len() > MAX_HISTORY {
            self.history.remove(0);
        }
    }

    /// What of `log` behind `after`, up to `until`, was given to `lineage`.
    pub(super) fn runs(&self, log: Log, lineage: u32, after: Position, until: Position) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut push = |behind: Position, until: Position, is_known| {
            if behind < until {
                runs.push(Run { behind, until, is_known });
            }
        };
        let Some(first) = self.history.first() else {
            push(after, until, true);
            return runs;
        };
        push(after, until.min(first.behind.of(log)), false);
        for (index, given) in self.history.iter().enumerate() {
            if given.lineage == lineage {
                let end = self.history.get(index + 1).map_or(until, |next| next.behind.of(log));
                push(after.max(given.behind.of(log)), end.min(until), true);
            }
        }
        runs
    }

    pub(super) fn position_of(&self, generation: Generation) -> Option<usize> {
        self.connections.iter().position(|line| line.generation == generation)
    }

    /// Whether a connection knows itself by this number, or is to. One that stands by keeps its own while very many
    /// others come and go.
    pub(super) fn is_taken(&self, generation: Generation) -> bool {
        self.connections.iter().any(|line| line.generation == generation || line.promoted == Some(generation))
    }
}

/// Gives access to the lines of one session.
pub trait LockLines {
    /// Calls `act` with the lines, while nobody else has them.
    fn with_lines<R>(&self, act: impl FnOnce(&mut Lines) -> R) -> R;
}
