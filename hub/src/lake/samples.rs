//! Rows for this module's tests.

use super::retention::Retention;
use super::storage::Lake;
use super::tables::TableName;
pub(crate) use deltalake::arrow::array::RecordBatch;
use deltalake::arrow::array::{
    ArrayRef, BinaryArray, Date32Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use std::sync::Arc;

/// 2021-01-01T00:00:00Z, microseconds.
pub(crate) const NEW_YEAR: i64 = 1_609_459_200_000_000;

pub(crate) fn lake() -> (tempfile::TempDir, Lake) {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(folder.path().join("a lake").to_str().unwrap(), Retention::default()).unwrap();
    (folder, lake)
}

pub(crate) fn ints(values: impl IntoIterator<Item = i32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values))
}

pub(crate) fn longs(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

pub(crate) fn texts<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

pub(crate) fn bytes(values: Vec<Option<&[u8]>>) -> ArrayRef {
    Arc::new(BinaryArray::from_opt_vec(values))
}

pub(crate) fn times(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}

pub(crate) fn batch(table: TableName, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(table.arrow_schema(), columns).unwrap()
}

/// A change: transaction, store, time, change type, item, quantity.
pub(crate) type Change<'a> = (&'a str, i32, i64, i32, i32, i32);

pub(crate) fn changes(rows: &[Change<'_>]) -> RecordBatch {
    let n = rows.len();
    let days = rows.iter().map(|r| i32::try_from(r.2.div_euclid(86_400_000_000)).unwrap());
    let columns = vec![
        texts(rows.iter().map(|r| r.0)),
        ints(rows.iter().map(|r| r.1)),
        times(rows.iter().map(|r| r.2)),
        ints(rows.iter().map(|r| r.3)),
        ints(rows.iter().map(|r| r.4)),
        ints(rows.iter().map(|r| r.5)),
        texts(vec!["agent"; n]),
        longs(vec![1; n]),
        longs(0..n as i64),
        Arc::new(Date32Array::from_iter_values(days)) as ArrayRef,
    ];
    batch(TableName::InventoryChange, columns)
}

/// Counts: store, item, time, quantity.
pub(crate) fn counts(rows: &[(i32, i32, i64, i32)]) -> RecordBatch {
    let columns = vec![
        ints(rows.iter().map(|r| r.1)),
        ints(rows.iter().map(|_| 7)),
        ints(rows.iter().map(|r| r.0)),
        times(rows.iter().map(|r| r.2)),
        ints(rows.iter().map(|r| r.3)),
        texts(rows.iter().map(|_| "agent")),
        longs(rows.iter().map(|_| 1)),
        longs(0..rows.len() as i64),
    ];
    batch(TableName::InventorySnapshot, columns)
}

/// Gold rows: store, item, counted, changed, time.
pub(crate) fn gold(rows: &[(i32, i32, i32, i64, i64)]) -> RecordBatch {
    let columns = vec![
        ints(rows.iter().map(|r| r.0)),
        ints(rows.iter().map(|r| r.1)),
        ints(rows.iter().map(|r| r.2)),
        longs(rows.iter().map(|r| r.3)),
        longs(rows.iter().map(|r| i64::from(r.2) + r.3)),
        times(rows.iter().map(|r| r.4)),
    ];
    batch(TableName::InventoryCurrent, columns)
}
