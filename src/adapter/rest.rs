//! Whether a service has anything to do, or anybody could give it something.
//!
//! rmcp's loop costs some 30 KB a session, for two channels and two tasks. One that waits for nothing but the client's next
//! message can end meanwhile; the handler stays, and the next message begins the loop again. What must not be lost on the
//! way is what a handler says of its own accord: through a [`Peer`] that it kept, which is good for one loop.
//!
//! rmcp does not tell who holds a peer. What it prints of one for debugging holds tokio's count of the channel's senders,
//! and each peer is one. If that cannot be found, or is higher than for a service that nobody holds a peer of, the loop
//! goes on.

use std::future::{Future, pending, ready};
use std::sync::OnceLock;

use rmcp::model::ClientJsonRpcMessage;
use rmcp::service::{TxJsonRpcMessage, serve_directly};
use rmcp::transport::Transport;
use rmcp::{Peer, RoleServer, ServerHandler};

use crate::session::PublishError;

/// Whether nobody holds the peer of a service but the service, and whoever asks, once.
///
/// Called on a runtime. Says no if in doubt.
pub(super) fn is_let_go(peer: &Peer<RoleServer>) -> bool {
    static ALONE: OnceLock<Option<usize>> = OnceLock::new();
    let alone = ALONE.get_or_init(|| {
        let service = serve_directly::<RoleServer, _, _, _, _>(Nobody, Silence, None);
        holders(&service.peer().clone())
    });
    alone.is_some() && holders(peer) == *alone
}

/// Senders into the channel that a peer sends into.
fn holders(peer: &Peer<RoleServer>) -> Option<usize> {
    const COUNT: &str = "tx_count: ";
    let shown = format!("{peer:?}");
    let (_, count) = shown.split_once(COUNT)?;
    let digits = count.find(|c: char| !c.is_ascii_digit())?;
    count[..digits].parse().ok()
}

struct Nobody;

impl ServerHandler for Nobody {}

/// Nothing comes of it.
struct Silence;

impl Transport<RoleServer> for Silence {
    type Error = PublishError;

    fn send(
        &mut self,
        _: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), PublishError>> + Send + 'static {
        ready(Ok(()))
    }

    fn receive(&mut self) -> impl Future<Output = Option<ClientJsonRpcMessage>> + Send {
        pending()
    }

    fn close(&mut self) -> impl Future<Output = Result<(), PublishError>> + Send {
        ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this fails with another rmcp or tokio, services do not rest: nothing breaks, and it costs memory.
    #[tokio::test]
    async fn who_holds_a_peer_is_known() {
        let service = serve_directly::<RoleServer, _, _, _, _>(Nobody, Silence, None);
        let ours = service.peer().clone();
        assert!(is_let_go(&ours));
        let another = ours.clone();
        assert!(!is_let_go(&ours));
        drop(another);
        assert!(is_let_go(&ours));
    }
}
