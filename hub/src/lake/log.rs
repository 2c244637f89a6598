//! A table's state as its log tells it: version, live files, transaction versions, what commits said about themselves.
//!
//! What holds:
//! - A handle reads the log once. Afterwards it learns from its own commits, and from those of others that it meets
//!   while committing, so it never skips an entry.
//! - A handle belongs to one task. Two handles on one table, in one process or in two, are safe: the log decides.
//! - [`LiveFile::added_version`] is the version that brought the file's rows first. Compaction keeps it (as the tag
//!   [`SINCE_TAG`]), so "what came after version v" is answered by files alone.

use super::storage::Lake;
use super::tables::{ColumnType, TableName};
use anyhow::{Context, Result, bail, ensure};
use buoyant_kernel::Snapshot as KernelSnapshot;
use deltalake::kernel::{Action, Add, Remove, Snapshot};
use deltalake::logstore::LogStoreRef;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use onhand_common::Timestamp;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The tag of an Add action that names the version which brought its rows first.
pub(crate) const SINCE_TAG: &str = "onhand.since";
/// The key of a commit's metadata under which a gold commit names the silver versions it reflects.
pub const REFLECTS_KEY: &str = "onhand";
/// A handle that learned nothing for so long reads its log anew: below the shortest time for which log entries are kept.
const STALE_AFTER: Duration = Duration::from_secs(900);
/// Newest entries in which transactions are looked for before a checkpoint is read: as many as lie between two of them.
const ENTRIES_READ: usize = 128;
/// Entries that are read at the same time.
const ENTRIES_AT_ONCE: usize = 16;
/// The key of a commit's metadata under which its writer finds its own entry again.
pub(crate) const COMMIT_ID_KEY: &str = "onhandCommit";

/// A data file of a table's current version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveFile {
    /// Relative to the table's folder.
    pub path: Arc<str>,
    /// Bytes.
    pub size: u64,
    /// Store id, or days since 1970; `None` where the table has no partitions, or the value is null.
    pub partition: Option<i64>,
    /// Rows.
    pub rows: u64,
    /// Least and greatest `date_time`, microseconds; the greatest may be up to 999 µs above the true one.
    pub date_time: Option<(i64, i64)>,
    /// Least and greatest `store_id`.
    pub store_id: Option<(i32, i32)>,
    /// The version that brought its rows first.
    pub added_version: i64,
    /// Whether the log says so. It does of each file that a hub wrote; of another program's, `added_version` is the newest
    /// that it can be.
    pub since_known: bool,
    /// When it was written, milliseconds since 1970.
    pub modified: i64,
}

/// Entries that were read before they are needed, in their order. Each has to be taken over before the next is asked for.
#[derive(Default)]
pub(crate) struct Ahead {
    entries: VecDeque<Vec<Action>>,
    /// When it was asked for them: what the handle knows is as old as that, however late it takes them over.
    read_at: Option<SystemTime>,
    /// How many are read next: the more there were, the more there will be.
    wanted: i64,
    /// There were no more.
    at_end: bool,
}

impl Ahead {
    /// When the log was read for the entry that was taken last.
    pub(crate) fn read_at(&self) -> SystemTime {
        self.read_at.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// Whether an entry says anew what its table is.
pub(crate) fn redefines(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Metadata(_) | Action::Protocol(_)))
}

/// A table, opened at a version.
pub struct Table {
    pub(crate) lake: Lake,
    pub(crate) name: TableName,
    pub(crate) log: LogStoreRef,
    pub(crate) version: i64,
    /// By partition, so that one partition's files are found without looking at the others'.
    pub(crate) files: BTreeMap<(Option<i64>, Arc<str>), LiveFile>,
    /// What is known of application transactions at `version`; `None`: it is known that there is none.
    pub(crate) transactions: HashMap<String, Option<i64>>,
    /// The newest commit that has [`REFLECTS_KEY`], once it was looked for.
    pub(crate) reflects: Option<Option<(i64, Value)>>,
    /// The version of the last checkpoint, once it was looked for.
    pub(crate) checkpoint: Option<i64>,
    /// When this handle last knew the newest version. By the wall clock: it goes on while a machine sleeps.
    pub(crate) learned: SystemTime,
    /// Commits of others that came before one of ours.
    pub(crate) lost_races: u64,
}

