//! The one task that polls a consumer. It never waits for anything but messages, so that the group does not take it for dead.

use super::lanes::Lanes;
use super::record::{Expected, work};
use crate::pipeline::{Pipeline, TopicPartition};
use anyhow::{Context, Result, bail};
use rdkafka::consumer::{Consumer, ConsumerContext, StreamConsumer};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

/// Longest wait for a seek.
const SEEK: Duration = Duration::from_secs(5);
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
pub struct Pump(mpsc::Sender<Order>);

impl Pump {
    /// Starts polling; what comes is dropped until [`Pump::open`]. Ends when the handle is dropped.
    pub fn start<C: ConsumerContext + 'static>(
        consumer: Arc<StreamConsumer<C>>,
        positioning: Positioning,
        expected: Expected,
    ) -> Self {
        let (orders, inbox) = mpsc::channel(4);
        tokio::spawn(run(consumer, positioning, expected, inbox));
        Self(orders)
    }

    /// Reads partitions from their offsets on, into a pipeline.
    ///
    /// # Errors
    /// If the consumer cannot be brought there, as when it has lost a partition meanwhile.
    pub async fn open(&self, offsets: BTreeMap<TopicPartition, i64>, pipeline: Arc<Pipeline>) -> Result<()> {
        let (done, answer) = oneshot::channel();
        let gone = "the consumer's task has ended";
        self.0.send(Order::Open { offsets, pipeline, done }).await.ok().context(gone)?;
        answer.await.context(gone)?
    }

    /// Drops what comes from now on.
    pub async fn close(&self) {
        let _ = self.0.send(Order::Close).await;
    }
}

async fn run<C: ConsumerContext + 'static>(
    consumer: Arc<StreamConsumer<C>>,
    positioning: Positioning,
    expected: Expected,
    mut inbox: mpsc::Receiver<Order>,
) {
    let room = Arc::new(Notify::new());
    let mut lanes = Lanes::default();
    loop {
        tokio::select! {
            order = inbox.recv() => match order {
                None => return,
                Some(Order::Close) => lanes.close(),
                Some(Order::Open { offsets, pipeline, done }) => {
                    lanes.close();
                    let positioned = position(&consumer, positioning, &offsets).await;
                    if positioned.is_ok() {
                        for (partition, next) in offsets {
                            let queue = lanes.open(partition, next);
                            tokio::spawn(work(queue, Arc::clone(&room), Arc::clone(&pipeline), expected));
                        }
                    }
                    let _ = done.send(positioned);
                }
            },
            message = consumer.recv() => match message {
                Ok(message) => lanes.put(&message, &consumer),
                Err(error) => {
                    tracing::warn!("reading from Kafka: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            () = room.notified() => lanes.hand_on(&consumer),
        }
    }
}

/// After this, messages come from the offsets on and from nowhere else.
async fn position<C: ConsumerContext>(
    consumer: &StreamConsumer<C>,
    positioning: Positioning,
    offsets: &BTreeMap<TopicPartition, i64>,
) -> Result<()> {
    let mut list = TopicPartitionList::new();
    for (TopicPartition { topic, partition }, next) in offsets {
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
