//! One life of the hub's inside, from a recovery to the next: its stores, how far its agents are, and what awaits a commit.
//!
//! Order matters in two places, and both are here:
//! - Taking: events reach their stores, the stores are marked touched, and only then does the agent's position advance.
//! - Cutting ([`Pipeline::begin_cut`]): positions are read first, stores are cut after. So a cut holds at least what its
//!   positions say; what it holds beyond comes again after a crash and is dropped by identity.

use crate::actors::{Directory, StoreUnavailable, TakeEvents, Taken};
use crate::gateway::progress::{Position, Progress, Verdict};
use crate::ownership::Ownership;
use crate::rows::{BronzeRow, QuarantineRow, Source};
use crate::stats::HubStats;
use onhand_common::frame::Frame;
use onhand_common::{AgentId, Epoch, Event, Seq};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// Bytes of bronze that weigh as much as one row in the cap on what awaits a commit.
const BYTES_PER_ROW: usize = 128;
/// Rows of quarantine that may await a commit.
const QUARANTINE_ROWS: usize = 1_024;

/// A partition of a Kafka topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
}

impl TopicPartition {
    /// The application id whose version is the next offset to read.
    pub fn offset_id(&self) -> String {
        format!("onhand/offset/{}/{}", self.topic, self.partition)
    }
}

/// What has to be taken before a row of bronze may be written: then it is not written twice after a crash.
enum CoveredBy {
    Agent(AgentId, Position),
    Offset(TopicPartition, i64),
    /// Nothing numbers it.
    Nothing,
}

type AwaitingBronze = (CoveredBy, BronzeRow);

/// See the module.
pub struct Pipeline {
    /// Which stores are moved here.
    pub ownership: Ownership,
    /// The stores.
    pub directory: Directory,
    /// Counters of the process.
    pub stats: Arc<HubStats>,
    progress: Mutex<Progress>,
    /// The next offset of each partition of a topic.
    offsets: Mutex<BTreeMap<TopicPartition, i64>>,
    bronze: Option<Mutex<Vec<AwaitingBronze>>>,
    /// The newest batch of count files that is with the stores, or before Kafka on the topic; 0: none.
    count_files: AtomicI64,
    quarantine: Mutex<Vec<QuarantineRow>>,
    quarantine_room: Semaphore,
    room: Semaphore,
    most_rows: usize,
    /// Room taken by what was taken since the last cut.
    taken_room: AtomicUsize,
    next_cut: AtomicU64,
    durable_cut: watch::Sender<u64>,
    /// Someone waits for a commit.
    pub commit_wanted: Notify,
    failed: CancellationToken,
    failure: Mutex<Option<String>>,
}

/// What a cut begins with: everything that does not come from the stores.
pub struct CutBegin {
    /// Its number.
    pub number: u64,
    /// How far agents are: all of it is in the cut.
    pub positions: Vec<(AgentId, Position)>,
    /// How far topics have been read: all before is in the cut.
    pub offsets: BTreeMap<TopicPartition, i64>,
    /// The newest batch of count files, if there was one: all of it is in the cut.
    pub count_files: Option<i64>,
    /// Rows for bronze.
    pub bronze: Vec<BronzeRow>,
    /// Rows for the quarantine.
    pub quarantine: Vec<QuarantineRow>,
    /// Stores that have something for the cut.
    pub touched: HashSet<i32>,
    room: usize,
}

/// Why events are not taken: this life of the pipeline is over, the next one will ask for them again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the pipeline is being built anew: {0}")]
pub struct PipelineOver(pub String);

impl Pipeline {
    /// A pipeline over stores that stand as the lake has them. `most_rows` may await a commit.
    pub fn new(directory: Directory, progress: Progress, bronze: bool, most_rows: usize, stats: Arc<HubStats>) -> Self {
        Self {
            ownership: Ownership::Whole,
            directory,
            stats,
            progress: Mutex::new(progress),
            offsets: Mutex::default(),
            bronze: bronze.then(Mutex::default),
            count_files: AtomicI64::new(0),
            quarantine: Mutex::default(),
            quarantine_room: Semaphore::new(QUARANTINE_ROWS),
            room: Semaphore::new(most_rows),
            most_rows,
            taken_room: AtomicUsize::new(0),
            next_cut: AtomicU64::new(1),
            durable_cut: watch::Sender::new(0),
            commit_wanted: Notify::new(),
            failed: CancellationToken::new(),
            failure: Mutex::default(),
        }
    }

