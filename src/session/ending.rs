//! When a session ends, and what ends with it.

use super::admission::Victim;
use super::life::{End, Seen};
use super::open::Open;
use super::settings::{AtLimit, Settings};
use super::state::Session;
use crate::stream::Moment;
use crate::sync::lock;

/// The few words of a session that a sweep looks at.
#[derive(Clone, Copy)]
pub(super) struct Vitals {
    created: Moment,
    seen: Seen,
    /// Nothing was ever published on the standalone stream.
    pub(super) is_untouched: bool,
}

impl Session {
    /// Ends the session: its streams close, its connections end, its requests count as cancelled and its
    /// questions as unanswered. Returns false if it had ended.
    pub(super) fn close(&self) -> bool {
        self.close_by(|_| self.life.end())
    }

    /// Ends the session if its time is up at `now`, and returns why. Whoever was quicker than this to touch it, or to
    /// open a request, keeps it.
    pub(super) fn close_expired(&self, now: Moment, settings: &Settings) -> Option<End> {
        let mut expired = None;
        self.close_by(|open| {
            let vitals = self.vitals();
            expired = self
                .expiry(vitals, now, settings)
                .filter(|why| *why != End::Idle || open.in_flight.is_empty());
            match expired {
                None => false,
                // Whatever its traffic.
                Some(End::Aged) => self.life.end(),
                Some(_) => self.life.end_unless_touched(vitals.seen),
            }
        })
        .then_some(expired)
        .flatten()
    }

    /// Ends the session if it still stands where it stood when it was chosen to go.
    pub(super) fn close_victim(&self, victim: Victim, at_limit: AtLimit) -> bool {
        self.close_by(|open| {
            let seen = self.life.look();
            match at_limit {
                AtLimit::EvictLongestIdle => {
                    let is_idle = seen.touched() == victim.since && open.in_flight.is_empty();
                    is_idle && self.life.end_unless_touched(seen)
                }
                AtLimit::EvictOldest | AtLimit::Refuse => self.life.end(),
            }
        })
    }

    /// Ends the session if `end` marks its end. The lock is held meanwhile: no request is opened before the mark that
    /// `end` did not see, and none after it.
    fn close_by(&self, end: impl FnOnce(&Open) -> bool) -> bool {
        let (requests, asks) = {
            let mut open = lock(&self.open);
            if !end(&open) {
                return false;
            }
            open.end()
        };
        drop(asks);
        // Before the end is marked, since the last chunk stays behind the mark.
        self.shed();
        self.standalone().close(self.now(), &self.settings().standalone);
        for request in requests {
            if request.mark_finished() {
                request.tell_cancelled();
            }
            request.own_stream().close(self.now(), &self.settings().request);
        }
        true
    }

    /// Lets the events of a session that ended go, unless a connection is on the way to write them: whoever holds the
    /// session still shall not hold what it retained. Where the stream has its end already, up to one chunk of events
    /// stays.
    pub(super) fn shed(&self) {
        // Either the end of the last connection finds the session closed, or the end of the session finds nobody
        // connected: the lock of `open` puts the two in an order.
        let is_closed = {
            let _open = lock(&self.open);
            self.is_closed()
        };
        if is_closed && !self.standalone().terms().is_attached() {
            self.standalone().trim(0, self.now(), &self.settings().standalone);
        }
    }

    /// What a sweep wants to know.
    pub(super) fn vitals(&self) -> Vitals {
        let seen = self.life.look();
        Vitals { created: self.created(), seen, is_untouched: self.standalone().is_untouched() }
    }

    /// Why its time is up at `now`, if it is: unless, where it is idle, a request is in flight.
    pub(super) fn expiry(&self, vitals: Vitals, now: Moment, settings: &Settings) -> Option<End> {
        let age = now.since(vitals.created);
        if age >= settings.absolute_ms {
            return Some(End::Aged);
        }
        if !vitals.seen.is_heard() && age >= settings.init_ms {
            return Some(End::Uninitialised);
        }
        (now.since(vitals.seen.touched()) >= settings.idle_ms).then_some(End::Idle)
    }

    /// Where it stands in the order in which sessions go at the limit.
    pub(super) fn as_victim(&self, at_limit: AtLimit) -> Victim {
        let since = match at_limit {
            AtLimit::EvictLongestIdle => self.life.look().touched(),
            AtLimit::EvictOldest | AtLimit::Refuse => self.created(),
        };
        Victim { since, id: self.id().as_u128() }
    }
}
