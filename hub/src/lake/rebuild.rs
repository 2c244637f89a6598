//! Gold again from silver, or silver and gold again from bronze. Nothing else may run on the lake meanwhile; a hub that
//! does is fenced.
//!
//! From bronze, only what bronze holds comes back: with `--bronze off`, or for counts taken from files, that is not all.

use super::commit::CommitRequest;
use super::gold::{self, PerStore};
use super::log::{REFLECTS_KEY, Table};
use super::read::{ints, micros};
use super::recount::sum_changes;
use super::storage::{Lake, Retention};
use super::tables_open::Tables;
use super::{reference, silver};
use crate::actors::{LatestCount, NEVER, count_identity, line_identity};
use crate::ownership::{EMBEDDED, Ownership};
use crate::reference::Applicability;
use crate::rows::{ChangeRow, CountRow, GoldRow, LatestRow, Source, UncountedRow};
use anyhow::{Context, Result, anyhow};
use deltalake::arrow::array::BinaryArray;
use futures::TryStreamExt;
use onhand_common::frame::FramePart;
use onhand_common::{Event, Seq, accelerator};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::process::ExitCode;
use std::sync::Arc;

/// Rebuilds the lake at `root` and prints what was done.
///
/// # Errors
/// If the lake cannot be read or written; what was committed before stays, and the command can be run again.
pub async fn run(root: &str, from_bronze: bool) -> Result<ExitCode> {
    let lake = Lake::existing(root, Retention::default())?;
    let mut tables = Tables::open(&lake).await?;
    let epoch = tables.take_over(&Ownership::Whole).await?;
    let transaction = epoch << 32 | 1;
    if from_bronze {
        let (changes, counts) = silver_from_bronze(&mut tables, transaction).await?;
        println!("silver from bronze: {changes} changes, {counts} counts");
    }
    let (stores, rows) = gold_from_silver(&mut tables, transaction).await?;
    println!("gold from silver: {rows} rows of {stores} stores, version {}", tables.gold.version());
    Ok(ExitCode::SUCCESS)
}

async fn silver_from_bronze(tables: &mut Tables, transaction: i64) -> Result<(usize, usize)> {
    // Gold goes first and says that it reflects nothing: if this is interrupted, whoever starts next replays all of silver.
    let nothing = CommitRequest::overwrite(Vec::new()).with_metadata(REFLECTS_KEY, serde_json::json!({}));
    tables.gold.commit(nothing).await?;
    let mut documents: Vec<(i64, Vec<u8>)> = Vec::new();
    let mut batches = std::pin::pin!(tables.bronze.read_all(&["value", "timestamp"]));
    while let Some(batch) = batches.try_next().await? {
        let values = batch.column(0).as_any().downcast_ref::<BinaryArray>().context("value is not binary")?;
        let received = micros(&batch, 1)?;
        documents.extend((0..batch.num_rows()).map(|row| (received[row], values.value(row).to_vec())));
    }
    documents.sort_by_key(|(received, _)| *received);
    let (mut changes, mut counts) = (Vec::new(), Vec::new());
    let mut seen: HashSet<(i32, i32, u128)> = HashSet::new();
    for (_, document) in &documents {
        let (source, events) = events_of(document)?;
        for (seq, event) in events {
            match event {
                Event::Transaction(t) => {
                    let (store_id, day) = (t.store_id.get(), t.date_time.day());
                    let trans_id: Arc<str> = t.trans_id.as_str().into();
                    for line in &t.items {
                        if seen.insert((store_id, day, line_identity(&trans_id, line.item_id.get()))) {
                            changes.push(ChangeRow {
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
                    // -1 keeps counts and lines apart: no day is before 1970.
                    if seen.insert((c.store_id.get(), -1, count_identity(item_id, at, c.quantity))) {
                        counts.push(CountRow {
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
    }
    let adds = tables.changes.write(silver::changes(changes.iter().collect())?).await?;
    tables.changes.commit(CommitRequest::overwrite(adds).with_transaction(EMBEDDED, transaction)).await?;
    let adds = tables.counts.write(silver::counts(counts.iter().collect())?).await?;
    tables.counts.commit(CommitRequest::overwrite(adds).with_transaction(EMBEDDED, transaction)).await?;
    Ok((changes.len(), counts.len()))
}

/// Events with their numbers.
type Numbered = Vec<(Seq, Event)>;

/// A row of bronze is a frame, what was left of one, or a document of a device without an agent.
fn events_of(document: &[u8]) -> Result<(Arc<Source>, Numbered)> {
    if document.first() == Some(&b'{') {
        let transaction = accelerator::parse_transaction(document).context("read a document in bronze")?;
        return Ok((Source::unnumbered("raw"), vec![(Seq(0), Event::Transaction(transaction))]));
    }
    let part = FramePart::decode(document).map_err(|error| anyhow!("read a frame in bronze: {error}"))?;
    Ok((Source::agent(&part.agent_id, part.epoch), part.events))
}

async fn gold_from_silver(tables: &mut Tables, transaction: i64) -> Result<(usize, usize)> {
    let reference = reference::read(&tables.stores, &tables.items, &tables.change_types).await?;
    let applicability = Applicability::new(&reference);
    let latest = latest_counts(&tables.counts).await?;
    let mut wanted: HashMap<(i32, i32), i64> = latest.iter().map(|(&key, count)| (key, count.at)).collect();
    let changes = tables.changes.files_since(-1);
    tables
        .changes
        .visit_changes(changes, |row| {
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
