//! The network edge: a server for one endpoint, on hyper and tokio.
//!
//! [`Server`] accepts connections, reads requests, refuses invalid ones, passes messages to the
//! [`Handler`](crate::handler::Handler), and writes streams. It speaks HTTP/1.1, and HTTP/2 with prior knowledge, told
//! apart by the first bytes; with the feature `tls` and [`Config::tls`] over TLS, told apart in the handshake.
//!
//! # Two halves
//!
//! `connection/` has the sockets and knows nothing of JSON. `request/` answers one request of any connection, and
//! knows no socket. What both need is in `endpoint.rs`. Event streams that leave hyper are written by `writer/`.
//!
//! # How a POST is answered
//!
//! The handler is polled once where the request was read. If its response is ready then, and nothing else
//! was published, the answer is `application/json`. Otherwise the handler becomes a task of its own and the
//! answer is an event stream: head, priming and all pending events leave in one write. [`Answer::Stream`]
//! makes every answer to a request a stream, so that every response can be fetched again after a break.
//!
//! # Cancel safety
//!
//! A client that disconnects ends its connection and nothing else: the handler continues, and its response waits
//! for the client to resume.
//!
//! # Examples
//!
//! ```no_run
//! # use ringmain::handler::{Context, Handler, Request};
//! # async fn run(handler: impl Handler) -> Result<(), Box<dyn std::error::Error>> {
//! use ringmain::server::{Config, Server};
//!
//! let server = Server::bind("127.0.0.1:8080".parse()?, handler, Config::default())?;
//! server.run(async { drop(tokio::signal::ctrl_c().await) }).await;
//! # Ok(())
//! # }
//! ```

mod admin;
mod config;
mod connection;
mod endpoint;
mod metrics;
mod request;
mod upkeep;
mod writer;

pub use admin::{Admin, AdminToken};
pub use config::{Accept, AccessLog, Allowed, Answer, Config, Connections, Proxies};
#[cfg(feature = "tls")]
pub use connection::certificate::Tls;
pub use connection::drain::Drained;
pub use connection::handle::Handle;
pub use connection::server::Server;
pub use metrics::connections::ConnectionCounters;
pub use metrics::handle::{Metrics, Readiness};
