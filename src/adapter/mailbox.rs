//! What waits between a client's messages and the service of its session, and whether that service runs.
//!
//! The service's loop knows the requests of the client by IDs of ours, which are never used twice: a client may use an
//! ID again after it cancelled the request, and the handler of that one may still be at work.

use std::collections::HashMap;
use std::mem::{replace, take};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rmcp::model::{
    ClientJsonRpcMessage, ClientRequest, ClientResult, ErrorData, GetMeta, InitializeRequestParams,
    NumberOrString, ProgressToken,
};
use rmcp::service::{RunningService, serve_directly};
use rmcp::{Peer, RoleServer, ServerHandler, serve_server};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::guard::Guard;
use super::message::their_id;
use super::question::{Progress, Question, Questions};
use super::rest::is_let_go;
use super::transport::SessionTransport;
use crate::handler::Context;
use crate::protocol::RequestId;
use crate::request::RequestStream;
use crate::session::Session;
use crate::sync::{Arc, Mutex, MutexGuard, lock};

/// Messages that may wait for the service; a client that is quicker waits with its next POST.
const MESSAGES: usize = 64;
/// The loop's IDs of the client's requests are above this, where no client counts its own: a handler marks what belongs
/// to a request with either.
const FIRST_ID: i64 = 1 << 60;

/// The way into a service.
type Sender = flume::Sender<ClientJsonRpcMessage>;

/// How long a service waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// How long the loop goes on with nothing to do.
    pub(super) rest_after: Option<Duration>,
    /// How long the client may take for an answer.
    pub(super) ask_timeout: Option<Duration>,
}

/// The way into a session's service, and the requests it owes an answer.
///
/// flume rather than tokio's channel, because an idle one owns no block of slots.
#[derive(Debug)]
pub(super) struct Mailbox<S> {
    pub(super) times: Timeouts,
    state: Mutex<State<S>>,
}

#[derive(Debug)]
struct State<S> {
    phase: Stage<S>,
    /// How often the loop has begun.
    life: u32,
    /// The task that waits for the end of the loop, which ends with it.
    task: Option<AbortHandle>,
    /// The last ID that the loop got a request under.
    last: i64,
    owed: HashMap<i64, Owed>,
    questions: Questions,
}

#[derive(Debug)]
enum Stage<S> {
    /// The loop runs. Its peer is known once it is initialised.
    Awake { service: Arc<S>, sender: Sender, peer: Option<Peer<RoleServer>> },
    /// The loop waits to be begun: by the first message, or again by the next one after it ended for want of anything
    /// to do. What the client said of itself.
    Resting { service: Arc<S>, client: Option<Arc<InitializeRequestParams>> },
    /// The session or the service has ended.
    Ended,
}

/// A request of the client's that the service has not answered yet.
#[derive(Debug)]
struct Owed {
    context: Context,
    /// The progress token that the handler sees: the client's, unless another request has the same.
    token: Option<NumberOrString>,
}

/// A request that the client took back.
pub(super) struct Withdrawn {
    /// What the loop calls it.
    pub(super) id: i64,
    /// The life of that loop.
    pub(super) life: u32,
    /// What its handler asked the client, and has no answer to.
    pub(super) questions: Vec<(i64, Question)>,
}

/// What a loop begins with.
struct Beginning<S> {
    service: Arc<S>,
    client: Option<Arc<InitializeRequestParams>>,
    sender: Sender,
    transport: SessionTransport<S>,
    life: u32,
}

impl<S: ServerHandler> Mailbox<S> {
    pub(super) fn new(service: S, times: Timeouts) -> Self {
        let state = State {
            phase: Stage::Resting { service: Arc::new(service), client: None },
            life: 0,
            task: None,
            last: FIRST_ID,
            owed: HashMap::new(),
            questions: Questions::default(),
        };
        Self { times, state: Mutex::new(state) }
    }

    /// Begins the service of a new session; its first message is `initialize`.
    pub(super) fn begin(self: &Arc<Self>, session: &Arc<Session>) {
        let Some(Beginning { service, transport, life, .. }) = self.wake(&mut lock(&self.state), session)
        else {
            return;
        };
        let mailbox = self.clone();
        let task = tokio::spawn(async move {
            // In a box of its own: it is large, and over soon.
            match Box::pin(serve_server(Guard(service), transport)).await {
                Ok(running) => mailbox.attend(running, life).await,
                Err(error) => {
                    tracing::debug!(%error, "a session was not initialised");
                    mailbox.close();
                }
            }
        });
        self.watch(task.abort_handle());
    }

