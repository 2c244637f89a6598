//! ops/event_log: one row per commit cycle that committed anything.

use super::commit::CommitRequest;
use super::log::Table;
use super::silver::{batches, ints, longs, strings, times};
use crate::reference::Applicability;
use crate::rows::ChangeRow;
use anyhow::Result;
use deltalake::arrow::array::StringArray;
use serde::Serialize;
use std::sync::Arc;

/// A row of ops/event_log.
#[derive(Debug, Clone, Default)]
pub struct CycleRow {
    /// When the cycle began, microseconds since 1970.
    pub started_at: i64,
    /// When it ended.
    pub finished_at: i64,
    /// `silver`, or `gold` if gold was written too, or `restatement` if the reference data changed.
    pub kind: &'static str,
    /// Rows appended to the silver tables.
    pub rows_appended: i64,
    /// Rows written to gold.
    pub rows_replaced: i64,
    /// Stores that were touched.
    pub stores: i32,
    /// Version of silver/inventory_change afterwards.
    pub silver_version: i64,
    /// Version of gold/inventory_current afterwards.
    pub gold_version: i64,
    /// Lines and counts that had been taken before, since the cycle before.
    pub duplicates: i64,
    /// Rows put into quarantine.
    pub quarantined: i64,
    /// What the new rows were checked for.
    pub expectations: Expectations,
    /// What went wrong.
    pub error: Option<String>,
}

/// How many of the new changes did not meet what one expects. None of them is dropped.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Expectations {
    /// Their store is not in the reference data.
    pub unknown_store: u64,
    /// Their change type is not in the reference data.
    pub unknown_change_type: u64,
    /// They change nothing.
    pub zero_quantity: u64,
}

impl Expectations {
    /// Checks a row.
    pub fn check(&mut self, row: &ChangeRow, applicability: &Applicability) {
        self.unknown_store += u64::from(!applicability.knows_store(row.store_id));
        self.unknown_change_type += u64::from(!applicability.knows_change_type(row.change_type_id));
        self.zero_quantity += u64::from(row.quantity == 0);
    }
}

/// A commit that appends rows.
///
/// # Errors
/// If storage fails.
pub async fn append(table: &Table, rows: &[CycleRow]) -> Result<CommitRequest> {
    let batches = batches(table.name(), rows, |rows| {
        let expectations: Vec<String> =
            rows.iter().map(|r| serde_json::to_string(&r.expectations).expect("numbers encode")).collect();
        vec![
            times(rows.iter().map(|r| r.started_at)),
            times(rows.iter().map(|r| r.finished_at)),
            strings(rows.iter().map(|r| r.kind)),
            longs(rows.iter().map(|r| r.rows_appended)),
            longs(rows.iter().map(|r| r.rows_replaced)),
            ints(rows.iter().map(|r| r.stores)),
            longs(rows.iter().map(|r| r.silver_version)),
            longs(rows.iter().map(|r| r.gold_version)),
            longs(rows.iter().map(|r| r.duplicates)),
            longs(rows.iter().map(|r| r.quarantined)),
            strings(expectations.iter().map(String::as_str)),
            Arc::new(rows.iter().map(|r| r.error.as_deref()).collect::<StringArray>()),
        ]
    })?;
    Ok(CommitRequest::append(table.write(batches).await?))
}
