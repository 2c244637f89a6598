//! The commit loop: one log entry, written only if nothing that happened meanwhile speaks against it.
//!
//! deltalake's own conflict checker takes every copy-on-write for a read of the whole table (false conflicts), lets an
//! application's transaction go backwards, and accepts the replacement of a file that was compacted away. What holds here:
//! - An entry takes the version after the newest one that this handle has read, or none.
//! - An application id never goes backwards. The same version again is the same commit, and finds itself.
//! - A file is removed only by an entry that saw it live.
//! - An answer that may mean yes (a timeout after the write) is tried again at the same version; the entry's own id tells
//!   whether the first one landed.

pub use super::commit_request::CommitRequest;
use super::log::{Ahead, COMMIT_ID_KEY, LiveFile, REFLECTS_KEY, SINCE_TAG, Table, redefines};
use super::tables::TableName;
use crate::ownership::EMBEDDED;
use deltalake::kernel::transaction::TransactionError;
use deltalake::kernel::{Action, CommitInfo, Transaction};
use deltalake::logstore::CommitOrBytes;
use onhand_common::Failpoint;
use serde_json::Value;
use std::time::Duration;
use tracing::{debug, warn};
use uuid::Uuid;

/// How often an answer that is neither yes nor no is tried again.
const AMBIGUOUS_TRIES: u32 = 6;
/// How many tries for the end of the log may be lost before a commit gives up.
const MAX_LOST_RACES: u32 = 1_000;
/// Longest pause before the next try, milliseconds. Short: while the loser waits, the winner of the last try writes again.
const LONGEST_BACK_OFF_MS: u64 = 32;

/// Why a commit did not land.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another holds this application id: whoever gets this must stop writing.
    #[error("{table}: another process has committed {app_id} {found}, so {ours} must not follow")]
    Fenced {
        /// The table.
        table: TableName,
        /// The application id.
        app_id: String,
        /// Its version in the log.
        found: i64,
        /// The version that was to be committed.
        ours: i64,
    },
    /// A file that was to be taken out is no longer live. The handle now knows the newer version: plan again.
    #[error("{table}: version {version} has already taken out {path}")]
    Conflict {
        /// The table.
        table: TableName,
        /// The version that this handle knows now.
        version: i64,
        /// The file.
        path: String,
    },
    /// Anything else: storage, a log that cannot be read.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// What an entry that came first means for ours.
enum Verdict {
    Ours,
    Unrelated,
    Reload,
}

