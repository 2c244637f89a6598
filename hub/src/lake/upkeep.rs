//! How tables are kept small: compaction, checkpoints, old log entries and old files removed.
//!
//! Everything here takes the table's handle for itself, and does a bounded amount of work per call. Others may commit meanwhile,
//! with handles of their own, in this process or in another. What holds:
//! - Compaction changes no row. It keeps the order of arrival: only neighbours are merged, so that a merged file stands where
//!   its rows stood, as old as its newest row; and the rows of one store stay in their order. (Of two counts of one instant
//!   the later one wins, whoever reads them.)
//! - Rows that somebody still has to find by [`Table::files_since`] are not mixed with older ones
//!   ([`CompactionPolicy::settled`]).
//! - A file is deleted only when no version within the retention needs it. A clock that runs ahead makes none old.
//! - Log entries are deleted only behind a checkpoint that is older than the retention, and never the entry that says
//!   what gold reflects.

use super::commit::{CommitError, CommitRequest};
use super::log::{LiveFile, Table};
use super::read::ints;
use super::retention::Retention;
use super::tables::TableName;
use anyhow::{Context, Result};
use buoyant_kernel::Snapshot as KernelSnapshot;
use deltalake::DeltaTable;
use deltalake::arrow::array::RecordBatch;
use deltalake::arrow::compute::interleave_record_batch;
use deltalake::datafile::writer::DeltaWriter;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use onhand_common::Failpoint;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// Files below this size are of the lowest tier; each next tier is [`TIER_FACTOR`] times as large.
const LOWEST_TIER: u64 = 64 * 1024;
const TIER_FACTOR: u64 = 8;
/// Rows of silver that compaction puts in the order of their stores, in memory: 30 MB or so.
const SORTED_ROWS: usize = 256 * 1024;
/// Rows that the writer is given at a time.
const WRITE_ROWS: usize = 16 * 1024;

/// What compaction takes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionPolicy {
    /// So many neighbours are needed, within one partition, before they are made one. None of them may be larger than all
    /// the others together, so that a row is rewritten a few times in its life and not with every call.
    pub min_files: usize,
    /// Files from half of this size on are left alone.
    pub target_bytes: u64,
    /// Most bytes to read in one call.
    pub max_bytes: u64,
    /// Only files whose rows came with this version or before; `None`: all. For silver this is the version that gold
    /// reflects: recovery replays what came later, and must not find older rows among it.
    pub settled: Option<i64>,
}

impl Default for CompactionPolicy {
    fn default() -> Self {
        Self { min_files: 8, target_bytes: 128 << 20, max_bytes: 64 << 20, settled: None }
    }
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compaction {
    /// Files that were taken out.
    pub removed: usize,
    /// Files that took their place.
    pub added: usize,
    /// Bytes that were read.
    pub bytes: u64,
}

impl Table {
    /// Merges small files into larger ones, as much as the policy allows; nothing if there is nothing worth it.
    ///
    /// # Errors
    /// As [`Table::commit`]. [`CommitError::Conflict`] means that another has replaced one of the files; the next call
    /// sees what is there then.
    pub async fn compact(&mut self, policy: &CompactionPolicy) -> Result<Compaction, CommitError> {
        let groups = plan(self.live_files(), policy);
        let mut done = Compaction::default();
        let mut request = CommitRequest::append(Vec::new());
        request.operation = "OPTIMIZE";
        request.data_change = false;
        for group in groups {
            done.bytes += group.iter().map(|f| f.size).sum::<u64>();
            request.adds.extend(self.merge(&group).await?);
            request.removes.extend(group);
        }
        (done.removed, done.added) = (request.removes.len(), request.adds.len());
        if done.removed > 0 {
            self.commit(request).await?;
        }
        Ok(done)
    }

