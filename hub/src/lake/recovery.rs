//! What the lake tells a hub that starts: its stores' items, and how far its agents are.
//!
//! Gold, the latest counts and the uncounted items, all at the versions that the newest gold commit names, give the states;
//! silver rows that came after those versions are applied on top. Cost follows the number of items and what came after the
//! last gold commit, not the length of history.

use super::log::{LiveFile, REFLECTS_KEY, Table, since_of};
use super::marks::{Reflected, Versions};
use super::read::{ints, longs, micros};
use super::tables_open::Tables;
use super::{positions, reference};
use crate::actors::{ItemEvent, ItemState, LatestCount, NEVER, RecentChanges};
use crate::gateway::{Position, Progress};
use crate::ownership::{OwnedPartitions, Ownership};
use crate::reference::Applicability;
use anyhow::{Context, Result, anyhow, ensure};
use deltalake::arrow::array::{Array, TimestampMicrosecondArray};
use deltalake::kernel::Action;
use futures::TryStreamExt;
use onhand_common::{AgentId, Failpoint, ReferenceData};
use std::collections::{BTreeMap, HashMap, HashSet};

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
        reflected.check(ownership)?;
        let partitions = match (ownership, &reflected) {
            (Ownership::Partitions(partitions), _) => partitions,
            (Ownership::Whole, Reflected::Whole(versions)) => {
                return Ok(vec![Self { versions: versions.clone(), stores: Box::new(|_| true) }]);
            }
            (Ownership::Whole, Reflected::Partitions(_)) => unreachable!("it was checked"),
        };
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

    /// The live files with rows that gold does not reflect.
    async fn files_beyond(&self, table: &Table) -> Result<Vec<LiveFile>> {
        let files = table.files_since(self.version(table));
        if files.iter().all(|file| file.since_known) {
            return Ok(files);
        }
        // Another program's files do not say how old their rows are; the log's entries since the mark do.
        self.files_beyond_by_entries(table).await.with_context(|| {
            format!("{} was rewritten by another program; run `onhand-hub rebuild` to make gold anew", table.name())
        })
    }

    async fn files_beyond_by_entries(&self, table: &Table) -> Result<Vec<LiveFile>> {
        let mark = self.version(table);
        let Some(mut then) = self.table_at(table).await? else { return Ok(table.files_since(mark)) };
        for version in mark + 1..=table.version() {
            let actions = then.read_entry(version).await?;
            let actions = actions.with_context(|| format!("log entry {version} is no longer there"))?;
            check_traceable(&then, mark, &actions).with_context(|| format!("log entry {version}"))?;
            then.apply(version, &actions)?;
        }
        Ok(then.files_since(mark))
    }
}

