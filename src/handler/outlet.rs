//! The way to the client while a request is answered.

use core::future::poll_fn;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::protocol::{self, ProtocolVersion, RequestId};
use crate::request::{AskError, Environment, Keeper, PublishError, RequestStream};
use crate::session::Session;
use crate::sync::Arc;
use crate::wake::Waiter;

/// The way to the client on behalf of one request. Clones are the same way.
///
/// # Examples
///
/// ```
/// use ringmain::handler::{Context, Outlet};
/// use serde_json::json;
///
/// async fn work(outlet: Outlet) -> u64 {
///     for step in 0..3 {
///         if outlet.progress(f64::from(step), Some(3.0), None).is_err() {
///             break; // Nobody waits for the answer.
///         }
///     }
///     42
/// }
///
/// async fn call(context: Context) {
///     let answer = work(context.outlet().clone()).await;
///     context.respond(&json!({ "answer": answer }));
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Outlet {
    request: Arc<RequestStream>,
    home: Home,
}

/// What a request belongs to.
#[derive(Clone, Debug)]
enum Home {
    Session(Arc<Session>),
    /// It stands alone.
    Alone(Arc<Environment>),
}

impl Outlet {
    pub(super) fn in_session(session: Arc<Session>, request: Arc<RequestStream>) -> Self {
        Self { request, home: Home::Session(session) }
    }

    pub(super) fn alone(environment: Arc<Environment>, request: Arc<RequestStream>) -> Self {
        Self { request, home: Home::Alone(environment) }
    }

    fn keeper(&self) -> &dyn Keeper {
        match &self.home {
            Home::Session(session) => &**session,
            Home::Alone(environment) => &**environment,
        }
    }

    fn environment(&self) -> &Environment {
        match &self.home {
            Home::Session(session) => session.environment(),
            Home::Alone(environment) => environment,
        }
    }

    /// The session of the request; `None` if it stands alone.
    #[must_use]
    pub fn session(&self) -> Option<&Arc<Session>> {
        match &self.home {
            Home::Session(session) => Some(session),
            Home::Alone(_) => None,
        }
    }

    /// The stream of the request.
    #[cfg(feature = "rmcp")]
    pub(crate) fn stream(&self) -> &Arc<RequestStream> {
        &self.request
    }

    /// The ID of the request.
    #[must_use]
    pub fn id(&self) -> &RequestId {
        self.request.id()
    }

    /// The token under which the client wants to hear of progress.
    #[must_use]
    pub fn progress_token(&self) -> Option<&RequestId> {
        self.request.progress_token()
    }

    /// The protocol version that the request is answered in. For `initialize`: the one asked for if it is
    /// spoken here, else the latest.
    #[must_use]
    pub fn version(&self) -> ProtocolVersion {
        self.request.version()
    }

    /// Publishes a notification on the stream of the request. A client that accepts JSON alone does not get it, which
    /// is no error: it is counted in [`Traffic::not_accepted`](crate::session::Traffic::not_accepted).
    ///
    /// # Errors
    ///
    /// The request has its response or was cancelled, the notification is larger than its stream may retain, or
    /// `params` cannot be serialised.
    ///
    /// # Examples
    ///
    /// ```
    /// # use ringmain::handler::{Context, PublishError};
    /// use serde_json::json;
    ///
    /// fn tell(context: &Context) -> Result<(), PublishError> {
    ///     context.notify("notifications/message", &json!({ "level": "info", "data": "halfway" }))
    /// }
    /// ```
    pub fn notify(&self, method: &str, params: &impl Serialize) -> Result<(), PublishError> {
        let params = to_raw_value(params).map_err(|_| PublishError::Unserialisable)?;
        self.publish(|out| protocol::write_notification(out, method, Some(&params)))
    }

    /// Reports progress. Does nothing if the client gave no token for it.
    ///
    /// # Errors
    ///
    /// The request has its response or was cancelled: work on it may stop. Or the message is larger than the stream of
    /// the request may retain.
    ///
    /// # Examples
    ///
    /// ```
    /// # use ringmain::handler::Context;
    /// async fn count(context: Context) {
    ///     for n in 1..=3 {
    ///         if context.progress(f64::from(n), Some(3.0), None).is_err() {
    ///             return; // Nobody waits for the answer.
    ///         }
    ///     }
    ///     context.respond(&"three");
    /// }
    /// ```
    ///
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/utilities/progress#progress-flow
    //# The `progress` value MUST increase with each notification, even if the total is unknown.
    pub fn progress(
        &self,
        progress: f64,
        total: Option<f64>,
        message: Option<&str>,
    ) -> Result<(), PublishError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Progress<'a> {
            progress_token: &'a RequestId,
            progress: f64,
            #[serde(skip_serializing_if = "Option::is_none")]
            total: Option<f64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            message: Option<&'a str>,
        }
        let Some(progress_token) = self.progress_token() else {
            return if self.request.is_finished() { Err(PublishError::Closed) } else { Ok(()) };
        };
        self.notify("notifications/progress", &Progress { progress_token, progress, total, message })
    }

    /// Publishes one message on the stream of the request; `write` appends it, as one line of JSON. As for
    /// [`notify`](Self::notify), a client that accepts JSON alone does not get it.
    ///
    /// # Errors
    ///
    /// The request has its response or was cancelled, or the message is larger than its stream may retain.
    pub fn publish(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), PublishError> {
        self.request.publish(self.environment(), write).map(drop)
    }

    /// Publishes the response, which `write` appends as one line of JSON.
    pub(super) fn respond(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), PublishError> {
        self.request.respond(self.keeper(), write).map(drop)
    }

    /// Asks the client something on the stream of the request, and waits for its answer.
    ///
    /// # Errors
    ///
    /// The client answered with an error, the request or the session ended first, or the request has no session; or the
    /// question was not asked, because `params` cannot be serialised or are larger than the stream may retain.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the question; a late answer is ignored.
    pub async fn ask(&self, method: &str, params: &impl Serialize) -> Result<Box<RawValue>, AskError> {
        let Some(session) = self.session() else { return Err(AskError::NoSession) };
        let params = to_raw_value(params).map_err(AskError::Unserialisable)?;
        let write =
            |out: &mut Vec<u8>, id: &RequestId| protocol::write_request(out, id, method, Some(&params));
        session.ask(Some(&self.request), write).await
    }

    /// Ends the client's connection to this request, not the request: the client comes back for the rest. It
    /// is told after how long. Does nothing for clients of versions that are not told where to go on, for those that
    /// accept JSON alone, and for a request that stands alone.
    ///
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
    //# After the server has sent an SSE event with an event ID to the client, the server MAY close the connection
    //# (without terminating the SSE stream) at any time in order to avoid holding a long-lived connection.
    pub fn close_connection(&self) -> bool {
        self.version().primes()
            && self.request.is_resumable()
            && !self.request.is_response_only()
            && self.request.stream().hang_up()
    }

    /// Whether the request was taken back, by the client or by the end of its session, or of its connection if it has
    /// none.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.request.is_cancelled()
    }

    /// Waits until the request is taken back.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn cancelled(&self) {
        self.request.cancelled().await;
    }

    /// Waits until a connected client is less than `behind` events behind. Does not wait for an absent client,
    /// nor where sessions are made with another policy than [`LagPolicy::Wait`](crate::stream::LagPolicy::Wait).
    /// Bound it with a timer.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn room(&self, behind: u64) {
        let mut waiter = Waiter::new();
        poll_fn(|context| self.request.stream().poll_room(&mut waiter, behind, context)).await;
    }
}
