//! ringmain carries MCP Streamable HTTP for very many connections.

pub mod ring;
pub mod sync;
pub mod sse;
pub mod wake;
pub mod stream;
