//! The errors that requests are answered with.

use core::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::protocol;

/// A JSON-RPC error.
///
/// # Examples
///
/// ```
/// use ringmain::handler::RpcError;
///
/// let error = RpcError::invalid_params("count must be positive");
/// assert_eq!(error.to_string(), "count must be positive (-32602)");
/// ```
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RpcError {
    /// The code; JSON-RPC reserves -32768 to -32000.
    pub code: i32,
    /// What went wrong, in a sentence.
    pub message: String,
    /// Whatever else the client may want to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

impl RpcError {
    /// Makes an error without data.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// The method is not known.
    #[must_use]
    pub fn method_not_found(method: &str) -> Self {
        Self::new(protocol::METHOD_NOT_FOUND, format!("method not found: {method}"))
    }

    /// The parameters do not fit the method.
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(protocol::INVALID_PARAMS, message)
    }

    /// The server failed.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(protocol::INTERNAL_ERROR, message)
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for RpcError {}
