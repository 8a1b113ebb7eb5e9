//! Starts the writer, and takes connections back from it when their stream has ended.

use std::io;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::accepted::Accepted;
use super::plain::Plain;
use super::stage::Stage;
use super::state::ServerState;
use super::{http1, linger, serve};
use crate::handler::Handler;
use crate::server::writer::{GiveBack, Next, ReactorTask, Writer};
use crate::sync::Arc;

/// Starts the reactors, one for each of the runtime's threads. Without them streams
/// stay inside hyper.
pub(super) fn start_reactors<H: Handler>(
    state: &Arc<ServerState<H>>,
    stage: &watch::Sender<Stage>,
) -> JoinSet<io::Result<()>> {
    let mut reactors = JoinSet::new();
    if !state.endpoint.config.hand_over {
        return reactors;
    }
    let (again, stages) = (state.clone(), stage.clone());
    let give_back: GiveBack = Arc::new(move |socket, admitted, next| {
        // A socket without a peer brings no request either.
        let Ok(peer) = socket.socket().peer_addr() else { return };
        let span = serve::span(peer.ip());
        let client = admitted.permit.client();
        if let Some(client) = client {
            span.record("client", tracing::field::display(client));
        }
        let address = client.unwrap_or(peer.ip());
        let socket = socket.map(Plain::new);
        let (state, stage) = (again.clone(), stages.subscribe());
        match next {
            Next::Request => {
                let accepted = Accepted { state, address, admitted, stage };
                tokio::spawn(http1::serve(accepted, socket, false).instrument(span));
            }
            Next::Close => {
                let (socket, _dropped) = socket.into_parts();
                linger::close_aside(socket, state.gate.lingers(), stage, admitted);
            }
        }
    });
    let endpoint = &state.endpoint;
    let count = tokio::runtime::Handle::current().metrics().num_workers();
    let (writer, sides) = Writer::new(count, endpoint.metrics.latency());
    for (handed, side) in sides {
        let counters = state.gate.counters().clone();
        match ReactorTask::new(
            handed,
            side,
            endpoint.sessions.broadcasts(),
            endpoint.config.keep_alive,
            state.patience,
            give_back.clone(),
            counters,
        ) {
            Ok(reactor) => drop(reactors.spawn(reactor)),
            Err(error) => {
                tracing::warn!(%error, "cannot start the writer; hyper writes the streams");
                return JoinSet::new();
            }
        }
    }
    let _ = state.writer.set(writer);
    reactors
}
