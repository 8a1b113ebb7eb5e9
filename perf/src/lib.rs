//! Measuring ringmain beside its rivals: see README.md for the method.

pub mod arguments;
pub mod callers;
pub mod draw;
pub mod feed;
pub mod fleet;
pub mod http;
pub mod http2;
pub mod machine;
pub mod options;
pub mod process;
pub mod publisher;
pub mod report;
pub mod request;
pub mod rivals;
pub mod scenario;
pub mod servers;
pub mod socket;
pub mod sse;
pub mod wire;
