//! When which table is kept small. (How, is in upkeep.rs.)
//!
//! In embedded form it is part of the commit cycle: gold names silver's newest versions, those that it leaves. Of several
//! processors one does it for all, beside its commits and with handles of its own: what the others write is much, and its own
//! stores are not to wait for it.

use super::commit::CommitError;
use super::log::Table;
use super::marks::{Reflected, Versions};
use super::storage::Lake;
use super::tables_open::Tables;
use super::upkeep::CompactionPolicy;
use crate::stats::HubStats;
use anyhow::Result;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Where no gold is committed, things are kept small so often all the same.
const AT_LEAST_EVERY: Duration = Duration::from_secs(30);

/// The schedule.
#[derive(Debug)]
pub struct Housekeeping {
    kept: Instant,
    cleaned: Instant,
}

impl Default for Housekeeping {
    fn default() -> Self {
        Self { kept: Instant::now(), cleaned: Instant::now() }
    }
}

impl Housekeeping {
    /// Whether it is time even though no gold is committed: the tables grow by what others write, too.
    pub fn is_due(&self) -> bool {
        self.kept.elapsed() >= AT_LEAST_EVERY
    }

    /// What is due; with `silver`, also its files are merged. Returns whether files of silver were replaced.
    ///
    /// Of silver, only files that every owner's gold reflects are merged: recovery replays the others, whole.
    ///
    /// # Errors
    /// As commits have them.
    pub async fn keep_small(&mut self, tables: &mut Tables, silver: bool) -> Result<bool, CommitError> {
        self.kept = Instant::now();
        tables.catch_up().await?;
        let reflected = reflected(tables).await?;
        let mut silver_replaced = false;
        // A table that gives trouble is no reason to let the others grow.
        let mut trouble = None;
        for table in [&mut tables.changes, &mut tables.counts].into_iter().filter(|_| silver) {
            let policy =
                CompactionPolicy { settled: Some(reflected.by_all(table.name())), ..CompactionPolicy::default() };
            match compact(table, &policy).await {
                Ok(replaced) => silver_replaced |= replaced,
                Err(error) => drop(trouble.get_or_insert(error)),
            }
        }
        // Others append to these, too; only here they are looked at.
        let others = [&mut tables.bronze, &mut tables.quarantine, &mut tables.event_log, &mut tables.count_files];
        for table in others.into_iter().chain([&mut tables.replays]) {
            let done = async {
                table.catch_up().await?;
                compact(table, &CompactionPolicy::default()).await
            };
            if let Err(error) = done.await {
                trouble.get_or_insert(error);
            }
        }
        if self.cleaned.elapsed() >= tables.gold.retention().look_every {
            self.cleaned = Instant::now();
            if let Err(error) = clean(tables).await {
                trouble.get_or_insert(error);
            }
        }
        let every = tables.gold.retention().checkpoint_interval;
        for table in tables.all() {
            if let Err(error) = table.checkpoint_if_due(every).await {
                trouble.get_or_insert(error.into());
            }
        }
        match trouble {
            // The identity look-up has to know which files there are, whatever else went wrong.
            Some(error) if !silver_replaced => Err(error),
            Some(error) => {
                tracing::warn!("upkeep: {error:#}; trying again later");
                Ok(true)
            }
            None => Ok(silver_replaced),
        }
    }
}

/// What gold says it reflects.
async fn reflected(tables: &mut Tables) -> Result<Reflected, CommitError> {
    Ok(match tables.gold.reflects().await? {
        Some((_, said)) => Reflected::read(said)?,
        None => Reflected::Whole(Versions::new()),
    })
}

/// Deletes what is old. Which versions are needed is asked now, and by handles that know as much: merging has taken its time, and
/// others went on.
async fn clean(tables: &mut Tables) -> Result<(), CommitError> {
    tables.gold.catch_up().await?;
    let reflected = reflected(tables).await?;
    let mut trouble = None;
    for table in tables.all() {
        let done = async {
            table.catch_up().await?;
            // Recovery and verify open silver as gold reflects it, however long ago that was.
            let needed = reflected.each(table.name());
            table.cleanup_log(needed.first().copied()).await?;
            table.vacuum(&needed).await?;
            anyhow::Ok(())
        };
        if let Err(error) = done.await {
            trouble.get_or_insert(error.into());
        }
    }
    trouble.map_or(Ok(()), Err)
}

/// Keeps the tables of a lake of processors small until it is aborted, each `every` time, and at most half of the time.
pub async fn keep_small_beside(lake: Lake, every: Duration, stats: Arc<HubStats>) {
    let mut housekeeping = Housekeeping::default();
    let mut open = None;
    let mut worked = Duration::ZERO;
    loop {
        tokio::time::sleep(every.max(worked)).await;
        let began = Instant::now();
        let done = AssertUnwindSafe(once(&lake, &mut open, &mut housekeeping)).catch_unwind().await;
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("upkeep: {error:#}; trying again later"),
            Err(_) => {
                tracing::error!("upkeep has panicked; trying again later");
                open = None;
            }
        }
        let lost = open.iter_mut().flat_map(Tables::all).map(Table::take_lost_races).sum();
        stats.commit_conflicts.fetch_add(lost, Relaxed);
        worked = began.elapsed();
    }
}

async fn once(lake: &Lake, open: &mut Option<Tables>, housekeeping: &mut Housekeeping) -> Result<()> {
    let tables = match open {
        Some(tables) => tables,
        None => open.insert(Tables::open(lake).await?),
    };
    futures::future::try_join_all(tables.all().map(Table::catch_up)).await?;
    housekeeping.keep_small(tables, true).await?;
    Ok(())
}

/// Returns whether other files are live now.
async fn compact(table: &mut Table, policy: &CompactionPolicy) -> Result<bool, CommitError> {
    match table.compact(policy).await {
        Ok(done) => Ok(done.removed > 0),
        // Somebody else has merged some of these files: no reason to stop. The table knows what is there now.
        Err(error @ CommitError::Conflict { .. }) => {
            tracing::info!("compaction: {error}; looking again later");
            Ok(true)
        }
        Err(error) => Err(error),
    }
}
