//! Gold again from silver, or silver and gold again from bronze. Nothing else may run on the lake meanwhile; a hub that
//! does is fenced.
//!
//! From bronze, only what bronze holds comes back: with `--bronze off` that is not all, so where silver has more, that has to be
//! accepted. Counts taken from files come back when the hub takes the files again, which it does where they still are.

use super::commit::CommitRequest;
use super::files::PendingAdd;
use super::gold::{self, PerStore};
use super::log::{REFLECTS_KEY, Table};
use super::read::{ints, micros, strings};
use super::recount::sum_changes;
use super::retention::Retention;
use super::storage::Lake;
use super::tables_open::Tables;
use super::{reference, silver};
use crate::actors::{Identity, LatestCount, NEVER, count_identity, line_identity};
use crate::ownership::EMBEDDED;
use crate::reference::Applicability;
use crate::rows::{ChangeRow, CountRow, GoldRow, LatestRow, Source, UncountedRow};
use anyhow::{Context, Result, ensure};
use deltalake::arrow::array::BinaryArray;
use futures::TryStreamExt;
use onhand_common::frame::{FrameError, FramePart};
use onhand_common::{Event, Seq, accelerator};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::process::ExitCode;
use std::sync::Arc;

/// Changes that are held before they are written.
const CHANGES_HELD: usize = 500_000;
/// Counts that are held before they are written.
const COUNTS_HELD: usize = 50_000;

/// What a lake is made anew from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Gold from silver.
    Silver,
    /// Silver from bronze, and gold from that.
    Bronze {
        /// Also if silver has more than bronze.
        accept_loss: bool,
    },
}

/// Rebuilds the lake at `root` and prints what was done.
///
/// # Errors
/// If the lake cannot be read or written; what was committed before stays, and the command can be run again. A row of bronze
/// that cannot be read, or rows of silver that bronze lacks, are found before any row is changed.
pub async fn run(root: &str, basis: Basis) -> Result<ExitCode> {
    let lake = Lake::existing(root, Retention::default())?;
    let mut tables = Tables::open(&lake).await.map_err(|error| lake.in_words(error))?;
    let epoch = tables.take_over_from_all().await?;
    if let Basis::Bronze { accept_loss } = basis {
        let (changes, counts) = silver_from_bronze(&mut tables, epoch << 32 | 1, accept_loss).await?;
        println!("silver from bronze: {changes} changes, {counts} counts");
    }
    let (stores, rows) = gold_from_silver(&mut tables, epoch << 32 | 2).await?;
    println!("gold from silver: {rows} rows of {stores} stores, version {}", tables.gold.version());
    Ok(ExitCode::SUCCESS)
}

async fn silver_from_bronze(tables: &mut Tables, transaction: i64, accept_loss: bool) -> Result<(usize, usize)> {
    let NewSilver { changes, counts, written, identities } = write_silver(tables).await?;
    let lacking = lacking_in_bronze(tables, &identities).await?;
    if lacking != (0, 0) {
        let lacks = format!("bronze lacks {} changes and {} counts that silver has", lacking.0, lacking.1);
        ensure!(
            accept_loss,
            "{lacks}: it was off for a time, or the counts came from files (those that are still there are taken again by the \
             hub); no row was changed. With --accept-loss, silver loses them"
        );
        println!("{lacks}: they go");
    }
    // Gold goes before silver and says that it reflects nothing: if this is interrupted, whoever starts next replays all of
    // silver.
    let nothing = CommitRequest::overwrite(Vec::new()).with_metadata(REFLECTS_KEY, serde_json::json!({}));
    tables.gold.commit(nothing.with_transaction(EMBEDDED, transaction)).await?;
    // Counts from files may not be in bronze. Where the files still are, the hub takes them again.
    let forgotten = CommitRequest::overwrite(Vec::new()).with_transaction(EMBEDDED, transaction);
    tables.count_files.commit(forgotten).await?;
    tables.changes.commit(CommitRequest::overwrite(changes).with_transaction(EMBEDDED, transaction)).await?;
    tables.counts.commit(CommitRequest::overwrite(counts).with_transaction(EMBEDDED, transaction)).await?;
    Ok(written)
}

