//! Connections of a standalone stream that come and go.

use super::lines::{Line, Lines, LockLines};
use super::listener::Listener;
use super::positions::{NeverGiven, Positions, Resume};
use super::replay::Replay;
use super::stream::Standalone;
use crate::stream::LagPolicy;

/// What the end of a connection leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Detached {
    /// Nobody is connected any more.
    pub was_last: bool,
    /// Somebody waits for it: [`Standalone::wake`] is to be called.
    pub wakes: bool,
}

impl Standalone {
    /// Opens a connection, which holds the stream from now on. Up to `max_connections - 1` others of other lineages
    /// stand by. Returns whether nobody was connected before, too.
    ///
    /// Call [`wake`](Self::wake) once the listener has an owner that detaches it even if a waker panics: whoever held
    /// the stream has to look where it stands now.
    ///
    /// # Errors
    ///
    /// [`NeverGiven`] if `resume` names what no client of this session was given. Whether it names a message to all
    /// from before the session began is for the caller to check, who knows when that was.
    pub fn attach(
        &self,
        lines: &impl LockLines,
        resume: Option<Resume>,
        policy: LagPolicy,
        max_connections: usize,
    ) -> Result<(Listener, bool), NeverGiven> {
        lines.with_lines(|lines| self.attach_to(lines, resume, policy, max_connections))
    }

    fn attach_to(
        &self,
        lines: &mut Lines,
        resume: Option<Resume>,
        policy: LagPolicy,
        max_connections: usize,
    ) -> Result<(Listener, bool), NeverGiven> {
        let lease = self.stream.lease();
        let before = lease.terms();
        let lineages = lines.lineages.max(u32::from(before.generation() != 0));
        let lineage = match resume {
            Some(Resume { lineage, after }) => {
                let delivered = self.delivered();
                let is_given = (1..=lineages).contains(&lineage)
                    && after.own <= delivered.own
                    && after.broadcast <= delivered.broadcast;
                if !is_given {
                    return Err(NeverGiven);
                }
                lineage
            }
            // Lineages are counted in 32 bits: a client that comes a thousand times a second needs 49 days to use
            // them up. Then the last one is shared.
            None => lineages.saturating_add(1),
        };
        if before.is_attached() {
            let is_holder = |line: &&mut Line| line.holds_as() == before.generation();
            match lines.connections.iter_mut().find(is_holder) {
                Some(holder) => holder.hung_up |= before.is_hung_up(),
                None => lines.connections.push(Line {
                    generation: before.generation(),
                    lineage: lines.current_lineage(),
                    awaited: before.is_awaited(),
                    promoted: None,
                    hung_up: before.is_hung_up(),
                    ended: false,
                }),
            }
        }
        lines.connections.retain(|line| line.lineage != lineage);
        let surplus = (lines.connections.len() + 1).saturating_sub(max_connections.max(1));
        lines.connections.drain(..surplus);
        let awaited = policy == LagPolicy::Wait;
        let own = lease.attach_beside(awaited, |generation| lines.is_taken(generation));
        let generation = own.generation();
        let behind =
            Positions { own: own.delivered(), broadcast: self.broadcasts.adopt(generation).delivered() };
        if lineage > 1 {
            lines.lineages = lines.lineages.max(lineage);
        }
        lines.give(lineage, behind);
        if !lines.connections.is_empty() {
            lines.connections.push(Line {
                generation,
                lineage,
                awaited,
                promoted: None,
                hung_up: false,
                ended: false,
            });
        }
        let replay = resume.and_then(|resume| Replay::new(lines, resume, behind));
        let listener = Listener::new(generation, lineage, behind.own, replay, policy);
        Ok((listener, !before.is_attached()))
    }

    /// Ends a connection. The newest of those that stand by holds the stream then.
    pub fn detach(&self, lines: &impl LockLines, listener: &Listener) -> Detached {
        lines.with_lines(|lines| self.detach_from(lines, listener))
    }

    fn detach_from(&self, lines: &mut Lines, listener: &Listener) -> Detached {
        let held = match lines.position_of(listener.generation) {
            Some(index) => lines.connections.remove(index).holds_as(),
            None => listener.generation,
        };
        let (lease, terms) = (self.stream.lease(), self.stream.lease().terms());
        if terms.generation() != held || !terms.is_attached() {
            return Detached { was_last: false, wakes: false };
        }
        let Some(last) = lines.connections.len().checked_sub(1) else {
            lease.release(held);
            // Publishers that wait need wait no longer for a reader that is gone.
            return Detached { was_last: true, wakes: listener.policy == LagPolicy::Wait };
        };
        let awaited = lines.connections[last].awaited;
        let own = lease.attach_beside(awaited, |generation| lines.is_taken(generation));
        let broadcast = self.broadcasts.adopt(own.generation());
        let next = &mut lines.connections[last];
        next.promoted = Some(own.generation());
        if next.hung_up {
            lease.hang_up();
        }
        let (lineage, behind) =
            (next.lineage, Positions { own: own.delivered(), broadcast: broadcast.delivered() });
        lines.give(lineage, behind);
        Detached { was_last: false, wakes: true }
    }

    /// Asks the client of one connection to go and come back. False if the connection was superseded.
    pub fn send_back(&self, lines: &impl LockLines, listener: &Listener) -> bool {
        let asked = lines.with_lines(|lines| {
            let index = lines.position_of(listener.generation);
            let held = index.map_or(listener.generation, |index| {
                let line = &mut lines.connections[index];
                line.hung_up = true;
                line.holds_as()
            });
            let lease = self.stream.lease();
            if lease.terms().generation() == held { lease.hang_up() } else { index.is_some() }
        });
        self.wake();
        asked
    }

    /// Whether a connection was superseded.
    pub fn is_superseded(&self, lines: &impl LockLines, listener: &Listener) -> bool {
        self.stream.lease().terms().generation() != listener.generation
            && lines.with_lines(|lines| lines.position_of(listener.generation).is_none())
    }
}
