//! A hosted handler as rmcp's loop sees it.
//!
//! The loop knows the client's requests by IDs of ours (see `mailbox`); the handler sees the client's. A handler that
//! panics answers that it failed: rmcp would say nothing, and the client wait for ever.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use rmcp::model::{
    ClientNotification, ClientRequest, ErrorData, ProtocolVersion, ServerConfig, ServerResult,
};
use rmcp::service::{NotificationContext, RequestContext, Service};
use rmcp::{RoleServer, ServerHandler};

use super::message::their_id;
use crate::handler::Outlet;
use crate::protocol::RequestId;
use crate::sync::Arc;

/// The request that a cancellation takes back, as the client named it. Stands in the cancellation's extensions.
#[derive(Clone, Debug)]
pub(super) struct Named(pub(super) RequestId);

/// A handler between its loop and itself.
#[derive(Debug)]
pub(super) struct Guard<S>(pub(super) Arc<S>);

impl<S: ServerHandler> Service<RoleServer> for Guard<S> {
    async fn handle_request(
        &self,
        request: ClientRequest,
        mut context: RequestContext<RoleServer>,
    ) -> Result<ServerResult, ErrorData> {
        if let Some(outlet) = context.extensions.get::<Outlet>() {
            // It was taken back before it came here; nobody hears of the outcome.
            if outlet.is_cancelled() {
                return Err(ErrorData::internal_error("the request was cancelled", None));
            }
            context.id = their_id(outlet.id());
        }
        unwinding(self.0.handle_request(request, context)).await.unwrap_or_else(|| {
            tracing::error!("a handler panicked");
            Err(ErrorData::internal_error("the server failed to answer this request", None))
        })
    }

    async fn handle_notification(
        &self,
        mut notification: ClientNotification,
        context: NotificationContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        if let ClientNotification::CancelledNotification(cancelled) = &mut notification
            && let Some(Named(id)) = context.extensions.get()
        {
            cancelled.params.request_id = Some(their_id(id));
        }
        self.0.handle_notification(notification, context).await
    }

    fn get_info(&self) -> ServerConfig {
        ServerHandler::get_info(&*self.0)
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        ServerHandler::supported_protocol_versions(&*self.0)
    }
}

/// What the handler comes to; `None` if it panics.
async fn unwinding<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(Poll::Ready(outcome)) => Poll::Ready(Some(outcome)),
        Ok(Poll::Pending) => Poll::Pending,
        // Not polled again: the panic hook has said what happened.
        Err(_) => Poll::Ready(None),
    })
    .await
}
