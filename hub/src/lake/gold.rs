//! What is written per store, copy-on-write: gold/inventory_current, the latest counts, the uncounted items.
//!
//! A store's rows are replaced as a whole: its files go, its new file comes, in one commit. Cost follows the stores that
//! changed, whatever the number of stores there are.

use super::commit::CommitRequest;
use super::log::{LiveFile, Table};
use super::silver::{batches, ints, longs, times};
use super::tables::TableName;
use crate::actors::NEVER;
use crate::rows::{GoldRow, LatestRow, UncountedRow};
use anyhow::Result;
use deltalake::arrow::array::{RecordBatch, TimestampMicrosecondArray};
use std::sync::Arc;

/// The rows of some stores, each with all its rows (none, if it has none).
pub type PerStore<T> = Vec<(i32, Vec<T>)>;

/// A commit that gives stores new rows of gold/inventory_current.
///
/// # Errors
/// If storage fails.
pub async fn replace_gold(table: &Table, stores: &PerStore<GoldRow>) -> Result<CommitRequest> {
    replace(table, stores, |rows: &[(i32, GoldRow)]| {
        vec![
            ints(rows.iter().map(|(store_id, _)| *store_id)),
            ints(rows.iter().map(|(_, r)| r.item_id)),
            ints(rows.iter().map(|(_, r)| r.snapshot_quantity)),
            longs(rows.iter().map(|(_, r)| r.change_quantity)),
            longs(rows.iter().map(|(_, r)| i64::from(r.snapshot_quantity) + r.change_quantity)),
            times(rows.iter().map(|(_, r)| r.date_time)),
        ]
    })
    .await
}

/// A commit that gives stores new rows of silver/latest_inventory_snapshot.
///
/// # Errors
/// If storage fails.
pub async fn replace_latest(table: &Table, stores: &PerStore<LatestRow>) -> Result<CommitRequest> {
    replace(table, stores, |rows: &[(i32, LatestRow)]| {
        vec![
            ints(rows.iter().map(|(store_id, _)| *store_id)),
            ints(rows.iter().map(|(_, r)| r.item_id)),
            ints(rows.iter().map(|(_, r)| r.employee_id)),
            times(rows.iter().map(|(_, r)| r.date_time)),
            ints(rows.iter().map(|(_, r)| r.quantity)),
        ]
    })
    .await
}

/// A commit that gives stores new rows of ops/uncounted_inventory.
///
/// # Errors
/// If storage fails.
pub async fn replace_uncounted(table: &Table, stores: &PerStore<UncountedRow>) -> Result<CommitRequest> {
    replace(table, stores, |rows: &[(i32, UncountedRow)]| {
        let newest = rows.iter().map(|(_, r)| (r.date_time != NEVER).then_some(r.date_time));
        vec![
            ints(rows.iter().map(|(store_id, _)| *store_id)),
            ints(rows.iter().map(|(_, r)| r.item_id)),
            longs(rows.iter().map(|(_, r)| r.change_quantity)),
            Arc::new(newest.collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        ]
    })
    .await
}

async fn replace<T: Copy>(
    table: &Table,
    stores: &PerStore<T>,
    columns: impl Fn(&[(i32, T)]) -> Vec<deltalake::arrow::array::ArrayRef>,
) -> Result<CommitRequest> {
    let removes: Vec<LiveFile> =
        stores.iter().flat_map(|(store_id, _)| table.files_of_partition(i64::from(*store_id)).cloned()).collect();
    let name: TableName = table.name();
    let rows: Vec<(i32, T)> = stores.iter().flat_map(|(id, rows)| rows.iter().map(|row| (*id, *row))).collect();
    let batches: Vec<RecordBatch> = batches(name, &rows, columns)?;
    Ok(CommitRequest::replace(removes, table.write(batches).await?))
}
