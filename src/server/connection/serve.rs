//! Serves one connection from its first byte: the PROXY protocol, TLS, and the version of HTTP.

use std::io;
use std::net::IpAddr;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::accepted::Accepted;
use super::plain::{Plain, Socket};
use super::prefixed::Prefixed;
#[cfg(feature = "tls")]
use super::tls;
use super::{http1, http2, linger, proxies};
use crate::handler::Handler;
use crate::server::request::answer::TOO_MANY_CONNECTIONS;

/// The preface of a client with prior knowledge of HTTP/2.
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The span of a connection, each time that hyper serves it.
pub(super) fn span(address: IpAddr) -> tracing::Span {
    tracing::debug_span!("connection", %address, client = tracing::field::Empty)
}

/// Serves a new connection to its end, or hands it over.
pub(super) async fn begin<H: Handler>(accepted: Accepted<H>, stream: Plain) {
    accepted.serve(stream).await;
}

impl<H: Handler> Accepted<H> {
    /// Serves a new connection.
    async fn serve(mut self, mut stream: Plain) {
        if self.state.endpoint.config.proxies.announces(self.address)
            && !Box::pin(self.meet_client(&mut stream)).await
        {
            return;
        }
        #[cfg(feature = "tls")]
        if self.state.identity.is_some() {
            // Boxed, so that connections without TLS do not pay for its size.
            return Box::pin(self.begin_encrypted(stream)).await;
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
            Ok(first) => {
                let is_http2 = first.starts_with(HTTP2_PREFACE);
                let socket = Prefixed::new(stream, first);
                if is_http2 {
                    Box::pin(http2::serve(self, socket)).await;
                } else {
                    http1::serve(self, socket, true).await;
                }
            }
            Err(error) => tracing::trace!(%error, "a connection ended before its first request"),
        }
    }

    /// Reads the client's address from the PROXY protocol. False if the header is missing or malformed, or if that
    /// client has too many connections.
    async fn meet_client(&mut self, stream: &mut Plain) -> bool {
        match self.by_deadline(proxies::take_header(stream)).await {
            None => false,
            // The proxy itself is the client.
            Some(Ok(None)) => true,
            Some(Ok(Some(client))) => match self.state.gate.speak_for(client, &mut self.admitted.permit) {
                Ok(()) => {
                    self.address = client;
                    tracing::Span::current().record("client", tracing::field::display(client));
                    true
                }
                Err(reason) => {
                    tracing::debug!(setting = reason.setting(), %client, "refused a connection");
                    self.turn_away(stream).await;
                    false
                }
            },
            Some(Err(error)) => {
                tracing::debug!(%error, "a proxy's connection has no valid PROXY protocol header");
                false
            }
        }
    }

    /// Answers a connection beyond its client's limit, and closes it.
    async fn turn_away(&mut self, stream: &mut Plain) {
        if self.state.is_encrypted() {
            return;
        }
        let mut socket = stream.take_plain();
        if matches!(self.by_deadline(socket.write_all(TOO_MANY_CONNECTIONS)).await, Some(Ok(()))) {
            linger::close(socket, self.state.gate.turned_away(), self.stage.clone()).await;
        }
    }

    #[cfg(feature = "tls")]
    async fn begin_encrypted(mut self, stream: Plain) {
        let state = self.state.clone();
        let Some(identity) = &state.identity else { return };
        // Boxed, each only for as long as it is needed: the handshake, the keys and buffers, and HTTP/2.
        let handshake = Box::pin(self.by_deadline(tls::accept(identity, stream)));
        let Some(shaken) = handshake.await else { return };
        match shaken.map(Box::new) {
            Ok(stream) if tls::is_http2(&stream) => {
                Box::pin(http2::serve(self, Prefixed::new(stream, Bytes::new()))).await;
            }
            Ok(stream) => http1::serve(self, Prefixed::new(stream, Bytes::new()), true).await,
            Err(error) => {
                state.gate.counters().count_refused_handshake();
                tracing::debug!(%error, "a TLS handshake failed");
            }
        }
    }
}

/// Reads the client's first bytes, beginning with `first`: enough to tell the versions of HTTP apart. Empty if it
/// disconnected.
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

/// Whether these first bytes do not decide yet: they are a prefix of the HTTP/2 preface.
fn may_be_http2(first: &[u8]) -> bool {
    !first.is_empty() && first.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(first)
}

/// What was read before, and what can be read now.
fn read_some(stream: &mut Plain, before: &[u8]) -> io::Result<Bytes> {
    let mut buffer = [0; 2048];
    buffer[..before.len()].copy_from_slice(before);
    let count = stream.try_read(&mut buffer[before.len()..])?;
    Ok(Bytes::copy_from_slice(&buffer[..before.len() + count]))
}
