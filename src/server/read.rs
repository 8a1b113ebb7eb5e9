//! Bodies that do not come at once: how long they may take, and how much of them is held.
//!
//! What has come of a body that is not complete is memory that a client took and gave nothing for. So it is counted,
//! over all connections and streams, and beyond a limit requests are refused until some of it is gone.

use bytes::Bytes;
use crossbeam_utils::CachePadded;
use http_body_util::BodyExt;
use hyper::body::Incoming as RequestBody;

use super::Config;
use crate::protocol::Refusal;
use crate::sync::{AtomicUsize, Ordering};

/// Bytes of all bodies that are not complete.
#[derive(Debug, Default)]
pub(super) struct Pending(CachePadded<AtomicUsize>);

/// One body's part of them, given back when it is dropped.
struct Held<'a> {
    pending: &'a Pending,
    limit: usize,
    bytes: usize,
}

impl Held<'_> {
    fn add(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.bytes += bytes;
        // Relaxed: the number alone matters, and each change of it is one step.
        let before = self.pending.0.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.limit { Err(Refusal::Busy) } else { Ok(()) }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Relaxed: as in `add`.
        self.pending.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads what comes behind `first`, by the deadline.
pub(super) async fn rest(
    config: &Config,
    pending: &Pending,
    first: Bytes,
    body: &mut RequestBody,
) -> Result<Bytes, Refusal> {
    let read = Box::pin(all(config, pending, first, body));
    tokio::time::timeout(config.read_timeout, read).await.unwrap_or(Err(Refusal::BodyTimeout))
}

async fn all(
    config: &Config,
    pending: &Pending,
    first: Bytes,
    body: &mut RequestBody,
) -> Result<Bytes, Refusal> {
    let limit = config.max_body_bytes;
    let mut held = Held { pending, limit: config.max_pending_body_bytes, bytes: 0 };
    held.add(first.len())?;
    let mut whole = Vec::from(first);
    while let Some(frame) = body.frame().await {
        // An error: the client went away, or broke the framing; hardly anybody is there to read the answer.
        let Ok(data) = frame.map_err(|_| Refusal::ParseError)?.into_data() else { continue };
        if data.len() > limit - whole.len() {
            return Err(Refusal::BodyTooLarge { limit });
        }
        held.add(data.len())?;
        whole.extend_from_slice(&data);
    }
    Ok(whole.into())
}
