//! The outbox: what the agent has promised to deliver, on disk, until the hub says that it is durable there.
//!
//! It knows numbers, bounds and acknowledgements; `store` knows the database, `recovery` what to do when that is damaged.
//! What holds:
//! - A frame never changes.
//! - Numbering begins anew, in a new epoch, whenever the outbox is opened: a disk that was set back to an older copy
//!   gives no number twice, whatever the clock says.
//! - Nothing is sent before it is durable, so the hub can never have seen more than the outbox wrote, unless the disk went
//!   back. `append` returns only when its frames would survive pulling the plug (see `durable_writes`).
//! - Frames are removed one by one: batches of removals make sled hold on to memory.
//! - An ack may name a single frame, whatever lies before it (several gateways behind one broker): a hole appears in the
//!   numbers. `acked_seq` in the envelope rises only up to the first frame that is left.
//! - After a write or a flush that failed nothing more is written: a kernel may drop what it could not write, and say of
//!   the next flush that all is well. The agent ends, and what was never answered is sent again by the tills.

mod durable_writes;
mod progress;
mod recovery;
mod sled_log;
mod store;

use crate::window::FrameKey;
use onhand_common::topics::{AckedFrame, DurableAck};
use onhand_common::{AgentId, Epoch, Failpoint, Seq, Timestamp, frame};
use parking_lot::Mutex;
pub(crate) use progress::Backlog;
use progress::{Progress, State};
use rand::Rng;
pub(crate) use recovery::panics_are_caught;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use store::Store;
use tokio::sync::Notify;

/// Microseconds within which an epoch is drawn, where the clock is ahead of all that are known: fewer than a start takes, so that
/// they rise with the clock, also where nothing is known any more.
const EPOCH_SPREAD: u64 = 1 << 10;
/// The same where it is behind them, and tells nothing.
const EPOCH_SPREAD_WITHOUT_CLOCK: u64 = 1 << 32;
/// What a frame counts beyond its body's bytes, for keys and pages.
const FRAME_ALLOWANCE: u64 = 64;
/// Below this much free space on its disk, the outbox takes nothing: sled does not recover by itself from a full disk.
const RESERVED_DISK: u64 = 8 * 1024 * 1024;

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
    /// It has failed before.
    #[error("the outbox takes nothing more until the agent is started again: {0}")]
    Failed(String),
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

/// What an ack did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AckOutcome {
    /// Frames that were removed.
    pub(crate) frames: u64,
    /// Events that were removed.
    pub(crate) events: u64,
    /// The hub knows of numbers that this outbox never gave: a new epoch was opened.
    pub(crate) rolled_back: bool,
    /// The hub misses numbers that are durable elsewhere: what is left has new ones, in a new epoch.
    pub(crate) renumbered: bool,
}

/// The outbox of one data folder.
pub(crate) struct Outbox {
    path: PathBuf,
    id: u64,
    max_bytes: u64,
    store: Store,
    /// Whoever gives numbers or flushes holds this.
    numbering: Mutex<()>,
    state: Mutex<State>,
    /// Removals since the last flush.
    unflushed: AtomicBool,
    failure: OnceLock<String>,
    failed: Notify,
    /// Rings when there is something new to send.
    pub(crate) changed: Notify,
}

impl Outbox {
    /// Opens or creates the outbox in the folder `path`, in a new epoch. `max_bytes` bounds what may wait for the hub.
    ///
    /// # Errors
    /// When another agent has it open, or the disk does not answer.
    pub(crate) fn open(path: &Path, max_bytes: u64) -> Result<Self, OutboxError> {
        let (store, state) = recovery::open(path)?;
        let id = match state.id {
            Some(id) => id,
            None => {
                let drawn = rand::rng().random();
                // It is synced with the epoch, before anything is taken.
                store.write_id(drawn)?;
                drawn
            }
        };
        let outbox = Self {
            path: path.to_owned(),
            id,
            max_bytes,
            store,
            numbering: Mutex::new(()),
            state: Mutex::new(state),
            unflushed: AtomicBool::new(false),
            failure: OnceLock::new(),
            failed: Notify::new(),
            changed: Notify::new(),
        };
        outbox.begin_epoch(Epoch(0))?;
        Ok(outbox)
    }