    async fn merge(&self, group: &[LiveFile]) -> Result<Vec<super::files::PendingAdd>> {
        let mut writer = self.writer();
        if let Err(error) = self.merge_into(&mut writer, group).await {
            // An object store keeps the parts of an upload that is only dropped, where no vacuum sees them.
            if let Err(error) = writer.abort().await {
                tracing::warn!("upkeep: abandon a merged file of {}: {error}", self.name);
            }
            return Err(error);
        }
        let since = group.iter().map(|f| f.added_version).max();
        self.finish(writer, since).await.with_context(|| format!("compact {}", self.name))
    }

    async fn merge_into(&self, writer: &mut DeltaWriter, group: &[LiveFile]) -> Result<()> {
        let columns: Vec<&str> = self.name.definition().columns.iter().map(|c| c.name).collect();
        let mut batches = std::pin::pin!(self.read(group.to_vec(), &columns));
        let by_store = matches!(self.name, TableName::InventoryChange | TableName::InventorySnapshot);
        let mut unsorted: Vec<RecordBatch> = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            if by_store {
                unsorted.push(batch);
                if unsorted.iter().map(RecordBatch::num_rows).sum::<usize>() >= SORTED_ROWS {
                    write_by_store(writer, &std::mem::take(&mut unsorted)).await?;
                }
            } else {
                writer.write(&batch).await?;
            }
        }
        write_by_store(writer, &unsorted).await
    }

    /// How long what is replaced is kept, and how often it is looked for.
    pub fn retention(&self) -> Retention {
        self.lake.retention()
    }

    /// Writes a checkpoint if `every` versions have come since the last one. Returns whether it did.
    ///
    /// # Errors
    /// If the checkpoint cannot be written; the table is as good as before.
    pub async fn checkpoint_if_due(&mut self, every: i64) -> Result<bool> {
        let last = match self.checkpoint {
            Some(version) => version,
            None => self.last_checkpoint().await?,
        };
        self.checkpoint = Some(last);
        if self.version - last < every {
            return Ok(false);
        }
        self.write_checkpoint().await?;
        Ok(true)
    }

    /// Writes a checkpoint of this handle's version.
    pub(crate) async fn write_checkpoint(&mut self) -> Result<()> {
        let version = u64::try_from(self.version).context("a loaded table has a version")?;
        let engine = self.log.engine(None);
        let root = self.log.root_url().to_string();
        tokio::task::spawn_blocking(move || {
            let snapshot = KernelSnapshot::builder_for(root).at_version(version).build(engine.as_ref())?;
            snapshot.checkpoint(engine.as_ref(), None)
        })
        .await?
        .with_context(|| format!("write a checkpoint of {} at version {version}", self.name))?;
        self.checkpoint = Some(self.version);
        Failpoint::UpkeepCheckpoint.pass();
        Ok(())
    }

    /// The version of the last checkpoint; 0 if there is none, as if the table's creation were one.
    async fn last_checkpoint(&self) -> Result<i64> {
        let hint = self.store().get(&Path::from("_delta_log/_last_checkpoint")).await;
        let bytes = match hint {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(0),
            Err(error) => return Err(error).with_context(|| format!("read _last_checkpoint of {}", self.name)),
        };
        let hint: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(hint["version"].as_i64().unwrap_or(0))
    }

    /// Deletes log entries and checkpoints that are older than the lake's retention and behind a checkpoint. Returns
    /// how many. Version `needed` and those after it can still be opened: for silver, the one that gold reflects.
    ///
    /// # Errors
    /// If the log cannot be listed, or a file not be deleted.
    pub async fn cleanup_log(&mut self, needed: Option<i64>) -> Result<usize> {
        let retention = self.lake.retention().log;
        self.cleanup_log_older_than(retention, needed).await
    }

