//! A late count needs a sum over silver, whose files others may have merged, and removed, since this hub last looked.

use crate::harness::{Harness, block_on};
use crate::model::Reference;
use onhand_common::{Count, Event, Line, Timestamp, TransId, Transaction};
use onhand_hub::actors::{ActorLimits, RecentChanges};
use onhand_hub::lake::TableName;
use onhand_hub::lake::upkeep::CompactionPolicy;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// 2021-01-01T00:00:00Z, microseconds.
const NEW_YEAR: i64 = 1_609_459_200_000_000;
const MINUTE: i64 = 60_000_000;

fn one<T: TryFrom<i64>>() -> T {
    T::try_from(1).ok().expect("1 is an id")
}

/// A hub whose silver has more changes of an item than it remembers, in several files, and then a count from before them.
async fn with_a_recount_due() -> Harness {
    let reference = Reference { stores: [(1, "a".to_owned())].into(), change_types: [(1, "sale".to_owned())].into() };
    let mut harness = Harness::start_within(ActorLimits::default(), 1, reference).await;
    for n in 0..RecentChanges::CAPACITY as i64 + 8 {
        let at = Timestamp::from_micros(NEW_YEAR + n * MINUTE).expect("a time");
        let id = TransId::new(&format!("t{n}")).expect("an id");
        let line = Line { item_id: one(), quantity: -1 };
        let transaction = Transaction::new(id, one(), at, one(), [line]).expect("a good transaction");
        harness.send(0, Event::Transaction(transaction)).await;
        if n % 10 == 0 {
            harness.silver_cut().await;
        }
    }
    let at = Timestamp::from_micros(NEW_YEAR + MINUTE).expect("a time");
    harness
        .send(
            0,
            Event::Count(Count { item_id: one(), employee_id: one(), store_id: one(), date_time: at, quantity: 90 }),
        )
        .await;
    harness.silver_cut().await;
    harness
}

/// Removes the files of a table that `kept` does not name.
fn remove_files(harness: &Harness, kept: &BTreeSet<PathBuf>) -> usize {
    let folder = harness.changes_folder();
    let mut removed = 0;
    for day in std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if day.ends_with("_delta_log") || !day.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(day).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if !kept.contains(&file) {
                std::fs::remove_file(file).expect("remove a file");
                removed += 1;
            }
        }
    }
    removed
}

#[test]
fn files_that_were_merged_and_removed_meanwhile_are_found_again() {
    block_on(async {
        let harness = with_a_recount_due().await;
        let mut other = harness.table(TableName::InventoryChange).await;
        let merged = other.compact(&CompactionPolicy { min_files: 2, ..CompactionPolicy::default() }).await;
        merged.expect("the files are merged");
        let folder = harness.changes_folder();
        let kept = other.live_files().map(|file| folder.join(file.path.as_ref())).collect();
        assert!(remove_files(&harness, &kept) > 1);
        harness.gold_cut().await;
        harness.compare().await.expect("the sum is right");
        harness.end().await;
    });
}

#[test]
fn a_hub_whose_stores_are_anothers_by_now_does_not_try_for_ever() {
    block_on(async {
        let mut harness = with_a_recount_due().await;
        assert!(remove_files(&harness, &BTreeSet::new()) > 1);
        harness.give_up_in_a_gold_cut().await;
    });
}
