//! ops/count_files: which count files were taken. A file is planned here as part of a batch, and taken once
//! silver/inventory_snapshot carries the batch's number, in the commit that brought its counts (before Kafka, in one after Kafka had them).

use super::commit::{CommitError, CommitRequest};
use super::log::Table;
use super::read::{longs as read_longs, micros, strings as read_strings};
use super::silver::{batches, longs, strings, times};
use super::storage::Lake;
use super::tables::TableName;
use anyhow::Result;
use deltalake::arrow::array::StringArray;
use futures::TryStreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The application id whose version in silver/inventory_snapshot is the newest batch that has been taken.
pub const BATCH_ID: &str = "onhand/count-files";

/// A count file as part of a batch, or one that is refused for good.
#[derive(Debug, Clone)]
pub struct PlannedFile {
    /// The batch.
    pub batch: i64,
    /// The newest batch that had been taken when this one was planned; 0 if none had.
    pub after: i64,
    /// Its name in the folder.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When it was written to last, microseconds since 1970.
    pub modified: i64,
    /// Counts it holds; 0 if it was refused.
    pub rows: u64,
    /// When it was planned.
    pub planned_at: i64,
    /// Why it was refused.
    pub error: Option<String>,
}

/// What the log says.
#[derive(Debug, PartialEq, Eq)]
pub struct Known<T> {
    /// What stands for each file that was taken.
    pub taken: Vec<T>,
    /// The newest batch that was taken; 0: none.
    pub newest_taken: i64,
    /// The newest batch, taken or not.
    pub newest: i64,
}

/// The table, by its lake.
#[derive(Debug, Clone)]
pub struct CountFileLog(Lake);

impl CountFileLog {
    /// The log of a lake.
    pub fn new(lake: Lake) -> Self {
        Self(lake)
    }

    /// What is known: files that were taken by what `stands_for` makes of name, size and time, since there may be millions.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub async fn read<T>(&self, stands_for: impl Fn(&str, u64, i64) -> T) -> Result<Known<T>> {
        let mut counts = Table::open_or_create(&self.0, TableName::InventorySnapshot).await?;
        let newest_taken = counts.transaction_version(BATCH_ID).await?.unwrap_or(0);
        let table = Table::open_or_create(&self.0, TableName::CountFiles).await?;
        let mut batches: BTreeMap<i64, (i64, Vec<T>)> = BTreeMap::new();
        let mut rows = std::pin::pin!(table.read_all(&["batch", "after", "name", "size", "modified"]));
        while let Some(rows) = rows.try_next().await? {
            let (numbers, after) = (read_longs(&rows, 0)?, read_longs(&rows, 1)?);
            let (names, sizes, modified) = (read_strings(&rows, 2)?, read_longs(&rows, 3)?, micros(&rows, 4)?);
            for row in 0..rows.num_rows() {
                let batch = batches.entry(numbers[row]).or_insert_with(|| (after[row], Vec::new()));
                batch.1.push(stands_for(names.value(row), sizes[row] as u64, modified[row]));
            }
        }
        let newest_planned = batches.keys().next_back().copied().unwrap_or(0);
        let mut known = Known { taken: Vec::new(), newest_taken, newest: newest_taken.max(newest_planned) };
        // From each batch that was taken to the one before it: in between are those that were planned and given up.
        let mut next = newest_taken;
        while let Some((after, files)) = batches.remove(&next) {
            known.taken.extend(files);
            next = after;
        }
        Ok(known)
    }

    /// Opens the table for plans.
    ///
    /// # Errors
    /// If it cannot be read or created.
    pub async fn planner(&self) -> Result<Planner> {
        Ok(Planner(Table::open_or_create(&self.0, TableName::CountFiles).await?))
    }
}

/// The table, open for plans.
pub struct Planner(Table);

impl Planner {
    /// Files are planned. The application ids are those of whoever loads files, and `version` is above all before: another
    /// that loaded files before cannot go on.
    ///
    /// # Errors
    /// If storage fails, or another loads files now.
    pub async fn plan(&mut self, files: &[PlannedFile], app_ids: &[String], version: i64) -> Result<(), CommitError> {
        let batches = batches(self.0.name(), files, |rows| {
            vec![
                strings(rows.iter().map(|f| f.name.as_str())),
                longs(rows.iter().map(|f| f.size as i64)),
                times(rows.iter().map(|f| f.modified)),
                longs(rows.iter().map(|f| f.rows as i64)),
                times(rows.iter().map(|f| f.planned_at)),
                Arc::new(rows.iter().map(|f| f.error.as_deref()).collect::<StringArray>()),
                longs(rows.iter().map(|f| f.batch)),
                longs(rows.iter().map(|f| f.after)),
            ]
        })?;
        let adds = self.0.write(batches).await?;
        self.0.commit(CommitRequest::append(adds).with_transactions(app_ids, version)).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::samples::lake;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_batch_is_taken_once_silver_says_so_and_a_former_loader_is_refused() {
        let (_folder, lake) = lake();
        let log = CountFileLog::new(lake.clone());
        let mut planner = log.planner().await.unwrap();
        let file = |batch: i64, after: i64, name: &str| PlannedFile {
            batch,
            after,
            name: name.to_owned(),
            size: 1,
            modified: 2,
            rows: 1,
            planned_at: 3,
            error: None,
        };
        let take = async |batch: i64| {
            let mut counts = Table::open_or_create(&lake, TableName::InventorySnapshot).await.unwrap();
            counts.commit(CommitRequest::append(Vec::new()).with_notes([(BATCH_ID.to_owned(), batch)])).await.unwrap();
        };
        let read = async || log.read(|name, size, modified| (name.to_owned(), size, modified)).await.unwrap();
        let ids = ["p0".to_owned()];
        planner.plan(&[file(1, 0, "a")], &ids, 1 << 32 | 1).await.unwrap();
        take(1).await;
        planner.plan(&[file(2, 1, "b"), file(2, 1, "c")], &ids, 2 << 32 | 1).await.unwrap();
        let a = ("a".to_owned(), 1, 2);
        assert_eq!(read().await, Known { taken: vec![a.clone()], newest_taken: 1, newest: 2 });
        // The second batch was given up: whoever came next could not read c.
        planner.plan(&[file(3, 1, "b")], &ids, 3 << 32 | 1).await.unwrap();
        take(3).await;
        assert_eq!(read().await, Known { taken: vec![("b".to_owned(), 1, 2), a], newest_taken: 3, newest: 3 });
        let refused = planner.plan(&[file(4, 3, "d")], &ids, 2 << 32 | 2).await.unwrap_err();
        assert!(matches!(refused, CommitError::Fenced { .. }), "{refused}");
    }
}
