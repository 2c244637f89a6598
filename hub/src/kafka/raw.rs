//! The accelerator's JSON documents, straight from a Kafka topic into a hub in embedded form.

use super::KafkaSettings;
use super::pump::{Positioning, Pump};
use super::quiet::Quiet;
use super::record::Expected;
use crate::lake::Lake;
use crate::life::offsets_in;
use crate::pipeline::{Pipeline, TopicPartition};
use anyhow::{Context, Result};
use rdkafka::consumer::StreamConsumer;
use std::sync::Arc;
use std::time::Duration;

/// Pause before a topic that cannot be read is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Time between two looks whether the topic has grown.
const LOOK_EVERY: Duration = Duration::from_secs(300);

/// Reads a topic into a life of the pipeline, from where the lake says that it was read. While Kafka is away the hub does what
/// else it has to do. Ends only by being dropped.
pub async fn follow(settings: KafkaSettings, topic: String, lake: Lake, pipeline: Arc<Pipeline>) {
    loop {
        match read(&settings, &topic, &lake, &pipeline).await {
            Ok((pump, partitions)) => {
                *pipeline.stats.raw_topic_unread.lock() = None;
                tokio::select! {
                    reason = pump.broken() => tracing::error!(topic, "{reason}; connecting anew"),
                    now = grown(&settings, &topic, partitions) => {
                        tracing::info!(topic, partitions = now, "the topic has grown; reading all of it");
                    }
                }
                // What this pump handed on is in the life's offsets, not in the lake's yet.
                pipeline.fail(format!("the topic {topic} is read anew"));
                return;
            }
            Err(error) => {
                tracing::warn!(topic, "{error:#}; trying again");
                *pipeline.stats.raw_topic_unread.lock() = Some(format!("{error:#}"));
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn read(settings: &KafkaSettings, topic: &str, lake: &Lake, pipeline: &Arc<Pipeline>) -> Result<(Pump, i32)> {
    let count = settings.partition_count(topic).await?;
    let count =
        count.with_context(|| format!("kafka_raw_topic: there is no topic {topic} at {}", settings.bootstrap))?;
    let partitions: Vec<_> =
        (0..count).map(|partition| TopicPartition { topic: topic.to_owned(), partition }).collect();
    let offsets = offsets_in(lake, &partitions).await.context("read how far the topic has been read")?;
    let fixed = [("enable.auto.commit", "false"), ("auto.offset.reset", "earliest")];
    let config = settings.client(&[("group.id", &settings.group)], &fixed);
    let consumer: StreamConsumer<Quiet> =
        config.create_with_context(Quiet::default()).context("prepare a consumer for Kafka")?;
    let pump = Pump::start(Arc::new(consumer), Positioning::Assign, Expected::Any, Arc::clone(&pipeline.stats));
    pump.open(offsets, Arc::clone(pipeline)).await?;
    tracing::info!(topic, partitions = count, kafka = settings.bootstrap, "reading the topic");
    Ok((pump, count))
}

/// Resolves once the topic has more partitions than there were.
async fn grown(settings: &KafkaSettings, topic: &str, before: i32) -> i32 {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Ok(Some(now)) = settings.partition_count(topic).await
            && now > before
        {
            return now;
        }
    }
}
