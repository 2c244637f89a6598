//! The durable acks that agents are to learn of: the newest per agent and epoch.
//!
//! - Of the acks of one epoch only the newest matters, so whoever is slow gets fewer, not late ones, and what waits for
//!   a reader is bounded by the number of epochs, however fast acks are published.
//! - `resend` is news, not state: it reaches every reader that was there when it was published, even if the ack that
//!   carried it was overtaken by a newer one. Without that, a gap could stay unnoticed until a watchdog fires.
//! - Every publish is delivered, even one that repeats what is there: an agent that sends again what is durable already
//!   waits for just that ack.
//! - Acks of single frames (from gateways before Kafka) are news alone: each is delivered once to whoever is there, and not
//!   remembered. If too many wait for a slow reader the oldest are dropped; their frames come again, and so do their acks.

use super::progress::AGENTS_KEPT;
use onhand_common::topics::DurableAck;
use onhand_common::{AgentId, Epoch};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;

/// Newest epochs that are remembered per agent; each start of an agent draws one.
pub(super) const EPOCHS_PER_AGENT: usize = 16;
/// Acks of single frames that may wait for one reader and agent: more than an agent has under way.
const FRAMES_WAITING: usize = 8_192;

/// The newest durable acks of all agents. Clones share one board.
#[derive(Clone, Default)]
pub struct AckBoard(Arc<Mutex<Board>>);

#[derive(Default)]
struct Board {
    agents: HashMap<AgentId, AgentAcks>,
    everything: Vec<Weak<Waiting>>,
}

#[derive(Default)]
struct AgentAcks {
    newest: BTreeMap<Epoch, DurableAck>,
    readers: Vec<Weak<Waiting>>,
}

impl AckBoard {
    /// An empty board.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an ack known. Never waits. An ack older than what is known counts as a repetition of that.
    pub fn publish(&self, agent: &AgentId, ack: DurableAck) {
        let mut board = self.0.lock();
        let Board { agents, everything } = &mut *board;
        if ack.frame.is_some() {
            let readers = agents.get(agent).into_iter().flat_map(|entry| &entry.readers).chain(&*everything);
            readers.filter_map(Weak::upgrade).for_each(|reader| reader.put_frame(agent, ack));
            return;
        }
        if agents.len() >= AGENTS_KEPT && !agents.contains_key(agent) {
            // Whoever is forgotten and not there to be told sends again what is durable, and is then told.
            agents.retain(|_, entry| entry.readers.iter().any(|reader| reader.strong_count() > 0));
        }
        let entry = agents.entry(agent.clone()).or_default();
        let ack = match entry.newest.get_mut(&ack.epoch) {
            Some(known) if known.seq >= ack.seq => {
                // What is there was not passed, so a resend that was asked for still is.
                known.resend |= ack.resend;
                DurableAck { seq: known.seq, ..ack }
            }
            _ => {
                entry.newest.insert(ack.epoch, ack);
                ack
            }
        };
        if entry.newest.len() > EPOCHS_PER_AGENT {
            entry.newest.pop_first();
        }
        for readers in [&mut entry.readers, everything] {
            readers.retain(|reader| match reader.upgrade() {
                Some(reader) => {
                    reader.put(agent, ack, false);
                    true
                }
                None => false,
            });
        }
    }

    /// The newest ack of each epoch of an agent that is remembered, oldest epoch first.
    pub fn newest(&self, agent: &AgentId) -> Vec<DurableAck> {
        self.0.lock().agents.get(agent).map(|a| a.newest.values().copied().collect()).unwrap_or_default()
    }

    /// Follows one agent's acks, beginning with those that are there.
    pub fn subscribe(&self, agent: AgentId) -> AckSubscription {
        let waiting = Arc::new(Waiting::default());
        let mut board = self.0.lock();
        let entry = board.agents.entry(agent.clone()).or_default();
        for ack in entry.newest.values() {
            waiting.put(&agent, *ack, true);
        }
        entry.readers.retain(|reader| reader.strong_count() > 0);
        entry.readers.push(Arc::downgrade(&waiting));
        drop(board);
        AckSubscription { board: self.clone(), agent, waiting: Some(waiting) }
    }

    /// Follows the acks of all agents, beginning with those that are there.
    pub fn changes(&self) -> AckChanges {
        let waiting = Arc::new(Waiting::default());
        let mut board = self.0.lock();
        for (agent, entry) in &board.agents {
            for ack in entry.newest.values() {
                waiting.put(agent, *ack, true);
            }
        }
        board.everything.retain(|reader| reader.strong_count() > 0);
        board.everything.push(Arc::downgrade(&waiting));
        AckChanges(waiting)
    }
}

/// One agent's acks, conflated. See [`AckBoard::subscribe`].
pub struct AckSubscription {
    board: AckBoard,
    agent: AgentId,
    waiting: Option<Arc<Waiting>>,
}

