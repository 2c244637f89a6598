//! A disk as a power cut sees it, as plain values: no clock, no mount, no thread. `faulty_disk` mounts it.
//!
//! What holds, as little as POSIX promises:
//! - A file has what is durable and the pages written since. `sync_file` makes its bytes and its size durable, not its name.
//! - Names belong to folders. `sync_folder` makes what happened in a folder durable, and with it whatever had to come
//!   before. A rename happens as one, in both folders.
//! - [`DiskImage::power_cut`] keeps what is durable. Of the rest it keeps what a drawn seed says: pages whole, not at all or
//!   in sectors of 512 bytes; sizes; of the names sometimes all up to a moment, as a journal does, sometimes any.
//! - A sync that fails leaves pages that are in memory only and that nobody will write any more, as Linux does.

mod file;
mod names;

use file::FileBytes;
pub use file::PAGE;
use names::{Change, Names, Operation};
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

/// The number of the uppermost folder.
pub const ROOT: u64 = 1;
/// So many files without a name are cleared away at once.
const SWEEP: usize = 256;

/// Why the disk refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskError {
    /// There is no such name or file.
    NotFound,
    /// The name is taken.
    Exists,
    /// The folder has something in it.
    NotEmpty,
    /// A folder where a file is wanted.
    IsFolder,
    /// A file where a folder is wanted.
    NotFolder,
    /// There is no room.
    Full,
}

/// What there is to know of a file or a folder.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    /// Whether it is a folder.
    pub folder: bool,
    /// Bytes.
    pub size: u64,
    /// Pages that it takes.
    pub pages: u64,
    /// Permissions.
    pub mode: u16,
    /// Names that it has.
    pub links: u32,
    /// When it was last written.
    pub modified: SystemTime,
}

/// What a power cut met: how much was not durable, and how much of it is gone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cut {
    /// Pages that were not durable.
    pub pages: u64,
    /// Of these, pages that are as they were before.
    pub pages_lost: u64,
    /// Of these, pages that are half new.
    pub pages_torn: u64,
    /// Changes of names that were not durable.
    pub names: u64,
    /// Of these, changes that did not happen.
    pub names_lost: u64,
}

enum Node {
    File(FileBytes),
    Folder(Names),
}

struct Inode {
    node: Node,
    mode: u16,
    links: u32,
    opened: u32,
    /// Whether its pages are others' by now.
    freed: bool,
    modified: SystemTime,
}

/// The disk: every file and folder on it.
pub struct DiskImage {
    inodes: BTreeMap<u64, Inode>,
    next: u64,
    /// What happened to names since their folders were synced, in its order.
    pending: Vec<Operation>,
    /// Pages that files take; those that are gone and open count.
    used: u64,
    /// Pages that there are.
    capacity: u64,
    nameless: usize,
}

impl DiskImage {
    /// An empty disk with room for so many bytes.
    pub fn new(capacity: u64, now: SystemTime) -> Self {
        let root = Inode {
            node: Node::Folder(Names::default()),
            mode: 0o755,
            links: 2,
            opened: 0,
            freed: false,
            modified: now,
        };
        let inodes = BTreeMap::from([(ROOT, root)]);
        Self { inodes, next: ROOT + 1, pending: Vec::new(), used: 0, capacity: capacity / PAGE, nameless: 0 }
    }

    /// Pages that there are, and those that are free.
    pub fn room(&self) -> (u64, u64) {
        (self.capacity.max(self.used), self.capacity.saturating_sub(self.used))
    }

    /// Makes the disk so large that just these bytes are free.
    pub fn set_room(&mut self, bytes: u64) {
        self.capacity = self.used + bytes / PAGE;
    }

    /// What a name stands for.
    pub fn lookup(&self, folder: u64, name: &OsStr) -> Result<u64, DiskError> {
        self.names(folder)?.get(name).ok_or(DiskError::NotFound)
    }

