//! The hub's inside without its network: real actors, real tables, real recovery, led from
//! life to life as supervision.rs does it, but with commits when the test says so, and deaths at any moment.
//!
//! An agent's side of the bargain is kept here too: events are numbered, sent as real frames, and after a death those that
//! the lake does not know are sent again.

use crate::model::{GoldRow, Model, Reference};
use bytes::Bytes;
use futures::TryStreamExt;
use onhand_common::frame::{encode_event, seal};
use onhand_common::{AgentId, Epoch, Event, Seq, topics};
use onhand_hub::actors::{ActorLimits, GetItem};
use onhand_hub::gateway::{AckBoard, FrameSink, Intake, Sender};
use onhand_hub::lake::commit_cycle::CycleConfig;
use onhand_hub::lake::read::{ints, longs, micros};
use onhand_hub::lake::{Lake, Retention, Table, TableName};
use onhand_hub::life::{Habits, Servants, Surroundings};
use onhand_hub::ownership::Ownership;
use onhand_hub::pipeline::Pipeline;
use onhand_hub::stats::HubStats;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// No interval of the hub's own ever passes in a test.
const NEVER: Duration = Duration::from_secs(24 * 3600);
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test on a runtime of its own. (A commit cycle stays on its thread, so tasks may be local.)
pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let outcome = tokio::task::LocalSet::new().block_on(&runtime, test);
    runtime.shutdown_timeout(Duration::from_secs(5));
    outcome
}

/// An agent's outbox, which outlives all deaths of the hub.
struct Outbox {
    agent: AgentId,
    events: Vec<Event>,
}

/// A hub that dies and comes back, its lake, its agents, and the model beside it.
pub struct Harness {
    folder: tempfile::TempDir,
    lake: Lake,
    limits: ActorLimits,
    outboxes: Vec<Outbox>,
    life: Option<Life>,
    pub model: Model,
}

/// One life of the pipeline, running.
struct Life {
    pipeline: Arc<Pipeline>,
    around: Surroundings,
    stop: CancellationToken,
    cycle: JoinHandle<Result<(), onhand_hub::lake::CommitError>>,
    servants: Servants,
}

impl Harness {
    /// A hub over an empty lake, with `agents` agents, and at most `live_items` live items.
    pub async fn start(agents: usize, live_items: usize, reference: Reference) -> Self {
        Self::start_within(ActorLimits { live_items, ..ActorLimits::default() }, agents, reference).await
    }

    /// The same, within other limits.
    pub async fn start_within(limits: ActorLimits, agents: usize, reference: Reference) -> Self {
        let folder = tempfile::tempdir().expect("make a temporary folder");
        let root = folder.path().join("lake");
        let lake = Lake::open(root.to_str().expect("a path of plain characters"), Retention::default())
            .expect("open the lake");
        let outbox =
            |number| Outbox { agent: AgentId::new(&format!("agent-{number}")).expect("an id"), events: Vec::new() };
        let outboxes = (0..agents).map(outbox).collect();
        let mut harness = Self { folder, lake, limits, outboxes, life: None, model: Model::default() };
        harness.write_reference(reference);
        harness.begin().await;
        harness.know_reference().await;
        harness
    }

    /// Where silver's changes lie.
    pub fn changes_folder(&self) -> PathBuf {
        PathBuf::from(self.lake.root()).join("silver/inventory_change")
    }

    fn reference_folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn write_reference(&mut self, reference: Reference) {
        let write = |name: &str, header: &str, rows: &std::collections::BTreeMap<i32, String>| {
            let rows: String = rows.iter().map(|(id, value)| format!("{id},{value}\n")).collect();
            // Whole or not at all: a cycle may be reading, and would take a file without its rows for one without stores.
            let (draft, file) = (self.reference_folder().join(".draft"), self.reference_folder().join(name));
            std::fs::write(&draft, format!("{header}\n{rows}")).expect("write reference data");
            std::fs::rename(draft, file).expect("put reference data in its place");
        };
        write("store.txt", "store_id,name", &reference.stores);
        write("inventory_change_type.txt", "change_type_id,change_type", &reference.change_types);
        self.model.reference = reference;
    }

