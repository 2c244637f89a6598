//! One of the consumer group: it holds some partitions, and a life of the pipeline for just their stores.
//!
//! Whenever the partitions change, the life ends and the next one begins from the lake with the new ones. What was taken and not
//! committed is read from the topic again; a cut that was on its way fails where somebody else owns the partition by now.

use super::KafkaSettings;
use super::pump::{Positioning, Pump};
use super::quiet::Quiet;
use super::record::Expected;
use crate::count_files::Leading;
use crate::lake::commit::CommitError;
use crate::lake::marks::DoesNotFit;
use crate::life::{Habits, Life, Surroundings};
use crate::ownership::{OwnedPartitions, Ownership};
use crate::pipeline::{Pipeline, TopicPartition};
use crate::stats::HubStats;
use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a fence means.
const NOT_OURS: &str =
    "another processor owns a partition that this one took for its own; what was not committed is given up";
/// After somebody else turned out to own a partition: long enough for the group to tell us.
const AFTER_FENCE: Duration = Duration::from_secs(3);
/// Pauses before a life is begun anew after other trouble, the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Time between two looks at how much there is to read, and how long one may take.
const LAG_EVERY: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(2);
/// How long leaving the group may take, with the question of a look at how much there is to read that is waited for before.
const LEAVING: Duration = Duration::from_secs(4);
/// A life of this length was not the same trouble as before.
const GOOD: Duration = Duration::from_secs(60);

/// Hears of the group's decisions.
struct Group {
    owned: watch::Sender<BTreeSet<i32>>,
    stats: Arc<HubStats>,
    quiet: Quiet,
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.quiet.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let spare = statistics.cgrp.is_some_and(|group| group.join_state == "steady" && group.assignment_size == 0);
        self.stats.kafka_spare.store(spare, Relaxed);
    }
}

impl Group {
    /// Nothing ends where nothing changes: a group that rebalances tells each of its members, with an empty list.
    fn change(&self, change: impl FnOnce(&mut BTreeSet<i32>)) {
        let changed = self.owned.send_if_modified(|owned| {
            let before = owned.clone();
            change(owned);
            *owned != before
        });
        self.stats.kafka_rebalances.fetch_add(u64::from(changed), Relaxed);
        self.stats.kafka_partitions.store(self.owned.borrow().len() as u64, Relaxed);
    }
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(gone) = rebalance {
            let gone: BTreeSet<i32> = gone.elements().iter().map(|element| element.partition()).collect();
            self.change(|owned| owned.retain(|partition| !gone.contains(partition)));
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(new) => {
                // What comes before the lake was asked for the offsets would be dropped.
                if let Err(error) = consumer.pause(new) {
                    tracing::debug!("pausing new partitions: {error}");
                }
                let new = new.elements();
                self.change(|owned| owned.extend(new.iter().map(|element| element.partition())));
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => {
                tracing::warn!("the consumer group: {error}; giving all partitions up");
                self.change(BTreeSet::clear);
            }
        }
    }
}

/// See the module.
pub struct Processor {
    /// How Kafka is reached.
    pub settings: KafkaSettings,
    /// What outlives a life.
    pub around: Surroundings,
    /// How a life is led.
    pub habits: Habits,
    /// The pipeline of now, for whoever asks.
    pub pipeline: watch::Sender<Option<Arc<Pipeline>>>,
    /// The same, for the loader of count files and for replays, while it is this process that leads.
    pub leads: watch::Sender<Option<Leading>>,
}