    /// The names in a folder, and what they stand for.
    pub fn list(&self, folder: u64) -> Result<Vec<(OsString, u64)>, DiskError> {
        Ok(self.names(folder)?.iter().map(|(name, &ino)| (name.clone(), ino)).collect())
    }

    /// What is known of a file or folder.
    pub fn attributes(&self, ino: u64) -> Result<Attributes, DiskError> {
        let inode = self.inode(ino)?;
        let (folder, size, pages) = match &inode.node {
            Node::File(bytes) => (false, bytes.size(), bytes.pages()),
            Node::Folder(_) => (true, PAGE, 1),
        };
        Ok(Attributes { folder, size, pages, mode: inode.mode, links: inode.links, modified: inode.modified })
    }

    /// Creates a file or a folder.
    pub fn create(
        &mut self,
        folder: u64,
        name: &OsStr,
        is_folder: bool,
        mode: u16,
        now: SystemTime,
    ) -> Result<u64, DiskError> {
        if self.names(folder)?.get(name).is_some() {
            return Err(DiskError::Exists);
        }
        if self.room().1 == 0 {
            return Err(DiskError::Full);
        }
        let node = if is_folder { Node::Folder(Names::default()) } else { Node::File(FileBytes::default()) };
        let ino = self.next;
        self.next += 1;
        self.inodes.insert(ino, Inode { node, mode, links: 0, opened: 0, freed: false, modified: now });
        self.happen(vec![Change::new(folder, name, Some(ino))], now)?;
        Ok(ino)
    }

    /// Gives a file one more name.
    pub fn link(&mut self, ino: u64, folder: u64, name: &OsStr, now: SystemTime) -> Result<(), DiskError> {
        self.file(ino)?;
        if self.names(folder)?.get(name).is_some() {
            return Err(DiskError::Exists);
        }
        self.happen(vec![Change::new(folder, name, Some(ino))], now)
    }

    /// Takes a name away, of a file or of an empty folder.
    pub fn remove(&mut self, folder: u64, name: &OsStr, is_folder: bool, now: SystemTime) -> Result<(), DiskError> {
        let ino = self.lookup(folder, name)?;
        match (&self.inode(ino)?.node, is_folder) {
            (Node::File(_), true) => return Err(DiskError::NotFolder),
            (Node::Folder(_), false) => return Err(DiskError::IsFolder),
            (Node::Folder(names), true) if names.iter().next().is_some() => return Err(DiskError::NotEmpty),
            _ => {}
        }
        self.happen(vec![Change::new(folder, name, None)], now)
    }

    /// Gives what has one name another, in place of what has that.
    pub fn rename(
        &mut self,
        (folder, name): (u64, &OsStr),
        (to_folder, to_name): (u64, &OsStr),
        keep: bool,
        now: SystemTime,
    ) -> Result<(), DiskError> {
        let ino = self.lookup(folder, name)?;
        match self.names(to_folder)?.get(to_name) {
            Some(_) if keep => return Err(DiskError::Exists),
            Some(other) if other == ino => return Ok(()),
            Some(other) => match &self.inode(other)?.node {
                Node::Folder(names) if names.iter().next().is_some() => return Err(DiskError::NotEmpty),
                _ => {}
            },
            None => {}
        }
        self.happen(vec![Change::new(folder, name, None), Change::new(to_folder, to_name, Some(ino))], now)
    }

    /// Says that a file was opened; it stays until [`DiskImage::closed`], whatever becomes of its names.
    pub fn opened(&mut self, ino: u64) -> Result<(), DiskError> {
        self.inode_mut(ino)?.opened += 1;
        Ok(())
    }

    /// Says that a file was closed.
    pub fn closed(&mut self, ino: u64) {
        if let Ok(inode) = self.inode_mut(ino) {
            inode.opened = inode.opened.saturating_sub(1);
            self.free_if_gone(ino);
        }
    }

    /// Bytes of a file, fewer at its end.
    pub fn read(&self, ino: u64, offset: u64, length: usize) -> Result<Vec<u8>, DiskError> {
        Ok(self.file(ino)?.read(offset, length))
    }

