//! What waits between a client's messages and the service of its session.

use std::collections::HashMap;

use rmcp::model::ClientJsonRpcMessage;

use crate::handler::Context;
use crate::protocol::RequestId;
use crate::sync::{Arc, Mutex, lock};

/// Messages that may wait for the service; a client that is quicker waits with its next POST.
const MESSAGES: usize = 64;

/// The way into a session's service, and the requests it owes an answer.
///
/// flume rather than tokio's channel, because an idle one owns no block of slots.
#[derive(Debug)]
pub(super) struct Mailbox {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Gone once the session or the service has ended.
    sender: Option<flume::Sender<ClientJsonRpcMessage>>,
    owed: HashMap<RequestId, Context>,
}

impl Mailbox {
    pub(super) fn new() -> (Self, flume::Receiver<ClientJsonRpcMessage>) {
        let (sender, receiver) = flume::bounded(MESSAGES);
        (Self { state: Mutex::new(State { sender: Some(sender), owed: HashMap::new() }) }, receiver)
    }

    /// Holds the duty to answer a request until the service does. Gives it back if the service has ended.
    pub(super) fn hold(&self, context: Context) -> Option<Context> {
        let mut state = lock(&self.state);
        if state.sender.is_none() {
            return Some(context);
        }
        state.owed.insert(context.id().clone(), context);
        None
    }

    /// Takes the duty to answer the request with this ID.
    pub(super) fn take(&self, id: &RequestId) -> Option<Context> {
        lock(&self.state).owed.remove(id)
    }

    /// Hands a message to the service; waits while too many wait there.
    pub(super) async fn deliver(&self, message: ClientJsonRpcMessage) {
        let sender = lock(&self.state).sender.clone();
        if let Some(sender) = sender {
            // An error says that the service ended; whoever is owed an answer is told by `close`.
            let _ = sender.send_async(message).await;
        }
    }

    /// Hands a message to the service without waiting here.
    pub(super) fn deliver_now(self: &Arc<Self>, message: ClientJsonRpcMessage) {
        let Some(sender) = lock(&self.state).sender.clone() else { return };
        if let Err(flume::TrySendError::Full(message)) = sender.try_send(message) {
            let mailbox = self.clone();
            tokio::spawn(async move { mailbox.deliver(message).await });
        }
    }

    /// Ends the service's input. What is still owed an answer gets an error.
    pub(super) fn close(&self) {
        let (sender, owed) = {
            let mut state = lock(&self.state);
            (state.sender.take(), std::mem::take(&mut state.owed))
        };
        drop((sender, owed));
    }
}
