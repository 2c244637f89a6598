//! Which frames may be under way, and when to worry: a plain structure, without clock or network.
//!
//! What holds:
//! - At most `max_frames` frames and `max_bytes` bytes are sent and not durably acknowledged; one frame may always go.
//! - Frames go in the order of their keys. What follows the cursor has not been sent since the last start or rewind.
//! - Those of one epoch are durable before the next one's go: the hub tells a gap by the numbers of one epoch, and would take
//!   the next one's before what is missing, a correction before the count that it corrects. Behind gateways, which acknowledge
//!   frame by frame and promise no order, they do not wait: one frame that a store's partition does not take would hold up all.
//! - A frame that others have overtaken is waited for no longer than silence is: behind several gateways each frame is
//!   acknowledged by itself, and one that died with its gateway would wait for as long as the others come through.
//! - A connection's beginning forgets what was under way: the outbox, not the window, knows what is still needed.

use onhand_common::{Epoch, Seq};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Where a frame lies in the outbox: frames are sent in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FrameKey {
    /// The epoch it was written in.
    pub(crate) epoch: Epoch,
    /// The number of its first event.
    pub(crate) first_seq: Seq,
}

/// How much may be under way, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Most frames.
    pub(crate) max_frames: usize,
    /// Most bytes of bodies.
    pub(crate) max_bytes: usize,
    /// How long no durable ack may come while frames are under way, and how long one for a frame that others have overtaken.
    pub(crate) ack_timeout: Duration,
}

/// A rewind that the hub asked for is followed at most this often, unless an ack made progress in between.
const REWIND_PAUSE: Duration = Duration::from_secs(1);
/// On a line too slow for the watchdog, each alarm without progress doubles its patience, up to this factor.
const MOST_PATIENCE: u32 = 16;

#[derive(Debug, Clone, Copy)]
struct InFlight {
    key: FrameKey,
    last_seq: Seq,
    bytes: usize,
    sent: Instant,
    /// One that was sent later is durable.
    overtaken: bool,
}

/// The frames under way.
#[derive(Debug)]
pub(crate) struct Window {
    limits: Limits,
    in_flight: VecDeque<InFlight>,
    bytes: usize,
    cursor: Option<FrameKey>,
    /// Since when something is under way without a sign of life.
    waiting_since: Option<Instant>,
    patience: u32,
    last_rewind: Option<Instant>,
    /// A rewind that was wished for too soon after the last one.
    put_off: Option<(Epoch, Seq)>,
    /// Frames are acknowledged each by itself, as far as was heard.
    frame_by_frame: bool,
}

