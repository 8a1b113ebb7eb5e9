//! POST: one message in; its answer out.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{self, Poll, Waker};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request, StatusCode};
use hyper::body::{Body, Incoming as RequestBody};

use super::route::{self, Answered, Caller};
use super::{Answer, Endpoint, read, unwinding};
use crate::handler::{self, Context, Handler, Incoming, Notification};
use crate::protocol::{ProtocolVersion, Refusal, RequestId, headers};
use crate::session::{Connection, Creator, RequestStream, Session};
use crate::sync::Arc;

/// Turns that others on the runtime get before an answer becomes a stream that goes on.
const TURNS: usize = 2;

/// Answers a POST to the endpoint.
pub(super) async fn answer<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    request: &mut Request<RequestBody>,
    caller: Caller,
) -> Answered<H> {
    let message = match check_head(endpoint, request.headers()) {
        Ok(()) => read_body(endpoint, request.body_mut()).await.and_then(Incoming::parse),
        Err(refusal) => Err(refusal),
    };
    let headers = request.headers();
    let (id, answered) = match message {
        Err(refusal) => (None, Err(refusal)),
        Ok(Incoming::Request { request, id, progress_token, wants }) => {
            let asked = Asked { request, id: id.clone(), progress_token };
            let answered = match wants {
                // Boxed, as it comes once a session and would make the future of every request larger.
                Some(version) => Box::pin(initialize(endpoint, headers, caller, asked, version)).await,
                None => match call(endpoint, headers, caller, asked) {
                    Ok(connection) => Ok(deliver(endpoint, connection).await),
                    Err(refusal) => Err(refusal),
                },
            };
            (Some(id), answered)
        }
        Ok(Incoming::Notification { notification, cancels }) => {
            (None, notify(endpoint, headers, caller, notification, cancels))
        }
        Ok(Incoming::Response(response)) => (None, respond(endpoint, headers, caller, response)),
    };
    answered.unwrap_or_else(|refusal| {
        tracing::debug!(kind = refusal.kind(), "refused a message");
        route::refuse(&refusal, id.as_ref())
    })
}

/// A request as it was sent.
struct Asked {
    request: handler::Request,
    id: RequestId,
    progress_token: Option<RequestId>,
}

fn check_head<H: Handler>(endpoint: &Endpoint<H>, headers: &HeaderMap) -> Result<(), Refusal> {
    headers::check_content_type(headers)?;
    headers::check_accept_post(headers)?;
    let limit = endpoint.config.max_body_bytes;
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(Refusal::BodyTooLarge { limit });
    }
    Ok(())
}

async fn read_body<H: Handler>(endpoint: &Endpoint<H>, body: &mut RequestBody) -> Result<Bytes, Refusal> {
    let limit = endpoint.config.max_body_bytes;
    // Nearly always all of it came with the head.
    let first = match poll_fn(|context| Poll::Ready(Pin::new(&mut *body).poll_frame(context))).await {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        Poll::Ready(Some(Err(_))) => return Err(Refusal::ParseError),
        Poll::Ready(None) => return Ok(Bytes::new()),
        Poll::Pending => Bytes::new(),
    };
    if first.len() > limit {
        return Err(Refusal::BodyTooLarge { limit });
    }
    if body.is_end_stream() {
        return Ok(first);
    }
    read::rest(&endpoint.config, &endpoint.pending, first, body).await
}

/// Answers `initialize`: a session begins, if the handler says so.
async fn initialize<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    headers: &HeaderMap,
    caller: Caller,
    asked: Asked,
    version: ProtocolVersion,
) -> Result<Answered<H>, Refusal> {
    headers::protocol_version(headers)?;
    if endpoint.is_draining() {
        return Err(Refusal::Draining);
    }
    if let Some(id) = headers::session_id(headers)? {
        // The server chooses the ID. One that exists is initialised already, and any other is not adopted.
        let exists = endpoint.sessions.find(id, caller.principal).is_ok();
        return Err(if exists { Refusal::AlreadyInitialized } else { Refusal::SessionNotAllowed });
    }
    let creator = Creator { holder: caller.holder, address: Some(caller.address) };
    let session = endpoint.sessions.admit(creator, |evicted| endpoint.closed(&evicted))?;
    // The session ends with this guard unless the handler agrees to it: an error, or a client that goes away
    // before it can know the ID.
    let mut tentative = Tentative { endpoint, session: &session, keep: false };
    let request = session.open_initialize(asked.id, asked.progress_token, version)?;
    let mut connection = session.connect_request(request.clone());
    run(endpoint, asked.request, Context::new(session.clone(), request));
    poll_fn(|context| connection.poll_started(context)).await;
    let mut answer = match connection.take_answer() {
        Some(body) => {
            if session.version().is_none() {
                return Ok(route::json(body));
            }
            route::json(body)
        }
        None => route::stream(endpoint, connection),
    };
    tentative.keep = true;
    answer.headers_mut().insert(headers::MCP_SESSION_ID, session.id().to_header_value());
    Ok(answer)
}

