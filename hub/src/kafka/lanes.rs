//! From a consumer to workers, one per partition, without ever waiting: a partition whose worker is behind is paused, since a
//! consumer that does not poll is taken for dead.

use crate::pipeline::TopicPartition;
use bytes::Bytes;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{Consumer, ConsumerContext, StreamConsumer};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers, Message};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::mpsc;

/// Messages that a worker may be behind before its partition is paused.
const WAITING: usize = 64;
/// Bytes that all workers together may be behind before whatever comes more pauses its partition.
const WAITING_BYTES: usize = 32 << 20;

/// A message, taken out of the consumer's hands.
#[derive(Debug)]
pub struct Received {
    /// Where it came from.
    pub partition: TopicPartition,
    /// Its place there.
    pub offset: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// What it says.
    pub value: Bytes,
    /// When, in milliseconds since 1970; 0 if nobody said.
    pub timestamp: i64,
    /// As Kafka numbers it: -1 unknown, 0 made by the producer, 1 by the broker.
    pub timestamp_type: i32,
    /// Headers that are text.
    pub headers: BTreeMap<String, String>,
    /// Its bytes, as long as it waits.
    _weight: Weight,
}

/// Bytes that count until this is dropped.
#[derive(Debug)]
pub struct Weight {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Relaxed);
    }
}

impl Received {
    fn of(message: &BorrowedMessage<'_>, all: &Arc<AtomicUsize>) -> Self {
        use rdkafka::Timestamp::{CreateTime, LogAppendTime, NotAvailable};
        let (timestamp, timestamp_type) = match message.timestamp() {
            NotAvailable => (0, -1),
            CreateTime(at) => (at, 0),
            LogAppendTime(at) => (at, 1),
        };
        let bytes = message.key_len() + message.payload_len();
        all.fetch_add(bytes, Relaxed);
        Self {
            _weight: Weight { all: Arc::clone(all), bytes },
            partition: TopicPartition { topic: message.topic().to_owned(), partition: message.partition() },
            offset: message.offset(),
            key: message.key().map(Bytes::copy_from_slice),
            value: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
            timestamp,
            timestamp_type,
            headers: message.headers().map(texts_of).unwrap_or_default(),
        }
    }
}

fn texts_of(headers: &BorrowedHeaders) -> BTreeMap<String, String> {
    let text = |value: Option<&[u8]>| Some(String::from_utf8_lossy(value?).into_owned());
    headers.iter().filter_map(|header| Some((header.key.to_owned(), text(header.value)?))).collect()
}

/// A partition went on with an offset that it had passed.
#[derive(Debug, thiserror::Error)]
#[error("{}/{} went back from offset {wanted} to {found}", partition.topic, partition.partition)]
pub struct WentBack {
    partition: TopicPartition,
    wanted: i64,
    found: i64,
}

/// Offsets that were not there when they were to be read.
#[derive(Debug)]
pub struct Gap {
    /// Where.
    pub partition: TopicPartition,
    /// The first of them.
    pub wanted: i64,
    /// The first one behind them.
    pub found: i64,
    /// Whether this partition, since its lane was opened, had none before.
    pub first: bool,
}

struct Lane {
    worker: mpsc::Sender<Received>,
    /// The next offset that is wanted.
    next: i64,
    /// Offsets have been missing.
    gaps: bool,
    /// What came after the worker's queue was full; bounded, since the partition is paused then.
    held: VecDeque<Received>,
    paused: bool,
}

/// The workers' queues.
#[derive(Default)]
pub struct Lanes {
    lanes: BTreeMap<TopicPartition, Lane>,
    /// Of messages that wait.
    bytes: Arc<AtomicUsize>,
}

impl Lanes {
    /// A lane for a partition that is read from `next` on.
    pub fn open(&mut self, partition: TopicPartition, next: i64) -> mpsc::Receiver<Received> {
        let (worker, queue) = mpsc::channel(WAITING);
        self.lanes.insert(partition, Lane { worker, next, gaps: false, held: VecDeque::new(), paused: false });
        queue
    }

    /// Closes all: what comes is dropped.
    pub fn close(&mut self) {
        self.lanes.clear();
    }

    /// Hands a message to its worker, or holds it and pauses its partition. Without a lane it is dropped: it will come again.
    /// Returns which offsets were missing before it, if some were.
    ///
    /// # Errors
    /// If the topic has gone back: what is read now is not what was there.
    pub fn put<C: ConsumerContext>(
        &mut self,
        message: &BorrowedMessage<'_>,
        consumer: &StreamConsumer<C>,
    ) -> Result<Option<Gap>, WentBack> {
        let full = self.bytes.load(Relaxed) > WAITING_BYTES;
        let received = Received::of(message, &self.bytes);
        let Some(lane) = self.lanes.get_mut(&received.partition) else { return Ok(None) };
        if received.offset < lane.next {
            // Nothing is left over from before the seek: librdkafka drops that by itself.
            let (partition, wanted, found) = (received.partition.clone(), lane.next, received.offset);
            return Err(WentBack { partition, wanted, found });
        }
        let gap = (received.offset > lane.next).then(|| Gap {
            partition: received.partition.clone(),
            wanted: lane.next,
            found: received.offset,
            first: !std::mem::replace(&mut lane.gaps, true),
        });
        lane.next = received.offset + 1;
        if lane.held.is_empty() && !full {
            match lane.worker.try_send(received) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return Ok(gap),
                Err(mpsc::error::TrySendError::Full(back)) => lane.held.push_back(back),
            }
        } else {
            lane.held.push_back(received);
        }
        if !lane.paused {
            lane.paused = pause(consumer, message.topic(), message.partition());
        }
        Ok(gap)
    }

    /// Hands on what was held, and resumes the partitions whose workers caught up.
    pub fn hand_on<C: ConsumerContext>(&mut self, consumer: &StreamConsumer<C>) {
        for (partition, lane) in &mut self.lanes {
            while let Some(next) = lane.held.pop_front() {
                if let Err(mpsc::error::TrySendError::Full(back)) = lane.worker.try_send(next) {
                    lane.held.push_front(back);
                    break;
                }
            }
            if lane.paused && lane.held.is_empty() && self.bytes.load(Relaxed) <= WAITING_BYTES {
                lane.paused = !resume(consumer, partition);
            }
        }
    }
}

fn list(topic: &str, partition: i32) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    list
}

fn pause<C: ConsumerContext>(consumer: &StreamConsumer<C>, topic: &str, partition: i32) -> bool {
    consumer
        .pause(&list(topic, partition))
        .inspect_err(|error| tracing::warn!("pause {topic}/{partition}: {error}"))
        .is_ok()
}

fn resume<C: ConsumerContext>(consumer: &StreamConsumer<C>, partition: &TopicPartition) -> bool {
    let TopicPartition { topic, partition } = partition;
    let resumed = consumer.resume(&list(topic, *partition));
    resumed.inspect_err(|error| tracing::warn!("resume {topic}/{partition}: {error}")).is_ok()
}