impl Table {
    /// Opens the newest version; creates the table if it is not there.
    ///
    /// # Errors
    /// If the log cannot be read, or describes another table than this program knows.
    pub async fn open_or_create(lake: &Lake, name: TableName) -> Result<Self> {
        let log = lake.log_store(name)?;
        if !log.is_delta_table_location().await.with_context(|| format!("look for the table {name}"))? {
            lake.create_table(name, &log).await?;
        }
        Self::load(lake, name, None).await
    }

    /// Opens the newest version of a table that is there.
    ///
    /// # Errors
    /// If there is none, or its log cannot be read.
    pub async fn open(lake: &Lake, name: TableName) -> Result<Self> {
        Self::load(lake, name, None).await
    }

    /// Opens an older version.
    ///
    /// # Errors
    /// Also if the version does not exist, or its log entries were cleaned away.
    pub async fn open_at(lake: &Lake, name: TableName, version: i64) -> Result<Self> {
        Self::load(lake, name, Some(version)).await
    }

    /// Opens the version that was the newest at a time, by the times at which log entries were written.
    ///
    /// # Errors
    /// Also if the log no longer reaches back so far.
    pub async fn open_as_of(lake: &Lake, name: TableName, time: Timestamp) -> Result<Self> {
        let log = lake.log_store(name)?;
        let entries: Vec<_> = log.object_store(None).list(Some(log.log_path())).try_collect().await?;
        let versions = entries.iter().filter_map(|entry| {
            let version = entry.location.filename()?.strip_suffix(".json")?.parse::<i64>().ok()?;
            Some((version, entry.last_modified.timestamp_micros()))
        });
        let newest = versions.filter(|(_, written)| *written <= time.micros()).map(|(version, _)| version).max();
        let version = newest.with_context(|| format!("the log of {name} does not reach back to {time}"))?;
        Self::load(lake, name, Some(version)).await
    }

    async fn load(lake: &Lake, name: TableName, version: Option<i64>) -> Result<Self> {
        let log = lake.log_store(name)?;
        let mut table = Self {
            lake: lake.clone(),
            name,
            log,
            version: -1,
            files: BTreeMap::new(),
            transactions: HashMap::new(),
            reflects: None,
            checkpoint: None,
            learned: SystemTime::UNIX_EPOCH,
            lost_races: 0,
        };
        table.reload(version).await?;
        Ok(table)
    }

    /// Reads the log anew.
    pub(crate) async fn reload(&mut self, version: Option<i64>) -> Result<()> {
        let name = self.name;
        let at =
            version.map(u64::try_from).transpose().with_context(|| format!("{name} has no version {version:?}"))?;
        let asked = || match version {
            Some(version) => format!("open version {version} of {name} in {}", self.lake.root()),
            None => format!("open the table {name} in {}", self.lake.root()),
        };
        let began = SystemTime::now();
        let snapshot = Snapshot::try_new(self.log.as_ref(), at).await.with_context(asked)?;
        self.check(&snapshot)?;
        let loaded = i64::try_from(snapshot.version()).context("a version fits 63 bits")?;
        let mut files = BTreeMap::new();
        let mut views = snapshot.file_views(self.log.as_ref(), None);
        while let Some(view) = views.try_next().await.with_context(asked)? {
            ensure!(
                view.deletion_vector_descriptor().is_none(),
                "{name} has deletion vectors, which are not read here"
            );
            // Without the tag it is not known: the newest version it can have is the safe answer for whoever asks what came later.
            #[expect(deprecated, reason = "nothing else passes the tags on")]
            let add = view.add_action();
            let file = LiveFile::from_add(name, &add, loaded)?;
            files.insert((file.partition, Arc::clone(&file.path)), file);
        }
        drop(views);
        self.version = loaded;
        self.files = files;
        self.transactions.clear();
        self.reflects = None;
        self.learned = began;
        Ok(())
    }

