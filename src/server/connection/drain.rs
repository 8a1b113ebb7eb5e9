//! Drains a server: requests in flight finish, and the rest is cut off at the deadline.

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

/// Time that connections have to end after the deadline.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// The outcome of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every request in flight finished.
    Complete,
    /// The deadline came first, and open connections were cut off.
    CutOff,
}

/// Ends everything at once if the future of [`Server::run`](super::server::Server::run) is dropped.
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

/// Lets everything finish, until the deadline.
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
        // Each connection holds a receiver: when none is left, there is no connection, and none is handed over any
        // more.
        stage.closed().await;
        if let Some(writer) = writer {
            writer.finish();
        }
        while reactors.join_next().await.is_some() {}
        // Connections that a reactor closes in stages.
        stage.closed().await;
    });
    let in_time = timeout(endpoint.config.drain, &mut ended).await.is_ok();
    endpoint.terminate_all();
    if in_time {
        return Drained::Complete;
    }
    // The streams are closed. Their last bytes get a moment to leave.
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
