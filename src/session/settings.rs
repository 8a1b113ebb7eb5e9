//! What an operator may choose about sessions.

use core::num::NonZeroU32;

use crate::ring::Limits;
use crate::stream::LagPolicy;

/// How many sessions there may be, what they may hold, and how long.
///
/// Those marked *live* may change while the process runs ([`Sessions::reconfigure`](super::Sessions::reconfigure));
/// the rest is for the life of the process.
///
/// # Examples
///
/// ```
/// use ringmain::session::{AtLimit, LagPolicy, Limits, Rate, Settings};
///
/// let settings = Settings {
///     max_sessions: 100_000,
///     at_limit: AtLimit::EvictLongestIdle,
///     create_rate: Rate::new(600, 50), // 600 a minute, 50 of them at once
///     lag: LagPolicy::End,
///     request: Limits { max_age_ms: 60_000, ..Limits::default() },
///     ..Settings::default()
/// };
/// # assert_eq!(settings.idle_ms, Settings::default().idle_ms);
/// ```
#[derive(Clone, Debug)]
pub struct Settings {
    /// Sessions at once, at most. Default 1,000,000. An idle one costs about 280 bytes. Live.
    pub max_sessions: usize,
    /// What happens at [`max_sessions`](Self::max_sessions). Default: whoever wants a further one is refused. Live.
    pub at_limit: AtLimit,
    /// Sessions of one principal at once, at most; a further one is refused, whatever [`at_limit`](Self::at_limit)
    /// says. Sessions of nobody in particular (principal 0) are not counted here. Default: no limit. Live.
    pub max_sessions_per_principal: Option<usize>,
    /// How fast sessions may be created, all together. Default: no limit. Live.
    pub create_rate: Option<Rate>,
    /// How fast one principal may create sessions, or, where it is nobody in particular, one address: an IPv4
    /// address, or an IPv6 network of 64 bits. Default: no limit, because behind a proxy that does not say who
    /// asks, all clients have one address. Costs 512 KiB when set. Live.
    pub create_rate_per_caller: Option<Rate>,
    /// Bytes of events that all streams retain together, at most: of the process, since that is what they are counted
    /// for. Default 1 GiB. Beyond it the longest backlogs give their oldest events; see
    /// [`Sessions::relieve`](super::Sessions::relieve). Live.
    pub max_retained_bytes: u64,
    /// What a standalone stream retains. A larger event is refused. Default: 1,024 events, 1 MiB, 5
    /// minutes.
    pub standalone: Limits,
    /// What the stream of one request retains, its response included. A larger event is refused. Default: 1,024
    /// events, 16 MiB, 5 minutes.
    pub request: Limits,
    /// What the log of messages to all sessions retains. A larger message is refused. Default: 1,024 events, 16 MiB,
    /// 5 minutes.
    pub broadcast: Limits,
    /// Connections of one session's standalone stream side by side, at most. The newest is given what is published;
    /// the others, of other clients, stay open and take over when it ends. One more ends the oldest. Default 4, at
    /// least 1.
    pub max_listeners: usize,
    /// What happens to a connection that falls behind. Default: it is told.
    pub lag: LagPolicy,
    /// Milliseconds for which a publisher waits for a connected client that is behind, at most, where
    /// [`LagPolicy::Wait`] is chosen. Default 5 seconds; then it goes on, and the client is told what it missed.
    pub wait_ms: u64,
    /// Requests of one session in flight at once. Default 256.
    pub max_requests: usize,
    /// Finished responses of one session that wait to be fetched, at most: those whose client went away. The oldest goes
    /// first. Default 256. Each costs about 300 bytes beside its event.
    pub max_unfetched_responses: usize,
    /// Bytes that the finished responses of one session take, at most; the newest stays, however large. Default 32 MiB.
    pub max_unfetched_bytes: u64,
    /// Milliseconds within which a client must come back after `initialize`, with whatever it says; else its
    /// session expires. Counted from the creation of the session. Default 60 seconds. Live.
    pub init_ms: u64,
    /// Milliseconds without traffic after which a session expires: since the end of its last request in flight,
    /// or since its client last sent or took something, whichever is later. Default 30 minutes. Live.
    pub idle_ms: u64,
    /// Milliseconds after which a session expires whatever its traffic. Default 24 hours. Live.
    pub absolute_ms: u64,
    /// Milliseconds for which a response is kept that nobody fetched to the end, from the last moment at which a client
    /// was connected to its stream. Default 5 minutes. Live.
    pub response_ttl_ms: u64,
    /// Milliseconds for which a response is kept that was handed to its connection. Default 30 seconds: the
    /// connection may have broken with it on the way. Live.
    pub delivered_ttl_ms: u64,
    /// What clients are told to wait before they reconnect, in milliseconds. Default 1000.
    pub retry_ms: u32,
}

