//! What upkeep did to silver and gold while the run went on, as the tables' logs tell it.

use super::findings::Told;
use super::keeper::{KEPT, entry_version, files_below};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

const COMPACTED: &str = "tables compacted";
const CHECKPOINTS: &str = "checkpoints written";
const VACUUMED: &str = "data files vacuumed";

/// Counts it, of a lake and one that has everything which the first ever had.
pub fn count(lake: &Path, whole: &Path) -> BTreeMap<String, u64> {
    let mut done = [COMPACTED, CHECKPOINTS, VACUUMED].map(|what| (what.to_owned(), 0)).into();
    for file in KEPT.iter().flat_map(|folder| files_below(whole, Path::new(folder))) {
        if file.to_string_lossy().ends_with(".checkpoint.parquet") {
            Told::count(&mut done, CHECKPOINTS);
        }
        if entry_version(&file).is_none() {
            continue;
        }
        let table = file.parent().and_then(Path::parent).expect("an entry lies in the log of a table");
        let text = std::fs::read_to_string(whole.join(&file)).unwrap_or_default();
        for action in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if action["commitInfo"]["operation"] == "OPTIMIZE" {
                Told::count(&mut done, COMPACTED);
            }
            // What an entry names was there; a power cut takes both.
            if action["add"]["path"].as_str().is_some_and(|path| !lake.join(table).join(path).exists()) {
                Told::count(&mut done, VACUUMED);
            }
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_upkeep_did_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (lake, whole) = (folder.path().join("lake"), folder.path().join("whole"));
        let write = |root: &Path, name: &str, text: &str| {
            let path = root.join("gold/inventory_current").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let written = r#"{"add":{"path":"store_id=1/a.parquet"}}"#;
        let merged = "{\"commitInfo\":{\"operation\":\"OPTIMIZE\"}}\n{\"add\":{\"path\":\"store_id=1/b.parquet\"}}\n";
        write(&whole, "_delta_log/00000000000000000000.json", written);
        write(&whole, "_delta_log/00000000000000000001.json", merged);
        write(&whole, "_delta_log/00000000000000000001.checkpoint.parquet", "");
        write(&lake, "store_id=1/b.parquet", "");
        let done = count(&lake, &whole);
        assert_eq!(
            done,
            [(COMPACTED, 1), (CHECKPOINTS, 1), (VACUUMED, 1)].map(|(what, times)| (what.to_owned(), times)).into()
        );
    }
}
