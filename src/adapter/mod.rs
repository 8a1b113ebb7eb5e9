//! rmcp's handlers on ringmain's sessions.
//!
//! Any rmcp [`ServerHandler`] runs here unchanged, from the same factory closure that rmcp's own service takes:
//! it is called once for each session. rmcp's service loop sees a [`Transport`](rmcp::transport::Transport)
//! whose `send` serialises a message and publishes it on the stream it belongs to before it returns; there is
//! no task, channel or copy between the handler and the ring.
//!
//! # Where messages go
//!
//! A response goes to the stream of its request; progress to the stream of the request whose token it carries;
//! what a handler asks the client to the stream of the request it is handling, which rmcp marks with
//! [`OriginatingRequestId`](rmcp::service::OriginatingRequestId). rmcp does not mark other notifications: they
//! go to the standalone stream, unless the handler puts that mark into their extensions itself.
//!
//! # What a handler finds in its context
//!
//! The request's [`Outlet`](crate::handler::Outlet) is in the `extensions` of rmcp's `RequestContext`: with it
//! a handler can end the client's connection and let it come back for the result, for example.
//!
//! Its IDs are the client's. The loop between the two counts for itself: what rmcp logs, and the `id` of a
//! `RequestHandle`, are the loop's numbers and not those of the wire.
//!
//! # Questions to the client
//!
//! A question has an ID, and a progress token, that the session never used before. It is over when it is answered; when
//! the handler cancels it or its own timeout passes; when the client cancels it, or the request that it was asked for;
//! and when the client was given [`Rmcp::ask_timeout`] for it. The client is told of each end that is not its own.
//!
//! # Wrong messages
//!
//! A request whose parameters are not those of its method is refused with `-32602` and the reason, before the handler
//! sees it; methods that rmcp does not know are the handler's own. A notification that cannot be read is dropped. A
//! handler that panics while it answers answers with `-32603`.
//!
//! # What an idle session costs
//!
//! rmcp's loop, which is two channels and two tasks for each session, some 30 KB, ends while there is nothing for it to
//! do and begins again with the client's next message ([`Rmcp::rest_after`]).
//!
//! # Examples
//!
//! ```
//! # #[derive(Clone)] struct Hello;
//! # impl rmcp::ServerHandler for Hello {}
//! use ringmain::adapter::Rmcp;
//!
//! let handler = Rmcp::new(|| Ok(Hello));
//! ```

mod guard;
mod mailbox;
mod message;
mod question;
mod rest;
mod transport;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use rmcp::ServerHandler;
use rmcp::model::{
    CancelledNotification, CancelledNotificationParam, ClientJsonRpcMessage, ClientNotification, ErrorCode,
    ErrorData, GetExtensions, NumberOrString,
};

use crate::handler::{Context, Handler, Notification, Request, Response, RpcError};
use crate::protocol::RequestId;
use crate::session::Session;
use crate::sync::Arc;
use guard::Named;
use mailbox::{Mailbox, Timeouts};
use question::{Progress, retract};

/// No time is longer; an overflow would be.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// See [`Rmcp::rest_after`].
pub const REST_AFTER: Duration = Duration::from_secs(30);
/// See [`Rmcp::ask_timeout`].
const ASK_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// A [`Handler`] that gives each session an rmcp service of its own.
pub struct Rmcp<F, S> {
    factory: F,
    times: Timeouts,
    service: PhantomData<fn() -> S>,
}

impl<F, S> Rmcp<F, S>
where
    F: Fn() -> io::Result<S> + Send + Sync + 'static,
    S: ServerHandler,
{
    /// Makes a handler that calls `factory` for each session that begins.
    pub fn new(factory: F) -> Self {
        let times = Timeouts { rest_after: Some(REST_AFTER), ask_timeout: Some(ASK_TIMEOUT) };
        Self { factory, times, service: PhantomData }
    }

    /// Sets for how long the loop of a service goes on with nothing to do, and up to as long again; by default
    /// [`REST_AFTER`]. With `None` it goes on as long as the session.
    ///
    /// Without its loop a service is its handler and little else. It has nothing to do while no request of the client
    /// is open and nobody holds a [`Peer`](rmcp::Peer) of it. The client's next message begins the loop again, with
    /// the same handler and another peer.
    ///
    /// # Handlers that keep their peer
    ///
    /// A peer that a handler keeps is good for as long as it is kept: it keeps its loop going, and the loop keeps its
    /// 30 KB. A handler that keeps the peer of every session therefore has them all go on, as with `None`. Keep it
    /// while there is something to say, and take the one of the next call after that. Whoever waits for the answer to a
    /// question through its `RequestHandle` holds a peer with it; a receiver that was taken out of the handle holds
    /// none, and gets no answer once its request has its response and the loop rests.
    ///
    /// rmcp does not say how many peers there are; ringmain counts the senders in what it prints of one, and lets a
    /// loop rest only if that count is seen to follow the peers.
    #[must_use]
    pub fn rest_after(mut self, after: Option<Duration>) -> Self {
        self.times.rest_after = after.map(|after| after.min(LONGEST));
        self
    }

    /// Sets how long the client may take to answer a question, since it was asked or the client last reported progress
    /// on it; 30 minutes by default. Then the question is cancelled, and whoever asked gets an error of code
    /// -32001. With `None` it may take as long as its session is there. A handler that sets a shorter timeout of its
    /// own ([`PeerRequestOptions`](rmcp::service::PeerRequestOptions)) is not affected.
    ///
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/lifecycle#timeouts
    //# Implementations **SHOULD** establish timeouts for all sent requests, to prevent hung connections and resource
    //# exhaustion.
    #[must_use]
    pub fn ask_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.times.ask_timeout = timeout.map(|timeout| timeout.min(LONGEST));
        self
    }

    /// Starts the service of a session; its first message is `initialize`.
    fn start(&self, session: &Arc<Session>) -> io::Result<Arc<Mailbox<S>>> {
        let mailbox = Arc::new(Mailbox::new((self.factory)()?, self.times));
        if !session.attach(mailbox.clone()) {
            return Err(io::Error::other("the session has a service already, or has ended"));
        }
        mailbox.begin(session);
        Ok(mailbox)
    }
}

