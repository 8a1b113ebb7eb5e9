//! The configuration of the program `ringmain`, as a library so that tests, fuzzers and documentation reach it.
//!
//! This is not an API for other programs: it changes with the program, without notice. A server of one's own is built
//! on the crate `ringmain`.

pub mod config;
