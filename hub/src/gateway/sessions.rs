//! Who is connected to the own endpoint: one session per agent and client id, and one turn at the sink per agent.

use super::interface::FrameSink;
use onhand_common::AgentId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use tokio::sync::oneshot;

/// All running sessions. A client id counts within its agent only: no agent can evict another one's session.
#[derive(Default)]
pub(super) struct Sessions(Mutex<State>);

#[derive(Default)]
struct State {
    agents: HashMap<AgentId, HashMap<String, Running>>,
    lanes: HashMap<AgentId, Weak<Lane>>,
    serial: u64,
}

struct Running {
    serial: u64,
    /// Dropped to end the session.
    _end: oneshot::Sender<()>,
}

/// A session's place among the others. Dropping it gives the place up, and tells the sink when the agent has none left.
pub(super) struct Registration {
    sessions: Arc<Sessions>,
    sink: Arc<dyn FrameSink>,
    agent: AgentId,
    client_id: String,
    serial: u64,
}

/// Whoever holds its lock may call the sink for the agent. It outlives a session that is taken over while a call of it
/// runs, so the next session's calls come after it.
pub(super) struct Lane {
    pub(super) turn: tokio::sync::Mutex<()>,
    agent: AgentId,
    sessions: Weak<Sessions>,
}

impl Sessions {
    /// Registers a session. The receiver resolves (with an error) when the session has been taken over.
    /// Also says whether it took over another one.
    pub(super) fn enter(
        self: &Arc<Self>,
        agent: &AgentId,
        client_id: &str,
        sink: &Arc<dyn FrameSink>,
    ) -> (Registration, oneshot::Receiver<()>, bool) {
        let (end, ended) = oneshot::channel();
        let mut state = self.0.lock();
        state.serial += 1;
        let serial = state.serial;
        let clients = state.agents.entry(agent.clone()).or_default();
        let older = clients.insert(client_id.to_owned(), Running { serial, _end: end });
        let registration = Registration {
            sessions: self.clone(),
            sink: sink.clone(),
            agent: agent.clone(),
            client_id: client_id.to_owned(),
            serial,
        };
        (registration, ended, older.is_some())
    }

    /// The agent's lane, the same one as long as anyone holds it.
    pub(super) fn lane(self: &Arc<Self>, agent: &AgentId) -> Arc<Lane> {
        let mut state = self.0.lock();
        if let Some(lane) = state.lanes.get(agent).and_then(Weak::upgrade) {
            return lane;
        }
        let lane = Arc::new(Lane { turn: Default::default(), agent: agent.clone(), sessions: Arc::downgrade(self) });
        state.lanes.insert(agent.clone(), Arc::downgrade(&lane));
        lane
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.sessions.0.lock();
        let Some(clients) = state.agents.get_mut(&self.agent) else {
            return;
        };
        if clients.get(&self.client_id).is_some_and(|running| running.serial == self.serial) {
            clients.remove(&self.client_id);
        }
        if clients.is_empty() {
            state.agents.remove(&self.agent);
            // Under the lock, so that it cannot overtake what a session that enters now has to say.
            self.sink.status(&self.agent, None);
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(sessions) = self.sessions.upgrade() {
            let mut state = sessions.0.lock();
            // Another one may have been made meanwhile.
            if state.lanes.get(&self.agent).is_some_and(|lane| lane.strong_count() == 0) {
                state.lanes.remove(&self.agent);
            }
        }
    }
}
