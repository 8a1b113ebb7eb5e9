//! The servers under test that are not binaries of their own: ringmain with a low-level handler, and rivals.
//!
//! ```text
//! server lowest|hyper|broadcast|rmcp --listen ADDR --admin ADDR ...
//! ```

use std::io;

use crate::arguments::{Arguments, runtime};

mod broadcast;
mod hyper;
mod lowest;
mod rmcp;

/// Serves what the command line of this process says, for ever. `idle` is called where a thread has nothing to do.
///
/// # Errors
///
/// An address is taken, or there is no such server.
pub fn main(idle: Option<fn()>) -> io::Result<()> {
    let arguments = Arguments::read();
    // As the binary `ringmain` does: memory is counted in small pages, for every server here.
    #[cfg(target_os = "linux")]
    rustix::thread::disable_transparent_huge_pages(true)?;
    runtime(idle)?.block_on(async {
        match std::env::args().nth(1).as_deref() {
            Some("lowest") => lowest::run(&arguments).await,
            Some("hyper") => hyper::run(&arguments).await,
            Some("broadcast") => broadcast::run(&arguments).await,
            Some("rmcp") => rmcp::run(&arguments).await,
            _ => {
                Err(io::Error::other("usage: server lowest|hyper|broadcast|rmcp --listen ADDR --admin ADDR"))
            }
        }
    })
}
