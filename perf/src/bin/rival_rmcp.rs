//! Serves the everything server on the transport of rmcp itself.
//!
//! The rival of ringmain in measurements: the same handler, on rmcp's `StreamableHttpService` with its
//! local sessions, behind axum. rmcp's defaults are kept, and `TCP_NODELAY` is set, as ringmain sets it.
//!
//! ```text
//! rival-rmcp [--listen 127.0.0.1:8090]        the endpoint is /mcp; Ctrl-C ends it
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::serve::ListenerExt;
use ringmain::everything::Everything;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;

/// Where to listen if nothing else is said.
const DEFAULT_LISTEN: &str = "127.0.0.1:8090";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = listen_address(std::env::args().skip(1))?;
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}/mcp", listener.local_addr()?);

    let config = StreamableHttpServerConfig::default();
    let sessions = config.cancellation_token.clone();
    let service = StreamableHttpService::new(
        || Ok(Everything::default()),
        Arc::<LocalSessionManager>::default(),
        config,
    );
    let router = Router::new().route_service("/mcp", service);
    // Without it, small events wait for the acknowledgement of the one before.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });

    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            // Open streams would hold the shutdown up: end the sessions, and their streams end.
            let _ = tokio::signal::ctrl_c().await;
            sessions.cancel();
        })
        .await?;
    Ok(())
}

/// Reads `--listen ADDRESS` or `--listen=ADDRESS`; nothing else is known.
fn listen_address(mut arguments: impl Iterator<Item = String>) -> Result<SocketAddr, Box<dyn Error>> {
    let mut address = DEFAULT_LISTEN.to_owned();
    while let Some(argument) = arguments.next() {
        address = match argument.strip_prefix("--listen") {
            Some("") => arguments.next().ok_or("--listen needs an address")?,
            Some(rest) if rest.starts_with('=') => rest[1..].to_owned(),
            _ => {
                return Err(
                    format!("unknown argument `{argument}`; usage: rival-rmcp [--listen ADDRESS]").into()
                );
            }
        };
    }
    address.parse().map_err(|error| format!("--listen {address}: {error}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<SocketAddr, String> {
        listen_address(arguments.iter().map(|&argument| argument.to_owned()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_address_is_read_from_the_arguments() {
        assert_eq!(parsed(&[]).unwrap().port(), 8090);
        assert_eq!(parsed(&["--listen", "127.0.0.1:1"]).unwrap().port(), 1);
        assert_eq!(parsed(&["--listen=127.0.0.1:2"]).unwrap().port(), 2);
        for wrong in [&["--listen"][..], &["--listen", "nowhere"], &["--port", "1"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
