//! TLS on one connection: the handshake, by rustls, and the encrypted socket.
//!
//! Streams over TLS stay inside hyper, because what is written to them must be encrypted where the keys are.

use std::io;
use std::net::TcpStream as StdStream;

use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use super::certificate::{H2, Identity};
use super::plain::{Plain, Socket};

/// Performs the handshake with a client.
pub(super) fn accept(identity: &Identity, stream: Plain) -> Accept<Plain> {
    TlsAcceptor::from(identity.current()).accept(stream)
}

/// Whether the handshake selected HTTP/2.
pub(super) fn is_http2(stream: &TlsStream<Plain>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(H2)
}

impl Socket for Box<TlsStream<Plain>> {
    const LEAVES: bool = false;

    fn take_plain(&mut self) -> Plain {
        std::mem::replace(self.get_mut().0, Plain::Gone)
    }

    fn into_std(self) -> io::Result<StdStream> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