    /// Writes as much of the bytes as there is room for; how many that was.
    pub fn write(&mut self, ino: u64, offset: u64, bytes: &[u8], now: SystemTime) -> Result<usize, DiskError> {
        let free = self.room().1;
        let file = self.file_mut(ino, now)?;
        let before = file.pages();
        let fits = file.fits(offset, bytes.len(), free);
        if fits == 0 && !bytes.is_empty() {
            return Err(DiskError::Full);
        }
        file.write(offset, &bytes[..fits]);
        self.used += self.file(ino)?.pages() - before;
        Ok(fits)
    }

    /// Cuts a file, or makes it longer by a hole.
    pub fn set_size(&mut self, ino: u64, size: u64, now: SystemTime) -> Result<(), DiskError> {
        let file = self.file_mut(ino, now)?;
        let before = file.pages();
        file.set_size(size);
        self.used -= before - self.file(ino)?.pages();
        Ok(())
    }

    /// Sets permissions. They are durable at once: nothing here depends on them.
    pub fn set_mode(&mut self, ino: u64, mode: u16) -> Result<(), DiskError> {
        self.inode_mut(ino)?.mode = mode;
        Ok(())
    }

    /// Makes a file's bytes and size durable.
    pub fn sync_file(&mut self, ino: u64) -> Result<(), DiskError> {
        match &mut self.inode_mut(ino)?.node {
            Node::File(bytes) => bytes.sync(),
            Node::Folder(_) => self.sync_folder(ino)?,
        }
        Ok(())
    }

    /// What a sync that fails does: nothing is durable, and nobody will try again with what was written until now.
    pub fn fail_sync(&mut self, ino: u64) {
        if let Ok(Inode { node: Node::File(bytes), .. }) = self.inode_mut(ino) {
            bytes.drop_unsynced();
        }
    }

    /// Makes the names in a folder durable.
    pub fn sync_folder(&mut self, folder: u64) -> Result<(), DiskError> {
        self.names(folder)?;
        for operation in names::take_with_what_came_before(&mut self.pending, folder) {
            self.settle(&operation);
        }
        if self.nameless > SWEEP {
            self.nameless = 0;
            self.sweep(false);
        }
        Ok(())
    }

    /// The power goes: what is left is durable, and is all there is.
    pub fn power_cut(&mut self, rng: &mut impl Rng) -> Cut {
        let mut cut = Cut::default();
        let pending = std::mem::take(&mut self.pending);
        cut.names = pending.len() as u64;
        // As a journal, up to a moment; or as nobody forbids, any of them.
        let journal = rng.random_bool(0.5).then(|| rng.random_range(0..=pending.len()));
        for (index, operation) in pending.iter().enumerate() {
            if journal.map_or_else(|| rng.random_bool(0.5), |until| index < until) {
                self.settle(operation);
            } else {
                cut.names_lost += 1;
            }
        }
        for inode in self.inodes.values_mut() {
            inode.opened = 0;
            match &mut inode.node {
                Node::File(bytes) => bytes.power_cut(rng, &mut cut),
                Node::Folder(names) => names.forget_unsynced(),
            }
        }
        self.sweep(true);
        cut
    }

    /// Lets go of what is in memory only: pages that a failed sync left read as the disk has them.
    pub fn drop_caches(&mut self) {
        for inode in self.inodes.values_mut() {
            if let Node::File(bytes) = &mut inode.node {
                bytes.drop_caches();
            }
        }
        self.count();
    }

