//! Reads the PROXY protocol header at the beginning of a connection.

use std::io;
use std::net::IpAddr;

use super::plain::Plain;
use crate::protocol::ProxyHeader;

/// Removes the PROXY protocol header from a connection. Returns the client's address, if the header names one.
pub(super) async fn take_header(stream: &mut Plain) -> io::Result<Option<IpAddr>> {
    let mut taken = Vec::new();
    let mut piece = [0; ProxyHeader::MAX_BYTES];
    loop {
        let count = stream.peek(&mut piece).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = taken.len();
        taken.extend_from_slice(&piece[..count]);
        let header =
            ProxyHeader::read(&taken).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        // Only the header is read; what follows stays in the socket. A part of a header is read
        // whole, so that nothing is parsed twice.
        let wanted = header.map_or(count, |header| header.length - before);
        let mut read = 0;
        while read < wanted {
            match stream.try_read(&mut piece[read..wanted])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => read += more,
            }
        }
        if let Some(header) = header {
            return Ok(header.client);
        }
    }
}
