//! ops/count_files: which count files were taken.

use super::commit::CommitRequest;
use super::log::Table;
use super::read::{longs as read_longs, micros, strings as read_strings};
use super::silver::{batches, longs, strings, times};
use super::storage::Lake;
use super::tables::TableName;
use anyhow::Result;
use deltalake::arrow::array::StringArray;
use futures::TryStreamExt;
use std::sync::Arc;

/// A count file that was taken, or refused for good.
#[derive(Debug, Clone)]
pub struct TakenFile {
    /// Its name in the folder.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When it was written to last, microseconds since 1970.
    pub modified: i64,
    /// Counts it held; 0 if it was refused.
    pub rows: u64,
    /// When it was taken.
    pub taken_at: i64,
    /// Why it was refused.
    pub error: Option<String>,
}

/// The table. Opened anew for each use: the loader is the only one who writes it.
#[derive(Debug, Clone)]
pub struct CountFileLog(Lake);

impl CountFileLog {
    /// The log of a lake.
    pub fn new(lake: Lake) -> Self {
        Self(lake)
    }

    /// Every file that was taken.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub async fn read(&self) -> Result<Vec<TakenFile>> {
        let table = Table::open_or_create(&self.0, TableName::CountFiles).await?;
        let mut files = Vec::new();
        let mut batches = std::pin::pin!(table.read_all(&["name", "size", "modified", "rows", "taken_at"]));
        while let Some(batch) = batches.try_next().await? {
            let (names, sizes, modified) = (read_strings(&batch, 0)?, read_longs(&batch, 1)?, micros(&batch, 2)?);
            let (rows, taken_at) = (read_longs(&batch, 3)?, micros(&batch, 4)?);
            for row in 0..batch.num_rows() {
                files.push(TakenFile {
                    name: names.value(row).to_owned(),
                    size: sizes[row] as u64,
                    modified: modified[row],
                    rows: rows[row] as u64,
                    taken_at: taken_at[row],
                    error: None,
                });
            }
        }
        Ok(files)
    }

    /// A file was taken.
    ///
    /// # Errors
    /// If storage fails.
    pub async fn append(&self, file: &TakenFile) -> Result<()> {
        let mut table = Table::open_or_create(&self.0, TableName::CountFiles).await?;
        let batches = batches(table.name(), std::slice::from_ref(file), |rows| {
            vec![
                strings(rows.iter().map(|f| f.name.as_str())),
                longs(rows.iter().map(|f| f.size as i64)),
                times(rows.iter().map(|f| f.modified)),
                longs(rows.iter().map(|f| f.rows as i64)),
                times(rows.iter().map(|f| f.taken_at)),
                Arc::new(rows.iter().map(|f| f.error.as_deref()).collect::<StringArray>()),
            ]
        })?;
        let adds = table.write(batches).await?;
        table.commit(CommitRequest::append(adds)).await?;
        Ok(())
    }
}
