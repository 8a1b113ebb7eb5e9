//! The servers under test, on mimalloc, as the binary `ringmain` is, and tidied up like there.

#[path = "../../../src/main/allocator.rs"]
mod allocator;

fn main() -> std::io::Result<()> {
    ringmain_perf::servers::main(Some(allocator::tidy))
}
