//! The rule at every version of gold that can still be opened, against the silver versions which each of them names.
//!
//! A second implementation, as its parent is, and another one than that: it walks the logs and keeps rows in memory, some 100
//! bytes for each line of silver. In embedded form each file is read once. What cannot be looked at any more, since log
//! entries or files are gone, is skipped and counted: upkeep cleans up, and that is no fault.

use super::history::History;
use super::replica::{Replica, Rows};
use super::{Row, place, shown};
use crate::lake::log::{LiveFile, Table};
use crate::lake::marks::{Reflected, Versions};
use crate::lake::read::{ints, longs, micros, strings};
use crate::lake::storage::Lake;
use crate::lake::tables::TableName;
use crate::ownership::OwnedPartitions;
use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

/// Files that are read at the same time.
const FILES_AT_ONCE: usize = 8;
/// What the rule reads.
const SILVER: [TableName; 4] =
    [TableName::Store, TableName::InventoryChangeType, TableName::LatestInventorySnapshot, TableName::InventoryChange];

/// What came out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EveryVersion {
    /// Versions of gold that were compared.
    pub compared: u64,
    /// Versions that could not be: log entries or data files of theirs, or of what they reflect, are no longer there.
    pub skipped: u64,
    /// Versions among the compared ones that are not what the rule gives.
    pub differing: u64,
    /// The first of those, with how many rows differ, and one of them in words.
    pub first: Option<(i64, usize, String)>,
}

impl fmt::Display for EveryVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compared, skipped, differing, first } = self;
        if let Some((version, rows, example)) = first {
            writeln!(f, "  the first is version {version}, with {rows} differing rows: {example}")?;
        }
        write!(f, "{compared} gold versions compared, {skipped} skipped, {differing} differing")
    }
}

type FileKey = (TableName, Arc<str>);

/// Compares them all. `progress` hears what is being done.
///
/// # Errors
/// If a table cannot be read, or gold names silver versions that there are not.
pub async fn every_version(lake: &Lake, progress: &mut (dyn FnMut(&str) + Send)) -> Result<EveryVersion> {
    progress("reading the logs");
    // Gold first: a hub that goes on meanwhile never has it name what is not in silver yet.
    let gold = History::read(lake, TableName::InventoryCurrent).await?;
    let mut reader = Reader::open(lake).await?;
    let mut words = Table::open_at(lake, TableName::InventoryCurrent, gold.first()).await?;
    let mut result = EveryVersion { skipped: u64::try_from(gold.first())?, ..Default::default() };
    let mut parts: Vec<Part> = Vec::new();
    let (mut at, mut missing) = (None, BTreeSet::new());
    progress("comparing each version of gold");
    for version in gold.first()..=gold.newest() {
        if version > words.version() {
            let actions = words.read_entry(version).await?;
            words.apply(version, &actions.with_context(|| format!("log entry {version} of gold is gone by now"))?)?;
        }
        let said = words.reflects().await?.map(|(_, said)| Reflected::read(said)).transpose()?;
        let unknown = said.is_none() && (gold.first() > 0 || words.file_count() > 0);
        let wanted = wanted(said);
        if !parts.iter().map(|part| &part.owned).eq(wanted.iter().map(|(owned, _)| owned)) {
            // Other stores belong together now: from the beginning.
            parts = wanted.iter().map(|(owned, _)| Part::new(owned.clone())).collect();
            (at, missing) = (None, BTreeSet::new());
        }
        let (gone, come) = gold.between(at, Some(version));
        let rows = reader.rows(gold.table(), gone.iter().chain(&come)).await?;
        for (files, times) in [(gone, -1), (come, 1)] {
            for file in files {
                let key = (TableName::InventoryCurrent, Arc::clone(&file.path));
                match &rows[&file.path] {
                    Some(rows) => parts.iter_mut().for_each(|part| part.add(rows, false, times)),
                    None => set(&mut missing, &key, times),
                }
                set(&mut reader.live, &key, times);
            }
        }
        at = Some(version);

        let mut all_there = missing.is_empty() && !unknown;
        for (part, (_, versions)) in parts.iter_mut().zip(&wanted) {
            all_there &= part.move_to(versions, &mut reader).await?;
        }
        reader.forget(&parts);
        if all_there {
            result.compare(version, &mut parts);
        } else {
            result.skipped += 1;
        }
    }
    Ok(result)
}

