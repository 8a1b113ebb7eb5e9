//! Finished requests of one session, whose responses may still be fetched.
//!
//! # Algorithm
//!
//! A table by stream number, and two lists through it in order of time: the responses that *wait* for a client to
//! fetch them, and those that were *delivered* to a connection, which may have broken with them on the way. Each has a
//! place in one list at most, however often its client comes and goes, and the moment from which its time counts stands
//! with it.
//!
//! A response leaves its list when its client connects, and is listed again when that connection ends. Where one
//! connection ends while the next begins, the response may be listed although its client is there: whoever comes upon
//! such a one takes it out of the list, and not out of the table.
//!
//! Finding, moving and removing one take a step each, however many there are.
//!
//! # Memory use
//!
//! About 70 bytes for each response beside its stream. Nothing while there is none.

use core::fmt;
use core::hash::{BuildHasherDefault, Hasher};
use std::collections::HashMap;

use super::settings::Settings;
use crate::request::RequestStream;
use crate::stream::Moment;
use crate::sync::Arc;

/// Responses that were handed to a connection and are kept all the same, for each session. A client that lost one
/// of them on the way asks for it before it has many others.
const MAX_DELIVERED: u32 = 16;

/// Tables below this many places do not shrink.
const SMALL: usize = 64;

/// What becomes of a response that no client is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It waits to be fetched.
    Waiting,
    /// It was handed to a connection.
    Delivered,
}

impl Kind {
    /// Each of them; those that go first, first.
    pub(super) const ALL: [Self; 2] = [Self::Delivered, Self::Waiting];
}

/// See the [module documentation](self).
#[derive(Default)]
pub(super) struct Responses {
    kept: HashMap<u32, Kept, BuildHasherDefault<NumberHasher>>,
    lists: [List; 2],
    /// What they take, all together.
    bytes: u64,
    /// How many retain events that may go before their response does.
    backlogs: u32,
}

struct Kept {
    request: Arc<RequestStream>,
    /// When a client was last connected, or when the response was published.
    since: Moment,
    /// What it takes: as of when it came here, or of the last look at its backlog.
    bytes: u32,
    /// The neighbours in its list, by number; 0 is none, as it names no request.
    before: u32,
    behind: u32,
    list: Option<Kind>,
    has_backlog: bool,
}

/// The oldest first.
#[derive(Default)]
struct List {
    first: u32,
    last: u32,
    count: u32,
}

impl Responses {
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(super) fn get(&self, number: u32) -> Option<&Arc<RequestStream>> {
        self.kept.get(&number).map(|kept| &kept.request)
    }

    /// Each of them, in no order.
    #[cfg(feature = "rmcp")]
    pub(super) fn requests(&self) -> impl Iterator<Item = &Arc<RequestStream>> {
        self.kept.values().map(|kept| &kept.request)
    }

    pub(super) fn into_requests(self) -> impl Iterator<Item = Arc<RequestStream>> {
        self.kept.into_values().map(|kept| kept.request)
    }

    /// Adds a request that is finished. A client is taken to be connected to it.
    pub(super) fn insert(&mut self, request: Arc<RequestStream>, now: Moment) {
        request.count_memory();
        let bytes = bytes_of(&request);
        // All of a batch is kept together: any event may be the response to one of its requests.
        let has_backlog = !request.is_carrier() && request.own_stream().spare_bytes() > 0;
        self.backlogs += u32::from(has_backlog);
        self.bytes += u64::from(bytes);
        let number = request.number();
        let kept = Kept { request, since: now, bytes, before: 0, behind: 0, list: None, has_backlog };
        self.kept.insert(number, kept);
    }

    /// Has the time of a response begin at `now`, anew if it had begun.
    pub(super) fn list(&mut self, number: u32, kind: Kind, now: Moment) {
        self.unlist(number);
        let list = &mut self.lists[kind as usize];
        let Some(kept) = self.kept.get_mut(&number) else { return };
        (kept.since, kept.list, kept.before) = (now, Some(kind), list.last);
        list.count += 1;
        let before = core::mem::replace(&mut list.last, number);
        match self.kept.get_mut(&before) {
            Some(before) => before.behind = number,
            None => list.first = number,
        }
    }