impl AckSubscription {
    /// The next ack that has not been delivered here. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> DurableAck {
        self.next_with_origin().await.0
    }

    /// The next ack, and whether one of its epoch was there before the subscription was (MQTT's retain flag).
    pub(super) async fn next_with_origin(&mut self) -> (DurableAck, bool) {
        let (_, ack, retained) = self.waiting.as_ref().expect("taken by drop only").next().await;
        (ack, retained)
    }
}

impl Drop for AckSubscription {
    /// Leaves no trace of an agent that only ever listened: in open mode anyone may, under any name.
    fn drop(&mut self) {
        self.waiting = None;
        let mut board = self.board.0.lock();
        if let Some(entry) = board.agents.get_mut(&self.agent) {
            entry.readers.retain(|reader| reader.strong_count() > 0);
            if entry.readers.is_empty() && entry.newest.is_empty() {
                board.agents.remove(&self.agent);
            }
        }
    }
}

/// All agents' acks, conflated per agent and epoch, agents taking turns. See [`AckBoard::changes`].
pub struct AckChanges(Arc<Waiting>);

impl AckChanges {
    /// The next ack that has not been delivered here. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> (AgentId, DurableAck) {
        let (agent, ack, _) = self.0.next().await;
        (agent, ack)
    }
}

/// What one reader has not seen yet.
#[derive(Default)]
struct Waiting {
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    turns: VecDeque<AgentId>,
    acks: HashMap<AgentId, OfAgent>,
}

#[derive(Default)]
struct OfAgent {
    epochs: BTreeMap<Epoch, (DurableAck, bool)>,
    frames: VecDeque<DurableAck>,
}

impl Queue {
    fn of(&mut self, agent: &AgentId) -> &mut OfAgent {
        if !self.acks.contains_key(agent) {
            self.turns.push_back(agent.clone());
        }
        self.acks.entry(agent.clone()).or_default()
    }
}

impl Waiting {
    fn put(&self, agent: &AgentId, ack: DurableAck, retained: bool) {
        let mut queue = self.queue.lock();
        let epochs = &mut queue.of(agent).epochs;
        let (slot, was_there) = epochs.entry(ack.epoch).or_insert((ack, retained));
        *slot = DurableAck { seq: slot.seq.max(ack.seq), resend: slot.resend || ack.resend, ..ack };
        *was_there |= retained;
        if epochs.len() > EPOCHS_PER_AGENT {
            epochs.pop_first();
        }
        drop(queue);
        self.filled.notify_one();
    }

    fn put_frame(&self, agent: &AgentId, ack: DurableAck) {
        let mut queue = self.queue.lock();
        let frames = &mut queue.of(agent).frames;
        frames.push_back(ack);
        if frames.len() > FRAMES_WAITING {
            frames.pop_front();
        }
        drop(queue);
        self.filled.notify_one();
    }

    fn take(&self) -> Option<(AgentId, DurableAck, bool)> {
        let mut queue = self.queue.lock();
        let agent = queue.turns.pop_front()?;
        let waiting = queue.acks.get_mut(&agent).expect("an agent has its turn while acks wait for it");
        let next = waiting.frames.pop_front().map(|ack| (ack, false));
        let next = next.or_else(|| waiting.epochs.pop_first().map(|(_, next)| next));
        let (ack, retained) = next.expect("an agent without waiting acks is removed");
        if waiting.epochs.is_empty() && waiting.frames.is_empty() {
            queue.acks.remove(&agent);
        } else {
            queue.turns.push_back(agent.clone());
        }
        Some((agent, ack, retained))
    }