/// Writes silver's files from bronze, and commits nothing. Bronze is read in the order in which it was committed, which is the
/// order of arrival; clocks may have gone back. What is held in memory beside some rows is 40 bytes or so for each of all.
async fn write_silver(tables: &Tables) -> Result<NewSilver> {
    let mut rows = SilverRows::default();
    let mut changes = Vec::new();
    // One file: the order of counts matters.
    let mut counts = tables.counts.writer();
    let mut written = (0, 0);
    let files = tables.bronze.files_since(-1);
    let mut batches = std::pin::pin!(tables.bronze.read(files, &["value", "timestamp"]));
    loop {
        let batch = batches.try_next().await?;
        if let Some(batch) = &batch {
            let values = batch.column(0).as_any().downcast_ref::<BinaryArray>().context("value is not binary")?;
            let received = micros(batch, 1)?;
            for row in 0..batch.num_rows() {
                rows.take(values.value(row)).with_context(|| {
                    let received = chrono::DateTime::from_timestamp_micros(received[row]).unwrap_or_default();
                    format!("read the row of bronze that was received at {received:?}; no row was changed")
                })?;
            }
        }
        if rows.changes.len() >= CHANGES_HELD || batch.is_none() {
            let held = std::mem::take(&mut rows.changes);
            written.0 += held.len();
            changes.extend(tables.changes.write(silver::changes(held.iter().collect())?).await?);
        }
        if rows.counts.len() >= COUNTS_HELD || batch.is_none() {
            let held = std::mem::take(&mut rows.counts);
            written.1 += held.len();
            for batch in silver::counts(held.iter().collect())? {
                counts.write(&batch).await?;
            }
        }
        if batch.is_none() {
            let counts = tables.counts.finish(counts, None).await?;
            return Ok(NewSilver { changes, counts, written, identities: rows.seen });
        }
    }
}

/// Files of silver that nobody has committed.
struct NewSilver {
    changes: Vec<PendingAdd>,
    counts: Vec<PendingAdd>,
    /// Rows of both.
    written: (usize, usize),
    /// Of what is in them.
    identities: HashSet<Known>,
}

/// How many changes and counts of silver, as it is, are not among what bronze gave.
async fn lacking_in_bronze(tables: &Tables, given: &HashSet<Known>) -> Result<(usize, usize)> {
    let mut lacking = (0, 0);
    let changes = tables.changes.files_since(-1);
    let mut changes = std::pin::pin!(tables.changes.read(changes, &["store_id", "trans_id", "item_id"]));
    while let Some(batch) = changes.try_next().await? {
        let (stores, trans_ids, items) = (ints(&batch, 0)?, strings(&batch, 1)?, ints(&batch, 2)?);
        let lacks =
            |&row: &usize| !given.contains(&(stores[row], false, line_identity(trans_ids.value(row), items[row])));
        lacking.0 += (0..batch.num_rows()).filter(lacks).count();
    }
    let counts = tables.counts.files_since(-1);
    let mut counts = std::pin::pin!(tables.counts.read(counts, &["store_id", "item_id", "date_time", "quantity"]));
    while let Some(batch) = counts.try_next().await? {
        let (stores, items, at, counted) = (ints(&batch, 0)?, ints(&batch, 1)?, micros(&batch, 2)?, ints(&batch, 3)?);
        let lacks =
            |&row: &usize| !given.contains(&(stores[row], true, count_identity(items[row], at[row], counted[row])));
        lacking.1 += (0..batch.num_rows()).filter(lacks).count();
    }
    Ok(lacking)
}

/// Store, whether it is a count, and which; not by day, as in the hub that runs.
type Known = (i32, bool, Identity);