    /// With what it owns, and the offsets from which its partitions are read on.
    #[must_use]
    pub fn owning(mut self, ownership: Ownership, offsets: BTreeMap<TopicPartition, i64>) -> Self {
        (self.ownership, self.offsets) = (ownership, Mutex::new(offsets));
        self
    }

    /// What is to be made of a frame, and up to where its epoch is durable.
    pub fn judge(&self, frame: &Frame) -> (Verdict, Seq) {
        let mut progress = self.progress.lock();
        let verdict = progress.judge(&frame.agent_id, frame.epoch, frame.acked_seq, frame.first_seq, frame.last_seq());
        (verdict, progress.durable(&frame.agent_id, frame.epoch))
    }

    /// A frame of this agent came damaged, whichever it was.
    pub fn came_damaged(&self, agent: &AgentId) {
        self.progress.lock().came_damaged(agent);
    }

    /// Takes events of one source: each reaches its store. Waits while too much awaits a commit.
    ///
    /// # Errors
    /// When this life of the pipeline is over; the events then have to be sent again.
    pub async fn take(
        &self,
        source: &Arc<Source>,
        events: Vec<(Seq, Event)>,
        bytes: usize,
    ) -> Result<Taken, PipelineOver> {
        let lines: usize = events.iter().map(|(_, event)| event.lines()).sum();
        let room = lines.max(bytes / BYTES_PER_ROW).min(self.most_rows);
        self.acquire(room).await?;
        let mut by_store: BTreeMap<i32, Vec<(Seq, Event)>> = BTreeMap::new();
        for (seq, event) in events {
            by_store.entry(event.store_id().get()).or_default().push((seq, event));
        }
        let sent: Vec<_> = by_store
            .into_iter()
            .map(|(store_id, events)| {
                let request = self.directory.address(store_id).send(TakeEvents { source: source.clone(), events });
                async move { (store_id, request.await) }
            })
            .collect();
        let mut taken = Taken::default();
        for (store_id, answer) in futures::future::join_all(sent).await {
            let answer = answer.map_err(|error| StoreUnavailable { store_id, reason: error.to_string() });
            match answer.and_then(|answer| answer) {
                Ok(one) => {
                    // Repeats too: their originals may still be on their way, and this sender's position covers them.
                    self.directory.touched(store_id);
                    taken.changes += one.changes;
                    taken.counts += one.counts;
                    taken.duplicates += one.duplicates;
                }
                Err(error) => return Err(self.fail(error.to_string())),
            }
        }
        self.taken_room.fetch_add(room, Ordering::AcqRel);
        self.stats.taken(&taken);
        Ok(taken)
    }

    async fn acquire(&self, room: usize) -> Result<(), PipelineOver> {
        if self.room.available_permits() < self.most_rows / 2 {
            self.commit_wanted.notify_one();
        }
        let wanted = u32::try_from(room).unwrap_or(u32::MAX);
        tokio::select! {
            permit = self.room.acquire_many(wanted) => {
                permit.expect("the semaphore is never closed").forget();
                Ok(())
            }
            () = self.failed.cancelled() => Err(self.over()),
        }
    }

    /// Everything of an agent up to `seq` has been taken; `row` is for bronze.
    pub fn advance(&self, agent: &AgentId, epoch: Epoch, seq: Seq, row: Option<BronzeRow>) {
        if let (Some(bronze), Some(row)) = (&self.bronze, row) {
            bronze.lock().push((CoveredBy::Agent(agent.clone(), Position { epoch, seq }), row));
        }
        self.progress.lock().taken(agent, epoch, seq);
    }

    /// Everything of a partition before the offset `next` has been taken; `row` is for bronze.
    pub fn advance_offset(&self, partition: &TopicPartition, next: i64, row: Option<BronzeRow>) {
        if let (Some(bronze), Some(row)) = (&self.bronze, row) {
            bronze.lock().push((CoveredBy::Offset(partition.clone(), next), row));
        }
        self.offsets.lock().insert(partition.clone(), next);
    }

    /// The next offset of each partition that is read.
    pub fn offsets(&self) -> BTreeMap<TopicPartition, i64> {
        self.offsets.lock().clone()
    }

    /// Keeps a document that no agent numbered for bronze.
    pub fn keep_raw(&self, document: impl FnOnce() -> BronzeRow) {
        if let Some(bronze) = &self.bronze {
            bronze.lock().push((CoveredBy::Nothing, document()));
        }
    }

    /// A batch of count files has been taken.
    pub fn note_count_files(&self, batch: i64) {
        self.count_files.store(batch, Ordering::Release);
    }

