//! What was given, written and acknowledged, epoch by epoch: plain values, without a disk.
//!
//! Two words of the hub are kept apart: what it said of everything up to a number (`told`), and what follows from the
//! frames that are left (`acked`): before the oldest of them nothing is missing that anybody still has. They differ once
//! single frames were acknowledged.

use super::FrameInfo;
use onhand_common::{Epoch, Seq};
use std::collections::BTreeMap;

/// So many epochs without frames stay known, to tell a roll-back from an old ack.
const KNOWN_EPOCHS: usize = 1_000;

/// How far one epoch is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The highest number that was given and is durable here.
    pub(super) written: Seq,
    /// The hub said: everything up to here is durable there.
    pub(super) told: Seq,
    /// Everything up to here is acknowledged, without a hole.
    pub(super) acked: Seq,
}

impl Progress {
    /// Takes in which frame is the first one left; `None` if none of the numbers up to `written` is left.
    pub(super) fn settle(&mut self, written: Seq, first_left: Option<Seq>) {
        let gone = first_left.map_or(written, |first| Seq(first.0 - 1));
        self.acked = self.acked.max(self.told).max(gone);
    }
}

/// What waits for the hub.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Frames.
    pub(crate) frames: u64,
    /// Events.
    pub(crate) events: u64,
    /// Bytes, with an allowance for each frame.
    pub(crate) bytes: u64,
}

impl Backlog {
    /// One frame more.
    pub(super) fn add(&mut self, info: &FrameInfo) {
        self.merge(Self { frames: 1, events: u64::from(info.count), bytes: info.cost() });
    }

    /// As many more as `other`.
    pub(super) fn merge(&mut self, other: Self) {
        self.frames += other.frames;
        self.events += other.events;
        self.bytes += other.bytes;
    }

    /// One frame less.
    pub(super) fn subtract(&mut self, info: &FrameInfo) {
        self.frames = self.frames.saturating_sub(1);
        self.events = self.events.saturating_sub(u64::from(info.count));
        self.bytes = self.bytes.saturating_sub(info.cost());
    }
}

/// What the outbox knows without looking at its disk.
pub(super) struct State {
    /// Which outbox this is; none yet if its database has just been made.
    pub(super) id: Option<u64>,
    /// The current epoch.
    pub(super) epoch: Epoch,
    /// In the current epoch: numbers that are given and safe on disk.
    pub(super) durable: Seq,
    /// All that are known.
    pub(super) epochs: BTreeMap<Epoch, Progress>,
    /// The newest that was forgotten.
    pub(super) pruned: Epoch,
    /// What waits.
    pub(super) backlog: Backlog,
    /// A roll-back was noticed since the start.
    pub(super) rolled_back: bool,
}

impl State {
    /// Forgets the oldest of very many epochs that have nothing left to send; returns them.
    pub(super) fn prune(&mut self) -> Vec<Epoch> {
        let mut forgotten = Vec::new();
        while self.epochs.len() > KNOWN_EPOCHS {
            let (&oldest, progress) = self.epochs.first_key_value().expect("it is not empty");
            if progress.acked < progress.written {
                break;
            }
            self.epochs.remove(&oldest);
            self.pruned = oldest;
            forgotten.push(oldest);
        }
        forgotten
    }
}