impl Processor {
    /// Processes until `stop`, which is followed by a last commit.
    ///
    /// # Errors
    /// If Kafka does not answer at the start, a setting of its client is wrong, or the client gives up.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        let count = tokio::select! {
            count = self.settings.ensure_topic() => count?,
            () = stop.cancelled() => return Ok(()),
        };
        let stats = &self.around.stats;
        let (owned, mut assigned) = watch::channel(BTreeSet::new());
        let group = self.settings.group.as_str();
        let ours = [
            ("group.id", group),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("session.timeout.ms", "10000"),
            ("heartbeat.interval.ms", "1000"),
            ("statistics.interval.ms", "2000"),
            ("group.instance.id", self.settings.instance.as_deref().unwrap_or_default()),
        ];
        let ours: Vec<_> = ours.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        // What is in the lake counts, not what a group has committed.
        let fixed = [("enable.auto.commit", "false"), ("auto.offset.reset", "earliest")];
        let consumer: StreamConsumer<Group> = self
            .settings
            .client(&ours, &fixed)
            .create_with_context(Group { owned, stats: Arc::clone(stats), quiet: Quiet::default() })
            .context("prepare a consumer for Kafka")?;
        consumer.subscribe(&[&self.settings.topic]).context("join the consumer group")?;
        let consumer = Arc::new(consumer);
        let expected = Expected::OfItsPartition(count, Arc::new(self.settings.clone()));
        let pump = Pump::start(Arc::clone(&consumer), Positioning::Seek, expected, Arc::clone(stats));
        let enough = CancellationToken::new();
        let ended = tokio::select! {
            ended = self.lives(count, &pump, &mut assigned, &stop) => ended,
            reason = pump.broken() => Err(anyhow!(reason)),
            never = self.watch_lag(&consumer, &enough) => match never {},
        };
        let left = async {
            enough.cancel();
            pump.end().await;
            leave(consumer).await;
        };
        if tokio::time::timeout(LEAVING, left).await.is_err() {
            tracing::warn!(
                "the consumer group may not have heard that this process ends: then it notices after the session's time-out"
            );
        }
        ended
    }

    /// Asks now and then how much of the partitions has not been read. (librdkafka itself knows the end of a partition only
    /// from fetching it, and what is paused is not fetched.)
    async fn watch_lag(&self, consumer: &Arc<StreamConsumer<Group>>, enough: &CancellationToken) -> Infallible {
        let mut next = BTreeMap::new();
        loop {
            tokio::time::sleep(LAG_EVERY).await;
            let pipeline = self.pipeline.borrow().clone();
            // Between two lives what the last one had read is still what is in the lake, or nearly.
            let held = self.around.stats.kafka_partitions.load(Relaxed);
            next = match pipeline {
                _ if held == 0 => BTreeMap::new(),
                Some(pipeline) => pipeline.offsets(),
                None => next,
            };
            let (next, consumer, enough) = (next.clone(), Arc::clone(consumer), enough.clone());
            let look = tokio::task::spawn_blocking(move || {
                let mut lag = 0;
                for (TopicPartition { topic, partition }, next) in next {
                    if enough.is_cancelled() {
                        break;
                    }
                    let (low, high) = consumer.fetch_watermarks(&topic, partition, PATIENCE)?;
                    lag += (high - next.max(low)).max(0) as u64;
                }
                rdkafka::error::KafkaResult::Ok(lag)
            });
            match look.await {
                Ok(Ok(lag)) => self.around.stats.kafka_lag.store(lag, Relaxed),
                Ok(Err(error)) => tracing::debug!("asking how much there is to read: {error}"),
                Err(error) => tracing::warn!("asking how much there is to read: {error}"),
            }
        }
    }

    /// One life after another.
    async fn lives(
        &self,
        count: i32,
        pump: &Pump,
        assigned: &mut watch::Receiver<BTreeSet<i32>>,
        stop: &CancellationToken,
    ) -> Result<()> {
        let mut pause = PAUSES.0;
        while !stop.is_cancelled() {
            let owned = assigned.borrow_and_update().clone();
            if owned.is_empty() {
                tokio::select! {
                    _ = assigned.changed() => {}
                    () = stop.cancelled() => {}
                }
                continue;
            }
            let begun = Instant::now();
            let ended = self.one_life(count, owned, pump, assigned, stop).await;
            if begun.elapsed() > GOOD {
                pause = PAUSES.0;
            }
            let wait = match ended {
                Ok(Ended::Asked) => continue,
                Ok(Ended::Over(reason)) => {
                    tracing::error!("the pipeline is over: {reason}; a new one is built from the lake");
                    pause
                }
                Err(error) if DoesNotFit::is(&error) => return Err(error),
                Err(error) if is_fence(&error) => {
                    self.around.stats.fenced.fetch_add(1, Relaxed);
                    tracing::warn!("{error:#}: {NOT_OURS}");
                    AFTER_FENCE
                }
                Err(error) => {
                    tracing::error!("the pipeline could not go on: {error:#}; a new one is built from the lake");
                    pause
                }
            };
            pause = (pause * 2).min(PAUSES.1);
            self.around.stats.pipeline_restarts.fetch_add(1, Relaxed);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = assigned.changed() => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    async fn one_life(
        &self,
        count: i32,
        owned: BTreeSet<i32>,
        pump: &Pump,
        assigned: &mut watch::Receiver<BTreeSet<i32>>,
        stop: &CancellationToken,
    ) -> Result<Ended> {
        let topic = self.settings.topic.clone();
        let partition = |&partition: &i32| TopicPartition { topic: topic.clone(), partition };
        let habits = Habits { topic_partitions: owned.iter().map(partition).collect(), ..self.habits.clone() };
        tracing::info!(partitions = ?owned, "taking partitions over");
        ensure!(
            owned.iter().all(|partition| *partition < count),
            "the topic {topic} had {count} partitions when this process started, and has more now: a store must not move from \
             one partition to another"
        );
        let ownership = Ownership::Partitions(OwnedPartitions { topic: topic.clone(), count, owned });
        let begun = tokio::select! {
            begun = Life::begin(&self.around, habits, ownership, stop.child_token()) => begun?,
            // What is being taken over may be somebody else's by now.
            _ = assigned.changed() => return Ok(Ended::Asked),
            () = stop.cancelled() => return Ok(Ended::Asked),
        };
        let Life { pipeline, cycle, servants, offsets, .. } = begun;
        if self.habits.cycle.reference.is_none() && self.around.reference.borrow().stores.is_empty() {
            tracing::warn!(
                "no --reference was given and the lake holds no reference data: no change counts until there are stores and \
                 change types"
            );
        }
        let leading = cycle.ownership.leads().then(|| cycle.leading());
        let mut cycle = std::pin::pin!(cycle.run());
        let opened = tokio::select! {
            opened = pump.open(offsets, Arc::clone(&pipeline)) => Some(opened),
            () = stop.cancelled() => None,
        };
        let ended = match opened {
            // Nothing was taken yet.
            None => Ok(Ended::Asked),
            Some(Err(error)) => Err(error),
            Some(Ok(())) => {
                self.pipeline.send_replace(Some(Arc::clone(&pipeline)));
                self.leads.send_replace(leading);
                tokio::select! {
                    ended = &mut cycle => match ended {
                        Ok(()) if stop.is_cancelled() => Ok(Ended::Asked),
                        Ok(()) => Ok(Ended::Over(pipeline.over_and_why().await)),
                        Err(error) => Err(error.into()),
                    },
                    _ = assigned.changed() => {
                        // Nothing more is begun; what is on its way is committed only where it is still ours.
                        pipeline.fail("the partitions have changed".to_owned());
                        match cycle.await {
                            Ok(()) => Ok(Ended::Asked),
                            Err(error @ CommitError::Fenced { .. }) => {
                                self.around.stats.fenced.fetch_add(1, Relaxed);
                                tracing::info!("{error}: {NOT_OURS}");
                                Ok(Ended::Asked)
                            }
                            Err(error) => Err(error.into()),
                        }
                    }
                }
            }
        };
        pump.close().await;
        pipeline.fail("this life is over".to_owned());
        self.pipeline.send_replace(None);
        self.leads.send_replace(None);
        servants.end().await;
        ended
    }
}

/// Tells the group that this member is gone, which is what a consumer does when it is dropped: before the process ends, and not
/// beside it, or the group waits for the session's time-out. (A member with a name of its own keeps its place all the same.)
async fn leave(mut consumer: Arc<StreamConsumer<Group>>) {
    loop {
        match Arc::try_unwrap(consumer) {
            Ok(last) => break drop(tokio::task::spawn_blocking(move || drop(last)).await),
            Err(shared) => consumer = shared,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Why a life ended well.
enum Ended {
    /// It was asked to: the partitions changed, or the process stops.
    Asked,
    /// By itself, since something in it could not go on.
    Over(String),
}

fn is_fence(error: &anyhow::Error) -> bool {
    error.downcast_ref::<CommitError>().is_some_and(|error| matches!(error, CommitError::Fenced { .. }))
}