    /// Opens the way into a loop that is about to begin, if one is to.
    fn wake(self: &Arc<Self>, state: &mut State<S>, session: &Arc<Session>) -> Option<Beginning<S>> {
        let Stage::Resting { service, client } = &mut state.phase else { return None };
        let (service, client) = (service.clone(), client.take());
        let (sender, inbox) = flume::bounded(MESSAGES);
        state.phase = Stage::Awake { service: service.clone(), sender: sender.clone(), peer: None };
        state.life += 1;
        let life = state.life;
        let transport = SessionTransport::new(session.clone(), self.clone(), inbox, life);
        Some(Beginning { service, client, sender, transport, life })
    }

    /// Keeps the task that a loop ends with, which is at once if the session has ended.
    fn watch(&self, task: AbortHandle) {
        let mut state = lock(&self.state);
        if matches!(state.phase, Stage::Ended) {
            task.abort();
        } else {
            state.task = Some(task);
        }
    }

    /// Waits for the end of a loop. Dropped, it ends the loop: its handlers are told that they are cancelled.
    async fn attend(self: Arc<Self>, running: RunningService<RoleServer, Guard<S>>, life: u32) {
        if self.times.rest_after.is_some() {
            let mut state = lock(&self.state);
            if state.life == life
                && let Stage::Awake { peer, .. } = &mut state.phase
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
    fn sender(self: &Arc<Self>, session: &Arc<Session>) -> Option<Sender> {
        let mut state = lock(&self.state);
        match &state.phase {
            Stage::Ended => return None,
            Stage::Awake { sender, .. } => return Some(sender.clone()),
            Stage::Resting { .. } => {}
        }
        let Beginning { service, client, sender, transport, life } = self.wake(&mut state, session)?;
        drop(state);
        let client = client.map(|client| client.as_ref().clone());
        // rmcp asks the handler about itself here.
        let begin = || serve_directly::<RoleServer, _, _, _, _>(Guard(service), transport, client);
        let Ok(running) = catch_unwind(AssertUnwindSafe(begin)) else {
            tracing::error!("a handler panicked");
            self.close();
            return None;
        };
        self.watch(tokio::spawn(self.clone().attend(running, life)).abort_handle());
        Some(sender)
    }

    /// Holds the duty to answer a request until the service does. Returns the ID that the loop knows it by; `None` if
    /// it was cancelled meanwhile.
    ///
    /// # Errors
    ///
    /// The service has ended; gives the duty back.
    pub(super) fn hold(&self, context: Context, request: &mut ClientRequest) -> Result<Option<i64>, Context> {
        let mut state = lock(&self.state);
        if matches!(state.phase, Stage::Ended) {
            return Err(context);
        }
        // A request that is cancelled from here on is found by `withdraw`.
        if context.is_cancelled() {
            return Ok(None);
        }
        state.last += 1;
        let id = state.last;
        let token = context.progress_token().map(|token| {
            let token = their_id(token);
            let is_taken = state.owed.values().any(|owed| owed.token.as_ref() == Some(&token));
            if is_taken { NumberOrString::Number(id) } else { token }
        });
        if let Some(token) = token.clone().map(ProgressToken)
            && request.get_meta().get_progress_token().as_ref() != Some(&token)
        {
            request.get_meta_mut().set_progress_token(token);
        }
        state.owed.insert(id, Owed { context, token });
        Ok(Some(id))
    }

    /// Takes the duty to answer the request that the loop knows by this ID.
    pub(super) fn take(&self, id: &NumberOrString) -> Option<Context> {
        let NumberOrString::Number(id) = id else { return None };
        lock(&self.state).owed.remove(id).map(|owed| owed.context)
    }

    /// Takes the request that the client calls so, and has just taken back. rmcp gives no response to it.
    pub(super) fn withdraw(&self, id: &RequestId) -> Option<Withdrawn> {
        let mut state = lock(&self.state);
        // Not one with the same ID that came behind the cancellation.
        let is_it = |owed: &Owed| owed.context.id() == id && owed.context.is_cancelled();
        let id = *state.owed.iter().find(|(_, owed)| is_it(owed))?.0;
        let Owed { context, .. } = state.owed.remove(&id)?;
        let questions = state.questions.take_of(context.stream());
        let life = state.life;
        // Outside the lock: dropped, the duty answers.
        drop(state);
        drop(context);
        Some(Withdrawn { id, life, questions })
    }

    /// The request that a handler marked something as part of, by the ID that the loop knows it by.
    pub(super) fn stream_of(&self, id: &NumberOrString) -> Option<Arc<RequestStream>> {
        let NumberOrString::Number(id) = id else { return None };
        lock(&self.state).owed.get(id).map(|owed| owed.context.stream().clone())
    }

    /// The request whose progress a handler reports under this token, and the client's token for it.
    pub(super) fn stream_of_token(
        &self,
        token: &NumberOrString,
    ) -> Option<(Arc<RequestStream>, NumberOrString)> {
        let state = lock(&self.state);
        let owed = state.owed.values().find(|owed| owed.token.as_ref() == Some(token))?;
        Some((owed.context.stream().clone(), their_id(owed.context.progress_token()?)))
    }

    /// Notes a question of the loop's. Returns the ID that the client shall know it by.
    pub(super) fn ask(&self, session: &Session, question: Question) -> i64 {
        let mut state = lock(&self.state);
        let id = session.next_question();
        state.questions.insert(id, question);
        id
    }

    /// Forgets a question that could not be asked.
    pub(super) fn unask(&self, id: i64) {
        lock(&self.state).questions.remove(id);
    }

    /// Takes the question that the loop calls so, and gives up.
    pub(super) fn take_question(&self, id: &NumberOrString) -> Option<(i64, Question)> {
        lock(&self.state).questions.take_by_loop_id(id)
    }

    /// Takes a question that the client was given `timeout` for; or else says when to look again.
    pub(super) fn take_overdue(
        &self,
        timeout: Duration,
        now: Instant,
    ) -> Result<(i64, Question), Option<Instant>> {
        lock(&self.state).questions.take_overdue(timeout, now)
    }

    /// Hands the answer to a question to whoever asked, without waiting here. `None` if no question is open that the
    /// client calls so.
    pub(super) fn answer(
        &self,
        id: &RequestId,
        answer: Result<ClientResult, ErrorData>,
    ) -> Option<(i64, Question)> {
        // One hold of the lock: a loop that begins after this one asks its own questions under the same IDs.
        let mut state = lock(&self.state);
        let (id, question) = state.questions.take(id)?;
        state.send_answer(&question, answer);
        Some((id, question))
    }

    /// Lets whoever asked in the life that this was withdrawn in know that there will be no answer.
    pub(super) fn refuse(&self, life: u32, question: &Question, error: ErrorData) {
        let state = lock(&self.state);
        // A loop that began meanwhile asks its own questions under the same IDs.
        if state.life == life {
            state.send_answer(question, Err(error));
        }
    }

    /// What progress that the client reports belongs to.
    pub(super) fn progress(&self, token: &NumberOrString) -> Progress {
        lock(&self.state).questions.progress(token)
    }

    /// Hands a message to the service; waits while too many wait there.
    pub(super) async fn deliver(self: &Arc<Self>, message: ClientJsonRpcMessage, session: &Arc<Session>) {
        if let Some(sender) = self.sender(session) {
            // An error says that the service ended; whoever is owed an answer is told by `close`.
            let _ = sender.send_async(message).await;
        }
    }

    /// Whether the loop may end because nothing waits for it, nobody waits for it, and nobody could give it
    /// anything but the client. If so, the next message begins it again. Returns the questions that are open: whoever
    /// waits for an answer holds a peer, so nobody does.
    pub(super) fn rest(
        &self,
        inbox: &flume::Receiver<ClientJsonRpcMessage>,
        life: u32,
    ) -> Option<HashMap<i64, Question>> {
        let mut state = lock(&self.state);
        let Stage::Awake { peer: Some(peer), service, .. } = &state.phase else { return None };
        // A second sender is a message that is about to come.
        let is_silent = inbox.is_empty() && inbox.sender_count() == 1;
        let is_idle = state.life == life && is_silent && state.owed.is_empty();
        if !is_idle || !is_let_go(peer) {
            return None;
        }
        state.phase = Stage::Resting { service: service.clone(), client: peer.peer_info() };
        state.owed = HashMap::new();
        // It holds the memory of the task.
        state.task = None;
        Some(state.questions.take_all())
    }

    /// Notes that a loop has ended, unless it was to rest. What is still owed an answer gets an error.
    pub(super) fn end(&self, life: u32) {
        let state = lock(&self.state);
        if state.life != life || matches!(state.phase, Stage::Resting { .. }) {
            return;
        }
        self.shut(state);
    }

    /// Ends the service. What is still owed an answer gets an error.
    pub(super) fn close(&self) {
        self.shut(lock(&self.state));
    }

    fn shut(&self, mut state: MutexGuard<'_, State<S>>) {
        let gone =
            (replace(&mut state.phase, Stage::Ended), take(&mut state.owed), state.questions.take_all());
        let task = state.task.take();
        drop(state);
        drop(gone);
        if let Some(task) = task {
            task.abort();
        }
    }
}

impl<S> State<S> {
    fn send_answer(&self, question: &Question, answer: Result<ClientResult, ErrorData>) {
        let Stage::Awake { sender, .. } = &self.phase else { return };
        let message = match answer {
            Ok(result) => ClientJsonRpcMessage::response(result, question.id.clone()),
            Err(error) => ClientJsonRpcMessage::error(error, Some(question.id.clone())),
        };
        if let Err(flume::TrySendError::Full(message)) = sender.try_send(message) {
            let sender = sender.clone();
            tokio::spawn(async move { sender.send_async(message).await });
        }
    }
}
