//! `onhand-simulator`: see [`onhand_simulator`].

use std::process::ExitCode;

fn main() -> ExitCode {
    onhand_simulator::run_cli(std::env::args_os())
}
