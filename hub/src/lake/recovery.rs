//! What the lake tells a hub that starts: its stores' items, and how far its agents are.
//!
//! Gold, the latest counts and the uncounted items, all at the versions that the newest gold commit names, give the states;
//! silver rows that came after those versions are applied on top. Cost follows the number of items and what came after the
//! last gold commit, not the length of history.

use super::log::{LiveFile, REFLECTS_KEY, Table};
use super::marks::{Reflected, Versions};
use super::read::{ints, longs, micros};
use super::tables_open::Tables;
use super::{positions, reference};
use crate::actors::{ItemEvent, ItemState, LatestCount, NEVER, RecentChanges};
use crate::gateway::{Position, Progress};
use crate::ownership::{OwnedPartitions, Ownership};
use crate::reference::Applicability;
use anyhow::{Context, Result, anyhow, bail};
use deltalake::arrow::array::{Array, TimestampMicrosecondArray};
use futures::TryStreamExt;
use onhand_common::{AgentId, ReferenceData};
use std::collections::{BTreeMap, HashMap};

/// Items by store and item.
pub type States = BTreeMap<i32, hashbrown::HashMap<i32, ItemState>>;

/// See the module.
pub struct Recovered {
    /// Every store's items.
    pub states: States,
    /// The reference data of now.
    pub reference: ReferenceData,
    /// How far agents are.
    pub positions: Vec<(AgentId, Position)>,
    /// Stores whose gold is behind silver.
    pub behind: Vec<i32>,
}

impl Recovered {
    /// The agents' progress, to go on from.
    pub fn progress(&self) -> Progress {
        let mut progress = Progress::default();
        for (agent, position) in &self.positions {
            progress.restore(agent.clone(), *position);
        }
        progress
    }
}

/// Versions that gold's rows of some stores reflect; -1 before there is any.
struct Mark {
    versions: Versions,
    stores: Box<dyn Fn(i32) -> bool + Send + Sync>,
}

impl Mark {
    /// One for each set of owned stores whose rows reflect the same versions: those that one owner committed last.
    async fn all(gold: &mut Table, ownership: &Ownership) -> Result<Vec<Self>> {
        let reflected = match gold.reflects().await? {
            Some((_, said)) => Reflected::read(said)?,
            None if gold.file_count() > 0 => {
                let found = format!("gold has rows, but no commit of its log says what they reflect ({REFLECTS_KEY})");
                return Err(anyhow!(found)).context("run `onhand-hub rebuild` to make gold anew from silver");
            }
            None => Reflected::Whole(Versions::new()),
        };
        let partitions = match ownership {
            Ownership::Whole => {
                let Reflected::Whole(versions) = reflected else {
                    bail!(
                        "processors keep this lake (its gold is marked by partition): to go on in embedded form, stop them \
                         and run `onhand-hub rebuild` once"
                    );
                };
                return Ok(vec![Self { versions, stores: Box::new(|_| true) }]);
            }
            Ownership::Partitions(partitions) => partitions,
        };
        if let Reflected::Partitions(by) = &reflected
            && (&by.topic, by.partitions) != (&partitions.topic, partitions.count)
        {
            bail!(
                "this lake's stores are spread over the {} partitions of topic {:?}, not over the {} of {:?}: a store must not \
                 move from one partition to another. Drain the old topic, stop all processors and run `onhand-hub rebuild` once",
                by.partitions,
                by.topic,
                partitions.count,
                partitions.topic
            );
        }
        let mark = |(versions, owned): (Versions, OwnedPartitions)| Self {
            versions,
            stores: Box::new(move |store_id| owned.owns(store_id)),
        };
        Ok(reflected.groups(partitions).into_iter().map(mark).collect())
    }

    fn version(&self, table: &Table) -> i64 {
        self.versions.get(table.name().short()).copied().unwrap_or(-1)
    }

    /// A table as gold reflects it.
    async fn table_at(&self, table: &Table) -> Result<Option<Table>> {
        match self.version(table) {
            -1 => Ok(None),
            version => Ok(Some(Table::open_at(table.lake(), table.name(), version).await?)),
        }
    }

    /// Those of a table's files that have rows of these stores. (For tables that are partitioned by store.)
    fn files(&self, table: &Table) -> Vec<LiveFile> {
        let of_ours = |file: &&LiveFile| file.partition.is_none_or(|store_id| (self.stores)(store_id as i32));
        table.live_files().filter(of_ours).cloned().collect()
    }
}

/// Reads everything that a pipeline starts from.
///
/// # Errors
/// If a table cannot be read, or gold's log does not say what gold reflects.
pub async fn recover(tables: &mut Tables, ownership: &Ownership) -> Result<Recovered> {
    let reference = reference::read(&tables.stores, &tables.items, &tables.change_types).await?;
    let applicability = Applicability::new(&reference);
    let (mut states, mut behind) = (States::new(), Vec::new());
    for mark in Mark::all(&mut tables.gold, ownership).await? {
        let mut of_mark = States::new();
        read_states(tables, &mark, &mut of_mark).await.context("read the items' states")?;
        let replayed = replay(tables, &mark, &applicability, &mut of_mark).await;
        behind.extend(replayed.context("apply what came after gold")?);
        let reflected = reference_at(tables, &mark).await.context("read the reference data that gold reflects")?;
        for (&store_id, items) in &mut of_mark {
            if reflected.differs_for(store_id, &applicability) {
                items.values_mut().for_each(ItemState::require_recount);
                behind.push(store_id);
            }
        }
        states.append(&mut of_mark);
    }
    behind.sort_unstable();
    behind.dedup();
    let positions = match ownership {
        Ownership::Whole => positions::read(&tables.positions).await.context("read the agents' positions")?,
        Ownership::Partitions(_) => Vec::new(),
    };
    Ok(Recovered { states, reference, positions, behind })
}

