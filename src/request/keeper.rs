//! What is done around a request, beside its stream.

use super::ask::Ask;
use super::environment::Environment;
use super::stream::RequestStream;
use crate::protocol::ProtocolVersion;

/// Whoever a request belongs to: its session, or, if it stands alone, its [`Environment`].
pub(crate) trait Keeper {
    /// Limits, time and counts.
    fn environment(&self) -> &Environment;

    /// Notes the version that the result of `initialize` agrees on. Called before that result is published.
    fn agree(&self, version: ProtocolVersion);

    /// Notes that a request is finished. Called once for each, by the one who finished it. Returns its questions that
    /// have no answer, which are dropped under no lock: that wakes who asked.
    fn settle(&self, request: &RequestStream) -> Vec<Ask>;
}

/// Nobody keeps a request that stands alone.
impl Keeper for Environment {
    fn environment(&self) -> &Environment {
        self
    }

    fn agree(&self, _: ProtocolVersion) {}

    fn settle(&self, _: &RequestStream) -> Vec<Ask> {
        Vec::new()
    }
}
