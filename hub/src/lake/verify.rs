//! Does gold equal the rule over silver? The rule of the design, once more, plainly, with hash maps.
//!
//! A second implementation on purpose: it shares no code with the actors, knows nothing of dirty stores, recounts or
//! restatements, and reads nothing but the tables. Gold's newest commit names the silver versions that it reflects; those
//! are read, whatever came later.

mod every_version;
mod history;
mod replica;

pub use every_version::{EveryVersion, every_version};

use super::log::{LiveFile, REFLECTS_KEY, Table};
use super::marks::{Reflected, Versions};
use super::read::{ints, longs, micros, strings};
use super::retention::Retention;
use super::storage::Lake;
use super::tables::TableName;
use anyhow::{Context, Result, anyhow};
use futures::TryStreamExt;
use hashbrown::{HashMap, HashSet};
use onhand_common::Timestamp;
use onhand_common::timestamp::MICROS_PER_DAY;
use std::fmt;
use xxhash_rust::xxh3::Xxh3;

/// Examples that are kept of what is wrong.
const EXAMPLES: usize = 10;

/// What came out.
#[derive(Debug, Clone, Default)]
pub struct Verification {
    /// The version of gold.
    pub gold_version: i64,
    /// The versions of the silver tables that it reflects, by name.
    pub silver_versions: Vec<(TableName, i64)>,
    /// Lines of `silver/inventory_change`.
    pub changes: u64,
    /// Lines among them that are there under another date, too: the hub no longer had the first in memory when the second
    /// came. The rule adds both up.
    pub under_two_dates: u64,
    /// Rows of `silver/inventory_snapshot`.
    pub counts: u64,
    /// Stores and items that the rule or gold has a row for.
    pub rows_compared: u64,
    /// How many of them differ, are missing, or should not be there.
    pub differing: u64,
    /// Other things that must not be: a line twice in silver, a latest count that is not the latest.
    pub faults: u64,
    /// The first of both, in words.
    pub examples: Vec<String>,
}

impl Verification {
    /// Nothing is wrong.
    pub fn is_equal(&self) -> bool {
        self.differing == 0 && self.faults == 0
    }

    fn differs(&mut self, example: impl FnOnce() -> String) {
        self.differing += 1;
        self.keep(example);
    }

    fn fault(&mut self, example: impl FnOnce() -> String) {
        self.faults += 1;
        self.keep(example);
    }

    fn keep(&mut self, example: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }
}

/// A store and an item.
type Key = (i32, i32);

/// What the rule gives for a store and an item, while it is being added up.
#[derive(Debug, Clone, Copy)]
struct Expected {
    counted_at: i64,
    counted: i32,
    changed: i64,
    /// The newest change that counts; before all times, if none does.
    changed_at: i64,
    /// A row of `inventory_snapshot` says so.
    confirmed: bool,
    in_gold: bool,
}

/// Compares. `progress` hears what is being done.
///
/// # Errors
/// If it cannot tell: no gold, no word of which silver versions it reflects, or one of those is no longer readable.
pub async fn verify(lake: &Lake, progress: &mut (dyn FnMut(&str) + Send)) -> Result<Verification> {
    let mut gold = Table::open(lake, TableName::InventoryCurrent).await?;
    let (_, reflects) = gold.reflects().await?.with_context(|| {
        format!("no commit of {} that is still in its log says which silver versions it reflects", gold.name())
    })?;
    let mut result = Verification { gold_version: gold.version(), ..Default::default() };

    let groups = match Reflected::read(reflects)? {
        Reflected::Whole(versions) => vec![(versions, None)],
        reflected @ Reflected::Partitions(_) => {
            let Reflected::Partitions(by) = &reflected else { unreachable!("it was matched") };
            reflected.groups(&by.all()).into_iter().map(|(versions, owned)| (versions, Some(owned))).collect()
        }
    };
    for (versions, owned) in groups {
        let group = Group { versions, stores: Box::new(move |id| owned.as_ref().is_none_or(|owned| owned.owns(id))) };
        verify_group(lake, &gold, &group, progress, &mut result).await?;
    }
    Ok(result)
}

/// Stores whose rows of gold reflect the same versions.
struct Group {
    versions: Versions,
    stores: Box<dyn Fn(i32) -> bool + Send + Sync>,
}