/// Which stores belong together, and what their rows reflect. `None`: all.
fn wanted(said: Option<Reflected>) -> Vec<(Option<OwnedPartitions>, Versions)> {
    match said {
        None => vec![(None, Versions::new())],
        Some(Reflected::Whole(versions)) => vec![(None, versions)],
        Some(Reflected::Partitions(by)) => {
            let all = by.all();
            let mut each = BTreeMap::new();
            for (versions, owned) in Reflected::Partitions(by).groups(&all) {
                each.extend(owned.owned.into_iter().map(|partition| (partition, versions.clone())));
            }
            let alone = |partition| Some(OwnedPartitions { owned: [partition].into(), ..all.clone() });
            each.into_iter().map(|(partition, versions)| (alone(partition), versions)).collect()
        }
    }
}

impl EveryVersion {
    fn compare(&mut self, version: i64, parts: &mut [Part]) {
        self.compared += 1;
        let mut rows = 0;
        let mut example = None;
        for part in parts {
            let replica = &mut part.replica;
            rows += replica.differing().len();
            if let Some(&key) = replica.differing().first() {
                let words = |rows: Vec<Row>| match rows.as_slice() {
                    [] => "no row".to_owned(),
                    rows => rows.iter().map(|row| shown(*row)).collect::<Vec<_>>().join(" and "),
                };
                let (found, wanted) = (words(replica.of_gold(key)), words(replica.of_rule(key)));
                example.get_or_insert_with(|| format!("{}: gold has {found}, the rule gives {wanted}", place(key)));
            }
        }
        if let Some(example) = example {
            self.differing += 1;
            self.first.get_or_insert((version, rows, example));
        }
    }
}

/// Stores that belong together, and silver as their rows of gold reflect it.
struct Part {
    /// `None`: all stores.
    owned: Option<OwnedPartitions>,
    replica: Replica,
    at: HashMap<TableName, i64>,
    live: BTreeSet<FileKey>,
    /// Files of theirs that are no longer there.
    missing: BTreeSet<FileKey>,
}

impl Part {
    fn new(owned: Option<OwnedPartitions>) -> Self {
        Self { owned, replica: Replica::default(), at: HashMap::new(), live: BTreeSet::new(), missing: BTreeSet::new() }
    }

    fn add(&mut self, rows: &Rows, of_types: bool, times: i64) {
        let owned = &self.owned;
        self.replica.add(rows, of_types, |store| owned.as_ref().is_none_or(|owned| owned.owns(store)), times);
    }

    /// Makes silver what these versions have. Returns whether all of that is there.
    async fn move_to(&mut self, versions: &Versions, reader: &mut Reader) -> Result<bool> {
        for name in SILVER {
            let to = versions.get(name.short()).copied();
            ensure!(to.is_some() || versions.is_empty(), "a commit of gold names no version of {name}");
            let history = Arc::clone(&reader.histories[&name]);
            if to.is_some_and(|to| to < history.first()) {
                return Ok(false);
            }
            let newest = history.newest();
            ensure!(to.is_none_or(|to| to <= newest), "gold reflects version {to:?} of {name}, which has {newest}");
            let from = self.at.get(&name).copied();
            if from == to {
                continue;
            }
            let (gone, come) = history.between(from, to);
            let rows = reader.rows(history.table(), gone.iter().chain(&come)).await?;
            for (files, times) in [(gone, -1), (come, 1)] {
                for file in files {
                    let key = (name, Arc::clone(&file.path));
                    match &rows[&file.path] {
                        // Its rows are not there, and need not go.
                        _ if times < 0 && self.missing.contains(&key) => set(&mut self.missing, &key, times),
                        None => set(&mut self.missing, &key, times),
                        Some(rows) => {
                            self.add(rows, name == TableName::InventoryChangeType, times);
                            set(&mut self.live, &key, times);
                        }
                    }
                }
            }
            match to {
                Some(to) => self.at.insert(name, to),
                None => self.at.remove(&name),
            };
        }
        Ok(self.missing.is_empty())
    }
}

fn set(files: &mut BTreeSet<FileKey>, file: &FileKey, times: i64) {
    if times > 0 {
        files.insert(file.clone());
    } else {
        files.remove(file);
    }
}