    fn happen(&mut self, changes: Vec<Change>, now: SystemTime) -> Result<(), DiskError> {
        // First the new names: what is renamed is never without one.
        for ino in changes.iter().filter_map(|change| change.to) {
            self.inode_mut(ino)?.links += 1;
        }
        for change in &changes {
            let Node::Folder(names) = &mut self.inode_mut(change.folder)?.node else {
                return Err(DiskError::NotFolder);
            };
            let before = names.set(&change.name, change.to);
            self.inode_mut(change.folder)?.modified = now;
            if let Some(ino) = before {
                let inode = self.inode_mut(ino)?;
                inode.links = inode.links.saturating_sub(1);
                self.free_if_gone(ino);
            }
        }
        self.pending.push(Operation { changes });
        Ok(())
    }

    /// Its pages are free for others; its bytes stay here, since a power cut may bring its name back.
    fn free_if_gone(&mut self, ino: u64) {
        // Once: after a power cut, who had it open closes it nevertheless.
        if let Ok(Inode { node: Node::File(bytes), links: 0, opened: 0, freed, .. }) = self.inode_mut(ino)
            && !std::mem::replace(freed, true)
        {
            let pages = bytes.pages();
            self.used -= pages;
            self.nameless += 1;
        }
    }

    fn settle(&mut self, operation: &Operation) {
        for change in &operation.changes {
            if let Some(Inode { node: Node::Folder(names), .. }) = self.inodes.get_mut(&change.folder) {
                names.settle(&change.name, change.to);
            }
        }
    }

    /// Removes what nothing leads to; `anew` when only names count, as after a power cut.
    fn sweep(&mut self, anew: bool) {
        let mut found: BTreeSet<u64> = self.pending.iter().flat_map(Operation::targets).collect();
        if !anew {
            found.extend(self.inodes.iter().filter(|(_, inode)| inode.opened > 0).map(|(&ino, _)| ino));
        }
        let mut to_visit: Vec<u64> = found.iter().copied().chain([ROOT]).collect();
        found.insert(ROOT);
        while let Some(ino) = to_visit.pop() {
            if let Some(Inode { node: Node::Folder(names), .. }) = self.inodes.get(&ino) {
                to_visit.extend(names.targets().filter(|&target| found.insert(target)));
            }
        }
        self.inodes.retain(|ino, _| found.contains(ino));
        if anew {
            self.count();
        }
    }

    /// Counts links and pages anew.
    fn count(&mut self) {
        let mut links: BTreeMap<u64, u32> = BTreeMap::new();
        for inode in self.inodes.values() {
            if let Node::Folder(names) = &inode.node {
                names.iter().for_each(|(_, &ino)| *links.entry(ino).or_default() += 1);
            }
        }
        self.used = 0;
        for (ino, inode) in &mut self.inodes {
            inode.links = links.get(ino).copied().unwrap_or(u32::from(*ino == ROOT));
            inode.freed = inode.links == 0 && inode.opened == 0;
            if let Node::File(bytes) = &inode.node
                && !inode.freed
            {
                self.used += bytes.pages();
            }
        }
    }

    fn inode(&self, ino: u64) -> Result<&Inode, DiskError> {
        self.inodes.get(&ino).ok_or(DiskError::NotFound)
    }

    fn inode_mut(&mut self, ino: u64) -> Result<&mut Inode, DiskError> {
        self.inodes.get_mut(&ino).ok_or(DiskError::NotFound)
    }

    fn names(&self, ino: u64) -> Result<&Names, DiskError> {
        match &self.inode(ino)?.node {
            Node::Folder(names) => Ok(names),
            Node::File(_) => Err(DiskError::NotFolder),
        }
    }

    fn file(&self, ino: u64) -> Result<&FileBytes, DiskError> {
        match &self.inode(ino)?.node {
            Node::File(bytes) => Ok(bytes),
            Node::Folder(_) => Err(DiskError::IsFolder),
        }
    }

    fn file_mut(&mut self, ino: u64, now: SystemTime) -> Result<&mut FileBytes, DiskError> {
        let inode = self.inode_mut(ino)?;
        inode.modified = now;
        match &mut inode.node {
            Node::File(bytes) => Ok(bytes),
            Node::Folder(_) => Err(DiskError::IsFolder),
        }
    }
}

#[cfg(test)]
mod tests;