    /// New reference data, looked at now.
    pub async fn new_reference(&mut self, reference: Reference) {
        self.write_reference(reference);
        self.know_reference().await;
        self.gold_cut().await;
    }

    /// Before it is known, nothing counts, and all that came is summed from silver when it is.
    async fn know_reference(&self) {
        let life = self.life.as_ref().expect("the hub lives");
        life.around.reload_reference.notify_one();
        // A cycle that looked at the files before they were written may still be under way.
        let expected = &self.model.reference;
        let mut reference = life.around.reference.subscribe();
        let known = reference.wait_for(|known| Reference::of(known) == *expected);
        tokio::time::timeout(PATIENCE, known).await.expect("the reference data is read").expect("the hub lives");
    }

    /// An event arrives at an agent, and the hub takes it.
    pub async fn send(&mut self, agent: usize, event: Event) {
        self.model.take(&event);
        self.outboxes[agent].events.push(event);
        let last = self.outboxes[agent].events.len();
        self.send_frame(agent, last - 1, last).await;
    }

    /// Sends the events `from..to` of an agent as one frame.
    async fn send_frame(&self, agent: usize, from: usize, to: usize) {
        let outbox = &self.outboxes[agent];
        let body: Vec<u8> = outbox.events[from..to].iter().flat_map(encode_event).collect();
        let frame = seal(&outbox.agent, Epoch(1), Seq(0), Seq(from as u64 + 1), (to - from) as u32, &body);
        let sender = Sender { agent: outbox.agent.clone(), stores: None, topic: topics::frames(&outbox.agent) };
        let life = self.life.as_ref().expect("the hub lives");
        tokio::time::timeout(PATIENCE, life.around.intake.frame(&sender, Bytes::from(frame)))
            .await
            .expect("the hub takes the frame");
    }

    /// Waits until everything that was taken is in silver; gold stays behind.
    pub async fn silver_cut(&self) {
        let life = self.life.as_ref().expect("the hub lives");
        life.pipeline.commit_wanted.notify_one();
        tokio::time::timeout(PATIENCE, life.pipeline.durable())
            .await
            .expect("silver is committed")
            .expect("the hub lives");
    }

    /// Identities that the stores remember.
    pub fn identities(&self) -> usize {
        let life = self.life.as_ref().expect("the hub lives");
        life.pipeline.directory.shared().identities.held()
    }

    /// How often stores asked silver what they had taken.
    pub fn identity_lookups(&self) -> u64 {
        let life = self.life.as_ref().expect("the hub lives");
        life.around.stats.identity_lookups.load(Relaxed)
    }

    /// Waits until everything that was taken is in gold.
    pub async fn gold_cut(&self) {
        let life = self.life.as_ref().expect("the hub lives");
        life.around.reload_reference.notify_one();
        tokio::time::timeout(PATIENCE, life.pipeline.durable())
            .await
            .expect("silver is committed")
            .expect("the hub lives");
        let in_gold = async {
            for round in 1.. {
                if life.around.stats.gold_dirty_stores.load(Relaxed) == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
                if round % 100 == 0 {
                    life.around.reload_reference.notify_one(); // an item may have needed a second sum
                }
            }
        };
        tokio::time::timeout(PATIENCE, in_gold).await.expect("gold is committed");
    }

    /// Stops as asked to: a last silver and gold commit. Then starts again.
    pub async fn restart(&mut self) {
        let life = self.life.take().expect("the hub lives");
        life.stop.cancel();
        let Life { pipeline, cycle, servants, .. } = life;
        let ended = tokio::time::timeout(PATIENCE, cycle).await.expect("the hub stops").expect("it does not panic");
        ended.expect("the last commits succeed");
        pipeline.fail("stopped".to_owned());
        servants.end().await;
        self.begin().await;
    }

