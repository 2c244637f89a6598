//! How far each agent's frames have been taken, and what is to be made of the next one. Pure.
//!
//! Only contiguous progress counts: a frame that leaves a gap behind the last one taken is neither taken nor remembered,
//! since a broker may have dropped what is missing; the agent is asked to send again from there.

use onhand_common::{AgentId, Epoch, Seq};
use std::collections::{BTreeMap, HashMap};

/// Epochs remembered of one agent: an agent draws one at every start, and sends old ones first.
pub const EPOCHS_KEPT: usize = 16;
/// Agents remembered: in open mode anyone may come, under any name.
pub const AGENTS_KEPT: usize = 100_000;

/// How far one epoch of one agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Whose.
    pub epoch: Epoch,
    /// All up to here.
    pub seq: Seq,
}

/// What is to be done with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Take it, but for its first events, which have been taken.
    Take {
        /// How many to leave out.
        skip: usize,
        /// The agent was acknowledged what this hub has never seen, up to here: by another lake, or one that was lost.
        acknowledged_elsewhere: Option<Seq>,
    },
    /// All of it has been taken before.
    Seen,
    /// Something is missing before it.
    Gap {
        /// The agent has not been asked to send again since the last progress.
        ask: bool,
    },
}

#[derive(Debug, Clone, Copy, Default)]
struct EpochProgress {
    taken: Seq,
    durable: Seq,
    asked: bool,
}

#[derive(Debug, Default)]
struct AgentProgress {
    epochs: BTreeMap<Epoch, EpochProgress>,
    used: u64,
}

impl AgentProgress {
    /// Nothing of it is on its way to silver.
    fn is_settled(&self) -> bool {
        self.epochs.values().all(|p| p.taken == p.durable)
    }
}

/// Progress of all agents.
#[derive(Debug, Default)]
pub struct Progress {
    agents: HashMap<AgentId, AgentProgress>,
    clock: u64,
}

impl Progress {
    /// What the lake knows: everything up to `position` is in silver.
    pub fn restore(&mut self, agent: AgentId, position: Position) {
        let progress = EpochProgress { taken: position.seq, durable: position.seq, asked: false };
        let entry = self.agents.entry(agent).or_default();
        entry.epochs.insert(position.epoch, progress);
        forget_old(&mut entry.epochs, position.epoch);
    }

    /// Judges a frame of events `first..=last`, of whose predecessors the agent has seen those up to `acked` acknowledged.
    pub fn judge(&mut self, agent: &AgentId, epoch: Epoch, acked: Seq, first: Seq, last: Seq) -> Verdict {
        let progress = self.agents.get(agent).and_then(|entry| entry.epochs.get(&epoch)).copied().unwrap_or_default();
        if last <= progress.taken {
            return Verdict::Seen;
        }
        if first <= progress.taken.next() {
            let skip = (progress.taken.0 + 1 - first.0) as usize;
            return Verdict::Take { skip, acknowledged_elsewhere: None };
        }
        if acked > progress.taken && first == acked.next() {
            return Verdict::Take { skip: 0, acknowledged_elsewhere: Some(acked) };
        }
        let entry = self.agents.get_mut(agent).and_then(|entry| entry.epochs.get_mut(&epoch));
        // Nothing is remembered of an epoch of which nothing was taken, so each such frame asks.
        Verdict::Gap { ask: entry.is_none_or(|entry| !std::mem::replace(&mut entry.asked, true)) }
    }

    /// A frame of this agent came damaged: the gap behind it is worth another question. (It may be the frame that was asked for,
    /// and nobody but the agent's watchdog would miss it.)
    pub fn came_damaged(&mut self, agent: &AgentId) {
        let epochs = self.agents.get_mut(agent).map(|entry| entry.epochs.values_mut());
        epochs.into_iter().flatten().for_each(|progress| progress.asked = false);
    }

    /// Everything up to `seq` has been taken.
    pub fn taken(&mut self, agent: &AgentId, epoch: Epoch, seq: Seq) {
        if self.agents.len() >= AGENTS_KEPT && !self.agents.contains_key(agent) {
            self.forget_unused();
        }
        self.clock += 1;
        let AgentProgress { epochs, used } = self.agents.entry(agent.clone()).or_default();
        *used = self.clock;
        let entry = epochs.entry(epoch).or_default();
        entry.taken = entry.taken.max(seq);
        entry.asked = false;
        forget_old(epochs, epoch);
    }

