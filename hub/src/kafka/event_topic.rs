//! The topic between gateways and processors, for whoever puts events there: each event on the partition of its store.

use super::KafkaSettings;
use super::quiet::Quiet;
use crate::ownership::partition_of;
use crate::stats::HubStats;
use anyhow::{Context, Result};
use onhand_common::frame::FramePart;
use onhand_common::{AgentId, Epoch, Event, Seq};
use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::watch;

/// The header of a record that goes to the quarantine: where it came from.
pub const SOURCE: &str = "onhand-source";
/// The header of such a record that says why.
pub const REASON: &str = "onhand-reason";
/// The header of such a record that says what is wrong in detail.
pub const DETAIL: &str = "onhand-detail";
/// The header of a device's document: the topic it was published on.
pub const TOPIC: &str = "onhand-topic";
/// The header of counts from a file: its name.
pub const FILE: &str = "onhand-file";

/// Longest wait for room among the records that are on their way.
const ROOM: Duration = Duration::from_secs(30);
/// Pause after a record that was not taken.
const PAUSE: Duration = Duration::from_millis(500);
/// Who counts from files are said to come from, where a record names an agent.
const FILES: &str = "count-files";

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct EventTopic {
    producer: FutureProducer<Quiet>,
    /// Sends each record in a batch of its own.
    singly: FutureProducer<Quiet>,
    topic: String,
    partitions: i32,
    stats: Arc<HubStats>,
    /// Why the client can do no more, once it cannot.
    broken: watch::Sender<Option<String>>,
}

/// Kafka did not take a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Another try may go well.
    #[error("Kafka did not take a record")]
    ThisTime,
    /// None will, as long as the topic's `max.message.bytes` is what it is.
    #[error("a record is larger than the topic allows (max.message.bytes)")]
    TooLarge,
}

impl EventTopic {
    /// Connects to Kafka.
    ///
    /// # Errors
    /// If Kafka does not answer, or a setting of its client is wrong.
    pub async fn connect(settings: &KafkaSettings, stats: Arc<HubStats>) -> Result<Self> {
        let partitions = settings.ensure_topic().await?;
        let ours = [("linger.ms", "5"), ("compression.type", "zstd"), ("queue.buffering.max.kbytes", "65536")];
        // A topic that was deleted is not made again by the first record, with the cluster's defaults.
        let fixed = [("enable.idempotence", "true"), ("acks", "all"), ("allow.auto.create.topics", "false")];
        let mut client = settings.client(&ours, &fixed);
        let producer = |client: &ClientConfig| {
            client.create_with_context(Quiet::default()).context("prepare a producer for Kafka")
        };
        Ok(Self {
            producer: producer(&client)?,
            singly: producer(client.set("batch.num.messages", "1"))?,
            topic: settings.topic.clone(),
            partitions,
            stats,
            broken: watch::Sender::default(),
        })
    }

    /// Resolves when the client can do no more, and says why.
    pub async fn broken(&self) -> String {
        let reason = self.broken.subscribe().wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_default()
    }

    /// Groups events by the partitions of their stores.
    pub fn by_partition(&self, events: impl IntoIterator<Item = (Seq, Event)>) -> BTreeMap<i32, Vec<(Seq, Event)>> {
        let mut groups: BTreeMap<i32, Vec<_>> = BTreeMap::new();
        for (seq, event) in events {
            groups.entry(self.partition_of(event.store_id().get())).or_default().push((seq, event));
        }
        groups
    }

    /// The partition of a store.
    pub fn partition_of(&self, store_id: i32) -> i32 {
        partition_of(store_id, self.partitions)
    }

    /// Resolves once all in-sync replicas have the record.
    ///
    /// # Errors
    /// After a pause, unless the record is too large. It is no loss: whoever has it sends it again, whole or in pieces.
    pub async fn put(&self, partition: i32, key: &str, value: &[u8], headers: &[(&str, &str)]) -> Result<(), NotTaken> {
        // Kafka refuses a batch that is too large with everything that happens to be in it.
        for producer in [&self.producer, &self.singly] {
            let put = self.put_by(producer, partition, key, value, headers).await;
            if put != Err(NotTaken::TooLarge) {
                return put;
            }
        }
        Err(NotTaken::TooLarge)
    }