/// Reads files, and keeps what it read for as long as somebody has it.
struct Reader {
    histories: HashMap<TableName, Arc<History>>,
    kept: HashMap<FileKey, Option<Arc<Rows>>>,
    /// Files of gold that are live where it is being looked at.
    live: BTreeSet<FileKey>,
}

impl Reader {
    async fn open(lake: &Lake) -> Result<Self> {
        let mut histories = HashMap::new();
        for name in SILVER {
            histories.insert(name, Arc::new(History::read(lake, name).await?));
        }
        Ok(Self { histories, kept: HashMap::new(), live: BTreeSet::new() })
    }

    /// The rows of some files of a table; `None` for one that is no longer there.
    async fn rows(
        &mut self,
        table: &Table,
        files: impl Iterator<Item = &LiveFile>,
    ) -> Result<HashMap<Arc<str>, Option<Arc<Rows>>>> {
        let name = table.name();
        let mut found = HashMap::new();
        let mut unread = Vec::new();
        for file in files {
            match self.kept.get(&(name, Arc::clone(&file.path))) {
                Some(rows) => {
                    found.insert(Arc::clone(&file.path), rows.clone());
                }
                None => unread.push(file.clone()),
            }
        }
        let mut reads = futures::stream::iter(unread)
            .map(|file| async move {
                let rows = match read(table, &file).await {
                    Ok(rows) => Some(Arc::new(rows)),
                    Err(_) if is_gone(table, &file).await? => None,
                    Err(error) => return Err(error),
                };
                Ok((file.path, rows))
            })
            .buffered(FILES_AT_ONCE);
        while let Some((path, rows)) = reads.try_next().await? {
            self.kept.insert((name, Arc::clone(&path)), rows.clone());
            found.insert(path, rows);
        }
        Ok(found)
    }

    /// Forgets what no part has.
    fn forget(&mut self, parts: &[Part]) {
        let live = &self.live;
        self.kept.retain(|file, _| live.contains(file) || parts.iter().any(|part| part.live.contains(file)));
    }
}

async fn is_gone(table: &Table, file: &LiveFile) -> Result<bool> {
    match table.store().head(&file.location()).await {
        Ok(_) => Ok(false),
        Err(object_store::Error::NotFound { .. }) => Ok(true),
        Err(error) => Err(error).with_context(|| format!("look for {}/{}", table.name(), file.path)),
    }
}