    /// Forgets the eighth of the agents that sent nothing for longest, but none with events on their way to silver. One that
    /// comes back says itself up to where it was acknowledged.
    fn forget_unused(&mut self) {
        let mut settled: Vec<(u64, AgentId)> = self
            .agents
            .iter()
            .filter(|(_, progress)| progress.is_settled())
            .map(|(agent, progress)| (progress.used, agent.clone()))
            .collect();
        settled.sort_unstable();
        for (_, agent) in settled.into_iter().take(AGENTS_KEPT / 8) {
            self.agents.remove(&agent);
        }
    }

    /// Up to where an epoch is durable.
    pub fn durable(&self, agent: &AgentId, epoch: Epoch) -> Seq {
        self.agents.get(agent).and_then(|entry| entry.epochs.get(&epoch)).map_or(Seq(0), |entry| entry.durable)
    }

    /// How far everything has been taken: what a cut that is made after this call holds at least.
    pub fn positions(&self) -> Vec<(AgentId, Position)> {
        let mut positions: Vec<_> = self
            .agents
            .iter()
            .flat_map(|(agent, entry)| {
                entry.epochs.iter().map(|(&epoch, entry)| (agent.clone(), Position { epoch, seq: entry.taken }))
            })
            .filter(|(_, position)| position.seq > Seq(0))
            .collect();
        positions.sort_unstable_by(|a, b| (&a.0, a.1.epoch).cmp(&(&b.0, b.1.epoch)));
        positions
    }

    /// These positions are in silver. Returns those that are news.
    pub fn committed(&mut self, positions: &[(AgentId, Position)]) -> Vec<(AgentId, Position)> {
        let mut news = Vec::new();
        for (agent, position) in positions {
            if let Some(entry) = self.agents.get_mut(agent).and_then(|entry| entry.epochs.get_mut(&position.epoch))
                && position.seq > entry.durable
            {
                entry.durable = position.seq;
                news.push((agent.clone(), *position));
            }
        }
        news
    }
}

