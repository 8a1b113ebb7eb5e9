//! The servers under test, on the system's allocator: it takes more time, and where much is idle less memory.

fn main() -> std::io::Result<()> {
    ringmain_perf::servers::main(None)
}
