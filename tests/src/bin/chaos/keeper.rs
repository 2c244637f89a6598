//! Keeps what upkeep deletes, so that every version of gold can be compared in the end, also where old files go during the run.
//!
//! It looks at the lake again and again, and links (from a disk of its own: copies) each file of silver and gold that it has not
//! seen. A file that came and went between two looks would be missed; the audit would find its version not compared.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// Time between two looks. The shortest retention of a run is 8 s.
const LOOK: Duration = Duration::from_millis(150);
/// Folders of the lake whose history is kept. (bronze has no part in the rule, ops none in gold.)
pub const KEPT: [&str; 2] = ["silver", "gold"];

/// See the module.
pub struct Keeper {
    lake: PathBuf,
    kept: PathBuf,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Begins to keep, in a folder beside the lake.
    pub fn start(lake: &Path, kept: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (from, to, stopped) = (lake.to_owned(), kept.clone(), Arc::clone(&stop));
        let work = move || {
            let mut seen = Seen::new();
            loop {
                let last = stopped.load(SeqCst);
                keep_new(&from, &to, &mut seen);
                if last {
                    return;
                }
                std::thread::sleep(LOOK);
            }
        };
        let thread = std::thread::Builder::new().name("keeper".to_owned()).spawn(work).expect("a thread");
        Self { lake: lake.to_owned(), kept, stop, thread }
    }

    /// Makes a lake that has everything which this one ever had in silver and gold.
    ///
    /// # Errors
    /// If a file of the lake cannot be read.
    pub fn whole(self, whole: &Path) -> io::Result<()> {
        self.stop.store(true, SeqCst);
        self.thread.join().expect("the keeper did not panic");
        for folder in ["silver", "gold", "ops"] {
            for file in files_below(&self.lake, Path::new(folder)) {
                give(&self.lake.join(&file), &whole.join(&file))?;
            }
        }
        for file in KEPT.iter().flat_map(|folder| files_below(&self.kept, Path::new(folder))) {
            let there = whole.join(&file);
            // Of a log only what lies before the lake's own: what a power cut took away at its end has not happened.
            let in_lake = self.lake.join(&file);
            if !there.exists() && entry_version(&file).is_none_or(|version| is_before_all(version, &in_lake)) {
                give(&self.kept.join(&file), &there)?;
            }
        }
        Ok(())
    }
}

/// Files that are kept; of log entries, as they were when.
type Seen = BTreeMap<PathBuf, Option<SystemTime>>;

fn keep_new(lake: &Path, kept: &Path, seen: &mut Seen) {
    for file in KEPT.iter().flat_map(|folder| files_below(lake, Path::new(folder))) {
        let (there, copy) = (lake.join(&file), kept.join(&file));
        // A power cut may take an entry away, and another one get its name.
        let written = entry_version(&file).and_then(|_| fs::metadata(&there).ok()?.modified().ok());
        if seen.get(&file) == Some(&written) {
            continue;
        }
        let _ = fs::remove_file(&copy);
        // What is gone already, or on a disk that has trouble, is tried again as long as it is listed.
        if give(&there, &copy).is_ok() {
            seen.insert(file, written);
        }
    }
}

/// Finished files below a folder of `root`, relative to `root`.
pub fn files_below(root: &Path, folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
        let path = folder.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(files_below(root, &path)),
            Ok(_) if is_finished(&entry.file_name()) => files.push(path),
            _ => {}
        }
    }
    files
}

/// What is being written has a `#` in its name, and gets another. The hint at the newest checkpoint changes, and is not needed.
fn is_finished(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    !name.contains('#') && (name.ends_with(".parquet") || name.ends_with(".json"))
}

fn give(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to.parent().expect("a file lies in a folder"))?;
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            fs::copy(from, to).map(drop).inspect_err(|_| drop(fs::remove_file(to)))
        }
        linked => linked,
    }
}

/// The version of a log entry. (Of a checkpoint: none. It is one more way to say what entries say.)
pub fn entry_version(file: &Path) -> Option<u64> {
    let in_log = file.parent().is_some_and(|folder| folder.ends_with("_delta_log"));
    in_log.then(|| file.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok()).flatten()
}

fn is_before_all(version: u64, entry: &Path) -> bool {
    let log = entry.parent().expect("an entry lies in a log");
    let others = fs::read_dir(log).into_iter().flatten().flatten();
    others.filter_map(|other| entry_version(&other.path())).all(|other| other > version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_deleted_is_in_the_whole_lake_and_what_a_power_cut_took_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (lake, kept, whole) = (folder.path().join("lake"), folder.path().join("kept"), folder.path().join("whole"));
        let write = |name: &str, text: &str| {
            let path = lake.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let entry = |version: u64| format!("gold/inventory_current/_delta_log/{version:020}.json");
        (0..4).for_each(|version| write(&entry(version), "first"));
        write("gold/inventory_current/store_id=1/a.parquet", "rows");
        write("gold/inventory_current/store_id=1/b.parquet#1", "half");
        let mut seen = Seen::new();
        keep_new(&lake, &kept, &mut seen);
        assert_eq!(seen.len(), 5);
        // The lake's log begins with a checkpoint, of which the entry is gone.
        write(&format!("gold/inventory_current/_delta_log/{:020}.checkpoint.parquet", 1), "state");
        fs::remove_file(lake.join(entry(1))).unwrap();
        for gone in [entry(0), entry(3), "gold/inventory_current/store_id=1/a.parquet".to_owned()] {
            fs::remove_file(lake.join(gone)).unwrap();
        }
        fs::remove_file(lake.join(entry(2))).unwrap();
        write(&entry(2), "then");
        Keeper::start(&lake, kept).whole(&whole).unwrap();
        let read = |name: &str| fs::read_to_string(whole.join(name)).ok();
        assert_eq!(read(&entry(0)).as_deref(), Some("first"));
        assert_eq!(read(&entry(1)).as_deref(), Some("first"));
        assert_eq!(read(&entry(2)).as_deref(), Some("then"));
        assert_eq!(read(&entry(3)), None);
        assert_eq!(read("gold/inventory_current/store_id=1/a.parquet").as_deref(), Some("rows"));
    }
}
