//! The one task that polls a consumer. While it hands messages on it waits for nothing else; only where a life begins it waits
//! for Kafka itself, at most two minutes, which is less than the time after which the group takes it for dead.

use super::lanes::{Gap, Lanes};
use super::record::{Expected, work};
use crate::pipeline::{Pipeline, TopicPartition};
use crate::stats::HubStats;
use anyhow::{Context, Result, bail};
use rdkafka::consumer::{Consumer, ConsumerContext, StreamConsumer};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Longest wait for a seek.
const SEEK: Duration = Duration::from_secs(5);
/// Longest wait for an answer about what is missing: less than the process waits for it when it stops.
const ASK: Duration = Duration::from_secs(2);
/// Tries of a seek: a partition that was just assigned is not ready at once.
const TRIES: u32 = 25;

/// What the pump is asked to do.
enum Order {
    /// Read these partitions from these offsets on, into this pipeline.
    Open { offsets: BTreeMap<TopicPartition, i64>, pipeline: Arc<Pipeline>, done: oneshot::Sender<Result<()>> },
    /// Drop what comes.
    Close,
}

/// How a consumer is brought to its offsets.
#[derive(Debug, Clone, Copy)]
pub enum Positioning {
    /// The group assigned its partitions; it is moved.
    Seek,
    /// It is told its partitions.
    Assign,
}

/// A handle on the task.
pub struct Pump {
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
    /// Why the client can do no more, once it cannot.
    broken: watch::Receiver<Option<String>>,
}

impl Pump {
    /// Starts polling; what comes is dropped until [`Pump::open`]. Ends when the handle is dropped.
    pub fn start<C: ConsumerContext + 'static>(
        consumer: Arc<StreamConsumer<C>>,
        positioning: Positioning,
        expected: Expected,
        stats: Arc<HubStats>,
    ) -> Self {
        let (orders, inbox) = mpsc::channel(4);
        let (breaks, broken) = watch::channel(None);
        let task = tokio::spawn(run(consumer, positioning, expected, stats, inbox, breaks));
        Self { orders, task, broken }
    }

    /// Ends it, and returns when it holds the consumer no longer.
    pub async fn end(self) {
        drop(self.orders);
        if let Err(error) = self.task.await {
            tracing::error!("the consumer's task: {error}");
        }
    }

    /// Resolves when the client can do no more, and says why.
    pub async fn broken(&self) -> String {
        let reason = self.broken.clone().wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| "the consumer's task has ended".to_owned())
    }

    /// Reads partitions from their offsets on, into a pipeline.
    ///
    /// # Errors
    /// If the consumer cannot be brought there, as when it has lost a partition meanwhile.
    pub async fn open(&self, offsets: BTreeMap<TopicPartition, i64>, pipeline: Arc<Pipeline>) -> Result<()> {
        let (done, answer) = oneshot::channel();
        let gone = "the consumer's task has ended";
        self.orders.send(Order::Open { offsets, pipeline, done }).await.ok().context(gone)?;
        answer.await.context(gone)?
    }

    /// Drops what comes from now on.
    pub async fn close(&self) {
        let _ = self.orders.send(Order::Close).await;
    }
}

async fn run<C: ConsumerContext + 'static>(
    consumer: Arc<StreamConsumer<C>>,
    positioning: Positioning,
    expected: Expected,
    stats: Arc<HubStats>,
    mut inbox: mpsc::Receiver<Order>,
    broken: watch::Sender<Option<String>>,
) {
    let (room, asking) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(1)));
    let mut lanes = Lanes::default();
    let mut current: Option<Arc<Pipeline>> = None;
    loop {
        tokio::select! {
            order = inbox.recv() => match order {
                None => return,
                Some(Order::Close) => {
                    lanes.close();
                    rest(&consumer);
                }
                Some(Order::Open { offsets, pipeline, done }) => {
                    lanes.close();
                    let taken = offsets.clone();
                    let (offsets, positioned) = match within_topics(&consumer, offsets, &stats).await {
                        Ok(offsets) => {
                            // What is gone is told once: it goes into the lake with the next commit.
                            for (partition, next) in offsets.iter().filter(|(partition, next)| **next > taken[partition]) {
                                pipeline.advance_offset(partition, *next, None);
                            }
                            let positioned = position(&consumer, positioning, &offsets).await;
                            (offsets, positioned)
                        }
                        Err(error) => (BTreeMap::new(), Err(error)),
                    };
                    current = Some(Arc::clone(&pipeline));
                    if positioned.is_ok() {
                        for (partition, next) in offsets {
                            let queue = lanes.open(partition, next);
                            tokio::spawn(work(queue, Arc::clone(&room), Arc::clone(&pipeline), expected.clone()));
                        }
                    }
                    let _ = done.send(positioned);
                }
            },
            message = consumer.recv() => match message {
                Ok(message) => match lanes.put(&message, &consumer) {
                    Ok(Some(gap)) => tell(gap, &expected, &consumer, &asking, &stats),
                    Ok(None) => {}
                    Err(went_back) => {
                        lanes.close();
                        if let Some(pipeline) = &current {
                            pipeline.fail(went_back.to_string());
                        }
                    }
                },
                Err(error) => {
                    if let Some((code, reason)) = consumer.client().fatal_error() {
                        broken.send_replace(Some(format!("Kafka's client gave up: {code}: {reason}")));
                        return;
                    }
                    tracing::warn!("reading from Kafka: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            () = room.notified() => lanes.hand_on(&consumer),
        }
    }
}

/// Says what is missing between two records. Of gateways' records, which have no transaction's markers between them, Kafka is asked
/// whether it has removed them, one question at a time. (Before the first one that a lake ever takes from a partition there may
/// have been some for no lake.)
fn tell<C: ConsumerContext + 'static>(
    gap: Gap,
    expected: &Expected,
    consumer: &Arc<StreamConsumer<C>>,
    asking: &Arc<Semaphore>,
    stats: &Arc<HubStats>,
) {
    if gap.wanted == 0 || matches!(expected, Expected::Any) {
        return skipped(&gap, stats);
    }
    let Ok(turn) = Arc::clone(asking).try_acquire_owned() else { return skipped(&gap, stats) };
    let (consumer, stats) = (Arc::clone(consumer), Arc::clone(stats));
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let TopicPartition { topic, partition } = &gap.partition;
        match consumer.fetch_watermarks(topic, *partition, ASK) {
            Ok((beginning, _)) if beginning > gap.wanted => {
                lost(topic, *partition, gap.wanted..beginning.min(gap.found), &stats);
            }
            Ok(_) => skipped(&gap, &stats),
            Err(error) => {
                tracing::warn!(%topic, partition, "offsets are missing, and Kafka does not tell where it begins: {error}");
                skipped(&gap, &stats);
            }
        }
    });
}