    async fn cleanup_log_older_than(&mut self, retention: Duration, needed: Option<i64>) -> Result<usize> {
        let mut needed = needed.unwrap_or(self.version).clamp(0, self.version);
        if self.name == TableName::InventoryCurrent
            && let Some((version, _)) = self.reflects().await?
        {
            // What gold reflects stays known, also where others have committed since without repeating it.
            needed = needed.min(version);
        }
        let cutoff = self.before(retention).await?;
        let keep = u64::try_from(needed).context("a loaded table has a version")?;
        let log = Arc::clone(&self.log);
        deltalake::checkpoints::cleanup_expired_logs_for(keep, log.as_ref(), cutoff, None)
            .await
            .with_context(|| format!("clean the log of {}", self.name))
    }

    /// Deletes data files that no version within the lake's retention needs: replaced ones, and those that were written
    /// but never committed. Returns how many. The files of the versions `needed` stay: for silver, those that gold
    /// reflects.
    ///
    /// # Errors
    /// If the folder cannot be listed, or a file not be deleted.
    pub async fn vacuum(&mut self, needed: &[i64]) -> Result<usize> {
        let retention = self.lake.retention().deleted_files;
        self.vacuum_older_than(retention, needed).await
    }

    async fn vacuum_older_than(&mut self, retention: Duration, needed: &[i64]) -> Result<usize> {
        let cutoff = self.before(retention).await?;
        let mut keep_paths = self.needed_files(cutoff).await?;
        for version in needed.iter().filter(|v| (0..self.version).contains(v)) {
            let then = Self::open_at(&self.lake, self.name, *version).await?;
            keep_paths.extend(then.live_files().map(|f| xxh3_64(f.path.as_bytes())));
        }
        let store = self.store();
        let log = Path::from("_delta_log");
        let old: Vec<Path> = store
            .list(None)
            .try_filter_map(|object| {
                let young = object.last_modified.timestamp_millis() >= cutoff;
                let path = object.location;
                let keep =
                    young || path.prefix_matches(&log) || keep_paths.contains(&xxh3_64(path.as_ref().as_bytes()));
                std::future::ready(Ok((!keep).then_some(path)))
            })
            .try_collect()
            .await
            .with_context(|| format!("list the files of {}", self.name))?;
        Failpoint::UpkeepVacuum.pass();
        let count = old.len();
        let deleted = store.delete_stream(futures::stream::iter(old).map(Ok).boxed());
        deleted
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
            .with_context(|| format!("delete old files of {}", self.name))?;
        let age = chrono::Utc::now().timestamp_millis().saturating_sub(cutoff);
        self.lake.remove_staged(self.name, Duration::from_millis(age.unsigned_abs())).await?;
        Ok(count)
    }

    /// The time so long ago, milliseconds since 1970, by this machine's clock or by the storage's, whichever is behind: a
    /// clock that runs ahead makes nothing old, above all not what another process has written a moment ago. The log's
    /// newest entry says what time it is, or was, where the storage is.
    async fn before(&self, retention: Duration) -> Result<i64> {
        let log = Path::from("_delta_log");
        let written = self.store().list(Some(&log)).map_ok(|object| object.last_modified.timestamp_millis());
        let newest = written.try_fold(0, |newest, at| std::future::ready(Ok(at.max(newest)))).await;
        let newest = newest.with_context(|| format!("list the log of {}", self.name))?;
        let millis = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        Ok(chrono::Utc::now().timestamp_millis().min(newest).saturating_sub(millis))
    }

    /// Hashes of the paths that are live, or were taken out after `cutoff`: a hash that two paths share keeps both.
    async fn needed_files(&mut self, cutoff: i64) -> Result<HashSet<u64>> {
        // Read anew, for what other processes did. The list is large where much was replaced, and is gone after this.
        let mut table = DeltaTable::new(Arc::clone(&self.log));
        table.load().await.with_context(|| format!("open {}", self.name))?;
        let state = table.snapshot()?;
        let mut needed: HashSet<u64> = state.log_data().iter().map(|f| xxh3_64(f.path().as_bytes())).collect();
        needed.extend(self.files.values().map(|f| xxh3_64(f.path.as_bytes())));
        let mut removed = state.all_tombstones(self.log.as_ref());
        while let Some(tombstone) = removed.try_next().await? {
            // Without a time, it may have been a moment ago.
            if tombstone.deletion_timestamp().is_none_or(|removed_at| removed_at >= cutoff) {
                needed.insert(xxh3_64(tombstone.path().as_bytes()));
            }
        }
        Ok(needed)
    }
}

