//! What the tests of the binary share: the helpers of the library's tests, and the binary itself.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]
#![allow(unreachable_pub, reason = "this is the interface of a module, in a crate that exports nothing")]

mod binary;
#[path = "../../../tests/support/mod.rs"]
mod library;

pub use binary::Binary;
pub use library::*;