impl Group {
    /// The files of a table that is partitioned by store.
    fn files(&self, table: &Table) -> Vec<LiveFile> {
        let ours = |file: &&LiveFile| file.partition.is_none_or(|store_id| (self.stores)(store_id as i32));
        table.live_files().filter(ours).cloned().collect()
    }
}

async fn verify_group(
    lake: &Lake,
    gold: &Table,
    group: &Group,
    progress: &mut (dyn FnMut(&str) + Send),
    result: &mut Verification,
) -> Result<()> {
    if group.versions.is_empty() {
        // Nothing was ever committed to gold for these stores: then there must be no row.
        return compare(gold, group, &mut HashMap::new(), result).await;
    }
    let stores = names(&at(lake, group, TableName::Store, result).await?, "store_id", "name").await?;
    let types = at(lake, group, TableName::InventoryChangeType, result).await?;
    let types = names(&types, "change_type_id", "change_type").await?;

    progress("reading the latest counts");
    let latest = at(lake, group, TableName::LatestInventorySnapshot, result).await?;
    let mut expected = latest_counts(&latest, group, result).await?;
    progress("adding up the changes");
    let changes = at(lake, group, TableName::InventoryChange, result).await?;
    add_changes(&changes, group, &stores, &types, &mut expected, result).await?;
    progress("checking the counts");
    let counts = at(lake, group, TableName::InventorySnapshot, result).await?;
    check_counts(&counts, group, &mut expected, result).await?;
    progress("comparing gold");
    compare(gold, group, &mut expected, result).await
}

/// Runs [`verify`] for the command line, and [`every_version`] if that is wanted, prints what came out, and returns the exit
/// status: 0 equal, 1 differs, 2 cannot tell.
pub async fn run_verify(root: &str, every: bool, progress: &mut (dyn FnMut(&str) + Send)) -> u8 {
    let verified = async {
        let lake = Lake::existing(root, Retention::default())?;
        lake.check_has(TableName::InventoryCurrent)?;
        let newest = verify(&lake, progress).await.map_err(|error| lake.in_words(error))?;
        println!("{newest}");
        let mut equal = newest.is_equal();
        if every {
            let all = every_version(&lake, progress).await.map_err(|error| lake.in_words(error))?;
            println!("{all}");
            equal &= all.differing == 0;
        }
        Ok::<_, anyhow::Error>(equal)
    };
    match verified.await {
        Ok(equal) => u8::from(!equal),
        Err(error) => {
            eprintln!("cannot tell: {error:#}");
            2
        }
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions: Vec<String> = self.silver_versions.iter().map(|(t, v)| format!("{} {v}", t.short())).collect();
        writeln!(f, "gold version {} against the rule over silver ({})", self.gold_version, versions.join(", "))?;
        writeln!(f, "{} changes, {} counts read", self.changes, self.counts)?;
        for example in &self.examples {
            writeln!(f, "  {example}")?;
        }
        let more = (self.differing + self.faults).saturating_sub(self.examples.len() as u64);
        if more > 0 {
            writeln!(f, "  … and {more} more")?;
        }
        if self.under_two_dates > 0 {
            writeln!(f, "{} lines came again under another date, too late to be known", self.under_two_dates)?;
        }
        if self.faults > 0 {
            writeln!(f, "{} faults in silver or gold besides", self.faults)?;
        }
        write!(f, "{} rows compared, {} differing", self.rows_compared, self.differing)
    }
}

/// Opens a silver table at the version that gold reflects.
async fn at(lake: &Lake, group: &Group, name: TableName, result: &mut Verification) -> Result<Table> {
    let version = group.versions.get(name.short()).copied();
    let version =
        version.with_context(|| format!("gold's commit names no version of {name} under {REFLECTS_KEY:?}"))?;
    if !result.silver_versions.contains(&(name, version)) {
        result.silver_versions.push((name, version));
    }
    Table::open_at(lake, name, version).await.with_context(|| {
        format!("version {version} of {name}, which gold reflects, cannot be read: its log entries may have been cleaned away")
    })
}

async fn names(table: &Table, id: &str, name: &str) -> Result<HashMap<i32, String>> {
    let mut found = HashMap::new();
    let mut batches = std::pin::pin!(table.read_all(&[id, name]));
    while let Some(batch) = batches.try_next().await? {
        for (id, name) in ints(&batch, 0)?.iter().zip(strings(&batch, 1)?) {
            found.insert(*id, name.unwrap_or_default().to_owned());
        }
    }
    Ok(found)
}

