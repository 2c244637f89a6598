//! Folders that are still there after a power cut.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Creates `folder` and what is missing above it, and makes the names durable: an entry lies in the folder above, which has
/// to be synced for it. A folder that is there already is synced into the one above too, since nobody knows whether
/// whoever created it got that far.
///
/// # Errors
/// Whatever the file system reports.
pub(crate) fn create_durably(folder: &Path) -> io::Result<()> {
    let to_sync = holders(folder);
    fs::create_dir_all(folder)?;
    to_sync.iter().try_for_each(|holder| File::open(holder)?.sync_all())
}

/// The folders that hold `folder` and each missing one above it, the nearest first.
fn holders(folder: &Path) -> Vec<PathBuf> {
    let mut holders = Vec::new();
    let mut held = folder;
    while let Some(parent) = held.parent() {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        holders.push(parent.to_owned());
        if parent.exists() {
            break;
        }
        held = parent;
    }
    holders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_that_gets_a_new_entry_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let deep = root.join("a").join("b").join("data");
        assert_eq!(holders(&deep), [root.join("a").join("b"), root.join("a"), root.to_owned()]);
        create_durably(&deep).unwrap();
        assert!(deep.is_dir());
        assert_eq!(holders(&deep), [root.join("a").join("b")], "also when it is there");
        create_durably(&deep).unwrap();
        assert_eq!(holders(Path::new("data")), [Path::new(".")]);
        fs::write(root.join("file"), "").unwrap();
        assert!(create_durably(&root.join("file").join("data")).is_err());
    }
}