/// Another program's files in the place of others have to be all old or all new: gold reflects whole files.
fn check_traceable(table: &Table, mark: i64, actions: &[Action]) -> Result<()> {
    let adds = || actions.iter().filter_map(|action| if let Action::Add(add) = action { Some(add) } else { None });
    let removed: HashSet<&str> = actions
        .iter()
        .filter_map(|action| if let Action::Remove(remove) = action { Some(remove.path.as_str()) } else { None })
        .collect();
    if removed.is_empty() || adds().all(|add| since_of(add).is_some()) {
        return Ok(());
    }
    ensure!(adds().all(|add| !add.data_change), "it changes rows");
    let mut replaced = table.live_files().filter(|file| removed.contains(&*file.path));
    let reflected = replaced.next().is_some_and(|file| file.added_version <= mark);
    ensure!(
        replaced.all(|file| (file.added_version <= mark) == reflected),
        "it joins rows that gold reflects with rows that it does not"
    );
    Ok(())
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
        Failpoint::RecoveryStates.pass();
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
    let counts = mark.files_beyond(&tables.counts).await?;
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
    let changes = mark.files_beyond(&tables.changes).await?;
    tables
        .changes
        .visit_changes(changes, None, |row| {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::samples::{Change, NEW_YEAR, changes, counts, lake};
    use crate::lake::tables::TableName;
    use crate::lake::{CommitRequest, Lake, rebuild};
    use deltalake::logstore::CommitOrBytes;
    use onhand_common::Store;

    /// A count of an item, and reference data by which changes of type 1 apply.
    async fn begin(lake: &Lake) {
        let mut tables = Tables::open(lake).await.unwrap();
        let stores = [Store { store_id: 1_i64.try_into().unwrap(), name: "a".to_owned() }];
        tables.stores.commit(reference::replace_stores(&tables.stores, &stores).await.unwrap()).await.unwrap();
        let types = [(1_i64.try_into().unwrap(), "sale".to_owned())];
        let types = reference::replace_change_types(&tables.change_types, &types).await.unwrap();
        tables.change_types.commit(types).await.unwrap();
        let adds = tables.counts.write([counts(&[(1, 10, NEW_YEAR, 20)])]).await.unwrap();
        tables.counts.commit(CommitRequest::append(adds)).await.unwrap();
    }

    async fn sell(lake: &Lake, trans_id: &str, quantity: i32) {
        let mut table = Table::open_or_create(lake, TableName::InventoryChange).await.unwrap();
        let adds = table.write([changes(&[(trans_id, 1, NEW_YEAR + 1, 1, 10, -quantity)])]).await.unwrap();
        table.commit(CommitRequest::append(adds)).await.unwrap();
    }

    /// Makes one file of all, as another program does that knows nothing of tags.
    async fn compact_as_another(lake: &Lake, rows: &[Change<'_>]) {
        let table = Table::open(lake, TableName::InventoryChange).await.unwrap();
        let remove = |file: &LiveFile| Action::Remove(file.to_remove(table.name(), 0, false));
        let mut actions: Vec<Action> = table.live_files().map(remove).collect();
        for mut pending in table.write([changes(rows)]).await.unwrap() {
            pending.add.data_change = false;
            actions.push(Action::Add(pending.add));
        }
        let lines: Vec<String> = actions.iter().map(|action| serde_json::to_string(action).unwrap()).collect();
        let entry = CommitOrBytes::LogBytes(lines.join("\n").into());
        let version = u64::try_from(table.version() + 1).unwrap();
        table.log.write_commit_entry(version, entry, uuid::Uuid::new_v4()).await.unwrap();
    }

    async fn sold(lake: &Lake) -> Result<i64> {
        let mut tables = Tables::open(lake).await.unwrap();
        tables.take_over(&Ownership::Whole).await.unwrap();
        let recovered = recover(&mut tables, &Ownership::Whole).await?;
        Ok(-recovered.states[&1][&10].change_quantity().expect("no recount is due"))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rows_that_another_program_compacted_are_not_replayed_onto_gold_that_has_them() {
        let (_folder, lake) = lake();
        begin(&lake).await;
        let row = |id: &'static str, quantity: i32| (id, 1, NEW_YEAR + 1, 1, 10, -quantity);
        sell(&lake, "a", 1).await;
        sell(&lake, "b", 2).await;
        rebuild::run(lake.root(), rebuild::Basis::Silver).await.unwrap();
        compact_as_another(&lake, &[row("a", 1), row("b", 2)]).await;
        assert_eq!(sold(&lake).await.unwrap(), 3);
        sell(&lake, "c", 4).await;
        assert_eq!(sold(&lake).await.unwrap(), 7, "what came after gold, and only that");

        // Old rows and new ones in one file.
        compact_as_another(&lake, &[row("a", 1), row("b", 2), row("c", 4)]).await;
        let error = sold(&lake).await.unwrap_err();
        assert!(format!("{error:#}").contains("run `onhand-hub rebuild`"), "{error:#}");
        rebuild::run(lake.root(), rebuild::Basis::Silver).await.unwrap();
        assert_eq!(sold(&lake).await.unwrap(), 7);
        sell(&lake, "d", 8).await;
        assert_eq!(sold(&lake).await.unwrap(), 15);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn new_rows_that_another_program_compacted_are_replayed() {
        let (_folder, lake) = lake();
        begin(&lake).await;
        rebuild::run(lake.root(), rebuild::Basis::Silver).await.unwrap();
        sell(&lake, "a", 1).await;
        sell(&lake, "b", 2).await;
        let newest = Table::open(&lake, TableName::InventoryChange).await.unwrap().version();
        compact_as_another(&lake, &[("a", 1, NEW_YEAR + 1, 1, 10, -1), ("b", 1, NEW_YEAR + 1, 1, 10, -2)]).await;
        assert_eq!(sold(&lake).await.unwrap(), 3);
        // A handle that meets the entry knows as much.
        let mut stale = Table::open_at(&lake, TableName::InventoryChange, newest - 2).await.unwrap();
        stale.commit(CommitRequest::append(Vec::new())).await.unwrap();
        let ages: Vec<(i64, bool)> = stale.live_files().map(|f| (f.added_version, f.since_known)).collect();
        assert_eq!(ages, [(newest, false)]);
    }
}
