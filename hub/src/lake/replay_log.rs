//! ops/quarantine_replay: what was asked for of rows of the quarantine, and what came of it.
//!
//! Two write here: the command that asks, and the hub that answers (in scaled-out form the owner of partition 0). The one
//! carries no application id, since it does not own the lake; the other carries all of its owner's, so a hub that was replaced
//! cannot answer any more. Rows are only ever appended; their order is that of the log.

use super::commit::{CommitError, CommitRequest};
use super::log::Table;
use super::read::{micros, strings as read_strings};
use super::silver::{batches, strings, times};
use super::storage::Lake;
use super::tables::TableName;
use crate::quarantine::{Record, Replays, Step};
use anyhow::{Context, Result};
use bytes::Bytes;
use deltalake::arrow::array::{Array, AsArray, BinaryArray};
use futures::TryStreamExt;
use std::sync::Arc;
use uuid::Uuid;

/// The table, open.
pub struct ReplayLog(Table);

impl ReplayLog {
    /// Opens it; makes it if it is not there.
    ///
    /// # Errors
    /// If it can neither be read nor made.
    pub async fn open_or_create(lake: &Lake) -> Result<Self> {
        Ok(Self(Table::open_or_create(lake, TableName::QuarantineReplay).await?))
    }

    /// Opens it; `None` for a lake that no hub has kept since there is such a table.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub async fn open(lake: &Lake) -> Result<Option<Self>> {
        let there = lake.log_store(TableName::QuarantineReplay)?.is_delta_table_location().await;
        match there.with_context(|| format!("look for the table {}", TableName::QuarantineReplay))? {
            true => Ok(Some(Self(Table::open(lake, TableName::QuarantineReplay).await?))),
            false => Ok(None),
        }
    }

    /// Learns what others have written.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn catch_up(&mut self) -> Result<()> {
        self.0.catch_up().await
    }

    /// The version that this handle knows.
    pub fn version(&self) -> i64 {
        self.0.version()
    }

    /// All that is written there, as this handle knows it.
    ///
    /// # Errors
    /// If a file cannot be read, or holds what no hub and no command writes.
    pub async fn read(&self) -> Result<Replays> {
        let columns = ["quarantine_id", "received_at", "source", "replay_id", "written_at", "state", "detail"];
        let mut replays = Replays::default();
        let mut batches = std::pin::pin!(self.0.read(self.0.files_since(-1), &columns));
        while let Some(batch) = batches.try_next().await? {
            let (received, written) = (micros(&batch, 1)?, micros(&batch, 4)?);
            let [ids, sources, numbers, steps, details] = [0, 2, 3, 5, 6].map(|column| read_strings(&batch, column));
            let (ids, sources, numbers, steps, details) = (ids?, sources?, numbers?, steps?, details?);
            for row in 0..batch.num_rows() {
                let strange = |column: &str, value: &str| format!("{}: {column}: {value:?}", self.0.name());
                replays.add(Record {
                    row: ids.value(row).parse().with_context(|| strange("quarantine_id", ids.value(row)))?,
                    received_at: received[row],
                    source: sources.value(row).to_owned(),
                    replay: numbers.value(row).parse().with_context(|| strange("replay_id", numbers.value(row)))?,
                    written_at: written[row],
                    step: Step::parse(steps.value(row)).with_context(|| strange("state", steps.value(row)))?,
                    detail: details.value(row).to_owned(),
                });
            }
        }
        Ok(replays)
    }

    /// What a replay that was asked for hands in.
    ///
    /// # Errors
    /// If a file cannot be read, or the replay was never asked for.
    pub async fn payload(&self, replay: Uuid) -> Result<Bytes> {
        let wanted = replay.to_string();
        // The newest are most likely to hold it.
        for file in self.0.files_since(-1).into_iter().rev() {
            let mut batches = std::pin::pin!(self.0.read(vec![file], &["replay_id", "payload"]));
            while let Some(batch) = batches.try_next().await? {
                let numbers = read_strings(&batch, 0)?;
                let payloads = batch.column(1).as_binary_opt::<i32>().context("payload is not binary")?;
                let asked = (0..batch.num_rows()).find(|&row| numbers.value(row) == wanted && !payloads.is_null(row));
                if let Some(row) = asked {
                    return Ok(Bytes::copy_from_slice(payloads.value(row)));
                }
            }
        }
        anyhow::bail!("{}: there is no payload of the replay {replay}", self.0.name())
    }

    /// Asks for a replay.
    ///
    /// # Errors
    /// If storage fails.
    pub async fn ask(&mut self, record: &Record, payload: &[u8]) -> Result<()> {
        let request = self.request(record, Some(payload)).await?;
        self.0.commit(request).await?;
        Ok(())
    }

    /// Says what came of it. The application ids are those of whoever took it, and `version` is above all before.
    ///
    /// # Errors
    /// If storage fails, or another keeps the lake now.
    pub async fn answer(&mut self, record: &Record, app_ids: &[String], version: i64) -> Result<(), CommitError> {
        let request = self.request(record, None).await?;
        self.0.commit(request.with_transactions(app_ids, version)).await?;
        Ok(())
    }

    async fn request(&self, record: &Record, payload: Option<&[u8]>) -> Result<CommitRequest> {
        let batches = batches(self.0.name(), std::slice::from_ref(record), |rows| {
            let (ids, replays): (Vec<String>, Vec<String>) =
                rows.iter().map(|r| (r.row.to_string(), r.replay.to_string())).unzip();
            vec![
                strings(ids.iter().map(String::as_str)),
                times(rows.iter().map(|r| r.received_at)),
                strings(rows.iter().map(|r| r.source.as_str())),
                strings(replays.iter().map(String::as_str)),
                times(rows.iter().map(|r| r.written_at)),
                strings(rows.iter().map(|r| r.step.as_str())),
                strings(rows.iter().map(|r| r.detail.as_str())),
                Arc::new(BinaryArray::from_opt_vec(vec![payload; rows.len()])),
            ]
        })?;
        Ok(CommitRequest::append(self.0.write(batches).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::samples::lake;
    use crate::lake::upkeep::CompactionPolicy;
    use crate::quarantine::{RowId, Standing};

    fn record(row: u32, replay: u128, step: Step) -> Record {
        Record {
            row: format!("{row:032x}").parse().unwrap(),
            received_at: 5,
            source: "mqtt:x".to_owned(),
            replay: Uuid::from_u128(replay),
            written_at: 6,
            step,
            detail: "why".to_owned(),
        }
    }

    fn id(row: u32) -> RowId {
        record(row, 0, Step::Asked).row
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_asked_and_answered_is_read_in_its_order_also_when_it_was_compacted() {
        let (_folder, lake) = lake();
        assert!(ReplayLog::open(&lake).await.unwrap().is_none());
        let mut log = ReplayLog::open_or_create(&lake).await.unwrap();
        let mut command = ReplayLog::open(&lake).await.unwrap().expect("it is there now");
        let ids = ["p0".to_owned()];
        for number in 1..=20 {
            command
                .ask(&record(number, u128::from(number), Step::Asked), format!("payload {number}").as_bytes())
                .await
                .unwrap();
            if number <= 10 {
                let step = if number % 2 == 0 { Step::Taken } else { Step::Refused };
                log.answer(&record(number, u128::from(number), step), &ids, 1 << 32 | i64::from(number)).await.unwrap();
            }
        }
        for compacted in [false, true] {
            if compacted {
                let mut table = Table::open(&lake, TableName::QuarantineReplay).await.unwrap();
                assert!(table.compact(&CompactionPolicy::default()).await.unwrap().removed > 1);
            }
            log.catch_up().await.unwrap();
            let replays = log.read().await.unwrap();
            assert_eq!(replays.next_due(), Some(&record(11, 11, Step::Asked)));
            assert_eq!(replays.standing(id(2)), Standing::Taken(&record(2, 2, Step::Taken)));
            assert_eq!(replays.standing(id(3)), Standing::Refused(&record(3, 3, Step::Refused)));
            assert_eq!(replays.standing(id(21)), Standing::Open);
            assert_eq!(log.payload(Uuid::from_u128(20)).await.unwrap(), "payload 20");
            assert!(log.payload(Uuid::from_u128(21)).await.is_err());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hub_that_was_replaced_cannot_answer() {
        let (_folder, lake) = lake();
        let mut former = ReplayLog::open_or_create(&lake).await.unwrap();
        let mut next = ReplayLog::open_or_create(&lake).await.unwrap();
        let ids = ["p0".to_owned()];
        next.0.fence(&ids, 2 << 32).await.unwrap();
        let refused = former.answer(&record(1, 1, Step::Taken), &ids, 1 << 32 | 1).await.unwrap_err();
        assert!(matches!(refused, CommitError::Fenced { .. }), "{refused}");
        next.answer(&record(1, 1, Step::Taken), &ids, 2 << 32 | 1).await.unwrap();
    }
}
