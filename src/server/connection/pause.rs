//! Pauses a listener that cannot accept, and limits its log messages.

use std::io;
use std::time::{Duration, Instant};

/// Pause after `accept` failed for lack of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Minimum interval between messages that connections are refused or cannot be accepted.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Limits a log message to one per [`SAID_EVERY`].
#[derive(Debug, Default)]
pub(super) struct Throttle(Option<Instant>);

impl Throttle {
    /// Whether the message may be logged now. If so, the caller logs it.
    pub(super) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let again = self.0.is_none_or(|last| now.duration_since(last) >= SAID_EVERY);
        if again {
            self.0 = Some(now);
        }
        again
    }
}

/// The pause of a listener that cannot accept.
#[derive(Debug, Default)]
pub(in crate::server) struct Pause {
    warnings: Throttle,
    paused: bool,
}

impl Pause {
    /// A connection that failed before it was accepted needs no pause. After any other error, which may
    /// or may not pass, it waits rather than spin. New connections wait in the backlog.
    pub(in crate::server) async fn after(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
            return;
        }
        self.paused = true;
        if self.warnings.is_due() {
            tracing::warn!(%error, "cannot accept connections at the moment; new ones wait in the backlog");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    /// Notes that a connection was accepted.
    pub(in crate::server) fn is_over(&mut self) {
        if std::mem::take(&mut self.paused) {
            tracing::debug!("accepting connections again");
        }
    }
}
