//! The servers under test, on mimalloc, as the binary `ringmain` is, and tidied up like there.

#[path = "../../../cli/src/allocator.rs"]
mod allocator;

fn main() -> std::io::Result<()> {
    ringmain_perf::servers::main(Some(allocator::tidy))
}