    /// Whether so much time has gone by since this handle knew the newest version that entries after it may have been cleaned
    /// away. A clock that was set back counts, too.
    pub(crate) fn is_stale(&self) -> bool {
        self.learned.elapsed().map_or(true, |age| age > STALE_AFTER)
    }

    /// How often others were faster since the last time somebody asked.
    pub fn take_lost_races(&mut self) -> u64 {
        std::mem::take(&mut self.lost_races)
    }

    /// The table must be the one that this program writes: same columns, and nothing of Delta that it does not know.
    fn check(&self, snapshot: &Snapshot) -> Result<()> {
        let protocol = snapshot.protocol();
        let (reader, writer) = (protocol.min_reader_version(), protocol.min_writer_version());
        if reader > 1 || writer > 2 {
            bail!(
                "{} asks for a reader of version {reader} and a writer of version {writer}; known are 1 and 2",
                self.name
            );
        }
        let found = snapshot.arrow_schema();
        for (index, column) in self.name.definition().columns.iter().enumerate() {
            let field = found.fields().get(index);
            if field.is_none_or(|f| f.name() != column.name || *f.data_type() != column.kind.arrow()) {
                bail!("{}: column {index} should be {} {:?}, but is {field:?}", self.name, column.name, column.kind);
            }
        }
        Ok(())
    }

    /// Which table it is.
    pub fn name(&self) -> TableName {
        self.name
    }

    /// Which lake it is in.
    pub fn lake(&self) -> &Lake {
        &self.lake
    }

    /// The version that this handle knows.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// All live files, by partition.
    pub fn live_files(&self) -> impl Iterator<Item = &LiveFile> {
        self.files.values()
    }

    /// How many live files there are.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// How many rows there are.
    pub fn row_count(&self) -> u64 {
        self.files.values().map(|f| f.rows).sum()
    }

    /// The live files of one partition: a store, or a day.
    pub fn files_of_partition(&self, partition: i64) -> impl Iterator<Item = &LiveFile> {
        let first: (Option<i64>, Arc<str>) = (Some(partition), "".into());
        self.files.range(first..).take_while(move |((p, _), _)| *p == Some(partition)).map(|(_, file)| file)
    }

    /// The live files with rows that came after `version`, the oldest first.
    pub fn files_since(&self, version: i64) -> Vec<LiveFile> {
        let mut files: Vec<LiveFile> = self.files.values().filter(|f| f.added_version > version).cloned().collect();
        files.sort_by(|a, b| (a.added_version, a.modified, &a.path).cmp(&(b.added_version, b.modified, &b.path)));
        files
    }

