//! Reads the header of the PROXY protocol with which a proxy opens a connection.

use std::io;
use std::net::IpAddr;

use super::plain::Plain;
use crate::protocol::ProxyHeader;

/// Takes the header of the PROXY protocol off the beginning of a connection; the client's address, if it names one.
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
        // What belongs to the header is read; what follows stays for whoever serves the connection. All of a part of
        // a header belongs to it, so that nothing is looked at twice.
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
