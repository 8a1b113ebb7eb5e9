//! What a listener does that cannot accept, and how often it says so.

use std::io;
use std::time::{Duration, Instant};

/// How long to wait after `accept` failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often it is said, at most, that connections are refused, or cannot be accepted.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Keeps a message that could be true a thousand times a second to once a minute.
#[derive(Debug, Default)]
pub(super) struct Throttle(Option<Instant>);

impl Throttle {
    /// Whether the message may be said now; then it is about to be.
    pub(super) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let again = self.0.is_none_or(|last| now.duration_since(last) >= SAID_EVERY);
        if again {
            self.0 = Some(now);
        }
        again
    }
}

/// What becomes of a listener that cannot accept.
#[derive(Debug, Default)]
pub(in crate::server) struct Pause {
    warnings: Throttle,
    paused: bool,
}

impl Pause {
    /// A connection that failed before it was accepted is the client's affair; anything else is ours, and passes
    /// or does not: wait a moment rather than spin. Who connects meanwhile waits in the backlog.
    pub(in crate::server) async fn after(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
            return;
        }
        self.paused = true;
        if self.warnings.is_due() {
            tracing::warn!(%error, "cannot accept connections for the moment; those who connect wait");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    /// A connection was accepted.
    pub(in crate::server) fn is_over(&mut self) {
        if std::mem::take(&mut self.paused) {
            tracing::debug!("connections are accepted again");
        }
    }
}
