//! The bytes of one file: as they are, as they are on the drive, and which pages differ.

use super::Cut;
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes that the system keeps and writes together.
pub const PAGE: u64 = 4096;
/// Bytes that a drive writes whole or not at all.
const SECTOR: usize = 512;

type Page = Arc<[u8; PAGE as usize]>;

/// Pages that were never written are holes: zeros that take no room.
#[derive(Debug, Clone, Default)]
struct Content {
    size: u64,
    pages: BTreeMap<u64, Page>,
}

/// A file.
#[derive(Debug, Clone, Default)]
pub(super) struct FileBytes {
    now: Content,
    durable: Content,
    /// Pages that may differ, and that the next sync writes.
    unsynced: BTreeSet<u64>,
    /// Pages that differ, and that no sync will write: one has failed.
    dropped: BTreeSet<u64>,
}

impl FileBytes {
    pub(super) fn size(&self) -> u64 {
        self.now.size
    }

    pub(super) fn pages(&self) -> u64 {
        self.now.pages.len() as u64
    }

    pub(super) fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let end = (offset + length as u64).min(self.now.size);
        let mut bytes = Vec::with_capacity(end.saturating_sub(offset) as usize);
        let mut at = offset;
        while at < end {
            let (page, from) = (at / PAGE, (at % PAGE) as usize);
            let until = ((end - page * PAGE).min(PAGE)) as usize;
            match self.now.pages.get(&page) {
                Some(page) => bytes.extend_from_slice(&page[from..until]),
                None => bytes.resize(bytes.len() + until - from, 0),
            }
            at += (until - from) as u64;
        }
        bytes
    }

    /// How many of so many bytes find room when so many pages are free.
    pub(super) fn fits(&self, offset: u64, length: usize, mut free: u64) -> usize {
        let end = offset + length as u64;
        for page in offset / PAGE..end.div_ceil(PAGE) {
            if !self.now.pages.contains_key(&page) {
                if free == 0 {
                    return (page * PAGE).saturating_sub(offset) as usize;
                }
                free -= 1;
            }
        }
        length
    }

    pub(super) fn write(&mut self, offset: u64, mut bytes: &[u8]) {
        let mut at = offset;
        while !bytes.is_empty() {
            let (page, from) = (at / PAGE, (at % PAGE) as usize);
            let (part, rest) = bytes.split_at(bytes.len().min(PAGE as usize - from));
            let target = self.now.pages.entry(page).or_insert_with(zeros);
            Arc::make_mut(target)[from..from + part.len()].copy_from_slice(part);
            self.touch(page);
            at += part.len() as u64;
            bytes = rest;
        }
        self.now.size = self.now.size.max(at);
    }

    pub(super) fn set_size(&mut self, size: u64) {
        if size < self.now.size {
            let gone: Vec<u64> = self.now.pages.range(size / PAGE..).map(|(&page, _)| page).collect();
            for page in gone {
                self.touch(page);
            }
            // What was on the drive behind the new end must not come back when the file grows again.
            let stale: Vec<u64> = self.durable.pages.range(size / PAGE..).map(|(&page, _)| page).collect();
            for page in stale {
                self.touch(page);
            }
        }
        self.now.cut_to(size);
    }

    pub(super) fn sync(&mut self) {
        for page in std::mem::take(&mut self.unsynced) {
            match self.now.pages.get(&page) {
                Some(bytes) => _ = self.durable.pages.insert(page, Arc::clone(bytes)),
                None => _ = self.durable.pages.remove(&page),
            }
        }
        self.durable.cut_to(self.now.size);
    }

    pub(super) fn drop_unsynced(&mut self) {
        self.dropped.append(&mut self.unsynced);
    }

    pub(super) fn drop_caches(&mut self) {
        for page in std::mem::take(&mut self.dropped) {
            match self.durable.pages.get(&page) {
                Some(bytes) => _ = self.now.pages.insert(page, Arc::clone(bytes)),
                None => _ = self.now.pages.remove(&page),
            }
        }
    }

    pub(super) fn power_cut(&mut self, rng: &mut impl Rng, cut: &mut Cut) {
        let unsynced = std::mem::take(&mut self.unsynced);
        cut.pages += unsynced.len() as u64;
        // Some cuts come just before, some just after the drive has written all of a file.
        let kept = [0., 0.5, 0.5, 0.9, 1.][rng.random_range(0..5)];
        for page in unsynced {
            let new = self.now.pages.get(&page);
            if rng.random_bool(0.15) {
                let mut torn = self.durable.pages.get(&page).cloned().unwrap_or_else(zeros);
                let sectors = Arc::make_mut(&mut torn).chunks_mut(SECTOR);
                for (index, sector) in sectors.enumerate().filter(|_| rng.random_bool(0.5)) {
                    match new {
                        Some(new) => sector.copy_from_slice(&new[index * SECTOR..][..SECTOR]),
                        None => sector.fill(0),
                    }
                }
                self.durable.pages.insert(page, torn);
                cut.pages_torn += 1;
            } else if rng.random_bool(kept) {
                match new {
                    Some(new) => _ = self.durable.pages.insert(page, Arc::clone(new)),
                    None => _ = self.durable.pages.remove(&page),
                }
            } else {
                cut.pages_lost += 1;
            }
        }
        let (before, after) = (self.durable.size, self.now.size);
        self.durable.size = match rng.random_range(0..3) {
            0 => before,
            1 => after,
            _ => rng.random_range(before.min(after)..=before.max(after)),
        };
        self.durable.cut_to(self.durable.size);
        self.now = self.durable.clone();
        self.dropped.clear();
    }

    fn touch(&mut self, page: u64) {
        self.dropped.remove(&page);
        self.unsynced.insert(page);
    }
}

impl Content {
    fn cut_to(&mut self, size: u64) {
        self.size = size;
        self.pages.split_off(&size.div_ceil(PAGE));
        // Behind the end are zeros, for when it grows again.
        let used = (size % PAGE) as usize;
        if used > 0
            && let Some(last) = self.pages.get_mut(&(size / PAGE))
            && last[used..].iter().any(|&byte| byte != 0)
        {
            Arc::make_mut(last)[used..].fill(0);
        }
    }
}

fn zeros() -> Page {
    Arc::new([0; PAGE as usize])
}
