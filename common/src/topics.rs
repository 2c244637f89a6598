//! MQTT topic names and the messages on them that are not frames.

use crate::ids::{AgentId, Epoch, Seq, StoreId};
use serde::{Deserialize, Serialize};

/// What a hub subscribes to at a broker: every agent's frames.
pub const ALL_FRAMES: &str = "onhand/v1/agents/+/frames";
/// Every agent's status.
pub const ALL_STATUS: &str = "onhand/v1/agents/+/status";
/// JSON documents from devices without an agent.
pub const ALL_RAW: &str = "onhand/v1/raw/+";

const AGENTS: &str = "onhand/v1/agents/";
const RAW: &str = "onhand/v1/raw/";

/// Where an agent publishes its frames.
pub fn frames(agent: &AgentId) -> String {
    format!("{AGENTS}{agent}/frames")
}

/// Where the hub publishes an agent's durable acks, retained.
pub fn ack(agent: &AgentId) -> String {
    format!("{AGENTS}{agent}/ack")
}

/// Where an agent publishes its status, retained, and its last will.
pub fn status(agent: &AgentId) -> String {
    format!("{AGENTS}{agent}/status")
}

/// Where a device without an agent publishes the accelerator's JSON documents.
pub fn raw(store: StoreId) -> String {
    format!("{RAW}{store}")
}

/// A topic, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topic {
    /// An agent's frames.
    Frames(AgentId),
    /// An agent's durable acks.
    Ack(AgentId),
    /// An agent's status.
    Status(AgentId),
    /// A store's raw documents.
    Raw(StoreId),
}

impl Topic {
    /// Understands a topic name; `None` for one that is none of ours.
    pub fn parse(topic: &str) -> Option<Self> {
        if let Some(store) = topic.strip_prefix(RAW) {
            return store.parse().ok().map(Self::Raw);
        }
        let (agent, leaf) = topic.strip_prefix(AGENTS)?.split_once('/')?;
        let agent = AgentId::new(agent).ok()?;
        match leaf {
            "frames" => Some(Self::Frames(agent)),
            "ack" => Some(Self::Ack(agent)),
            "status" => Some(Self::Status(agent)),
            _ => None,
        }
    }
}

/// A single frame that is durable, whatever lies before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckedFrame {
    /// The number of its first event.
    pub first: Seq,
    /// The number of its last event.
    pub last: Seq,
}

/// The payload on an agent's ack topic, as JSON: everything of `epoch` up to and including `seq` is durable, and so is
/// `frame`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurableAck {
    /// The epoch that is acknowledged.
    pub epoch: Epoch,
    /// The highest sequence number that is durable; all below are too. 0 from a hub that knows of single frames only.
    pub seq: Seq,
    /// Exactly this frame of the epoch is durable too, for hubs that do not see all that lies before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<AckedFrame>,
    /// A gap was seen behind what was taken: send again from `seq + 1`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resend: bool,
}

/// The payload on an agent's status topic, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Connected; the last will says `false`.
    pub online: bool,
    /// The agent's version.
    pub version: String,
    /// The stores it serves.
    pub stores: Vec<StoreId>,
    /// Its current epoch.
    pub epoch: Epoch,
    /// Events in its outbox that are not durable at the hub.
    pub backlog: u64,
    /// Bytes of them.
    pub backlog_bytes: u64,
    /// The device's disk went back to an older state at some time in this run.
    #[serde(default)]
    pub rolled_back: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_understood_and_foreign_ones_are_not() {
        let agent = AgentId::new("a-1").unwrap();
        assert_eq!(Topic::parse(&frames(&agent)), Some(Topic::Frames(agent.clone())));
        assert_eq!(Topic::parse(&ack(&agent)), Some(Topic::Ack(agent.clone())));
        assert_eq!(Topic::parse(&status(&agent)), Some(Topic::Status(agent)));
        let store = StoreId::try_from(7_i64).unwrap();
        assert_eq!(Topic::parse("onhand/v1/raw/7"), Some(Topic::Raw(store)));
        for foreign in ["", "onhand/v1/agents/a/b/frames", "onhand/v1/agents/+/frames", "onhand/v1/raw/-1", "x"] {
            assert_eq!(Topic::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn an_ack_is_plain_json() {
        let ack = DurableAck { epoch: Epoch(5), seq: Seq(9), resend: false, frame: None };
        assert_eq!(serde_json::to_string(&ack).unwrap(), r#"{"epoch":5,"seq":9}"#);
        assert_eq!(serde_json::from_str::<DurableAck>(r#"{"epoch":5,"seq":9}"#).unwrap(), ack);
        let frame = Some(AckedFrame { first: Seq(20), last: Seq(29) });
        let ack = DurableAck { frame, ..ack };
        let text = r#"{"epoch":5,"seq":9,"frame":{"first":20,"last":29}}"#;
        assert_eq!(serde_json::to_string(&ack).unwrap(), text);
        assert_eq!(serde_json::from_str::<DurableAck>(text).unwrap(), ack);
    }
}
