//! The time at which a connection reaches its maximum age, and its streams are told to reconnect.

use std::time::Duration;

use crate::stream::Moment;

/// When a connection reaches its maximum age: tenths of a second since the server's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Ends(u32);

impl Ends {
    /// No maximum age.
    pub(in crate::server) const NEVER: Self = Self(u32::MAX);

    pub(in crate::server) fn at(moment: Moment) -> Self {
        Self(u32::try_from(moment.0.div_ceil(100)).unwrap_or(u32::MAX))
    }

    pub(in crate::server) fn has_come(self, now: Moment) -> bool {
        self != Self::NEVER && now.0 / 100 >= u64::from(self.0)
    }

    /// Time left; `None` is for ever.
    pub(in crate::server) fn after(self, now: Moment) -> Option<Duration> {
        (self != Self::NEVER).then(|| Duration::from_millis((u64::from(self.0) * 100).saturating_sub(now.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_come_when_it_is_reached_and_never_does_not_come() {
        assert!(!Ends::NEVER.has_come(Moment(u64::MAX)));
        assert!(
            Ends::at(Moment(5000)).has_come(Moment(5000)) && !Ends::at(Moment(5000)).has_come(Moment(4900))
        );
    }
}
