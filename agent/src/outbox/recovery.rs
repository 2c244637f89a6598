//! Opens the outbox's database, whatever state a power cut has left it in.
//!
//! sled comes back from what it has foreseen. From the rest (it finds its file damaged, or stumbles over it) the outbox comes
//! back by itself: what can still be read is written into a new database, which takes the old one's place. What holds:
//! - At any moment the old database is there, or the new one is whole.
//! - Whatever goes lost is named. The old database stays beside the new one, as `outbox.damaged`, until the next time.
//! - A disk that does not answer is no damage: an error of the system ends the start, and nothing is moved.
//! - What sled opens, and cannot read later, is found by whoever reads it: the agent ends, and the next start does the same.

use super::OutboxError;
use super::progress::State;
use super::sled_log::{self, Place};
use super::store::{self, Store};
use crate::window::FrameKey;
use onhand_common::{Epoch, Seq};
use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// The file, among those of the database, that says what was found damaged while it was open. It goes with the database.
const FOUND: &str = "found-damaged";
/// Gaps that are named one by one.
const NAMED: usize = 20;

/// Opens or creates the database in the folder `path`.
pub(super) fn open(path: &Path) -> Result<(Store, State), OutboxError> {
    finish_replacement(path)?;
    remove_unfinished_snapshots(path)?;
    let damage = match (attempt(path)?, found(path)?) {
        (Ok(opened), None) => return Ok(opened),
        (Ok(opened), Some(damage)) => {
            drop(opened);
            damage
        }
        (Err(damage), _) => damage,
    };
    tracing::error!(%damage, "DAMAGED: the outbox's database cannot be opened, or not all of it be read; a new one takes over what can be");
    match salvage(path) {
        Ok(kept) => tracing::warn!(
            frames = kept.frames, events = kept.events, not_found = %kept.gaps(), old = %beside(path, "damaged").display(),
            "salvaged: these frames go on. Of the numbers that were not found, some may have been acknowledged one by one"
        ),
        // Where it can be opened, tills are served until it comes to what is damaged, and the next start tries again.
        Err(error) if path.exists() && found(path)?.is_some() => tracing::error!(%error, "it could not be made anew"),
        Err(error) => return Err(error),
    }
    attempt(path)?.map_err(|damage| OutboxError::Damaged(format!("also after it was made anew: {damage}")))
}

/// What was found damaged while the database was open.
fn found(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path.join(FOUND)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        damage => damage.map(Some),
    }
}

/// Reads something of an open database. Where what is there is damaged, the next start makes the database anew.
pub(super) fn reading<T>(path: &Path, read: impl FnOnce() -> Result<T, OutboxError>) -> Result<T, OutboxError> {
    let read = caught(read);
    if let Err(error) = &read
        && is_bad_data(error)
    {
        fs::write(path.join(FOUND), error.to_string())?;
    }
    read
}

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is one of sled's that is taken for damage.
pub(crate) fn panics_are_caught() -> bool {
    CATCHING.get()
}