    async fn next(&self) -> (AgentId, DurableAck, bool) {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.filled.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use onhand_common::Seq;

    fn agent(name: &str) -> AgentId {
        AgentId::new(name).unwrap()
    }

    fn ack(epoch: u64, seq: u64) -> DurableAck {
        DurableAck { epoch: Epoch(epoch), seq: Seq(seq), resend: false, frame: None }
    }

    fn resend(epoch: u64, seq: u64) -> DurableAck {
        DurableAck { resend: true, ..ack(epoch, seq) }
    }

    #[test]
    fn acks_of_single_frames_are_news_and_not_remembered() {
        use onhand_common::topics::AckedFrame;
        let board = AckBoard::new();
        let single = |first: u64| DurableAck {
            epoch: Epoch(1),
            seq: Seq(0),
            resend: false,
            frame: Some(AckedFrame { first: Seq(first), last: Seq(first + 9) }),
        };
        let mut reader = board.subscribe(agent("a"));
        let mut all = board.changes();
        board.publish(&agent("a"), single(11));
        board.publish(&agent("a"), single(1));
        assert_eq!(reader.next().now_or_never(), Some(single(11)));
        assert_eq!(reader.next().now_or_never(), Some(single(1)));
        assert_eq!(reader.next().now_or_never(), None);
        assert_eq!(all.next().now_or_never(), Some((agent("a"), single(11))));
        assert!(board.newest(&agent("a")).is_empty());
        for first in 0..=FRAMES_WAITING as u64 {
            board.publish(&agent("a"), single(first));
        }
        assert_eq!(reader.next().now_or_never(), Some(single(1)), "the oldest gave way");
    }

    #[test]
    fn a_subscriber_gets_what_is_there_and_then_only_the_newest_of_each_epoch() {
        let board = AckBoard::new();
        board.publish(&agent("a"), ack(1, 10));
        board.publish(&agent("b"), ack(1, 99));
        let mut reader = board.subscribe(agent("a"));
        assert_eq!(reader.next_with_origin().now_or_never(), Some((ack(1, 10), true)));
        assert_eq!(reader.next().now_or_never(), None);
        for seq in 11..=5_000 {
            board.publish(&agent("a"), ack(1, seq));
        }
        board.publish(&agent("a"), ack(2, 1));
        assert_eq!(reader.next_with_origin().now_or_never(), Some((ack(1, 5_000), false)));
        assert_eq!(reader.next().now_or_never(), Some(ack(2, 1)));
        assert_eq!(reader.next().now_or_never(), None);
        assert_eq!(board.newest(&agent("a")), [ack(1, 5_000), ack(2, 1)]);
    }

    #[test]
    fn a_resend_is_not_lost_to_a_newer_ack() {
        let board = AckBoard::new();
        let mut reader = board.subscribe(agent("a"));
        board.publish(&agent("a"), resend(1, 5));
        board.publish(&agent("a"), ack(1, 9));
        assert_eq!(reader.next().now_or_never(), Some(resend(1, 9)));
        // It was said; and what came after it passed the gap.
        assert_eq!(board.newest(&agent("a")), [ack(1, 9)]);
        board.publish(&agent("a"), ack(1, 10));
        assert_eq!(reader.next().now_or_never(), Some(ack(1, 10)));
    }

    #[test]
    fn an_older_ack_does_not_take_back_a_newer_one_and_repeats_it() {
        let board = AckBoard::new();
        board.publish(&agent("a"), ack(1, 9));
        let mut reader = board.subscribe(agent("a"));
        assert_eq!(reader.next().now_or_never(), Some(ack(1, 9)));
        board.publish(&agent("a"), resend(1, 4));
        assert_eq!(reader.next().now_or_never(), Some(resend(1, 9)));
        board.publish(&agent("a"), ack(1, 9));
        assert_eq!(reader.next().now_or_never(), Some(ack(1, 9)));
        // Asked for and not passed yet: whoever comes now is told.
        assert_eq!(board.newest(&agent("a")), [resend(1, 9)]);
    }

    #[test]
    fn memory_is_bounded_by_epochs() {
        let board = AckBoard::new();
        let mut reader = board.subscribe(agent("a"));
        let mut all = board.changes();
        for epoch in 1..=100 {
            board.publish(&agent("a"), ack(epoch, 1));
        }
        assert_eq!(board.newest(&agent("a")).len(), EPOCHS_PER_AGENT);
        let mut seen = vec![];
        while let Some(next) = reader.next().now_or_never() {
            seen.push(next.epoch.0);
        }
        assert_eq!(seen, (85..=100).collect::<Vec<_>>());
        let mut seen = 0;
        while all.next().now_or_never().is_some() {
            seen += 1;
        }
        assert_eq!(seen, EPOCHS_PER_AGENT);
    }

    #[test]
    fn changes_cover_all_agents_in_turn() {
        let board = AckBoard::new();
        board.publish(&agent("a"), ack(1, 1));
        let mut all = board.changes();
        board.publish(&agent("b"), ack(7, 1));
        board.publish(&agent("a"), ack(2, 1));
        board.publish(&agent("a"), ack(1, 3));
        assert_eq!(all.next().now_or_never(), Some((agent("a"), ack(1, 3))));
        assert_eq!(all.next().now_or_never(), Some((agent("b"), ack(7, 1))));
        assert_eq!(all.next().now_or_never(), Some((agent("a"), ack(2, 1))));
        assert_eq!(all.next().now_or_never(), None);
    }

    #[test]
    fn listening_leaves_no_trace() {
        let board = AckBoard::new();
        drop(board.subscribe(agent("a")));
        assert!(board.0.lock().agents.is_empty());
        let kept = board.subscribe(agent("a"));
        drop(board.subscribe(agent("a")));
        assert_eq!(board.0.lock().agents.len(), 1);
        drop(kept);
        assert!(board.0.lock().agents.is_empty());
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let board = AckBoard::new();
        let mut reader = board.subscribe(agent("a"));
        let waiting = tokio::spawn(async move { reader.next().await });
        tokio::task::yield_now().await;
        board.publish(&agent("a"), ack(1, 1));
        assert_eq!(waiting.await.unwrap(), ack(1, 1));
    }
}