async fn latest_counts(latest: &Table, group: &Group, result: &mut Verification) -> Result<HashMap<Key, Expected>> {
    let rows = usize::try_from(latest.row_count())?;
    let mut expected = HashMap::with_capacity(rows);
    let columns = ["store_id", "item_id", "date_time", "quantity"];
    let mut batches = std::pin::pin!(latest.read(group.files(latest), &columns));
    while let Some(batch) = batches.try_next().await? {
        let (stores, items) = (ints(&batch, 0)?, ints(&batch, 1)?);
        let (times, quantities) = (micros(&batch, 2)?, ints(&batch, 3)?);
        for row in 0..batch.num_rows() {
            let key = (stores[row], items[row]);
            let state = Expected {
                counted_at: times[row],
                counted: quantities[row],
                changed: 0,
                changed_at: i64::MIN,
                confirmed: false,
                in_gold: false,
            };
            if expected.insert(key, state).is_some() {
                result.fault(|| format!("{}: twice in latest_inventory_snapshot", place(key)));
            }
        }
    }
    Ok(expected)
}

async fn add_changes(
    changes: &Table,
    group: &Group,
    stores: &HashMap<i32, String>,
    types: &HashMap<i32, String>,
    expected: &mut HashMap<Key, Expected>,
    result: &mut Verification,
) -> Result<()> {
    let columns = ["store_id", "item_id", "date_time", "change_type_id", "quantity", "trans_id"];
    // Hashes of 128 bits stand for the lines: two different ones have the same once in 10^20 tables of a billion lines.
    let mut seen: HashMap<u128, i64> = HashMap::with_capacity(usize::try_from(changes.row_count())?);
    let mut hasher = Xxh3::new();
    let mut batches = std::pin::pin!(changes.read_all(&columns));
    while let Some(batch) = batches.try_next().await? {
        let (store_ids, item_ids, times) = (ints(&batch, 0)?, ints(&batch, 1)?, micros(&batch, 2)?);
        let (type_ids, quantities, transactions) = (ints(&batch, 3)?, ints(&batch, 4)?, strings(&batch, 5)?);
        for row in (0..batch.num_rows()).filter(|&row| (group.stores)(store_ids[row])) {
            result.changes += 1;
            let key @ (store, item) = (store_ids[row], item_ids[row]);
            let transaction = transactions.value(row);
            hasher.reset();
            hasher.update(&store.to_le_bytes());
            hasher.update(&item.to_le_bytes());
            hasher.update(transaction.as_bytes());
            let day = times[row].div_euclid(MICROS_PER_DAY);
            match seen.insert(hasher.digest128(), day) {
                None => {}
                Some(other) if other != day => result.under_two_dates += 1,
                Some(_) => {
                    result
                        .fault(|| format!("{}: transaction {transaction:?} is in inventory_change twice", place(key)));
                }
            }
            // JOIN store, JOIN inventory_change_type: what is not in the reference data does not count yet.
            let (Some(store_name), Some(type_name)) = (stores.get(&store), types.get(&type_ids[row])) else { continue };
            if store_name == "online" && type_name == "bopis" {
                continue;
            }
            if let Some(state) = expected.get_mut(&key)
                && times[row] >= state.counted_at
            {
                state.changed += i64::from(quantities[row]);
                state.changed_at = state.changed_at.max(times[row]);
            }
        }
    }
    Ok(())
}

