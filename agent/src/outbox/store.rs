//! The outbox's database: the only place that knows sled.
//!
//! Three trees. `index`: (epoch, first_seq) to what the frame is, with its body if that is small. `bodies`: larger bodies
//! in chunks. `meta`: per epoch, what was written and what is acknowledged. What holds:
//! - An index entry is written after its frame's body and removed before it, and sled recovers a prefix of what was
//!   written: an index entry implies a whole body.
//! - No value is large: sled keeps up to 16 of them in a page, whatever their size, and puts pages over 128 KiB into files
//!   of their own, which would have to be synced each.
//! - Frames are removed one by one: batches of removals make sled hold on to memory.

use super::progress::{Backlog, Progress, State};
use super::{FrameInfo, OutboxError, durable_writes};
use crate::folders::create_durably;
use crate::window::FrameKey;
use onhand_common::{Epoch, Seq};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::RangeBounds;
use std::path::Path;
use std::time::{Duration, Instant};

const INLINE: usize = 512;
const CHUNK: usize = 4_000;
const CACHE_BYTES: u64 = 2 * 1024 * 1024;
/// sled's cache has 256 shards, and each counts what is in memory only once 64 accesses have gathered in it. One access for
/// each chunk would let 256 * 64 * 4 KB gather beside the cache, whatever its bound. So each chunk is looked at this often
/// more: that costs less than a hundredth of writing it.
const LOOKS: usize = 8;
/// Chunks that lie in one page of sled's, at most: who looks for one has all of them in memory.
const CHUNKS_OF_PAGE: usize = 16;
/// Entries of `meta` that are of no epoch.
pub(super) const PRUNED: &[u8] = b"pruned";
const ID: &[u8] = b"id";
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// An open database.
pub(super) struct Store {
    db: sled::Db,
    index: sled::Tree,
    bodies: sled::Tree,
    meta: sled::Tree,
    file: File,
    /// Writes and flushes that still succeed, as with a disk that is about to break.
    #[cfg(test)]
    pub(super) writes_left: std::sync::Arc<std::sync::atomic::AtomicU64>,
    /// Whether only one of them fails, as with a kernel that has dropped what it could not write.
    #[cfg(test)]
    pub(super) heals: std::sync::atomic::AtomicBool,
}

impl Store {
    /// Opens or creates the database in a folder of its own.
    pub(super) fn open(path: &Path) -> Result<Self, OutboxError> {
        create_durably(path)?;
        let db = open_when_unlocked(path)?;
        let (index, bodies, meta) = (db.open_tree("index")?, db.open_tree("bodies")?, db.open_tree("meta")?);
        let file = File::open(path.join("db"))?;
        // sled never syncs its settings, and does not start without them.
        File::open(path.join("conf"))?.sync_all()?;
        let store = Self {
            db,
            index,
            bodies,
            meta,
            file,
            #[cfg(test)]
            writes_left: std::sync::Arc::new(u64::MAX.into()),
            #[cfg(test)]
            heals: false.into(),
        };
        store.sync()?;
        // The names of the files, too.
        File::open(path)?.sync_all()?;
        Ok(store)
    }