    /// The version that an application committed last, if it ever did.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn transaction_version(&mut self, app_id: &str) -> Result<Option<i64>> {
        self.learn_transactions(&[app_id.to_owned()]).await?;
        Ok(self.transactions[app_id])
    }

    /// Looks all of them up at once: in the newest entries, which nearly always tell, and behind those in the checkpoint.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn learn_transactions(&mut self, app_ids: &[String]) -> Result<()> {
        let mut unknown: BTreeSet<&String> =
            app_ids.iter().filter(|app_id| !self.transactions.contains_key(*app_id)).collect();
        let mut found = HashMap::new();
        let mut entries = futures::stream::iter((0..=self.version).rev().take(ENTRIES_READ))
            .map(async |version| (version, self.read_entry(version).await))
            .buffered(ENTRIES_AT_ONCE);
        while !unknown.is_empty()
            && let Some((version, entry)) = entries.next().await
        {
            let Some(actions) = entry? else { break };
            for action in actions {
                if let Action::Txn(txn) = action {
                    unknown.remove(&txn.app_id);
                    // Newest first; and whoever is asked for next may be among them.
                    found.entry(txn.app_id).or_insert(Some(txn.version));
                }
            }
            if version == 0 {
                found.extend(std::mem::take(&mut unknown).into_iter().map(|app_id| (app_id.clone(), None)));
            }
        }
        drop(entries);
        let unknown: Vec<String> = unknown.into_iter().cloned().collect();
        if !unknown.is_empty() {
            let engine = self.log.engine(None);
            let root = self.log.root_url().to_string();
            let version = u64::try_from(self.version).context("a loaded table has a version")?;
            let look = move || {
                let snapshot = KernelSnapshot::builder_for(root).at_version(version).build(engine.as_ref())?;
                let look = |app_id: String| {
                    let found = snapshot.get_app_id_version(&app_id, engine.as_ref())?;
                    Ok((app_id, found))
                };
                unknown.into_iter().map(look).collect::<buoyant_kernel::DeltaResult<Vec<_>>>()
            };
            let looked = tokio::task::spawn_blocking(look).await?;
            found.extend(looked.with_context(|| format!("look for transactions in {}", self.name))?);
        }
        for (app_id, version) in found {
            // What is known already is as new, or newer.
            self.transactions.entry(app_id).or_insert(version);
        }
        Ok(())
    }

    /// What the commit of a version said about itself; `None` once its entry was cleaned away.
    ///
    /// # Errors
    /// If the entry is there but cannot be read.
    pub async fn commit_metadata(&self, version: i64) -> Result<Option<Map<String, Value>>> {
        let Some(actions) = self.read_entry(version).await? else { return Ok(None) };
        let info = actions.into_iter().find_map(|action| match action {
            Action::CommitInfo(info) => Some(info.info.into_iter().collect()),
            _ => None,
        });
        Ok(Some(info.unwrap_or_default()))
    }

    /// The newest commit, not newer than this handle's version, of whose metadata `find` makes something; as far back
    /// as the log has entries.
    ///
    /// # Errors
    /// If an entry cannot be read.
    pub async fn last_commit_metadata_where<T>(
        &self,
        mut find: impl FnMut(&Map<String, Value>) -> Option<T>,
    ) -> Result<Option<(i64, T)>> {
        for version in (0..=self.version).rev() {
            let Some(metadata) = self.commit_metadata(version).await? else { break };
            if let Some(found) = find(&metadata) {
                return Ok(Some((version, found)));
            }
        }
        Ok(None)
    }

    /// The silver versions that this version reflects, with the version of this table that said so first.
    ///
    /// Commits that say nothing of their own (compaction, fences) repeat what was said before them, so the newest entry
    /// normally answers; the look back is for tables that others maintain, too.
    ///
    /// # Errors
    /// If an entry cannot be read.
    pub async fn reflects(&mut self) -> Result<Option<(i64, Value)>> {
        if self.reflects.is_none() {
            self.reflects = Some(self.last_commit_metadata_where(|m| m.get(REFLECTS_KEY).cloned()).await?);
        }
        Ok(self.reflects.clone().flatten())
    }

    /// The actions of a log entry; `None` if it is not there.
    pub(crate) async fn read_entry(&self, version: i64) -> Result<Option<Vec<Action>>> {
        let Ok(number) = u64::try_from(version) else { return Ok(None) };
        let bytes = self.log.read_commit_entry(number).await;
        let bytes = bytes.with_context(|| format!("read log entry {version} of {}", self.name))?;
        let Some(bytes) = bytes else { return Ok(None) };
        // An entry is never empty: this one was cut off by a power failure, or by hand.
        ensure!(!bytes.is_empty(), "log entry {version} of {} is empty", self.name);
        let actions = deltalake::logstore::get_actions(number, &bytes);
        Ok(Some(actions.with_context(|| format!("read log entry {version} of {}", self.name))?))
    }

    /// Learns what others have committed since.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn catch_up(&mut self) -> Result<()> {
        if self.is_stale() {
            return self.reload(None).await;
        }
        let mut ahead = Ahead::default();
        while let Some(actions) = self.next_entry(&mut ahead).await? {
            if redefines(&actions) {
                return self.reload(None).await;
            }
            self.apply(self.version + 1, &actions)?;
            self.learned = ahead.read_at();
        }
        Ok(())
    }

    /// The entry after the version that this handle knows; `None` if there is none yet. Whoever is far behind reads several at a
    /// time: read one by one, from an object store, they come more slowly than others write them.
    pub(crate) async fn next_entry(&self, ahead: &mut Ahead) -> Result<Option<Vec<Action>>> {
        if ahead.entries.is_empty() && !ahead.at_end {
            let wanted = ahead.wanted.max(1);
            ahead.read_at = Some(SystemTime::now());
            let mut entries = futures::stream::iter(self.version + 1..=self.version + wanted)
                .map(async |version| self.read_entry(version).await)
                .buffered(ENTRIES_AT_ONCE);
            while let Some(Some(entry)) = entries.try_next().await? {
                ahead.entries.push_back(entry);
            }
            ahead.at_end = (ahead.entries.len() as i64) < wanted;
            ahead.wanted = (wanted * 2).min(ENTRIES_AT_ONCE as i64);
        }
        Ok(ahead.entries.pop_front())
    }

    /// Takes over what a version changed.
    pub(crate) fn apply(&mut self, version: i64, actions: &[Action]) -> Result<()> {
        self.learned = SystemTime::now();
        let mut removed = None;
        for action in actions {
            match action {
                Action::Remove(remove) => removed = removed.max(self.remove_file(remove)),
                Action::Txn(txn) => {
                    self.transactions.insert(txn.app_id.clone(), Some(txn.version));
                }
                Action::CommitInfo(info) => {
                    if let Some(reflects) = info.info.get(REFLECTS_KEY) {
                        self.reflects = Some(Some((version, reflects.clone())));
                    }
                }
                _ => {}
            }
        }
        // Another program's compaction brings rows that were there before.
        let compacted = !actions.iter().any(|action| matches!(action, Action::Add(add) if add.data_change));
        let since = removed.filter(|_| compacted).unwrap_or(version);
        // After the removes: an action for one path in both lists does not occur, whichever order they have.
        for action in actions {
            if let Action::Add(add) = action {
                let file = LiveFile::from_add(self.name, add, since)?;
                self.files.insert((file.partition, Arc::clone(&file.path)), file);
            }
        }
        self.version = version;
        Ok(())
    }

    /// Returns the version that brought its rows, if it was there.
    fn remove_file(&mut self, remove: &Remove) -> Option<i64> {
        let path: Arc<str> = remove.path.as_str().into();
        let partition = remove.partition_values.as_ref().map(|values| partition_of(self.name, values));
        let removed = match partition {
            Some(Ok(partition)) => self.files.remove(&(partition, Arc::clone(&path))),
            _ => None,
        };
        let removed =
            removed.or_else(|| self.files.extract_if(.., |(_, p), _| *p == path).last().map(|(_, file)| file));
        removed.map(|file| file.added_version)
    }

    /// The store whose root is the table's folder.
    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        self.log.object_store(None)
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} version {} ({} files)", self.name, self.version, self.files.len())
    }
}

