//! Counts the bytes of request bodies that are still being received.
//!
//! An incomplete body is memory that a client holds without a request. So it is counted, over all
//! connections and streams, and beyond a limit requests are refused until some of it is released.

use crossbeam_utils::CachePadded;

use crate::protocol::Refusal;
use crate::sync::{AtomicUsize, Ordering};

/// Bytes of all bodies that are not complete.
#[derive(Debug, Default)]
pub(in crate::server) struct Pending(CachePadded<AtomicUsize>);

/// The share of one body, released when it is dropped.
pub(super) struct PendingShare<'a> {
    pending: &'a Pending,
    limit: usize,
    bytes: usize,
}

impl Pending {
    /// Begins the share of one body. It cannot grow while all bodies together have more than `limit` bytes.
    pub(super) fn share(&self, limit: usize) -> PendingShare<'_> {
        PendingShare { pending: self, limit, bytes: 0 }
    }
}

impl PendingShare<'_> {
    /// Adds `bytes` to the share.
    ///
    /// # Errors
    ///
    /// All bodies together have more than the limit.
    pub(super) fn add(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.bytes += bytes;
        // Relaxed: only the number matters, and each change is one step.
        let before = self.pending.0.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.limit { Err(Refusal::Busy) } else { Ok(()) }
    }
}

impl Drop for PendingShare<'_> {
    fn drop(&mut self) {
        // Relaxed: as in `add`.
        self.pending.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