/// A session that nobody can use yet.
struct Tentative<'a, H: Handler> {
    endpoint: &'a Endpoint<H>,
    session: &'a Session,
    keep: bool,
}

impl<H: Handler> Drop for Tentative<'_, H> {
    fn drop(&mut self) {
        if !self.keep {
            self.endpoint.terminate(self.session);
        }
    }
}

/// Begins the answer to any other request.
fn call<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    headers: &HeaderMap,
    caller: Caller,
    asked: Asked,
) -> Result<Connection, Refusal> {
    let session = route::session(endpoint, headers, caller)?;
    let version = session.version().ok_or(Refusal::NotInitialized)?;
    let request = session.open_request(asked.id, asked.progress_token, version)?;
    let connection = session.connect_request(request.clone());
    run(endpoint, asked.request, Context::new(session, request));
    Ok(connection)
}

/// Answers as JSON or as a stream, whichever fits what was published by now.
///
/// Who works in tasks of its own, as rmcp's services do, gets the turns that such tasks take. A stream that is
/// finished by then is sent whole, and its socket need not go to the writer and back.
async fn deliver<H: Handler>(endpoint: &Arc<Endpoint<H>>, mut connection: Connection) -> Answered<H> {
    if endpoint.config.answer == Answer::Auto
        && let Some(whole) = connection.take_answer()
    {
        return route::json(whole);
    }
    for _ in 0..TURNS {
        if connection.is_finished() {
            break;
        }
        tokio::task::yield_now().await;
    }
    route::stream(endpoint, connection)
}

/// Runs the handler: as far as it gets at once here, the rest as a task of its own, which goes on whatever
/// becomes of the connection.
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
//# Disconnection SHOULD NOT be interpreted as the client cancelling its request.
fn run<H: Handler>(endpoint: &Arc<Endpoint<H>>, request: handler::Request, context: Context) {
    let endpoint = endpoint.clone();
    start(Box::pin(async move { endpoint.handler.request(request, context).await }));
}

/// Polls `work` once, and spawns the rest of it if there is any: as a task it is polled again, whatever happened
/// meanwhile, so that this first poll need not leave a waker.
fn start(mut work: Pin<Box<dyn Future<Output = ()> + Send>>) {
    let mut context = task::Context::from_waker(Waker::noop());
    // The context of a handler that panics answers for it when the future is dropped.
    if !unwinding(|| work.as_mut().poll(&mut context).is_ready()).unwrap_or(true) {
        tokio::spawn(work);
    }
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
//# If the server accepts the input, the server MUST return HTTP status code 202 Accepted with no body.
fn notify<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    headers: &HeaderMap,
    caller: Caller,
    notification: Notification,
    cancels: Option<RequestId>,
) -> Result<Answered<H>, Refusal> {
    let session = route::session(endpoint, headers, caller)?;
    if let Some(id) = cancels {
        session.cancel(&id);
    }
    let endpoint = endpoint.clone();
    start(Box::pin(async move { endpoint.handler.notification(notification, session).await }));
    Ok(route::empty(StatusCode::ACCEPTED))
}

fn respond<H: Handler>(
    endpoint: &Endpoint<H>,
    headers: &HeaderMap,
    caller: Caller,
    response: handler::Response,
) -> Result<Answered<H>, Refusal> {
    let session = route::session(endpoint, headers, caller)?;
    unwinding(|| endpoint.handler.response(response, &session));
    Ok(route::empty(StatusCode::ACCEPTED))
}

/// The stream a handler answers on is alive for as long as anybody can ask for it.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<RequestStream>();
    shared::<Session>();
};
