//! Rows on their way from the actors into the lake. Plain values: times in microseconds since 1970, ids as the tables hold them.

use onhand_common::{AgentId, Epoch};
use std::borrow::Cow;
use std::sync::Arc;

/// Where a row came from: the silver tables' lineage columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The agent, or a name for what is none (`raw`, `file:…`).
    pub agent_id: Arc<str>,
    /// The agent's epoch; 0 where there is none.
    pub epoch: u64,
}

impl Source {
    /// Events of an agent.
    pub fn agent(agent: &AgentId, epoch: Epoch) -> Arc<Self> {
        Arc::new(Self { agent_id: agent.as_str().into(), epoch: epoch.0 })
    }

    /// Events that no agent numbered.
    pub fn unnumbered(name: &str) -> Arc<Self> {
        Arc::new(Self { agent_id: name.into(), epoch: 0 })
    }
}

/// A row of silver/inventory_change.
#[derive(Debug, Clone)]
pub struct ChangeRow {
    /// The till's transaction.
    pub trans_id: Arc<str>,
    /// Where.
    pub store_id: i32,
    /// When.
    pub date_time: i64,
    /// What kind.
    pub change_type_id: i32,
    /// Which item.
    pub item_id: i32,
    /// How many came or went.
    pub quantity: i32,
    /// Lineage.
    pub source: Arc<Source>,
    /// Lineage: the event's number.
    pub seq: u64,
}

/// A row of silver/inventory_snapshot.
#[derive(Debug, Clone)]
pub struct CountRow {
    /// Which item.
    pub item_id: i32,
    /// Who counted.
    pub employee_id: i32,
    /// Where.
    pub store_id: i32,
    /// When.
    pub date_time: i64,
    /// How many there were.
    pub quantity: i32,
    /// Lineage.
    pub source: Arc<Source>,
    /// Lineage: the event's number.
    pub seq: u64,
}

/// A row of gold/inventory_current, without its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoldRow {
    /// Which item.
    pub item_id: i32,
    /// What the latest count said.
    pub snapshot_quantity: i32,
    /// Sum of the changes since.
    pub change_quantity: i64,
    /// Newest of count and changes.
    pub date_time: i64,
}

/// A row of silver/latest_inventory_snapshot, without its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatestRow {
    /// Which item.
    pub item_id: i32,
    /// Who counted.
    pub employee_id: i32,
    /// When.
    pub date_time: i64,
    /// How many there were.
    pub quantity: i32,
}

/// A row of ops/uncounted_inventory, without its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UncountedRow {
    /// Which item.
    pub item_id: i32,
    /// Sum of all its changes.
    pub change_quantity: i64,
    /// The newest of them.
    pub date_time: i64,
}

/// A row of silver/quarantine.
#[derive(Debug, Clone)]
pub struct QuarantineRow {
    /// When it came.
    pub received_at: i64,
    /// Which way.
    pub source: String,
    /// Why it is here: a short, fixed text.
    pub reason: Cow<'static, str>,
    /// What exactly is wrong.
    pub detail: String,
    /// It, as it came (cut at the frame's maximum).
    pub payload: bytes::Bytes,
}

/// A row of bronze/raw_inventory_change, in the shape of the accelerator's Kafka source.
#[derive(Debug, Clone)]
pub struct BronzeRow {
    /// The agent's or the store's id; of a Kafka record its own key.
    pub key: bytes::Bytes,
    /// What was received, byte for byte: a frame, or a JSON document.
    pub value: bytes::Bytes,
    /// Where it was received.
    pub topic: String,
    /// Of that topic, where it is Kafka's; else 0.
    pub partition: i32,
    /// Of a Kafka record its own; of a frame the first sequence number.
    pub offset: i64,
    /// When, in microseconds.
    pub timestamp: i64,
    /// What that time is, as Kafka numbers it.
    pub timestamp_type: i32,
}

/// The time of a record is that at which the hub took it.
pub const LOG_APPEND_TIME: i32 = 1;
