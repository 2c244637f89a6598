//! How much the actors may hold.

use std::time::Duration;

/// Caps, over all stores of the process.
#[derive(Debug, Clone)]
pub struct ActorLimits {
    /// Most live items.
    pub live_items: usize,
    /// An item that nothing happened to for so long is passivated.
    pub idle_after: Duration,
    /// Most remembered identities (32 bytes each, about). What is beyond is kept in filters, in an eighth to a quarter of the
    /// room; if these alone are too much, silver is asked for days that are not in use. A look into silver that would bring more
    /// than a quarter of what is left brings filters, too.
    pub identities: usize,
}

impl Default for ActorLimits {
    fn default() -> Self {
        Self { live_items: 100_000, idle_after: Duration::from_secs(300), identities: 16_000_000 }
    }
}
