//! The hub's binary.

use std::process::ExitCode;

/// Decoding, Parquet and actors allocate on many threads; the system's allocator keeps what they free.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    onhand_hub::run_cli(std::env::args_os())
}
