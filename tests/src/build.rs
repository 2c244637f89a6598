//! Has cargo build what the programs behind its aliases start.

use std::process::Command;

/// Builds the workspace's programs, if cargo runs this one and no others are asked for (by itself it takes those that are there).
/// Returns whether it went well.
pub fn workspace() -> bool {
    if std::env::var_os("ONHAND_BINARIES").is_some() {
        return true;
    }
    let Some(cargo) = std::env::var_os("CARGO") else { return true };
    println!("Building what is run (cargo build --release --workspace --bins).");
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--workspace", "--bins", "--quiet"]);
    // What the cargo that runs this says of this program, some dependencies' build scripts would take for a change.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST")) {
            build.env_remove(&name);
        }
    }
    build.status().is_ok_and(|status| status.success())
}
