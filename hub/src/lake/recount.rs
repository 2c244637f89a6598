//! Sums of changes straight from silver, for items whose latest count came behind changes that nobody remembers.

use super::log::{LiveFile, Table};
use super::read::Wanted;
use super::silver::day;
use crate::actors::NEVER;
use crate::reference::Applicability;
use anyhow::Result;
use std::collections::{BTreeMap, HashMap};

/// Sum and newest time ([`NEVER`] if there is none) of the applicable changes of an item.
pub type Sum = (i64, i64);

/// Sums, for each wanted `(store, item)`, the applicable changes from its time on, over all of `table` (which is
/// silver/inventory_change). One pass over the files that can matter, whatever the number of items.
///
/// # Errors
/// If the table cannot be read.
pub async fn sum_changes(
    table: &Table,
    applicability: &Applicability,
    wanted: &HashMap<(i32, i32), i64>,
) -> Result<HashMap<(i32, i32), Sum>> {
    let mut sums: HashMap<(i32, i32), Sum> = HashMap::with_capacity(wanted.len());
    let earliest = earliest_by_store(wanted);
    let files: Vec<LiveFile> = table.live_files().filter(|file| may_hold_wanted(file, &earliest)).cloned().collect();
    let wanted_rows = Wanted { stores: earliest.into_keys().collect(), times: None };
    table
        .visit_changes(files, Some(wanted_rows), |row| {
            let key = (row.store_id, row.item_id);
            if wanted.get(&key).is_some_and(|&from| row.date_time >= from)
                && applicability.applies(row.store_id, row.change_type_id)
            {
                let sum = sums.entry(key).or_insert((0, NEVER));
                sum.0 += i64::from(row.quantity);
                sum.1 = sum.1.max(row.date_time);
            }
        })
        .await?;
    Ok(sums)
}

/// From when on each store's changes are wanted.
fn earliest_by_store(wanted: &HashMap<(i32, i32), i64>) -> BTreeMap<i32, i64> {
    let mut earliest = BTreeMap::new();
    for (&(store_id, _), &from) in wanted {
        let of_store = earliest.entry(store_id).or_insert(from);
        *of_store = from.min(*of_store);
    }
    earliest
}

/// Whether a file may have changes of one of the stores from its time on. A file that says nothing of itself may.
fn may_hold_wanted(file: &LiveFile, earliest: &BTreeMap<i32, i64>) -> bool {
    let (first, last) = file.store_id.unwrap_or((i32::MIN, i32::MAX));
    earliest.range(first..=last).any(|(_, &from)| {
        let of_day = |day_of_file: i64| from == NEVER || day_of_file >= i64::from(day(from));
        file.partition.is_none_or(of_day) && file.date_time.is_none_or(|(_, newest)| newest >= from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::CommitRequest;
    use crate::lake::samples::{NEW_YEAR, changes, lake};
    use crate::lake::tables::TableName;
    use onhand_common::{ChangeTypeId, ReferenceData, Store, StoreId};

    const DAY: i64 = 86_400_000_000;

    fn file(stores: Option<(i32, i32)>, partition: Option<i64>, date_time: Option<(i64, i64)>) -> LiveFile {
        LiveFile {
            path: "a file".into(),
            size: 1,
            partition,
            rows: 1,
            date_time,
            store_id: stores,
            added_version: 1,
            since_known: true,
            modified: 0,
        }
    }

    #[test]
    fn only_files_that_may_hold_what_is_wanted_are_read() {
        let today = i64::from(day(NEW_YEAR));
        let wanted = HashMap::from([((2, 10), NEW_YEAR + 60), ((2, 11), NEW_YEAR + 50), ((5, 10), NEVER)]);
        let earliest = earliest_by_store(&wanted);
        assert_eq!(earliest, BTreeMap::from([(2, NEW_YEAR + 50), (5, NEVER)]));
        let may = |stores, days, newest| {
            let times = Some((NEW_YEAR - DAY, NEW_YEAR + newest));
            may_hold_wanted(&file(Some(stores), Some(today + days), times), &earliest)
        };
        assert!(may((1, 3), 0, 50), "the newest may be the first that is wanted");
        assert!(!may((1, 3), 0, 49), "all before");
        assert!(!may((1, 3), -1, 50), "the day before");
        assert!(!may((3, 4), 0, 50) && !may((6, 9), 0, 50), "of other stores");
        assert!(may((5, 5), -400, 0) && may((4, 9), -400, 0), "all of its time");
        assert!(may_hold_wanted(&file(None, None, None), &earliest), "a file that says nothing of itself");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_applies_is_summed_from_its_items_time_on() {
        let (_folder, lake) = lake();
        let mut table = Table::open_or_create(&lake, TableName::InventoryChange).await.unwrap();
        for (n, store) in (0..40).zip([1, 2, 3, 4].into_iter().cycle()) {
            let id = format!("t{n}");
            let at = NEW_YEAR + n * DAY / 10;
            let rows = changes(&[(&id, store, at, 1, 10, -1), (&id, store, at, 1, 11, -100)]);
            let adds = table.write([rows]).await.unwrap();
            table.commit(CommitRequest::append(adds)).await.unwrap();
        }
        let wanted = HashMap::from([((2, 10), NEW_YEAR + 2 * DAY), ((4, 11), NEVER), ((9, 10), NEVER)]);
        let store = |id: i64| Store { store_id: StoreId::try_from(id).unwrap(), name: format!("store {id}") };
        let applicability = Applicability::new(&ReferenceData {
            stores: vec![store(2), store(4), store(9)],
            items: Vec::new(),
            change_types: vec![(ChangeTypeId::try_from(1_i64).unwrap(), "sale".to_owned())],
        });
        let sums = sum_changes(&table, &applicability, &wanted).await.unwrap();
        // Of store 2: the changes number 21, 25, 29, 33 and 37. Of store 4: ten, the last of them number 39.
        let of_two = ((2, 10), (-5, NEW_YEAR + 37 * DAY / 10));
        assert_eq!(sums, HashMap::from([of_two, ((4, 11), (-1_000, NEW_YEAR + 39 * DAY / 10))]));
    }
}
