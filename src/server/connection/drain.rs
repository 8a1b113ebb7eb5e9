//! How a server comes to its end: what is in flight finishes, at the latest by the deadline.

use std::io;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::stage::Stage;
use super::state::ServerState;
use crate::handler::Handler;
use crate::server::endpoint::Endpoint;
use crate::sync::Arc;

/// How long connections may take to end once they were told that the deadline came.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// How a server came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every connection finished what it was doing.
    Complete,
    /// The deadline came first, and what was open was cut off.
    CutOff,
}

/// Ends everything at once if the future that serves is dropped before it is done: nothing keeps the time any more.
pub(super) struct Abandon<H: Handler> {
    pub(super) endpoint: Arc<Endpoint<H>>,
    pub(super) stage: watch::Sender<Stage>,
    pub(super) is_done: bool,
}

impl<H: Handler> Drop for Abandon<H> {
    fn drop(&mut self) {
        if !self.is_done {
            self.endpoint.start_draining();
            self.stage.send_replace(Stage::CutOff);
            self.endpoint.terminate_all();
        }
    }
}

/// Lets everything come to its end, at the latest by the deadline.
pub(super) async fn finish<H: Handler>(
    state: &ServerState<H>,
    stage: &watch::Sender<Stage>,
    mut reactors: JoinSet<io::Result<()>>,
) -> Drained {
    let endpoint = &state.endpoint;
    endpoint.start_draining();
    let writer = state.writer.get();
    if let Some(writer) = writer {
        writer.drain();
    }
    let spread = endpoint.config.drain_spread.as_millis();
    endpoint.sessions.spread_returns(u32::try_from(spread).unwrap_or(u32::MAX));
    endpoint.sessions.for_each(|session| {
        session.hang_up();
    });
    stage.send_replace(Stage::Draining);
    let mut ended = Box::pin(async {
        // Each connection holds a receiver: when none is left, none is, and none is handed over any more.
        stage.closed().await;
        if let Some(writer) = writer {
            writer.finish();
        }
        while reactors.join_next().await.is_some() {}
        // Those that a reactor closed in stages.
        stage.closed().await;
    });
    let in_time = timeout(endpoint.config.drain, &mut ended).await.is_ok();
    endpoint.terminate_all();
    if in_time {
        return Drained::Complete;
    }
    // The streams are closed; their last bytes get a moment to leave.
    if timeout(LAST_BYTES, &mut ended).await.is_err() {
        drop(ended);
        stage.send_replace(Stage::CutOff);
        if let Some(writer) = writer {
            writer.finish();
        }
        reactors.shutdown().await;
        let _ = timeout(LAST_BYTES, stage.closed()).await;
    }
    Drained::CutOff
}
