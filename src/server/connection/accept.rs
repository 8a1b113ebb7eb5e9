//! Accepts connections, or rejects them beyond the limits.

use std::io::Write;
use std::net::IpAddr;

use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tracing::Instrument;

use super::accepted::Accepted;
use super::gate::{Admitted, LimitReached};
use super::pause::{Pause, Throttle};
use super::plain::Plain;
use super::stage::Stage;
use super::state::ServerState;
use super::{linger, serve};
use crate::handler::Handler;
use crate::server::request::answer::TOO_MANY_CONNECTIONS;
use crate::sync::Arc;

/// Rejected connections answered per second.
const ANSWERED: u32 = 200;

/// Accepts the connections of one server.
pub(super) struct Acceptor<'a, H> {
    state: &'a Arc<ServerState<H>>,
    stage: &'a watch::Sender<Stage>,
    pause: Pause,
    rejections: Rejections,
}

impl<'a, H: Handler> Acceptor<'a, H> {
    pub(super) fn new(state: &'a Arc<ServerState<H>>, stage: &'a watch::Sender<Stage>) -> Self {
        Self { state, stage, pause: Pause::default(), rejections: Rejections::default() }
    }

    /// Accepts or rejects connections for as long as it is polled.
    pub(super) async fn run(&mut self, listener: &AsyncFd<mio::net::TcpListener>) {
        loop {
            // Other tasks get their turn, however many connections arrive.
            tokio::task::coop::consume_budget().await;
            let accepted = match listener.readable().await {
                Ok(mut ready) => match ready.try_io(|listener| listener.get_ref().accept()) {
                    Ok(accepted) => accepted,
                    Err(_nobody) => continue,
                },
                Err(error) => Err(error),
            };
            match accepted {
                Ok((stream, peer)) => {
                    self.pause.is_over();
                    self.open(stream, peer.ip());
                }
                Err(error) => self.pause.after(&error).await,
            }
        }
    }

    fn open(&mut self, stream: mio::net::TcpStream, address: IpAddr) {
        let gate = &self.state.gate;
        let permit = match gate.admit(address) {
            Ok(permit) => permit,
            Err(reason) => return self.rejections.turn_away(stream, reason, self.state, self.stage),
        };
        let admitted = Admitted { permit, ends: gate.ends(self.state.endpoint.now()) };
        let (state, stage) = (self.state.clone(), self.stage.subscribe());
        let accepted = Accepted { state, address, admitted, stage };
        let served = serve::begin(accepted, Plain::new(stream.into()));
        tokio::spawn(served.instrument(serve::span(address)));
    }
}

/// Decides which rejected connections get an answer.
#[derive(Debug, Default)]
struct Rejections {
    warnings: Throttle,
    /// The second of the last answer, and the number of answers in it.
    answers: (u64, u32),
}

impl Rejections {
    /// Ends a rejected connection. [`ANSWERED`] a second get an answer, and what they send is dropped until they
    /// have read it, within the limit of lingering connections. In a flood the rest get none.
    fn turn_away<H: Handler>(
        &mut self,
        stream: mio::net::TcpStream,
        reason: LimitReached,
        state: &ServerState<H>,
        stage: &watch::Sender<Stage>,
    ) {
        let second = state.endpoint.now().0 / 1000;
        if self.answers.0 != second {
            self.answers = (second, 0);
        }
        self.answers.1 += 1;
        if self.answers.1 <= ANSWERED && !state.is_encrypted() {
            let _ = (&stream).write(TOO_MANY_CONNECTIONS);
            let socket = Plain::new(stream.into());
            linger::close_aside(socket, state.gate.turned_away(), stage.subscribe(), ());
        }
        if self.answers.1 == 1 && self.warnings.is_due() {
            tracing::warn!(setting = reason.setting(), "refused a connection: the limit is reached");
        }
    }
}
