//! Warns the operator, rarely, that a host or an origin is refused.
//!
//! A host or an origin that is not allowed was often just forgotten. The warning names the setting. It is so rare that
//! a flood of such requests does not fill the log, and it does not contain the value, which the client chose.

use crate::protocol::Refusal;
use crate::stream::Moment;
use crate::sync::{AtomicU64, Ordering};

/// Milliseconds between two warnings that a host or an origin is not allowed.
const WARN_EVERY: u64 = 10_000;

/// When the operator was last warned of a host, and of an origin.
#[derive(Debug, Default)]
pub(in crate::server) struct Warned {
    host: AtomicU64,
    origin: AtomicU64,
}

impl Warned {
    /// Warns if `refusal` is about a host or an origin, and the last such warning is old enough.
    pub(super) fn note(&self, refusal: &Refusal, Moment(now): Moment) {
        match refusal {
            Refusal::BadHost if is_time(&self.host, now) => {
                tracing::warn!(
                    "refused a Host that is not allowed; to allow it, set allow_host (in the library: Allowed::hosts)"
                );
            }
            Refusal::BadOrigin if is_time(&self.origin, now) => {
                tracing::warn!(
                    "refused an Origin that is not allowed; to allow it, set allow_origin, or cors_origin if its pages read the \
                     answers (in the library: Allowed::origins, Allowed::cors)"
                );
            }
            _ => {}
        }
    }
}

/// Whether the last warning is old enough. If so, the caller warns now.
fn is_time(next: &AtomicU64, now: u64) -> bool {
    // Relaxed: a time that orders nothing. Of concurrent callers, one gets `true`.
    next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| (now >= next).then_some(now + WARN_EVERY))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_at_once_and_then_now_and_then() {
        let next = AtomicU64::default();
        let said = |from: u64, to: u64| (from..to).filter(|now| is_time(&next, *now)).count();
        assert_eq!(said(0, 1), 1);
        assert_eq!(said(1, WARN_EVERY), 0);
        assert_eq!(said(WARN_EVERY, 3 * WARN_EVERY), 2);
    }
}
