//! An agent without disk and device, as a plain structure: what it made, what it may send, what was acknowledged.

use onhand_common::frame::{self, MAX_BODY, MAX_EVENTS};
use onhand_common::topics::DurableAck;
use onhand_common::{AgentId, Epoch, Event, Seq};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// See the module.
pub struct VirtualAgent {
    /// Its id.
    pub id: AgentId,
    epoch: Epoch,
    acked: Seq,
    next: Seq,
    frames: VecDeque<Kept>,
    /// Frames from the front that were sent since the last start.
    sent: usize,
    sent_bytes: usize,
    window: usize,
    last_rewind: Option<Instant>,
}

/// Bytes of frames under way, at most; one frame may always go.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// Wishes to send again are followed at most this often without progress in between: each frame behind a gap makes one.
const REWIND_PAUSE: Duration = Duration::from_secs(1);

struct Kept {
    first: Seq,
    count: u32,
    body: Vec<u8>,
    made: Instant,
    /// When it was sent last.
    sent_at: Option<Instant>,
    /// A gateway has acknowledged it, and not yet all that lies before it.
    done: bool,
}

impl Kept {
    fn last(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.count) - 1)
    }
}

/// A frame to send.
pub struct Outgoing {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its number was sent before.
    pub again: bool,
}

impl VirtualAgent {
    /// An agent that has made nothing yet; `window` frames may be under way.
    pub fn new(id: AgentId, epoch: Epoch, window: usize) -> Self {
        Self {
            id,
            epoch,
            acked: Seq(0),
            next: Seq(1),
            frames: VecDeque::new(),
            sent: 0,
            sent_bytes: 0,
            window,
            last_rewind: None,
        }
    }

    /// Takes events. What was never sent yet is still open for more, so frames grow when the window is full.
    pub fn make(&mut self, events: &[Event], now: Instant) {
        for event in events {
            let bytes = frame::encode_event(event);
            match self.frames.back_mut() {
                Some(last)
                    if last.sent_at.is_none()
                        && (last.count as usize) < MAX_EVENTS
                        && last.body.len() + bytes.len() <= MAX_BODY =>
                {
                    last.body.extend_from_slice(&bytes);
                    last.count += 1;
                    self.next = self.next.next();
                }
                _ => self.keep(bytes, 1, now),
            }
        }
    }

    fn keep(&mut self, body: Vec<u8>, count: u32, made: Instant) {
        self.frames.push_back(Kept { first: self.next, count, body, made, sent_at: None, done: false });
        self.next = Seq(self.next.0 + u64::from(count));
    }

    /// The next frame that the window allows.
    pub fn next_frame(&mut self, now: Instant) -> Option<Outgoing> {
        while self.frames.get(self.sent).is_some_and(|kept| kept.done) {
            self.sent += 1;
        }
        let (sent, room) = (self.sent, self.window);
        let bytes_left = WINDOW_BYTES.saturating_sub(self.sent_bytes);
        let kept =
            self.frames.get_mut(sent).filter(|kept| sent == 0 || sent < room && kept.body.len() <= bytes_left)?;
        self.sent_bytes += kept.body.len();
        let bytes = frame::seal(&self.id, self.epoch, self.acked, kept.first, kept.count, &kept.body);
        self.sent += 1;
        Some(Outgoing { bytes, again: kept.sent_at.replace(now).is_some() })
    }

    /// Starts again after the last durable ack, as after a reconnect.
    pub fn rewind(&mut self) {
        (self.sent, self.sent_bytes, self.last_rewind) = (0, 0, None);
    }

