//! What was refused lately, so that what is sent again and again is put into quarantine once.

use std::collections::{HashSet, VecDeque};
use xxhash_rust::xxh3::xxh3_128;

/// Refused payloads that are remembered.
const REFUSED_KEPT: usize = 4_096;

/// Hashes of what was refused lately, the oldest forgotten first.
#[derive(Debug, Default)]
pub struct RecentlyRefused {
    hashes: HashSet<u128>,
    order: VecDeque<u128>,
}

impl RecentlyRefused {
    /// Whether this payload was refused lately.
    pub fn knows(&self, payload: &[u8]) -> bool {
        self.hashes.contains(&xxh3_128(payload))
    }

    /// Whether this payload was not refused lately; from now on it was.
    pub fn is_new(&mut self, payload: &[u8]) -> bool {
        let hash = xxh3_128(payload);
        if !self.hashes.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > REFUSED_KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
        true
    }
}
