//! Writing data files: Parquet, zstd, one file per partition, with the statistics that the log wants.

use super::log::Table;
use super::tables::TableName;
use anyhow::{Context, Result};
use deltalake::arrow::array::RecordBatch;
use deltalake::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake::kernel::Add;
use deltalake::operations::get_num_idx_cols_and_stats_columns;
use deltalake::parquet::basic::{Compression, ZstdLevel};
use deltalake::parquet::file::properties::{EnabledStatistics, WriterProperties};
use object_store::path::Path;
use std::collections::HashMap;

/// Rows that the Parquet writer is given at a time.
const WRITE_ROWS: usize = 16 * 1024;
/// Bytes from which on a row group is whole, whatever its rows: the writer has it in memory until then, and frames are large.
const ROW_GROUP_BYTES: usize = 32 << 20;

/// A data file that is written and durable, but in no version yet.
#[derive(Debug, Clone)]
pub struct PendingAdd {
    pub(crate) add: Add,
    /// The version that brought its rows first, where that is not the one it will be committed with.
    pub(crate) since: Option<i64>,
}

impl PendingAdd {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.add.size.unsigned_abs()
    }
}

impl Table {
    /// Writes rows into files, one per partition, and puts them on the drive.
    ///
    /// Rows keep their order within a partition. Nobody sees the files before a commit names them; without one, vacuum
    /// removes them.
    ///
    /// # Errors
    /// If a batch has other columns than the table, or storage fails.
    pub async fn write(&self, batches: impl IntoIterator<Item = RecordBatch>) -> Result<Vec<PendingAdd>> {
        let mut writer = self.writer();
        for batch in batches {
            if batch.num_rows() > 0 {
                writer.write(&batch).await.with_context(|| format!("write rows of {}", self.name))?;
            }
        }
        self.finish(writer, None).await
    }

    /// A writer of one file per partition.
    pub(crate) fn writer(&self) -> DeltaWriter {
        let statistics =
            HashMap::from([("delta.dataSkippingStatsColumns".to_owned(), Some(self.name.statistics_columns()))]);
        let (indexed, statistics) = get_num_idx_cols_and_stats_columns(None, statistics);
        let config = WriterConfig::new(
            self.name.arrow_schema(),
            self.name.partition_column().map(str::to_owned).into_iter().collect(),
            Some(properties(self.name)),
            None, // another file would have no place of its own among those of other versions
            Some(WRITE_ROWS),
            indexed,
            statistics,
        );
        DeltaWriter::new(self.store(), config)
    }

    /// Closes the files of a writer and puts them on the drive.
    pub(crate) async fn finish(&self, writer: DeltaWriter, since: Option<i64>) -> Result<Vec<PendingAdd>> {
        let adds = writer.close().await.with_context(|| format!("write files of {}", self.name))?;
        let paths = adds.iter().map(|add| Path::from(add.path.as_str()));
        self.lake.make_durable(self.name, paths).await?;
        Ok(adds.into_iter().map(|add| PendingAdd { add, since }).collect())
    }
}

fn properties(table: TableName) -> WriterProperties {
    let level = ZstdLevel::try_new(1).expect("zstd has a level 1");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        // Per row group: that is what the log's statistics are made of. Per page they would cost more than they prune.
        .set_statistics_enabled(EnabledStatistics::Chunk);
    let unique = table.definition().unique.iter();
    unique.fold(properties, |p, column| p.set_column_dictionary_enabled((*column).into(), false)).build()
}