    /// Takes a durable ack. Hands back how long each frame that is done with took, and its number of events.
    pub fn acknowledge(&mut self, ack: &DurableAck, now: Instant) -> Vec<(Duration, u64)> {
        let mut done = Vec::new();
        if ack.epoch != self.epoch {
            return done;
        }
        if let Some(acked) = ack.frame
            && let Ok(index) = self.frames.binary_search_by_key(&acked.first, |kept| kept.first)
            && self.frames[index].last() == acked.last
        {
            done.extend(self.finish(index, now));
        }
        while self.frames.front().is_some_and(|kept| kept.done || kept.last() <= ack.seq) {
            done.extend(self.finish(0, now));
            self.sent = self.sent.saturating_sub(1);
            self.acked = self.frames.pop_front().map_or(self.acked, |kept| kept.last());
        }
        if !done.is_empty() {
            self.last_rewind = None;
        }
        if ack.seq < self.next {
            self.acked = self.acked.max(ack.seq);
        }
        if ack.resend && self.last_rewind.is_none_or(|last| now.duration_since(last) >= REWIND_PAUSE) {
            self.rewind();
            self.last_rewind = Some(now);
        }
        done
    }

    /// The frame at `index` is durable. Returns how long that took, and its number of events, unless that was known.
    fn finish(&mut self, index: usize, now: Instant) -> Option<(Duration, u64)> {
        let under_way = index < self.sent;
        let kept = &mut self.frames[index];
        if std::mem::replace(&mut kept.done, true) {
            return None;
        }
        self.sent_bytes -= if under_way { kept.body.len() } else { 0 };
        Some((now.saturating_duration_since(kept.made), u64::from(kept.count)))
    }

    /// Whether a frame that was sent so long ago is not durable, while a later one is: with the gateway that had it, it died.
    pub fn has_lost(&self, after: Duration, now: Instant) -> bool {
        let old = |sent_at: Instant| now.saturating_duration_since(sent_at) > after;
        self.frames.front().and_then(|first| first.sent_at).is_some_and(old) && self.frames.iter().any(|kept| kept.done)
    }

    /// Its epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The number of its next event.
    pub fn next_seq(&self) -> Seq {
        self.next
    }

    /// Events that are not durable.
    pub fn backlog(&self) -> u64 {
        self.frames.iter().filter(|kept| !kept.done).map(|kept| u64::from(kept.count)).sum()
    }

