//! Whether a service has anything to do, or anybody could give it something.
//!
//! rmcp's loop costs some 30 KB a session, for two channels and two tasks. One that waits for nothing but the client's
//! next message can end meanwhile; the handler stays, and the next message begins the loop again. What must not be lost
//! on the way is what a handler says of its own accord: through a [`Peer`] that it kept, which is good for one loop.
//!
//! rmcp does not tell who holds a peer, and nothing in a peer is ours to count by. What it prints of one for debugging
//! holds tokio's count of the channel's senders, and each peer is one. So each look is a measurement that is checked:
//! the count must go up by one while there is one peer more, and down again. If it does not, or is higher than for a
//! service that nobody holds a peer of, the loop goes on.

use std::future::{Future, pending, ready};
use std::sync::OnceLock;

use rmcp::model::ClientJsonRpcMessage;
use rmcp::service::{TxJsonRpcMessage, serve_directly};
use rmcp::transport::Transport;
use rmcp::{Peer, RoleServer, ServerHandler};

use crate::request::PublishError;

/// Whether nobody holds the peer of a service but the service, and whoever asks, once.
///
/// Called on a runtime. Says no if in doubt.
pub(super) fn is_let_go(peer: &Peer<RoleServer>) -> bool {
    static ALONE: OnceLock<Option<usize>> = OnceLock::new();
    let alone = ALONE.get_or_init(|| {
        let service = serve_directly::<RoleServer, _, _, _, _>(Nobody, Silence, None);
        let peer = service.peer().clone();
        count(&peer)
    });
    alone.is_some() && count(peer) == *alone
}

/// How many peers of a service there are. `None` if what is read is not that, or changes at the same time.
fn count(peer: &Peer<RoleServer>) -> Option<usize> {
    measure(|| senders(&format!("{peer:?}")), || peer.clone())
}

/// What `read` says, if it says one more for as long as `another` is there, and the same before and after.
fn measure<T>(read: impl Fn() -> Option<usize>, another: impl FnOnce() -> T) -> Option<usize> {
    let before = read()?;
    let another = another();
    let with = read()?;
    drop(another);
    (with == before.checked_add(1)? && read()? == before).then_some(before)
}

/// The number of senders in what tokio prints of one.
fn senders(shown: &str) -> Option<usize> {
    const COUNT: &str = "tx_count: ";
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

    /// A number that is something else, or stands for something else one day, does not pass for a count.
    #[test]
    fn number_that_does_not_follow_the_peers_is_no_count() {
        use std::cell::Cell;

        assert_eq!(measure(|| Some(3), || ()), None, "it stands still");
        assert_eq!(measure(|| None, || ()), None, "it cannot be found");
        let calls = Cell::new(3);
        let rising = || Some(calls.replace(calls.get() + 1));
        assert_eq!(measure(rising, || ()), None, "it does not come back");
        let peers = Cell::new(3);
        struct Another<'a>(&'a Cell<usize>);
        impl Drop for Another<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        let another = || {
            peers.set(peers.get() + 1);
            Another(&peers)
        };
        assert_eq!(measure(|| Some(peers.get()), another), Some(3));
    }

    #[test]
    fn count_is_read_from_what_tokio_prints() {
        assert_eq!(senders("PeerSink { tx: Sender { chan: Tx { tx_count: 12, rx: 1 } } }"), Some(12));
        assert_eq!(senders("PeerSink { tx: Sender { .. } }"), None);
        assert_eq!(senders("tx_count: "), None);
        assert_eq!(senders("tx_count: x"), None);
    }
}
