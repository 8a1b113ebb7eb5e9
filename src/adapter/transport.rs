//! A session as rmcp's service loop sees it.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rmcp::model::{
    ClientJsonRpcMessage, ErrorCode, ErrorData, GetExtensions, GetMeta, JsonRpcMessage, JsonRpcNotification,
    JsonRpcRequest, NumberOrString, ProgressToken, ServerNotification, ServerRequest,
};
use rmcp::service::{OriginatingRequestId, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::{RoleServer, ServerHandler};
use serde::Serialize;
use tokio::time::{Instant, Sleep, sleep_until};

use super::mailbox::{Mailbox, Timeouts};
use super::message::our_id;
use super::question::{Question, retract};
use crate::protocol::RequestId;
use crate::request::{PublishError, RequestStream};
use crate::session::Session;
use crate::stream::LagPolicy;
use crate::sync::Arc;
use crate::wake::Waiter;

/// What becomes of a message whose request or session is over.
const GONE: PublishError = PublishError::Closed;
/// The code of the error that a handler gets for an answer that did not come; other implementations have the same.
const TIMED_OUT: ErrorCode = ErrorCode(-32001);

pub(super) struct SessionTransport<S> {
    session: Arc<Session>,
    mailbox: Arc<Mailbox<S>>,
    inbox: flume::Receiver<ClientJsonRpcMessage>,
    /// Of the loop that this belongs to.
    life: u32,
    alarm: Alarm,
    /// A message came since the alarm was set for the rest.
    busy: bool,
}

impl<S: ServerHandler> SessionTransport<S> {
    pub(super) fn new(
        session: Arc<Session>,
        mailbox: Arc<Mailbox<S>>,
        inbox: flume::Receiver<ClientJsonRpcMessage>,
        life: u32,
    ) -> Self {
        Self { session, mailbox, inbox, life, alarm: Alarm::default(), busy: true }
    }

    fn publish(&mut self, message: TxJsonRpcMessage<RoleServer>) -> Result<Option<Sent>, PublishError> {
        match message {
            JsonRpcMessage::Response(response) => self.respond(Some(&response.id), Ok(&response.result)),
            JsonRpcMessage::Error(error) => self.respond::<()>(error.id.as_ref(), Err(&error.error)),
            JsonRpcMessage::Request(request) => self.ask(request).map(Some),
            JsonRpcMessage::Notification(notification) => self.notify(notification),
        }
    }

    /// Publishes the answer to a request, under the ID that the client gave it.
    fn respond<R: Serialize>(
        &self,
        id: Option<&NumberOrString>,
        outcome: Result<&R, &ErrorData>,
    ) -> Result<Option<Sent>, PublishError> {
        let context = id.and_then(|id| self.mailbox.take(id)).ok_or(GONE)?;
        let id = context.id().clone();
        let answer = Answer { jsonrpc: "2.0", id: &id, result: outcome.ok(), error: outcome.err() };
        context.try_respond_with(|out| write(out, &answer)).map(|()| None)
    }

    /// Asks the client something, under an ID of the session's.
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic#requests
    //# The request ID MUST NOT have been previously used by the requestor within the same session.
    // A loop that begins again counts from 0.
    fn ask(&mut self, mut request: JsonRpcRequest<ServerRequest>) -> Result<Sent, PublishError> {
        let on = self.marked(request.request.extensions());
        if on.as_ref().is_some_and(|on| on.is_response_only()) {
            return Err(PublishError::NotAccepted);
        }
        let token = request.request.get_meta().get_progress_token();
        let has_token = token.is_some();
        let now = Instant::now();
        let question = Question { id: request.id, token, on: on.clone(), since: now };
        // Before: the answer may be here before this returns.
        let id = self.mailbox.ask(&self.session, question);
        request.id = NumberOrString::Number(id);
        //= https://modelcontextprotocol.io/specification/2025-11-25/basic/utilities/progress#progress-flow
        //# Progress tokens MUST be unique across all active requests.
        if has_token {
            request.request.get_meta_mut().set_progress_token(ProgressToken(NumberOrString::Number(id)));
        }
        let published = self.publish_on(on, &TxJsonRpcMessage::<RoleServer>::Request(request));
        if published.is_err() {
            self.mailbox.unask(id);
        } else if let Some(timeout) = self.mailbox.times.ask_timeout {
            self.alarm.look_for_answers(now + timeout);
        }
        published
    }

    fn notify(
        &self,
        mut message: JsonRpcNotification<ServerNotification>,
    ) -> Result<Option<Sent>, PublishError> {
        let on = match &mut message.notification {
            ServerNotification::ProgressNotification(progress) => {
                // Progress of a request that has its response would break the protocol.
                let token = &mut progress.params.progress_token.0;
                let (request, theirs) = self.mailbox.stream_of_token(token).ok_or(GONE)?;
                *token = theirs;
                Some(request)
            }
            ServerNotification::CancelledNotification(cancelled) => match &mut cancelled.params.request_id {
                Some(id) => {
                    // One that has its answer need not be taken back.
                    let Some((ours, question)) = self.mailbox.take_question(id) else { return Ok(None) };
                    *id = NumberOrString::Number(ours);
                    question.on.filter(|request| !request.is_finished())
                }
                None => self.marked(message.notification.extensions()),
            },
            notification => self.marked(notification.extensions()),
        };
        self.publish_on(on, &TxJsonRpcMessage::<RoleServer>::Notification(message)).map(Some)
    }

    /// The request in flight that a message is marked as part of. rmcp marks what a handler asks with its own ID of the
    /// request; handlers mark the rest themselves, with the one that they see.
    fn marked(&self, extensions: &rmcp::model::Extensions) -> Option<Arc<RequestStream>> {
        let OriginatingRequestId(id) = extensions.get()?;
        self.mailbox.stream_of(id).or_else(|| self.session.request(&our_id(id)))
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

/// The answer to a request: one of the two.
#[derive(Serialize)]
struct Answer<'a, R> {
    jsonrpc: &'static str,
    id: &'a RequestId,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a R>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ErrorData>,
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
        tracing::error!(%error, "cannot serialise a message of the service");
        out.truncate(start);
    }
}

/// When a loop looks up without a message, in one timer: to set one for each message would cost more than they do.
#[derive(Default)]
struct Alarm {
    /// When to see whether the loop may rest.
    rest: Option<Instant>,
    /// When to see whether an answer is overdue.
    answers: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    fn look_for_answers(&mut self, at: Instant) {
        self.answers = Some(self.answers.map_or(at, |due| due.min(at)));
        self.set();
    }

    fn set(&mut self) {
        let first = self.rest.into_iter().chain(self.answers).min();
        match (first, &mut self.timer) {
            (None, timer) => *timer = None,
            (Some(at), Some(timer)) if timer.deadline() == at => {}
            (Some(at), Some(timer)) => timer.as_mut().reset(at),
            (Some(at), timer) => *timer = Some(Box::pin(sleep_until(at))),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Instant> {
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(context).map(|()| Instant::now()),
            None => Poll::Pending,
        }
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
        let published = self.publish(message);
        let waits = self.session.settings().lag == LagPolicy::Wait;
        let session = waits.then(|| self.session.clone());
        async move {
            if let (Some(session), Some(sent)) = (session, published?) {
                room(session, sent).await;
            }
            Ok(())
        }
    }

    /// The next message. `None` once there will be none, and when the loop is to rest, which is between one and two
    /// times `rest_after` after the last.
    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        let Self { session, mailbox, inbox, life, alarm, busy } = self;
        let Timeouts { rest_after, ask_timeout } = mailbox.times;
        if let (None, Some(after)) = (alarm.rest, rest_after) {
            alarm.rest = Some(Instant::now() + after);
            alarm.set();
        }
        let mut message = inbox.recv_async();
        poll_fn(|context| {
            if let Poll::Ready(message) = Pin::new(&mut message).poll(context) {
                *busy = true;
                return Poll::Ready(message.ok());
            }
            loop {
                let now = ready!(alarm.poll(context));
                if alarm.answers.is_some_and(|at| at <= now) {
                    match ask_timeout.map(|timeout| mailbox.take_overdue(timeout, now)) {
                        Some(Ok((id, question))) => {
                            let reason = "the client did not answer in time";
                            retract(session, id, &question, reason);
                            let error = ErrorData::new(TIMED_OUT, reason, None);
                            return Poll::Ready(Some(ClientJsonRpcMessage::error(error, Some(question.id))));
                        }
                        Some(Err(next)) => alarm.answers = next,
                        None => alarm.answers = None,
                    }
                }
                if let Some(after) = rest_after
                    && alarm.rest.is_some_and(|at| at <= now)
                {
                    if !mem::take(busy)
                        && let Some(questions) = mailbox.rest(inbox, *life)
                    {
                        for (id, question) in questions {
                            retract(session, id, &question, "nobody waits for the answer any more");
                        }
                        return Poll::Ready(None);
                    }
                    alarm.rest = Some(now + after);
                }
                alarm.set();
            }
        })
        .await
    }

    async fn close(&mut self) -> Result<(), PublishError> {
        self.mailbox.end(self.life);
        Ok(())
    }
}
