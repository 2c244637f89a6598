//! The rows of silver/quarantine, read one by one: they may be many, and each may hold a frame.

use super::log::Table;
use super::read::{micros, strings};
use super::storage::Lake;
use super::tables::TableName;
use crate::rows::QuarantineRow;
use anyhow::{Context, Result};
use deltalake::arrow::array::{Array, AsArray};
use futures::TryStreamExt;

/// Calls `visit` with every row, the oldest file first.
///
/// # Errors
/// If the table cannot be read, or `visit` fails.
pub async fn visit_quarantined(lake: &Lake, mut visit: impl FnMut(QuarantineRow) -> Result<()>) -> Result<()> {
    let table = Table::open(lake, TableName::Quarantine).await?;
    let columns = ["received_at", "source", "reason", "detail", "payload"];
    let mut batches = std::pin::pin!(table.read(table.files_since(-1), &columns));
    while let Some(batch) = batches.try_next().await? {
        let received = micros(&batch, 0)?;
        let (sources, reasons, details) = (strings(&batch, 1)?, strings(&batch, 2)?, strings(&batch, 3)?);
        let payloads = batch.column(4).as_binary_opt::<i32>().context("payload is not binary")?;
        for (row, &received_at) in received.iter().enumerate() {
            let payload = if payloads.is_null(row) { &[][..] } else { payloads.value(row) };
            visit(QuarantineRow {
                received_at,
                source: sources.value(row).to_owned(),
                reason: reasons.value(row).to_owned().into(),
                detail: details.value(row).to_owned(),
                payload: bytes::Bytes::copy_from_slice(payload),
            })?;
        }
    }
    Ok(())
}
