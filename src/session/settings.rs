//! What an operator may choose about sessions.

use core::num::NonZeroU32;

use crate::options::options;
use crate::ring::Limits;
use crate::stream::LagPolicy;

options! {
    /// How many sessions there may be, what they may hold, and for how long.
    ///
    /// Options marked *live* can change while the process runs
    /// ([`Sessions::reconfigure`](super::Sessions::reconfigure)).
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmain::session::{AtLimit, LagPolicy, Limits, Rate, Settings};
    ///
    /// let settings = Settings::default()
    ///     .max_sessions(100_000)
    ///     .at_limit(AtLimit::EvictLongestIdle)
    ///     .create_rate(Rate::new(600, 50)) // 600 a minute, 50 of them at once
    ///     .lag(LagPolicy::End)
    ///     .request(Limits { max_age_ms: 60_000, ..Limits::default() });
    /// # assert_eq!(settings.idle_ms, Settings::default().idle_ms);
    /// ```
    #[derive(Clone, Debug)]
    pub struct Settings {
        /// Number of sessions. Default 1,000,000. An idle one costs about 280 bytes. Live.
        max_sessions: usize = 1_000_000;
        /// What happens at `max_sessions`. Default: a new session is refused. Live.
        at_limit: AtLimit = AtLimit::Refuse;
        /// Number of sessions of one principal. A further one is refused, whatever `at_limit` says. Sessions without a
        /// principal do not count. Default: no limit. Live.
        max_sessions_per_principal: Option<usize> = None;
        /// Rate of new sessions in total. Default: no limit. Live.
        create_rate: Option<Rate> = None;
        /// Rate of new sessions of one principal, or, without a principal, of one IPv4 address or IPv6 /64 network.
        /// Default: no limit, because behind a proxy that names no client all clients have one address. Costs 512 KiB
        /// when set. Live.
        create_rate_per_caller: Option<Rate> = None;
        /// Bytes of events that all streams of the process retain together. Default 1 GiB. Beyond it, the streams with
        /// the largest backlogs lose their oldest events; see [`Sessions::relieve`](super::Sessions::relieve). Live.
        max_retained_bytes: u64 = 1 << 30;
        /// What a standalone stream retains. A larger event is refused. Default: 1,024 events, 1 MiB, 5 minutes. The
        /// age is more than 0.
        standalone: Limits = Limits::default();
        /// What the stream of one request retains, its response included. A larger event is refused. Default: 1,024
        /// events, 16 MiB, 5 minutes. The age is more than 0.
        request: Limits = Limits { max_weight: 16 << 20, ..Limits::default() };
        /// What the log of messages to all sessions retains. A larger message is refused. Default: 1,024 events, 16
        /// MiB, 5 minutes. The age is more than 0.
        broadcast: Limits = Limits { capacity: 1024, max_weight: 16 << 20, ..Limits::default() };
        /// Number of connections to one session's standalone stream. The newest receives what is published; the others,
        /// of other clients, stay open and take over when it ends. A further one ends the oldest. Default 4, at least
        /// 1.
        max_listeners: usize = 4;
        /// What happens to a connection that falls behind. Default: it is told.
        lag: LagPolicy = LagPolicy::Signal;
        /// Milliseconds that a publisher waits for a connected client that is behind, with [`LagPolicy::Wait`]. Then it
        /// continues, and the client is told what it missed. Default 5 seconds.
        wait_ms: u64 = 5 * 1000;
        /// Number of requests of one session in flight. Default 256.
        max_requests: usize = 256;
        /// Number of finished responses of one session that wait to be fetched, because their client disconnected. The
        /// oldest is dropped first. Default 256. Each costs about 300 bytes beside its event.
        max_unfetched_responses: usize = 256;
        /// Bytes of the finished responses of one session. The newest is kept whatever its size. Default 32 MiB.
        max_unfetched_bytes: u64 = 32 << 20;
        /// Milliseconds within which a client must send its next message after `initialize`, more than 0. Otherwise the
        /// session expires. Counted from the creation of the session. Default 60 seconds. Live.
        init_ms: u64 = 60 * 1000;
        /// Milliseconds without traffic after which a session expires, more than 0: since the end of its last request
        /// in flight, or since its client last sent or received something, whichever is later. Default 30 minutes.
        /// Live.
        idle_ms: u64 = 30 * 60 * 1000;
        /// Milliseconds after which a session expires whatever its traffic, more than 0. Default 24 hours. Live.
        absolute_ms: u64 = 24 * 60 * 60 * 1000;
        /// Milliseconds that an unfetched response is kept, more than 0, counted from when a client was last connected
        /// to its stream. Default 5 minutes. Live.
        response_ttl_ms: u64 = 5 * 60 * 1000;
        /// Milliseconds that a response is kept after it was written to its connection, in case the connection broke
        /// before the client received it. Default 30 seconds. Live.
        delivered_ttl_ms: u64 = 30 * 1000;
        /// Milliseconds that clients are told to wait before they reconnect. Default 1000.
        retry_ms: u32 = 1000;
    }
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