/// Bounds, unless they make no sense: then nothing is known.
fn in_order<T: Ord>(bounds: Option<(T, T)>) -> Option<(T, T)> {
    bounds.filter(|(least, greatest)| least <= greatest)
}

impl LiveFile {
    /// Understands an Add action. `version` is the newest that can have brought its rows, unless it says which one did.
    pub(crate) fn from_add(table: TableName, add: &Add, version: i64) -> Result<Self> {
        let since = since_of(add);
        let statistics: Value = add.stats.as_deref().and_then(|s| serde_json::from_str(s).ok()).unwrap_or(Value::Null);
        let bound = |which: &str, column: &str| statistics.get(which)?.get(column);
        let time = |which| Some(Timestamp::parse(bound(which, "date_time")?.as_str()?).ok()?.micros());
        let store = |which| i32::try_from(bound(which, "store_id")?.as_i64()?).ok();
        Ok(Self {
            path: add.path.as_str().into(),
            size: u64::try_from(add.size).with_context(|| format!("{}: size {}", add.path, add.size))?,
            partition: partition_of(table, &add.partition_values)?,
            rows: statistics.get("numRecords").and_then(Value::as_u64).unwrap_or(0),
            // The log's statistics cut times to milliseconds.
            date_time: in_order(time("minValues").zip(time("maxValues").map(|t| t - t.rem_euclid(1000) + 999))),
            store_id: in_order(store("minValues").zip(store("maxValues"))),
            added_version: since.unwrap_or(version),
            since_known: since.is_some(),
            modified: add.modification_time,
        })
    }