/// The latest count is one that was counted, and none is newer.
async fn check_counts(
    counts: &Table,
    group: &Group,
    expected: &mut HashMap<Key, Expected>,
    result: &mut Verification,
) -> Result<()> {
    let mut batches = std::pin::pin!(counts.read_all(&["store_id", "item_id", "date_time", "quantity"]));
    let mut unknown: HashSet<Key> = HashSet::new();
    let mut newer: HashSet<Key> = HashSet::new();
    while let Some(batch) = batches.try_next().await? {
        let (stores, items) = (ints(&batch, 0)?, ints(&batch, 1)?);
        let (times, quantities) = (micros(&batch, 2)?, ints(&batch, 3)?);
        for row in (0..batch.num_rows()).filter(|&row| (group.stores)(stores[row])) {
            result.counts += 1;
            let key = (stores[row], items[row]);
            match expected.get_mut(&key) {
                None => {
                    if unknown.insert(key) {
                        result.fault(|| format!("{}: counted, but not in latest_inventory_snapshot", place(key)));
                    }
                }
                Some(state) if times[row] > state.counted_at => {
                    if newer.insert(key) {
                        let (latest, found) = (time(state.counted_at), time(times[row]));
                        result.fault(|| {
                            format!("{}: the latest count is of {latest}, one of {found} is newer", place(key))
                        });
                    }
                }
                Some(state) => state.confirmed |= times[row] == state.counted_at && quantities[row] == state.counted,
            }
        }
    }
    for (key, state) in expected.iter().filter(|(_, state)| !state.confirmed) {
        result.fault(|| {
            format!(
                "{}: the latest count ({} at {}) was never counted",
                place(*key),
                state.counted,
                time(state.counted_at)
            )
        });
    }
    Ok(())
}

async fn compare(
    gold: &Table,
    group: &Group,
    expected: &mut HashMap<Key, Expected>,
    result: &mut Verification,
) -> Result<()> {
    let columns = ["store_id", "item_id", "snapshot_quantity", "change_quantity", "current_inventory", "date_time"];
    let mut batches = std::pin::pin!(gold.read(group.files(gold), &columns));
    let mut unexpected: HashSet<Key> = HashSet::new();
    while let Some(batch) = batches.try_next().await? {
        let (stores, items, counted) = (ints(&batch, 0)?, ints(&batch, 1)?, ints(&batch, 2)?);
        let (changed, on_hand, times) = (longs(&batch, 3)?, longs(&batch, 4)?, micros(&batch, 5)?);
        for row in 0..batch.num_rows() {
            let key = (stores[row], items[row]);
            let found = (counted[row], changed[row], on_hand[row], times[row]);
            let Some(state) = expected.get_mut(&key) else {
                if unexpected.insert(key) {
                    result.rows_compared += 1;
                    result.differs(|| format!("{}: gold has {}, the rule gives no row", place(key), shown(found)));
                } else {
                    result.fault(|| format!("{}: twice in gold", place(key)));
                }
                continue;
            };
            if std::mem::replace(&mut state.in_gold, true) {
                result.fault(|| format!("{}: twice in gold", place(key)));
                continue;
            }
            result.rows_compared += 1;
            let wanted = state.row();
            if found != wanted {
                let (found, wanted) = (shown(found), shown(wanted));
                result.differs(|| format!("{}: gold has {found}, the rule gives {wanted}", place(key)));
            }
        }
    }
    for (key, state) in expected.iter().filter(|(_, state)| !state.in_gold) {
        result.rows_compared += 1;
        result.differs(|| format!("{}: gold has no row, the rule gives {}", place(*key), shown(state.row())));
    }
    Ok(())
}

/// A row of gold without its key: counted, changed, on hand, time.
type Row = (i32, i64, i64, i64);

impl Expected {
    fn row(&self) -> Row {
        (self.counted, self.changed, i64::from(self.counted) + self.changed, self.counted_at.max(self.changed_at))
    }
}

fn place((store, item): Key) -> String {
    format!("store {store} item {item}")
}

fn shown((counted, changed, on_hand, at): Row) -> String {
    format!("{counted} + {changed} = {on_hand} at {}", time(at))
}

