//! A demo's data folder: one demo at a time works in it, and always with the same dataset.

use anyhow::{Context, bail};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// The folder, in the data folder, of a dataset that the demo made itself.
pub const GENERATED: &str = "dataset";
/// Locked while a demo runs.
const LOCK: &str = "demo.lock";
/// Holds the path of the dataset that the data folder was made of; a relative one is below the data folder.
const SOURCE: &str = "demo.dataset";

/// Keeps other demos out of the folder as long as the file is held.
///
/// # Errors
/// Says that another demo uses the folder.
pub fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join(LOCK);
    let file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("{} is in use by another demo", data.display()),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

/// Refuses a dataset other than the one that the folder was made of, if it was made of one.
///
/// # Errors
/// Names both.
pub fn check_source(data: &Path, dataset: &Path) -> anyhow::Result<()> {
    let path = data.join(SOURCE);
    let noted = match fs::read_to_string(&path) {
        Ok(text) => Some(data.join(text.trim_end_matches('\n'))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let generated = || Some(data.join(GENERATED)).filter(|dir| dir.exists());
    match noted.or_else(generated) {
        Some(there) if there != dataset => bail!(
            "{} was made of the dataset in {}, not of {}: name another --data",
            data.display(),
            there.display(),
            dataset.display()
        ),
        _ => Ok(()),
    }
}

/// Writes down of which dataset the folder is made.
///
/// # Errors
/// Reports what the disk reports.
pub fn note_source(data: &Path, dataset: &Path) -> anyhow::Result<()> {
    let path: PathBuf = data.join(SOURCE);
    let dataset = dataset.strip_prefix(data).unwrap_or(dataset);
    let text = dataset.to_str().with_context(|| format!("{} is no UTF-8", dataset.display()))?;
    fs::write(&path, format!("{text}\n")).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_demo_s_at_a_time() {
        let data = tempfile::tempdir().unwrap();
        let first = lock(data.path()).unwrap();
        let refused = lock(data.path()).unwrap_err().to_string();
        assert!(refused.ends_with("is in use by another demo"), "{refused}");
        drop(first);
        lock(data.path()).unwrap();
    }

    #[test]
    fn a_folder_stays_with_its_dataset() {
        let data = tempfile::tempdir().unwrap();
        let (own, other) = (data.path().join(GENERATED), Path::new("/elsewhere"));
        check_source(data.path(), other).unwrap();
        note_source(data.path(), other).unwrap();
        check_source(data.path(), other).unwrap();
        let refused = check_source(data.path(), &own).unwrap_err().to_string();
        assert!(refused.contains("/elsewhere") && refused.contains("--data"), "{refused}");

        note_source(data.path(), &own).unwrap();
        check_source(data.path(), &own).unwrap();
        assert!(check_source(data.path(), other).is_err());
        // Also where nothing was written down yet.
        fs::remove_file(data.path().join(SOURCE)).unwrap();
        fs::create_dir(&own).unwrap();
        check_source(data.path(), &own).unwrap();
        assert!(check_source(data.path(), other).is_err());
    }
}
