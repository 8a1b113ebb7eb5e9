//! What happened so far, in numbers that only go up.

use super::life::End;
use crate::protocol::Refusal;
use crate::sync::{AtomicU64, Ordering};

/// What happened to sessions and connections since the start.
///
/// # Examples
///
/// ```
/// # use ringmain::session::{Sessions, Settings};
/// # use ringmain::topic::Clock;
/// # let sessions = Sessions::new(Settings::default(), Clock::default());
/// # let session = sessions.create(None);
/// sessions.terminate(&session);
/// let counters = sessions.counters();
/// assert_eq!((counters.created(), counters.closed()), (1, 1));
/// ```
#[derive(Debug, Default)]
pub struct Counters {
    created: AtomicU64,
    expired_idle: AtomicU64,
    expired_uninitialised: AtomicU64,
    expired_absolute: AtomicU64,
    evicted: AtomicU64,
    deleted: AtomicU64,
    closed: AtomicU64,
    refused_limit: AtomicU64,
    refused_principal_limit: AtomicU64,
    refused_rate: AtomicU64,
    refused_caller_rate: AtomicU64,
    resumed: AtomicU64,
    superseded: AtomicU64,
    lagged: AtomicU64,
    missed: AtomicU64,
    relieved_bytes: AtomicU64,
    responses_given_up: AtomicU64,
    responses_dropped: AtomicU64,
}

impl Counters {
    /// Sessions that were created.
    #[must_use]
    pub fn created(&self) -> u64 {
        Self::read(&self.created)
    }

    /// Sessions that ended because nothing was heard of them for too long.
    #[must_use]
    pub fn expired_idle(&self) -> u64 {
        Self::read(&self.expired_idle)
    }

    /// Sessions that ended because their client never came back after `initialize`.
    #[must_use]
    pub fn expired_uninitialised(&self) -> u64 {
        Self::read(&self.expired_uninitialised)
    }

    /// Sessions that ended because of their age.
    #[must_use]
    pub fn expired_absolute(&self) -> u64 {
        Self::read(&self.expired_absolute)
    }

    /// Sessions that ended to make space for another.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        Self::read(&self.evicted)
    }

    /// Sessions that their client ended.
    #[must_use]
    pub fn deleted(&self) -> u64 {
        Self::read(&self.deleted)
    }

    /// Sessions that the server ended for another reason: `initialize` failed, or the server stops.
    #[must_use]
    pub fn closed(&self) -> u64 {
        Self::read(&self.closed)
    }

    /// Sessions that were refused because there were as many as there may be.
    #[must_use]
    pub fn refused_limit(&self) -> u64 {
        Self::read(&self.refused_limit)
    }

    /// Sessions that were refused because their principal had as many as it may have.
    #[must_use]
    pub fn refused_principal_limit(&self) -> u64 {
        Self::read(&self.refused_principal_limit)
    }

    /// Sessions that were refused because too many were created altogether.
    #[must_use]
    pub fn refused_rate(&self) -> u64 {
        Self::read(&self.refused_rate)
    }

    /// Sessions that were refused because their caller created too many.
    #[must_use]
    pub fn refused_caller_rate(&self) -> u64 {
        Self::read(&self.refused_caller_rate)
    }

    /// Connections that went on behind an event ID.
    #[must_use]
    pub fn resumed(&self) -> u64 {
        Self::read(&self.resumed)
    }

    /// Connections that ended because a later one took their stream over.
    #[must_use]
    pub fn superseded(&self) -> u64 {
        Self::read(&self.superseded)
    }

    /// Times a connection was found behind the oldest retained event.
    #[must_use]
    pub fn lagged(&self) -> u64 {
        Self::read(&self.lagged)
    }

    /// Events that were evicted before they were delivered to a client that asked for them.
    #[must_use]
    pub fn missed(&self) -> u64 {
        Self::read(&self.missed)
    }

    /// Bytes of events that were evicted because all streams together retained too much.
    #[must_use]
    pub fn relieved_bytes(&self) -> u64 {
        Self::read(&self.relieved_bytes)
    }

    /// Responses that were given up before their time, for the same reason.
    #[must_use]
    pub fn responses_given_up(&self) -> u64 {
        Self::read(&self.responses_given_up)
    }

    /// Responses that nobody had fetched, and that went before their time because their session had too many.
    #[must_use]
    pub fn responses_dropped(&self) -> u64 {
        Self::read(&self.responses_dropped)
    }

    pub(super) fn count_created(&self) {
        Self::add(&self.created, 1);
    }

    pub(super) fn count_ended(&self, why: End) {
        let counter = match why {
            End::Idle => &self.expired_idle,
            End::Uninitialised => &self.expired_uninitialised,
            End::Aged => &self.expired_absolute,
            End::Evicted => &self.evicted,
            End::Deleted => &self.deleted,
            End::Closed => &self.closed,
        };
        Self::add(counter, 1);
    }

    pub(super) fn count_refused(&self, refusal: &Refusal) {
        match refusal {
            Refusal::TooManySessions => Self::add(&self.refused_limit, 1),
            Refusal::TooManyOwnSessions { .. } => Self::add(&self.refused_principal_limit, 1),
            Refusal::SessionRate { .. } => Self::add(&self.refused_rate, 1),
            Refusal::CallerSessionRate { .. } => Self::add(&self.refused_caller_rate, 1),
            _ => {}
        }
    }

    pub(super) fn count_resumed(&self) {
        Self::add(&self.resumed, 1);
    }

    pub(super) fn count_superseded(&self) {
        Self::add(&self.superseded, 1);
    }

    pub(super) fn count_lagged(&self, missed: u64) {
        Self::add(&self.lagged, 1);
        Self::add(&self.missed, missed);
    }

    pub(super) fn count_relieved(&self, bytes: u64) {
        Self::add(&self.relieved_bytes, bytes);
    }

    pub(super) fn count_response_given_up(&self) {
        Self::add(&self.responses_given_up, 1);
    }

    pub(super) fn count_response_dropped(&self) {
        Self::add(&self.responses_dropped, 1);
    }

    fn read(counter: &AtomicU64) -> u64 {
        // Relaxed: a number for whoever looks, which orders nothing.
        counter.load(Ordering::Relaxed)
    }

    fn add(counter: &AtomicU64, count: u64) {
        // Relaxed: as in `read`.
        counter.fetch_add(count, Ordering::Relaxed);
    }
}
