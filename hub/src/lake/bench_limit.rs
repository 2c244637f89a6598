//! What arrow's Parquet writer alone does with silver's rows: the limit that the hub's own rate is measured against.

use super::silver;
use crate::rows::{ChangeRow, Source};
use anyhow::Result;
use deltalake::parquet::arrow::ArrowWriter;
use deltalake::parquet::basic::{Compression, ZstdLevel};
use deltalake::parquet::file::properties::WriterProperties;
use onhand_common::{AgentId, Epoch};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Encodes `rows` transaction lines of silver/inventory_change on the calling thread, into memory, and says how long it took.
///
/// # Errors
/// If the writer fails.
pub fn write_lines_alone(rows: usize) -> Result<Duration> {
    let source = Source::agent(&AgentId::new("agent-1")?, Epoch(1));
    let lines: Vec<ChangeRow> = (0..rows)
        .map(|row| ChangeRow {
            trans_id: format!("t-1-{}", row / 4).into(),
            store_id: 1,
            date_time: 1_609_459_200_000_000 + (row as i64 / 4) * 1_000,
            change_type_id: 1,
            item_id: (row * 7 % 10_000) as i32,
            quantity: -1,
            source: Arc::clone(&source),
            seq: row as u64 / 4,
        })
        .collect();
    let batches = silver::changes(lines.iter().collect())?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_column_dictionary_enabled("trans_id".into(), false)
        .set_column_dictionary_enabled("seq".into(), false)
        .build();
    let started = Instant::now();
    let Some(schema) = batches.first().map(|batch| batch.schema()) else { return Ok(Duration::ZERO) };
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
    for batch in &batches {
        writer.write(batch)?;
    }
    writer.into_inner()?;
    Ok(started.elapsed())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_limit_can_be_measured() {
        assert!(!super::write_lines_alone(10_000).unwrap().is_zero());
    }
}