    async fn put_by(
        &self,
        producer: &FutureProducer<Quiet>,
        partition: i32,
        key: &str,
        value: &[u8],
        headers: &[(&str, &str)],
    ) -> Result<(), NotTaken> {
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, &(key, value)| all.insert(Header { key, value: Some(value) }));
        let record = FutureRecord::to(&self.topic).partition(partition).key(key).payload(value).headers(headers);
        match producer.send(record, ROOM).await {
            Ok(_) => {
                self.stats.kafka_records.fetch_add(1, Relaxed);
                Ok(())
            }
            Err((error, _)) => {
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                    return Err(NotTaken::TooLarge);
                }
                self.stats.kafka_failures.fetch_add(1, Relaxed);
                tracing::warn!(partition, "Kafka did not take a record: {error}");
                if let Some((code, reason)) = producer.client().fatal_error() {
                    self.broken.send_replace(Some(format!("Kafka's client gave up: {code}: {reason}")));
                }
                // Some errors come at once, and the next try would, too.
                tokio::time::sleep(PAUSE).await;
                Err(NotTaken::ThisTime)
            }
        }
    }

    /// Puts counts of a file there, at most as many as a frame holds; returns once all in-sync replicas have them, however often
    /// that has to be tried: who began anew would plan the file anew.
    ///
    /// # Errors
    /// If a single count is larger than the topic allows.
    pub async fn put_file(&self, name: &str, counts: Vec<(Seq, Event)>) -> Result<()> {
        let agent_id = AgentId::new(FILES).expect("it is made of letters");
        let part = FramePart { agent_id, epoch: Epoch(0), events: counts };
        loop {
            match self.put_part(part.clone(), &[(FILE, name)]).await {
                Err(NotTaken::ThisTime) => {}
                put => return put.with_context(|| format!("hand counts of {name} on")),
            }
        }
    }

    /// Puts the events of a part there, each on the partition of its store; returns once all in-sync replicas have them.
    ///
    /// # Errors
    /// If Kafka does not take them all. A single event that is too large keeps none of the others from being taken.
    pub async fn put_part(&self, part: FramePart, headers: &[(&str, &str)]) -> Result<(), NotTaken> {
        let FramePart { agent_id, epoch, events } = part;
        let mut outcome = Ok(());
        for (partition, events) in self.by_partition(events) {
            let part = FramePart { agent_id: agent_id.clone(), epoch, events };
            match self.put_on(partition, part, headers).await {
                Err(NotTaken::TooLarge) => outcome = Err(NotTaken::TooLarge),
                put => put?,
            }
        }
        outcome
    }

    /// Puts events on the partition of their stores: in one record, or in as many as it takes where the topic allows none as
    /// large. Resolves once all in-sync replicas have them.
    ///
    /// # Errors
    /// If Kafka does not take them all. A single event that is too large keeps none of the others from being taken.
    pub async fn put_on(&self, partition: i32, part: FramePart, headers: &[(&str, &str)]) -> Result<(), NotTaken> {
        let FramePart { agent_id, epoch, events } = part;
        let mut outcome = Ok(());
        // The last is the next to go, so that events stay in their order.
        let mut pieces = vec![events];
        while let Some(events) = pieces.pop() {
            let key = events[0].1.store_id().to_string();
            let mut part = FramePart { agent_id: agent_id.clone(), epoch, events };
            match self.put(partition, &key, &part.encode(), headers).await {
                Ok(()) => {}
                Err(NotTaken::TooLarge) if part.events.len() > 1 => {
                    let rest = part.events.split_off(part.events.len() / 2);
                    pieces.extend([rest, part.events]);
                }
                Err(NotTaken::TooLarge) => {
                    self.stats.kafka_failures.fetch_add(1, Relaxed);
                    tracing::warn!(
                        %agent_id, store_id = key, topic = self.topic,
                        "an event alone is larger than the topic allows: it stays where it is until max.message.bytes is raised"
                    );
                    outcome = Err(NotTaken::TooLarge);
                }
                Err(NotTaken::ThisTime) => return Err(NotTaken::ThisTime),
            }
        }
        outcome
    }
}