/// The outer error is for whoever starts the agent, the inner one says what is damaged.
fn attempt(path: &Path) -> Result<Result<(Store, State), String>, OutboxError> {
    let opening = || {
        let store = Store::open(path)?;
        let state = store.load()?;
        Ok((store, state))
    };
    match caught(opening) {
        Ok(opened) => Ok(Ok(opened)),
        Err(error) if is_damage(&error) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

fn caught<T>(work: impl FnOnce() -> Result<T, OutboxError>) -> Result<T, OutboxError> {
    CATCHING.set(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(false);
    done.unwrap_or_else(|panic| Err(OutboxError::Damaged(format!("sled stumbled over it: {}", text_of(&*panic)))))
}

/// Whether what was read is not what was written. (sled says an error of the disk again to others, without its number.)
pub(super) fn is_bad_data(error: &OutboxError) -> bool {
    match error {
        OutboxError::Damaged(_) | OutboxError::Storage(sled::Error::Corruption { .. }) => true,
        OutboxError::Storage(sled::Error::Io(error)) => {
            matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData)
        }
        _ => false,
    }
}

fn is_damage(error: &OutboxError) -> bool {
    match error {
        OutboxError::Damaged(_) => true,
        OutboxError::Storage(sled::Error::Io(error)) | OutboxError::Io(error) => error.raw_os_error().is_none(),
        OutboxError::Storage(_) => true,
        _ => false,
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it did not say how")
}

/// sled takes a snapshot that it was still writing for its newest one, and refuses to start.
fn remove_unfinished_snapshots(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(file)?;
        }
    }
    Ok(())
}

/// What was found in a damaged database.
struct Kept {
    frames: u64,
    events: u64,
    not_found: Vec<(Epoch, Seq, Seq)>,
}

impl Kept {
    fn gaps(&self) -> String {
        let named = self.not_found.iter().take(NAMED);
        let mut gaps: Vec<String> = named.map(|(epoch, from, to)| format!("{from}-{to} of epoch {epoch}")).collect();
        if self.not_found.len() > NAMED {
            gaps.push(format!("and {} more", self.not_found.len() - NAMED));
        }
        if gaps.is_empty() { "none".into() } else { gaps.join(", ") }
    }
}

/// Replaces a damaged database by a new one with what can be read of it.
fn salvage(path: &Path) -> Result<Kept, OutboxError> {
    let (new, old) = (beside(path, "salvaged"), beside(path, "damaged"));
    // Room for two of them is enough.
    remove_folder(&old)?;
    let kept = {
        let store = Store::open(&new)?;
        match File::open(path.join("db")) {
            Ok(file) => copy(&file, &store)?,
            Err(error) if error.kind() == ErrorKind::NotFound => Kept { frames: 0, events: 0, not_found: Vec::new() },
            Err(error) => return Err(error.into()),
        }
    };
    fs::rename(path, &old)?;
    sync_folder_of(path)?;
    finish_replacement(path)?;
    Ok(kept)
}

fn copy(file: &File, store: &Store) -> Result<Kept, OutboxError> {
    let entries = sled_log::entries(file)?;
    let (mut told, mut written): (BTreeMap<Epoch, Seq>, BTreeMap<Epoch, Seq>) = Default::default();
    for (key, place) in &entries {
        if let Some((kind, epoch)) = store::read_meta_key(key) {
            let seq = Seq(store::read_u64(&place.read(file)?)?);
            let progress = if kind == b'a' { &mut told } else { &mut written };
            progress.insert(epoch, seq);
        } else if key == store::PRUNED {
            store.write_pruned(Epoch(store::read_u64(&place.read(file)?)?))?;
        }
    }
    let mut kept = Kept { frames: 0, events: 0, not_found: Vec::new() };
    // In each epoch, the number behind which everything is kept, acknowledged or named.
    let mut behind = told.clone();
    for (key, place) in entries.iter().filter(|(key, _)| key.len() == 16) {
        let Some((info, body)) = frame(file, &entries, key, *place)? else { continue };
        let told = told.get(&info.key.epoch).copied().unwrap_or_default();
        if info.last_seq() <= told {
            continue;
        }
        store.insert(info.key, info.count, &body, info.accepted_at)?;
        kept.frames += 1;
        kept.events += u64::from(info.count);
        note_gap(&mut kept, &mut behind, info.key, info.last_seq());
    }
    for (&epoch, &seq) in &written {
        note_gap(&mut kept, &mut behind, FrameKey { epoch, first_seq: seq.next() }, seq);
        store.write_written(epoch, seq)?;
    }
    for (&epoch, &seq) in &told {
        store.write_told(epoch, seq)?;
    }
    store.sync()?;
    Ok(kept)
}

fn note_gap(kept: &mut Kept, behind: &mut BTreeMap<Epoch, Seq>, next: FrameKey, last: Seq) {
    let behind = behind.entry(next.epoch).or_default();
    if next.first_seq > behind.next() {
        kept.not_found.push((next.epoch, behind.next(), Seq(next.first_seq.0 - 1)));
    }
    *behind = (*behind).max(last);
}

/// A frame with its body, if that is whole.
fn frame(
    file: &File,
    entries: &BTreeMap<Vec<u8>, Place>,
    key: &[u8],
    place: Place,
) -> Result<Option<(super::FrameInfo, Vec<u8>)>, OutboxError> {
    let Ok(info) = store::read_info(key, &place.read(file)?) else { return Ok(None) };
    let mut body = Vec::with_capacity(info.len as usize);
    match &info.inline {
        Some(inline) => body.extend_from_slice(inline),
        None => {
            for chunk in store::chunk_keys(&info) {
                let Some(place) = entries.get(chunk.as_slice()) else { return Ok(None) };
                body.extend_from_slice(&place.read(file)?);
            }
        }
    }
    Ok((body.len() == info.len as usize && info.count > 0).then_some((info, body)))
}

/// The last step of a replacement that a crash may have interrupted. What was interrupted earlier is begun anew.
fn finish_replacement(path: &Path) -> io::Result<()> {
    let new = beside(path, "salvaged");
    if path.exists() {
        return remove_folder(&new);
    }
    if new.is_dir() {
        fs::rename(&new, path)?;
        sync_folder_of(path)?;
    }
    Ok(())
}

fn beside(path: &Path, what: &str) -> PathBuf {
    path.with_extension(what)
}

fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