/// Forgets the oldest epochs that are durable, but never `current`. An agent that was cut off for long may bring more of them
/// than are kept otherwise; what is forgotten and comes again says itself up to where it was acknowledged.
fn forget_old(epochs: &mut BTreeMap<Epoch, EpochProgress>, current: Epoch) {
    while epochs.len() > EPOCHS_KEPT {
        let settled =
            |(&epoch, p): (&Epoch, &EpochProgress)| (epoch != current && p.taken == p.durable).then_some(epoch);
        let Some(oldest) = epochs.iter().find_map(settled) else { return };
        epochs.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch(7);

    fn agent() -> AgentId {
        AgentId::new("a").unwrap()
    }

    fn judge(progress: &mut Progress, acked: u64, first: u64, last: u64) -> Verdict {
        progress.judge(&agent(), EPOCH, Seq(acked), Seq(first), Seq(last))
    }

    const TAKE: Verdict = Verdict::Take { skip: 0, acknowledged_elsewhere: None };

    #[test]
    fn frames_are_taken_in_order_once_each() {
        let mut progress = Progress::default();
        assert_eq!(judge(&mut progress, 0, 1, 10), TAKE);
        progress.taken(&agent(), EPOCH, Seq(10));
        assert_eq!(judge(&mut progress, 0, 1, 10), Verdict::Seen);
        assert_eq!(judge(&mut progress, 0, 11, 20), TAKE);
        assert_eq!(judge(&mut progress, 0, 6, 20), Verdict::Take { skip: 5, acknowledged_elsewhere: None });
    }

    #[test]
    fn a_gap_is_never_taken_and_asked_for_once() {
        let mut progress = Progress::default();
        assert_eq!(judge(&mut progress, 0, 11, 20), Verdict::Gap { ask: true }, "the first frame never came");
        assert!(progress.agents.is_empty(), "nothing is remembered of it");
        assert_eq!(judge(&mut progress, 0, 1, 10), TAKE);
        progress.taken(&agent(), EPOCH, Seq(10));
        assert_eq!(judge(&mut progress, 0, 21, 30), Verdict::Gap { ask: true });
        // An older ack than ours changes nothing about the gap.
        assert_eq!(judge(&mut progress, 5, 21, 30), Verdict::Gap { ask: false });
    }

    #[test]
    fn a_gap_is_asked_for_again_after_a_damaged_frame() {
        let mut progress = Progress::default();
        progress.taken(&agent(), EPOCH, Seq(10));
        assert_eq!(judge(&mut progress, 0, 21, 30), Verdict::Gap { ask: true });
        // 11 to 20 comes again, and is damaged.
        progress.came_damaged(&agent());
        assert_eq!(judge(&mut progress, 0, 21, 30), Verdict::Gap { ask: true });
        assert_eq!(judge(&mut progress, 0, 31, 40), Verdict::Gap { ask: false });
        progress.came_damaged(&AgentId::new("stranger").unwrap());
        assert_eq!(progress.agents.len(), 1);
    }

    #[test]
    fn an_agent_that_another_lake_acknowledged_goes_on_where_it_is() {
        let mut progress = Progress::default();
        assert_eq!(judge(&mut progress, 100, 121, 130), Verdict::Gap { ask: true });
        let taken = Verdict::Take { skip: 0, acknowledged_elsewhere: Some(Seq(100)) };
        assert_eq!(judge(&mut progress, 100, 101, 110), taken);
    }

    #[test]
    fn durable_is_what_a_cut_held_and_told_once() {
        let mut progress = Progress::default();
        progress.taken(&agent(), EPOCH, Seq(10));
        let positions = progress.positions();
        progress.taken(&agent(), EPOCH, Seq(20));
        assert_eq!(progress.committed(&positions), [(agent(), Position { epoch: EPOCH, seq: Seq(10) })]);
        assert_eq!(progress.durable(&agent(), EPOCH), Seq(10));
        assert!(progress.committed(&positions).is_empty());
    }

    #[test]
    fn a_restart_goes_on_behind_what_the_lake_holds() {
        let mut progress = Progress::default();
        progress.restore(agent(), Position { epoch: EPOCH, seq: Seq(10) });
        assert_eq!(judge(&mut progress, 0, 1, 10), Verdict::Seen);
        assert_eq!(judge(&mut progress, 0, 12, 20), Verdict::Gap { ask: true });
        assert_eq!(judge(&mut progress, 0, 11, 20), TAKE);
    }

    #[test]
    fn the_agents_that_were_silent_longest_are_forgotten_and_none_that_is_not_in_silver() {
        let mut progress = Progress::default();
        let name = |number: usize| AgentId::new(&format!("a{number}")).unwrap();
        for number in 0..AGENTS_KEPT {
            progress.taken(&name(number), EPOCH, Seq(1));
        }
        let positions = progress.positions();
        progress.committed(&positions);
        progress.taken(&name(0), EPOCH, Seq(2));
        progress.taken(&name(AGENTS_KEPT), EPOCH, Seq(1));
        assert_eq!(progress.agents.len(), AGENTS_KEPT - AGENTS_KEPT / 8 + 1);
        assert_eq!(progress.durable(&name(0), EPOCH), Seq(1), "it is not in silver yet");
        assert_eq!(progress.durable(&name(1), EPOCH), Seq(0), "it was silent longest");
        assert_eq!(progress.durable(&name(AGENTS_KEPT - 1), EPOCH), Seq(1));
    }

    #[test]
    fn of_old_epochs_only_durable_ones_are_forgotten() {
        let mut progress = Progress::default();
        let newest = EPOCHS_KEPT as u64 + 5;
        for epoch in 1..=newest {
            progress.taken(&agent(), Epoch(epoch), Seq(1));
        }
        let epochs = |progress: &Progress| progress.positions().iter().map(|(_, p)| p.epoch.0).collect::<Vec<_>>();
        assert_eq!(epochs(&progress), (1..=newest).collect::<Vec<_>>(), "none of them is in silver yet");
        let positions = progress.positions();
        progress.committed(&positions);
        progress.taken(&agent(), Epoch(1), Seq(2));
        let kept: Vec<u64> = [1].into_iter().chain(newest - EPOCHS_KEPT as u64 + 2..=newest).collect();
        assert_eq!(epochs(&progress), kept, "the one that goes on stays, however old");
    }
}