impl Table {
    /// Commits; returns the version that the table has then (for a repeated transaction, the one it had at first, if
    /// the log still tells).
    ///
    /// # Errors
    /// See [`CommitError`]. After an error nothing of this request is in the table, except that after
    /// [`CommitError::Other`] it may be: the same transaction again finds out.
    pub async fn commit(&mut self, request: CommitRequest) -> Result<i64, CommitError> {
        if self.is_stale() {
            // Log entries that this handle has not seen may be gone by now, and their numbers look free.
            self.reload(None).await?;
        }
        let id = Uuid::new_v4();
        if let Some(version) = self.committed_before(&request, id).await? {
            return Ok(version);
        }
        self.check_live(&request.removes)?;
        let mut request = request;
        let marks = request.marks.take();
        let carries =
            self.name == TableName::InventoryCurrent && marks.is_none() && !request.metadata.contains_key(REFLECTS_KEY);
        request.metadata.insert(COMMIT_ID_KEY.to_owned(), Value::String(id.to_string()));
        let (mut failures, mut lost) = (0, 0);
        loop {
            let version = self.version + 1;
            // What was said before is said again, by the newest entry: another's may have come in between.
            if carries && let Some((_, reflects)) = self.reflects().await? {
                request.metadata.insert(REFLECTS_KEY.to_owned(), reflects);
            }
            if let Some(own) = &marks {
                let said = self.reflects().await?.map(|(_, said)| said);
                request.metadata.insert(REFLECTS_KEY.to_owned(), own.merged_into(said));
            }
            self.check_age(&request)?;
            let actions = self.actions(&request, version);
            match self.write_entry(version, &actions, id).await {
                Ok(()) if self.is_stale() => {
                    // This process stood still between the look and the write.
                    self.reload(None).await?;
                    return match self.committed_before(&request, id).await? {
                        Some(version) => Ok(version),
                        None if request.transactions.is_empty() && self.version >= version => Ok(version),
                        None => {
                            let reason = "came after its place in the log was cleaned: nobody reads it";
                            Err(anyhow::anyhow!("log entry {version} of {} {reason}", self.name).into())
                        }
                    };
                }
                Ok(()) => {
                    self.apply(version, &actions)?;
                    return Ok(version);
                }
                Err(TransactionError::VersionAlreadyExists(_)) => {
                    if let Some(version) = self.meet_those_before(version, &request, id).await? {
                        return Ok(version);
                    }
                    lost += 1;
                    if lost > MAX_LOST_RACES {
                        return Err(anyhow::anyhow!("{}: lost {lost} races for the next version", self.name).into());
                    }
                    let most = LONGEST_BACK_OFF_MS.min(1 << lost.min(16));
                    tokio::time::sleep(Duration::from_millis(rand::random_range(0..most))).await;
                }
                Err(error) => {
                    failures += 1;
                    let error =
                        anyhow::Error::from(error).context(format!("write log entry {version} of {}", self.name));
                    if failures >= AMBIGUOUS_TRIES {
                        return Err(error.into());
                    }
                    warn!("{error:#}; trying again");
                    let most = 100 << failures;
                    tokio::time::sleep(Duration::from_millis(rand::random_range(most / 2..most))).await;
                }
            }
        }
    }

    /// Commits nothing but application ids' version: whoever has an older one can no longer commit. What the table holds is
    /// to be read after this, not before.
    ///
    /// # Errors
    /// As [`Table::commit`].
    pub async fn fence(&mut self, app_ids: &[String], version: i64) -> Result<i64, CommitError> {
        self.commit(CommitRequest::fence(app_ids, version)).await
    }

    /// Which version has this request, if one has: by its transactions, whoever wrote them; of a fence, by the id of its commit,
    /// since another's of the same version is no reason to go on.
    async fn committed_before(&mut self, request: &CommitRequest, id: Uuid) -> Result<Option<i64>, CommitError> {
        let mut landed = None;
        for (app_id, ours) in &request.guards {
            let found = self.transaction_version(app_id).await?.unwrap_or(*ours);
            self.check_fence(app_id, found, *ours)?;
        }
        for (app_id, ours) in &request.transactions {
            let Some(found) = self.transaction_version(app_id).await? else { continue };
            self.check_fence(app_id, found, *ours)?;
            if found < *ours {
                continue;
            }
            // Its first id tells: others may say a later one of them again, in entries of their own.
            landed = landed.or(Some((app_id, *ours)));
        }
        let Some((app_id, ours)) = landed else { return Ok(None) };
        // The same: look for the entry, newest first, as far as the log reaches.
        for version in (0..=self.version).rev() {
            let Some(actions) = self.read_entry(version).await? else { break };
            if transaction_of(&actions, app_id) == Some(ours) {
                if request.is_fence() && !has_id(&actions, id) {
                    break;
                }
                return Ok(Some(version));
            }
        }
        if request.is_fence() {
            return Err(CommitError::Fenced { table: self.name, app_id: app_id.clone(), found: ours, ours });
        }
        Ok(Some(self.version))
    }

    fn check_fence(&self, app_id: &str, found: i64, ours: i64) -> Result<(), CommitError> {
        if found <= ours {
            return Ok(());
        }
        Err(CommitError::Fenced { table: self.name, app_id: app_id.to_owned(), found, ours })
    }

