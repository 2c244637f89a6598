//! What a wire does to the frames of one connection, decided by its seed. Pure.
//!
//! What holds:
//! - The agent's numbers and PUBACKs stay a pair: a repetition travels under a number of the wire's own, whose PUBACK ends
//!   here. Agents number from 1 up to their window, the wire from 65535 down.
//! - Only frames are meddled with, and only in their order, their number and their payload. Everything else passes at once, a
//!   DISCONNECT behind all that was held back.
//! - What was damaged is written down, as it was sent.

use super::packets::{Publish, acknowledged, is_disconnect, level, receive_maximum};
use bytes::{Bytes, BytesMut};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashSet;
use xxhash_rust::xxh3::xxh3_128;

/// Frames that pass before a repetition, at most.
const LATEST_REPETITION: usize = 8;
/// The lowest number that the wire gives.
const LOWEST_NUMBER: u16 = 0x8000;
/// The bytes of a frame that are damaged, at most.
const DAMAGED_BYTES: usize = 3;

/// What is done to frames on their way to the hub.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FrameFaults {
    /// How likely one is sent a second time: at once, or behind some that came later.
    pub repeat: f64,
    /// So many are held back, and go on in another order; 0: none.
    pub reorder: usize,
    /// How likely bytes of one's payload are changed.
    pub damage: f64,
}

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Meddled {
    /// Frames that passed, whatever was done to them; repetitions not counted.
    pub frames: u64,
    /// Frames that were sent once more.
    pub repeated: u64,
    /// Frames that left behind one which had come after them.
    pub reordered: u64,
    /// Hashes of the damaged payloads, in the order in which they were sent.
    pub damaged: Vec<u128>,
}

impl Meddled {
    /// Whether a payload is one that was damaged here.
    pub fn explains(&self, payload: &[u8]) -> bool {
        self.damaged.contains(&xxh3_128(payload))
    }
}

/// See the module.
pub(super) struct Meddler {
    rng: ChaCha8Rng,
    level: u8,
    /// What the hub takes unacknowledged.
    room: usize,
    /// Numbers on their way to the hub.
    agents: HashSet<u16>,
    ours: HashSet<u16>,
    next_number: u16,
    /// Frames held back, as they came.
    held: Vec<Bytes>,
    /// Repetitions, with how many frames are to pass before.
    later: Vec<(usize, Bytes)>,
}