    /// The action that takes the file out of the table.
    pub(crate) fn to_remove(&self, table: TableName, now: i64, data_change: bool) -> Remove {
        let partition_values = table.partition_column().map(|c| (c.to_owned(), self.partition_text(table)));
        Remove {
            path: self.path.to_string(),
            data_change,
            deletion_timestamp: Some(now),
            extended_file_metadata: Some(true),
            partition_values: Some(partition_values.into_iter().collect()),
            size: Some(i64::try_from(self.size).unwrap_or(i64::MAX)),
            tags: None,
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
        }
    }

    /// Where its bytes are, below the table's folder.
    pub(crate) fn location(&self) -> Path {
        Path::parse(&self.path).unwrap_or_else(|_| Path::from(self.path.as_ref()))
    }

    fn partition_text(&self, table: TableName) -> Option<String> {
        let value = self.partition?;
        match partition_type(table) {
            Some(ColumnType::Date) => {
                let day = i32::try_from(value).ok().and_then(chrono::NaiveDate::from_epoch_days)?;
                Some(day.format("%Y-%m-%d").to_string())
            }
            _ => Some(value.to_string()),
        }
    }
}

/// The version that brought an Add action's rows first, if the action says so: then a hub wrote it.
pub(crate) fn since_of(add: &Add) -> Option<i64> {
    add.tags.as_ref()?.get(SINCE_TAG)?.as_ref()?.parse().ok()
}

fn partition_type(table: TableName) -> Option<ColumnType> {
    Some(table.column(table.partition_column()?)?.1.kind)
}

fn partition_of(table: TableName, values: &HashMap<String, Option<String>>) -> Result<Option<i64>> {
    let Some(column) = table.partition_column() else { return Ok(None) };
    let Some(text) = values.get(column).and_then(Option::as_ref) else { return Ok(None) };
    let unreadable = || format!("{table}: {text:?} is no value of partition {column}");
    Ok(Some(match partition_type(table) {
        Some(ColumnType::Date) => {
            let day: chrono::NaiveDate = text.parse().with_context(unreadable)?;
            i64::from(day.to_epoch_days())
        }
        _ => text.parse().with_context(unreadable)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bounds_that_make_no_sense_say_nothing() {
        let file = |least: (&str, i64), greatest: (&str, i64)| {
            let of = |(at, store): (&str, i64)| json!({"date_time": at, "store_id": store});
            let stats = json!({"numRecords": 7, "minValues": of(least), "maxValues": of(greatest)}).to_string();
            let add = Add { path: "a".to_owned(), stats: Some(stats), ..Add::default() };
            let file = LiveFile::from_add(TableName::InventorySnapshot, &add, 1).unwrap();
            (file.date_time, file.store_id)
        };
        let (first, last) = ("2021-01-01T00:00:00.000Z", "2021-01-01T00:00:00.001Z");
        let new_year = crate::lake::samples::NEW_YEAR;
        assert_eq!(file((first, 1), (last, 9)), (Some((new_year, new_year + 1_999)), Some((1, 9))));
        assert_eq!(file((last, 9), (first, 1)), (None, None));
        assert_eq!(file(("soon", i64::MAX), (last, 9)), (None, None));
    }
}
