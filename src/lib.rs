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
//! # Rooms
//!
//! Each uses those above it, never those below.
//!
//! | room | what it does | feature |
//! |---|---|---|
//! | [`sync`] | atomics and cells, from one place that the model checker can replace | |
//! | [`ring`] | a bounded log of the latest entries, many publishers, many cursors, no lock | |
//! | [`wake`] | who is waiting, and waking without losing one | |
//! | [`sse`] | events to bytes, once | |
//! | [`protocol`] | the rules of the transport as pure functions | |
//! | [`stream`] | a ring, who waits for it, and which connection it belongs to | |
//! | [`session`] | IDs to sessions, sessions to streams; life and expiry | |
//! | [`handler`] | the application's side of a message | |
//! | [`identity`] | who sends a request | `server` |
//! | [`server`] | the network edge | `server` |
//! | [`adapter`] | rmcp's handlers on our sessions | `rmcp` |
//! | [`everything`] | the demonstration server that test suites call | `everything` |
//! | [`config`] | flags, environment and one file to the options of the other rooms | `cli` |
//!
//! Without default features only the first eight are built: they know no network, no runtime and no clock.
//!
//! The design, its reasons and its figures are in `docs/architecture.md` and `docs/ring.md`.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "rmcp")]
pub mod adapter;
#[cfg(feature = "cli")]
pub mod config;
#[cfg(feature = "everything")]
pub mod everything;
pub mod handler;
#[cfg(feature = "server")]
pub mod identity;
pub mod protocol;
pub mod ring;
#[cfg(feature = "server")]
pub mod server;
pub mod session;
pub mod sse;
pub mod stream;
pub mod sync;
pub mod wake;
