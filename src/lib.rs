
//! ringmain carries MCP Streamable HTTP for very many connections.
#[cfg(feature = "rmcp")]
pub mod adapter;
#[cfg(feature = "everything")]
pub mod everything;
pub mod handler;
pub mod protocol;
pub mod ring;
#[cfg(feature = "server")]
pub mod server;
pub mod session;
pub mod sse;
pub mod stream;
pub mod sync;
pub mod wake;
