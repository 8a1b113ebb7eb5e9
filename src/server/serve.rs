//! One connection, from its first byte to its last or to its hand-over.

use std::future::Future;
use std::io;
use std::net::{IpAddr, TcpStream as StdStream};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::gate::{Closed, Ends, Permit};
use super::plain::Plain;
use super::{Config, Endpoint, http1, http2};
use crate::handler::Handler;
use crate::sync::Arc;

/// How a client with prior knowledge of HTTP/2 begins.
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What connections are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Serving,
    /// Take no further request.
    Draining,
    /// End, whatever is in flight.
    CutOff,
}

/// How a connection comes here.
pub(super) enum Opening {
    /// It was just accepted, from this address.
    New(IpAddr),
    /// Its last answer was a stream; this is what the client sent meanwhile.
    Again(Bytes),
}

/// What a connection has with it wherever it goes: its leave to be open, and until when.
pub(super) struct Visit {
    pub(super) permit: Permit,
    pub(super) ends: Ends,
}

/// One connection and whose it is.
pub(super) struct Guest<H> {
    pub(super) endpoint: Arc<Endpoint<H>>,
    pub(super) address: IpAddr,
    pub(super) visit: Visit,
    pub(super) stage: watch::Receiver<Stage>,
}

/// What requests come in by.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Whether it can be taken out of the runtime, to be written without hyper.
    const LEAVES: bool;

    /// Takes it out of the runtime.
    fn into_std(self) -> io::Result<StdStream>;
}

/// Serves one connection to its end, or hands it over.
pub(super) async fn serve<H: Handler>(
    endpoint: Arc<Endpoint<H>>,
    stream: Plain,
    visit: Visit,
    opening: Opening,
    stage: watch::Receiver<Stage>,
) {
    match opening {
        Opening::New(address) => Guest { endpoint, address, visit, stage }.begin(stream).await,
        Opening::Again(unread) => {
            // A socket that has no other side by now brings no request either.
            let Ok(address) = stream.peer() else { return };
            let guest = Guest { endpoint, address, visit, stage };
            http1::serve(guest, stream, unread, false).await;
        }
    }
}

impl<H: Handler> Guest<H> {
    /// Serves a connection that was just accepted.
    async fn begin(mut self, mut stream: Plain) {
        #[cfg(feature = "tls")]
        if self.endpoint.identity.is_some() {
            return self.begin_encrypted(stream).await;
        }
        let first = match read_some(&mut stream, &[]) {
            Ok(first) if !may_be_http2(&first) => Ok(first),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            begun => {
                let begun = begun.unwrap_or_default();
                let Some(first) = self.by_deadline(first_bytes(&mut stream, begun)).await else { return };
                first
            }
        };
        match first {
            Ok(first) if first.is_empty() => {}
            Ok(first) if first.starts_with(HTTP2_PREFACE) => http2::serve(self, stream, first).await,
            Ok(first) => http1::serve(self, stream, first, true).await,
            Err(error) => tracing::trace!(%error, "a connection ended before its first request"),
        }
    }

    #[cfg(feature = "tls")]
    async fn begin_encrypted(mut self, stream: Plain) {
        let endpoint = self.endpoint.clone();
        let Some(identity) = &endpoint.identity else { return };
        let Some(shaken) = self.by_deadline(identity.accept(stream)).await else { return };
        match shaken {
            Ok(stream) if super::tls::is_http2(&stream) => http2::serve(self, stream, Bytes::new()).await,
            Ok(stream) => http1::serve(self, stream, Bytes::new(), true).await,
            Err(error) => {
                endpoint.gate.counters().count_refused_handshake();
                tracing::debug!(%error, "a TLS handshake failed");
            }
        }
    }

    /// Waits for the client to say something. `None` if it takes too long, or when the drain begins: nothing is in
    /// flight on a connection that said nothing yet.
    async fn by_deadline<F: Future>(&mut self, saying: F) -> Option<F::Output> {
        let Config { read_timeout, .. } = self.endpoint.config;
        tokio::select! {
            said = tokio::time::timeout(read_timeout, saying) => {
                if said.is_err() {
                    self.count_closed(Closed::Deadline);
                }
                said.ok()
            }
            () = reaches(&mut self.stage, Stage::Draining) => None,
        }
    }

    /// Counts a connection that the server ends.
    pub(super) fn count_closed(&self, why: Closed) {
        self.endpoint.gate.counters().count_closed(why);
    }

    /// Drives a connection to its end. When the drain begins, or `over` resolves, `wind_down` asks it to take no
    /// further request, or says that nothing is in flight. `over` says how long it may take from then on; `None` is
    /// for ever. `None` if the connection was given up.
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

/// Reads what the client begins with: enough to tell the versions of HTTP apart, `first` of it already. Empty if it
/// went away.
async fn first_bytes(stream: &mut Plain, mut first: Bytes) -> io::Result<Bytes> {
    loop {
        stream.readable().await?;
        match read_some(stream, &first) {
            Ok(more) if more.len() == first.len() => return Ok(Bytes::new()),
            Ok(more) => first = more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if !may_be_http2(&first) {
            return Ok(first);
        }
    }
}

/// Whether a client that began so has to be read from again: one that begins like HTTP/2 and stops.
fn may_be_http2(first: &[u8]) -> bool {
    !first.is_empty() && first.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(first)
}

/// What was read before, and what is there now.
fn read_some(stream: &mut Plain, before: &[u8]) -> io::Result<Bytes> {
    let mut buffer = [0; 2048];
    buffer[..before.len()].copy_from_slice(before);
    let count = stream.try_read(&mut buffer[before.len()..])?;
    Ok(Bytes::copy_from_slice(&buffer[..before.len() + count]))
}

/// Waits until the server has come to `wanted`, or beyond.
async fn reaches(stage: &mut watch::Receiver<Stage>, wanted: Stage) {
    // An error means that nobody tells any more: the server is gone, and with it everything it waited for.
    let _ = stage.wait_for(|stage| *stage as u8 >= wanted as u8).await;
}

/// Beyond this hyper refuses a head by itself.
pub(super) fn max_head(config: &Config) -> usize {
    config.max_header_bytes.saturating_mul(4).max(16 << 10)
}
