//! The codes of JSON-RPC errors: the numbers, and which of them a refusal carries.

/// JSON-RPC: the body is not JSON.
pub(crate) const PARSE_ERROR: i32 = -32700;
/// JSON-RPC: the body is JSON, but not a message.
pub(crate) const INVALID_REQUEST: i32 = -32600;
/// JSON-RPC: the method does not exist.
pub(crate) const METHOD_NOT_FOUND: i32 = -32601;
/// JSON-RPC: the parameters do not fit the method.
pub(crate) const INVALID_PARAMS: i32 = -32602;
/// JSON-RPC: the server failed.
pub(crate) const INTERNAL_ERROR: i32 = -32603;
/// The request was cancelled; the number that the Language Server Protocol uses. A response for clients that can be
/// told in no other way.
pub(crate) const REQUEST_CANCELLED: i32 = -32800;
/// A rule of the transport is broken, or a limit is reached; the number that the official TypeScript SDK uses.
pub(crate) const BAD_TRANSPORT_REQUEST: i32 = -32000;
/// The session is gone; the number that the official TypeScript SDK uses.
pub(crate) const SESSION_NOT_FOUND: i32 = -32001;

/// What the JSON-RPC error of a refusal says.
///
/// The table of refusals names one of these and no number. Which number it is depends on the protocol version and is
/// decided in [`number`](Self::number) alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// The body cannot be read as JSON.
    ParseError,
    /// The body is not a message that may be sent here.
    InvalidRequest,
    /// A rule of the transport is broken, or a limit is reached.
    Transport,
    /// There is no such session; the client has to begin a new one.
    SessionGone,
    /// The server failed.
    Internal,
}

impl Code {
    /// Returns the number, which is the same in every protocol version of the session era.
    pub(super) const fn number(self) -> i32 {
        match self {
            Self::ParseError => PARSE_ERROR,
            Self::InvalidRequest => INVALID_REQUEST,
            Self::Transport => BAD_TRANSPORT_REQUEST,
            Self::SessionGone => SESSION_NOT_FOUND,
            Self::Internal => INTERNAL_ERROR,
        }
    }
}
