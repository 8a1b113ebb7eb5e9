
//! ringmain carries MCP Streamable HTTP for very many connections.
pub mod protocol;
pub mod ring;
pub mod session;
pub mod sse;
pub mod stream;
pub mod sync;
pub mod wake;
