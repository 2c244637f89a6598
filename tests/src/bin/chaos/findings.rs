//! What a run found wrong, and what it says on its way.

use super::upkeep::never_done;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Most findings that are kept: the first say enough.
const MOST: usize = 20;
/// Fewer damaged frames in a campaign say nothing.
const DAMAGE_THAT_SAYS_SOMETHING: u64 = 200;
/// One of so many damaged frames is in quarantine at least.
const QUARANTINED_OF: u64 = 3;
/// Lines of a finding that a summary shows.
const LINES_IN_SHORT: usize = 8;

/// Findings that many write. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Findings {
    began: Instant,
    list: Arc<Mutex<Vec<String>>>,
}

impl Findings {
    pub fn new() -> Self {
        Self { began: Instant::now(), list: Arc::default() }
    }

    /// Something is not as it must be.
    pub fn add(&self, what: String) {
        self.say(&format!("FOUND: {what}"));
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() < MOST {
            list.push(what);
        }
    }

    /// Says what happens, and when.
    pub fn say(&self, what: &str) {
        println!("{:7.2} {what}", self.began.elapsed().as_secs_f64());
    }

    /// All of them.
    pub fn list(&self) -> Vec<String> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a run tells those who made many.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Told {
    pub seed: u64,
    /// What was found; nothing if all is well.
    pub findings: Vec<String>,
    /// How often each kind of fault happened.
    pub faults: BTreeMap<String, u64>,
    /// How often each armed point was reached, by what happened there.
    pub points: BTreeMap<String, u64>,
    /// Answered with 200.
    pub documents: u64,
    pub lines: u64,
    pub counts: u64,
    /// Lines and counts that a disk lost before they were acknowledged.
    pub free: u64,
    /// Frames that were damaged on their way, and rows in quarantine.
    pub damaged: u64,
    pub quarantined: u64,
    /// Versions of gold that were compared with the rule: all there were.
    pub gold_versions: u64,
    /// Former ones among them that DuckDB judged, too.
    pub former_versions: u64,
    /// What upkeep did meanwhile.
    pub upkeep: BTreeMap<String, u64>,
    /// Versions of gold that a reader opened, kept, and read again; none where there was no reader.
    pub versions_read: u64,
    /// Rows of the API that were compared with gold's.
    pub api_rows: u64,
    /// The lake was made anew from bronze, and judged again.
    pub from_bronze: bool,
    /// Without rows that bronze lacked.
    pub bronze_lacks: bool,
    pub seconds: f64,
}

impl Told {
    /// The beginning of the first thing found, for who reads nothing else.
    pub fn in_short(&self) -> String {
        let lines = self.findings.first().map(String::as_str).unwrap_or_default().lines();
        lines.filter(|line| !line.is_empty()).take(LINES_IN_SHORT).collect::<Vec<_>>().join("\n  ")
    }

    /// Counts something.
    pub fn count(map: &mut BTreeMap<String, u64>, what: &str) {
        *map.entry(what.to_owned()).or_default() += 1;
    }
}

/// What is wrong with a campaign, whatever its runs found.
pub fn over_all(done: &[Told]) -> impl Iterator<Item = String> {
    too_few_in_quarantine(done).into_iter().chain(never_done(done))
}

/// What is wrong with what became of damaged frames, over a whole campaign. Of one run nothing can be said: a hub that dies
/// before its next commit forgets some.
fn too_few_in_quarantine(done: &[Told]) -> Option<String> {
    let sum = |of: fn(&Told) -> u64| done.iter().map(of).sum::<u64>();
    let (damaged, quarantined) = (sum(|told| told.damaged), sum(|told| told.quarantined));
    (damaged >= DAMAGE_THAT_SAYS_SOMETHING && quarantined < damaged / QUARANTINED_OF).then(|| {
        format!("{damaged} frames were damaged on their way and {quarantined} are in quarantine, fewer than a third")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_frames_are_in_quarantine_but_for_what_hubs_forgot() {
        let told = |damaged, quarantined| Told { damaged, quarantined, ..Told::default() };
        let found = |runs: &[Told]| too_few_in_quarantine(runs);
        assert_eq!(found(&[told(199, 0)]), None, "too little to say anything");
        assert_eq!(found(&[told(200, 0), told(100, 100)]), None, "it is a third of all");
        let why = found(&[told(200, 0), told(100, 99)]).unwrap();
        assert!(why.starts_with("300 frames were damaged") && why.contains("99 are in quarantine"), "{why}");
    }
}