    /// Frames that were sent and are not durable.
    pub fn under_way(&self) -> usize {
        self.frames.iter().take(self.sent).filter(|kept| !kept.done).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onhand_common::frame::Frame;
    use onhand_common::topics::AckedFrame;
    use onhand_common::{Count, Timestamp};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn events(count: usize) -> Vec<Event> {
        let count_of = |n: usize| Count {
            item_id: (n as i64).try_into().unwrap(),
            employee_id: 1.try_into().unwrap(),
            store_id: 1.try_into().unwrap(),
            date_time: Timestamp::from_micros(0).unwrap(),
            quantity: 1,
        };
        (0..count).map(|n| Event::Count(count_of(n))).collect()
    }

    fn agent() -> VirtualAgent {
        VirtualAgent::new(AgentId::new("load-1").unwrap(), Epoch(9), 2)
    }

    fn first_seq(agent: &mut VirtualAgent) -> Option<(u64, u64, bool)> {
        let out = agent.next_frame(Instant::now())?;
        let frame = Frame::decode(&out.bytes).unwrap();
        Some((frame.first_seq.0, frame.acked_seq.0, out.again))
    }

    #[test]
    fn frames_go_within_the_window_and_again_after_a_rewind() {
        let mut agent = agent();
        agent.make(&events(1_200), Instant::now());
        assert_eq!((agent.backlog(), agent.next_seq()), (1_200, Seq(1_201)));
        assert_eq!(first_seq(&mut agent), Some((1, 0, false)));
        assert_eq!(first_seq(&mut agent), Some((501, 0, false)));
        assert_eq!(first_seq(&mut agent), None);
        let done = agent
            .acknowledge(&DurableAck { epoch: Epoch(9), seq: Seq(500), resend: false, frame: None }, Instant::now());
        assert_eq!(done.iter().map(|(_, events)| *events).collect::<Vec<_>>(), [500]);
        assert_eq!(first_seq(&mut agent), Some((1_001, 500, false)));
        agent.rewind();
        assert_eq!(first_seq(&mut agent), Some((501, 500, true)));
    }

    #[test]
    fn a_frame_that_a_gateway_has_is_not_sent_again() {
        let mut agent = agent();
        let now = Instant::now();
        agent.make(&events(1_200), now);
        while agent.next_frame(Instant::now()).is_some() {}
        let ack = |first, last| {
            let frame = Some(AckedFrame { first: Seq(first), last: Seq(last) });
            DurableAck { epoch: Epoch(9), seq: Seq(0), resend: false, frame }
        };
        let events = |done: Vec<(Duration, u64)>| done.iter().map(|(_, events)| *events).collect::<Vec<_>>();
        assert!(agent.acknowledge(&ack(501, 999), now).is_empty(), "no frame of that length was sent");
        assert_eq!(events(agent.acknowledge(&ack(501, 1_000), now)), [500]);
        assert!(agent.acknowledge(&ack(501, 1_000), now).is_empty(), "acknowledged twice");
        assert_eq!((agent.backlog(), agent.under_way()), (700, 1));
        assert!(agent.has_lost(Duration::ZERO, now + PATIENCE) && !agent.has_lost(PATIENCE, now));
        agent.rewind();
        assert_eq!(first_seq(&mut agent), Some((1, 0, true)));
        assert_eq!(first_seq(&mut agent), None, "the window is of two frames, the acknowledged one among them");
        assert_eq!(events(agent.acknowledge(&ack(1, 500), now)), [500]);
        assert!(!agent.has_lost(Duration::ZERO, now + PATIENCE), "the next one was never sent");
        assert_eq!(first_seq(&mut agent), Some((1_001, 1_000, false)));
        assert_eq!(events(agent.acknowledge(&ack(1_001, 1_200), now)), [200]);
        assert_eq!((agent.backlog(), agent.under_way(), agent.sent_bytes), (0, 0, 0));
    }

    #[test]
    fn what_was_never_sent_is_open_for_more() {
        let mut agent = agent();
        let now = Instant::now();
        agent.make(&events(10), now);
        agent.make(&events(10), now);
        assert_eq!(first_seq(&mut agent), Some((1, 0, false)));
        agent.make(&events(490), now);
        agent.rewind();
        assert_eq!(first_seq(&mut agent), Some((1, 0, true)));
        assert_eq!(first_seq(&mut agent), Some((21, 0, false)));
        let done = agent.acknowledge(&DurableAck { epoch: Epoch(9), seq: Seq(510), resend: false, frame: None }, now);
        assert_eq!(done.iter().map(|(_, events)| *events).collect::<Vec<_>>(), [20, 490]);
        assert_eq!((agent.sent_bytes, agent.backlog()), (0, 0));
    }

    #[test]
    fn a_flood_of_wishes_to_send_again_is_one() {
        let mut agent = agent();
        let now = Instant::now();
        agent.make(&events(600), now);
        while agent.next_frame(Instant::now()).is_some() {}
        let wish = DurableAck { epoch: Epoch(9), seq: Seq(0), resend: true, frame: None };
        agent.acknowledge(&wish, now);
        assert_eq!(first_seq(&mut agent), Some((1, 0, true)));
        agent.acknowledge(&wish, now);
        assert_eq!(first_seq(&mut agent), Some((501, 0, true)));
        agent.acknowledge(&wish, now + REWIND_PAUSE);
        assert_eq!(first_seq(&mut agent), Some((1, 0, true)));
    }

    #[test]
    fn a_gap_makes_it_send_again_and_a_foreign_epoch_changes_nothing() {
        let mut agent = agent();
        agent.make(&events(600), Instant::now());
        while agent.next_frame(Instant::now()).is_some() {}
        assert!(
            agent
                .acknowledge(&DurableAck { epoch: Epoch(8), seq: Seq(600), resend: true, frame: None }, Instant::now())
                .is_empty()
        );
        assert_eq!(first_seq(&mut agent), None);
        agent.acknowledge(&DurableAck { epoch: Epoch(9), seq: Seq(0), resend: true, frame: None }, Instant::now());
        assert_eq!(first_seq(&mut agent), Some((1, 0, true)));
        agent.acknowledge(&DurableAck { epoch: Epoch(9), seq: Seq(600), resend: false, frame: None }, Instant::now());
        assert_eq!((agent.backlog(), agent.under_way()), (0, 0));
    }
}
