//! What waits between a client's messages and the service of its session, and whether that service runs.

use std::collections::HashMap;
use std::mem::{replace, take};
use std::time::Duration;

use rmcp::model::{ClientJsonRpcMessage, InitializeRequestParams};
use rmcp::service::{RunningService, serve_directly};
use rmcp::{Peer, RoleServer, ServerHandler, serve_server};

use super::rest::is_let_go;
use super::transport::SessionTransport;
use crate::handler::Context;
use crate::protocol::RequestId;
use crate::session::Session;
use crate::sync::{Arc, Mutex, MutexGuard, lock};

/// Messages that may wait for the service; a client that is quicker waits with its next POST.
const MESSAGES: usize = 64;

/// The way into a session's service, and the requests it owes an answer.
///
/// flume rather than tokio's channel, because an idle one owns no block of slots.
#[derive(Debug)]
pub(super) struct Mailbox<S> {
    /// How long the service's loop goes on with nothing to do.
    pub(super) rest_after: Option<Duration>,
    state: Mutex<State<S>>,
}

#[derive(Debug)]
struct State<S> {
    phase: Phase<S>,
    /// How often the loop has begun.
    life: u32,
    owed: HashMap<RequestId, Context>,
    /// Requests of the service's that the client did not answer yet.
    asked: usize,
}

#[derive(Debug)]
enum Phase<S> {
    /// The loop runs. Its peer is known once it is initialised.
    Awake { service: Arc<S>, sender: flume::Sender<ClientJsonRpcMessage>, peer: Option<Peer<RoleServer>> },
    /// The loop waits to be begun: by the first message, or again by the next one after it ended for want of anything
    /// to do. What the client said of itself.
    Resting { service: Arc<S>, client: Option<Arc<InitializeRequestParams>> },
    /// The session or the service has ended.
    Ended,
}

/// What a loop begins with.
struct Beginning<S> {
    service: Arc<S>,
    client: Option<Arc<InitializeRequestParams>>,
    sender: flume::Sender<ClientJsonRpcMessage>,
    transport: SessionTransport<S>,
    life: u32,
}

impl<S: ServerHandler> Mailbox<S> {
    pub(super) fn new(service: S, rest_after: Option<Duration>) -> Self {
        let phase = Phase::Resting { service: Arc::new(service), client: None };
        Self { rest_after, state: Mutex::new(State { phase, life: 0, owed: HashMap::new(), asked: 0 }) }
    }

    /// Begins the service of a new session; its first message is `initialize`.
    pub(super) fn begin(self: &Arc<Self>, session: &Arc<Session>) {
        let Some(Beginning { service, transport, life, .. }) = self.wake(&mut lock(&self.state), session)
        else {
            return;
        };
        let mailbox = self.clone();
        tokio::spawn(async move {
            // In a box of its own: it is large, and over soon.
            match Box::pin(serve_server(service, transport)).await {
                Ok(running) => mailbox.attend(running, life).await,
                Err(error) => {
                    tracing::debug!(%error, "a session was not initialised");
                    mailbox.close();
                }
            }
        });
    }

    /// Opens the way into a loop that is about to begin, if one is to.
    fn wake(self: &Arc<Self>, state: &mut State<S>, session: &Arc<Session>) -> Option<Beginning<S>> {
        let Phase::Resting { service, client } = &mut state.phase else { return None };
        let (service, client) = (service.clone(), client.take());
        let (sender, inbox) = flume::bounded(MESSAGES);
        state.phase = Phase::Awake { service: service.clone(), sender: sender.clone(), peer: None };
        state.life += 1;
        let life = state.life;
        let transport = SessionTransport::new(session.clone(), self.clone(), inbox, life);
        Some(Beginning { service, client, sender, transport, life })
    }

    /// Waits for the end of a loop.
    async fn attend(self: Arc<Self>, running: RunningService<RoleServer, Arc<S>>, life: u32) {
        if self.rest_after.is_some() {
            let mut state = lock(&self.state);
            if state.life == life
                && let Phase::Awake { peer, .. } = &mut state.phase
            {
                *peer = Some(running.peer().clone());
            }
        }
        if let Err(error) = running.waiting().await {
            tracing::error!(%error, "the service of a session failed");
        }
        self.end(life);
    }

