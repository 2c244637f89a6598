//! Sums of changes straight from silver, for items whose latest count came behind changes that nobody remembers.

use super::log::{LiveFile, Table};
use super::silver::day;
use crate::actors::NEVER;
use crate::reference::Applicability;
use anyhow::Result;
use std::collections::HashMap;

/// Sum and newest time ([`NEVER`] if there is none) of the applicable changes of an item.
pub type Sum = (i64, i64);

/// Sums, for each wanted `(store, item)`, the applicable changes from its time on, over all of `table` (which is
/// silver/inventory_change). One pass over the days that can matter, whatever the number of items.
///
/// # Errors
/// If the table cannot be read.
pub async fn sum_changes(
    table: &Table,
    applicability: &Applicability,
    wanted: &HashMap<(i32, i32), i64>,
) -> Result<HashMap<(i32, i32), Sum>> {
    let mut sums: HashMap<(i32, i32), Sum> = HashMap::with_capacity(wanted.len());
    let Some(&earliest) = wanted.values().min() else { return Ok(sums) };
    let first_day = if earliest == NEVER { i64::MIN } else { i64::from(day(earliest)) };
    let files: Vec<LiveFile> = table
        .live_files()
        .filter(|file| file.partition.is_none_or(|day| day >= first_day))
        .filter(|file| file.date_time.is_none_or(|(_, newest)| newest >= earliest))
        .cloned()
        .collect();
    table
        .visit_changes(files, |row| {
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
