//! The application's side of a message.
//!
//! The edge gives each message of a client to a [`Handler`]. A request comes with a [`Context`], which is the
//! duty to answer it: whatever becomes of the handler, the client gets exactly one response. Through the
//! context the handler reports progress, notifies, asks the client, and learns that it need not go on.
//!
//! A client that loses its connection has not cancelled anything: the handler goes on, and what it publishes
//! waits for the client to come back.
//!
//! # Examples
//!
//! ```
//! use ringmain::handler::{Context, Handler, Request, RpcError};
//! use serde_json::json;
//!
//! struct Hello;
//!
//! impl Handler for Hello {
//!     async fn request(&self, request: Request, context: Context) {
//!         let version = context.version();
//!         match request.method() {
//!             "initialize" => context.respond(&json!({
//!                 "protocolVersion": version.as_str(),
//!                 "capabilities": {},
//!                 "serverInfo": { "name": "hello", "version": "1" },
//!             })),
//!             "ping" => context.respond(&json!({})),
//!             method => context.fail(&RpcError::method_not_found(method)),
//!         }
//!     }
//! }
//! ```

use core::fmt;
use core::future::{Future, poll_fn, ready};
use core::ops::{Deref, Range};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::protocol::{self, Message, ProtocolVersion, Refusal, RequestId, RequestMessage};
use crate::session::{AskError, PublishError, RequestStream, Session};
use crate::sync::Arc;
use crate::wake::Waiter;

/// Answers the messages of clients.
///
/// One handler serves all sessions. What belongs to one session it keeps with that session
/// ([`Session::attach`]).
pub trait Handler: Send + Sync + 'static {
    /// Answers a request, `initialize` among them. The future runs to its end even if the client's connection
    /// breaks; it is dropped only if the process stops.
    fn request(&self, request: Request, context: Context) -> impl Future<Output = ()> + Send;

    /// Takes a notification. A cancellation has taken effect already. Does nothing by default.
    fn notification(
        &self,
        notification: Notification,
        session: Arc<Session>,
    ) -> impl Future<Output = ()> + Send {
        let _ = (notification, session);
        ready(())
    }

    /// Takes the client's answer to a question. By default it goes to whoever waits in [`Outlet::ask`].
    fn response(&self, response: Response, session: &Arc<Session>) {
        response.deliver(session);
    }

    /// Learns that a session ended. Does nothing by default.
    fn closed(&self, session: &Session) {
        let _ = session;
    }
}

impl<H: Handler> Handler for Arc<H> {
    fn request(&self, request: Request, context: Context) -> impl Future<Output = ()> + Send {
        (**self).request(request, context)
    }

    fn notification(
        &self,
        notification: Notification,
        session: Arc<Session>,
    ) -> impl Future<Output = ()> + Send {
        (**self).notification(notification, session)
    }

    fn response(&self, response: Response, session: &Arc<Session>) {
        (**self).response(response, session);
    }

    fn closed(&self, session: &Session) {
        (**self).closed(session);
    }
}

/// A message as it came in, with its envelope read and its insides untouched.
#[derive(Clone, Debug)]
pub struct Inbound {
    body: Bytes,
    method: Method,
    params: Option<Range<usize>>,
}

#[derive(Clone, Debug)]
enum Method {
    /// Stands in the body as it is.
    Plain(Range<usize>),
    /// Was written with escapes.
    Escaped(Box<str>),
}

impl Inbound {
    fn new(body: &Bytes, method: &str, params: Option<&RawValue>) -> Self {
        let method = range_of(body, method).map_or_else(|| Method::Escaped(method.into()), Method::Plain);
        Self { body: body.clone(), method, params: params.and_then(|params| range_of(body, params.get())) }
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &str {
        match &self.method {
            Method::Plain(range) => text(&self.body[range.clone()]),
            Method::Escaped(method) => method,
        }
    }

    /// The parameters as JSON text, if there are any.
    #[must_use]
    pub fn params_json(&self) -> Option<&str> {
        self.params.clone().map(|range| text(&self.body[range]))
    }

    /// Reads the parameters; absent ones read like an empty object.
    ///
    /// # Errors
    ///
    /// Invalid params, with what is wrong, if they do not fit `T`.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T, RpcError> {
        serde_json::from_str(self.params_json().unwrap_or("{}"))
            .map_err(|error| RpcError::invalid_params(error.to_string()))
    }

    /// The whole message as it came in.
    #[must_use]
    pub fn json(&self) -> &Bytes {
        &self.body
    }
}

/// Where `part`, borrowed from `body`, stands in it; `None` if it is borrowed from elsewhere.
fn range_of(body: &Bytes, part: &str) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(body.as_ptr().addr())?;
    (start + part.len() <= body.len()).then(|| start..start + part.len())
}

