//! What the streams of one session retain: what goes for its age, and what for want of memory.

use super::responses::Kind;
use super::state::Session;
use crate::request::EVERYTHING;
use crate::ring::Limits;
use crate::stream::{Moment, Stream};
use crate::sync::lock;

/// A sweep looks so many times at a stream while its oldest event comes of age.
const LOOKS: u64 = 16;

impl Session {
    /// Lets go of responses that were kept for their time at `now`, `most` of them at most, and of what request
    /// streams retain that is too old. Returns how many responses went, and whether there are more to go.
    pub(super) fn expire_responses(&self, now: Moment, most: usize) -> (usize, bool) {
        let limits = &self.settings().request;
        let (max_age_ms, mut gone) = (u64::from(limits.max_age_ms), Vec::new());
        let (mut next, mut more): (Option<Moment>, _) = (None, false);
        let mut look_after = |moment: Moment, ms: u64| {
            let look = Moment(moment.0.saturating_add(ms.max(1)));
            next = Some(next.map_or(look, |next| next.min(look)));
        };
        let mut open = lock(&self.open);
        for request in open.transient() {
            request.own_stream().evict_older(now, limits);
            // What is published from now on does not come of age sooner.
            let is_empty = request.own_stream().oldest() == request.own_stream().tail();
            look_after(now, if is_empty { max_age_ms } else { max_age_ms / LOOKS });
        }
        if let Some(extras) = &mut open.extras {
            for kind in Kind::ALL {
                let ttl_ms = self.shared.times.of(kind);
                while let Some((request, since)) = extras.responses.oldest(kind) {
                    if now.since(since) < ttl_ms {
                        look_after(since, ttl_ms);
                        break;
                    }
                    if gone.len() == most && !request.own_stream().terms().is_attached() {
                        more = true;
                        look_after(now, 0);
                        break;
                    }
                    // Of one whose client is connected, the time begins anew when that connection ends.
                    gone.extend(extras.responses.take_oldest(kind));
                }
            }
            if extras.responses.has_backlogs() {
                for request in extras.responses.backlogs() {
                    request.own_stream().evict_older(now, limits);
                }
                extras.responses.look_at_backlogs();
                look_after(now, max_age_ms / LOOKS);
            }
        }
        open.tidy();
        self.due.set(next);
        drop(open);
        (gone.len(), more)
    }

    /// Looks at each of its streams that may retain more than a response, with what it may retain. May trim them.
    pub(super) fn for_each_stream(&self, mut visit: impl FnMut(&Stream, &Limits)) {
        let settings = self.settings();
        if !self.standalone().is_untouched() {
            visit(self.standalone(), &settings.standalone);
        }
        let mut open = lock(&self.open);
        open.backlogs().for_each(|request| visit(request.own_stream(), &settings.request));
        if let Some(extras) = &mut open.extras {
            extras.responses.look_at_backlogs();
        }
    }

    /// Since when each response of a kind is kept, and what it takes.
    pub(super) fn response_ages(&self, kind: Kind, mut visit: impl FnMut(Moment, u64)) {
        let open = lock(&self.open);
        let responses = open.extras.iter().flat_map(|extras| extras.responses.ages(kind));
        responses.for_each(|(since, bytes)| visit(since, bytes));
    }

    /// Lets the oldest responses of a kind go, for want of memory: those kept since `latest` or before, until they
    /// are `needed` bytes. Returns how many bytes they took.
    pub(super) fn give_up_responses(&self, kind: Kind, latest: Moment, needed: u64) -> u64 {
        let (mut gone, mut bytes) = (Vec::new(), 0);
        let mut open = lock(&self.open);
        while bytes < needed
            && let Some(extras) = &mut open.extras
            && let Some((_, since)) = extras.responses.oldest(kind)
            && since <= latest
        {
            // What a connection holds would not be freed.
            let Some(request) = extras.responses.take_oldest(kind) else { continue };
            bytes += request.memory();
            gone.push(request);
            self.shared.counters.count_response_given_up();
        }
        open.tidy();
        drop(open);
        bytes
    }

    /// Lets go of what is retained for batches in flight whose clients are away, for want of memory. Returns how many
    /// bytes it was. A client that comes back is told how much it missed.
    pub(super) fn give_up_batches(&self) -> u64 {
        let (mut bytes, open) = (0, lock(&self.open));
        for carrier in open.in_flight.iter().filter(|request| request.is_carrier()) {
            if !carrier.own_stream().terms().is_attached() {
                let trimmed = carrier.own_stream().trim(0, self.now(), &EVERYTHING);
                if trimmed > 0 {
                    self.shared.counters.count_response_given_up();
                }
                bytes += trimmed;
            }
        }
        bytes
    }
}