fn skipped(gap: &Gap, stats: &HubStats) {
    let Gap { partition: TopicPartition { topic, partition }, wanted, found, first } = gap;
    stats.kafka_skipped.fetch_add(found.abs_diff(*wanted), Relaxed);
    if *first {
        tracing::warn!(%topic, partition, wanted, found,
            "offsets are missing: a transaction's markers, or records that were removed before they were read");
    }
}

fn lost(topic: &str, partition: i32, offsets: Range<i64>, stats: &HubStats) {
    let Range { start: wanted, end: beginning } = offsets;
    tracing::error!(%topic, partition, wanted, beginning, gone = beginning - wanted,
        "LOST: Kafka has removed records before they were read; look at the topic's retention");
    stats.kafka_lost.fetch_add(beginning.abs_diff(wanted), Relaxed);
}

/// Nothing is fetched only to be dropped; who is brought to an offset goes on.
fn rest<C: ConsumerContext>(consumer: &StreamConsumer<C>) {
    if let Err(error) = consumer.assignment().and_then(|assigned| consumer.pause(&assigned)) {
        tracing::debug!("pausing all partitions: {error}");
    }
}

/// An offset beyond a partition's end means that the topic was made anew or lost its end: then all that it holds is read, and
/// what was taken before is dropped by identity. One before its beginning means that records were removed before they were read.
async fn within_topics<C: ConsumerContext + 'static>(
    consumer: &Arc<StreamConsumer<C>>,
    mut offsets: BTreeMap<TopicPartition, i64>,
    stats: &Arc<HubStats>,
) -> Result<BTreeMap<TopicPartition, i64>> {
    let (consumer, stats) = (Arc::clone(consumer), Arc::clone(stats));
    let look = move || {
        for (TopicPartition { topic, partition }, next) in &mut offsets {
            if *next == 0 {
                continue;
            }
            let (low, high) = consumer
                .fetch_watermarks(topic, *partition, SEEK)
                .with_context(|| format!("ask for the first and last offset of {topic}/{partition}"))?;
            if *next > high {
                tracing::error!(%topic, partition, taken = *next, end = high,
                    "the topic ends before what was taken from it: it was made anew, or lost its end; reading all that it holds");
                *next = low;
            } else if *next < low {
                lost(topic, *partition, *next..low, &stats);
                *next = low;
            }
        }
        Ok(offsets)
    };
    tokio::task::spawn_blocking(look).await?
}

/// After this, messages come from the offsets on and from nowhere else.
async fn position<C: ConsumerContext>(
    consumer: &StreamConsumer<C>,
    positioning: Positioning,
    offsets: &BTreeMap<TopicPartition, i64>,
) -> Result<()> {
    let mut list = TopicPartitionList::new();
    for (TopicPartition { topic, partition }, next) in offsets.iter() {
        list.add_partition_offset(topic, *partition, Offset::Offset(*next)).context("name the offsets")?;
    }
    if let Positioning::Assign = positioning {
        return consumer.assign(&list).context("assign the partitions");
    }
    let mut last = None;
    for _ in 0..TRIES {
        let sought = tokio::task::block_in_place(|| {
            consumer.resume(&list)?;
            consumer.seek_partitions(list.clone(), SEEK)
        });
        match sought {
            Ok(sought) => match sought.elements().iter().find_map(|element| element.error().err()) {
                None => return Ok(()),
                Some(error) => last = Some(error),
            },
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    match last {
        Some(error) => Err(error).context("go to the offsets that the lake names"),
        None => bail!("no try was made"),
    }
}