fn text(bytes: &[u8]) -> &str {
    // Checked when the envelope was read; checking again costs less than an unsafe block does.
    str::from_utf8(bytes).unwrap_or_default()
}

/// A request of the client.
#[derive(Clone, Debug)]
pub struct Request(Inbound);

/// A notification of the client.
#[derive(Clone, Debug)]
pub struct Notification(Inbound);

impl Deref for Request {
    type Target = Inbound;

    fn deref(&self) -> &Inbound {
        &self.0
    }
}

impl Deref for Notification {
    type Target = Inbound;

    fn deref(&self) -> &Inbound {
        &self.0
    }
}

/// The client's answer to a question.
#[derive(Clone, Debug)]
pub struct Response {
    body: Bytes,
}

impl Response {
    /// The whole message as it came in.
    #[must_use]
    pub fn json(&self) -> &Bytes {
        &self.body
    }

    /// Hands the answer to whoever asked through [`Outlet::ask`]. False if nobody waits for it.
    pub fn deliver(&self, session: &Session) -> bool {
        match Message::parse(&self.body) {
            Ok(Message::Response { id, outcome }) => session.answer(&id, outcome),
            _ => false,
        }
    }
}

/// A message of the client, as the edge hands it on.
#[derive(Debug)]
pub enum Incoming {
    /// Expects a response.
    Request {
        /// The message.
        request: Request,
        /// Its ID.
        id: RequestId,
        /// The token under which the client wants to hear of progress.
        progress_token: Option<RequestId>,
        /// For `initialize`: the version it asks for if that is spoken here, else the latest.
        wants: Option<ProtocolVersion>,
    },
    /// Expects nothing.
    Notification {
        /// The message.
        notification: Notification,
        /// The request that it takes back, if it is a cancellation.
        cancels: Option<RequestId>,
    },
    /// Answers a question.
    Response(Response),
}

impl Incoming {
    /// Reads the envelope of a body.
    ///
    /// # Errors
    ///
    /// What is wrong with it, to be answered to the client.
    pub fn parse(body: Bytes) -> Result<Self, Refusal> {
        Ok(match Message::parse(&body)? {
            Message::Request(RequestMessage { id, method, params }) => {
                let wants = (method == "initialize").then(|| {
                    let wanted = protocol::requested_version(params);
                    wanted
                        .and_then(|version| ProtocolVersion::parse(&version))
                        .unwrap_or(ProtocolVersion::LATEST)
                });
                let request = Request(Inbound::new(&body, &method, params));
                Self::Request { request, id, progress_token: protocol::progress_token(params), wants }
            }
            Message::Notification { method, params } => {
                let cancels = match &*method {
                    "notifications/cancelled" => protocol::cancelled_request_id(params),
                    _ => None,
                };
                Self::Notification {
                    notification: Notification(Inbound::new(&body, &method, params)),
                    cancels,
                }
            }
            Message::Response { .. } => Self::Response(Response { body }),
        })
    }
}

/// A JSON-RPC error.
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
        Self::new(-32601, format!("method not found: {method}"))
    }

    /// The parameters do not fit the method.
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(-32602, message)
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

/// The way to the client on behalf of one request. Clones are the same way.
#[derive(Clone, Debug)]
pub struct Outlet {
    session: Arc<Session>,
    request: Arc<RequestStream>,
}

impl Outlet {
    /// The session of the request.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.session
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

    /// Publishes a notification on the stream of the request. False if the request is over, or the message larger
    /// than its stream may retain.
    pub fn notify(&self, method: &str, params: &impl Serialize) -> bool {
        let Ok(params) = to_raw_value(params) else { return false };
        self.publish(|out| protocol::write_notification(out, method, Some(&params)))
    }

    /// Reports progress, if the client gave a token for it. False if it did not, or the request is over.
    ///
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/utilities/progress#progress-flow
    //# The `progress` value MUST increase with each notification, even if the total is unknown.
    pub fn progress(&self, progress: f64, total: Option<f64>, message: Option<&str>) -> bool {
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
        let Some(progress_token) = self.progress_token() else { return false };
        self.notify("notifications/progress", &Progress { progress_token, progress, total, message })
    }

    /// Publishes one message on the stream of the request; `write` appends it, as one line of JSON. False if
    /// the request is over, or the message larger than its stream may retain.
    pub fn publish(&self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.try_publish(write).is_ok()
    }

    /// Publishes like [`publish`](Self::publish), and says what is wrong if it cannot.
    ///
    /// # Errors
    ///
    /// The request is over, or the message is larger than its stream may retain.
    pub fn try_publish(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), PublishError> {
        self.session.publish_on(&self.request, write).map(drop)
    }

