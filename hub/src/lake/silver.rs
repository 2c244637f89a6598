//! Rows into silver's and bronze's columns.

use super::tables::TableName;
use crate::rows::{BronzeRow, ChangeRow, CountRow, QuarantineRow};
use anyhow::{Context, Result};
use deltalake::arrow::array::{
    ArrayRef, BinaryArray, Date32Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use onhand_common::timestamp::MICROS_PER_DAY;
use std::sync::Arc;

/// Rows per batch that is handed to the writer.
const BATCH_ROWS: usize = 64 * 1024;

/// Batches of silver/inventory_change. Rows are grouped by day, the partition, and keep their order within it.
///
/// # Errors
/// Only if this code and the table's columns disagree.
pub fn changes(mut rows: Vec<&ChangeRow>) -> Result<Vec<RecordBatch>> {
    rows.sort_by_key(|row| day(row.date_time));
    batches(TableName::InventoryChange, &rows, |rows| {
        vec![
            strings(rows.iter().map(|r| &*r.trans_id)),
            ints(rows.iter().map(|r| r.store_id)),
            times(rows.iter().map(|r| r.date_time)),
            ints(rows.iter().map(|r| r.change_type_id)),
            ints(rows.iter().map(|r| r.item_id)),
            ints(rows.iter().map(|r| r.quantity)),
            strings(rows.iter().map(|r| &*r.source.agent_id)),
            longs(rows.iter().map(|r| r.source.epoch as i64)),
            longs(rows.iter().map(|r| r.seq as i64)),
            Arc::new(Date32Array::from_iter_values(rows.iter().map(|r| day(r.date_time)))),
        ]
    })
}

/// Batches of silver/inventory_snapshot, in the order of the rows: of two counts of one time, the later one wins.
///
/// # Errors
/// Only if this code and the table's columns disagree.
pub fn counts(rows: Vec<&CountRow>) -> Result<Vec<RecordBatch>> {
    batches(TableName::InventorySnapshot, &rows, |rows| {
        vec![
            ints(rows.iter().map(|r| r.item_id)),
            ints(rows.iter().map(|r| r.employee_id)),
            ints(rows.iter().map(|r| r.store_id)),
            times(rows.iter().map(|r| r.date_time)),
            ints(rows.iter().map(|r| r.quantity)),
            strings(rows.iter().map(|r| &*r.source.agent_id)),
            longs(rows.iter().map(|r| r.source.epoch as i64)),
            longs(rows.iter().map(|r| r.seq as i64)),
        ]
    })
}

/// Batches of bronze/raw_inventory_change.
///
/// # Errors
/// Only if this code and the table's columns disagree.
pub fn bronze(rows: &[BronzeRow]) -> Result<Vec<RecordBatch>> {
    batches(TableName::RawInventoryChange, &rows.iter().collect::<Vec<_>>(), |rows| {
        vec![
            Arc::new(BinaryArray::from_iter_values(rows.iter().map(|r| &r.key[..]))),
            Arc::new(BinaryArray::from_iter_values(rows.iter().map(|r| &r.value[..]))),
            strings(rows.iter().map(|r| r.topic.as_str())),
            ints(rows.iter().map(|r| r.partition)),
            longs(rows.iter().map(|r| r.offset)),
            times(rows.iter().map(|r| r.timestamp)),
            ints(rows.iter().map(|r| r.timestamp_type)),
        ]
    })
}

/// Batches of silver/quarantine.
///
/// # Errors
/// Only if this code and the table's columns disagree.
pub fn quarantine(rows: &[QuarantineRow]) -> Result<Vec<RecordBatch>> {
    batches(TableName::Quarantine, &rows.iter().collect::<Vec<_>>(), |rows| {
        vec![
            times(rows.iter().map(|r| r.received_at)),
            strings(rows.iter().map(|r| r.source.as_str())),
            strings(rows.iter().map(|r| r.reason.as_ref())),
            strings(rows.iter().map(|r| r.detail.as_str())),
            Arc::new(BinaryArray::from_iter_values(rows.iter().map(|r| &r.payload[..]))),
        ]
    })
}

/// Makes batches of `table` out of rows, column by column.
pub(super) fn batches<T>(
    table: TableName,
    rows: &[T],
    columns: impl Fn(&[T]) -> Vec<ArrayRef>,
) -> Result<Vec<RecordBatch>> {
    let batch = |rows| RecordBatch::try_new(table.arrow_schema(), columns(rows));
    rows.chunks(BATCH_ROWS).map(|rows| batch(rows).with_context(|| format!("make rows of {table}"))).collect()
}

pub(super) fn day(micros: i64) -> i32 {
    micros.div_euclid(MICROS_PER_DAY) as i32
}

pub(super) fn ints(values: impl ExactSizeIterator<Item = i32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values))
}

pub(super) fn longs(values: impl ExactSizeIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

pub(super) fn times(values: impl ExactSizeIterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}

pub(super) fn strings<'a>(values: impl ExactSizeIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}