    /// Files that no version names are deleted once they are old. Whoever could not commit for so long writes them anew.
    fn check_age(&self, request: &CommitRequest) -> anyhow::Result<()> {
        let now = chrono::Utc::now().timestamp_millis();
        let oldest = request.adds.iter().map(|pending| now - pending.add.modification_time).max().unwrap_or(0);
        let most = self.lake.retention().deleted_files / 2;
        anyhow::ensure!(
            oldest <= i64::try_from(most.as_millis()).unwrap_or(i64::MAX),
            "{}: its files were written {oldest} ms ago, and may be taken for left over after {most:?}",
            self.name
        );
        Ok(())
    }

    fn check_live(&self, removes: &[LiveFile]) -> Result<(), CommitError> {
        let gone = removes.iter().find(|f| !self.files.contains_key(&(f.partition, f.path.clone())));
        match gone {
            None => Ok(()),
            Some(file) => {
                let path = file.path.to_string();
                Err(CommitError::Conflict { table: self.name, version: self.version, path })
            }
        }
    }

    /// Takes over everything that others have committed from `taken` on, the version that was to be ours; returns the version
    /// that this commit has if it is among it.
    ///
    /// All of it before the next try: whoever took over one entry a try would be passed by for as long as others write.
    async fn meet_those_before(
        &mut self,
        taken: i64,
        request: &CommitRequest,
        id: Uuid,
    ) -> Result<Option<i64>, CommitError> {
        let mut ahead = Ahead::default();
        loop {
            let version = self.version + 1;
            let verdict = match self.next_entry(&mut ahead).await? {
                Some(actions) => self.meet(version, &actions, request, id)?,
                // Taken when we wrote, gone when we read: the log was cleaned beyond us.
                None if version == taken => Verdict::Reload,
                None => return Ok(None),
            };
            self.learned = ahead.read_at();
            match verdict {
                Verdict::Ours => return Ok(Some(version)),
                Verdict::Unrelated => self.lost_races += 1,
                Verdict::Reload => {
                    self.lost_races += 1;
                    self.reload(None).await?;
                    if let Some(version) = self.committed_before(request, id).await? {
                        return Ok(Some(version));
                    }
                    self.check_live(&request.removes)?;
                    return Ok(None);
                }
            }
        }
    }

    /// Judges an entry that came before ours, and takes it over.
    fn meet(
        &mut self,
        version: i64,
        actions: &[Action],
        request: &CommitRequest,
        id: Uuid,
    ) -> Result<Verdict, CommitError> {
        let ours = has_id(actions, id);
        let mut verdict = if ours { Verdict::Ours } else { Verdict::Unrelated };
        for (app_id, ours) in request.guards.iter().filter(|_| !matches!(verdict, Verdict::Ours)) {
            if let Some(found) = transaction_of(actions, app_id).filter(|found| found > ours) {
                self.apply(version, actions)?;
                let (app_id, ours) = (app_id.clone(), *ours);
                return Err(CommitError::Fenced { table: self.name, app_id, found, ours });
            }
        }
        let claims = request.transactions.iter().filter(|_| !ours);
        let claimed = claims.filter_map(|(app_id, wanted)| Some((app_id, wanted, transaction_of(actions, app_id)?)));
        if let Some((app_id, wanted, found)) =
            claimed.max_by_key(|(app_id, wanted, found)| (*found - **wanted, app_id.as_str() != EMBEDDED))
        {
            if found == *wanted && !request.is_fence() {
                verdict = Verdict::Ours;
            } else if found >= *wanted || !request.is_fence() {
                // A fence of the same version is that of another who takes over at the same time: one of the two wins.
                // An older one fences, too: it brought rows under our application id that we know nothing of. Only a fence,
                // after which everything is read anew, may come behind it.
                self.apply(version, actions)?;
                let app_id = app_id.clone();
                return Err(CommitError::Fenced { table: self.name, app_id, found, ours: *wanted });
            }
        }
        if redefines(actions) {
            return Ok(if matches!(verdict, Verdict::Ours) { verdict } else { Verdict::Reload });
        }
        self.apply(version, actions)?;
        if matches!(verdict, Verdict::Unrelated) {
            debug!("{}: version {version} is another's", self.name);
            self.check_live(&request.removes)?;
        }
        Ok(verdict)
    }