fn time(micros: i64) -> String {
    Timestamp::from_micros(micros).map_or_else(|_| anyhow!("{micros} µs").to_string(), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::CommitRequest;
    use crate::lake::samples::{self, Change, NEW_YEAR, RecordBatch, batch, changes, gold};
    use serde_json::json;

    const HOUR: i64 = 3_600_000_000;

    async fn put(lake: &Lake, name: TableName, rows: RecordBatch) -> i64 {
        let mut table = Table::open_or_create(lake, name).await.unwrap();
        let adds = table.write([rows]).await.unwrap();
        table.commit(CommitRequest::append(adds)).await.unwrap()
    }

    /// Store, item, time, quantity.
    type Counted = (i32, i32, i64, i32);

    fn latest(rows: &[Counted]) -> RecordBatch {
        let columns = vec![
            samples::ints(rows.iter().map(|r| r.0)),
            samples::ints(rows.iter().map(|r| r.1)),
            samples::ints(rows.iter().map(|_| 7)),
            samples::times(rows.iter().map(|r| r.2)),
            samples::ints(rows.iter().map(|r| r.3)),
        ];
        batch(TableName::LatestInventorySnapshot, columns)
    }

    fn counts(rows: &[Counted]) -> RecordBatch {
        let columns = vec![
            samples::ints(rows.iter().map(|r| r.1)),
            samples::ints(rows.iter().map(|_| 7)),
            samples::ints(rows.iter().map(|r| r.0)),
            samples::times(rows.iter().map(|r| r.2)),
            samples::ints(rows.iter().map(|r| r.3)),
            samples::texts(rows.iter().map(|_| "agent")),
            samples::longs(rows.iter().map(|_| 1)),
            samples::longs(0..rows.len() as i64),
        ];
        batch(TableName::InventorySnapshot, columns)
    }

    const CHANGES: [Change<'static>; 8] = [
        ("a", 1, NEW_YEAR, 1, 10, -2),        // at the count's instant: counts
        ("b", 1, NEW_YEAR - 1, 1, 10, -100),  // before it: does not
        ("c", 1, NEW_YEAR + HOUR, 4, 10, -1), // bopis in a shop: counts
        ("c", 2, NEW_YEAR + HOUR, 4, 10, -1), // bopis online: does not
        ("d", 2, NEW_YEAR + HOUR, 1, 10, -3), // a sale online: counts
        ("e", 1, NEW_YEAR + HOUR, 9, 10, -7), // an unknown change type
        ("f", 5, NEW_YEAR + HOUR, 1, 10, -7), // an unknown store
        ("g", 1, NEW_YEAR + HOUR, 1, 99, -7), // an item never counted
    ];
    const COUNTS: [Counted; 5] = [
        (1, 10, NEW_YEAR - HOUR, 1),
        (1, 10, NEW_YEAR, 50),
        (1, 11, NEW_YEAR, 5),
        (2, 10, NEW_YEAR, 20),
        (5, 10, NEW_YEAR, 9),
    ];
    const LATEST: [Counted; 4] =
        [(1, 10, NEW_YEAR, 50), (1, 11, NEW_YEAR, 5), (2, 10, NEW_YEAR, 20), (5, 10, NEW_YEAR, 9)];
    const GOLD: [(i32, i32, i32, i64, i64); 4] = [
        (1, 10, 50, -3, NEW_YEAR + HOUR),
        (1, 11, 5, 0, NEW_YEAR),
        (2, 10, 20, -3, NEW_YEAR + HOUR),
        (5, 10, 9, 0, NEW_YEAR),
    ];

    async fn verified(
        lines: &[Change<'_>],
        counted: &[Counted],
        newest: &[Counted],
        current: &[(i32, i32, i32, i64, i64)],
    ) -> (Verification, Lake, tempfile::TempDir) {
        let (folder, lake) = samples::lake();
        let stores = vec![samples::ints([1, 2]), samples::texts(["Main Street", "online"])];
        let kinds = vec![samples::ints([1, 2, 3, 4]), samples::texts(["sale", "restock", "shrinkage", "bopis"])];
        let reflects = json!({
            "store": put(&lake, TableName::Store, batch(TableName::Store, stores)).await,
            "inventory_change_type":
                put(&lake, TableName::InventoryChangeType, batch(TableName::InventoryChangeType, kinds)).await,
            "inventory_change": put(&lake, TableName::InventoryChange, changes(lines)).await,
            "inventory_snapshot": put(&lake, TableName::InventorySnapshot, counts(counted)).await,
            "latest_inventory_snapshot": put(&lake, TableName::LatestInventorySnapshot, latest(newest)).await,
        });
        // Silver goes on; gold does not know yet.
        put(&lake, TableName::InventoryChange, changes(&[("later", 1, NEW_YEAR + HOUR, 1, 10, -9)])).await;
        let mut table = Table::open_or_create(&lake, TableName::InventoryCurrent).await.unwrap();
        let adds = table.write([gold(current)]).await.unwrap();
        table.commit(CommitRequest::append(adds).with_metadata(REFLECTS_KEY, reflects)).await.unwrap();
        (verify(&lake, &mut |_| ()).await.unwrap(), lake, folder)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_rule_holds() {
        let (result, lake, _folder) = verified(&CHANGES, &COUNTS, &LATEST, &GOLD).await;
        assert!(result.is_equal(), "{result}");
        assert_eq!((result.rows_compared, result.changes, result.counts), (4, 8, 5));
        assert!(result.to_string().contains("4 rows compared, 0 differing"));
        assert_eq!(run_verify(lake.root(), false, &mut |_| ()).await, 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_kind_of_difference_is_found() {
        let mut wrong = GOLD;
        wrong[0].3 += 1;
        let (result, lake, _folder) = verified(&CHANGES, &COUNTS, &LATEST, &wrong).await;
        assert_eq!((result.differing, result.faults), (1, 0), "a wrong sum");
        assert_eq!(
            result.examples,
            [
                "store 1 item 10: gold has 50 + -2 = 48 at 2021-01-01T01:00:00.000Z, the rule gives 50 + -3 = 47 at 2021-01-01T01:00:00.000Z"
            ]
        );
        assert_eq!(run_verify(lake.root(), false, &mut |_| ()).await, 1);

        let mut wrong = GOLD;
        wrong[1].4 += 1;
        assert_eq!(verified(&CHANGES, &COUNTS, &LATEST, &wrong).await.0.differing, 1, "a wrong time");
        let missing = verified(&CHANGES, &COUNTS, &LATEST, &GOLD[1..]).await.0;
        assert_eq!((missing.differing, missing.rows_compared), (1, 4), "a missing row");
        let mut more = GOLD.to_vec();
        more.push((1, 99, 0, -7, NEW_YEAR));
        let result = verified(&CHANGES, &COUNTS, &LATEST, &more).await.0;
        assert_eq!((result.differing, result.rows_compared), (1, 5), "a row too many");
        more[4] = GOLD[0];
        let result = verified(&CHANGES, &COUNTS, &LATEST, &more).await.0;
        assert_eq!((result.differing, result.faults), (0, 1), "a row twice");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_fault_of_silver_is_found() {
        let mut lines = CHANGES.to_vec();
        lines.push(("f", 5, NEW_YEAR + 2 * HOUR, 1, 10, -7));
        let result = verified(&lines, &COUNTS, &LATEST, &GOLD).await.0;
        assert_eq!((result.differing, result.faults), (0, 1), "a line twice: {result}");

        let mut counted = COUNTS.to_vec();
        counted.push((1, 11, NEW_YEAR + 1, 5));
        let result = verified(&CHANGES, &counted, &LATEST, &GOLD).await.0;
        assert_eq!((result.differing, result.faults), (0, 1), "a newer count: {result}");
        counted[5] = (7, 7, NEW_YEAR, 7);
        let result = verified(&CHANGES, &counted, &LATEST, &GOLD).await.0;
        assert_eq!((result.differing, result.faults), (0, 1), "a count that is not among the latest: {result}");
        counted[5] = COUNTS[0];
        counted[2] = (1, 11, NEW_YEAR, 6);
        let result = verified(&CHANGES, &counted, &LATEST, &GOLD).await.0;
        assert_eq!((result.differing, result.faults), (0, 1), "a latest count that nobody counted: {result}");
        counted[5] = COUNTS[2];
        let result = verified(&CHANGES, &counted, &LATEST, &GOLD).await.0;
        assert!(result.is_equal(), "of a count and its correction, either may be the latest: {result}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_cannot_be_told_is_said() {
        let (_empty, lake) = samples::lake();
        assert_eq!(run_verify(lake.root(), false, &mut |_| ()).await, 2, "no gold");
        assert_eq!(run_verify("/nowhere/at/all", false, &mut |_| ()).await, 2, "no lake");
        let (_, lake, _folder) = verified(&CHANGES, &COUNTS, &LATEST, &GOLD).await;
        let mut table = Table::open(&lake, TableName::InventoryChange).await.unwrap();
        table.write_checkpoint().await.unwrap();
        for version in 0..2 {
            let log = format!("{}/silver/inventory_change/_delta_log", lake.root());
            std::fs::remove_file(format!("{log}/{version:020}.json")).unwrap();
        }
        let error = verify(&lake, &mut |_| ()).await.unwrap_err();
        assert!(format!("{error:#}").contains("cleaned away"), "{error:#}");
    }
}