impl Settings {
    /// What cannot work, by the name of the field; `None` if all can.
    #[must_use]
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let times = [
            ("sessions.init_ms is 0: no client could come back in time", self.init_ms),
            ("sessions.idle_ms is 0: every session would end at once", self.idle_ms),
            ("sessions.absolute_ms is 0: every session would end at once", self.absolute_ms),
            ("sessions.response_ttl_ms is 0: no response could be fetched", self.response_ttl_ms),
            (
                "sessions.standalone.max_age_ms is 0: nothing would be retained",
                self.standalone.max_age_ms.into(),
            ),
            ("sessions.request.max_age_ms is 0: nothing would be retained", self.request.max_age_ms.into()),
            (
                "sessions.broadcast.max_age_ms is 0: nothing would be retained",
                self.broadcast.max_age_ms.into(),
            ),
        ];
        times.into_iter().find(|(_, ms)| *ms == 0).map(|(fault, _)| fault)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_sessions: 1_000_000,
            at_limit: AtLimit::Refuse,
            max_sessions_per_principal: None,
            create_rate: None,
            create_rate_per_caller: None,
            max_retained_bytes: 1 << 30,
            standalone: Limits::default(),
            request: Limits { max_weight: 16 << 20, ..Limits::default() },
            broadcast: Limits { capacity: 1024, max_weight: 16 << 20, ..Limits::default() },
            max_listeners: 4,
            lag: LagPolicy::Signal,
            wait_ms: 5 * 1000,
            max_requests: 256,
            max_unfetched_responses: 256,
            max_unfetched_bytes: 32 << 20,
            init_ms: 60 * 1000,
            idle_ms: 30 * 60 * 1000,
            absolute_ms: 24 * 60 * 60 * 1000,
            response_ttl_ms: 5 * 60 * 1000,
            delivered_ttl_ms: 30 * 1000,
            retry_ms: 1000,
        }
    }
}

/// What happens when a session is asked for and there are as many as there may be.
///
/// Which session is the oldest, or idle for longest, is known exactly among some thousands. Among more it is
/// known as of the last sweep; if more sessions had to go since than a sweep notes, a sixteenth of all, the next
/// ones are the first of a sample of about 4,096.
///
/// Where there are more sessions than there may be, because the limit was lowered, two end for each newcomer.
///
/// Evicting keeps newcomers coming in at the cost of those who are there: a flood of newcomers then ends every
/// session in turn. Set a rate for each caller with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtLimit {
    /// It is refused, and asked to come again later. The default.
    #[default]
    Refuse,
    /// The session that was created first ends.
    EvictOldest,
    /// The session that was not heard of for longest ends. One with a request in flight is not idle; if all have
    /// one, the newcomer is refused.
    EvictLongestIdle,
}

/// How fast something may happen: evenly, or so many at once after a pause (GCRA, a leaky bucket).
///
/// # Examples
///
/// ```
/// use ringmain::session::Rate;
///
/// assert!(Rate::new(60, 5).is_some());
/// assert!(Rate::new(0, 5).is_none(), "a rate lets something through");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many a minute, for as long as it goes on.
    pub per_minute: NonZeroU32,
    /// How many at once.
    pub burst: NonZeroU32,
}

impl Rate {
    /// So many a minute, so many of them at once; `None` if either is 0.
    #[must_use]
    pub const fn new(per_minute: u32, burst: u32) -> Option<Self> {
        match (NonZeroU32::new(per_minute), NonZeroU32::new(burst)) {
            (Some(per_minute), Some(burst)) => Some(Self { per_minute, burst }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_of_zero_are_named_and_all_others_are_good() {
        type Choose = fn(&mut Settings) -> &mut Limits;
        let with = |choose: Choose, max_age_ms| {
            let mut settings = Settings::default();
            choose(&mut settings).max_age_ms = max_age_ms;
            settings.fault()
        };
        let logs: [(&str, Choose); 3] = [
            ("sessions.standalone.", |settings| &mut settings.standalone),
            ("sessions.request.", |settings| &mut settings.request),
            ("sessions.broadcast.", |settings| &mut settings.broadcast),
        ];
        for (name, choose) in logs {
            assert!(with(choose, 0).is_some_and(|fault| fault.starts_with(name)), "{name}");
            assert_eq!([1, 1 << 31, u32::MAX].map(|ms| with(choose, ms)), [None; 3], "{name}");
        }
    }
}
