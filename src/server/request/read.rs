//! Reads the body of a request, within limits of time and memory.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;

use super::pending::Pending;
use crate::handler::Handler;
use crate::protocol::Refusal;
use crate::server::config::Config;
use crate::server::endpoint::Endpoint;

/// Time that a body has once the drain began. Its request is not in flight yet: the client can send it to
/// another server, and one that stopped sending does not hold the drain.
const AFTER_DRAIN: Duration = Duration::from_secs(2);

/// Reads the whole body.
pub(super) async fn read<H, B>(endpoint: &Endpoint<H>, body: &mut B) -> Result<Bytes, Refusal>
where
    H: Handler,
    B: Body<Data = Bytes> + Unpin,
{
    let limit = endpoint.config.max_body_bytes;
    // Most bodies arrive with the head.
    let first = match poll_fn(|context| Poll::Ready(Pin::new(&mut *body).poll_frame(context))).await {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        Poll::Ready(Some(Err(_))) => return Err(Refusal::ParseError),
        Poll::Ready(None) => return Ok(Bytes::new()),
        Poll::Pending => Bytes::new(),
    };
    if first.len() > limit {
        return Err(Refusal::BodyTooLarge { limit });
    }
    if body.is_end_stream() {
        return Ok(first);
    }
    rest(&endpoint.config, &endpoint.pending, first, body, endpoint.drains()).await
}

/// Reads what follows `first`, before the deadline, or within [`LAST_BYTES`] once `draining` resolves.
async fn rest(
    config: &Config,
    pending: &Pending,
    first: Bytes,
    body: &mut (impl Body<Data = Bytes> + Unpin),
    draining: impl Future<Output = ()>,
) -> Result<Bytes, Refusal> {
    let read = Box::pin(all(config, pending, first, body));
    let drained = async {
        draining.await;
        tokio::time::sleep(AFTER_DRAIN.min(config.drain / 4)).await;
    };
    tokio::select! {
        biased;
        read = tokio::time::timeout(config.read_timeout, read) => read.unwrap_or(Err(Refusal::BodyTimeout)),
        () = drained => Err(Refusal::Draining),
    }
}

async fn all(
    config: &Config,
    pending: &Pending,
    first: Bytes,
    body: &mut (impl Body<Data = Bytes> + Unpin),
) -> Result<Bytes, Refusal> {
    let limit = config.max_body_bytes;
    let mut held = pending.share(config.max_pending_body_bytes);
    held.add(first.len())?;
    let mut whole = Vec::from(first);
    while let Some(frame) = body.frame().await {
        // The client disconnected or broke the framing; most likely nobody reads the answer.
        let Ok(data) = frame.map_err(|_| Refusal::ParseError)?.into_data() else { continue };
        if data.len() > limit - whole.len() {
            return Err(Refusal::BodyTooLarge { limit });
        }
        held.add(data.len())?;
        whole.extend_from_slice(&data);
    }
    Ok(whole.into())
}
