//! One accepted connection: its client, its deadlines, and its future driven to the end.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;

use super::gate::Admitted;
use super::linger;
use super::plain::Plain;
use super::stage::{Stage, reaches};
use super::state::ServerState;
use crate::handler::Handler;
use crate::server::config::Config;
use crate::server::metrics::connections::CloseReason;
use crate::server::request::route::Peer;
use crate::sync::Arc;

/// The state of a connection, without its socket.
pub(super) struct Accepted<H> {
    pub(super) state: Arc<ServerState<H>>,
    /// The client's address: the peer's, or the one that its proxy stated when it opened the connection.
    pub(super) address: IpAddr,
    pub(super) admitted: Admitted,
    pub(super) stage: watch::Receiver<Stage>,
}

impl<H: Handler> Accepted<H> {
    /// The peer, which may state a client in the headers of its requests.
    pub(super) fn peer(&self) -> Peer {
        let proxies = &self.state.endpoint.config.proxies;
        // A proxy that speaks the PROXY protocol and named no client writes no header: a header would be its client's.
        let is_silent = proxies.announces(self.address) && self.admitted.permit.client().is_none();
        Peer { address: self.address, writes_headers: !is_silent }
    }

    /// The largest head, in bytes, that hyper accepts. Beyond it, hyper refuses by itself.
    pub(super) fn max_head_bytes(&self) -> usize {
        self.state.endpoint.config.max_header_bytes.saturating_mul(4).max(16 << 10)
    }

    /// Waits for the client's first bytes. `None` if it takes too long, or when the drain begins: nothing is in
    /// flight on such a connection.
    pub(super) async fn by_deadline<F: Future>(&mut self, saying: F) -> Option<F::Output> {
        let Config { read_timeout, .. } = self.state.endpoint.config;
        tokio::select! {
            said = tokio::time::timeout(read_timeout, saying) => {
                if said.is_err() {
                    self.count_closed(CloseReason::Deadline);
                }
                said.ok()
            }
            () = reaches(&mut self.stage, Stage::Draining) => None,
        }
    }

    /// Closes the socket in stages, so that a client that is still sending receives the last answer.
    pub(super) async fn close(self, socket: Plain) {
        let Self { state, admitted, stage, .. } = self;
        linger::close(socket, state.gate.lingers(), stage).await;
        drop(admitted);
    }

    /// Counts a connection that the server ends.
    pub(super) fn count_closed(&self, why: CloseReason) {
        self.state.gate.counters().count_closed(why);
    }

    /// Drives a connection to its end. When the drain begins, or `over` resolves, `wind_down` asks it to accept no
    /// further request, or reports that nothing is in flight. `over` gives the time that it has from then on; `None` is
    /// for ever. Returns `None` if the connection was abandoned.
    pub(super) async fn drive<C: Future>(
        &mut self,
        mut connection: Pin<&mut C>,
        over: impl Future<Output = Option<Duration>>,
        wind_down: impl FnOnce(Pin<&mut C>) -> bool,
    ) -> Option<C::Output> {
        let last = tokio::select! {
            biased;
            served = connection.as_mut() => return Some(served),
            () = reaches(&mut self.stage, Stage::Draining) => None,
            last = over => last,
        };
        if !wind_down(connection.as_mut()) {
            return None;
        }
        tokio::select! {
            served = connection => Some(served),
            () = reaches(&mut self.stage, Stage::CutOff) => None,
            () = sleep(last) => None,
        }
    }
}

/// Sleeps; `None` is for ever.
pub(super) async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