/// Rows of silver out of documents, each once.
#[derive(Default)]
struct SilverRows {
    changes: Vec<ChangeRow>,
    counts: Vec<CountRow>,
    seen: HashSet<Known>,
}

impl SilverRows {
    fn take(&mut self, document: &[u8]) -> Result<()> {
        let (source, events) = events_of(document)?;
        for (seq, event) in events {
            match event {
                Event::Transaction(t) => {
                    let store_id = t.store_id.get();
                    let trans_id: Arc<str> = t.trans_id.as_str().into();
                    for line in &t.items {
                        if self.seen.insert((store_id, false, line_identity(&trans_id, line.item_id.get()))) {
                            self.changes.push(ChangeRow {
                                trans_id: trans_id.clone(),
                                store_id,
                                date_time: t.date_time.micros(),
                                change_type_id: t.change_type_id.get(),
                                item_id: line.item_id.get(),
                                quantity: line.quantity,
                                source: source.clone(),
                                seq: seq.0,
                            });
                        }
                    }
                }
                Event::Count(c) => {
                    let (item_id, at) = (c.item_id.get(), c.date_time.micros());
                    if self.seen.insert((c.store_id.get(), true, count_identity(item_id, at, c.quantity))) {
                        self.counts.push(CountRow {
                            item_id,
                            employee_id: c.employee_id.get(),
                            store_id: c.store_id.get(),
                            date_time: at,
                            quantity: c.quantity,
                            source: source.clone(),
                            seq: seq.0,
                        });
                    }
                }
            }
        }
        Ok(())
    }
}

/// Events with their numbers.
type Numbered = Vec<(Seq, Event)>;

/// A row of bronze is a frame, what was left of one, or a document of a device without an agent.
fn events_of(document: &[u8]) -> Result<(Arc<Source>, Numbered)> {
    match FramePart::decode(document) {
        Ok(part) => Ok((Source::agent(&part.agent_id, part.epoch), part.events)),
        Err(FrameError::Magic) => {
            let transaction =
                accelerator::parse_transaction(document).context("it is neither a frame nor a document")?;
            Ok((Source::unnumbered("raw"), vec![(Seq(0), Event::Transaction(transaction))]))
        }
        Err(error) => Err(error).context("it is a frame that cannot be read"),
    }
}

async fn gold_from_silver(tables: &mut Tables, transaction: i64) -> Result<(usize, usize)> {
    let reference = reference::read(&tables.stores, &tables.items, &tables.change_types).await?;
    let applicability = Applicability::new(&reference);
    let latest = latest_counts(&tables.counts).await?;
    let mut wanted: HashMap<(i32, i32), i64> = latest.iter().map(|(&key, count)| (key, count.at)).collect();
    let changes = tables.changes.files_since(-1);
    tables
        .changes
        .visit_changes(changes, None, |row| {
            wanted.entry((row.store_id, row.item_id)).or_insert(NEVER);
        })
        .await?;
    let sums = sum_changes(&tables.changes, &applicability, &wanted).await?;

    let mut gold: BTreeMap<i32, Vec<GoldRow>> = BTreeMap::new();
    let mut latest_rows: BTreeMap<i32, Vec<LatestRow>> = BTreeMap::new();
    let mut uncounted: BTreeMap<i32, Vec<UncountedRow>> = BTreeMap::new();
    let mut keys: Vec<_> = wanted.keys().copied().collect();
    keys.sort_unstable();
    for (store_id, item_id) in keys {
        let (change_quantity, last) = sums.get(&(store_id, item_id)).copied().unwrap_or((0, NEVER));
        match latest.get(&(store_id, item_id)) {
            Some(count) => {
                gold.entry(store_id).or_default().push(GoldRow {
                    item_id,
                    snapshot_quantity: count.quantity,
                    change_quantity,
                    date_time: count.at.max(last),
                });
                latest_rows.entry(store_id).or_default().push(LatestRow {
                    item_id,
                    employee_id: count.employee_id,
                    date_time: count.at,
                    quantity: count.quantity,
                });
            }
            None => {
                let row = UncountedRow { item_id, change_quantity, date_time: last };
                uncounted.entry(store_id).or_default().push(row);
            }
        }
    }
    let rows = gold.values().map(Vec::len).sum();
    let request = gold::replace_latest(&tables.latest, &all_of(&tables.latest, latest_rows)).await?;
    tables.latest.commit(request.with_transaction(EMBEDDED, transaction)).await?;
    let request = gold::replace_uncounted(&tables.uncounted, &all_of(&tables.uncounted, uncounted)).await?;
    tables.uncounted.commit(request.with_transaction(EMBEDDED, transaction)).await?;
    let stores = gold.len();
    let request = gold::replace_gold(&tables.gold, &all_of(&tables.gold, gold)).await?;
    let request = request.with_metadata(REFLECTS_KEY, tables.reflected());
    tables.gold.commit(request.with_transaction(EMBEDDED, transaction)).await?;
    Ok((stores, rows))
}

