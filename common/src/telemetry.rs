//! Logging, the same in every binary: to standard error, filtered by `RUST_LOG`, `info` by default.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging. A second call in one process changes nothing.
pub fn init(default_filter: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_filter));
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).try_init();
}