    fn actions(&self, request: &CommitRequest, version: i64) -> Vec<Action> {
        let now = chrono::Utc::now().timestamp_millis();
        let mut actions = Vec::with_capacity(request.adds.len() + request.removes.len() + 4);
        actions.push(Action::CommitInfo(CommitInfo {
            timestamp: Some(now),
            operation: Some(request.operation.to_owned()),
            operation_parameters: Some(Default::default()),
            read_version: u64::try_from(self.version).ok(),
            is_blind_append: Some(request.removes.is_empty() && !request.remove_all),
            engine_info: Some(concat!("onhand-hub/", env!("CARGO_PKG_VERSION")).to_owned()),
            info: request.metadata.clone().into_iter().collect(),
            ..Default::default()
        }));
        for (app_id, version) in request.transactions.iter().chain(&request.notes) {
            let transaction = Transaction { app_id: app_id.clone(), version: *version, last_updated: Some(now) };
            actions.push(Action::Txn(transaction));
        }
        let to_remove = |file: &LiveFile| Action::Remove(file.to_remove(self.name, now, request.data_change));
        if request.remove_all {
            actions.extend(self.files.values().map(to_remove));
        } else {
            actions.extend(request.removes.iter().map(to_remove));
        }
        actions.extend(request.adds.iter().map(|pending| {
            let mut add = pending.add.clone();
            add.data_change = request.data_change;
            let since = pending.since.unwrap_or(version).to_string();
            add.tags = Some([(SINCE_TAG.to_owned(), Some(since))].into());
            Action::Add(add)
        }));
        actions
    }

    async fn write_entry(&self, version: i64, actions: &[Action], id: Uuid) -> Result<(), TransactionError> {
        let mut bytes = Vec::new();
        for action in actions {
            serde_json::to_writer(&mut bytes, action)
                .map_err(|json_err| TransactionError::SerializeLogJson { json_err })?;
            bytes.push(b'\n');
        }
        let number = u64::try_from(version).expect("versions count up from 0");
        let failed = |error: std::io::Error| TransactionError::ObjectStore {
            source: object_store::Error::Generic { store: "failpoint", source: error.into() },
        };
        Failpoint::LakeEntry.check().map_err(failed)?;
        self.log.write_commit_entry(number, CommitOrBytes::LogBytes(bytes.into()), id).await?;
        Failpoint::LakeEntryWritten.check().map_err(failed)
    }
}

fn has_id(actions: &[Action], id: Uuid) -> bool {
    let id = id.to_string();
    actions.iter().any(|action| match action {
        Action::CommitInfo(info) => info.info.get(COMMIT_ID_KEY).and_then(Value::as_str) == Some(&id),
        _ => false,
    })
}

