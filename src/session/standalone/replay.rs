//! Delivering again what a lineage was given before.

use super::lines::{Lines, Run};
use super::positions::{Positions, Resume};
use crate::ring::{Batch, Cursor, Position, Ring, Step};
use crate::sse::{Frame, Log};
use crate::stream::{MAX_BYTES, MAX_FRAMES};

/// What a listener does next.
#[derive(Debug)]
pub enum Heard {
    /// Write these.
    Events {
        /// The frames.
        frames: Batch<Frame>,
        /// The log they are from.
        log: Log,
        /// The position of the other log, for their IDs.
        other: Position,
    },
    /// Tell the client that it missed events.
    Missed {
        /// How many.
        missed: u64,
        /// The log they were in.
        log: Log,
        /// Where the client goes on behind.
        at: Positions,
        /// Whether the connection ends here, by [`LagPolicy::End`](crate::stream::LagPolicy::End).
        ends: bool,
    },
    /// End: a later connection of the same client took over, or there are too many.
    Superseded,
    /// End, and the client shall come back.
    HungUp,
    /// End: the session ended.
    Ended,
}

/// What was given to the lineage before, behind where the client goes on.
pub(super) struct Replay {
    /// The latest first.
    own: Vec<Run>,
    broadcast: Vec<Run>,
    /// How far the client is.
    pub(super) at: Positions,
    /// Where it is when everything was replayed.
    end: Positions,
}

impl Replay {
    /// `None` if there is nothing to replay.
    pub(super) fn new(lines: &Lines, resume: Resume, end: Positions) -> Option<Self> {
        let Resume { lineage, after } = resume;
        let runs = |log| {
            let mut runs = lines.runs(log, lineage, after.of(log), end.of(log));
            runs.reverse();
            runs
        };
        let (own, broadcast) = (runs(Log::Own), runs(Log::Broadcast));
        // Positions of other lineages in between are passed over even where nothing of its own follows.
        let is_needed = !own.is_empty() || !broadcast.is_empty();
        is_needed.then_some(Self { own, broadcast, at: after, end })
    }

    /// The next of what is replayed; `None` at its end.
    pub(super) fn next(&mut self, own: &Ring<Frame>, broadcasts: &Ring<Frame>) -> Option<Heard> {
        loop {
            let (log, ring, runs) = match (self.own.is_empty(), self.broadcast.is_empty()) {
                (false, _) => (Log::Own, own, &mut self.own),
                (true, false) => (Log::Broadcast, broadcasts, &mut self.broadcast),
                (true, true) => return None,
            };
            let other = match log {
                Log::Own => self.at.broadcast,
                Log::Broadcast => self.at.own,
            };
            let run = runs.last_mut()?;
            let left = run.until - run.behind;
            let mut cursor = Cursor::at(run.behind + 1);
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(MAX_FRAMES);
            let (heard, behind) = if run.is_known {
                match cursor.take(ring, most, MAX_BYTES) {
                    Step::Item(frames) => (Some(Heard::Events { frames, log, other }), cursor.position() - 1),
                    Step::Lagged { missed } => {
                        let missed = missed.min(left);
                        (Some(Heard::Missed { missed, log, at: self.at, ends: false }), run.behind + missed)
                    }
                    // What was delivered was published, so this is the end of a ring that was closed meanwhile.
                    Step::Empty | Step::Ended => (None, run.until),
                }
            } else {
                (Some(Heard::Missed { missed: left, log, at: self.at, ends: false }), run.until)
            };
            run.behind = behind;
            self.at.set(log, behind);
            if behind >= run.until {
                runs.pop();
                if runs.is_empty() {
                    // What other lineages were given behind the last run is passed over.
                    self.at.set(log, self.end.of(log));
                }
            }
            match heard {
                Some(Heard::Missed { missed, log, ends, .. }) => {
                    // The ID of the signal is that of the last event missed.
                    let mut at = self.at;
                    at.set(log, behind);
                    return Some(Heard::Missed { missed, log, at, ends });
                }
                Some(heard) => return Some(heard),
                None => {}
            }
        }
    }
}