/// New rows for the stores that have some, and none for those that had some.
fn all_of<T>(table: &Table, mut rows: BTreeMap<i32, Vec<T>>) -> PerStore<T> {
    for store_id in table.live_files().filter_map(|file| file.partition) {
        rows.entry(store_id as i32).or_default();
    }
    rows.into_iter().collect()
}

/// The latest count of each item: the greatest time, and of those the one that came last.
async fn latest_counts(table: &Table) -> Result<HashMap<(i32, i32), LatestCount>> {
    let mut latest: HashMap<(i32, i32), LatestCount> = HashMap::new();
    let columns = ["store_id", "item_id", "employee_id", "date_time", "quantity"];
    let mut batches = std::pin::pin!(table.read(table.files_since(-1), &columns));
    while let Some(batch) = batches.try_next().await? {
        let (stores, items, employees) = (ints(&batch, 0)?, ints(&batch, 1)?, ints(&batch, 2)?);
        let (at, quantities) = (micros(&batch, 3)?, ints(&batch, 4)?);
        for row in 0..batch.num_rows() {
            let count = LatestCount { at: at[row], quantity: quantities[row], employee_id: employees[row] };
            let entry = latest.entry((stores[row], items[row])).or_insert(count);
            if count.at >= entry.at {
                *entry = count;
            }
        }
    }
    Ok(latest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::count_file_log::{BATCH_ID, CountFileLog, PlannedFile};
    use crate::lake::samples::{NEW_YEAR, changes, counts, lake};
    use crate::lake::tables::TableName;
    use crate::lake::upkeep::CompactionPolicy;
    use crate::rows::BronzeRow;
    use onhand_common::frame::{encode_event, seal};
    use onhand_common::{AgentId, Count, Epoch, Timestamp};

    const FROM_BRONZE: Basis = Basis::Bronze { accept_loss: false };

    type Latest = HashMap<(i32, i32), LatestCount>;

    /// Without the bulk.
    async fn latest_of(lake: &Lake, name: TableName) -> Latest {
        let mut latest = latest_counts(&Table::open(lake, name).await.unwrap()).await.unwrap();
        latest.retain(|&(_, item_id), _| item_id < 100);
        latest
    }

    /// Counts of items that matter to nobody, which take room.
    fn bulk(store_id: i32, version: i64) -> Vec<(i32, i32, i64, i32)> {
        let noise = |n: i64| (n * 2_654_435_761 + version * 40_503) % 1_000_000_007;
        (0..20_000).map(|n| (store_id, 100 + n as i32, NEW_YEAR + noise(n), noise(n + 7) as i32)).collect()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_latest_of_the_counts_of_one_instant_is_the_same_after_compaction() {
        let (_folder, lake) = lake();
        let mut table = Table::open_or_create(&lake, TableName::InventorySnapshot).await.unwrap();
        // Corrections of one count, version by version; the file of each fifth version is of a larger tier.
        for version in 1..=20_i64 {
            let mut rows = vec![(2, 11, NEW_YEAR, version as i32)];
            if version <= 5 {
                rows.push((1, 10, NEW_YEAR, version as i32));
            }
            if version % 5 == 0 {
                rows.extend(bulk(3, version));
                rows.extend(bulk(1, version));
            }
            let adds = table.write([counts(&rows)]).await.unwrap();
            table.commit(CommitRequest::append(adds)).await.unwrap();
        }
        let sizes: Vec<u64> = table.files_since(-1).iter().map(|file| file.size).collect();
        assert!(sizes[4] > 64 * 1024 && sizes[5] < 8 * 1024, "{sizes:?}");
        let before = latest_of(&lake, TableName::InventorySnapshot).await;
        assert_eq!((before[&(1, 10)].quantity, before[&(2, 11)].quantity), (5, 20));
        for min_files in [4, 2] {
            let policy = CompactionPolicy { min_files, ..CompactionPolicy::default() };
            assert!(table.compact(&policy).await.unwrap().removed > 0);
            assert_eq!(latest_of(&lake, TableName::InventorySnapshot).await, before, "with {min_files}");
        }
        assert!(table.file_count() < 4, "{}", table.file_count());
        run(lake.root(), Basis::Silver).await.unwrap();
        assert_eq!(latest_of(&lake, TableName::LatestInventorySnapshot).await, before);
    }

    fn count_frame(agent: &str, quantity: i32) -> Vec<u8> {
        let count = Event::Count(Count {
            item_id: 10_i64.try_into().unwrap(),
            employee_id: 7_i64.try_into().unwrap(),
            store_id: 1_i64.try_into().unwrap(),
            date_time: Timestamp::from_micros(NEW_YEAR).unwrap(),
            quantity,
        });
        seal(&AgentId::new(agent).unwrap(), Epoch(1), Seq(0), Seq(1), 1, &encode_event(&count))
    }

    async fn receive(lake: &Lake, documents: Vec<(Vec<u8>, i64)>) {
        let mut table = Table::open_or_create(lake, TableName::RawInventoryChange).await.unwrap();
        let row = |(value, timestamp): (Vec<u8>, i64)| BronzeRow {
            key: "key".into(),
            value: value.into(),
            topic: "topic".to_owned(),
            partition: 0,
            offset: 0,
            timestamp,
            timestamp_type: 1,
        };
        let rows: Vec<BronzeRow> = documents.into_iter().map(row).collect();
        let adds = table.write(silver::bronze(&rows).unwrap()).await.unwrap();
        table.commit(CommitRequest::append(adds)).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn silver_comes_back_from_bronze_in_the_order_of_arrival() {
        let (_folder, lake) = lake();
        let sale =
            b" {\"trans_id\":\"t\",\"store_id\":1,\"date_time\":\"2021-01-01T00:00:01.000Z\",\"change_type_id\":1,\
            \"items\":[{\"item_id\":10,\"quantity\":-2}]}";
        receive(&lake, vec![(count_frame("a", 20), NEW_YEAR + 9), (sale.to_vec(), NEW_YEAR + 9)]).await;
        // The clock was set back; and something came twice.
        receive(&lake, vec![(count_frame("b", 25), NEW_YEAR), (sale.to_vec(), NEW_YEAR)]).await;
        run(lake.root(), FROM_BRONZE).await.unwrap();
        let latest = latest_of(&lake, TableName::LatestInventorySnapshot).await;
        assert_eq!(latest[&(1, 10)], LatestCount { at: NEW_YEAR, quantity: 25, employee_id: 7 });
        let rows = async |name| Table::open(&lake, name).await.unwrap().row_count();
        assert_eq!((rows(TableName::InventoryChange).await, rows(TableName::InventorySnapshot).await), (1, 2));
        assert_eq!(rows(TableName::InventoryCurrent).await, 1);

        receive(&lake, vec![(b"OHF?".to_vec(), NEW_YEAR)]).await;
        let error = run(lake.root(), FROM_BRONZE).await.unwrap_err();
        assert!(format!("{error:#}").contains("version: 63 is not taken here"), "{error:#}");
        assert_eq!((rows(TableName::InventoryChange).await, rows(TableName::InventorySnapshot).await), (1, 2));
        assert_eq!(rows(TableName::InventoryCurrent).await, 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_bronze_lacks_is_lost_only_if_that_is_accepted() {
        let (_folder, lake) = lake();
        receive(&lake, vec![(count_frame("a", 20), NEW_YEAR)]).await;
        run(lake.root(), FROM_BRONZE).await.unwrap();
        let rows = async |name| Table::open(&lake, name).await.unwrap().row_count();
        let silver = async || (rows(TableName::InventoryChange).await, rows(TableName::InventorySnapshot).await);
        assert_eq!(silver().await, (0, 1));
        // While bronze was off.
        let mut table = Table::open(&lake, TableName::InventoryChange).await.unwrap();
        let adds = table.write([changes(&[("t", 1, NEW_YEAR, 1, 10, -2)])]).await.unwrap();
        table.commit(CommitRequest::append(adds)).await.unwrap();
        let mut table = Table::open(&lake, TableName::InventorySnapshot).await.unwrap();
        let adds = table.write([counts(&[(1, 11, NEW_YEAR, 5), (1, 12, NEW_YEAR, 6)])]).await.unwrap();
        table.commit(CommitRequest::append(adds)).await.unwrap();
        let refused = run(lake.root(), FROM_BRONZE).await.unwrap_err().to_string();
        assert!(refused.contains("bronze lacks 1 changes and 2 counts"), "{refused}");
        assert_eq!(silver().await, (1, 3), "no row was changed");
        run(lake.root(), Basis::Bronze { accept_loss: true }).await.unwrap();
        assert_eq!(silver().await, (0, 1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_transaction_under_two_days_comes_back_once() {
        let (_folder, lake) = lake();
        let sale = |day: &str| {
            let at = format!("\"date_time\":\"2021-01-{day}T00:00:01.000Z\"");
            let items = "\"items\":[{\"item_id\":10,\"quantity\":-2}]";
            format!("{{\"trans_id\":\"t\",\"store_id\":1,{at},\"change_type_id\":1,{items}}}").into_bytes()
        };
        receive(&lake, vec![(sale("01"), NEW_YEAR), (sale("02"), NEW_YEAR)]).await;
        run(lake.root(), FROM_BRONZE).await.unwrap();
        let mut dates = Vec::new();
        let changes = Table::open(&lake, TableName::InventoryChange).await.unwrap();
        changes.visit_changes(changes.files_since(-1), None, |row| dates.push(row.date_time)).await.unwrap();
        assert_eq!(dates, [NEW_YEAR + 1_000_000], "the first document wins");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn count_files_are_taken_again_after_a_rebuild_from_bronze() {
        let (_folder, lake) = lake();
        receive(&lake, vec![(count_frame("a", 20), NEW_YEAR)]).await;
        let log = CountFileLog::new(lake.clone());
        let file = PlannedFile {
            batch: 1,
            after: 0,
            name: "counts.txt".to_owned(),
            size: 1,
            modified: 1,
            rows: 1,
            planned_at: 1,
            error: None,
        };
        log.planner().await.unwrap().plan(&[file], &[], 0).await.unwrap();
        let mut counts = Table::open_or_create(&lake, TableName::InventorySnapshot).await.unwrap();
        counts.commit(CommitRequest::append(Vec::new()).with_notes([(BATCH_ID.to_owned(), 1)])).await.unwrap();
        let taken = async || {
            let known = log.read(|name, _, _| name.to_owned()).await.unwrap();
            (known.taken.len(), known.newest)
        };
        run(lake.root(), Basis::Silver).await.unwrap();
        assert_eq!(taken().await, (1, 1));
        run(lake.root(), FROM_BRONZE).await.unwrap();
        assert_eq!(taken().await, (0, 1), "what comes now has a new number");
    }
}
