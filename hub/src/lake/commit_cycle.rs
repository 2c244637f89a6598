//! The heart beat: what the stores took becomes silver, then gold, then the agents are told.
//!
//! One cycle, in this order, and each step only after the one before is durable:
//! 1. At a gold cycle, look for new reference data; commit it, tell the stores.
//! 2. Cut: the agents' positions first, then every store that took something (see `pipeline.rs`).
//! 3. Silver and bronze: append the cut's rows. Then the positions, then the durable acks.
//! 4. At a gold cycle: compact, sum what needs a recount, replace the rows of the stores that changed. The commit names the
//!    silver versions it reflects.
//!
//! Every commit of a cycle carries the same transaction: application id and `epoch << 32 | number of the cut`. A commit that
//! may have landed is made again with it and finds itself; a hub that was replaced is refused, and stops.

use super::commit::{CommitError, CommitRequest};
use super::count_file_log::BATCH_ID;
use super::event_log::{self, CycleRow, Expectations};
use super::gold::{self, PerStore};
use super::housekeeping::Housekeeping;
use super::identities::SilverFiles;
use super::insist::{Stamp, append, insist};
use super::log::{REFLECTS_KEY, Table};
use super::marks::OwnMarks;
use super::recount::sum_changes;
use super::tables_open::Tables;
use super::{positions, reference, silver};
use crate::actors::{Cut, MakeRoom, NEVER, NewReference, Recounted, StoreCut};
use crate::count_files::Leading;
use crate::gateway::Intake;
use crate::ownership::Ownership;
use crate::pipeline::{CutBegin, Pipeline, TopicPartition};
use crate::reference::Applicability;
use anyhow::{Context, Result};
use onhand_common::{Failpoint, ReferenceData, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Pause before items are summed again after storage failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Time after which the marks of partitions without changes are moved.
const MARKS_MOVE_EVERY: Duration = Duration::from_secs(600);

/// When what is done.
#[derive(Debug, Clone)]
pub struct CycleConfig {
    /// Time between two silver commits.
    pub silver_interval: Duration,
    /// Time between two gold commits.
    pub gold_interval: Duration,
    /// Where reference data comes from.
    pub reference: Option<PathBuf>,
    /// Time between two looks at it.
    pub reference_interval: Duration,
}

/// See the module.
pub struct CommitCycle {
    /// The tables, taken over by this hub.
    pub tables: Tables,
    /// From [`Tables::take_over`].
    pub epoch: i64,
    /// What was taken over.
    pub ownership: Ownership,
    /// Whose stores are cut.
    pub pipeline: Arc<Pipeline>,
    /// Tells the agents.
    pub intake: Arc<Intake>,
    /// When what is done.
    pub config: CycleConfig,
    /// What applies now.
    pub applicability: Arc<Applicability>,
    /// The reference data of now, for whoever shows it.
    pub reference: watch::Sender<Arc<ReferenceData>>,
    /// Somebody wants the reference data to be looked at now.
    pub reload_reference: Arc<Notify>,
    /// What the identity reader reads.
    pub files: watch::Sender<Arc<SilverFiles>>,
    /// Stores that changed since the last gold commit.
    pub behind: BTreeSet<i32>,
    /// Asks for the last cycle.
    pub shutdown: CancellationToken,
    /// Keeps the tables small.
    pub housekeeping: Housekeeping,
    /// Offsets that are in the lake.
    pub offsets: BTreeMap<TopicPartition, i64>,
    /// The handles know newer reference data than what is applied here.
    pub half_known: bool,
    /// When gold's marks were last moved.
    pub marked: Instant,
}

/// What a cycle learns on its way.
struct Cycle {
    cut: CutBegin,
    cuts: Vec<StoreCut>,
    row: CycleRow,
}

impl CommitCycle {
    /// Runs until `shutdown`, which is followed by a last silver and gold commit, or until the pipeline is over.
    ///
    /// # Errors
    /// [`CommitError::Fenced`] when another hub has taken the lake over: then nothing may be written any more.
    pub async fn run(mut self) -> Result<(), CommitError> {
        let mut ticks = tokio::time::interval(self.config.silver_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Gold has a clock of its own: an interval that is no multiple of silver's is kept all the same.
        let mut next_gold = Instant::now();
        let mut next_reference = Instant::now();
        let mut log: Vec<CycleRow> = Vec::new();
        let pipeline = Arc::clone(&self.pipeline);
        let reload = Arc::clone(&self.reload_reference);
        loop {
            let mut look_at_reference = false;
            tokio::select! {
                biased;
                _ = pipeline.over_and_why() => return Ok(()),
                // Before the others: where there is too much to do, a commit is always wanted.
                () = reload.notified() => look_at_reference = true,
                _ = ticks.tick() => {}
                () = pipeline.commit_wanted.notified() => {}
                () = tokio::time::sleep_until(next_gold.into()) => {}
                () = self.shutdown.cancelled() => {}
            }
            let now = Instant::now();
            look_at_reference |= now >= next_reference;
            if look_at_reference {
                next_reference = now + self.config.reference_interval;
            }
            // Whoever does not read the files has to see soon what the one who does has made of them.
            look_at_reference |= !self.ownership.leads() && now >= next_gold;
            let stopping = self.shutdown.is_cancelled();
            let gold = stopping || look_at_reference || now >= next_gold;
            if gold {
                next_gold = now + self.config.gold_interval;
            }
            match self.cycle(gold, look_at_reference).await {
                Ok(Some(row)) => log.push(row),
                Ok(None) => {}
                Err(Stopped::Commit(error)) => return Err(error),
                Err(Stopped::Pipeline) => return Ok(()),
            }
            if gold && !log.is_empty() {
                let rows = std::mem::take(&mut log);
                let stats = Arc::clone(&self.pipeline.stats);
                let write = async |table: &Table| event_log::append(table, &rows).await;
                let transaction = self.stamp(pipeline.durable_cut());
                insist(&mut self.tables.event_log, &self.shutdown, &stats, write, &transaction).await?;
            }
            if stopping {
                return Ok(());
            }
        }
    }

    /// What the loader of count files needs to know of this life.
    pub fn leading(&self) -> Leading {
        Leading {
            pipeline: Arc::clone(&self.pipeline),
            app_ids: self.ownership.app_ids(),
            epoch: self.epoch,
            plans: Arc::default(),
        }
    }

    async fn cycle(&mut self, gold: bool, look_at_reference: bool) -> Result<Option<CycleRow>, Stopped> {
        let started = Timestamp::now().micros();
        let looked = if look_at_reference { self.look_at_reference().await? } else { Looked::Same };
        if look_at_reference {
            self.half_known = matches!(looked, Looked::Failed);
        }
        // Half of what was read would be named by gold, and not be in its rows.
        let gold = gold && !self.half_known;
        let restated = matches!(looked, Looked::New);
        // The others do so to find new reference data. What gold's marks name has to move on, or nothing behind it is merged.
        if gold
            && self.ownership.leads()
            && let Ownership::Partitions(_) = self.ownership
            && let Err(error) = self.catch_up().await
        {
            tracing::warn!("looking at what others have committed: {error:#}; trying again later");
        }
        let mut cycle = self.cut(gold).await?;
        cycle.row.started_at = started;
        let appended = self.commit_silver(&mut cycle).await?;
        let replaced = gold && self.commit_gold(&mut cycle).await?;
        if gold && !replaced && self.housekeeping.is_due() {
            // Gold names the newest versions of silver while nothing happens, so those stay.
            self.keep_small(false).await?;
        }
        if !appended && !replaced && !restated {
            if gold {
                self.check_still_ours().await?;
            }
            return Ok(None);
        }
        cycle.row.kind = if restated {
            "restatement"
        } else if replaced {
            "gold"
        } else {
            "silver"
        };
        cycle.row.silver_version = self.tables.changes.version();
        cycle.row.gold_version = self.tables.gold.version();
        cycle.row.finished_at = Timestamp::now().micros();
        Ok(Some(cycle.row))
    }

    async fn look_at_reference(&mut self) -> Result<Looked, Stopped> {
        if !self.ownership.leads() {
            return self.follow_reference().await;
        }
        let Some(folder) = self.config.reference.clone() else { return Ok(Looked::Same) };
        let current = Arc::clone(&self.reference.borrow());
        let asked = Arc::clone(&current);
        let loaded = tokio::task::spawn_blocking(move || reference::load_folder(&folder, &asked)).await;
        let loaded = match loaded.context("read the reference data").and_then(|loaded| loaded) {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!("the reference data stays as it is: {error:#}");
                return Ok(Looked::Same);
            }
        };
        if loaded == *current {
            return Ok(Looked::Same);
        }
        // The number of the cut that follows.
        let transaction = self.stamp(self.pipeline.durable_cut() + 1);
        let (shutdown, stats, tables) = (&self.shutdown, &self.pipeline.stats, &mut self.tables);
        if loaded.stores != current.stores {
            let write = async |table: &Table| reference::replace_stores(table, &loaded.stores).await;
            insist(&mut tables.stores, shutdown, stats, write, &transaction).await?;
            Failpoint::ReferenceStores.pass();
        }
        if loaded.items != current.items {
            let write = async |table: &Table| reference::replace_items(table, &loaded.items).await;
            insist(&mut tables.items, shutdown, stats, write, &transaction).await?;
        }
        if loaded.change_types != current.change_types {
            let write = async |table: &Table| reference::replace_change_types(table, &loaded.change_types).await;
            insist(&mut tables.change_types, shutdown, stats, write, &transaction).await?;
        }
        self.restate(loaded).await?;
        Ok(Looked::New)
    }

    /// Takes over the reference data that another has committed.
    async fn follow_reference(&mut self) -> Result<Looked, Stopped> {
        let read = match self.catch_up().await {
            Ok(()) => {
                let tables = &self.tables;
                reference::read(&tables.stores, &tables.items, &tables.change_types).await
            }
            Err(error) => Err(error),
        };
        match read {
            Ok(loaded) if loaded == **self.reference.borrow() => Ok(Looked::Same),
            Ok(loaded) => {
                self.restate(loaded).await?;
                Ok(Looked::New)
            }
            Err(error) => {
                tracing::warn!("looking for new reference data: {error:#}; trying again later");
                Ok(Looked::Failed)
            }
        }
    }

    /// Tells the stores of new reference data.
    async fn restate(&mut self, loaded: ReferenceData) -> Result<(), Stopped> {
        self.applicability = Arc::new(Applicability::new(&loaded));
        tracing::info!(
            stores = loaded.stores.len(),
            items = loaded.items.len(),
            change_types = loaded.change_types.len(),
            "new reference data"
        );
        self.reference.send_replace(Arc::new(loaded));
        self.pipeline.directory.set_applicability(Arc::clone(&self.applicability));
        for (store_id, address) in self.pipeline.directory.all() {
            let touched = address.send(NewReference(Arc::clone(&self.applicability))).await;
            if touched.map_err(|error| self.store_died(store_id, &error))? {
                self.behind.insert(store_id);
            }
        }
        Ok(())
    }

    /// Where there is nothing to commit, nothing would tell that somebody else has taken over, and what the API says would grow
    /// old.
    async fn check_still_ours(&mut self) -> Result<(), CommitError> {
        let gold = &mut self.tables.gold;
        if let Err(error) = gold.catch_up().await {
            tracing::warn!("looking whether this is still the owner: {error:#}");
            return Ok(());
        }
        let newest = (self.epoch + 1) << 32;
        for app_id in self.ownership.app_ids() {
            let found = gold.transaction_version(&app_id).await?.unwrap_or(0);
            if found >= newest {
                return Err(CommitError::Fenced { table: gold.name(), app_id, found, ours: newest - 1 });
            }
        }
        Ok(())
    }

    async fn cut(&mut self, gold: bool) -> Result<Cycle, Stopped> {
        let duplicates_before = self.pipeline.stats.duplicates.load(Relaxed);
        let cut = self.pipeline.begin_cut();
        self.behind.extend(&cut.touched);
        let stores: BTreeSet<i32> = if gold { self.behind.clone() } else { cut.touched.iter().copied().collect() };
        let durable = self.pipeline.durable_cut();
        if self.pipeline.directory.shared().identities.is_overfull() {
            // Those that sleep make room, too. Nobody waits for it.
            for (store_id, store) in self.pipeline.directory.all() {
                if !stores.contains(&store_id) {
                    let _ = store.try_send(MakeRoom { durable });
                }
            }
        }
        let asked: Vec<_> = stores
            .into_iter()
            .filter_map(|store_id| Some((store_id, self.pipeline.directory.get(store_id)?)))
            .map(|(store_id, address)| async move {
                (store_id, address.send(Cut { number: cut.number, durable, gold }).await)
            })
            .collect();
        let mut cuts = Vec::with_capacity(asked.len());
        for (store_id, answer) in futures::future::join_all(asked).await {
            cuts.push(answer.map_err(|error| self.store_died(store_id, &error))?);
        }
        let row = CycleRow {
            stores: cuts.len() as i32,
            quarantined: cut.quarantine.len() as i64,
            duplicates: (self.pipeline.stats.duplicates.load(Relaxed) - duplicates_before) as i64,
            ..CycleRow::default()
        };
        Ok(Cycle { cut, cuts, row })
    }

    /// Returns whether anything was appended.
    async fn commit_silver(&mut self, cycle: &mut Cycle) -> Result<bool, Stopped> {
        let started = Instant::now();
        let transaction = self.stamp(cycle.cut.number);
        let changes: Vec<_> = cycle.cuts.iter().flat_map(|cut| &cut.changes).collect();
        let counts: Vec<_> = cycle.cuts.iter().flat_map(|cut| &cut.counts).collect();
        let appended = changes.len() + counts.len();
        let mut expectations = Expectations::default();
        changes.iter().for_each(|row| expectations.check(row, &self.applicability));
        let (bronze, quarantine) = (&cycle.cut.bronze, &cycle.cut.quarantine);
        let (shutdown, stats) = (&self.shutdown, &self.pipeline.stats);
        let anything = appended + bronze.len() + quarantine.len() > 0;
        let files = cycle.cut.count_files.map(|batch| (BATCH_ID.to_owned(), batch));
        let tables = &mut self.tables;
        let (count_table, quarantine_table) = (&mut tables.counts, &mut tables.quarantine);
        tokio::try_join!(
            append(&mut tables.bronze, shutdown, stats, &transaction, bronze.len(), || silver::bronze(bronze)),
            append(&mut tables.changes, shutdown, stats, &transaction, changes.len(), || {
                silver::changes(changes.clone())
            }),
            async {
                // A batch of count files is taken with its counts; what was refused of it has to be in quarantine by then.
                append(quarantine_table, shutdown, stats, &transaction, quarantine.len(), || {
                    silver::quarantine(quarantine)
                })
                .await?;
                if counts.is_empty() && files.is_none() {
                    return Ok(());
                }
                let write = async |table: &Table| {
                    let adds = table.write(silver::counts(counts.clone())?).await?;
                    Ok(CommitRequest::append(adds).with_notes(files.clone()))
                };
                insist(count_table, shutdown, stats, write, &transaction).await
            },
        )?;
        Failpoint::CycleSilver.pass();
        let silver_version = self.tables.changes.version();
        let moved = self.offsets != cycle.cut.offsets;
        if anything || moved {
            let (positions, offsets) = (&cycle.cut.positions, &cycle.cut.offsets);
            let whole = matches!(self.ownership, Ownership::Whole);
            let write = async |table: &Table| {
                let request = if whole {
                    positions::replace(table, positions, silver_version).await?
                } else {
                    CommitRequest::append(Vec::new())
                };
                Ok(request.with_notes(offsets.iter().map(|(partition, next)| (partition.offset_id(), *next))))
            };
            insist(&mut self.tables.positions, shutdown, stats, write, &transaction).await?;
        }
        self.offsets.clone_from(&cycle.cut.offsets);
        stats.gold_dirty_stores.store(self.behind.len() as u64, Relaxed);
        if appended > 0 {
            self.publish_files();
        }
        Failpoint::CyclePositions.pass();
        let news = self.pipeline.committed(&cycle.cut);
        self.intake.acknowledge(&news, false);
        Failpoint::CycleAcked.pass();
        let stats = &self.pipeline.stats;
        if anything {
            stats.silver_commits.fetch_add(1, Relaxed);
            stats.silver_micros.fetch_add(started.elapsed().as_micros() as u64, Relaxed);
            stats.silver_rows.fetch_add(appended as u64, Relaxed);
            stats.silver_version.store(silver_version as u64, Relaxed);
            stats.last_silver_commit.store(Timestamp::now().micros() as u64, Relaxed);
        }
        cycle.row.rows_appended = appended as i64;
        cycle.row.expectations = expectations;
        Ok(anything)
    }

    /// Returns whether gold was written.
    async fn commit_gold(&mut self, cycle: &mut Cycle) -> Result<bool, Stopped> {
        if self.behind.is_empty() {
            self.move_marks(&cycle.cut).await?;
            return Ok(false);
        }
        let started = Instant::now();
        let transaction = self.stamp(cycle.cut.number);
        let recounted = self.recount(&mut cycle.cuts).await?;
        let gold: PerStore<_> = per_store(&mut cycle.cuts, |cut| cut.gold.take());
        let latest: PerStore<_> = per_store(&mut cycle.cuts, |cut| cut.latest.take());
        let uncounted: PerStore<_> = per_store(&mut cycle.cuts, |cut| cut.uncounted.take())
            .into_iter()
            .filter(|(id, rows)| !rows.is_empty() || self.tables.uncounted.files_of_partition((*id).into()).count() > 0)
            .collect();
        if gold.is_empty() {
            // What was sent had been taken before.
            self.behind.clear();
            self.pipeline.stats.gold_dirty_stores.store(0, Relaxed);
            return Ok(false);
        }
        self.keep_small(true).await?;
        let (shutdown, stats, tables) = (&self.shutdown, &self.pipeline.stats, &mut self.tables);
        if !latest.is_empty() {
            let write = async |table: &Table| gold::replace_latest(table, &latest).await;
            insist(&mut tables.latest, shutdown, stats, write, &transaction).await?;
        }
        if !uncounted.is_empty() {
            let write = async |table: &Table| gold::replace_uncounted(table, &uncounted).await;
            insist(&mut tables.uncounted, shutdown, stats, write, &transaction).await?;
        }
        Failpoint::CycleLatest.pass();
        let ownership = &self.ownership;
        let reflected = tables.reflected();
        let marks = own_marks(ownership, tables);
        let write = async |table: &Table| {
            let request = gold::replace_gold(table, &gold).await?;
            Ok(match &marks {
                Some(_) => CommitRequest { marks: marks.clone(), ..request },
                None => request.with_metadata(REFLECTS_KEY, reflected.clone()),
            })
        };
        insist(&mut tables.gold, shutdown, stats, write, &transaction).await?;
        Failpoint::CycleGold.pass();
        self.behind.clear();
        self.marked = Instant::now();
        for (store_id, sums) in recounted {
            let Some(address) = self.pipeline.directory.get(store_id) else { continue };
            let still_due = address.send(Recounted(sums)).await;
            if still_due.map_err(|error| self.store_died(store_id, &error))? {
                self.behind.insert(store_id);
            }
        }
        let stats = &self.pipeline.stats;
        cycle.row.rows_replaced = gold.iter().map(|(_, rows)| rows.len() as i64).sum();
        stats.gold_commits.fetch_add(1, Relaxed);
        stats.gold_rows.fetch_add(cycle.row.rows_replaced as u64, Relaxed);
        stats.gold_micros.fetch_add(started.elapsed().as_micros() as u64, Relaxed);
        stats.gold_version.store(self.tables.gold.version() as u64, Relaxed);
        stats.gold_dirty_stores.store(self.behind.len() as u64, Relaxed);
        stats.last_gold_commit.store(Timestamp::now().micros() as u64, Relaxed);
        Ok(true)
    }

    /// Says of partitions in which nothing happens that they reflect newer versions, too: others go on committing, and the
    /// versions that a mark names are kept readable for its sake.
    async fn move_marks(&mut self, cut: &CutBegin) -> Result<(), Stopped> {
        if self.marked.elapsed() < MARKS_MOVE_EVERY {
            return Ok(());
        }
        let Some(marks) = own_marks(&self.ownership, &self.tables) else { return Ok(()) };
        let transaction = self.stamp(cut.number);
        let write = async |_: &Table| {
            let nothing = CommitRequest::append(Vec::new());
            Ok(CommitRequest { marks: Some(marks.clone()), operation: "REFLECT", data_change: false, ..nothing })
        };
        insist(&mut self.tables.gold, &self.shutdown, &self.pipeline.stats, write, &transaction).await?;
        self.marked = Instant::now();
        Ok(())
    }

    /// Sums what the cuts could not tell, writes it into their rows, and returns it per store for the stores.
    async fn recount(&mut self, cuts: &mut [StoreCut]) -> Result<HashMap<i32, Vec<(i32, i64, i64, i64)>>, Stopped> {
        let wanted: HashMap<(i32, i32), i64> = cuts
            .iter()
            .flat_map(|cut| cut.recounts.iter().map(|r| ((cut.store_id, r.item_id), r.state.counts_from())))
            .collect();
        let mut answers: HashMap<i32, Vec<_>> = HashMap::new();
        if wanted.is_empty() {
            return Ok(answers);
        }
        let sums = loop {
            let error = match sum_changes(&self.tables.changes, &self.applicability, &wanted).await {
                Ok(sums) => break sums,
                Err(error) if self.shutdown.is_cancelled() => return Err(CommitError::Other(error).into()),
                // Its partitions are another's by now.
                Err(_) if self.pipeline.is_over() => return Err(Stopped::Pipeline),
                Err(error) => error,
            };
            tracing::warn!("summing items from silver: {error:#}; trying again");
            tokio::time::sleep(PAUSE).await;
            // Who stood still for long has files in hand that others have merged, and removed.
            if let Err(error) = self.tables.changes.catch_up().await {
                tracing::warn!("looking for newer files of silver: {error:#}; trying again");
            }
            self.publish_files();
        };
        self.pipeline.stats.recounts.fetch_add(wanted.len() as u64, Relaxed);
        for cut in cuts {
            for recount in std::mem::take(&mut cut.recounts) {
                let (sum, last) = sums.get(&(cut.store_id, recount.item_id)).copied().unwrap_or((0, NEVER));
                cut.recounted(&recount, sum, last);
                let answer = (recount.item_id, recount.state.counts_from(), sum, last);
                answers.entry(cut.store_id).or_default().push(answer);
            }
            cut.sort();
        }
        Ok(answers)
    }

    /// Compaction and the like, where this cycle is the only one. Silver is compacted before a gold commit only, which then names
    /// the versions that this leaves.
    async fn keep_small(&mut self, silver: bool) -> Result<(), Stopped> {
        if let Ownership::Partitions(_) = self.ownership {
            return Ok(());
        }
        match self.housekeeping.keep_small(&mut self.tables, silver).await {
            Ok(true) => self.publish_files(),
            Ok(false) => {}
            Err(CommitError::Other(error)) => tracing::warn!("upkeep: {error:#}; trying again later"),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Learns what others have committed, and which files of silver there are then.
    async fn catch_up(&mut self) -> Result<()> {
        let tables = &mut self.tables;
        let silver = (tables.changes.version(), tables.counts.version());
        let caught_up = tables.catch_up().await;
        if silver != (self.tables.changes.version(), self.tables.counts.version()) {
            // Those that were compacted away go in the end, and identities are looked up in what is there.
            self.publish_files();
        }
        caught_up
    }

    fn publish_files(&self) {
        self.files.send_replace(Arc::new(SilverFiles {
            changes: self.tables.changes.live_files().cloned().collect(),
            counts: self.tables.counts.live_files().cloned().collect(),
        }));
    }

    /// The application ids, and the version of the cut of this number.
    fn stamp(&self, cut: u64) -> Stamp {
        (self.ownership.app_ids(), self.epoch << 32 | cut as i64)
    }

    fn store_died(&self, store_id: i32, error: &actix::MailboxError) -> Stopped {
        self.pipeline.fail(format!("store {store_id}: {error}"));
        Stopped::Pipeline
    }
}

/// What gold says of partitions; nothing in embedded form, where it says the same of all.
fn own_marks(ownership: &Ownership, tables: &Tables) -> Option<OwnMarks> {
    match ownership {
        Ownership::Whole => None,
        Ownership::Partitions(partitions) => {
            Some(OwnMarks { partitions: partitions.clone(), versions: tables.versions() })
        }
    }
}

/// What a look at the reference data brought.
enum Looked {
    Same,
    New,
    /// The tables are known as they are now, but not what they say.
    Failed,
}

/// Why a cycle did not end.
enum Stopped {
    Commit(CommitError),
    Pipeline,
}

impl From<CommitError> for Stopped {
    fn from(error: CommitError) -> Self {
        Self::Commit(error)
    }
}

fn per_store<T>(cuts: &mut [StoreCut], mut take: impl FnMut(&mut StoreCut) -> Option<Vec<T>>) -> PerStore<T> {
    cuts.iter_mut().filter_map(|cut| Some((cut.store_id, take(cut)?))).collect()
}
