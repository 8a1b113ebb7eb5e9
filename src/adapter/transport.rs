//! A session as rmcp's service loop sees it.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use rmcp::model::{ClientJsonRpcMessage, GetExtensions, JsonRpcMessage, NumberOrString, ServerNotification};
use rmcp::service::{OriginatingRequestId, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::{RoleServer, ServerHandler};
use serde::Serialize;
use tokio::time::{Instant, Sleep, sleep};

use super::mailbox::Mailbox;
use crate::protocol::RequestId;
use crate::session::{PublishError, RequestStream, Session};
use crate::stream::LagPolicy;
use crate::sync::Arc;
use crate::wake::Waiter;

/// What becomes of a message whose request or session is over.
const GONE: PublishError = PublishError::Closed;

pub(super) struct SessionTransport<S> {
    session: Arc<Session>,
    mailbox: Arc<Mailbox<S>>,
    inbox: flume::Receiver<ClientJsonRpcMessage>,
    /// Of the loop that this belongs to.
    life: u32,
    /// When to see whether the loop may rest.
    look: Option<Pin<Box<Sleep>>>,
    /// A message came since it was set.
    busy: bool,
}

impl<S: ServerHandler> SessionTransport<S> {
    pub(super) fn new(
        session: Arc<Session>,
        mailbox: Arc<Mailbox<S>>,
        inbox: flume::Receiver<ClientJsonRpcMessage>,
        life: u32,
    ) -> Self {
        Self { session, mailbox, inbox, life, look: None, busy: true }
    }

    fn publish(&self, message: &TxJsonRpcMessage<RoleServer>) -> Result<Option<Sent>, PublishError> {
        match message {
            JsonRpcMessage::Response(response) => self.respond(Some(&response.id), message).map(|()| None),
            JsonRpcMessage::Error(error) => self.respond(error.id.as_ref(), message).map(|()| None),
            JsonRpcMessage::Request(request) => {
                let asker = request.request.extensions().get::<OriginatingRequestId>();
                let asker = asker.and_then(|id| self.session.request(&our_id(&id.0)));
                // Before: the answer may be here before this returns.
                self.mailbox.asked();
                let published = self.publish_on(asker, message);
                if published.is_err() {
                    self.mailbox.answered();
                }
                published.map(Some)
            }
            JsonRpcMessage::Notification(notification) => {
                let notification = &notification.notification;
                if let ServerNotification::ProgressNotification(progress) = notification {
                    // Progress of a request that has its response would break the protocol.
                    let token = our_id(&progress.params.progress_token.0);
                    let request = self.session.request_by_token(&token).ok_or(GONE)?;
                    return self.publish_on(Some(request), message).map(Some);
                }
                let marked = notification.extensions().get::<OriginatingRequestId>();
                self.publish_on(marked.and_then(|id| self.session.request(&our_id(&id.0))), message).map(Some)
            }
        }
    }

    fn respond(&self, id: Option<&NumberOrString>, message: &impl Serialize) -> Result<(), PublishError> {
        let context = id.and_then(|id| self.mailbox.take(&our_id(id))).ok_or(GONE)?;
        context.try_respond_with(|out| write(out, message))
    }

    fn publish_on(
        &self,
        request: Option<Arc<RequestStream>>,
        message: &impl Serialize,
    ) -> Result<Sent, PublishError> {
        let published = match &request {
            Some(request) => self.session.publish_on(request, |out| write(out, message)),
            None => self.session.publish(|out| write(out, message)),
        };
        published.map(|_| Sent { on: request })
    }
}

/// What was published, and on which stream (`None`: the standalone one).
struct Sent {
    on: Option<Arc<RequestStream>>,
}

/// Where publishers shall wait for clients that are behind: waits, for as long as the settings say.
async fn room(session: Arc<Session>, sent: Sent) {
    let settings = session.settings();
    let (stream, limits) = match &sent.on {
        Some(request) => (request.stream(), &settings.request),
        None => (session.standalone(), &settings.standalone),
    };
    let mut waiter = Waiter::new();
    let room = poll_fn(|context| stream.poll_room(&mut waiter, limits.capacity as u64, context));
    // Late is better than never: past the bound the handler goes on, and the client is told what it missed.
    let _ = tokio::time::timeout(Duration::from_millis(settings.wait_ms), room).await;
}

/// rmcp's messages are plain data: they serialise, on one line.
fn write(out: &mut Vec<u8>, message: &impl Serialize) {
    let start = out.len();
    if let Err(error) = serde_json::to_writer(&mut *out, message) {
        tracing::error!(%error, "a message of the service does not serialise");
        out.truncate(start);
    }
}

/// An ID of rmcp's as ours.
pub(super) fn our_id(id: &NumberOrString) -> RequestId {
    match id {
        NumberOrString::Number(number) => RequestId::Number(*number),
        NumberOrString::String(text) => RequestId::String(text.as_ref().into()),
    }
}

impl<S: ServerHandler> Transport<RoleServer> for SessionTransport<S> {
    type Error = PublishError;

    /// Serialises and publishes before it returns, so that messages keep the order they were sent in. The
    /// future is ready at once, unless publishers shall wait for clients ([`LagPolicy::Wait`]).
    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), PublishError>> + Send + 'static {
        let published = self.publish(&message);
        let waits = self.session.settings().lag == LagPolicy::Wait;
        let session = waits.then(|| self.session.clone());
        async move {
            if let (Some(session), Some(sent)) = (session, published?) {
                room(session, sent).await;
            }
            Ok(())
        }
    }

    /// The next message. `None` once there will be none, and when the loop is to rest.
    ///
    /// One timer serves all messages, since to set one for each would cost more than they do: the loop rests between one
    /// and two times `rest_after` after the last.
    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        let Some(rest_after) = self.mailbox.rest_after else { return self.inbox.recv_async().await.ok() };
        let look = self.look.get_or_insert_with(|| Box::pin(sleep(rest_after)));
        let mut message = self.inbox.recv_async();
        poll_fn(|context| {
            if let Poll::Ready(message) = Pin::new(&mut message).poll(context) {
                self.busy = true;
                return Poll::Ready(message.ok());
            }
            while look.as_mut().poll(context).is_ready() {
                if !mem::take(&mut self.busy) && self.mailbox.rest(&self.inbox, self.life) {
                    return Poll::Ready(None);
                }
                look.as_mut().reset(Instant::now() + rest_after);
            }
            Poll::Pending
        })
        .await
    }

    async fn close(&mut self) -> Result<(), PublishError> {
        self.mailbox.end(self.life);
        Ok(())
    }
}
