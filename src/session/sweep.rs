//! Ending sessions whose time is up, and letting old responses and old events go.

use super::admission::Selection;
use super::registry::Sessions;
use super::roster::PLACES;
use super::settings::{AtLimit, Settings};
use super::state::Session;
use crate::sync::{Arc, lock};

/// Responses that one sweep lets go at most, so that it is over soon.
const MOST_RESPONSES: usize = 10_000;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// Sessions that ended.
    pub ended: usize,
    /// Responses that were let go because their time was up.
    pub responses: usize,
    /// Whether there are more of them, for the next sweep: it may come at once.
    pub more: bool,
}

impl Sessions {
    /// Ends sessions whose time is up, and lets old responses and old events go. Call it now and then, from where a
    /// pause does no harm. A session that is touched, or opens a request, before its end is decided, stays.
    #[doc(hidden)]
    pub fn sweep(&self) -> Swept {
        let (now, rules) = (self.shared.clock.now(), self.shared.rules());
        let settings = &rules.settings;
        let times_changed = self.shared.times.take_change();
        self.shared.principals.forget();
        self.shared.broadcasts.evict_older();
        let mut swept = Swept::default();
        let mut selection = self.is_nearly_full(settings).then(|| Selection::of(self.len()));
        let (mut walk, mut chosen) = (self.registry.roster.walk(), Vec::new());
        let mut all = Vec::with_capacity(PLACES);
        let mut look = |places: &[Option<Arc<Session>>], chosen: &mut Vec<_>, swept: &mut Swept| {
            let sessions = || places.iter().flatten();
            // Nearly all of the time goes by waiting for memory: with nothing else in between, for several at once.
            all.extend(sessions().map(|session| session.vitals()));
            for (session, vitals) in sessions().zip(all.drain(..)) {
                let expires = session.expiry(vitals, now, settings).is_some();
                let mut is_due = session.due.is_over(now, times_changed);
                if is_due && swept.responses == MOST_RESPONSES {
                    (is_due, swept.more) = (false, true);
                }
                if expires || !vitals.is_untouched || is_due {
                    chosen.push((session.clone(), expires));
                }
                if !expires && let Some(selection) = &mut selection {
                    selection.look_at(session.as_victim(settings.at_limit));
                }
            }
        };
        while walk.step(|places| look(places, &mut chosen, &mut swept)) {
            for (session, expires) in chosen.drain(..) {
                // Looked at once more: its client may have come back.
                if expires && let Some(why) = session.close_expired(now, settings) {
                    self.shared.give_place_back();
                    self.let_go(&session, why);
                    swept.ended += 1;
                } else {
                    session.standalone().evict_older(now, &self.shared.settings.standalone);
                    if session.due.is_over(now, times_changed) {
                        let (gone, more) = session.expire_responses(now, MOST_RESPONSES - swept.responses);
                        swept.responses += gone;
                        swept.more |= more;
                    }
                }
            }
        }
        if times_changed && swept.more {
            // Those that are left are to be looked at by the times that are new, too.
            self.shared.times.tell_change();
        }
        *lock(&self.shared.victims) = selection.map_or_else(Vec::new, Selection::into_victims);
        crate::ring::collect();
        swept
    }

    /// Whether sessions may have to go for others before the next sweep.
    fn is_nearly_full(&self, settings: &Settings) -> bool {
        settings.at_limit != AtLimit::Refuse && self.len() >= settings.max_sessions / 8 * 7
    }
}