    /// Dies at once, wherever it is; what was not committed is gone. Then starts again, and the agents send again.
    pub async fn die(&mut self) {
        let Life { pipeline, cycle, servants, .. } = self.life.take().expect("the hub lives");
        cycle.abort();
        let _ = cycle.await;
        pipeline.fail("killed".to_owned());
        servants.end().await;
        self.begin().await;
    }

    /// Begins a gold cycle and dies a little later, in the middle of it or not.
    pub async fn die_committing(&mut self, after: Duration) {
        self.life.as_ref().expect("the hub lives").around.reload_reference.notify_one();
        tokio::time::sleep(after).await;
        self.die().await;
    }

    async fn begin(&mut self) {
        let started = tokio::time::timeout(PATIENCE, self.start_life()).await;
        let (life, durable) = started.expect("the hub starts in time").expect("the hub starts");
        self.life = Some(life);
        for (agent, durable) in durable.into_iter().enumerate() {
            let events = self.outboxes[agent].events.len();
            for from in (durable..events).step_by(3) {
                self.send_frame(agent, from, events.min(from + 3)).await;
            }
        }
    }

    /// The life, and how many events of each agent are durable.
    async fn start_life(&self) -> anyhow::Result<(Life, Vec<usize>)> {
        let stats = Arc::new(HubStats::default());
        let pipelines = watch::Sender::new(None);
        let around = Surroundings {
            lake: self.lake.clone(),
            intake: Arc::new(Intake::new(pipelines.subscribe(), AckBoard::default(), Arc::clone(&stats))),
            stats,
            reference: watch::Sender::new(Arc::default()),
            reload_reference: Arc::new(Notify::new()),
            updates: broadcast::Sender::new(16),
        };
        let habits = Habits {
            limits: self.limits.clone(),
            bronze: true,
            most_awaiting_rows: 100_000,
            threads: 2,
            cycle: CycleConfig {
                silver_interval: NEVER,
                gold_interval: NEVER,
                reference: Some(self.reference_folder()),
                reference_interval: NEVER,
            },
            topic_partitions: Vec::new(),
        };
        let stop = CancellationToken::new();
        let begun = onhand_hub::life::Life::begin(&around, habits, Ownership::Whole, stop.clone()).await?;
        let durable = |outbox: &Outbox| {
            let position = begun.positions.iter().find(|(agent, _)| *agent == outbox.agent);
            position.map_or(0, |(_, position)| position.seq.0 as usize)
        };
        let durable = self.outboxes.iter().map(durable).collect();
        let (cycle, pipeline) = (begun.cycle, begun.pipeline);
        pipelines.send_replace(Some(Arc::clone(&pipeline)));
        // The sender of pipelines lives as long as the cycle, or the intake would take it for the end.
        let cycle = tokio::task::spawn_local(async move {
            let _pipelines = pipelines;
            cycle.run().await
        });
        Ok((Life { pipeline, around, stop, cycle, servants: begun.servants }, durable))
    }

    /// Compares gold, what is uncounted, silver's size and every item's actor with the model. Gold must be up to date.
    ///
    /// # Errors
    /// Says what differs.
    pub async fn compare(&self) -> Result<(), String> {
        let (expected, found) = (self.model.gold(), self.gold().await);
        if expected != found {
            return Err(format!("gold differs\nexpected {expected:#?}\nfound {found:#?}"));
        }
        let (expected, found) = (self.model.uncounted(), self.uncounted().await);
        let missing: Vec<_> = expected.difference(&found).collect();
        // Changes that do not apply make an item known, with a sum of 0.
        let beyond: Vec<_> = found.difference(&expected).filter(|(_, _, sum)| *sum != 0).collect();
        if !missing.is_empty() || !beyond.is_empty() {
            return Err(format!("uncounted items: missing {missing:?}, beyond {beyond:?}"));
        }
        let (lines, counts) = self.model.rows();
        let found = (self.rows_of(TableName::InventoryChange).await, self.rows_of(TableName::InventorySnapshot).await);
        if (lines, counts) != found {
            return Err(format!("silver holds {found:?} lines and counts, expected {:?}", (lines, counts)));
        }
        self.compare_actors().await
    }