    /// Makes everything written so far durable.
    pub(super) fn sync(&self) -> Result<(), OutboxError> {
        self.before_write()?;
        self.db.flush()?;
        // Each flush leaves a buffer of 512 KiB to the garbage of its thread, which is collected only once there are 64 things in it:
        // a thread that does little but flush would hold on to 32 MiB.
        crossbeam_epoch::pin().flush();
        if !durable_writes::used() {
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// Reads what the numbering needs to go on; finishes removals and tidies up after a crash.
    pub(super) fn load(&self) -> Result<State, OutboxError> {
        let mut epochs: BTreeMap<Epoch, Progress> = BTreeMap::new();
        let (mut pruned, mut id) = (Epoch(0), None);
        for entry in &self.meta {
            let (key, value) = entry?;
            let number = read_u64(&value)?;
            match key.split_first() {
                _ if key.as_ref() == PRUNED => pruned = Epoch(number),
                _ if key.as_ref() == ID => id = Some(number),
                Some((b'w', epoch)) => epochs.entry(Epoch(read_u64(epoch)?)).or_default().written = Seq(number),
                Some((b'a', epoch)) => epochs.entry(Epoch(read_u64(epoch)?)).or_default().told = Seq(number),
                _ => return Err(OutboxError::Damaged(format!("an unknown entry {key:?} in meta"))),
            }
        }
        let mut backlog = Backlog::default();
        let mut firsts: BTreeMap<Epoch, Seq> = BTreeMap::new();
        // Behind the frame before: as a rule where the next one begins, so that only holes are searched.
        let mut behind = [0; 16];
        for entry in &self.index {
            let entry = entry?;
            let info = read_info(&entry.0, &entry.1)?;
            let progress = epochs.entry(info.key.epoch).or_default();
            progress.written = progress.written.max(info.last_seq());
            if info.last_seq() <= progress.told {
                // The hub's word was written down, the removal was interrupted: the same word will not remove it again.
                self.remove(&info)?;
                continue;
            }
            // Chunks are written in order, before the entry: if the last one is there, all are.
            if let Some(last) = chunk_keys(&info).last() {
                if !self.bodies.contains_key(last)? {
                    return Err(OutboxError::Damaged(format!("{:?} has lost its body", info.key)));
                }
                (0..CHUNKS_OF_PAGE).try_for_each(|_| look_again(&self.bodies, &last))?;
            }
            if info.inline.is_some() {
                // Going through them is one access for a whole page of bodies: see LOOKS.
                self.index.contains_key(&entry.0)?;
            }
            let begin = key_bytes(info.key);
            if behind < begin {
                self.remove_orphans(behind..begin)?;
            }
            behind = key_bytes(FrameKey { first_seq: info.last_seq().next(), ..info.key });
            backlog.add(&info);
            firsts.entry(info.key.epoch).or_insert(info.key.first_seq);
        }
        for (epoch, progress) in &mut epochs {
            progress.settle(progress.written, firsts.get(epoch).copied());
        }
        self.remove_orphans(behind..)?;
        Ok(State { id, epoch: Epoch(0), durable: Seq(0), epochs, pruned, backlog, rolled_back: false })
    }

    /// Removes the bodies at places where the index has no frame: a crash came between the two, when writing or removing.
    fn remove_orphans(&self, places: impl RangeBounds<[u8; 16]>) -> Result<(), OutboxError> {
        for orphan in self.bodies.range(places) {
            self.bodies.remove(orphan?.0)?;
        }
        Ok(())
    }

    /// Writes a frame.
    pub(super) fn insert(
        &self,
        key: FrameKey,
        count: u32,
        body: &[u8],
        accepted_at: u64,
    ) -> Result<FrameInfo, OutboxError> {
        self.before_write()?;
        let len = u32::try_from(body.len()).map_err(|_| OutboxError::Damaged("a body over 4 GiB".into()))?;
        let mut entry = Vec::with_capacity(16 + if body.len() <= INLINE { body.len() } else { 0 });
        entry.extend_from_slice(&count.to_be_bytes());
        entry.extend_from_slice(&len.to_be_bytes());
        entry.extend_from_slice(&accepted_at.to_be_bytes());
        if body.len() <= INLINE {
            entry.extend_from_slice(body);
        } else {
            for (index, chunk) in body.chunks(CHUNK).enumerate() {
                let place = chunk_key(key, index);
                self.bodies.insert(place, chunk)?;
                look_again(&self.bodies, &place)?;
            }
        }
        self.index.insert(key_bytes(key), entry)?;
        Ok(FrameInfo { key, count, len, accepted_at, inline: None })
    }

    /// Reads a frame's body.
    pub(super) fn body(&self, info: &FrameInfo) -> Result<Vec<u8>, OutboxError> {
        if let Some(body) = &info.inline {
            return Ok(body.clone());
        }
        let mut body = Vec::with_capacity(info.len as usize);
        for index in 0..(info.len as usize).div_ceil(CHUNK) {
            let place = chunk_key(info.key, index);
            match self.bodies.get(place)? {
                Some(chunk) => {
                    body.extend_from_slice(&chunk);
                    look_again(&self.bodies, &place)?;
                }
                None => return Err(OutboxError::Damaged(format!("{:?} has no chunk {index}", info.key))),
            }
        }
        Ok(body)
    }

    /// Removes a frame.
    pub(super) fn remove(&self, info: &FrameInfo) -> Result<(), OutboxError> {
        self.before_write()?;
        self.index.remove(key_bytes(info.key))?;
        if info.len as usize > INLINE {
            for place in chunk_keys(info) {
                self.bodies.remove(place)?;
            }
        }
        Ok(())
    }

    /// The frame at a place, if there is one.
    pub(super) fn frame(&self, key: FrameKey) -> Result<Option<FrameInfo>, OutboxError> {
        let key = key_bytes(key);
        self.index.get(key)?.map(|value| read_info(&key, &value)).transpose()
    }

    /// The frames of one epoch, in order.
    pub(super) fn frames_of(&self, epoch: Epoch) -> impl Iterator<Item = Result<FrameInfo, OutboxError>> + use<> {
        self.index.range(epoch_range(epoch)).map(read_entry)
    }

    /// The first frame behind `cursor`.
    pub(super) fn next_after(&self, cursor: Option<FrameKey>) -> Result<Option<FrameInfo>, OutboxError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let lower = cursor.map_or(Unbounded, |c| Excluded(key_bytes(c).to_vec()));
        self.index.range::<Vec<u8>, _>((lower, Unbounded)).next().map(read_entry).transpose()
    }

    /// The highest number that was given in an epoch.
    pub(super) fn write_written(&self, epoch: Epoch, seq: Seq) -> Result<(), OutboxError> {
        self.write_progress(b'w', epoch, seq)
    }

    /// The number up to which everything is durable at the hub, as it says.
    pub(super) fn write_told(&self, epoch: Epoch, seq: Seq) -> Result<(), OutboxError> {
        self.write_progress(b'a', epoch, seq)
    }

    /// Forgets an epoch that has nothing left to send, and remembers that it was forgotten.
    pub(super) fn forget_epoch(&self, epoch: Epoch) -> Result<(), OutboxError> {
        self.write_pruned(epoch)?;
        self.meta.remove(meta_key(b'w', epoch))?;
        self.meta.remove(meta_key(b'a', epoch))?;
        Ok(())
    }

    /// The newest epoch that was forgotten.
    pub(super) fn write_pruned(&self, epoch: Epoch) -> Result<(), OutboxError> {
        self.before_write()?;
        self.meta.insert(PRUNED, &epoch.0.to_be_bytes())?;
        Ok(())
    }

    /// Which outbox this is.
    pub(super) fn write_id(&self, id: u64) -> Result<(), OutboxError> {
        self.before_write()?;
        self.meta.insert(ID, &id.to_be_bytes())?;
        Ok(())
    }

    /// Only the index entry, as a crash in the middle of a removal would.
    #[cfg(test)]
    pub(super) fn forget_index(&self, info: &FrameInfo) -> Result<(), OutboxError> {
        self.index.remove(key_bytes(info.key))?;
        Ok(())
    }

    /// How many chunks of bodies there are.
    #[cfg(test)]
    pub(super) fn chunks(&self) -> usize {
        self.bodies.len()
    }

    fn write_progress(&self, kind: u8, epoch: Epoch, seq: Seq) -> Result<(), OutboxError> {
        self.before_write()?;
        self.meta.insert(meta_key(kind, epoch), &seq.0.to_be_bytes())?;
        Ok(())
    }

    #[cfg(not(test))]
    fn before_write(&self) -> Result<(), OutboxError> {
        Ok(())
    }

    /// Fails once the disk is said to be broken.
    #[cfg(test)]
    fn before_write(&self) -> Result<(), OutboxError> {
        use std::sync::atomic::Ordering::SeqCst;
        let left = self.writes_left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| {
            if self.heals.load(SeqCst) {
                self.writes_left.store(u64::MAX, SeqCst);
            }
            OutboxError::Io(std::io::Error::other("the disk is broken"))
        })
    }
}

