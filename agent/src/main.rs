//! The binary `onhand-agent`; everything it does is in the library, so that the simulator can run it too.

use std::process::ExitCode;

/// The system's allocator keeps what large requests and a full window took.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A device has little memory: few arenas, and what is free goes back to the system within a fifth of a second.
#[expect(unsafe_code, reason = "jemalloc looks for its settings under this name; nothing else has it")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_SETTINGS: &[u8; 85] =
    b"narenas:2,background_thread:true,dirty_decay_ms:200,muzzy_decay_ms:0,tcache_max:4096\0";

fn main() -> ExitCode {
    onhand_agent::run_cli(std::env::args_os())
}