    async fn compare_actors(&self) -> Result<(), String> {
        let life = self.life.as_ref().expect("the hub lives");
        for row in self.model.gold() {
            let store =
                life.pipeline.directory.get(row.store_id).ok_or(format!("no actor for store {}", row.store_id))?;
            let view = store.send(GetItem(row.item_id)).await.map_err(|error| error.to_string())?;
            let expected = i64::from(row.snapshot_quantity) + row.change_quantity;
            let found = view.as_ref().and_then(|view| view.current_inventory);
            if found != Some(expected) {
                return Err(format!("the actor of {row:?} says {view:?}"));
            }
        }
        Ok(())
    }

    /// Begins a gold cut, and has the pipeline fail within it, as where partitions are moved: the cycle has to end.
    pub async fn give_up_in_a_gold_cut(&mut self) {
        let Life { pipeline, around, cycle, servants, stop } = self.life.take().expect("the hub lives");
        around.reload_reference.notify_one();
        tokio::time::sleep(Duration::from_secs(3)).await;
        pipeline.fail("given up".to_owned());
        let ended = tokio::time::timeout(PATIENCE, cycle).await.expect("the cycle ends").expect("it does not panic");
        ended.expect("nothing was committed that is another's");
        drop(stop);
        servants.end().await;
    }

    /// A table as anybody else has it.
    pub async fn table(&self, name: TableName) -> Table {
        Table::open(&self.lake, name).await.unwrap_or_else(|error| panic!("open {name}: {error:#}"))
    }

    async fn rows_of(&self, name: TableName) -> u64 {
        self.table(name).await.row_count()
    }

    async fn gold(&self) -> Vec<GoldRow> {
        let columns = ["store_id", "item_id", "snapshot_quantity", "change_quantity", "current_inventory", "date_time"];
        let mut rows = Vec::new();
        let batches = self.table(TableName::InventoryCurrent).await.read_all(&columns);
        let batches: Vec<_> = batches.try_collect().await.expect("gold can be read");
        for batch in &batches {
            let (stores, items, counted) = (ints(batch, 0).unwrap(), ints(batch, 1).unwrap(), ints(batch, 2).unwrap());
            let (changes, current, at) =
                (longs(batch, 3).unwrap(), longs(batch, 4).unwrap(), micros(batch, 5).unwrap());
            for row in 0..stores.len() {
                assert_eq!(current[row], i64::from(counted[row]) + changes[row], "gold's columns do not add up");
                rows.push(GoldRow {
                    store_id: stores[row],
                    item_id: items[row],
                    snapshot_quantity: counted[row],
                    change_quantity: changes[row],
                    date_time: at[row],
                });
            }
        }
        rows.sort_unstable();
        rows
    }

    async fn uncounted(&self) -> BTreeSet<(i32, i32, i64)> {
        let batches =
            self.table(TableName::UncountedInventory).await.read_all(&["store_id", "item_id", "change_quantity"]);
        let batches: Vec<_> = batches.try_collect().await.expect("uncounted items can be read");
        let mut rows = BTreeSet::new();
        for batch in &batches {
            let (stores, items, changes) = (ints(batch, 0).unwrap(), ints(batch, 1).unwrap(), longs(batch, 2).unwrap());
            rows.extend((0..stores.len()).map(|row| (stores[row], items[row], changes[row])));
        }
        rows
    }

    /// Ends it.
    pub async fn end(mut self) {
        let Life { pipeline, cycle, servants, .. } = self.life.take().expect("the hub lives");
        cycle.abort();
        let _ = cycle.await;
        pipeline.fail("over".to_owned());
        servants.end().await;
    }
}
