//! The binary `onhand-agent`; everything it does is in the library, so that the simulator can run it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    onhand_agent::run_cli(std::env::args_os())
}
