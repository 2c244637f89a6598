//! ops/count_files: which count files were taken. A file is planned here as part of a batch, and taken once
//! silver/inventory_snapshot carries the batch's number, in the commit that brought its counts.

use super::commit::{CommitError, CommitRequest};
use super::log::Table;
use super::read::{longs as read_longs, micros, strings as read_strings};
use super::silver::{batches, longs, strings, times};
use super::storage::Lake;
use super::tables::TableName;
use anyhow::Result;
use deltalake::arrow::array::StringArray;
use futures::TryStreamExt;
use std::sync::Arc;

/// The application id whose version in silver/inventory_snapshot is the newest batch that has been taken.
pub const BATCH_ID: &str = "onhand/count-files";

/// A count file as part of a batch, or one that is refused for good.
#[derive(Debug, Clone)]
pub struct PlannedFile {
    /// The batch.
    pub batch: i64,
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

/// The table. Opened anew for each use: plans are few.
#[derive(Debug, Clone)]
pub struct CountFileLog(Lake);

impl CountFileLog {
    /// The log of a lake.
    pub fn new(lake: Lake) -> Self {
        Self(lake)
    }

    /// Tells name, size and time of every file that was taken; nothing is kept of them here, since there may be millions.
    /// Returns the newest batch, taken or not.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub async fn visit_taken(&self, mut visit: impl FnMut(&str, u64, i64)) -> Result<i64> {
        let mut counts = Table::open_or_create(&self.0, TableName::InventorySnapshot).await?;
        let newest_taken = counts.transaction_version(BATCH_ID).await?.unwrap_or(0);
        let table = Table::open_or_create(&self.0, TableName::CountFiles).await?;
        let mut newest = newest_taken;
        let mut batches = std::pin::pin!(table.read_all(&["batch", "name", "size", "modified"]));
        while let Some(rows) = batches.try_next().await? {
            let (numbers, names) = (read_longs(&rows, 0)?, read_strings(&rows, 1)?);
            let (sizes, modified) = (read_longs(&rows, 2)?, micros(&rows, 3)?);
            for row in 0..rows.num_rows() {
                newest = newest.max(numbers[row]);
                if numbers[row] <= newest_taken {
                    visit(names.value(row), sizes[row] as u64, modified[row]);
                }
            }
        }
        Ok(newest)
    }

    /// Files are planned. The application ids are those of whoever loads files, and `version` is above all before: another
    /// that loaded files before cannot go on.
    ///
    /// # Errors
    /// If storage fails, or another loads files now.
    pub async fn plan(&self, files: &[PlannedFile], app_ids: &[String], version: i64) -> Result<(), CommitError> {
        let mut table = Table::open_or_create(&self.0, TableName::CountFiles).await?;
        let batches = batches(table.name(), files, |rows| {
            vec![
                strings(rows.iter().map(|f| f.name.as_str())),
                longs(rows.iter().map(|f| f.size as i64)),
                times(rows.iter().map(|f| f.modified)),
                longs(rows.iter().map(|f| f.rows as i64)),
                times(rows.iter().map(|f| f.planned_at)),
                Arc::new(rows.iter().map(|f| f.error.as_deref()).collect::<StringArray>()),
                longs(rows.iter().map(|f| f.batch)),
            ]
        })?;
        let adds = table.write(batches).await?;
        table.commit(CommitRequest::append(adds).with_transactions(app_ids, version)).await?;
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
        let file = |batch: i64| PlannedFile {
            batch,
            name: format!("inventory_snapshot_{batch}"),
            size: 1,
            modified: 2,
            rows: 1,
            planned_at: 3,
            error: None,
        };
        let ids = ["p0".to_owned()];
        log.plan(&[file(1)], &ids, 1 << 32 | 1).await.unwrap();
        let mut counts = Table::open_or_create(&lake, TableName::InventorySnapshot).await.unwrap();
        counts.commit(CommitRequest::append(Vec::new()).with_notes([(BATCH_ID.to_owned(), 1)])).await.unwrap();
        log.plan(&[file(2)], &ids, 2 << 32 | 1).await.unwrap();
        let mut taken = Vec::new();
        let newest =
            log.visit_taken(|name, size, modified| taken.push((name.to_owned(), size, modified))).await.unwrap();
        assert_eq!((newest, taken), (2, vec![("inventory_snapshot_1".to_owned(), 1, 2)]));
        let refused = log.plan(&[file(3)], &ids, 1 << 32 | 2).await.unwrap_err();
        assert!(matches!(refused, CommitError::Fenced { .. }), "{refused}");
    }
}
