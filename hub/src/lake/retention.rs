//! How long what was replaced can still be read, and how much of a log a reader has to read.

use std::time::Duration;

/// How long the tables keep what no newest version needs, and how often they are looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Log entries: how far back `--version` and `--as-of` reach.
    pub log: Duration,
    /// Data files that were replaced: above the longest time a reader takes over one version.
    pub deleted_files: Duration,
    /// Time between two looks for what is older than that.
    pub look_every: Duration,
    /// Commits between two checkpoints of a table (Delta's `delta.checkpointInterval`). Log entries behind one can go.
    pub checkpoint_interval: i64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            log: Duration::from_secs(24 * 3600),
            deleted_files: Duration::from_secs(6 * 3600),
            look_every: Duration::from_secs(600),
            checkpoint_interval: 100,
        }
    }
}
