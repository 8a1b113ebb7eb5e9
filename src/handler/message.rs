//! The messages of a client, with their envelopes read and their insides untouched.

use core::ops::{Deref, Range};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::error::RpcError;
use crate::protocol::{self, EnvelopeFault, Message, ProtocolVersion, Refusal, RequestId, RequestMessage};
use crate::session::Session;

/// A message as it came in, with its envelope read and its insides untouched.
///
/// # Examples
///
/// ```
/// use ringmain::handler::{Context, Request};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Call {
///     name: String,
/// }
///
/// async fn call(request: Request, context: Context) {
///     // `Request` and `Notification` dereference to this.
///     match request.params::<Call>() {
///         Ok(call) => context.respond(&format!("{} of {}", request.method(), call.name)),
///         Err(error) => context.fail(&error),
///     }
/// }
/// ```
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

    /// The whole message as it came in. A whole number among its IDs and tokens that was spelled in another way
    /// (`1.0`, `1e0`) stands there as an integer.
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
///
/// # Examples
///
/// ```
/// # use std::sync::Arc;
/// # use ringmain::handler::Response;
/// # use ringmain::session::Session;
/// /// As [`Handler::response`](ringmain::handler::Handler::response) does.
/// fn response(response: Response, session: &Arc<Session>) {
///     if !response.deliver(session) {
///         eprintln!("nobody waits for {} bytes", response.json().len());
///     }
/// }
/// ```
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

    /// Hands the answer to whoever asked through [`Outlet::ask`](super::Outlet::ask). False if nobody waits for it.
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
        let (message, id) = Message::parse_with_id(&body)?;
        let token = match &message {
            Message::Request(request) => protocol::raw_progress_token(request.params),
            Message::Notification { method, params } => match &**method {
                "notifications/cancelled" => protocol::raw_cancelled_id(*params),
                "notifications/progress" => protocol::raw_client_token(*params),
                _ => None,
            },
            Message::Response { .. } => None,
        };
        if let Some(respelled) = respell(&body, [id, token]) {
            return Self::parse(respelled);
        }
        Ok(match message {
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

impl Incoming {
    /// Reads the envelopes of a batch, each by itself.
    ///
    /// # Errors
    ///
    /// What is wrong with the batch, or with a message of it.
    pub fn parse_batch(body: &Bytes) -> Result<Vec<Result<Self, Refusal>>, Refusal> {
        let nested = Refusal::NotJsonRpc { reason: EnvelopeFault::NotAnObject };
        let part = |part: &RawValue| {
            if part.get().starts_with('[') {
                return Err(nested.clone());
            }
            Self::parse(range_of(body, part.get()).map_or_else(Bytes::new, |range| body.slice(range)))
        };
        Ok(protocol::split_batch(body)?.into_iter().map(part).collect())
    }
}

/// Writes each of `values`, parts of `body`, as an integer if it is a whole number in another spelling: not every
/// handler's types take `1.0` for an integer. `None` if none is.
fn respell(body: &Bytes, values: [Option<&RawValue>; 2]) -> Option<Bytes> {
    let mut respelled: Option<Vec<u8>> = None;
    let mut places = values.map(|value| {
        let value = value?;
        Some((range_of(body, value.get())?, protocol::another_spelling(value)?))
    });
    // The last first: then the places of the others stay where they are.
    places.sort_unstable_by_key(|place| core::cmp::Reverse(place.as_ref().map(|(range, _)| range.start)));
    for (range, number) in places.into_iter().flatten() {
        let body = respelled.get_or_insert_with(|| body.to_vec());
        body.splice(range, number.to_string().into_bytes());
    }
    respelled.map(Bytes::from)
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use super::*;

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
    fn whole_numbers_are_handed_on_as_integers() {
        for (body, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":1.0,"method":"m","params":{"a":1.0,"_meta":{"progressToken":2e0}}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":1.0,"_meta":{"progressToken":2}}}"#,
            ),
            (
                r#"{"params":{"_meta":{"progressToken":20e-1},"a":0},"method":"m","id":-0,"jsonrpc":"2.0"}"#,
                r#"{"params":{"_meta":{"progressToken":2},"a":0},"method":"m","id":0,"jsonrpc":"2.0"}"#,
            ),
        ] {
            let Ok(Incoming::Request { request, progress_token, .. }) = Incoming::parse(body.into()) else {
                panic!("it is a request")
            };
            assert_eq!(request.json(), expected);
            assert_eq!(progress_token, Some(RequestId::Number(2)));
        }
        let body = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":3.0}}"#;
        let Ok(Incoming::Notification { notification, .. }) = Incoming::parse(body.into()) else {
            panic!("it is a notification")
        };
        assert_eq!(notification.params_json(), Some(r#"{"progressToken":3}"#));
    }

    #[test]
    fn a_cancellation_names_its_request() {
        let body =
            br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5,"reason":"x"}}"#;
        let incoming = Incoming::parse(Bytes::from_static(body)).unwrap();
        assert!(matches!(incoming, Incoming::Notification { cancels: Some(RequestId::Number(5)), .. }));
    }
}
