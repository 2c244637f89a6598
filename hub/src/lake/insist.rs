//! A commit that is tried until it is in the lake.

use super::commit::{CommitError, CommitRequest};
use super::log::Table;
use crate::stats::HubStats;
use anyhow::Result;
use deltalake::arrow::array::RecordBatch;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Tries, once the hub was asked to stop.
const TRIES_WHILE_STOPPING: u32 = 3;

/// Application ids, and the version that a commit gives them.
pub type Stamp = (Vec<String>, i64);

/// Appends rows, if there are any.
///
/// # Errors
/// As [`insist`].
pub async fn append(
    table: &mut Table,
    shutdown: &CancellationToken,
    stats: &HubStats,
    transaction: &Stamp,
    rows: usize,
    batches: impl Fn() -> Result<Vec<RecordBatch>>,
) -> Result<(), CommitError> {
    if rows == 0 {
        return Ok(());
    }
    let write = async |table: &Table| Ok(CommitRequest::append(table.write(batches()?).await?));
    insist(table, shutdown, stats, write, transaction).await
}

/// Writes and commits until it is done: while storage is away, the agents keep what is theirs.
///
/// # Errors
/// If another has taken over, or the hub was asked to stop and storage stays away.
pub async fn insist(
    table: &mut Table,
    shutdown: &CancellationToken,
    stats: &HubStats,
    write: impl AsyncFn(&Table) -> Result<CommitRequest>,
    transaction: &Stamp,
) -> Result<(), CommitError> {
    let mut tries = 0;
    loop {
        let result = match write(table).await {
            Ok(request) => {
                let (app_ids, version) = transaction;
                let committed = table.commit(request.with_transactions(app_ids, *version)).await;
                stats.commit_conflicts.fetch_add(table.take_lost_races(), Relaxed);
                committed.map(drop)
            }
            Err(error) => Err(CommitError::Other(error)),
        };
        tries += 1;
        match result {
            Ok(()) => return Ok(()),
            Err(error @ CommitError::Fenced { .. }) => return Err(error),
            Err(error) if shutdown.is_cancelled() && tries >= TRIES_WHILE_STOPPING => return Err(error),
            Err(error) => {
                stats.commit_retries.fetch_add(1, Relaxed);
                let error = table.lake.in_words(error.into());
                tracing::warn!(table = %table.name(), tries, "commit: {error:#}; trying again");
            }
        }
        let pause = Duration::from_millis(100 << tries.min(7)).min(LONGEST_PAUSE);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::samples::{NEW_YEAR, changes, lake};
    use crate::lake::tables::TableName;
    use std::sync::atomic::AtomicUsize;

    /// A vacuum may take them for left over before their log entry is there.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn files_that_waited_too_long_for_their_commit_are_written_anew() {
        let (_folder, lake) = lake();
        let mut table = Table::open_or_create(&lake, TableName::InventoryChange).await.unwrap();
        let half = i64::try_from(lake.retention().deleted_files.as_millis()).unwrap() / 2;
        let (written, stats) = (AtomicUsize::new(0), HubStats::default());
        let write = async |table: &Table| {
            let mut adds = table.write([changes(&[("a", 1, NEW_YEAR, 1, 10, -2)])]).await?;
            // The first ones are a minute older than they may be, the next ones a minute younger.
            let minutes = if written.fetch_add(1, Relaxed) == 0 { 1 } else { -1 };
            adds[0].add.modification_time -= half + minutes * 60_000;
            Ok(CommitRequest::append(adds))
        };
        let stamp = (vec!["p0".to_owned()], 1);
        insist(&mut table, &CancellationToken::new(), &stats, write, &stamp).await.unwrap();
        assert_eq!((written.into_inner(), table.version(), table.row_count()), (2, 1, 1));
    }
}
