//! An rmcp handler on the transport of rmcp itself.
//!
//! The everything server, the same as in the binary `ringmain`, on rmcp's `StreamableHttpService` with its local
//! sessions, behind axum. rmcp's defaults are kept, and `TCP_NODELAY` is set, as ringmain sets it.
//!
//! ```text
//! server rmcp --listen ADDR --admin ADDR [--publish]
//! ```
//!
//! With `--publish` the handler does nothing but take note of the clients, so that they can be published to.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::http::request::Parts;
use axum::serve::ListenerExt;
use ringmain::everything::Everything;
use rmcp::model::{CustomNotification, ServerNotification};
use rmcp::service::{NotificationContext, Peer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{RoleServer, ServerHandler};
use tokio::sync::mpsc;

use crate::arguments::{Arguments, listen};
use crate::feed;

/// Clients by their session's ID.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<HashMap<String, Peer<RoleServer>>>>);

impl ServerHandler for Clients {
    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        let head = context.extensions.get::<Parts>();
        let session = head.and_then(|head| head.headers.get("mcp-session-id")?.to_str().ok());
        self.all().insert(session.unwrap_or_default().to_owned(), context.peer);
    }
}

impl Clients {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Peer<RoleServer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what comes in, in order: rmcp's way to notify is to be awaited.
    async fn publish(self, mut messages: mpsc::UnboundedReceiver<(String, CustomNotification)>) {
        while let Some((target, message)) = messages.recv().await {
            let clients: Vec<_> = if target == "all" {
                self.all().values().cloned().collect()
            } else {
                self.all().get(&target).cloned().into_iter().collect()
            };
            for client in clients {
                let message = ServerNotification::CustomNotification(message.clone());
                let _ = client.send_notification(message).await;
            }
        }
    }
}

pub(super) async fn run(arguments: &Arguments) -> io::Result<()> {
    let clients = Clients::default();
    let (sender, messages) = mpsc::unbounded_channel();
    tokio::spawn(clients.clone().publish(messages));
    let publish = move |target: &str, message: &str| {
        if let Ok(message) = serde_json::from_str(message) {
            let _ = sender.send((target.to_owned(), message));
        }
    };
    tokio::spawn(feed::serve(listen(arguments.admin)?, publish));
    if arguments.has("--publish") {
        serve(arguments, move || Ok(clients.clone())).await
    } else {
        serve(arguments, || Ok(Everything::default())).await
    }
}

async fn serve<H: ServerHandler>(
    arguments: &Arguments,
    handler: impl Fn() -> io::Result<H> + Send + Sync + 'static,
) -> io::Result<()> {
    let (sessions, config) = (Arc::<LocalSessionManager>::default(), StreamableHttpServerConfig::default());
    let service = StreamableHttpService::new(handler, sessions, config);
    // Without it, small events wait for the acknowledgement of the one before.
    let listener = listen(arguments.listen)?.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, Router::new().route_service("/mcp", service)).await
}