fn transaction_of(actions: &[Action], app_id: &str) -> Option<i64> {
    actions.iter().find_map(|action| match action {
        Action::Txn(txn) if txn.app_id == app_id => Some(txn.version),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::samples::{NEW_YEAR, changes, gold, lake};
    use crate::lake::{Lake, read};
    use futures::TryStreamExt;
    use serde_json::json;
    use std::time::SystemTime;

    const DAY: i64 = 86_400_000_000;

    async fn rows(table: &Table) -> Vec<(i32, i32, i64)> {
        let mut rows = Vec::new();
        let mut batches = std::pin::pin!(table.read_all(&["store_id", "item_id", "current_inventory"]));
        while let Some(batch) = batches.try_next().await.unwrap() {
            let (stores, items) = (read::ints(&batch, 0).unwrap(), read::ints(&batch, 1).unwrap());
            let on_hand = read::longs(&batch, 2).unwrap();
            rows.extend((0..batch.num_rows()).map(|i| (stores[i], items[i], on_hand[i])));
        }
        rows.sort_unstable();
        rows
    }

    async fn gold_table(lake: &Lake) -> Table {
        let mut table = Table::open_or_create(lake, TableName::InventoryCurrent).await.unwrap();
        let adds = table.write([gold(&[(1, 10, 5, 0, NEW_YEAR), (2, 10, 7, -1, NEW_YEAR), (3, 9, 1, 1, NEW_YEAR)])]);
        let adds = adds.await.unwrap();
        let request =
            CommitRequest::append(adds).with_transaction("p0", 1).with_metadata("onhand", json!({"store": 4}));
        assert_eq!(table.commit(request).await.unwrap(), 1);
        table
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_handle_that_stood_still_does_not_write_where_nobody_reads() {
        let (_folder, lake) = lake();
        let open = async || Table::open_or_create(&lake, TableName::InventoryChange).await.unwrap();
        let (mut first, mut second, mut other) = (open().await, open().await, open().await);
        let append = async |table: &Table, id: &'static str| {
            CommitRequest::append(table.write([changes(&[(id, 1, NEW_YEAR, 1, 10, -2)])]).await.unwrap())
        };
        for (n, id) in (1..).zip(["a", "b", "c", "d", "e"]) {
            let request = append(&other, id).await.with_transaction("p0", n);
            other.commit(request).await.unwrap();
        }
        other.write_checkpoint().await.unwrap();
        for version in 0..=4 {
            let entry = format!("{}/silver/inventory_change/_delta_log/{version:020}.json", lake.root());
            std::fs::remove_file(entry).unwrap();
        }
        for table in [&mut first, &mut second] {
            table.learned = std::time::SystemTime::UNIX_EPOCH;
        }
        let request = append(&first, "f").await.with_transaction("p1", 1);
        assert_eq!(first.commit(request).await.unwrap(), 6, "number 1 was free, and nobody would look there");
        assert_eq!(open().await.row_count(), 6);
        let request = append(&second, "g").await.with_transaction("p0", 3);
        assert!(matches!(second.commit(request).await, Err(CommitError::Fenced { found: 5, .. })));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_committed_is_there_after_a_reload() {
        let (_folder, lake) = lake();
        let mut table = Table::open_or_create(&lake, TableName::InventoryChange).await.unwrap();
        let written = changes(&[("a", 1, NEW_YEAR + 1, 1, 10, -2), ("b", 2, NEW_YEAR + DAY, 2, 11, 24)]);
        let adds = table.write([written]).await.unwrap();
        assert_eq!(adds.len(), 2, "one file per day");
        let version = table.commit(CommitRequest::append(adds).with_transaction("p0", 7)).await.unwrap();
        assert_eq!(version, 1);

        let mut reloaded = Table::open(&lake, TableName::InventoryChange).await.unwrap();
        assert_eq!(reloaded.files, table.files);
        assert_eq!(reloaded.transaction_version("p0").await.unwrap(), Some(7));
        assert_eq!(reloaded.transaction_version("p1").await.unwrap(), None);
        let day = reloaded.files_of_partition(18_628).collect::<Vec<_>>();
        assert_eq!(day.len(), 1);
        assert_eq!(day[0].date_time, Some((NEW_YEAR, NEW_YEAR + 999)));
        assert_eq!((day[0].store_id, day[0].rows, day[0].added_version), (Some((1, 1)), 1, 1));

        let mut seen = Vec::new();
        reloaded.visit_changes(reloaded.files_since(0), None, |row| seen.push(row)).await.unwrap();
        seen.sort_by_key(|row| row.store_id);
        let first =
            read::ChangeRow { store_id: 1, item_id: 10, date_time: NEW_YEAR + 1, change_type_id: 1, quantity: -2 };
        assert_eq!((seen.len(), seen[0]), (2, first));

        let mut dates = std::pin::pin!(reloaded.read_all(&["date", "trans_id"]));
        let batch = dates.try_next().await.unwrap().unwrap();
        assert_eq!(batch.schema().field(0).name(), "date");
        assert!(format!("{:?}", batch.column(0)).contains("2021-01-01"));

        let at_start = Table::open_at(&lake, TableName::InventoryChange, 0).await.unwrap();
        assert_eq!((at_start.version(), at_start.file_count()), (0, 0));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_handles_replace_different_stores_but_not_the_same() {
        let (_folder, lake) = lake();
        let mut one = gold_table(&lake).await;
        let mut two = Table::open(&lake, TableName::InventoryCurrent).await.unwrap();
        let of = |table: &Table, store: i64| table.files_of_partition(store).cloned().collect::<Vec<_>>();

        let request =
            CommitRequest::replace(of(&one, 1), one.write([gold(&[(1, 10, 50, 0, NEW_YEAR)])]).await.unwrap());
        assert_eq!(one.commit(request.with_transaction("p0", 2)).await.unwrap(), 2);
        let old = of(&two, 1);
        // `two` still knows version 1 only. Another store: goes through, behind the other's.
        let request =
            CommitRequest::replace(of(&two, 2), two.write([gold(&[(2, 10, 70, 0, NEW_YEAR)])]).await.unwrap());
        assert_eq!(two.commit(request.with_transaction("p1", 1)).await.unwrap(), 3);
        assert_eq!(rows(&two).await, [(1, 10, 50), (2, 10, 70), (3, 9, 2)]);
        // The same store, planned on what is gone: refused.
        let request = CommitRequest::replace(old, two.write([gold(&[(1, 10, 60, 0, NEW_YEAR)])]).await.unwrap());
        assert!(matches!(two.commit(request).await, Err(CommitError::Conflict { version: 3, .. })));
        // The same, when the handle does not know yet.
        let mut three = Table::open_at(&lake, TableName::InventoryCurrent, 1).await.unwrap();
        let request =
            CommitRequest::replace(of(&three, 1), three.write([gold(&[(1, 1, 1, 0, NEW_YEAR)])]).await.unwrap());
        assert!(matches!(three.commit(request).await, Err(CommitError::Conflict { version: 2, .. })));
        let now = Table::open(&lake, TableName::InventoryCurrent).await.unwrap();
        assert_eq!((now.version(), rows(&now).await), (3, vec![(1, 10, 50), (2, 10, 70), (3, 9, 2)]));
    }

    /// Found by `cargo chaos --seed 131`: the clock was set back while a hub fenced its lake, which then took its own fence for
    /// another hub's, and ended.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_fence_that_was_written_while_the_clock_was_set_back_is_ours() {
        let (_folder, lake) = lake();
        let mut table = gold_table(&lake).await;
        table.learned = SystemTime::now() + Duration::from_hours(1);
        // What `commit` does once its look at the newest version has become old.
        let id = Uuid::new_v4();
        let mut fence = CommitRequest::fence(&["p0".to_owned()], 1 << 32);
        fence.metadata.insert(COMMIT_ID_KEY.to_owned(), Value::String(id.to_string()));
        let version = table.version() + 1;
        table.write_entry(version, &table.actions(&fence, version), id).await.unwrap();
        assert!(table.is_stale());
        table.reload(None).await.unwrap();
        assert_eq!(table.committed_before(&fence, id).await.unwrap(), Some(version));
        let other = table.committed_before(&fence, Uuid::new_v4()).await;
        assert!(matches!(other, Err(CommitError::Fenced { .. })), "another's fence of the same version: {other:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_zombie_is_fenced_and_a_repeated_transaction_finds_itself() {
        let (_folder, lake) = lake();
        let mut zombie = gold_table(&lake).await;
        let mut heir = Table::open(&lake, TableName::InventoryCurrent).await.unwrap();
        assert_eq!(heir.fence(&["p0".to_owned()], 1 << 32).await.unwrap(), 2);
        assert_eq!(
            heir.reflects().await.unwrap(),
            Some((2, json!({"store": 4}))),
            "a fence repeats what gold reflects"
        );

        // Two that take over at the same time draw the same version: one of them wins.
        let mut rival = Table::open_at(&lake, TableName::InventoryCurrent, 1).await.unwrap();
        assert!(
            matches!(rival.fence(&["p0".to_owned()], 1 << 32).await, Err(CommitError::Fenced { .. })),
            "it meets the other's fence"
        );
        assert!(
            matches!(rival.fence(&["p0".to_owned()], 1 << 32).await, Err(CommitError::Fenced { .. })),
            "it knows the other's fence"
        );

        let late = || CommitRequest::append(Vec::new()).with_transaction("p0", 2);
        let fenced = zombie.commit(late()).await;
        assert!(matches!(fenced, Err(CommitError::Fenced { found, ours: 2, .. }) if found == 1 << 32));
        // Also with a handle that saw the fence, and one that reads it from the log.
        assert!(matches!(zombie.commit(late()).await, Err(CommitError::Fenced { .. })));
        let mut fresh = Table::open(&lake, TableName::InventoryCurrent).await.unwrap();
        assert!(matches!(fresh.commit(late()).await, Err(CommitError::Fenced { .. })));

        // Whoever finds an older commit of another under its own application id does not know the table any more.
        let mut unaware = Table::open_at(&lake, TableName::InventoryCurrent, 1).await.unwrap();
        let rows = unaware.write([gold(&[(8, 8, 8, 0, NEW_YEAR)])]).await.unwrap();
        let ahead = CommitRequest::append(rows).with_transaction("p0", 2 << 32);
        assert!(matches!(unaware.commit(ahead).await, Err(CommitError::Fenced { .. })));

        let again = CommitRequest::append(Vec::new()).with_transaction("p0", 1 << 32);
        assert_eq!(fresh.commit(again.clone()).await.unwrap(), 2, "a fresh handle knows from the log");
        let mut stale = Table::open_at(&lake, TableName::InventoryCurrent, 1).await.unwrap();
        assert_eq!(stale.commit(again).await.unwrap(), 2, "a stale handle meets it");
        assert_eq!(Table::open(&lake, TableName::InventoryCurrent).await.unwrap().version(), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn eight_writers_have_one_winner_per_version() {
        let (_folder, lake) = lake();
        gold_table(&lake).await;
        let writers = (0..8).map(|writer| {
            let lake = lake.clone();
            tokio::spawn(async move {
                let mut table = Table::open_at(&lake, TableName::InventoryCurrent, 1).await.unwrap();
                let mut versions = Vec::new();
                for round in 0..5 {
                    let adds = table.write([gold(&[(100 + writer, round, 1, 0, NEW_YEAR)])]).await.unwrap();
                    let request = CommitRequest::append(adds).with_transaction(format!("w{writer}"), i64::from(round));
                    versions.push(table.commit(request).await.unwrap());
                }
                versions
            })
        });
        let mut versions = Vec::new();
        for writer in writers.collect::<Vec<_>>() {
            versions.extend(writer.await.unwrap());
        }
        versions.sort_unstable();
        assert_eq!(versions, (2..42).collect::<Vec<_>>());
        let table = Table::open(&lake, TableName::InventoryCurrent).await.unwrap();
        assert_eq!((table.version(), table.row_count()), (41, 43));
    }

    #[tokio::test]
    async fn an_overwrite_takes_everything_out_and_metadata_is_found_again() {
        let (_folder, lake) = lake();
        let mut one = gold_table(&lake).await;
        let mut two = Table::open(&lake, TableName::InventoryCurrent).await.unwrap();
        let more = one.write([gold(&[(4, 4, 4, 0, NEW_YEAR)])]).await.unwrap();
        one.commit(CommitRequest::append(more)).await.unwrap();
        let adds = two.write([gold(&[(9, 9, 9, 0, NEW_YEAR)])]).await.unwrap();
        let request = CommitRequest::overwrite(adds).with_metadata("onhand", json!({"store": 5}));
        assert_eq!(two.commit(request).await.unwrap(), 3);
        let mut now = Table::open(&lake, TableName::InventoryCurrent).await.unwrap();
        assert_eq!(rows(&now).await, [(9, 9, 9)]);
        assert_eq!(now.reflects().await.unwrap(), Some((3, json!({"store": 5}))));
        let of_one = now.last_commit_metadata_where(|m| (m.get("onhand")?["store"] == 4).then_some(())).await.unwrap();
        assert_eq!(of_one, Some((2, ())), "carried on by the append");
    }
}
