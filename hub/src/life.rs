//! One life of the hub's inside: from what the lake holds to a pipeline that takes events, with everything that serves it.
//!
//! There is one way to recover, and it is the same after a crash of the process, of an actor, or of a lookup: end the life,
//! and begin the next from the lake. The agents send again what was not acknowledged.

use crate::actors::{ActorLimits, ActorThreads, Directory, IdentityLookup, ItemUpdate, Presence, StoreShared};
use crate::gateway::{Intake, Position};
use crate::lake::commit_cycle::{CommitCycle, CycleConfig};
use crate::lake::housekeeping::{Housekeeping, keep_small_beside};
use crate::lake::identities::{IdentityReader, SilverFiles, note_presence};
use crate::lake::recovery::recover;
use crate::lake::tables_open::Tables;
use crate::lake::{Lake, Table, TableName};
use crate::ownership::Ownership;
use crate::pipeline::{Pipeline, TopicPartition};
use crate::reference::Applicability;
use crate::stats::HubStats;
use anyhow::{Context, Result};
use onhand_common::{AgentId, Failpoint, ReferenceData};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What outlives a life and is handed from one to the next.
#[derive(Clone)]
pub struct Surroundings {
    /// The tables.
    pub lake: Lake,
    /// Tells the agents.
    pub intake: Arc<Intake>,
    /// Counters of the process.
    pub stats: Arc<HubStats>,
    /// The reference data of now, for whoever shows it.
    pub reference: watch::Sender<Arc<ReferenceData>>,
    /// Somebody wants the reference data to be looked at now.
    pub reload_reference: Arc<Notify>,
    /// What the live stream shows.
    pub updates: broadcast::Sender<ItemUpdate>,
}

/// How a life is led.
#[derive(Clone)]
pub struct Habits {
    /// Caps of the actors.
    pub limits: ActorLimits,
    /// Whether bronze is written.
    pub bronze: bool,
    /// Rows that may await a commit.
    pub most_awaiting_rows: usize,
    /// Threads that actors live on.
    pub threads: usize,
    /// When what is committed.
    pub cycle: CycleConfig,
    /// Partitions of Kafka topics that events come from.
    pub topic_partitions: Vec<TopicPartition>,
}

/// A pipeline whose stores stand as the lake has them. Nothing is committed before its cycle runs.
pub struct Life {
    /// Takes events.
    pub pipeline: Arc<Pipeline>,
    /// Commits them; to be run.
    pub cycle: CommitCycle,
    /// What serves it, to be ended after the cycle.
    pub servants: Servants,
    /// How far agents are, in silver.
    pub positions: Vec<(AgentId, Position)>,
    /// From where each partition that was asked for is to be read on.
    pub offsets: BTreeMap<TopicPartition, i64>,
}

/// What a life needs to be ended in the end.
pub struct Servants {
    reader: JoinHandle<()>,
    /// Of the processor that does it for all.
    upkeep: Option<JoinHandle<()>>,
    threads: ActorThreads,
}

impl Servants {
    /// Ends all actors, the look-up of identities, and upkeep.
    pub async fn end(self) {
        self.reader.abort();
        if let Some(upkeep) = self.upkeep {
            upkeep.abort();
        }
        self.threads.stop().await;
    }
}

