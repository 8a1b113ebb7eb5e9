//! What an application implements to answer its clients.
//!
//! The server gives each message of a client to a [`Handler`]. A request comes with a [`Context`], the responder of
//! that request: whatever becomes of the handler, the client gets exactly one response. Through the context the handler
//! reports progress, notifies, asks the client, and learns that it need not go on.
//!
//! A request belongs to a session, or stands alone. A handler that keeps nothing between two requests need not know
//! which: both are answered in the same way. What needs a session is `None` or an error where there is none
//! ([`Outlet::session`], [`AskError::NoSession`]).
//!
//! In a session a client that loses its connection has not cancelled anything: the handler goes on, and what it
//! publishes waits for the client to come back.
//!
//! # Examples
//!
//! ```
//! use ringmain::handler::{Context, Handler, Request, RpcError};
//! use serde_json::json;
//!
//! struct Hello;
//!
//! impl Handler for Hello {
//!     async fn request(&self, request: Request, context: Context) {
//!         let version = context.version();
//!         match request.method() {
//!             "initialize" => context.respond(&json!({
//!                 "protocolVersion": version.as_str(),
//!                 "capabilities": {},
//!                 "serverInfo": { "name": "hello", "version": "1" },
//!             })),
//!             "ping" => context.respond(&json!({})),
//!             method => context.fail(&RpcError::method_not_found(method)),
//!         }
//!     }
//! }
//! ```

mod context;
mod error;
pub(crate) mod message;
mod outlet;

pub use context::Context;
pub use error::RpcError;
pub(crate) use message::Incoming;
pub use message::{Inbound, Notification, Request, Response};
pub use outlet::Outlet;

pub use crate::request::{AskError, PublishError};

use core::future::{Future, ready};

use crate::session::Session;
use crate::sync::Arc;

/// Answers the messages of clients.
///
/// One handler serves all sessions. What belongs to one session it keeps with that session
/// ([`Session::attach`]).
pub trait Handler: Send + Sync + 'static {
    /// Answers a request, `initialize` among them. The future runs to its end even if the client's connection
    /// breaks; it is dropped only if the process stops.
    fn request(&self, request: Request, context: Context) -> impl Future<Output = ()> + Send;

    /// Takes a notification. A cancellation has taken effect already. Does nothing by default.
    fn notification(
        &self,
        notification: Notification,
        session: Arc<Session>,
    ) -> impl Future<Output = ()> + Send {
        let _ = (notification, session);
        ready(())
    }

    /// Takes the client's answer to a question. By default it goes to whoever waits in [`Outlet::ask`].
    fn response(&self, response: Response, session: &Arc<Session>) {
        response.deliver(session);
    }

    /// Learns that a session ended. Does nothing by default.
    fn closed(&self, session: &Session) {
        let _ = session;
    }
}

impl<H: Handler> Handler for Arc<H> {
    fn request(&self, request: Request, context: Context) -> impl Future<Output = ()> + Send {
        (**self).request(request, context)
    }

    fn notification(
        &self,
        notification: Notification,
        session: Arc<Session>,
    ) -> impl Future<Output = ()> + Send {
        (**self).notification(notification, session)
    }

    fn response(&self, response: Response, session: &Arc<Session>) {
        (**self).response(response, session);
    }

    fn closed(&self, session: &Session) {
        (**self).closed(session);
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests;
