//! The names in folders: what they are, what of it is durable, and what happened in between.

use std::collections::btree_map::{BTreeMap, Iter};
use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};

/// A name that now stands for something else, or for nothing.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) folder: u64,
    pub(super) name: OsString,
    pub(super) to: Option<u64>,
}

impl Change {
    pub(super) fn new(folder: u64, name: &OsStr, to: Option<u64>) -> Self {
        Self { folder, name: name.to_owned(), to }
    }
}

/// Changes that happen together or not at all.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) changes: Vec<Change>,
}

impl Operation {
    pub(super) fn targets(&self) -> impl Iterator<Item = u64> + '_ {
        self.changes.iter().filter_map(|change| change.to)
    }
}

/// Takes what a sync of `folder` makes durable: what happened in it, and what happened before in the folders that this led
/// to. (Otherwise a file that was created in one folder, renamed into another and synced there could have both names.)
pub(super) fn take_with_what_came_before(pending: &mut Vec<Operation>, folder: u64) -> Vec<Operation> {
    let mut folders = BTreeSet::from([folder]);
    let mut taken = HashSet::new();
    for (index, operation) in pending.iter().enumerate().rev() {
        if operation.changes.iter().any(|change| folders.contains(&change.folder)) {
            folders.extend(operation.changes.iter().map(|change| change.folder));
            taken.insert(index);
        }
    }
    let (synced, left): (Vec<_>, Vec<_>) =
        std::mem::take(pending).into_iter().enumerate().partition(|(index, _)| taken.contains(index));
    *pending = left.into_iter().map(|(_, operation)| operation).collect();
    synced.into_iter().map(|(_, operation)| operation).collect()
}

/// One folder's names.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    now: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
}

impl Names {
    pub(super) fn get(&self, name: &OsStr) -> Option<u64> {
        self.now.get(name).copied()
    }

    pub(super) fn iter(&self) -> Iter<'_, OsString, u64> {
        self.now.iter()
    }

    /// What anything here stands for, now or after a power cut.
    pub(super) fn targets(&self) -> impl Iterator<Item = u64> + '_ {
        self.now.values().chain(self.durable.values()).copied()
    }

    /// Returns what the name stood for.
    pub(super) fn set(&mut self, name: &OsStr, to: Option<u64>) -> Option<u64> {
        put(&mut self.now, name, to)
    }

    pub(super) fn settle(&mut self, name: &OsStr, to: Option<u64>) {
        put(&mut self.durable, name, to);
    }

    pub(super) fn forget_unsynced(&mut self) {
        self.now = self.durable.clone();
    }
}

fn put(names: &mut BTreeMap<OsString, u64>, name: &OsStr, to: Option<u64>) -> Option<u64> {
    match to {
        Some(ino) => names.insert(name.to_owned(), ino),
        None => names.remove(name),
    }
}