    /// Which outbox this is. One that was made anew, of nothing or of what could be read of a damaged one, is another: what is
    /// remembered of the former's events does not hold for it.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Writes frames and returns when they are durable. Numbers rise through them in their order.
    ///
    /// # Errors
    /// Nothing is promised then; the frames may or may not be sent later. Nothing more is taken.
    pub(crate) fn append(&self, frames: &[NewFrame]) -> Result<(), OutboxError> {
        self.writing_alone(|| {
            let (epoch, mut last) = {
                let state = self.state.lock();
                (state.epoch, state.durable)
            };
            let accepted_at = Timestamp::now().micros().unsigned_abs();
            let mut added = Backlog::default();
            self.unflushed.store(false, Ordering::Release);
            for frame in frames {
                let first_seq = last.next();
                let key = FrameKey { epoch, first_seq };
                added.add(&self.store.insert(key, frame.count, &frame.body, accepted_at)?);
                last = Seq(last.0 + u64::from(frame.count));
            }
            self.store.write_written(epoch, last)?;
            Failpoint::OutboxWritten.check()?;
            self.sync()?;
            Failpoint::OutboxSynced.pass();
            let mut state = self.state.lock();
            state.durable = last;
            state.epochs.entry(epoch).or_default().written = last;
            state.backlog.merge(added);
            Ok(())
        })?;
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
        let found = self.reading(|| self.store.next_after(cursor))?;
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
        let body = self.reading(|| self.store.body(info))?;
        Ok(frame::seal(agent, info.key.epoch, acked, info.key.first_seq, info.count, &body))
    }

    /// Removes what the hub has made durable.
    ///
    /// # Errors
    /// When the disk does not answer. The next start removes the rest if the ack was written down; otherwise it is sent
    /// again.
    pub(crate) fn acknowledge(&self, ack: DurableAck) -> Result<AckOutcome, OutboxError> {
        let known = {
            let state = self.state.lock();
            if ack.epoch <= state.pruned && !state.epochs.contains_key(&ack.epoch) {
                return Ok(AckOutcome::default());
            }
            state.epochs.get(&ack.epoch).copied()
        };
        let highest = ack.frame.map_or(ack.seq, |frame| ack.seq.max(frame.last));
        self.writing(|| match known {
            Some(progress) if highest <= progress.written => self.take_ack(ack, progress),
            _ => self.roll_forward(ack.epoch, highest, known.is_some()),
        })
    }

    fn take_ack(&self, ack: DurableAck, before: Progress) -> Result<AckOutcome, OutboxError> {
        let mut outcome = AckOutcome::default();
        if ack.seq > before.told {
            self.store.write_told(ack.epoch, ack.seq)?;
            Failpoint::OutboxTold.pass();
            for info in self.store.frames_of(ack.epoch) {
                let info = info?;
                if info.last_seq() > ack.seq {
                    break;
                }
                self.remove(&info, &mut outcome)?;
            }
        }
        if let Some(AckedFrame { first, last }) = ack.frame
            && let Some(info) = self.store.frame(FrameKey { epoch: ack.epoch, first_seq: first })?
            && info.last_seq() == last
        {
            self.remove(&info, &mut outcome)?;
        }
        let first_left = self.store.frames_of(ack.epoch).next().transpose()?.map(|info| info.key.first_seq);
        {
            let mut state = self.state.lock();
            let progress = state.epochs.entry(ack.epoch).or_default();
            progress.told = progress.told.max(ack.seq);
            // Of what was written meanwhile, nothing is acknowledged.
            progress.settle(before.written, first_left);
        }
        // A wish that is older than another word of the hub says nothing about holes.
        let in_hole = first_left.is_some_and(|first| first > ack.seq.next());
        if ack.resend && ack.seq >= before.told && in_hole {
            // What the hub waits for, nobody here has: it is durable elsewhere.
            self.begin_epoch(ack.epoch)?;
            self.renumber(ack.epoch)?;
            outcome.renumbered = true;
        }
        Ok(outcome)
    }

    fn remove(&self, info: &FrameInfo, outcome: &mut AckOutcome) -> Result<(), OutboxError> {
        self.store.remove(info)?;
        self.state.lock().backlog.subtract(info);
        self.unflushed.store(true, Ordering::Release);
        outcome.frames += 1;
        outcome.events += u64::from(info.count);
        Ok(())
    }

    /// The hub has seen numbers that this outbox never gave. Whatever is left in that epoch gets new numbers in a new one:
    /// the old ones may stand for other events at the hub. (It knows events by their identity and takes none twice.)
    fn roll_forward(&self, epoch: Epoch, highest: Seq, known: bool) -> Result<AckOutcome, OutboxError> {
        self.state.lock().rolled_back = true;
        self.begin_epoch(epoch)?;
        if known {
            self.renumber(epoch)?;
        }
        // Last: until everything has its new number, the same ack must not be taken for one of ours, which would delete
        // what is left. Interrupted before, all of this is done again; the hub drops what comes twice.
        self.writing_alone(|| {
            self.store.write_written(epoch, highest)?;
            self.state.lock().epochs.entry(epoch).or_default().written = highest;
            Ok(())
        })?;
        self.changed.notify_one();
        Ok(AckOutcome { rolled_back: true, ..AckOutcome::default() })
    }

