//! What upkeep did to silver and gold while the run went on, as the tables' logs tell it.

use super::findings::Told;
use super::keeper::{KEPT, entry_version, files_below};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

const COMPACTIONS: &str = "compactions";
const CHECKPOINTS: &str = "checkpoints";
/// Of tables; what no commit had named is not told by a log.
const VACUUMED: &str = "data files vacuumed";
/// Of fewer runs, all may lie in a lake that keeps its old files for long.
const RUNS_THAT_SAY_SOMETHING: usize = 20;

/// Counts it, of a lake and one that has everything which the first ever had.
pub fn count(lake: &Path, whole: &Path) -> BTreeMap<String, u64> {
    let mut done = [COMPACTIONS, CHECKPOINTS, VACUUMED].map(|what| (what.to_owned(), 0)).into();
    for file in KEPT.iter().flat_map(|folder| files_below(whole, Path::new(folder))) {
        if file.to_string_lossy().ends_with(".checkpoint.parquet") {
            Told::count(&mut done, CHECKPOINTS);
        }
        if entry_version(&file).is_none() {
            continue;
        }
        let table = file.parent().and_then(Path::parent).expect("an entry lies in the log of a table");
        let text = std::fs::read_to_string(whole.join(&file)).expect("it was listed");
        for action in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_default()) {
            if action["commitInfo"]["operation"] == "OPTIMIZE" {
                Told::count(&mut done, COMPACTIONS);
            }
            // What an entry names was there; a power cut takes both.
            if action["add"]["path"].as_str().is_some_and(|path| !lake.join(table).join(path).exists()) {
                Told::count(&mut done, VACUUMED);
            }
        }
    }
    done
}

/// What upkeep never did in a whole campaign: then that says nothing of upkeep under fire.
pub fn never_done(done: &[Told]) -> Option<String> {
    let never = [COMPACTIONS, CHECKPOINTS, VACUUMED]
        .into_iter()
        .filter(|&what| done.iter().all(|told| told.upkeep.get(what).is_none_or(|&times| times == 0)));
    let never: Vec<&str> = never.collect();
    (done.len() >= RUNS_THAT_SAY_SOMETHING && !never.is_empty())
        .then(|| format!("in {} runs upkeep did nothing of: {}", done.len(), never.join(", ")))
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
        let once = [COMPACTIONS, CHECKPOINTS, VACUUMED].map(|what| (what.to_owned(), 1)).into();
        assert_eq!(done, once);
    }

    #[test]
    fn a_campaign_without_upkeep_says_so() {
        let idle = Told { upkeep: [(COMPACTIONS.to_owned(), 1), (VACUUMED.to_owned(), 0)].into(), ..Told::default() };
        assert_eq!(never_done(&vec![idle.clone(); RUNS_THAT_SAY_SOMETHING - 1]), None);
        let why = never_done(&vec![idle; RUNS_THAT_SAY_SOMETHING]).unwrap();
        assert!(why.ends_with("nothing of: checkpoints, data files vacuumed"), "{why}");
    }
}
