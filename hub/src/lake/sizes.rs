//! How large a lake's tables are.

use super::log::Table;
use super::retention::Retention;
use super::storage::Lake;
use super::tables::TableName;
use anyhow::Result;

/// A table's newest version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSize {
    /// Its path below the lake's root.
    pub table: &'static str,
    /// Its version.
    pub version: i64,
    /// Its rows.
    pub rows: u64,
    /// Its live files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Sizes of the tables that the lake at `root` has.
///
/// # Errors
/// If there is no lake, or a table cannot be read.
pub async fn sizes(root: &str) -> Result<Vec<TableSize>> {
    let lake = Lake::existing(root, Retention::default())?;
    let mut sizes = Vec::new();
    for name in TableName::ALL {
        if !lake.log_store(name)?.is_delta_table_location().await? {
            continue;
        }
        let table = Table::open(&lake, name).await?;
        sizes.push(TableSize {
            table: name.path(),
            version: table.version(),
            rows: table.row_count(),
            files: table.file_count(),
            bytes: table.live_files().map(|file| file.size).sum(),
        });
    }
    Ok(sizes)
}