    /// Takes a response out of its list: a client is connected to it.
    pub(super) fn unlist(&mut self, number: u32) {
        let Some(kept) = self.kept.get_mut(&number) else { return };
        let Some(kind) = kept.list.take() else { return };
        let (before, behind) = (core::mem::take(&mut kept.before), core::mem::take(&mut kept.behind));
        let list = &mut self.lists[kind as usize];
        list.count -= 1;
        match self.kept.get_mut(&before) {
            Some(before) => before.behind = behind,
            None => list.first = behind,
        }
        match self.kept.get_mut(&behind) {
            Some(behind) => behind.before = before,
            None => list.last = before,
        }
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<Arc<RequestStream>> {
        self.unlist(number);
        let kept = self.kept.remove(&number)?;
        self.bytes -= u64::from(kept.bytes);
        self.backlogs -= u32::from(kept.has_backlog);
        // So that a session that had very many once does not keep the table.
        if self.kept.capacity() > SMALL && self.kept.len() < self.kept.capacity() / 4 {
            self.kept.shrink_to(self.kept.len() * 2);
        }
        Some(kept.request)
    }

    /// The oldest of its kind, and since when it is there.
    pub(super) fn oldest(&self, kind: Kind) -> Option<(&Arc<RequestStream>, Moment)> {
        let kept = self.kept.get(&self.lists[kind as usize].first)?;
        Some((&kept.request, kept.since))
    }

    /// Since when each of a kind is there, the oldest first, and what it takes.
    pub(super) fn ages(&self, kind: Kind) -> impl Iterator<Item = (Moment, u64)> {
        let named = |number: u32| self.kept.get(&number);
        let list =
            core::iter::successors(named(self.lists[kind as usize].first), move |kept| named(kept.behind));
        list.map(|kept| (kept.since, kept.bytes.into()))
    }

    /// Takes out the oldest of those that are more than a session may keep, one for each call. The flag says whether
    /// nobody had fetched it.
    pub(super) fn take_excess(&mut self, settings: &Settings) -> Option<(Arc<RequestStream>, bool)> {
        loop {
            let kind = self.excess(settings)?;
            if let Some(request) = self.take_oldest(kind) {
                return Some((request, kind == Kind::Waiting));
            }
        }
    }

    /// The kind of which there are more than a session may keep.
    fn excess(&self, settings: &Settings) -> Option<Kind> {
        let [waiting, delivered] =
            [Kind::Waiting, Kind::Delivered].map(|kind| self.lists[kind as usize].count);
        // The newest stays, however large it is.
        let is_heavy = self.bytes > settings.max_unfetched_bytes && self.kept.len() > 1;
        if delivered > MAX_DELIVERED || is_heavy && delivered > 0 {
            Some(Kind::Delivered)
        } else if waiting as usize > settings.max_unfetched_responses || is_heavy && waiting > 1 {
            Some(Kind::Waiting)
        } else {
            None
        }
    }

    /// Takes out the oldest of its kind. `None` if its client is connected: then it stays, and is listed no more.
    pub(super) fn take_oldest(&mut self, kind: Kind) -> Option<Arc<RequestStream>> {
        let number = self.lists[kind as usize].first;
        if self.kept.get(&number)?.request.own_stream().terms().is_attached() {
            self.unlist(number);
            return None;
        }
        self.remove(number)
    }

    /// Those that retain events which may go before their response does.
    pub(super) fn backlogs(&self) -> impl Iterator<Item = &Arc<RequestStream>> {
        let kept = (self.backlogs > 0).then(|| self.kept.values());
        kept.into_iter().flatten().filter(|kept| kept.has_backlog).map(|kept| &kept.request)
    }

    pub(super) fn has_backlogs(&self) -> bool {
        self.backlogs > 0
    }

    /// Looks again which of them still retain such events, and what they take. Called when some of those may have gone.
    pub(super) fn look_at_backlogs(&mut self) {
        if self.backlogs == 0 {
            return;
        }
        for kept in self.kept.values_mut().filter(|kept| kept.has_backlog) {
            let bytes = bytes_of(&kept.request);
            self.bytes = self.bytes - u64::from(kept.bytes) + u64::from(bytes);
            kept.bytes = bytes;
            kept.has_backlog = kept.request.own_stream().spare_bytes() > 0;
            self.backlogs -= u32::from(!kept.has_backlog);
        }
    }
}

/// What a finished request takes.
fn bytes_of(request: &RequestStream) -> u32 {
    u32::try_from(request.memory()).unwrap_or(u32::MAX)
}

impl fmt::Debug for Responses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responses")
            .field("len", &self.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Hashes a stream number. The server counts them up, so a client cannot choose them.
#[derive(Clone, Copy, Debug, Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u32(&mut self, number: u32) {
        // The table takes its bits from both ends of the word.
        self.0 = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used for a `u32` key; correct all the same.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{ProtocolVersion, RequestId};
    use crate::ring::Limits;
    use crate::sse::{Frame, StreamName};

    /// A finished request with as much before its response as its number says.
    fn request(number: u32) -> Arc<RequestStream> {
        let (name, id) = (StreamName { tag: 1, stream: number }, RequestId::from(i64::from(number)));
        let request = Arc::new(RequestStream::new(name, id, None, ProtocolVersion::LATEST));
        let frame = || Frame::whole(name, |out| out.extend_from_slice(b"event"));
        for _ in 0..number {
            request.own_stream().publish(frame(), Moment(0), &Limits::default()).unwrap();
        }
        request.own_stream().publish_last(frame(), Moment(0), &Limits::default()).unwrap();
        request
    }

    fn numbers(responses: &Responses, kind: Kind) -> Vec<u32> {
        let mut copy = Vec::new();
        let mut number = responses.lists[kind as usize].first;
        while let Some(kept) = responses.kept.get(&number) {
            copy.push(number);
            assert_eq!(kept.before, copy.iter().rev().nth(1).copied().unwrap_or(0));
            number = kept.behind;
        }
        assert_eq!(copy.last().copied().unwrap_or(0), responses.lists[kind as usize].last);
        assert_eq!(copy.len(), responses.lists[kind as usize].count as usize);
        copy
    }

    proptest! {
        #[test]
        fn lists_agree_with_lists(steps in proptest::collection::vec((0..6_u8, 1..40_u32), 1..200)) {
            let mut responses = Responses::default();
            let mut all = BTreeMap::new();
            let mut lists: [Vec<u32>; 2] = Default::default();
            for (now, (action, number)) in steps.into_iter().enumerate() {
                let now = Moment(now as u64);
                match action {
                    0 if !all.contains_key(&number) => {
                        responses.insert(request(number), now);
                        all.insert(number, now);
                    }
                    1 | 2 => {
                        let kind = if action == 1 { Kind::Waiting } else { Kind::Delivered };
                        responses.list(number, kind, now);
                        lists.iter_mut().for_each(|list| list.retain(|listed| *listed != number));
                        if all.contains_key(&number) {
                            lists[kind as usize].push(number);
                            all.insert(number, now);
                        }
                    }
                    3 => {
                        responses.unlist(number);
                        lists.iter_mut().for_each(|list| list.retain(|listed| *listed != number));
                    }
                    4 => {
                        for request in responses.backlogs() {
                            request.own_stream().trim(u64::from(number) * 50, now, &Limits::default());
                        }
                        responses.look_at_backlogs();
                    }
                    _ => {
                        prop_assert_eq!(responses.remove(number).is_some(), all.remove(&number).is_some());
                        lists.iter_mut().for_each(|list| list.retain(|listed| *listed != number));
                    }
                }
                for kind in Kind::ALL {
                    prop_assert_eq!(numbers(&responses, kind), &lists[kind as usize][..]);
                    let since = lists[kind as usize].iter().map(|number| all[number]);
                    prop_assert!(responses.ages(kind).map(|(since, _)| since).eq(since));
                }
                prop_assert_eq!(responses.len(), all.len());
                prop_assert_eq!(responses.bytes, responses.kept.values().map(|kept| kept.request.memory()).sum::<u64>());
                let has_backlog = |kept: &&Kept| kept.request.own_stream().spare_bytes() > 0;
                prop_assert_eq!(responses.backlogs().count(), responses.kept.values().filter(has_backlog).count());
            }
        }
    }
}
