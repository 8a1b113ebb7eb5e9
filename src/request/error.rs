//! Why a message was not published.

use core::fmt;

use crate::ring::Closed;

/// Why a message was not published.
///
/// # Examples
///
/// ```
/// # use ringmain::session::{Sessions, Settings};
/// # use ringmain::topic::Clock;
/// # let sessions = Sessions::new(Settings::default(), Clock::default());
/// use ringmain::session::PublishError;
///
/// # let session = sessions.create(None);
/// sessions.terminate(&session);
/// assert_eq!(session.publish(|out| out.extend_from_slice(b"{}")), Err(PublishError::Closed));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// The session ended, or the request has its response or was cancelled.
    Closed,
    /// The client takes nothing but the response to its request.
    NotAccepted,
    /// The message alone is larger than all that its stream may retain; on the stream of a batch, with what is there.
    TooLarge {
        /// How many bytes the event is.
        bytes: usize,
        /// How many the stream may retain.
        limit: u64,
    },
    /// Its parameters cannot be serialised: their type fails to, or has keys that are no strings.
    Unserialisable,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the session or the request has ended"),
            Self::NotAccepted => f.write_str("the client accepts only the response"),
            Self::Unserialisable => f.write_str("the parameters of the message cannot be serialised"),
            Self::TooLarge { bytes, limit } => {
                write!(
                    f,
                    "an event of {bytes} bytes is larger than the {limit} bytes that its stream may retain"
                )
            }
        }
    }
}

impl std::error::Error for PublishError {}

impl<T> From<Closed<T>> for PublishError {
    fn from(_: Closed<T>) -> Self {
        Self::Closed
    }
}