impl Meddler {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            level: 4,
            room: usize::from(u16::MAX),
            agents: HashSet::new(),
            ours: HashSet::new(),
            next_number: u16::MAX,
            held: Vec::new(),
            later: Vec::new(),
        }
    }

    /// What goes to the hub, now that this came from the agent.
    pub(super) fn agent_sent(&mut self, packet: Bytes, faults: &FrameFaults, done: &mut Meddled) -> Vec<Bytes> {
        if let Some(level) = level(&packet) {
            self.level = level;
        }
        let Some(publish) = Publish::read(&packet, self.level) else {
            let mut out = if is_disconnect(&packet) { self.release(faults, done) } else { Vec::new() };
            out.push(packet);
            return out;
        };
        self.agents.insert(publish.packet_id);
        if !publish.topic.ends_with("/frames") {
            return vec![packet];
        }
        done.frames += 1;
        if self.rng.random_bool(faults.repeat) && self.may_repeat() {
            let number = self.number();
            let after = self.rng.random_range(0..=LATEST_REPETITION);
            self.later.push((after, publish.numbered(&packet, number)));
        }
        self.held.push(packet);
        if self.held.len() < faults.reorder { Vec::new() } else { self.let_go(faults, done) }
    }

    /// What goes to the agent, now that this came from the hub.
    pub(super) fn hub_sent(&mut self, packet: Bytes) -> Option<Bytes> {
        if let Some(number) = acknowledged(&packet) {
            self.agents.remove(&number);
            return (!self.ours.remove(&number)).then_some(packet);
        }
        if let Some(room) = receive_maximum(&packet) {
            self.room = usize::from(room);
        }
        Some(packet)
    }

    /// Whether something is held back.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty() || !self.later.is_empty()
    }

    /// All that was held back: nothing came for a while, or nothing will.
    pub(super) fn release(&mut self, faults: &FrameFaults, done: &mut Meddled) -> Vec<Bytes> {
        let mut out = self.let_go(faults, done);
        for (_, copy) in std::mem::take(&mut self.later) {
            out.push(self.repeated(copy, faults, done));
        }
        out
    }

    fn let_go(&mut self, faults: &FrameFaults, done: &mut Meddled) -> Vec<Bytes> {
        let mut leaving: Vec<(usize, Bytes)> = std::mem::take(&mut self.held).into_iter().enumerate().collect();
        leaving.shuffle(&mut self.rng);
        let mut last = 0;
        let mut out = Vec::new();
        for (came, packet) in leaving {
            done.reordered += u64::from(came < last);
            last = last.max(came);
            out.push(self.sent(packet, faults, done));
            for at in (0..self.later.len()).rev() {
                match self.later[at].0.checked_sub(1) {
                    Some(after) => self.later[at].0 = after,
                    None => {
                        let (_, copy) = self.later.remove(at);
                        out.push(self.repeated(copy, faults, done));
                    }
                }
            }
        }
        out
    }

    fn repeated(&mut self, copy: Bytes, faults: &FrameFaults, done: &mut Meddled) -> Bytes {
        done.repeated += 1;
        self.sent(copy, faults, done)
    }

    /// The frame as it is sent: damaged, if it is its turn.
    fn sent(&mut self, packet: Bytes, faults: &FrameFaults, done: &mut Meddled) -> Bytes {
        if !self.rng.random_bool(faults.damage) {
            return packet;
        }
        let payload = Publish::read(&packet, self.level).map_or(0..0, |publish| publish.payload);
        if payload.is_empty() {
            return packet;
        }
        let mut bytes = BytesMut::from(&packet[..]);
        let mut places = HashSet::new();
        for _ in 0..self.rng.random_range(1..=DAMAGED_BYTES) {
            let at = self.rng.random_range(payload.clone());
            // Twice at one place, it might be as it was.
            if places.insert(at) {
                bytes[at] ^= self.rng.random_range(1..=255_u8);
            }
        }
        done.damaged.push(xxh3_128(&bytes[payload]));
        bytes.freeze()
    }

    /// Never so many that they and the agent's are more than the hub takes.
    fn may_repeat(&self) -> bool {
        self.agents.len() + 2 * self.ours.len() < self.room / 2
    }

    fn number(&mut self) -> u16 {
        loop {
            let number = self.next_number;
            self.next_number = if number == LOWEST_NUMBER { u16::MAX } else { number - 1 };
            if !self.agents.contains(&number) && self.ours.insert(number) {
                return number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::packets::samples::{frame, packet, puback};
    use super::*;

    const NONE: FrameFaults = FrameFaults { repeat: 0., reorder: 0, damage: 0. };

    fn connected(seed: u64) -> Meddler {
        let mut meddler = Meddler::new(seed);
        let connect = packet(0x10, b"\0\x04MQTT\x05\0\0\0");
        assert_eq!(meddler.agent_sent(connect.clone(), &NONE, &mut Meddled::default()), [connect]);
        meddler
    }

    /// Sends `count` frames; what reached the hub, and what was done.
    fn sent(seed: u64, faults: FrameFaults, count: u16) -> (Vec<Bytes>, Meddled) {
        let (mut meddler, mut done) = (connected(seed), Meddled::default());
        let mut out = Vec::new();
        for number in 1..=count {
            let sent = frame(number, &[number as u8; 20]);
            out.extend(meddler.agent_sent(sent, &faults, &mut done));
        }
        out.extend(meddler.release(&faults, &mut done));
        assert!(!meddler.holds());
        (out, done)
    }

    fn payloads(packets: &[Bytes]) -> Vec<Bytes> {
        packets.iter().map(|packet| packet.slice(Publish::read(packet, 5).unwrap().payload)).collect()
    }

    #[test]
    fn without_faults_everything_passes_as_it_came() {
        let (out, done) = sent(1, NONE, 30);
        assert_eq!(out, (1..=30).map(|number| frame(number, &[number as u8; 20])).collect::<Vec<_>>());
        assert_eq!((done.frames, done.repeated, done.reordered, done.damaged.len()), (30, 0, 0, 0));
    }

    #[test]
    fn a_repetition_has_a_number_of_its_own_and_its_puback_ends_here() {
        let faults = FrameFaults { repeat: 1., ..NONE };
        let (mut meddler, mut done) = (connected(2), Meddled::default());
        let mut out = meddler.agent_sent(frame(1, b"payload"), &faults, &mut done);
        out.extend(meddler.release(&faults, &mut done));
        assert_eq!(payloads(&out), [&b"payload"[..]; 2]);
        let numbers: Vec<u16> = out.iter().map(|packet| Publish::read(packet, 5).unwrap().packet_id).collect();
        assert_eq!(numbers, [1, u16::MAX]);
        assert_eq!(meddler.hub_sent(puback(u16::MAX)), None);
        assert_eq!(meddler.hub_sent(puback(1)), Some(puback(1)));
        assert_eq!(meddler.hub_sent(puback(u16::MAX)), Some(puback(u16::MAX)), "it is nobody's now");
        let (out, done) = sent(2, FrameFaults { repeat: 0.5, ..NONE }, 100);
        assert!((30..70).contains(&done.repeated), "{}", done.repeated);
        assert_eq!(out.len() as u64, 100 + done.repeated);
    }

    #[test]
    fn repetitions_leave_the_agent_the_room_that_the_hub_gave() {
        let (mut meddler, mut done) = (connected(3), Meddled::default());
        meddler.hub_sent(packet(0x20, &[0, 0, 3, 0x21, 0, 20]));
        let faults = FrameFaults { repeat: 1., ..NONE };
        for number in 1..=15 {
            meddler.agent_sent(frame(number, b"payload"), &faults, &mut done);
        }
        meddler.release(&faults, &mut done);
        assert_eq!(done.repeated, 3, "15 of the agent's and these are fewer than 20");
    }

    #[test]
    fn frames_leave_in_another_order_each_once_and_a_disconnect_comes_last() {
        let faults = FrameFaults { reorder: 5, ..NONE };
        let (out, done) = sent(4, faults, 32);
        assert!(done.reordered >= 5, "{}", done.reordered);
        let mut numbers: Vec<u16> = out.iter().map(|packet| Publish::read(packet, 5).unwrap().packet_id).collect();
        assert!(numbers.chunks(5).zip((1..=32).collect::<Vec<u16>>().chunks(5)).all(|(found, came)| {
            let mut found = found.to_vec();
            found.sort_unstable();
            found == came
        }));
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=32).collect::<Vec<_>>());
        let (mut meddler, mut done) = (connected(4), Meddled::default());
        assert!(meddler.agent_sent(frame(1, b"payload"), &faults, &mut done).is_empty() && meddler.holds());
        let ping = packet(0xc0, &[]);
        assert_eq!(meddler.agent_sent(ping.clone(), &faults, &mut done), [ping]);
        let goodbye = packet(0xe0, &[]);
        assert_eq!(meddler.agent_sent(goodbye.clone(), &faults, &mut done), [frame(1, b"payload"), goodbye]);
    }

    #[test]
    fn damage_is_in_the_payload_alone_and_written_down() {
        let (out, done) = sent(5, FrameFaults { damage: 0.4, ..NONE }, 100);
        let damaged: Vec<u128> = (1..=100)
            .zip(payloads(&out))
            .filter(|(number, payload)| *payload != [*number as u8; 20][..])
            .map(|(_, payload)| xxh3_128(&payload))
            .collect();
        assert!((20..60).contains(&damaged.len()), "{}", damaged.len());
        assert_eq!(done.damaged, damaged);
        assert!((1..=100).zip(&out).all(|(number, packet)| Publish::read(packet, 5).unwrap().packet_id == number));
        let payload = &payloads(&out)[..];
        assert_eq!(payload.iter().filter(|payload| done.explains(payload)).count(), damaged.len());
    }

    #[test]
    fn a_seed_decides_it_all() {
        let faults = FrameFaults { repeat: 0.3, reorder: 4, damage: 0.2 };
        let (first, second) = (sent(6, faults, 200), sent(6, faults, 200));
        assert_eq!((first.0, first.1.damaged), (second.0, second.1.damaged));
        assert_ne!(sent(7, faults, 200).0, sent(6, faults, 200).0);
    }

    #[test]
    fn only_frames_are_meddled_with() {
        let faults = FrameFaults { repeat: 1., reorder: 9, damage: 1. };
        let (mut meddler, mut done) = (connected(8), Meddled::default());
        let status = packet(0x33, b"\0\x19onhand/v1/agents/a/status\0\x01\0{}");
        assert_eq!(meddler.agent_sent(status.clone(), &faults, &mut done), [status]);
        assert_eq!(done.frames, 0);
    }
}