impl Life {
    /// Takes over what is owned and builds everything from the lake. `shutdown` asks for the cycle's end.
    ///
    /// # Errors
    /// If a table cannot be read or written, or another hub takes over at the same time.
    pub async fn begin(
        around: &Surroundings,
        habits: Habits,
        ownership: Ownership,
        shutdown: CancellationToken,
    ) -> Result<Self> {
        let started = Instant::now();
        let mut tables = Tables::open(&around.lake).await?;
        let epoch = tables.take_over(&ownership).await?;
        Failpoint::TakeoverFenced.pass();
        let recovered = recover(&mut tables, &ownership).await.context("recover from the lake")?;
        let progress = recovered.progress();
        let offsets = offsets_of(&mut tables.positions, &habits.topic_partitions)
            .await
            .context("read how far topics have been read")?;
        let applicability = Arc::new(Applicability::new(&recovered.reference));
        around.reference.send_replace(Arc::new(recovered.reference));

        let silver = SilverFiles {
            changes: tables.changes.live_files().cloned().collect(),
            counts: tables.counts.live_files().cloned().collect(),
        };
        let presence = Arc::new(Presence::default());
        note_presence(&silver, &presence);
        let (files, live_files) = watch::channel(Arc::new(silver));
        let (lookup, requests) = IdentityLookup::new(presence);
        let shared = Arc::new(StoreShared::new(habits.limits, lookup, around.updates.clone()));
        let reader = IdentityReader {
            changes: Table::open(&around.lake, TableName::InventoryChange).await?,
            counts: Table::open(&around.lake, TableName::InventorySnapshot).await?,
            room: Arc::clone(&shared.identities),
            stats: Arc::clone(&around.stats),
            files: live_files,
        };

        let threads = ActorThreads::start(habits.threads).await?;
        let reader = tokio::spawn(reader.run(requests));
        let beside = matches!(ownership, Ownership::Partitions(_)) && ownership.leads();
        let upkeep = beside.then(|| {
            let stats = Arc::clone(&around.stats);
            tokio::spawn(keep_small_beside(around.lake.clone(), habits.cycle.gold_interval, stats))
        });
        let directory = Directory::new(threads.arbiters(), shared, Arc::clone(&applicability));
        let behind: BTreeSet<i32> = recovered.behind.iter().copied().collect();
        let (mut stores, mut items) = (0, 0);
        for (store_id, states) in recovered.states {
            stores += 1;
            items += states.len();
            directory.restore(store_id, states, behind.contains(&store_id));
        }
        let stats = Arc::clone(&around.stats);
        stats.silver_version.store(tables.changes.version() as u64, Relaxed);
        stats.gold_version.store(tables.gold.version() as u64, Relaxed);
        stats.gold_dirty_stores.store(behind.len() as u64, Relaxed);
        tracing::info!(stores, items, behind = behind.len(), epoch, took = ?started.elapsed(), "recovered from the lake");

        let pipeline = Pipeline::new(directory, progress, habits.bronze, habits.most_awaiting_rows, stats);
        let pipeline = Arc::new(pipeline.owning(ownership.clone(), offsets.clone()));
        let cycle = CommitCycle {
            tables,
            epoch,
            ownership,
            pipeline: Arc::clone(&pipeline),
            intake: Arc::clone(&around.intake),
            config: habits.cycle,
            applicability,
            reference: around.reference.clone(),
            reload_reference: Arc::clone(&around.reload_reference),
            files,
            behind,
            shutdown,
            housekeeping: Housekeeping::default(),
            offsets: offsets.clone(),
            half_known: false,
            marked: started,
        };
        Ok(Self {
            pipeline,
            cycle,
            servants: Servants { reader, upkeep, threads },
            positions: recovered.positions,
            offsets,
        })
    }
}

/// How far each partition has been read, as the lake knows now.
///
/// # Errors
/// If the lake cannot be read.
pub async fn offsets_in(lake: &Lake, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, i64>> {
    offsets_of(&mut Table::open(lake, TableName::Positions).await?, partitions).await
}

async fn offsets_of(positions: &mut Table, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, i64>> {
    let mut offsets = BTreeMap::new();
    let app_ids: Vec<String> = partitions.iter().map(TopicPartition::offset_id).collect();
    positions.learn_transactions(&app_ids).await?;
    for partition in partitions {
        let next = positions.transaction_version(&partition.offset_id()).await?;
        offsets.insert(partition.clone(), next.unwrap_or(0));
    }
    Ok(offsets)
}
