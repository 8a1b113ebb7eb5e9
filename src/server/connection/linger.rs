//! Closes a connection whose client may still be sending.
//!
//! A system that closes a socket with unread input resets the connection, and a client whose connection is reset, or
//! that fails to send, often reports that and not the answer it was sent. So a connection is closed in stages: the
//! answer, the end of what the server sends, and then what the client sends is read and dropped until it ends too.
//!
//= https://www.rfc-editor.org/rfc/rfc9112#section-9.6
//# To avoid the TCP reset problem, servers typically close a connection in stages. First, the server performs a
//# half-close by closing only the write side of the read/write connection. The server then continues to read from the
//# connection until it receives a corresponding close by the client, or until the server is reasonably certain that
//# its own TCP stack has received the client's acknowledgement of the packet(s) containing the server's last response.
//!
//! # Limits
//!
//! A connection lingers until its client ends it, sends nothing for [`QUIET`] (or [`QUIET_DRAINING`]), has lingered for
//! [`LONGEST`], or has sent [`MOST_BYTES`]. Meanwhile it keeps its permit, so it counts as a connection. No more than
//! [`Lingers`] allows linger at once; the others are closed at once.

use std::io;
use std::time::Duration;

use bytes::Buf;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::plain::Plain;
use super::stage::{Stage, reaches};
use crate::sync::{Arc, AtomicUsize, Ordering};

/// Time that a client may send nothing.
const QUIET: Duration = Duration::from_secs(2);
/// The same during a drain, which does not wait for clients that keep an idle connection.
const QUIET_DRAINING: Duration = Duration::from_millis(250);
/// Total time that a client may send.
const LONGEST: Duration = Duration::from_secs(5);
/// Total bytes that a client may send.
const MOST_BYTES: usize = 64 << 20;
/// Bytes read with one call, and calls before other tasks get their turn.
const PIECE: usize = 16 << 10;
const TURN: usize = 32;

/// Limits the number of lingering connections.
#[derive(Debug)]
pub(in crate::server) struct Lingers {
    open: AtomicUsize,
    max: usize,
}

/// The right of one connection to linger, released when it is dropped.
#[derive(Debug)]
struct Leave(Arc<Lingers>);

impl Lingers {
    pub(in crate::server) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), max })
    }

    /// `None` if the limit is reached.
    fn enter(self: &Arc<Self>) -> Option<Leave> {
        // Relaxed, here and in `drop`: only the number matters, and each change is one step.
        if self.open.fetch_add(1, Ordering::Relaxed) < self.max {
            return Some(Leave(self.clone()));
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        // Relaxed: see `enter`.
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The outcome of reading what the client sent.
enum Look {
    /// The client closed its side, or the connection is broken.
    Over,
    /// Nothing more is there now.
    Nothing,
    /// There may be more.
    More,
}

/// Closes the server's side of `socket`, drops what the client sends, and closes the socket.
pub(in crate::server) async fn close(socket: Plain, lingers: &Arc<Lingers>, stage: watch::Receiver<Stage>) {
    // Most connections end because the client closed them, and need no right to linger.
    if let Some((socket, left)) = half_close(socket)
        && let Some(leave) = lingers.enter()
    {
        wait(socket, left, leave, stage).await;
    }
}

/// As [`close`], in a task of its own if the client has not closed its side.
pub(in crate::server) fn close_aside(
    socket: Plain,
    lingers: &Arc<Lingers>,
    stage: watch::Receiver<Stage>,
    kept: impl Send + 'static,
) {
    if let Some((socket, left)) = half_close(socket)
        && let Some(leave) = lingers.enter()
    {
        tokio::spawn(async move {
            wait(socket, left, leave, stage).await;
            drop(kept);
        });
    }
}

/// Closes the server's side. Returns the socket, and how much the client may still send, unless the client has closed
/// too.
fn half_close(mut socket: Plain) -> Option<(Plain, usize)> {
    // An error means that the client has already closed.
    socket.end().ok()?;
    let mut left = MOST_BYTES;
    (!matches!(look(&mut socket, &mut left), Look::Over)).then_some((socket, left))
}

/// Drops what the client sends, within the limits.
async fn wait(mut socket: Plain, mut left: usize, _leave: Leave, mut stage: watch::Receiver<Stage>) {
    let at_the_latest = Instant::now() + LONGEST;
    let is_draining = || *stage.borrow() != Stage::Serving;
    let quiet = if is_draining() { QUIET_DRAINING } else { QUIET };
    let dropping = async {
        loop {
            let by = at_the_latest.min(Instant::now() + quiet);
            // Ready at once if there is more, after other tasks had their turn.
            if !matches!(timeout_at(by, socket.readable()).await, Ok(Ok(()))) {
                return;
            }
            match look(&mut socket, &mut left) {
                Look::Over => return,
                Look::Nothing => {}
                Look::More => tokio::task::yield_now().await,
            }
            if Instant::now() >= at_the_latest {
                return;
            }
        }
    };
    tokio::select! {
        () = dropping => {}
        () = reaches(&mut stage, Stage::CutOff) => {}
    }
}

/// Drops the rest of the body of an HTTP/2 request that was answered early, within the same limits. Without
/// this the stream is reset right after its answer, as HTTP/2 provides for; but Node.js 20 and curl 7.88, which are
/// still sending, then report the reset and not the answer.
pub(super) fn drop_body<B>(mut body: B, lingers: &Arc<Lingers>)
where
    B: Body<Data: Buf, Error: Send> + Unpin + Send + 'static,
{
    let Some(leave) = lingers.enter() else { return };
    tokio::spawn(async move {
        let at_the_latest = Instant::now() + LONGEST;
        let mut left = MOST_BYTES;
        loop {
            let by = at_the_latest.min(Instant::now() + QUIET);
            let Ok(Some(Ok(frame))) = timeout_at(by, body.frame()).await else { break };
            let count = frame.data_ref().map_or(0, Buf::remaining);
            if count >= left || Instant::now() >= at_the_latest {
                break;
            }
            left -= count;
        }
        drop(leave);
    });
}

/// Reads and drops what is there, at most `left` bytes.
fn look(socket: &mut Plain, left: &mut usize) -> Look {
    let mut piece = [0; PIECE];
    for _ in 0..TURN {
        match socket.try_read(&mut piece) {
            Ok(0) => return Look::Over,
            Ok(count) if count >= *left => return Look::Over,
            Ok(count) => *left -= count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Look::Nothing,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_gone) => return Look::Over,
        }
    }
    Look::More
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_linger_than_may() {
        let lingers = Lingers::new(2);
        let first = lingers.enter();
        let second = lingers.enter();
        assert!(first.is_some() && second.is_some() && lingers.enter().is_none());
        drop(first);
        assert!(lingers.enter().is_some());
    }
}