impl<F, S> fmt::Debug for Rmcp<F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rmcp").finish_non_exhaustive()
    }
}

impl<F, S> Handler for Rmcp<F, S>
where
    F: Fn() -> io::Result<S> + Send + Sync + 'static,
    S: ServerHandler,
{
    async fn request(&self, request: Request, context: Context) {
        let Some(session) = context.session().cloned() else {
            return context.fail(&RpcError::internal("a service answers in a session alone"));
        };
        let mut message = match message::request(&request) {
            Ok(message) => message,
            Err(error) => return context.fail(&RpcError::invalid_params(error.to_string())),
        };
        let mailbox = match mailbox_of::<S>(&session) {
            Some(mailbox) => mailbox,
            None if request.method() == "initialize" => match self.start(&session) {
                Ok(mailbox) => mailbox,
                Err(error) => {
                    tracing::error!(%error, "cannot create a service for a session");
                    return context
                        .fail(&RpcError::internal("the server cannot serve a session at the moment"));
                }
            },
            None => return context.fail(&RpcError::internal("the session has no service")),
        };
        message.extensions_mut().insert(context.outlet().clone());
        match mailbox.hold(context, &mut message) {
            Ok(None) => {}
            Ok(Some(id)) => {
                let message = ClientJsonRpcMessage::request(message, NumberOrString::Number(id));
                mailbox.deliver(message, &session).await;
            }
            Err(context) => context.fail(&RpcError::internal("the service of this session has ended")),
        }
    }

    async fn notification(&self, notification: Notification, session: Arc<Session>) {
        let Some(mailbox) = mailbox_of::<S>(&session) else { return };
        if notification.method() == "notifications/cancelled"
            && let Some(id) = message::cancels(&notification)
        {
            return cancel(&mailbox, &session, &notification, id).await;
        }
        let mut message = match message::notification(&notification) {
            Ok(message) => message,
            Err(error) => {
                return tracing::debug!(%error, method = notification.method(), "dropped a malformed notification");
            }
        };
        if let ClientNotification::ProgressNotification(progress) = &mut message {
            match mailbox.progress(&progress.params.progress_token.0) {
                Progress::Of(token) => progress.params.progress_token = token,
                Progress::Late => return tracing::debug!("dropped progress of a question that has ended"),
                Progress::Own => {}
            }
        }
        mailbox.deliver(ClientJsonRpcMessage::notification(message), &session).await;
    }

    fn response(&self, response: Response, session: &Arc<Session>) {
        let Some(mailbox) = mailbox_of::<S>(session) else { return };
        let Some((id, answer)) = message::answer(&response) else { return };
        // A handler may ask through its request's outlet as well.
        if mailbox.answer(&id, answer).is_none() && !response.deliver(session) {
            tracing::debug!("dropped an answer that nobody waits for");
        }
    }

    fn closed(&self, session: &Session) {
        if let Some(mailbox) = mailbox_of::<S>(session) {
            mailbox.close();
        }
    }
}

/// Tells the service that the client took something back: a request of its own, or one that it was asked.
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/utilities/cancellation#behavior-requirements
//# Cancellation notifications MUST only reference requests that: Were previously issued in the same direction
// A client that takes back a question all the same does not mean to answer it, and somebody waits. It is taken for that
// if the client has no such request, and lately had none: late cancellations are common.
async fn cancel<S: ServerHandler>(
    mailbox: &Arc<Mailbox<S>>,
    session: &Arc<Session>,
    notification: &Notification,
    id: RequestId,
) {
    let withdrawn = mailbox.withdraw(&id);
    if withdrawn.is_none() && !session.knows_request(&id) {
        let error = ErrorData::new(ErrorCode::INTERNAL_ERROR, "the client cancelled the question", None);
        if mailbox.answer(&id, Err(error)).is_some() {
            return;
        }
    }
    let mut cancelled = match message::notification(notification) {
        Ok(ClientNotification::CancelledNotification(cancelled)) => cancelled,
        _ => CancelledNotification::new(CancelledNotificationParam::new(None, None)),
    };
    let life = withdrawn.as_ref().map_or(0, |withdrawn| withdrawn.life);
    let loop_id = withdrawn.as_ref().map(|withdrawn| NumberOrString::Number(withdrawn.id));
    cancelled.params.request_id = Some(loop_id.unwrap_or_else(|| message::their_id(&id)));
    cancelled.extensions.insert(Named(id));
    // Before the questions of the request: its handler hears first that it need not go on.
    mailbox.deliver(ClientJsonRpcMessage::notification(cancelled.into()), session).await;
    for (id, question) in withdrawn.into_iter().flat_map(|withdrawn| withdrawn.questions) {
        let reason = "the request that the question was for was cancelled";
        mailbox.refuse(life, &question, ErrorData::new(ErrorCode::INTERNAL_ERROR, reason, None));
        retract(session, id, &question, reason);
    }
}

fn mailbox_of<S: ServerHandler>(session: &Session) -> Option<Arc<Mailbox<S>>> {
    session.attachment()?.downcast().ok()
}
