//! The accelerator's JSON documents, straight from a Kafka topic into a hub in embedded form.

use super::KafkaSettings;
use super::pump::{Positioning, Pump};
use super::record::Expected;
use crate::pipeline::{Pipeline, TopicPartition};
use anyhow::{Context, Result};
use rdkafka::consumer::StreamConsumer;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The topic's partitions, now.
///
/// # Errors
/// If Kafka does not answer, or has no such topic.
pub async fn partitions(settings: &KafkaSettings, topic: &str) -> Result<Vec<TopicPartition>> {
    let count = settings.partition_count(topic).await?;
    let count =
        count.with_context(|| format!("kafka_raw_topic: there is no topic {topic} at {}", settings.bootstrap))?;
    Ok((0..count).map(|partition| TopicPartition { topic: topic.to_owned(), partition }).collect())
}

/// Reads partitions from the offsets that the lake names, until what is returned is dropped.
///
/// # Errors
/// If a setting of the client is wrong.
pub async fn read(
    settings: &KafkaSettings,
    offsets: BTreeMap<TopicPartition, i64>,
    pipeline: Arc<Pipeline>,
) -> Result<Pump> {
    let fixed = [("enable.auto.commit", "false"), ("auto.offset.reset", "earliest")];
    let config = settings.client(&[("group.id", &settings.group)], &fixed);
    let consumer: StreamConsumer = config.create().context("prepare a consumer for Kafka")?;
    let pump = Pump::start(Arc::new(consumer), Positioning::Assign, Expected::Any);
    pump.open(offsets, pipeline).await?;
    Ok(pump)
}
