//! Logging, the same in every binary: to standard error, filtered by `RUST_LOG`, `info` by default.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// What deltalake's kernel says is of no use to an operator: below an error it is about itself, and it logs each error that it
/// hands on, with all that a store answered. What becomes of one is said where it is dealt with.
const QUIET: [&str; 2] = ["buoyant_kernel=off", "delta_kernel=off"];

/// Starts logging, in colours where a person looks at it. A second call in one process changes nothing.
pub fn init(default_filter: &str) {
    let quiet = QUIET.join(",");
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("{default_filter},{quiet}")));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let _ = log.with_ansi(std::io::stderr().is_terminal()).try_init();
}
