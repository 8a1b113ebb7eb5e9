//! The responder of a request.

use core::ops::Deref;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::error::RpcError;
use super::outlet::Outlet;
use crate::protocol;
use crate::request::{Environment, PublishError, RequestStream};
use crate::session::Session;
use crate::sync::Arc;

/// The responder of one request, which it answers exactly once.
///
/// Dropped without an answer, for whatever reason, it answers that the server failed.
///
/// # Examples
///
/// ```
/// use ringmain::handler::{Context, Request, RpcError};
/// use serde_json::json;
///
/// async fn answer(request: Request, context: Context) {
///     match request.method() {
///         "ping" => context.respond(&json!({})),
///         "tools/list" => context.respond(&json!({ "tools": [] })),
///         method => context.fail(&RpcError::method_not_found(method)),
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Context {
    outlet: Outlet,
    answered: bool,
}

impl Context {
    /// Makes the responder of a request of `session`.
    #[must_use]
    pub(crate) fn new(session: Arc<Session>, request: Arc<RequestStream>) -> Self {
        Self { outlet: Outlet::in_session(session, request), answered: false }
    }

    /// Makes the responder of a request that stands alone: see [`RequestStream::alone`].
    #[must_use]
    #[doc(hidden)]
    pub fn alone(environment: Arc<Environment>, request: Arc<RequestStream>) -> Self {
        Self { outlet: Outlet::alone(environment, request), answered: false }
    }

    /// The way to the client, to be used while the answer is worked out elsewhere.
    #[must_use]
    pub fn outlet(&self) -> &Outlet {
        &self.outlet
    }

    /// Answers with a result.
    pub fn respond(self, result: &impl Serialize) {
        match to_raw_value(result) {
            Ok(result) => self.respond_raw(&result),
            Err(error) => self.fail(&RpcError::internal(error.to_string())),
        }
    }

    /// Answers with a result that is JSON already.
    pub fn respond_raw(self, result: &RawValue) {
        let id = self.id().clone();
        self.respond_with(|out| protocol::write_result(out, &id, result));
    }

    /// Answers with an error.
    pub fn fail(self, error: &RpcError) {
        let id = self.id().clone();
        self.respond_with(|out| {
            protocol::write_error(out, Some(&id), error.code, &error.message, error.data.as_deref());
        });
    }

    /// Answers with a whole message, which `write` appends as one line of JSON. Its ID is the caller's care.
    pub fn respond_with(self, write: impl FnOnce(&mut Vec<u8>)) {
        // A request that was cancelled meanwhile takes no response; one that is too large was answered.
        let _ = self.try_respond_with(write);
    }

    /// Answers like [`respond_with`](Self::respond_with), and returns why it cannot.
    ///
    /// # Errors
    ///
    /// The request was cancelled or its session ended; or the response is larger than its stream may retain. Then
    /// the client got an error in its place.
    pub(crate) fn try_respond_with(mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), PublishError> {
        self.answered = true;
        self.outlet.respond(write)
    }
}

impl Deref for Context {
    type Target = Outlet;

    fn deref(&self) -> &Outlet {
        &self.outlet
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if !self.answered {
            let id = self.id();
            let _ = self.outlet.respond(|out| {
                let message = "the server did not answer this request";
                protocol::write_error(out, Some(id), protocol::INTERNAL_ERROR, message, None);
            });
        }
    }
}
