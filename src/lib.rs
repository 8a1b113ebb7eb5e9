//! ringmain carries MCP Streamable HTTP for very many connections.
//!
//! MCP servers talk to AI clients over one HTTP endpoint: POST carries JSON-RPC, answers come as JSON or as a
//! stream of server-sent events, and a client whose connection breaks resumes where it was. ringmain is the
//! server side of that: it keeps each stream in a lock-free ring of finished frames, so that what a client
//! missed and what comes next are one and the same read, and no event is lost or doubled.
//!
//! - Bring an rmcp `ServerHandler`, and give its factory closure to [`adapter::Rmcp`]; or
//! - write a [`handler::Handler`], which sees messages as they are; then
//! - give either to [`server::Server`].
//!
//! # Modules
//!
//! | module | what it does | feature |
//! |---|---|---|
//! | [`protocol`] | names of the protocol: versions, IDs, hosts and origins | |
//! | [`topic`] | one log for many subscribers, with MCP or without | |
//! | [`session`] | the sessions: find them, publish to them, limit them, count them | |
//! | [`handler`] | the application's side of a message | |
//! | [`identity`] | who sends a request | `server` |
//! | [`server`] | the network edge | `server` |
//! | [`adapter`] | rmcp's handlers on our sessions | `rmcp` |
//! | [`everything`] | the demonstration server that test suites call | `everything` |
//!
//! Below them are the private modules `sync`, `ring`, `wake`, `sse`, `stream` and `request`. Without default features
//! only these and the first four of the table are built: they know no network, no runtime and no clock.
//!
//! The program `ringmain`, with its command line and configuration file, is the package `ringmain-cli`.
//!
//! The design, its reasons and its figures are in `docs/architecture.md` and `docs/ring.md`.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    any(not(feature = "server"), ringmain_loom),
    allow(dead_code, unreachable_pub, unused_imports, reason = "most of the core is used by the edge alone")
)]

#[cfg(feature = "rmcp")]
pub mod adapter;
#[cfg(feature = "server")]
mod error;
#[cfg(feature = "everything")]
pub mod everything;
pub mod handler;
#[cfg(feature = "server")]
pub mod identity;
#[doc(hidden)]
pub mod internals;
mod options;
pub mod protocol;
mod request;
mod ring;
#[cfg(feature = "server")]
pub mod server;
pub mod session;
mod sse;
mod stream;
#[allow(unreachable_pub, reason = "models and benchmarks see some of it")]
mod sync;
pub mod topic;
mod wake;

#[cfg(feature = "server")]
pub use error::Error;