    /// The way to the service, whose loop begins again if it rests. `None` if it ended.
    fn sender(self: &Arc<Self>, session: &Arc<Session>) -> Option<flume::Sender<ClientJsonRpcMessage>> {
        let mut state = lock(&self.state);
        match &state.phase {
            Phase::Ended => return None,
            Phase::Awake { sender, .. } => return Some(sender.clone()),
            Phase::Resting { .. } => {}
        }
        let Beginning { service, client, sender, transport, life } = self.wake(&mut state, session)?;
        drop(state);
        let client = client.map(|client| client.as_ref().clone());
        let running = serve_directly::<RoleServer, _, _, _, _>(service, transport, client);
        tokio::spawn(self.clone().attend(running, life));
        Some(sender)
    }

    /// Holds the duty to answer a request until the service does. Gives it back if the service has ended.
    pub(super) fn hold(&self, context: Context) -> Option<Context> {
        let mut state = lock(&self.state);
        if matches!(state.phase, Phase::Ended) {
            return Some(context);
        }
        state.owed.insert(context.id().clone(), context);
        None
    }

    /// Takes the duty to answer the request with this ID.
    pub(super) fn take(&self, id: &RequestId) -> Option<Context> {
        lock(&self.state).owed.remove(id)
    }

    /// Notes that the service asked the client something.
    pub(super) fn asked(&self) {
        lock(&self.state).asked += 1;
    }

    /// Notes that a question to the client was answered, or could not be asked.
    pub(super) fn answered(&self) {
        let mut state = lock(&self.state);
        state.asked = state.asked.saturating_sub(1);
    }

    /// Hands a message to the service; waits while too many wait there.
    pub(super) async fn deliver(self: &Arc<Self>, message: ClientJsonRpcMessage, session: &Arc<Session>) {
        if let Some(sender) = self.sender(session) {
            // An error says that the service ended; whoever is owed an answer is told by `close`.
            let _ = sender.send_async(message).await;
        }
    }

    /// Hands an answer of the client's to the service without waiting here.
    pub(super) fn deliver_answer(self: &Arc<Self>, message: ClientJsonRpcMessage, session: &Arc<Session>) {
        let Some(sender) = self.sender(session) else { return };
        self.answered();
        if let Err(flume::TrySendError::Full(message)) = sender.try_send(message) {
            tokio::spawn(async move { sender.send_async(message).await });
        }
    }

    /// Whether the loop may end because nothing waits for it, nobody waits for it, and nobody could give it
    /// anything but the client. If so, the next message begins it again.
    pub(super) fn rest(&self, inbox: &flume::Receiver<ClientJsonRpcMessage>, life: u32) -> bool {
        let mut state = lock(&self.state);
        let Phase::Awake { peer: Some(peer), service, .. } = &state.phase else { return false };
        // A second sender is a message that is about to come.
        let is_silent = inbox.is_empty() && inbox.sender_count() == 1;
        let is_idle = state.life == life && is_silent && state.owed.is_empty() && state.asked == 0;
        if !is_idle || !is_let_go(peer) {
            return false;
        }
        state.phase = Phase::Resting { service: service.clone(), client: peer.peer_info() };
        state.owed = HashMap::new();
        true
    }

    /// Notes that a loop has ended, unless it was to rest. What is still owed an answer gets an error.
    pub(super) fn end(&self, life: u32) {
        let state = lock(&self.state);
        if state.life != life || matches!(state.phase, Phase::Resting { .. }) {
            return;
        }
        self.shut(state);
    }

    /// Ends the service's input. What is still owed an answer gets an error.
    pub(super) fn close(&self) {
        self.shut(lock(&self.state));
    }

    fn shut(&self, mut state: MutexGuard<'_, State<S>>) {
        let gone = (replace(&mut state.phase, Phase::Ended), take(&mut state.owed));
        drop(state);
        drop(gone);
    }
}