    /// Asks the client something on the stream of the request, and waits for its answer.
    ///
    /// # Errors
    ///
    /// The client answered with an error, or the request or the session ended first.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the question; a late answer is ignored.
    pub async fn ask(&self, method: &str, params: &impl Serialize) -> Result<Box<RawValue>, AskError> {
        let Ok(params) = to_raw_value(params) else { return Err(AskError::Closed) };
        let write =
            |out: &mut Vec<u8>, id: &RequestId| protocol::write_request(out, id, method, Some(&params));
        self.session.ask(Some(&self.request), write).await
    }

    /// Ends the client's connection to this request, not the request: the client comes back for the rest. It
    /// is told after how long. Does nothing for clients of versions that are not told where to go on.
    ///
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
    //# After the server has sent an SSE event with an event ID to the client, the server MAY close the connection
    //# (without terminating the SSE stream) at any time in order to avoid holding a long-lived connection.
    pub fn close_connection(&self) -> bool {
        self.version().primes() && self.request.stream().hang_up()
    }

    /// Whether the request was taken back, by the client or by the end of its session.
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
        let mut watch = Watch { outlet: self, waiter: Waiter::new() };
        poll_fn(|context| self.request.poll_cancelled(&mut watch.waiter, context)).await;
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

/// A wait for the end of a request, which leaves nothing behind when it is given up.
struct Watch<'a> {
    outlet: &'a Outlet,
    waiter: Waiter,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.outlet.request.unwatch();
    }
}

/// The duty to answer one request.
///
/// Dropped without an answer, for whatever reason, it answers that the server failed.
#[derive(Debug)]
pub struct Context {
    outlet: Outlet,
    answered: bool,
}

impl Context {
    /// Takes on the duty to answer `request`.
    #[must_use]
    pub fn new(session: Arc<Session>, request: Arc<RequestStream>) -> Self {
        Self { outlet: Outlet { session, request }, answered: false }
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

    /// Answers like [`respond_with`](Self::respond_with), and says what is wrong if it cannot.
    ///
    /// # Errors
    ///
    /// The request was cancelled or its session ended; or the response is larger than its stream may retain. Then
    /// the client got an error in its place.
    pub fn try_respond_with(mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), PublishError> {
        self.answered = true;
        self.outlet.session.respond(&self.outlet.request, write).map(drop)
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
            let _ = self.outlet.session.respond(&self.outlet.request, |out| {
                let message = "the server did not answer this request";
                protocol::write_error(out, Some(id), protocol::INTERNAL_ERROR, message, None);
            });
        }
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use super::*;
    use crate::session::{Sessions, Settings};
    use crate::stream::Clock;

    fn context() -> (Sessions, Context) {
        let sessions = Sessions::new(Settings::default(), Clock::default());
        let session = sessions.create(0);
        let version = ProtocolVersion::LATEST;
        let request = session.open_request(RequestId::from(7), Some(RequestId::from(3)), version).unwrap();
        (sessions, Context::new(session, request))
    }

    fn answer(outlet: &Outlet, act: impl FnOnce()) -> String {
        let mut connection = outlet.session.connect_request(outlet.request.clone());
        act();
        String::from_utf8(connection.take_answer().expect("it is answered").to_vec()).unwrap()
    }

    #[test]
    fn a_dropped_duty_is_an_error_and_not_silence() {
        let (_sessions, context) = context();
        let outlet = context.outlet().clone();
        let text = answer(&outlet, || drop(context));
        assert!(text.contains(r#""id":7"#) && text.contains("-32603"), "{text}");
    }

    #[test]
    fn results_and_errors_carry_the_id() {
        let (_sessions, context) = context();
        let outlet = context.outlet().clone();
        let text = answer(&outlet, || context.respond(&serde_json::json!({"a": 1})));
        assert_eq!(text, r#"{"jsonrpc":"2.0","id":7,"result":{"a":1}}"#);
        assert!(!outlet.progress(1.0, None, None), "the request is over");
    }

    #[test]
    fn the_envelope_is_read_and_the_insides_are_not_touched() {
        let body = Bytes::from_static(
            br#"{"jsonrpc":"2.0","id":"x","method":"tools\/call","params":{"a": [1, 2]}}"#,
        );
        let Ok(Incoming::Request { request, id, .. }) = Incoming::parse(body) else {
            panic!("it is a request")
        };
        assert_eq!(request.method(), "tools/call");
        assert_eq!(request.params_json(), Some(r#"{"a": [1, 2]}"#));
        assert_eq!(id, RequestId::String("x".into()));
        assert_eq!(request.params::<serde_json::Value>().unwrap()["a"][1], 2);
        assert_eq!(request.params::<Vec<u8>>().unwrap_err().code, -32602);
    }

    #[test]
    fn a_cancellation_names_its_request() {
        let body =
            br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5,"reason":"x"}}"#;
        let incoming = Incoming::parse(Bytes::from_static(body)).unwrap();
        assert!(matches!(incoming, Incoming::Notification { cancels: Some(RequestId::Number(5)), .. }));
    }
}