    /// Gives what is left of an epoch new numbers in the current one. Interrupted, it loses nothing: a frame is durable
    /// under its new number before it loses its old one.
    fn renumber(&self, from: Epoch) -> Result<(), OutboxError> {
        loop {
            // A few at a time: there may be a gigabyte.
            let infos: Vec<FrameInfo> = self.store.frames_of(from).take(16).collect::<Result<_, _>>()?;
            if infos.is_empty() {
                return Ok(());
            }
            let frames = infos
                .iter()
                .map(|info| Ok(NewFrame { count: info.count, body: self.reading(|| self.store.body(info))? }))
                .collect::<Result<Vec<_>, OutboxError>>()?;
            self.append(&frames)?;
            Failpoint::OutboxRenumbered.pass();
            for info in &infos {
                self.store.remove(info)?;
                self.state.lock().backlog.subtract(info);
            }
            self.unflushed.store(true, Ordering::Release);
        }
    }

    /// Draws an epoch above `above` and all that are known.
    fn begin_epoch(&self, above: Epoch) -> Result<(), OutboxError> {
        self.writing_alone(|| {
            let (epoch, forgotten) = {
                let mut state = self.state.lock();
                let highest = state.epochs.last_key_value().map_or(0, |(e, _)| e.0).max(above.0).max(state.pruned.0);
                let epoch = draw_epoch(Timestamp::now().micros().unsigned_abs(), highest);
                (epoch, state.prune())
            };
            self.store.write_written(epoch, Seq(0))?;
            for old in &forgotten {
                self.store.forget_epoch(*old)?;
            }
            self.sync()?;
            let mut state = self.state.lock();
            state.epoch = epoch;
            state.durable = Seq(0);
            state.epochs.insert(epoch, Progress::default());
            Ok(())
        })
    }

    /// Makes removals durable, if there were any; not urgent: what comes back after a power cut is sent again.
    ///
    /// # Errors
    /// When the disk does not answer. Nothing more is taken then.
    pub(crate) fn flush(&self) -> Result<(), OutboxError> {
        if self.unflushed.swap(false, Ordering::AcqRel) { self.writing_alone(|| self.sync()) } else { Ok(()) }
    }

    /// Why nothing more is written, after a failure. Only a new start helps: it reads what the disk really has.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Returns when the outbox has failed. For one waiter.
    pub(crate) async fn failed(&self) {
        self.failed.notified().await;
    }

    /// How many writes the disk still bears, for tests that break it.
    #[cfg(test)]
    pub(crate) fn writes_left(&self) -> std::sync::Arc<std::sync::atomic::AtomicU64> {
        std::sync::Arc::clone(&self.store.writes_left)
    }

    /// Writes, unless a write has failed before. If the disk fails now, this was the last one.
    fn writing<T>(&self, write: impl FnOnce() -> Result<T, OutboxError>) -> Result<T, OutboxError> {
        self.check_failure()?;
        write().inspect_err(|error| {
            if matches!(error, OutboxError::Storage(_) | OutboxError::Io(_)) {
                self.fail(error);
            }
        })
    }

    /// Reads what is to be sent. Where that is damaged, nothing behind it would ever go: the agent ends, and the next start makes
    /// the database anew from all that can be read.
    fn reading<T>(&self, read: impl FnOnce() -> Result<T, OutboxError>) -> Result<T, OutboxError> {
        recovery::reading(&self.path, read).inspect_err(|error| {
            if recovery::is_bad_data(error) {
                self.fail(error);
            }
        })
    }

    fn fail(&self, error: &OutboxError) {
        if self.failure.set(error.to_string()).is_ok() {
            self.failed.notify_one();
        }
    }

    /// As [`Outbox::writing`], one at a time: the failure of the one is known before the next one looks for it. Whatever
    /// gives numbers or flushes does so here: of a failed flush the kernel tells one caller only.
    fn writing_alone<T>(&self, write: impl FnOnce() -> Result<T, OutboxError>) -> Result<T, OutboxError> {
        let _numbering = self.numbering.lock();
        self.writing(write)
    }

    /// Makes everything durable; nothing is, if a removal failed meanwhile.
    fn sync(&self) -> Result<(), OutboxError> {
        self.store.sync()?;
        self.check_failure()
    }

    fn check_failure(&self) -> Result<(), OutboxError> {
        self.failure().map_or(Ok(()), |reason| Err(OutboxError::Failed(reason.to_owned())))
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
}

/// An epoch above all that are known, not below the clock, and drawn: an outbox that was set back to an older copy knows what it
/// knew then, and with a clock that went back, too, it would come to the same number again.
fn draw_epoch(now: u64, highest: u64) -> Epoch {
    let spread = if now > highest { EPOCH_SPREAD } else { EPOCH_SPREAD_WITHOUT_CLOCK };
    Epoch(now.max(highest.saturating_add(1)).saturating_add(rand::rng().random_range(0..spread)))
}

#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;