/// See [`LOOKS`].
fn look_again(tree: &sled::Tree, key: &[u8]) -> Result<(), OutboxError> {
    for _ in 0..LOOKS {
        tree.contains_key(key)?;
    }
    Ok(())
}

/// Opens the database. Its lock may outlive the one who held it for a moment: sled lets go of its file on a thread of its
/// own, and so does a killed agent's process. Only a lock that stays is another agent's.
fn open_when_unlocked(path: &Path) -> Result<sled::Db, OutboxError> {
    let started = Instant::now();
    loop {
        // Everything that must be durable is flushed by hand.
        let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        match config.open() {
            Ok(db) => return Ok(db),
            Err(sled::Error::Io(io)) if io.to_string().contains("could not acquire lock") => {
                if started.elapsed() >= LOCK_PATIENCE {
                    return Err(OutboxError::InUse(path.to_owned()));
                }
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(other) => return Err(OutboxError::Storage(other)),
        }
    }
}

fn key_bytes(key: FrameKey) -> [u8; 16] {
    (u128::from(key.epoch.0) << 64 | u128::from(key.first_seq.0)).to_be_bytes()
}

fn chunk_key(key: FrameKey, index: usize) -> [u8; 17] {
    let mut bytes = [0; 17];
    bytes[..16].copy_from_slice(&key_bytes(key));
    bytes[16] = u8::try_from(index).expect("a body has at most 256 KiB, so at most 66 chunks");
    bytes
}

fn meta_key(kind: u8, epoch: Epoch) -> [u8; 9] {
    let mut bytes = [kind; 9];
    bytes[1..].copy_from_slice(&epoch.0.to_be_bytes());
    bytes
}

fn epoch_range(epoch: Epoch) -> std::ops::Range<Vec<u8>> {
    let start = |epoch: u64| key_bytes(FrameKey { epoch: Epoch(epoch), first_seq: Seq(0) }).to_vec();
    start(epoch.0)..start(epoch.0.saturating_add(1))
}

/// The keys of a frame's chunks, in order; none if its body is in the index.
pub(super) fn chunk_keys(info: &FrameInfo) -> impl DoubleEndedIterator<Item = [u8; 17]> + use<> {
    let (key, inline) = (info.key, info.len as usize <= INLINE);
    let chunks = if inline { 0 } else { (info.len as usize).div_ceil(CHUNK) };
    (0..chunks).map(move |index| chunk_key(key, index))
}

/// What an entry of `meta` speaks of: `w` for written, `a` for acknowledged, and the epoch.
pub(super) fn read_meta_key(key: &[u8]) -> Option<(u8, Epoch)> {
    match key.split_first()? {
        (&kind @ (b'w' | b'a'), epoch) => Some((kind, Epoch(u64::from_be_bytes(epoch.try_into().ok()?)))),
        _ => None,
    }
}

pub(super) fn read_u64(bytes: &[u8]) -> Result<u64, OutboxError> {
    let bytes = bytes.try_into().map_err(|_| OutboxError::Damaged(format!("{bytes:?} is not a number")))?;
    Ok(u64::from_be_bytes(bytes))
}

fn read_entry(entry: sled::Result<(sled::IVec, sled::IVec)>) -> Result<FrameInfo, OutboxError> {
    let (key, value) = entry?;
    read_info(&key, &value)
}

/// What an entry of `index` says.
pub(super) fn read_info(key: &[u8], value: &[u8]) -> Result<FrameInfo, OutboxError> {
    if key.len() != 16 || value.len() < 16 {
        return Err(OutboxError::Damaged(format!("an index entry of {} and {} bytes", key.len(), value.len())));
    }
    let key = FrameKey { epoch: Epoch(read_u64(&key[..8])?), first_seq: Seq(read_u64(&key[8..])?) };
    let (count, len) = value[..8].split_at(4);
    let number = |b: &[u8]| u32::from_be_bytes(b.try_into().expect("4 bytes"));
    let len = number(len);
    let inline = (len as usize <= INLINE).then(|| value[16..].to_vec());
    Ok(FrameInfo { key, count: number(count), len, accepted_at: read_u64(&value[8..16])?, inline })
}
