//! Measuring ringmain beside its rivals: see README.md for the method.

pub mod arguments;
pub mod client;
pub mod process;
pub mod report;
