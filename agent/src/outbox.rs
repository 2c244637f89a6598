//! The outbox: what the agent has promised to deliver, on disk, until the hub says that it is durable there.
//!
//! It knows numbers, bounds and acknowledgements; `store` knows the database. What holds:
//! - A frame never changes.
//! - Numbering begins anew, in a new epoch, whenever the outbox is opened: a disk that was set back to an older copy can
//!   give no number twice.
//! - Nothing is sent before it is durable, so the hub can never have seen more than the outbox wrote, unless the disk went
//!   back. `append` returns only when its frames would survive pulling the plug: `flush()` of sled ends in
//!   `sync_file_range`, `fdatasync` must follow.
//! - Frames are removed one by one: batches of removals make sled hold on to memory.

mod store;

use crate::window::FrameKey;
use onhand_common::topics::DurableAck;
use onhand_common::{AgentId, Epoch, Seq, Timestamp, frame};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use store::Store;
use tokio::sync::Notify;

/// What a frame counts beyond its body's bytes, for keys and pages.
const FRAME_ALLOWANCE: u64 = 64;
/// Below this much free space on its disk, the outbox takes nothing: sled does not recover by itself from a full disk.
const RESERVED_DISK: u64 = 8 * 1024 * 1024;
/// So many epochs without frames stay known, to tell a roll-back from an old ack.
const KNOWN_EPOCHS: usize = 1_000;

