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

mod mailbox;
mod rest;
mod transport;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use rmcp::ServerHandler;
use rmcp::model::{ClientJsonRpcMessage, ClientNotification, GetExtensions};

use crate::handler::{Context, Handler, Notification, Request, Response, RpcError};
use crate::session::Session;
use crate::sync::Arc;
use mailbox::Mailbox;

/// See [`Rmcp::rest_after`].
pub const REST_AFTER: Duration = Duration::from_secs(30);

/// A [`Handler`] that gives each session an rmcp service of its own.
pub struct Rmcp<F, S> {
    factory: F,
    rest_after: Option<Duration>,
    service: PhantomData<fn() -> S>,
}

impl<F, S> Rmcp<F, S>
where
    F: Fn() -> io::Result<S> + Send + Sync + 'static,
    S: ServerHandler,
{
    /// Makes a handler that calls `factory` for each session that begins.
    pub fn new(factory: F) -> Self {
        Self { factory, rest_after: Some(REST_AFTER), service: PhantomData }
    }

    /// Sets for how long the loop of a service goes on with nothing to do, and up to as long again; by default
    /// [`REST_AFTER`]. With `None` it goes on as long as the session.
    ///
    /// Without its loop a service is its handler and little else. It has nothing to do while no request of either side
    /// is open and nobody holds a [`Peer`](rmcp::Peer) of it. The client's next message begins the loop again, with
    /// the same handler; a peer is another one then, and counts the handler's own requests from the start.
    #[must_use]
    pub fn rest_after(self, after: Option<Duration>) -> Self {
        Self { rest_after: after, ..self }
    }

    /// Starts the service of a session; its first message is `initialize`.
    fn start(&self, session: &Arc<Session>) -> io::Result<Arc<Mailbox<S>>> {
        let mailbox = Arc::new(Mailbox::new((self.factory)()?, self.rest_after));
        if !session.attach(mailbox.clone()) {
            return Err(io::Error::other("the session has a service already"));
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
        let session = context.session().clone();
        let mailbox = match mailbox_of::<S>(&session) {
            Some(mailbox) => mailbox,
            None if request.method() == "initialize" => match self.start(&session) {
                Ok(mailbox) => mailbox,
                Err(error) => {
                    tracing::error!(%error, "cannot make a service for a session");
                    return context
                        .fail(&RpcError::internal("the server cannot serve a session at the moment"));
                }
            },
            None => return context.fail(&RpcError::internal("the session has no service")),
        };
        let message = match serde_json::from_slice(request.json()) {
            Ok(ClientJsonRpcMessage::Request(mut request)) => {
                request.request.extensions_mut().insert(context.outlet().clone());
                ClientJsonRpcMessage::Request(request)
            }
            Ok(_) => return context.fail(&RpcError::new(-32600, "the message does not read as a request")),
            Err(error) => return context.fail(&RpcError::invalid_params(error.to_string())),
        };
        if let Some(context) = mailbox.hold(context) {
            return context.fail(&RpcError::internal("the service of this session has ended"));
        }
        mailbox.deliver(message, &session).await;
    }

    async fn notification(&self, notification: Notification, session: Arc<Session>) {
        let Some(mailbox) = mailbox_of::<S>(&session) else { return };
        match serde_json::from_slice(notification.json()) {
            Ok(message @ ClientJsonRpcMessage::Notification(_)) => {
                if let ClientJsonRpcMessage::Notification(notification) = &message
                    && let ClientNotification::CancelledNotification(cancelled) = &notification.notification
                    && let Some(id) = &cancelled.params.request_id
                {
                    // rmcp gives no response to a cancelled request, so the duty to answer ends here.
                    drop(mailbox.take(&transport::our_id(id)));
                }
                mailbox.deliver(message, &session).await;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a notification that rmcp cannot read"),
        }
    }

    fn response(&self, response: Response, session: &Arc<Session>) {
        let Some(mailbox) = mailbox_of::<S>(session) else { return };
        match serde_json::from_slice(response.json()) {
            Ok(message @ (ClientJsonRpcMessage::Response(_) | ClientJsonRpcMessage::Error(_))) => {
                mailbox.deliver_answer(message, session);
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "an answer that rmcp cannot read"),
        }
    }

    fn closed(&self, session: &Session) {
        if let Some(mailbox) = session.attachment().and_then(|mailbox| mailbox.downcast_ref::<Mailbox<S>>()) {
            mailbox.close();
        }
    }
}

fn mailbox_of<S: ServerHandler>(session: &Session) -> Option<Arc<Mailbox<S>>> {
    session.attachment().cloned()?.downcast().ok()
}