    /// Puts something into quarantine. Waits while too much is on its way there.
    ///
    /// # Errors
    /// When this life of the pipeline is over.
    pub async fn quarantine(&self, row: QuarantineRow) -> Result<(), PipelineOver> {
        let permit = tokio::select! {
            permit = self.quarantine_room.acquire() => permit.expect("the semaphore is never closed"),
            () = self.failed.cancelled() => return Err(self.over()),
        };
        permit.forget();
        self.stats.quarantined.fetch_add(1, Ordering::Relaxed);
        self.quarantine.lock().push(row);
        Ok(())
    }

    /// Waits until everything that has been taken before this call is in silver.
    ///
    /// # Errors
    /// When this life of the pipeline is over before.
    pub async fn durable(&self) -> Result<(), PipelineOver> {
        let needed = self.next_cut.load(Ordering::Acquire);
        let mut durable = self.durable_cut.subscribe();
        tokio::select! {
            reached = durable.wait_for(|&cut| cut >= needed) => reached.map(drop).map_err(|_| self.over()),
            () = self.failed.cancelled() => Err(self.over()),
        }
    }

    /// Begins a cut. The stores in `touched` are to be cut after this, and those whose gold is behind.
    pub fn begin_cut(&self) -> CutBegin {
        let number = self.next_cut.fetch_add(1, Ordering::AcqRel);
        let room = self.taken_room.swap(0, Ordering::AcqRel);
        let count_files = Some(self.count_files.swap(0, Ordering::AcqRel)).filter(|&batch| batch > 0);
        let positions = self.progress.lock().positions();
        let offsets = self.offsets.lock().clone();
        let bronze = self.bronze.as_ref().map(|bronze| take_bronze(&mut bronze.lock(), &positions, &offsets));
        let bronze = bronze.unwrap_or_default();
        let quarantine = std::mem::take(&mut *self.quarantine.lock());
        let touched = self.directory.take_touched();
        CutBegin { number, positions, offsets, count_files, bronze, quarantine, touched, room }
    }

    /// A cut is in silver for good. Returns the positions that are news to their agents.
    pub fn committed(&self, cut: &CutBegin) -> Vec<(AgentId, Position)> {
        self.room.add_permits(cut.room);
        self.quarantine_room.add_permits(cut.quarantine.len());
        let news = self.progress.lock().committed(&cut.positions);
        self.durable_cut.send_replace(cut.number);
        news
    }

    /// How far agents are, in silver: what they are told after a restart.
    pub fn positions(&self) -> Vec<(AgentId, Position)> {
        self.progress.lock().positions()
    }

    /// The last cut that is in silver for good.
    pub fn durable_cut(&self) -> u64 {
        *self.durable_cut.borrow()
    }

    /// Rows that await a commit, about, and how many may.
    pub fn awaiting_commit(&self) -> (usize, usize) {
        (self.most_rows.saturating_sub(self.room.available_permits()), self.most_rows)
    }

    /// Ends this life: whoever waits is told, and the supervisor builds the next one from the lake.
    pub fn fail(&self, reason: String) -> PipelineOver {
        self.failure.lock().get_or_insert(reason);
        self.failed.cancel();
        self.over()
    }

    /// Resolves when this life is over.
    pub async fn over_and_why(&self) -> String {
        self.failed.cancelled().await;
        self.over().0
    }

    /// Whether this life is over.
    pub fn is_over(&self) -> bool {
        self.failed.is_cancelled()
    }

    fn over(&self) -> PipelineOver {
        PipelineOver(self.failure.lock().clone().unwrap_or_else(|| "it was stopped".to_owned()))
    }
}

/// Takes the rows that are covered, and those that nothing numbers. What is beyond stays for the next cut, so that after a
/// crash in between it is not in bronze twice.
fn take_bronze(
    rows: &mut Vec<AwaitingBronze>,
    positions: &[(AgentId, Position)],
    offsets: &BTreeMap<TopicPartition, i64>,
) -> Vec<BronzeRow> {
    let reached: HashMap<(&AgentId, Epoch), Seq> = positions.iter().map(|(a, p)| ((a, p.epoch), p.seq)).collect();
    let covered = |(by, _): &AwaitingBronze| match by {
        CoveredBy::Agent(agent, position) => {
            reached.get(&(agent, position.epoch)).is_some_and(|&seq| position.seq <= seq)
        }
        CoveredBy::Offset(partition, next) => offsets.get(partition).is_some_and(|reached| next <= reached),
        CoveredBy::Nothing => true,
    };
    let (taken, kept): (Vec<_>, Vec<_>) = std::mem::take(rows).into_iter().partition(covered);
    *rows = kept;
    taken.into_iter().map(|(_, row)| row).collect()
}
