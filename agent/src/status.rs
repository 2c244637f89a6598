//! What the agent says about itself: on its own HTTP, and to the hub.

use crate::metrics::Metrics;
use crate::outbox::{Outbox, OutboxError};
use onhand_common::topics::AgentStatus;
use onhand_common::{AgentId, Epoch, StoreId, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The version of this agent.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What waits for the hub.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BacklogStatus {
    /// Events.
    pub(crate) events: u64,
    /// Frames.
    pub(crate) frames: u64,
    /// Bytes.
    pub(crate) bytes: u64,
}

/// The answer of `GET /v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StatusReport {
    /// Who this is.
    pub(crate) agent_id: AgentId,
    /// The agent's version.
    pub(crate) version: String,
    /// The stores it serves.
    pub(crate) stores: Vec<StoreId>,
    /// The current epoch.
    pub(crate) epoch: Epoch,
    /// Whether the hub is connected.
    pub(crate) connected: bool,
    /// Why it is not, if that is known.
    #[serde(default)]
    pub(crate) connection_error: Option<String>,
    /// What waits for the hub.
    pub(crate) backlog: BacklogStatus,
    /// The bound on the backlog's bytes.
    pub(crate) max_buffer: u64,
    /// How long the oldest frame has waited, in seconds.
    pub(crate) oldest_unacknowledged_seconds: Option<f64>,
    /// When the last durable ack came.
    pub(crate) last_ack: Option<Timestamp>,
    /// Events taken since the start.
    pub(crate) accepted: u64,
    /// Events answered as duplicates since the start.
    pub(crate) duplicates: u64,
    /// Entries refused since the start.
    pub(crate) refused: u64,
    /// The disk was found to have gone back to an older state.
    pub(crate) rolled_back: bool,
    /// Why the agent cannot take events now.
    pub(crate) trouble: Option<String>,
}

/// Everything a status is made of.
#[derive(Clone)]
pub(crate) struct Reporter {
    /// Who this is.
    pub(crate) agent_id: AgentId,
    /// The stores it serves, in order.
    pub(crate) stores: Arc<[StoreId]>,
    /// What waits.
    pub(crate) outbox: Arc<Outbox>,
    /// What was counted.
    pub(crate) metrics: Arc<Metrics>,
}

impl Reporter {
    /// Why the agent cannot take events now, if so.
    pub(crate) fn trouble(&self) -> Option<String> {
        if let Some(reason) = self.outbox.failure() {
            return Some(OutboxError::Failed(reason.to_owned()).to_string());
        }
        self.outbox.check_room(0, 1).err().map(|e: OutboxError| e.to_string())
    }

    /// For the agent's own HTTP.
    pub(crate) fn report(&self) -> StatusReport {
        let backlog = self.outbox.backlog();
        let now = Timestamp::now();
        let oldest = self.outbox.next_after(None).ok().flatten();
        let last_ack = self.metrics.last_ack.load(Ordering::Relaxed);
        StatusReport {
            agent_id: self.agent_id.clone(),
            version: VERSION.into(),
            stores: self.stores.to_vec(),
            epoch: self.outbox.epoch(),
            connected: self.metrics.connected.load(Ordering::Relaxed),
            connection_error: self.metrics.connection_error.lock().clone(),
            backlog: BacklogStatus { events: backlog.events, frames: backlog.frames, bytes: backlog.bytes },
            max_buffer: self.outbox.max_bytes(),
            oldest_unacknowledged_seconds: oldest
                .map(|f| now.micros().unsigned_abs().saturating_sub(f.accepted_at) as f64 / 1e6),
            last_ack: (last_ack > 0).then(|| Timestamp::from_micros(last_ack).ok()).flatten(),
            accepted: self.metrics.accepted.get(),
            duplicates: self.metrics.duplicates.get(),
            refused: self.metrics.refused.get(),
            rolled_back: self.outbox.rolled_back(),
            trouble: self.trouble(),
        }
    }

    /// For the hub, as JSON.
    pub(crate) fn for_hub(&self, online: bool) -> Vec<u8> {
        let backlog = self.outbox.backlog();
        let status = AgentStatus {
            online,
            version: VERSION.into(),
            stores: self.stores.to_vec(),
            epoch: self.outbox.epoch(),
            backlog: backlog.events,
            backlog_bytes: backlog.bytes,
            rolled_back: self.outbox.rolled_back(),
        };
        serde_json::to_vec(&status).expect("a status is encoded into memory")
    }
}