/// Writes rows of silver store by store, each store's in their order: whoever looks for a few stores skips the others' pages.
async fn write_by_store(writer: &mut DeltaWriter, batches: &[RecordBatch]) -> Result<()> {
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let mut order: Vec<(i32, (usize, usize))> = Vec::with_capacity(rows);
    for (index, batch) in batches.iter().enumerate() {
        let column = batch.schema().index_of("store_id")?;
        order.extend(ints(batch, column)?.iter().enumerate().map(|(row, &store_id)| (store_id, (index, row))));
    }
    order.sort_by_key(|&(store_id, _)| store_id);
    let order: Vec<(usize, usize)> = order.into_iter().map(|(_, place)| place).collect();
    let batches: Vec<&RecordBatch> = batches.iter().collect();
    for rows in order.chunks(WRITE_ROWS) {
        writer.write(&interleave_record_batch(&batches, rows)?).await?;
    }
    Ok(())
}

/// Which files to make one of: neighbours in the order of arrival.
fn plan<'a>(files: impl Iterator<Item = &'a LiveFile>, policy: &CompactionPolicy) -> Vec<Vec<LiveFile>> {
    let mut partitions: BTreeMap<Option<i64>, Vec<&LiveFile>> = BTreeMap::new();
    for file in files.filter(|file| policy.settled.is_none_or(|version| file.added_version <= version)) {
        partitions.entry(file.partition).or_default().push(file);
    }
    let mut found: Vec<Vec<&LiveFile>> = Vec::new();
    for mut files in partitions.into_values().filter(|files| files.len() >= policy.min_files.max(2)) {
        files.sort_by(|a, b| (a.added_version, a.modified, &a.path).cmp(&(b.added_version, b.modified, &b.path)));
        runs(&files, policy, &mut found);
    }
    // Where there is most to gain first, should the budget not reach for all.
    found.sort_by_key(|run| std::cmp::Reverse(run.len()));
    let mut budget = policy.max_bytes;
    let mut groups = Vec::new();
    for run in found {
        let mut group: Vec<&LiveFile> = Vec::new();
        let mut bytes = 0;
        for file in run {
            if bytes + file.size > policy.target_bytes {
                take(&mut groups, &mut group, policy);
                bytes = 0;
            }
            if file.size > budget {
                break;
            }
            budget -= file.size;
            bytes += file.size;
            group.push(file);
        }
        take(&mut groups, &mut group, policy);
    }
    groups
}

/// Finds runs of neighbours that are worth it: first among the smallest files, with larger ones between them only where
/// those break the runs of small ones into too short ones.
fn runs<'a>(files: &[&'a LiveFile], policy: &CompactionPolicy, found: &mut Vec<Vec<&'a LiveFile>>) {
    let largest = policy.target_bytes / 2;
    let mut taken = vec![false; files.len()];
    let mut below = LOWEST_TIER.min(largest);
    loop {
        let open: Vec<bool> = files.iter().zip(&taken).map(|(file, taken)| !taken && file.size < below).collect();
        let mut end = 0;
        for run in open.chunk_by(|a, b| a == b) {
            let start = end;
            end += run.len();
            if run[0] && worth_it(&files[start..end], policy) {
                taken[start..end].fill(true);
                found.push(files[start..end].to_vec());
            }
        }
        if below == largest {
            return;
        }
        below = below.saturating_mul(TIER_FACTOR).min(largest);
    }
}