async fn read_states(tables: &Tables, mark: &Mark, states: &mut States) -> Result<()> {
    let mut counts: HashMap<(i32, i32), LatestCount> = HashMap::new();
    if let Some(latest) = mark.table_at(&tables.latest).await? {
        let columns = ["store_id", "item_id", "employee_id", "date_time", "quantity"];
        let mut batches = std::pin::pin!(latest.read(mark.files(&latest), &columns));
        while let Some(batch) = batches.try_next().await? {
            let (stores, items, employees) = (ints(&batch, 0)?, ints(&batch, 1)?, ints(&batch, 2)?);
            let (at, quantities) = (micros(&batch, 3)?, ints(&batch, 4)?);
            counts.reserve(batch.num_rows());
            for row in 0..batch.num_rows() {
                let count = LatestCount { at: at[row], quantity: quantities[row], employee_id: employees[row] };
                counts.insert((stores[row], items[row]), count);
            }
        }
    }
    let columns = ["store_id", "item_id", "change_quantity", "date_time"];
    let mut batches = std::pin::pin!(tables.gold.read(mark.files(&tables.gold), &columns));
    while let Some(batch) = batches.try_next().await? {
        let (stores, items) = (ints(&batch, 0)?, ints(&batch, 1)?);
        let (changes, newest) = (longs(&batch, 2)?, micros(&batch, 3)?);
        for row in 0..batch.num_rows() {
            let key = (stores[row], items[row]);
            let count =
                counts.get(&key).with_context(|| format!("gold has {key:?}, latest_inventory_snapshot has not"))?;
            let state = ItemState::restored(Some(*count), changes[row], newest[row]);
            states.entry(key.0).or_default().insert(key.1, state);
        }
    }
    if let Some(uncounted) = mark.table_at(&tables.uncounted).await? {
        let columns = ["store_id", "item_id", "change_quantity", "date_time"];
        let mut batches = std::pin::pin!(uncounted.read(mark.files(&uncounted), &columns));
        while let Some(batch) = batches.try_next().await? {
            let (stores, items, changes) = (ints(&batch, 0)?, ints(&batch, 1)?, longs(&batch, 2)?);
            let newest = batch.column(3).as_any().downcast_ref::<TimestampMicrosecondArray>();
            let newest = newest.context("date_time is no timestamp")?;
            for row in 0..batch.num_rows() {
                let last_change = if newest.is_null(row) { NEVER } else { newest.value(row) };
                let state = ItemState::restored(None, changes[row], last_change);
                states.entry(stores[row]).or_default().insert(items[row], state);
            }
        }
    }
    Ok(())
}

/// Counts first, changes after: which changes count depends on the latest count alone, not on the order of arrival.
async fn replay(tables: &Tables, mark: &Mark, applicability: &Applicability, states: &mut States) -> Result<Vec<i32>> {
    let mut touched: HashMap<i32, ()> = HashMap::new();
    let counts = tables.counts.files_since(mark.version(&tables.counts));
    let columns = ["store_id", "item_id", "employee_id", "date_time", "quantity"];
    let mut batches = std::pin::pin!(tables.counts.read(counts, &columns));
    while let Some(batch) = batches.try_next().await? {
        let (stores, items, employees) = (ints(&batch, 0)?, ints(&batch, 1)?, ints(&batch, 2)?);
        let (at, quantities) = (micros(&batch, 3)?, ints(&batch, 4)?);
        for row in (0..batch.num_rows()).filter(|&row| (mark.stores)(stores[row])) {
            let state = states.entry(stores[row]).or_default().entry(items[row]).or_default();
            let count = LatestCount { at: at[row], quantity: quantities[row], employee_id: employees[row] };
            // Nothing is known of changes that gold has not seen yet; the ones it has seen are in the state.
            let mut recent = RecentChanges::after(state);
            state.apply(ItemEvent::Count(count), &mut recent);
            touched.insert(stores[row], ());
        }
    }
    let changes = tables.changes.files_since(mark.version(&tables.changes));
    tables
        .changes
        .visit_changes(changes, |row| {
            if !(mark.stores)(row.store_id) {
                return;
            }
            let state = states.entry(row.store_id).or_default().entry(row.item_id).or_default();
            if applicability.applies(row.store_id, row.change_type_id) {
                let change = ItemEvent::Change { at: row.date_time, quantity: row.quantity };
                state.apply(change, &mut RecentChanges::unknown());
            }
            touched.insert(row.store_id, ());
        })
        .await?;
    Ok(touched.into_keys().collect())
}

async fn reference_at(tables: &Tables, mark: &Mark) -> Result<Applicability> {
    let stores = mark.table_at(&tables.stores).await?;
    let change_types = mark.table_at(&tables.change_types).await?;
    match (stores, change_types) {
        (Some(stores), Some(change_types)) => {
            Ok(Applicability::new(&reference::read(&stores, &tables.items, &change_types).await?))
        }
        _ => Ok(Applicability::default()),
    }
}
