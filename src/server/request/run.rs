//! Gives messages to the handler.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Waker};

use crate::handler::{self, Context, Handler, Notification};
use crate::protocol::RequestId;
use crate::protocol::headers::Forms;
use crate::server::endpoint::{Endpoint, catch_panic};
use crate::session::{RequestStream, Session};
use crate::sync::Arc;

/// A request as it was sent.
pub(super) struct Asked {
    pub(super) request: handler::Request,
    pub(super) id: RequestId,
    pub(super) progress_token: Option<RequestId>,
    /// What its answer may be.
    pub(super) forms: Forms,
}

/// Runs the handler: as far as it gets at once here, the rest as a task of its own, which goes on whatever
/// becomes of the connection.
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
//# Disconnection SHOULD NOT be interpreted as the client cancelling its request.
pub(super) fn run<H: Handler>(endpoint: &Arc<Endpoint<H>>, request: handler::Request, context: Context) {
    let endpoint = endpoint.clone();
    start(Box::pin(async move { endpoint.handler.request(request, context).await }));
}

/// Polls `work` once, and spawns the rest of it if there is any: as a task it is polled again, whatever happened
/// meanwhile, so that this first poll need not leave a waker.
fn start(mut work: Pin<Box<dyn Future<Output = ()> + Send>>) {
    let mut context = task::Context::from_waker(Waker::noop());
    // The context of a handler that panics answers for it when the future is dropped.
    if !catch_panic(|| work.as_mut().poll(&mut context).is_ready()).unwrap_or(true) {
        tokio::spawn(work);
    }
}

/// Gives a notification to the handler, after a cancellation took effect.
pub(super) fn notify<H: Handler>(
    endpoint: &Arc<Endpoint<H>>,
    session: Arc<Session>,
    notification: Notification,
    cancels: Option<RequestId>,
) {
    if let Some(id) = cancels {
        session.cancel(&id);
    }
    let endpoint = endpoint.clone();
    start(Box::pin(async move { endpoint.handler.notification(notification, session).await }));
}

/// Gives a client's response to the handler, which asked for it.
pub(super) fn respond<H: Handler>(
    endpoint: &Endpoint<H>,
    session: &Arc<Session>,
    response: handler::Response,
) {
    catch_panic(|| endpoint.handler.response(response, session));
}

/// The stream a handler answers on is alive for as long as anybody can ask for it.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<RequestStream>();
    shared::<Session>();
};