impl Window {
    /// An empty window.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            in_flight: VecDeque::new(),
            bytes: 0,
            cursor: None,
            waiting_since: None,
            patience: 1,
            last_rewind: None,
            put_off: None,
            frame_by_frame: false,
        }
    }

    /// The last frame sent: the next to send is the first one behind it; `None`: the oldest.
    pub(crate) fn cursor(&self) -> Option<FrameKey> {
        self.cursor
    }

    /// Whether a frame of this epoch and size may go now.
    pub(crate) fn may_send(&self, epoch: Epoch, bytes: usize) -> bool {
        let Some(last) = self.in_flight.back() else { return true };
        (last.key.epoch == epoch || self.frame_by_frame)
            && self.in_flight.len() < self.limits.max_frames
            && self.bytes + bytes <= self.limits.max_bytes
    }

    /// An ack came, of single frames (from a gateway) or of all up to a number. It holds until another kind comes, beyond the
    /// connection: the one frame that waits may be the reason that none comes.
    pub(crate) fn heard(&mut self, frame_by_frame: bool) {
        self.frame_by_frame = frame_by_frame;
    }

    /// A frame was handed to the client.
    pub(crate) fn sent(&mut self, key: FrameKey, last_seq: Seq, bytes: usize, now: Instant) {
        debug_assert!(self.cursor.is_none_or(|c| c < key), "frames go in order");
        if self.in_flight.is_empty() {
            self.waiting_since = Some(now);
        }
        self.in_flight.push_back(InFlight { key, last_seq, bytes, sent: now, overtaken: false });
        self.bytes += bytes;
        self.cursor = Some(key);
    }

    /// Everything of `epoch` up to `seq` is durable. Returns whether that freed anything.
    pub(crate) fn acked(&mut self, epoch: Epoch, seq: Seq, now: Instant) -> bool {
        self.done(now, |f| f.key.epoch == epoch && f.last_seq <= seq)
    }

    /// Exactly the frame at `key` that ends with `last_seq` is durable. Returns whether that freed anything.
    pub(crate) fn acked_frame(&mut self, key: FrameKey, last_seq: Seq, now: Instant) -> bool {
        let progress = self.done(now, |f| f.key == key && f.last_seq == last_seq);
        if progress {
            self.in_flight.iter_mut().take_while(|f| f.key < key).for_each(|f| f.overtaken = true);
        }
        progress
    }

    fn done(&mut self, now: Instant, is_durable: impl Fn(&InFlight) -> bool) -> bool {
        let before = self.in_flight.len();
        self.in_flight.retain(|f| !is_durable(f));
        self.bytes = self.in_flight.iter().map(|f| f.bytes).sum();
        let progress = self.in_flight.len() < before;
        if progress {
            self.patience = 1;
            self.last_rewind = None;
            self.waiting_since = (!self.in_flight.is_empty()).then_some(now);
        }
        progress
    }

    /// The hub saw a gap behind `seq`: send again from there. Returns whether it is done. Several wishes in a short time are
    /// one; the last of them is put off, not forgotten ([`Window::rewind_if_put_off`]), since the hub may not ask again.
    pub(crate) fn rewind(&mut self, epoch: Epoch, seq: Seq, now: Instant) -> bool {
        if self.last_rewind.is_some_and(|last| now.duration_since(last) < REWIND_PAUSE) {
            self.put_off = Some((epoch, seq));
            return false;
        }
        self.put_off = None;
        let keep = |f: &InFlight| f.key.epoch < epoch || (f.key.epoch == epoch && f.last_seq <= seq);
        let kept = self.in_flight.iter().take_while(|f| keep(f)).count();
        if kept == self.in_flight.len() {
            return false;
        }
        self.cursor = match kept.checked_sub(1) {
            Some(last) => Some(self.in_flight[last].key),
            None => None,
        };
        self.in_flight.truncate(kept);
        self.bytes = self.in_flight.iter().map(|f| f.bytes).sum();
        self.last_rewind = Some(now);
        true
    }

    /// Does what [`Window::rewind`] put off, once it is time. Returns whether it did.
    pub(crate) fn rewind_if_put_off(&mut self, now: Instant) -> bool {
        self.put_off.is_some_and(|(epoch, seq)| self.rewind(epoch, seq, now))
    }

    /// A connection begins or ends: nothing is under way, the oldest frame comes next.
    pub(crate) fn restart(&mut self) {
        self.in_flight.clear();
        self.bytes = 0;
        self.cursor = None;
        self.waiting_since = None;
        self.last_rewind = None;
        self.put_off = None;
    }

    /// Whether the durable ack is overdue. Each alarm makes the next one more patient, until an ack comes.
    pub(crate) fn overdue(&mut self, now: Instant) -> bool {
        let Some(since) = self.waiting_since else { return false };
        let patience = self.limits.ack_timeout * self.patience;
        let lost = self.in_flight.iter().find(|f| f.overtaken).is_some_and(|f| now.duration_since(f.sent) >= patience);
        let overdue = lost || now.duration_since(since) >= patience;
        if overdue {
            self.patience = (self.patience * 2).min(MOST_PATIENCE);
            self.waiting_since = Some(now);
        }
        overdue
    }

    /// How many frames are under way.
    #[cfg(test)]
    pub(crate) fn frames_in_flight(&self) -> usize {
        self.in_flight.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const LIMITS: Limits = Limits { max_frames: 4, max_bytes: 100, ack_timeout: Duration::from_secs(30) };

    fn key(epoch: u64, first_seq: u64) -> FrameKey {
        FrameKey { epoch: Epoch(epoch), first_seq: Seq(first_seq) }
    }

    #[test]
    fn a_frame_larger_than_the_window_still_goes_alone() {
        let mut w = Window::new(LIMITS);
        assert!(w.may_send(Epoch(1), 1_000));
        w.sent(key(1, 1), Seq(1), 1_000, Instant::now());
        assert!(!w.may_send(Epoch(1), 1));
    }

    #[test]
    fn a_frame_that_others_overtake_is_not_waited_for_for_ever() {
        let mut w = Window::new(LIMITS);
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let frame = |number: u64| key(1, number);
        w.sent(frame(1), Seq(1), 10, began);
        for second in 1..30 {
            // Each later one is sent and durable at once, the first one is not.
            w.sent(frame(second + 1), Seq(second + 1), 10, at(second));
            assert!(w.acked_frame(frame(second + 1), Seq(second + 1), at(second)));
            assert!(!w.overdue(at(second)), "after {second} s");
        }
        assert!(w.overdue(at(30)));

        // What nobody has overtaken is only slow.
        let mut w = Window::new(LIMITS);
        (1..=4).for_each(|number| w.sent(frame(number), Seq(number), 10, began));
        assert!(w.acked_frame(frame(1), Seq(1), at(20)) && w.acked_frame(frame(2), Seq(2), at(40)));
        assert!(!w.overdue(at(45)));
    }

    #[test]
    fn the_watchdog_barks_when_acks_stay_away_and_grows_patient() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut w = Window::new(LIMITS);
        assert!(!w.overdue(at(1_000)), "nothing is under way");
        w.sent(key(1, 1), Seq(1), 1, at(0));
        w.sent(key(1, 2), Seq(2), 1, at(20));
        assert!(!w.overdue(at(29)));
        assert!(w.overdue(at(30)));
        assert!(!w.overdue(at(89)));
        assert!(w.overdue(at(90)));
        assert!(w.acked(Epoch(1), Seq(1), at(91)));
        assert!(!w.overdue(at(120)));
        assert!(w.overdue(at(121)), "patience is back to normal after an ack");
    }

    #[test]
    fn a_flood_of_resend_wishes_is_one() {
        let start = Instant::now();
        let mut w = Window::new(LIMITS);
        for n in 1..=4 {
            w.sent(key(1, n), Seq(n), 1, start);
        }
        w.acked(Epoch(1), Seq(1), start);
        assert!(w.rewind(Epoch(1), Seq(2), start));
        assert_eq!((w.cursor(), w.frames_in_flight()), (Some(key(1, 2)), 1));
        w.sent(key(1, 3), Seq(3), 1, start);
        assert!(!w.rewind(Epoch(1), Seq(2), start + Duration::from_millis(300)));
        assert!(!w.rewind_if_put_off(start + Duration::from_millis(999)));
        assert!(w.rewind_if_put_off(start + Duration::from_secs(1)), "put off, not forgotten");
        assert!(!w.rewind_if_put_off(start + Duration::from_secs(9)), "and done once");
        assert!(w.acked(Epoch(1), Seq(2), start + Duration::from_secs(1)));
        w.sent(key(1, 3), Seq(3), 1, start);
        assert!(w.rewind(Epoch(1), Seq(2), start + Duration::from_millis(1_001)), "there was progress in between");
        assert_eq!(w.cursor(), None);
    }

    /// Found by `cargo chaos --seed 18`: of a count and its correction the agent was started anew between, the count arrived last.
    #[test]
    fn the_next_epoch_waits_until_all_of_the_one_before_is_durable() {
        let start = Instant::now();
        let mut w = Window::new(LIMITS);
        w.sent(key(1, 1), Seq(1), 10, start);
        w.sent(key(1, 2), Seq(2), 10, start);
        assert!(w.may_send(Epoch(1), 10) && !w.may_send(Epoch(2), 10));
        w.acked(Epoch(1), Seq(1), start);
        assert!(!w.may_send(Epoch(2), 10));
        w.acked(Epoch(1), Seq(2), start);
        assert!(w.may_send(Epoch(2), 10));
    }

    #[test]
    fn behind_gateways_the_next_epoch_does_not_wait_for_a_frame_that_is_not_taken() {
        let start = Instant::now();
        let mut w = Window::new(LIMITS);
        w.sent(key(1, 1), Seq(1), 10, start);
        w.sent(key(1, 2), Seq(2), 10, start);
        w.heard(true);
        w.acked_frame(key(1, 2), Seq(2), start);
        assert!(w.may_send(Epoch(2), 10));
        w.restart();
        w.sent(key(1, 1), Seq(1), 10, start);
        assert!(w.may_send(Epoch(2), 10), "nothing else is acknowledged, and the gateway is still one");
        w.heard(false);
        assert!(!w.may_send(Epoch(2), 10), "a hub that counts answers instead");
    }

    #[test]
    fn frames_acknowledged_one_by_one_are_done_in_any_order() {
        let start = Instant::now();
        let mut w = Window::new(LIMITS);
        for n in 1..=4 {
            w.sent(key(1, n * 10), Seq(n * 10 + 9), 25, start);
        }
        assert!(!w.may_send(Epoch(1), 1), "the window is full");
        assert!(w.acked_frame(key(1, 30), Seq(39), start));
        assert!(w.may_send(Epoch(1), 25) && !w.may_send(Epoch(1), 26), "the room of that one frame is free");
        assert!(!w.acked_frame(key(1, 30), Seq(39), start), "a repetition");
        for (unknown, last) in [(key(1, 50), 59), (key(2, 10), 19), (key(1, 20), 28), (key(1, 21), 29)] {
            assert!(!w.acked_frame(unknown, Seq(last), start), "{unknown:?} to {last} is none that was sent");
        }
        assert_eq!((w.frames_in_flight(), w.bytes), (3, 75));
        // What is sent again begins behind what is in flight, hole or not.
        assert!(w.rewind(Epoch(1), Seq(19), start));
        assert_eq!((w.cursor(), w.frames_in_flight()), (Some(key(1, 10)), 1));
        assert!(w.acked_frame(key(1, 10), Seq(19), start + Duration::from_secs(60)));
        assert!(!w.overdue(start + Duration::from_secs(600)), "nothing is under way");
    }

    proptest! {
        /// Whatever order and repetition, and whether frame by frame or up to a number: what is left is what was not named.
        #[test]
        fn acks_of_both_kinds_free_exactly_what_they_name(
            acks in proptest::collection::vec((any::<bool>(), 0_u64..8, 0_u64..3), 0..20)
        ) {
            let now = Instant::now();
            let mut w = Window::new(Limits { max_frames: 8, ..LIMITS });
            let mut left: BTreeMap<u64, u64> = (0..8).map(|n| (n * 5 + 1, n * 5 + 5)).collect();
            for (&first, &last) in &left {
                w.sent(key(1, first), Seq(last), 7, now);
            }
            for (exactly, n, off) in acks {
                // Off by something: an ack of a frame that was never sent, or one that ends inside a frame.
                let (first, last) = (n * 5 + 1, n * 5 + 5 - off);
                let before = left.len();
                let freed = if exactly {
                    left.retain(|f, l| (*f, *l) != (first, last));
                    w.acked_frame(key(1, first), Seq(last), now)
                } else {
                    left.retain(|_, l| *l > last);
                    w.acked(Epoch(1), Seq(last), now)
                };
                prop_assert_eq!(freed, left.len() < before);
                let firsts: Vec<u64> = w.in_flight.iter().map(|f| f.key.first_seq.0).collect();
                prop_assert_eq!(firsts, left.keys().copied().collect::<Vec<_>>());
                prop_assert_eq!(w.bytes, left.len() * 7);
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Send,
        /// The hub takes what arrived, in order; its ack gets lost, or comes late.
        Take {
            loses: usize,
            ack: bool,
        },
        OldAck,
        Resend,
        Reconnect,
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Send),
            3 => (0_usize..4, any::<bool>()).prop_map(|(loses, ack)| Step::Take { loses, ack }),
            1 => Just(Step::OldAck),
            1 => Just(Step::Resend),
            1 => Just(Step::Reconnect),
            1 => (0_u64..3_000).prop_map(Step::Wait),
        ]
    }

    /// A hub and an outbox of two epochs, simple enough to be believed.
    struct Model {
        frames: BTreeMap<FrameKey, (Seq, usize)>,
        wire: Vec<FrameKey>,
        taken: BTreeMap<Epoch, u64>,
        all: BTreeMap<FrameKey, Seq>,
    }

    impl Model {
        fn new(sizes: &[(u64, u64, usize)]) -> Self {
            let mut next: BTreeMap<u64, u64> = BTreeMap::new();
            let mut frames = BTreeMap::new();
            for &(epoch, count, bytes) in sizes {
                let first = next.entry(epoch).or_insert(1);
                frames.insert(key(epoch, *first), (Seq(*first + count - 1), bytes));
                *first += count;
            }
            let all = frames.iter().map(|(k, v)| (*k, v.0)).collect();
            Self { frames, wire: Vec::new(), taken: BTreeMap::new(), all }
        }

        fn pump(&mut self, w: &mut Window, now: Instant) {
            use std::ops::Bound::{Excluded, Unbounded};
            loop {
                let lower = w.cursor().map_or(Unbounded, Excluded);
                let Some((&k, &(last, bytes))) = self.frames.range((lower, Unbounded)).next() else { return };
                if !w.may_send(k.epoch, bytes) {
                    return;
                }
                w.sent(k, last, bytes, now);
                self.wire.push(k);
            }
        }

        /// Only contiguous frames are taken.
        fn arrive(&mut self, loses: usize) {
            let wire = std::mem::take(&mut self.wire);
            for k in wire.into_iter().skip(loses) {
                let taken = self.taken.entry(k.epoch).or_default();
                if k.first_seq.0 <= *taken + 1 {
                    *taken = (*taken).max(self.all[&k].0);
                }
            }
        }

        fn ack(&mut self, w: &mut Window, epoch: Epoch, seq: u64, now: Instant) {
            self.frames.retain(|k, (last, _)| !(k.epoch == epoch && last.0 <= seq));
            w.acked(epoch, Seq(seq), now);
        }

        fn acks(&self) -> Vec<(Epoch, u64)> {
            self.taken.iter().map(|(e, s)| (*e, *s)).collect()
        }
    }

    proptest! {
        #[test]
        fn every_frame_is_sent_until_it_is_durable_and_never_beyond_the_window(
            sizes in proptest::collection::vec((1_u64..3, 1_u64..5, 1_usize..150), 1..30),
            steps in proptest::collection::vec(step(), 0..60),
        ) {
            let mut now = Instant::now();
            let mut model = Model::new(&sizes);
            let mut w = Window::new(LIMITS);
            for step in steps {
                match step {
                    Step::Send => model.pump(&mut w, now),
                    Step::Take { loses, ack } => {
                        model.arrive(loses);
                        if ack {
                            for (epoch, seq) in model.acks() {
                                model.ack(&mut w, epoch, seq, now);
                            }
                        }
                    }
                    Step::OldAck => for (epoch, seq) in model.acks() {
                        model.ack(&mut w, epoch, seq / 2, now);
                    },
                    Step::Resend => for (epoch, seq) in model.acks() {
                        w.rewind(epoch, Seq(seq), now);
                    },
                    Step::Reconnect => {
                        model.wire.clear();
                        w.restart();
                    }
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                }
                prop_assert!(w.frames_in_flight() <= LIMITS.max_frames);
                prop_assert!(w.bytes <= LIMITS.max_bytes || w.frames_in_flight() == 1);
                prop_assert_eq!(w.bytes, w.in_flight.iter().map(|f| f.bytes).sum::<usize>());
            }
            // From any state: with a watchdog that renews the connection, everything gets there.
            for _ in 0..200 {
                now += Duration::from_secs(2);
                model.pump(&mut w, now);
                model.arrive(0);
                for (epoch, seq) in model.acks() {
                    model.ack(&mut w, epoch, seq, now);
                }
                if w.overdue(now) {
                    w.restart();
                }
            }
            prop_assert!(model.frames.is_empty(), "left behind: {:?}", model.frames);
            for (k, last) in &model.all {
                prop_assert!(model.taken[&k.epoch] >= last.0);
            }
        }
    }
}
