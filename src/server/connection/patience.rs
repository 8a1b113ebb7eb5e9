//! The time that a client may stall: read nothing of what is pending.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::Sleep;

use crate::server::config::Config;
use crate::stream::Moment;

/// The patience with stalled clients, wherever their stream is written: in the writer, inside hyper over
/// HTTP/1.1, over HTTP/2. It is a time and not a number of rounds, so no ratio of two settings is too large for it.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Patience {
    after: Duration,
    /// While memory is short.
    when_short: Duration,
}

impl Patience {
    pub(in crate::server) fn new(config: &Config) -> Self {
        let after = config.stalled_after;
        // One whole round of comments.
        Self { after, when_short: after.min(config.keep_alive) }
    }

    /// Whether a client that has read nothing since `since` is stalled for too long.
    pub(in crate::server) fn is_over(self, since: Moment, now: Moment, memory_is_short: bool) -> bool {
        let limit = if memory_is_short { self.when_short } else { self.after };
        u128::from(now.since(since)) >= limit.as_millis()
    }

    /// Time that the system waits for acknowledgements of a client. Twice the patience: a client that
    /// reads nothing is normally disconnected, and counted, by the code that writes to it.
    pub(super) fn of_the_system(self) -> Duration {
        self.after.saturating_mul(2)
    }

    /// Time that an idle connection has to end.
    pub(super) fn at_the_end(self) -> Duration {
        self.after
    }

    /// A timer for a client that reads nothing from now on.
    pub(super) fn timer(self) -> Pin<Box<Sleep>> {
        Box::pin(tokio::time::sleep(self.after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_a_time_however_many_keep_alives_it_is() {
        for seconds in [1, 3, 60, 86_400] {
            let (keep_alive, stalled_after) = (Duration::from_millis(10), Duration::from_secs(seconds));
            let config = Config { keep_alive, stalled_after, ..Config::default() };
            let (patience, since) = (Patience::new(&config), Moment(500));
            let at = |ms: u64| Moment(500 + ms);
            assert!(!patience.is_over(since, at(seconds * 1000 - 1), false));
            assert!(patience.is_over(since, at(seconds * 1000), false));
            assert!(!patience.is_over(since, at(9), true) && patience.is_over(since, at(10), true));
        }
    }
}