fn worth_it(run: &[&LiveFile], policy: &CompactionPolicy) -> bool {
    let total: u64 = run.iter().map(|file| file.size).sum();
    let largest = run.iter().map(|file| file.size).max().unwrap_or(0);
    run.len() >= policy.min_files.max(2) && (largest < LOWEST_TIER || largest <= total - largest)
}

fn take(groups: &mut Vec<Vec<LiveFile>>, group: &mut Vec<&LiveFile>, policy: &CompactionPolicy) {
    let group = std::mem::take(group);
    if worth_it(&group, policy) {
        groups.push(group.into_iter().cloned().collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::samples::{NEW_YEAR, changes, gold, lake};
    use crate::lake::{Lake, read};
    use serde_json::json;

    const DAY: i64 = 86_400_000_000;

    async fn transactions(table: &Table, day: i64) -> Vec<String> {
        let files = table.files_of_partition(day).cloned().collect();
        let mut batches = std::pin::pin!(table.read(files, &["trans_id"]));
        let mut ids = Vec::new();
        while let Some(batch) = batches.try_next().await.unwrap() {
            ids.extend(read::strings(&batch, 0).unwrap().iter().map(|id| id.unwrap().to_owned()));
        }
        ids
    }

    /// Ten versions, each with a row on each of two days.
    async fn ten_versions(lake: &Lake) -> Table {
        let mut table = Table::open_or_create(lake, TableName::InventoryChange).await.unwrap();
        for n in 0..10 {
            let id = format!("t{n}");
            let rows = changes(&[(&id, 1, NEW_YEAR + n, 1, 10, -1), (&id, 1, NEW_YEAR + DAY, 1, 11, -1)]);
            let adds = table.write([rows]).await.unwrap();
            table.commit(CommitRequest::append(adds).with_transaction("p0", n)).await.unwrap();
        }
        table
    }

    fn replaced_all(table: &Table) -> Vec<LiveFile> {
        table.live_files().cloned().collect()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn compaction_keeps_rows_and_order_and_age() {
        let (_folder, lake) = lake();
        let mut table = ten_versions(&lake).await;
        let policy = CompactionPolicy { min_files: 3, settled: Some(8), ..Default::default() };
        let done = table.compact(&policy).await.unwrap();
        assert_eq!((done.removed, done.added, table.version()), (16, 2, 11));

        let reloaded = Table::open(&lake, TableName::InventoryChange).await.unwrap();
        assert_eq!(reloaded.files, table.files);
        let since: Vec<i64> = reloaded.files_since(-1).iter().map(|f| f.added_version).collect();
        assert_eq!(since, [8, 8, 9, 9, 10, 10], "not the compaction's version, and nothing newer mixed in");
        let mut ids = transactions(&reloaded, 18_628).await;
        let merged: Vec<String> = (0..8).map(|n| format!("t{n}")).collect();
        let at = ids.iter().position(|id| id == "t0").unwrap();
        assert_eq!(ids[at..at + 8], merged);
        ids.sort();
        assert_eq!(ids, (0..10).map(|n| format!("t{n}")).collect::<Vec<_>>());
        assert_eq!(table.compact(&policy).await.unwrap(), Compaction::default(), "nothing is left to do");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn compaction_gives_way_to_whoever_replaced_a_file() {
        let (_folder, lake) = lake();
        ten_versions(&lake).await;
        let mut stale = Table::open(&lake, TableName::InventoryChange).await.unwrap();
        let mut other = Table::open(&lake, TableName::InventoryChange).await.unwrap();
        let gone = replaced_all(&other)[0].clone();
        other.commit(CommitRequest::replace(vec![gone], Vec::new())).await.unwrap();
        let policy = CompactionPolicy::default();
        assert!(matches!(stale.compact(&policy).await, Err(CommitError::Conflict { .. })));
        assert_eq!(stale.compact(&policy).await.unwrap().removed, 19);
        assert_eq!(Table::open(&lake, TableName::InventoryChange).await.unwrap().row_count(), 19);
    }

    #[test]
    fn a_group_has_files_of_one_partition_and_size_within_the_budget() {
        let file = |n: i64, partition, size| LiveFile {
            path: format!("{n}").into(),
            size,
            partition: Some(partition),
            rows: 1,
            date_time: None,
            store_id: None,
            added_version: n,
            since_known: true,
            modified: 0,
        };
        let mut files: Vec<LiveFile> = (0..10).rev().map(|n| file(n, 1, 1_000)).collect();
        files.extend([file(20, 2, 1_000), file(21, 1, 1 << 20), file(22, 1, 200 << 20)]);
        let policy = CompactionPolicy { min_files: 4, max_bytes: 6_500, ..Default::default() };
        let groups = plan(files.iter(), &policy);
        let of: Vec<Vec<i64>> = groups.iter().map(|g| g.iter().map(|f| f.added_version).collect()).collect();
        assert_eq!(of, [[0, 1, 2, 3, 4, 5]]);
        let policy = CompactionPolicy { min_files: 7, max_bytes: 6_500, ..policy };
        assert!(plan(files.iter(), &policy).is_empty());
    }

    async fn checkpoint_then_reload() {
        let (_folder, lake) = lake();
        let mut table = Table::open_or_create(&lake, TableName::InventoryCurrent).await.unwrap();
        for n in 0..5_i32 {
            let old = replaced_all(&table);
            let adds = table.write([gold(&[(1, n, 1, 0, NEW_YEAR)])]).await.unwrap();
            let request = CommitRequest::replace(if n == 3 { old } else { Vec::new() }, adds);
            let request = request.with_transaction("p0", i64::from(n)).with_metadata("onhand", json!({"store": n}));
            table.commit(request).await.unwrap();
        }
        assert!(!table.checkpoint_if_due(6).await.unwrap());
        assert!(table.checkpoint_if_due(5).await.unwrap());
        assert!(!table.checkpoint_if_due(5).await.unwrap());
        // From here on the log tells only what the checkpoint holds.
        let entry = |version: i64| format!("{}/gold/inventory_current/_delta_log/{version:020}.json", lake.root());
        for version in 0..5 {
            std::fs::remove_file(entry(version)).unwrap();
        }
        let mut reloaded = Table::open(&lake, TableName::InventoryCurrent).await.unwrap();
        assert_eq!(reloaded.files, table.files, "with the versions that brought the rows");
        assert_eq!(reloaded.live_files().map(|f| f.added_version).max(), Some(5));
        assert_eq!(reloaded.transaction_version("p0").await.unwrap(), Some(4));
        assert_eq!(reloaded.reflects().await.unwrap(), Some((5, json!({"store": 4}))));
        assert!(!reloaded.checkpoint_if_due(1).await.unwrap());
        assert!(Table::open_at(&lake, TableName::InventoryCurrent, 3).await.is_err());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn after_a_checkpoint_the_table_is_the_same() {
        checkpoint_then_reload().await;
    }

    #[tokio::test]
    async fn a_checkpoint_needs_no_second_thread_of_the_runtime() {
        checkpoint_then_reload().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_log_is_cleaned_behind_a_checkpoint_only() {
        let (_folder, lake) = lake();
        let mut table = ten_versions(&lake).await;
        assert_eq!(table.cleanup_log_older_than(Duration::ZERO, None).await.unwrap(), 0);
        table.write_checkpoint().await.unwrap();
        assert_eq!(table.cleanup_log(None).await.unwrap(), 0, "all are young");
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(table.cleanup_log_older_than(Duration::ZERO, Some(9)).await.unwrap(), 0, "gold reflects version 9");
        assert_eq!(table.cleanup_log_older_than(Duration::ZERO, None).await.unwrap(), 10);
        let reloaded = Table::open(&lake, TableName::InventoryChange).await.unwrap();
        assert_eq!((reloaded.files, reloaded.version), (table.files, 10));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_clock_that_is_ahead_makes_nothing_old() {
        let (_folder, lake) = lake();
        let mut table = ten_versions(&lake).await;
        table.compact(&CompactionPolicy::default()).await.unwrap();
        table.write_checkpoint().await.unwrap();
        // What another process has written and is about to commit.
        let theirs = table.write([changes(&[("theirs", 1, NEW_YEAR, 1, 10, -1)])]).await.unwrap();
        let folder = format!("{}/silver/inventory_change", lake.root());
        let staged = format!("{folder}/date=2021-01-01/part-x.parquet#7");
        std::fs::write(&staged, "not whole yet").unwrap();
        // By our clock, all of that was two days ago.
        let then = std::time::SystemTime::now() - Duration::from_secs(48 * 3600);
        let set = |path: &std::path::Path, at| {
            std::fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
        };
        for part in ["date=2021-01-01", "date=2021-01-02", "_delta_log"] {
            for entry in std::fs::read_dir(format!("{folder}/{part}")).unwrap() {
                set(&entry.unwrap().path(), then);
            }
        }
        assert_eq!((table.vacuum(&[]).await.unwrap(), table.cleanup_log(None).await.unwrap()), (0, 0));
        assert!(std::path::Path::new(&format!("{folder}/{}", theirs[0].add.path)).exists());
        assert!(std::path::Path::new(&staged).exists());
        // A commit of now shows that it is true.
        set(
            &std::path::Path::new(&folder).join(format!("_delta_log/{:020}.json", table.version())),
            then + Duration::from_secs(48 * 3600),
        );
        assert_eq!((table.vacuum(&[]).await.unwrap(), table.cleanup_log(None).await.unwrap()), (1, 11));
        assert!(!std::path::Path::new(&staged).exists());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn vacuum_keeps_what_is_live_and_what_is_young() {
        let (_folder, lake) = lake();
        let mut table = ten_versions(&lake).await;
        table.compact(&CompactionPolicy::default()).await.unwrap();
        // What a commit took out is old, by the log's own time, once the log has a later entry.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let later = CommitRequest { operation: "LATER", data_change: false, ..CommitRequest::append(Vec::new()) };
        assert_eq!(table.commit(later).await.unwrap(), 12);
        let orphan = table.write([changes(&[("never", 1, NEW_YEAR, 1, 10, -1)])]).await.unwrap();
        let folder = format!("{}/silver/inventory_change", lake.root());
        let staged = format!("{folder}/date=2021-01-01/part-x.parquet#7");
        std::fs::write(&staged, "cut off").unwrap();
        assert_eq!(table.vacuum(&[]).await.unwrap(), 0, "all are young");
        // Files that are old, but were live until a moment ago.
        let old = std::time::SystemTime::now() - Duration::from_secs(3600);
        let mut files = Vec::new();
        for day in ["2021-01-01", "2021-01-02"] {
            for entry in std::fs::read_dir(format!("{folder}/date={day}")).unwrap() {
                let path = entry.unwrap().path();
                std::fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
                files.push(path);
            }
        }
        assert_eq!(files.len(), 24);
        assert_eq!(table.vacuum_older_than(Duration::from_secs(60), &[]).await.unwrap(), 1, "the one never committed");
        assert!(!std::path::Path::new(&format!("{folder}/{}", orphan[0].add.path)).exists());
        assert!(!std::path::Path::new(&staged).exists());
        assert_eq!(table.vacuum_older_than(Duration::ZERO, &[10]).await.unwrap(), 0, "gold reflects version 10");
        assert_eq!(
            table.vacuum_older_than(Duration::ZERO, &[11]).await.unwrap(),
            20,
            "replaced, and not needed any more"
        );
        assert_eq!(transactions(&table, 18_628).await.len(), 10);
    }
}
