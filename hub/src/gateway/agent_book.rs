//! What is known of the agents, for whoever looks: the API, the metrics.

use super::progress::{AGENTS_KEPT, Position};
use onhand_common::topics::AgentStatus;
use onhand_common::{AgentId, Epoch, Seq, Timestamp};
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::HashMap;
use utoipa::ToSchema;

/// What is known of an agent.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AgentView {
    /// Its id.
    #[schema(value_type = String)]
    pub agent_id: AgentId,
    /// Whether it is connected, as far as is known.
    pub connected: bool,
    /// What it said of itself last.
    #[schema(value_type = Option<Object>)]
    pub status: Option<AgentStatus>,
    /// When its last frame came.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_frame_at: Option<Timestamp>,
    /// Its newest epoch of which a frame came.
    pub epoch: u64,
    /// The highest number of an event of that epoch that was taken.
    pub taken_seq: u64,
    /// The highest number that is durable with all before it. A gateway (with Kafka behind it) does not see all frames, and
    /// knows what the agent's newest frame here said: an agent that falls silent leaves it a little behind `taken_seq`.
    pub durable_seq: u64,
    /// Frames taken since the hub started.
    pub frames: u64,
    /// Gaps seen since the hub started.
    pub gaps: u64,
}

/// Every agent that was heard of since the process started, up to a cap.
#[derive(Debug, Default)]
pub struct AgentBook(Mutex<HashMap<AgentId, AgentView>>);

impl AgentBook {
    /// All of them, by id.
    pub fn all(&self) -> Vec<AgentView> {
        let mut agents: Vec<_> = self.0.lock().values().cloned().collect();
        agents.sort_unstable_by(|a, b| a.agent_id.cmp(&b.agent_id));
        agents
    }

    /// An agent said how it is, or went away (`None`).
    pub fn status(&self, agent: &AgentId, status: Option<AgentStatus>) {
        self.change(agent, |view| {
            view.connected = status.as_ref().is_some_and(|status| status.online);
            if let Some(status) = status {
                view.status = Some(status);
            }
        });
    }

    /// A frame was taken.
    pub fn frame_taken(&self, agent: &AgentId, epoch: Epoch, last: Seq) {
        self.change(agent, |view| {
            if view.epoch < epoch.0 {
                (view.epoch, view.taken_seq, view.durable_seq) = (epoch.0, 0, 0);
            }
            if view.epoch == epoch.0 {
                view.taken_seq = view.taken_seq.max(last.0);
            }
            view.last_frame_at = Some(Timestamp::now());
            view.frames += 1;
        });
    }

    /// A frame was missing before the one that came.
    pub fn gap(&self, agent: &AgentId) {
        self.change(agent, |view| view.gaps += 1);
    }

    /// Events are durable up to a position.
    pub fn durable(&self, agent: &AgentId, position: Position) {
        self.change(agent, |view| {
            if view.epoch == position.epoch.0 {
                view.durable_seq = view.durable_seq.max(position.seq.0);
            }
        });
    }

    fn change(&self, agent: &AgentId, change: impl FnOnce(&mut AgentView)) {
        let mut agents = self.0.lock();
        if agents.len() >= AGENTS_KEPT && !agents.contains_key(agent) {
            return;
        }
        change(agents.entry(agent.clone()).or_insert_with(|| AgentView {
            agent_id: agent.clone(),
            connected: false,
            status: None,
            last_frame_at: None,
            epoch: 0,
            taken_seq: 0,
            durable_seq: 0,
            frames: 0,
            gaps: 0,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_durable_grows_within_an_epoch() {
        let (book, agent) = (AgentBook::default(), AgentId::new("a").unwrap());
        let durable = |epoch, seq| book.durable(&agent, Position { epoch: Epoch(epoch), seq: Seq(seq) });
        let seen = || (book.all()[0].taken_seq, book.all()[0].durable_seq);
        book.frame_taken(&agent, Epoch(1), Seq(9));
        durable(1, 5);
        durable(1, 3);
        durable(2, 8);
        assert_eq!(seen(), (9, 5), "frames overtake one another; another epoch's numbers are others");
        book.frame_taken(&agent, Epoch(2), Seq(4));
        assert_eq!(seen(), (4, 0));
        book.frame_taken(&agent, Epoch(2), Seq(3));
        book.frame_taken(&agent, Epoch(1), Seq(30));
        assert_eq!((seen(), book.all()[0].frames), ((4, 0), 4), "frames sent again, or late");
    }
}
