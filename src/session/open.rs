//! The requests of one session: those being answered, and those whose responses may still be fetched.
//!
//! What is here is behind the lock of the session. Beside it stands, outside of the lock, when a sweep has to look.

use core::any::Any;

use thin_vec::ThinVec;

use super::responses::Responses;
use super::standalone::Lines;
use crate::request::{Ask, Asks, RequestStream};
use crate::stream::Moment;
use crate::sync::{Arc, AtomicU32, Ordering};

/// The number that stands for the standalone stream where streams are numbered.
pub(super) const STANDALONE: u32 = 0;

/// What a handler keeps with a session.
pub type Attachment = Arc<dyn Any + Send + Sync>;

/// What a session looks like from outside, for logs and limits.
///
/// # Examples
///
/// ```
/// # use ringmain::session::{Sessions, Settings};
/// # use ringmain::topic::Clock;
/// # let sessions = Sessions::new(Settings::default(), Clock::default());
/// # let session = sessions.create(None);
/// let summary = session.summary();
/// assert_eq!((summary.in_flight, summary.retained, summary.asks), (0, 0, 0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Requests that have no response yet.
    pub in_flight: usize,
    /// Responses that may still be fetched.
    pub retained: usize,
    /// Questions to the client without an answer yet.
    pub asks: usize,
}

/// The requests of a session that are being answered, or whose answers may still be fetched.
#[derive(Default)]
pub(super) struct Open {
    pub(super) streams_opened: u32,
    pub(super) asked: u32,
    pub(super) in_flight: ThinVec<Arc<RequestStream>>,
    /// What most sessions have nothing of, most of the time: then it is not there.
    pub(super) extras: Option<Box<Extras>>,
    /// In a box, since many handlers keep nothing here.
    pub(super) attachment: Option<Box<Attachment>>,
}

#[derive(Debug, Default)]
pub(super) struct Extras {
    pub(super) responses: Responses,
    pub(super) asks: Asks,
    /// Guarded by the lock of [`Open`].
    pub(super) lines: Lines,
}

impl Open {
    pub(super) fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// The ID of the next question to the client.
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic#requests
    //# The request ID MUST NOT have been previously used by the requestor within the same session.
    pub(super) fn next_question(&mut self) -> i64 {
        self.asked = self.asked.wrapping_add(1);
        i64::from(self.asked)
    }

    /// The stream with this number, if a client can be connected to it: a request of a batch has none of its own.
    pub(super) fn find(&self, number: u32) -> Option<&Arc<RequestStream>> {
        let is_it = |request: &&Arc<RequestStream>| request.number() == number && request.batch().is_none();
        let in_flight = self.in_flight.iter().find(is_it);
        in_flight.or_else(|| self.extras.as_ref()?.responses.get(number))
    }

    /// Moves a request to the finished ones, and returns its questions: to be dropped behind the lock, since that wakes
    /// who asked. `None` if it is not in flight.
    pub(super) fn finish(&mut self, number: u32, now: Moment) -> Option<Vec<Ask>> {
        let index = self.in_flight.iter().position(|request| request.number() == number)?;
        let request = self.in_flight.swap_remove(index);
        let extras = self.extras();
        extras.responses.insert(request, now);
        Some(extras.asks.take_of(number))
    }

    /// Takes a stream out, wherever it stands.
    pub(super) fn remove(&mut self, number: u32) -> Option<Arc<RequestStream>> {
        let in_flight = self.in_flight.iter().position(|request| request.number() == number);
        let request = match in_flight {
            Some(index) => Some(self.in_flight.swap_remove(index)),
            None => self.extras.as_mut().and_then(|extras| extras.responses.remove(number)),
        };
        self.tidy();
        request
    }

    /// An idle session owns no lists.
    pub(super) fn tidy(&mut self) {
        if self.in_flight.is_empty() {
            self.in_flight = ThinVec::new();
        }
        self.shrink();
    }

    /// Gives the extras back if there is nothing in them.
    fn shrink(&mut self) {
        let is_empty = |extras: &Extras| {
            extras.responses.is_empty() && extras.asks.is_empty() && extras.lines.is_plain()
        };
        if self.extras.as_deref().is_some_and(is_empty) {
            self.extras = None;
        }
    }

    /// Takes out all requests and questions of a session that ended, to be ended behind the lock. Connections of its
    /// standalone stream that stand by are told.
    pub(super) fn end(&mut self) -> (impl Iterator<Item = Arc<RequestStream>> + use<>, Asks) {
        let (responses, asks) = self.extras.as_mut().map_or_else(Default::default, |extras| {
            extras.lines.end_all();
            (core::mem::take(&mut extras.responses), core::mem::take(&mut extras.asks))
        });
        self.shrink();
        (core::mem::take(&mut self.in_flight).into_iter().chain(responses.into_requests()), asks)
    }

    /// Calls `act` with the lines of the standalone stream, which are kept only while there is something in them.
    pub(super) fn with_lines<R>(&mut self, act: impl FnOnce(&mut Lines) -> R) -> R {
        if let Some(extras) = &mut self.extras {
            let result = act(&mut extras.lines);
            self.shrink();
            return result;
        }
        let mut lines = Lines::default();
        let result = act(&mut lines);
        if !lines.is_plain() {
            self.extras().lines = lines;
        }
        result
    }

    /// How many there are.
    pub(super) fn summary(&self) -> Summary {
        let (retained, asks) =
            self.extras.as_ref().map_or((0, 0), |extras| (extras.responses.len(), extras.asks.len()));
        Summary { in_flight: self.in_flight.len(), retained, asks }
    }

    /// Each stream in flight that retains what may go: that of a batch does not.
    pub(super) fn transient(&self) -> impl Iterator<Item = &Arc<RequestStream>> {
        self.in_flight.iter().filter(|request| !request.is_carrier())
    }

    /// Each stream that may retain more than a response.
    pub(super) fn backlogs(&self) -> impl Iterator<Item = &Arc<RequestStream>> {
        self.transient().chain(self.extras.iter().flat_map(|extras| extras.responses.backlogs()))
    }
}

/// What a sweep has to look at the requests of a session for comes at this moment, or never: in ticks of 64 ms.
///
/// Changed under the lock of the requests, and read by the sweep without it, beside the rest that a sweep reads.
pub(super) struct Due(AtomicU32);

impl Due {
    const NEVER: u32 = u32::MAX;

    pub(super) fn never() -> Self {
        Self(AtomicU32::new(Self::NEVER))
    }

    fn tick(moment: Moment) -> u32 {
        // Rounded down, so that the look comes early; it decides by the moment itself.
        u32::try_from(moment.0 >> 6).unwrap_or(Self::NEVER).min(Self::NEVER - 1)
    }

    /// Whether a sweep at `now` has to look; `all` makes it look early.
    pub(super) fn is_over(&self, now: Moment, all: bool) -> bool {
        // Relaxed, here and below: a sweep that reads it late looks at the next time.
        let due = self.0.load(Ordering::Relaxed);
        due != Self::NEVER && (all || due <= Self::tick(now))
    }

    /// Whether there is nothing to look for.
    pub(super) fn is_never(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::NEVER
    }

    /// Has the next look come at `moment` at the latest.
    pub(super) fn bring_forward(&self, moment: Moment) {
        let tick = Self::tick(moment);
        if tick < self.0.load(Ordering::Relaxed) {
            self.0.store(tick, Ordering::Relaxed);
        }
    }

    pub(super) fn set(&self, moment: Option<Moment>) {
        self.0.store(moment.map_or(Self::NEVER, Self::tick), Ordering::Relaxed);
    }
}
