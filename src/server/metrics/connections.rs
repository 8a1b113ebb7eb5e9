//! Counts connections: how many are open, and why others were refused or closed.

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// What happened to connections since the start, and how many are open. From
/// [`Metrics::connections`](crate::server::Metrics::connections).
///
/// # Examples
///
/// ```
/// use ringmain::server::ConnectionCounters;
///
/// fn report(counters: &ConnectionCounters) -> String {
///     format!("{} open, {} of {} refused", counters.open(), counters.refused_total(), counters.accepted())
/// }
/// # assert_eq!(report(&ConnectionCounters::default()), "0 open, 0 of 0 refused");
/// ```
#[derive(Debug, Default)]
pub struct ConnectionCounters {
    /// In a cache line of its own: every connection writes it twice.
    open: CachePadded<AtomicUsize>,
    accepted: AtomicU64,
    refused_total: AtomicU64,
    refused_address: AtomicU64,
    refused_handshake: AtomicU64,
    closed: [AtomicU64; CloseReason::KINDS],
}

/// Why the server closed a connection that the client would have kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum CloseReason {
    /// It reached its maximum age.
    Age,
    /// It had no request for too long.
    Idle,
    /// A head or a TLS handshake took too long.
    Deadline,
    /// The client read nothing for too long.
    Stalled,
    /// Too many HTTP/2 control frames.
    Flood,
}

impl CloseReason {
    const KINDS: usize = Self::Flood as usize + 1;
}

impl ConnectionCounters {
    /// Connections open at the moment, counted from their acceptance to the closing of their socket.
    #[must_use]
    pub fn open(&self) -> usize {
        // Relaxed: a counter that orders nothing. Likewise below.
        self.open.load(Ordering::Relaxed)
    }

    /// Connections accepted within the limits.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections closed at once because [`Connections::max`](crate::server::Connections::max) were open.
    #[must_use]
    pub fn refused_total(&self) -> u64 {
        self.refused_total.load(Ordering::Relaxed)
    }

    /// Connections closed at once because [`Connections::max_per_address`](crate::server::Connections::max_per_address)
    /// were open from their address.
    #[must_use]
    pub fn refused_address(&self) -> u64 {
        self.refused_address.load(Ordering::Relaxed)
    }

    /// Connections whose TLS handshake failed, except by timeout.
    #[must_use]
    pub fn refused_handshake(&self) -> u64 {
        self.refused_handshake.load(Ordering::Relaxed)
    }

    /// Connections that reached [`Connections::max_age`](crate::server::Connections::max_age).
    #[must_use]
    pub fn closed_age(&self) -> u64 {
        self.closed(CloseReason::Age)
    }

    /// Connections without a request for [`Connections::idle`](crate::server::Connections::idle).
    #[must_use]
    pub fn closed_idle(&self) -> u64 {
        self.closed(CloseReason::Idle)
    }

    /// Connections whose client took too long to send a request head, or for a TLS handshake.
    #[must_use]
    pub fn closed_deadline(&self) -> u64 {
        self.closed(CloseReason::Deadline)
    }

    /// Connections, and streams of HTTP/2 connections, whose client read nothing for too long.
    #[must_use]
    pub fn closed_stalled(&self) -> u64 {
        self.closed(CloseReason::Stalled)
    }

    /// HTTP/2 connections that sent more control frames than
    /// [`Connections::max_http2_control_rate`](crate::server::Connections::max_http2_control_rate).
    #[must_use]
    pub fn closed_flood(&self) -> u64 {
        self.closed(CloseReason::Flood)
    }

    fn closed(&self, why: CloseReason) -> u64 {
        self.closed[why as usize].load(Ordering::Relaxed)
    }

    /// Counts one more connection as open, unless `max` are.
    pub(in crate::server) fn open_one(&self, max: usize) -> bool {
        // Relaxed, here and in `close_one`: only the number matters, and each change is one step.
        if self.open.fetch_add(1, Ordering::Relaxed) < max {
            return true;
        }
        self.close_one();
        self.refused_total.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Counts one less as open.
    pub(in crate::server) fn close_one(&self) {
        // Relaxed: see `open_one`. Likewise below.
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(in crate::server) fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::server) fn count_refused_address(&self) {
        self.refused_address.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::server) fn count_closed(&self, why: CloseReason) {
        self.closed[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(feature = "tls")]
    pub(in crate::server) fn count_refused_handshake(&self) {
        self.refused_handshake.fetch_add(1, Ordering::Relaxed);
    }
}
