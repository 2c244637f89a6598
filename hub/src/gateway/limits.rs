//! How much a client, and all clients together, may have in flight.

use onhand_common::frame;
use std::time::Duration;

/// Largest MQTT packet that is taken, in bytes: a frame and its topic.
pub const MAX_PACKET: usize = frame::MAX_BYTES + 1024;
/// Largest CONNECT that is taken, in bytes: whoever sends it is not known yet.
pub(super) const MAX_CONNECT: usize = 32 * 1024;

/// Caps of the own endpoint.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most connections at a time, those still in their handshake included.
    pub connections: usize,
    /// Most messages of one connection that are received and not acknowledged.
    pub unacknowledged: u16,
    /// Most bytes of one connection that are received and not acknowledged.
    pub unacknowledged_bytes: usize,
    /// Most bytes of all connections together that are received and not acknowledged.
    pub total_bytes: usize,
    /// How long TLS handshake, CONNECT and authentication may take together.
    pub handshake: Duration,
    /// How long a client may leave what it was sent unread.
    pub write: Duration,
    /// How long a connection waits for its part of `total_bytes` before it is ended.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            unacknowledged: 128,
            unacknowledged_bytes: 128 * MAX_PACKET,
            total_bytes: 256 * 1024 * 1024,
            handshake: Duration::from_secs(10),
            write: Duration::from_secs(20),
            stall: Duration::from_secs(20),
        }
    }
}

impl Limits {
    /// The receive maximum that v5 clients are told: one that keeps to it cannot reach the cap on bytes either.
    pub(super) fn receive_maximum(&self) -> u16 {
        let by_bytes = (self.unacknowledged_bytes / MAX_PACKET).clamp(1, usize::from(u16::MAX));
        self.unacknowledged.clamp(1, by_bytes as u16)
    }

    /// The same limits with each at least as large as one packet needs.
    pub(super) fn workable(mut self) -> Self {
        self.connections = self.connections.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        self.unacknowledged = self.unacknowledged.max(1);
        self.unacknowledged_bytes = self.unacknowledged_bytes.max(MAX_PACKET);
        self.total_bytes = self.total_bytes.clamp(MAX_PACKET, tokio::sync::Semaphore::MAX_PERMITS);
        self
    }
}
