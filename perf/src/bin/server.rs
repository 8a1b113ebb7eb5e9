//! The servers under test, on mimalloc, which is also what the binary `ringmain` runs on.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::io::Result<()> {
    ringmain_perf::servers::main()
}