/// Why the outbox cannot do what is asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboxError {
    /// Another process has it open.
    #[error("the data folder {0} is in use by another agent")]
    InUse(PathBuf),
    /// More would go beyond the bound.
    #[error("the outbox is full: {bytes} of {max} bytes wait for the hub (setting max_buffer)")]
    Full {
        /// What waits.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// The disk has no room.
    #[error("the disk is full: {free} bytes are free at {path}, {RESERVED_DISK} are kept in reserve")]
    DiskFull {
        /// What is free.
        free: u64,
        /// Where.
        path: PathBuf,
    },
    /// The disk does not answer as it should.
    #[error("the outbox cannot be written or read: {0}")]
    Storage(#[from] sled::Error),
    /// The same, found by the file system.
    #[error("the outbox cannot be written or read: {0}")]
    Io(#[from] std::io::Error),
    /// What was written cannot be understood.
    #[error("the outbox is damaged: {0}")]
    Damaged(String),
}

/// A frame's body before it has numbers.
pub(crate) struct NewFrame {
    /// How many events.
    pub(crate) count: u32,
    /// Their encodings, one after another.
    pub(crate) body: Vec<u8>,
}

/// What the index says about a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrameInfo {
    /// Where it is.
    pub(crate) key: FrameKey,
    /// How many events it holds.
    pub(crate) count: u32,
    /// Bytes of its body.
    pub(crate) len: u32,
    /// When it was taken, microseconds since 1970.
    pub(crate) accepted_at: u64,
    inline: Option<Vec<u8>>,
}

impl FrameInfo {
    /// The number of its last event.
    pub(crate) fn last_seq(&self) -> Seq {
        Seq(self.key.first_seq.0 + u64::from(self.count) - 1)
    }

    fn cost(&self) -> u64 {
        u64::from(self.len) + FRAME_ALLOWANCE
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

/// What an ack did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AckOutcome {
    /// Frames that were removed.
    pub(crate) frames: u64,
    /// Events that were removed.
    pub(crate) events: u64,
    /// The hub knows of numbers that this outbox never gave: a new epoch was opened.
    pub(crate) rolled_back: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    written: Seq,
    acked: Seq,
}

struct State {
    epoch: Epoch,
    /// In the current epoch: numbers given, and numbers that are safe on disk.
    durable: Seq,
    epochs: BTreeMap<Epoch, Progress>,
    pruned: Epoch,
    backlog: Backlog,
    rolled_back: bool,
}

/// The outbox of one data folder.
pub(crate) struct Outbox {
    path: PathBuf,
    max_bytes: u64,
    /// `None` only while a failed database is being opened again.
    store: RwLock<Option<Store>>,
    /// Whoever gives numbers holds this.
    numbering: Mutex<()>,
    state: Mutex<State>,
    /// Removals since the last flush.
    unflushed: AtomicBool,
    failed: AtomicBool,
    /// Rings when there is something new to send.
    pub(crate) changed: Notify,
}

impl Outbox {
    /// Opens or creates the outbox in the folder `path`, in a new epoch. `max_bytes` bounds what may wait for the hub.
    ///
    /// # Errors
    /// When another agent has it open, or the disk does not answer.
    pub(crate) fn open(path: &Path, max_bytes: u64) -> Result<Self, OutboxError> {
        let store = Store::open(path)?;
        let state = store.load()?;
        let outbox = Self {
            path: path.to_owned(),
            max_bytes,
            store: RwLock::new(Some(store)),
            numbering: Mutex::new(()),
            state: Mutex::new(state),
            unflushed: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            changed: Notify::new(),
        };
        outbox.begin_epoch(Epoch(0))?;
        Ok(outbox)
    }

    /// Writes frames and returns when they are durable. Numbers rise through them in their order.
    ///
    /// # Errors
    /// Nothing is promised then; the frames may or may not be sent later.
    pub(crate) fn append(&self, frames: &[NewFrame]) -> Result<(), OutboxError> {
        let _numbering = self.numbering.lock();
        if self.has_failed() {
            return Err(OutboxError::Io(std::io::Error::other("it failed before and is not open again yet")));
        }
        let (epoch, mut last) = {
            let state = self.state.lock();
            (state.epoch, state.durable)
        };
        let accepted_at = Timestamp::now().micros().unsigned_abs();
        let mut added = Backlog::default();
        self.unflushed.store(false, Ordering::Release);
        self.with(|h| {
            for frame in frames {
                let first_seq = last.next();
                added.add(&h.insert(FrameKey { epoch, first_seq }, frame.count, &frame.body, accepted_at)?);
                last = Seq(last.0 + u64::from(frame.count));
            }
            h.write_written(epoch, last)?;
            h.sync()
        })
        // A gap in the numbers would stay one for ever: what follows a failure gets an epoch of its own, on reopening.
        .inspect_err(|_| self.failed.store(true, Ordering::Release))?;
        {
            let mut state = self.state.lock();
            state.durable = last;
            state.epochs.entry(epoch).or_default().written = last;
            state.backlog.merge(added);
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Whether a body of so many bytes in so many frames may be appended now.
    ///
    /// # Errors
    /// Says what is full.
    pub(crate) fn check_room(&self, bytes: u64, frames: u64) -> Result<(), OutboxError> {
        let waiting = self.state.lock().backlog.bytes;
        if waiting + bytes + frames * FRAME_ALLOWANCE > self.max_bytes {
            return Err(OutboxError::Full { bytes: waiting, max: self.max_bytes });
        }
        let free = fs2::available_space(&self.path)?;
        if free < RESERVED_DISK + bytes {
            return Err(OutboxError::DiskFull { free, path: self.path.clone() });
        }
        Ok(())
    }

    /// The first durable frame behind `cursor`.
    ///
    /// # Errors
    /// When the disk does not answer.
    pub(crate) fn next_after(&self, cursor: Option<FrameKey>) -> Result<Option<FrameInfo>, OutboxError> {
        let (epoch, durable) = {
            let state = self.state.lock();
            (state.epoch, state.durable)
        };
        let found = self.with(|h| h.next_after(cursor))?;
        Ok(found.filter(|f| f.key.epoch < epoch || (f.key.epoch == epoch && f.last_seq() <= durable)))
    }

    /// The frame in its envelope, ready to send.
    ///
    /// # Errors
    /// When it cannot be read whole.
    pub(crate) fn seal(&self, agent: &AgentId, info: &FrameInfo) -> Result<Vec<u8>, OutboxError> {
        let acked = self.state.lock().epochs.get(&info.key.epoch).map_or(Seq(0), |p| p.acked);
        // An ack may end inside a frame; the frame is then sent whole again.
        let acked = acked.min(Seq(info.key.first_seq.0 - 1));
        let body = self.with(|h| h.body(info))?;
        Ok(frame::seal(agent, info.key.epoch, acked, info.key.first_seq, info.count, &body))
    }

    /// Removes what the hub has made durable.
    ///
    /// # Errors
    /// When the disk does not answer; what was not removed is sent again.
    pub(crate) fn acknowledge(&self, ack: DurableAck) -> Result<AckOutcome, OutboxError> {
        let known = {
            let state = self.state.lock();
            if ack.epoch <= state.pruned && !state.epochs.contains_key(&ack.epoch) {
                return Ok(AckOutcome::default());
            }
            state.epochs.get(&ack.epoch).copied()
        };
        match known {
            Some(progress) if ack.seq <= progress.written => self.remove_acknowledged(ack, progress.acked),
            _ => self.roll_forward(ack, known.is_some()),
        }
    }

    fn remove_acknowledged(&self, ack: DurableAck, acked: Seq) -> Result<AckOutcome, OutboxError> {
        let mut outcome = AckOutcome::default();
        if ack.seq <= acked {
            return Ok(outcome);
        }
        self.with(|h| {
            h.write_acked(ack.epoch, ack.seq)?;
            for info in h.frames_of(ack.epoch) {
                let info = info?;
                if info.last_seq() > ack.seq {
                    break;
                }
                h.remove(&info)?;
                self.state.lock().backlog.subtract(&info);
                outcome.frames += 1;
                outcome.events += u64::from(info.count);
            }
            Ok(())
        })?;
        self.state.lock().epochs.entry(ack.epoch).or_default().acked = ack.seq;
        self.unflushed.store(true, Ordering::Release);
        Ok(outcome)
    }

    /// The hub has seen numbers that this outbox never gave. Whatever is left in that epoch gets new numbers in a new one:
    /// the old ones may stand for other events at the hub. (It knows events by their identity and takes none twice.)
    fn roll_forward(&self, ack: DurableAck, known: bool) -> Result<AckOutcome, OutboxError> {
        self.state.lock().rolled_back = true;
        self.begin_epoch(ack.epoch)?;
        if known {
            self.renumber(ack.epoch)?;
        }
        // Last: until everything has its new number, the same ack must not be taken for one of ours, which would delete
        // what is left. Interrupted before, all of this is done again; the hub drops what comes twice.
        {
            let _numbering = self.numbering.lock();
            self.with(|h| h.write_written(ack.epoch, ack.seq))?;
            self.state.lock().epochs.entry(ack.epoch).or_default().written = ack.seq;
        }
        self.changed.notify_one();
        Ok(AckOutcome { rolled_back: true, ..AckOutcome::default() })
    }

    fn renumber(&self, from: Epoch) -> Result<(), OutboxError> {
        loop {
            // A few at a time: there may be a gigabyte.
            let infos: Vec<FrameInfo> = self.with(|h| h.frames_of(from).take(16).collect())?;
            if infos.is_empty() {
                return Ok(());
            }
            let frames = infos
                .iter()
                .map(|info| Ok(NewFrame { count: info.count, body: self.with(|h| h.body(info))? }))
                .collect::<Result<Vec<_>, OutboxError>>()?;
            self.append(&frames)?;
            for info in &infos {
                self.with(|h| h.remove(info))?;
                self.state.lock().backlog.subtract(info);
            }
        }
    }

    /// Draws an epoch above `above` and all that are known.
    fn begin_epoch(&self, above: Epoch) -> Result<(), OutboxError> {
        let _numbering = self.numbering.lock();
        let (epoch, forgotten) = {
            let mut state = self.state.lock();
            let highest = state.epochs.last_key_value().map_or(0, |(e, _)| e.0).max(above.0).max(state.pruned.0);
            let epoch = Epoch(Timestamp::now().micros().unsigned_abs().max(highest + 1));
            (epoch, state.prune())
        };
        self.with(|h| {
            h.write_written(epoch, Seq(0))?;
            for old in &forgotten {
                h.forget_epoch(*old)?;
            }
            h.sync()
        })?;
        let mut state = self.state.lock();
        state.epoch = epoch;
        state.durable = Seq(0);
        state.epochs.insert(epoch, Progress::default());
        Ok(())
    }

    /// Makes removals durable, if there were any; not urgent: what comes back after a power cut is sent again.
    ///
    /// # Errors
    /// When the disk does not answer.
    pub(crate) fn flush(&self) -> Result<(), OutboxError> {
        if self.unflushed.swap(false, Ordering::AcqRel) {
            self.with(Store::sync).inspect_err(|_| self.failed.store(true, Ordering::Release))?;
        }
        Ok(())
    }

    /// Whether an error has made sled give up; [`Outbox::reopen`] helps once the disk works again.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Opens the database again after a failure, in a new epoch.
    ///
    /// # Errors
    /// When the disk still does not answer.
    pub(crate) fn reopen(&self) -> Result<(), OutboxError> {
        let numbering = self.numbering.lock();
        let mut store = self.store.write();
        // The old database holds the lock on the folder.
        drop(store.take());
        let fresh = Store::open(&self.path)?;
        let mut loaded = fresh.load()?;
        let mut state = self.state.lock();
        loaded.rolled_back = state.rolled_back;
        // An epoch is never used again, also if its entry did not reach the disk.
        let current = state.epoch;
        loaded.epochs.entry(current).or_default().written =
            loaded.epochs.get(&current).map_or(state.durable, |p| p.written.max(state.durable));
        *state = loaded;
        drop(state);
        *store = Some(fresh);
        drop(store);
        drop(numbering);
        self.begin_epoch(Epoch(0))?;
        self.failed.store(false, Ordering::Release);
        self.changed.notify_one();
        Ok(())
    }

    /// What waits for the hub.
    pub(crate) fn backlog(&self) -> Backlog {
        self.state.lock().backlog
    }

    /// The bound on the backlog's bytes.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// The current epoch.
    pub(crate) fn epoch(&self) -> Epoch {
        self.state.lock().epoch
    }

    /// Whether a roll-back was noticed since the start.
    pub(crate) fn rolled_back(&self) -> bool {
        self.state.lock().rolled_back
    }

    fn with<T>(&self, work: impl FnOnce(&Store) -> Result<T, OutboxError>) -> Result<T, OutboxError> {
        let store: RwLockReadGuard<'_, Option<Store>> = self.store.read();
        work(store.as_ref().ok_or_else(|| OutboxError::Io(std::io::Error::other("the database is not open")))?)
    }
}

impl State {
    /// Forgets the oldest of very many epochs that have nothing left to send; returns them.
    fn prune(&mut self) -> Vec<Epoch> {
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

impl Backlog {
    fn add(&mut self, info: &FrameInfo) {
        self.merge(Self { frames: 1, events: u64::from(info.count), bytes: info.cost() });
    }

    fn merge(&mut self, other: Self) {
        self.frames += other.frames;
        self.events += other.events;
        self.bytes += other.bytes;
    }

    fn subtract(&mut self, info: &FrameInfo) {
        self.frames = self.frames.saturating_sub(1);
        self.events = self.events.saturating_sub(u64::from(info.count));
        self.bytes = self.bytes.saturating_sub(info.cost());
    }
}

#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;
