//! Passes messages to the handler.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Waker};

use crate::handler::{self, Context, Handler, Notification};
use crate::protocol::RequestId;
use crate::protocol::headers::Forms;
use crate::server::endpoint::{Endpoint, catch_panic};
use crate::session::{RequestStream, Session};
use crate::sync::Arc;

/// A request of a client.
pub(super) struct Asked {
    pub(super) request: handler::Request,
    pub(super) id: RequestId,
    pub(super) progress_token: Option<RequestId>,
    /// The forms that its answer may have.
    pub(super) forms: Forms,
}

/// Runs the handler. It is polled once here, and then becomes a task of its own, which continues whatever
/// happens to the connection.
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
//# Disconnection SHOULD NOT be interpreted as the client cancelling its request.
pub(super) fn run<H: Handler>(endpoint: &Arc<Endpoint<H>>, request: handler::Request, context: Context) {
    let endpoint = endpoint.clone();
    start(Box::pin(async move { endpoint.handler.request(request, context).await }));
}

/// Polls `work` once, and spawns it if it is not ready. A new task is polled again, whatever happened
/// meanwhile, so this first poll needs no waker.
fn start(mut work: Pin<Box<dyn Future<Output = ()> + Send>>) {
    let mut context = task::Context::from_waker(Waker::noop());
    // If the handler panics, its context answers when the future is dropped.
    if !catch_panic(|| work.as_mut().poll(&mut context).is_ready()).unwrap_or(true) {
        tokio::spawn(work);
    }
}

/// Passes a notification to the handler. A cancellation takes effect first.
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

/// Passes a client's response to the handler, which asked for it.
pub(super) fn respond<H: Handler>(
    endpoint: &Endpoint<H>,
    session: &Arc<Session>,
    response: handler::Response,
) {
    catch_panic(|| endpoint.handler.response(response, session));
}

/// A handler may answer from any thread.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<RequestStream>();
    shared::<Session>();
};