async fn read(table: &Table, file: &LiveFile) -> Result<Rows> {
    let name = table.name();
    let columns: &[&str] = match name {
        TableName::Store => &["store_id", "name"],
        TableName::InventoryChangeType => &["change_type_id", "change_type"],
        TableName::InventoryChange => &["store_id", "item_id", "date_time", "change_type_id", "quantity"],
        TableName::LatestInventorySnapshot => &["store_id", "item_id", "date_time", "quantity"],
        _ => &["store_id", "item_id", "snapshot_quantity", "change_quantity", "current_inventory", "date_time"],
    };
    let mut rows = match name {
        TableName::Store | TableName::InventoryChangeType => Rows::Names(Vec::new()),
        TableName::InventoryChange => Rows::Changes(Vec::new()),
        TableName::LatestInventorySnapshot => Rows::Counts(Vec::new()),
        _ => Rows::Gold(Vec::new()),
    };
    let mut batches = std::pin::pin!(table.read(vec![file.clone()], columns));
    while let Some(batch) = batches.try_next().await? {
        let (first, all) = (ints(&batch, 0)?, 0..batch.num_rows());
        match &mut rows {
            Rows::Names(rows) => {
                let names = strings(&batch, 1)?.iter();
                rows.extend(first.iter().zip(names).map(|(id, name)| (*id, name.unwrap_or_default().to_owned())));
            }
            Rows::Changes(rows) => {
                let (items, times) = (ints(&batch, 1)?, micros(&batch, 2)?);
                let (kinds, quantities) = (ints(&batch, 3)?, ints(&batch, 4)?);
                rows.extend(all.map(|row| ((first[row], items[row]), (times[row], kinds[row], quantities[row]))));
            }
            Rows::Counts(rows) => {
                let (items, times, quantities) = (ints(&batch, 1)?, micros(&batch, 2)?, ints(&batch, 3)?);
                rows.extend(all.map(|row| ((first[row], items[row]), (times[row], quantities[row]))));
            }
            Rows::Gold(rows) => {
                let (items, counted) = (ints(&batch, 1)?, ints(&batch, 2)?);
                let (changed, on_hand, times) = (longs(&batch, 3)?, longs(&batch, 4)?, micros(&batch, 5)?);
                rows.extend(
                    all.map(|row| ((first[row], items[row]), (counted[row], changed[row], on_hand[row], times[row]))),
                );
            }
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::CommitRequest;
    use crate::lake::log::REFLECTS_KEY;
    use crate::lake::samples::{self, NEW_YEAR, RecordBatch, batch, changes, gold};
    use crate::lake::upkeep::CompactionPolicy;
    use serde_json::{Value, json};

    /// A count of 50 of items 10 in stores 1 and 2, and the tables that go on.
    struct Story {
        lake: Lake,
        _folder: tempfile::TempDir,
        changes: Table,
        gold: Table,
        reflects: Value,
        sold: [i64; 2],
    }

    impl Story {
        async fn begin() -> Self {
            let (folder, lake) = samples::lake();
            let names = |names: [&str; 2]| vec![samples::ints([1, 2]), samples::texts(names)];
            let twice = |value: i32| samples::ints([value, value]);
            let counted =
                vec![samples::ints([1, 2]), twice(10), twice(7), samples::times([NEW_YEAR, NEW_YEAR]), twice(50)];
            let (store, kind) = (TableName::Store, TableName::InventoryChangeType);
            let latest = TableName::LatestInventorySnapshot;
            let reflects = json!({
                "store": put(&lake, store, batch(store, names(["a shop", "another"]))).await,
                "inventory_change_type": put(&lake, kind, batch(kind, names(["sale", "restock"]))).await,
                "latest_inventory_snapshot": put(&lake, latest, batch(latest, counted)).await,
            });
            let changes = Table::open_or_create(&lake, TableName::InventoryChange).await.unwrap();
            let gold = Table::open_or_create(&lake, TableName::InventoryCurrent).await.unwrap();
            Self { lake, _folder: folder, changes, gold, reflects, sold: [0, 0] }
        }

        /// Sells one of each store's item; in silver alone.
        async fn sell(&mut self) -> i64 {
            let id = format!("t{}", self.changes.version());
            let row = |store| (id.as_str(), store, NEW_YEAR + 1, 1, 10, -1);
            let adds = self.changes.write([changes(&[row(1), row(2)])]).await.unwrap();
            self.sold = self.sold.map(|sold| sold + 1);
            self.changes.commit(CommitRequest::append(adds)).await.unwrap()
        }

        /// Writes gold, `wrong` by so much; what it says it reflects is what it is made of.
        async fn write_gold(&mut self, wrong: i64) -> i64 {
            let mut reflects = self.reflects.clone();
            reflects["inventory_change"] = self.changes.version().into();
            let sold = self.sold;
            self.write_gold_of(&[(1, sold[0]), (2, sold[1] + wrong)], reflects).await
        }

        async fn write_gold_of(&mut self, sold: &[(i32, i64)], reflects: Value) -> i64 {
            let stores: Vec<i64> = sold.iter().map(|(store, _)| i64::from(*store)).collect();
            let gone =
                self.gold.live_files().filter(|file| stores.contains(&file.partition.unwrap())).cloned().collect();
            let at = |sold: i64| NEW_YEAR + i64::from(sold > 0);
            let rows: Vec<_> = sold.iter().map(|&(store, sold)| (store, 10, 50, -sold, at(sold))).collect();
            let adds = self.gold.write([gold(&rows)]).await.unwrap();
            let request = CommitRequest::replace(gone, adds).with_metadata(REFLECTS_KEY, reflects);
            self.gold.commit(request).await.unwrap()
        }

        async fn looked_at(&self) -> EveryVersion {
            every_version(&self.lake, &mut |_| ()).await.unwrap()
        }
    }

    async fn put(lake: &Lake, name: TableName, rows: RecordBatch) -> i64 {
        let mut table = Table::open_or_create(lake, name).await.unwrap();
        let adds = table.write([rows]).await.unwrap();
        table.commit(CommitRequest::append(adds)).await.unwrap()
    }

    fn found(compared: u64, skipped: u64) -> EveryVersion {
        EveryVersion { compared, skipped, ..Default::default() }
    }

    /// Five rounds; silver is compacted after the third, and goes on beyond the last.
    async fn five_rounds() -> Story {
        let mut story = Story::begin().await;
        for round in 0..5 {
            story.sell().await;
            story.write_gold(0).await;
            if round == 2 {
                let policy = CompactionPolicy { min_files: 2, ..Default::default() };
                assert_eq!(story.changes.compact(&policy).await.unwrap().removed, 3);
            }
        }
        story.sell().await;
        story
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_version_is_compared_with_what_it_reflects() {
        let mut story = five_rounds().await;
        // A commit that changes nothing says what was said before.
        story.gold.commit(CommitRequest::append(Vec::new())).await.unwrap();
        assert_eq!(story.looked_at().await, found(7, 0), "version 0 is empty, and so is what it reflects");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_difference_in_an_old_version_is_named_and_verify_of_the_newest_does_not_see_it() {
        let mut story = five_rounds().await;
        let version = story.write_gold(1).await;
        story.write_gold(1).await;
        story.write_gold(0).await;
        let found = story.looked_at().await;
        assert_eq!((found.compared, found.skipped, found.differing), (9, 0, 2));
        assert_eq!(
            found.to_string(),
            format!(
                "  the first is version {version}, with 1 differing rows: store 2 item 10: gold has 50 + -7 = 43 at 2021-01-01T00:00:00.000001Z, the rule gives \
                 50 + -6 = 44 at 2021-01-01T00:00:00.000001Z\n9 gold versions compared, 0 skipped, 2 differing"
            )
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_upkeep_took_away_is_skipped() {
        let mut story = five_rounds().await;
        let before = Table::open_at(&story.lake, TableName::InventoryChange, 3).await.unwrap();
        let replaced = before.live_files().find(|file| file.added_version == 2).unwrap().clone();
        let folder = format!("{}/silver/inventory_change", story.lake.root());
        std::fs::remove_file(format!("{folder}/{}", replaced.path)).unwrap();
        assert_eq!(
            story.looked_at().await,
            found(4, 2),
            "rounds 2 and 3 had it; after the compaction it is not needed"
        );

        // Log entries, of silver and then of gold, behind checkpoints.
        story.changes.write_checkpoint().await.unwrap();
        for version in 0..5 {
            std::fs::remove_file(format!("{folder}/_delta_log/{version:020}.json")).unwrap();
        }
        story.write_gold(0).await;
        assert_eq!(story.looked_at().await, found(2, 5), "only what reflects the newest silver, and version 0");
        story.gold.write_checkpoint().await.unwrap();
        story.write_gold(0).await;
        for version in 0..6 {
            let log = format!("{}/gold/inventory_current/_delta_log", story.lake.root());
            std::fs::remove_file(format!("{log}/{version:020}.json")).unwrap();
        }
        assert_eq!(story.looked_at().await, found(2, 6));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_partition_reflects_versions_of_its_own() {
        let mut story = five_rounds().await;
        let whole = story.looked_at().await.compared;
        let marked = |reflects: &Value, versions: [i64; 2]| {
            let [even, odd] = versions.map(|version| {
                let mut versions = reflects.clone();
                versions["inventory_change"] = version.into();
                versions
            });
            json!({"topic": "t", "partitions": 2, "marks": {"0": even, "1": odd}})
        };
        // Store 2 is of partition 0, and goes ahead.
        let (behind, ahead) = (story.changes.version(), story.sell().await);
        story.write_gold_of(&[(1, 6), (2, 7)], marked(&story.reflects, [ahead, behind])).await;
        assert_eq!(story.looked_at().await, found(whole + 1, 0));
        story.write_gold_of(&[(1, 7)], marked(&story.reflects, [ahead, behind])).await;
        let result = story.looked_at().await;
        assert_eq!((result.compared, result.differing), (whole + 2, 1));
        assert!(result.first.unwrap().2.starts_with("store 1 item 10: gold has 50 + -7"));
        story.write_gold_of(&[(1, 7)], marked(&story.reflects, [ahead, ahead])).await;
        assert_eq!(story.looked_at().await.differing, 1, "it has caught up");
    }
}
