//! From a record to the stores: a frame, a part of one, a device's document, or something for the quarantine.

use super::KafkaSettings;
use super::event_topic::{DETAIL, FILE, REASON, SOURCE};
use super::lanes::Received;
use crate::ownership::partition_of;
use crate::pipeline::{Pipeline, PipelineOver};
use crate::rows::{BronzeRow, QuarantineRow, Source};
use bytes::Bytes;
use onhand_common::accelerator;
use onhand_common::frame::{FrameError, FramePart};
use onhand_common::{Event, Seq, Timestamp};
use std::borrow::Cow;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};

/// Why a record is refused whose stores belong elsewhere.
const FOREIGN_PARTITION: &str = "foreign partition";

/// Whose events a record may hold.
#[derive(Debug, Clone)]
pub enum Expected {
    /// Those of the stores of its partition, of so many: the topic between gateways and processors.
    OfItsPartition(i32, Arc<KafkaSettings>),
    /// Anybody's.
    Any,
}

/// Takes a partition's records in their order, until the queue closes or the pipeline is over.
pub async fn work(mut queue: mpsc::Receiver<Received>, room: Arc<Notify>, pipeline: Arc<Pipeline>, expected: Expected) {
    while let Some(record) = queue.recv().await {
        room.notify_one();
        if take(&pipeline, record, &expected).await.is_err() {
            break;
        }
        // Its bytes are free only now.
        room.notify_one();
    }
    drop(queue);
    room.notify_one();
}

async fn take(pipeline: &Pipeline, record: Received, expected: &Expected) -> Result<(), PipelineOver> {
    let (partition, next) = (record.partition.clone(), record.offset + 1);
    match understand(&record, expected) {
        Ok((source, events)) => {
            pipeline.take(&source, events, record.value.len()).await?;
            let row = BronzeRow {
                key: record.key.unwrap_or_default(),
                value: record.value,
                topic: record.partition.topic,
                partition: record.partition.partition,
                offset: record.offset,
                timestamp: record.timestamp.saturating_mul(1_000),
                timestamp_type: record.timestamp_type,
            };
            pipeline.advance_offset(&partition, next, Some(row));
        }
        Err(Refused { source, reason, detail, payload }) => {
            if let (FOREIGN_PARTITION, Expected::OfItsPartition(count, settings)) = (&*reason, expected) {
                // Somebody's mistake, unless the topic has grown: then whoever wrote this was right, and stores have moved.
                let now = settings.partition_count(&partition.topic).await;
                if !matches!(now, Ok(Some(now)) if now == *count) {
                    return Err(
                        pipeline.fail(format!("{detail}; the topic had {count} partitions, and has now {now:?}"))
                    );
                }
            }
            tracing::warn!(%source, %reason, %detail, bytes = payload.len(), "put into quarantine");
            let received_at = Timestamp::now().micros();
            pipeline.quarantine(QuarantineRow { received_at, source, reason, detail, payload }).await?;
            pipeline.advance_offset(&partition, next, None);
        }
    }
    Ok(())
}

struct Refused {
    source: String,
    reason: Cow<'static, str>,
    detail: String,
    payload: Bytes,
}

type Understood = (Arc<Source>, Vec<(Seq, Event)>);

fn understand(record: &Received, expected: &Expected) -> Result<Understood, Refused> {
    let place = &record.partition;
    let refused = |reason: &'static str, detail: String| Refused {
        source: format!("kafka:{}/{}/{}", place.topic, place.partition, record.offset),
        reason: reason.into(),
        detail,
        payload: record.value.clone(),
    };
    // A gateway has refused this one already.
    if let (Expected::OfItsPartition(..), Some(source)) = (expected, record.headers.get(SOURCE)) {
        let header = |name: &str| record.headers.get(name).cloned().unwrap_or_default();
        let (source, payload) = (source.clone(), record.value.clone());
        return Err(Refused { source, reason: header(REASON).into(), detail: header(DETAIL), payload });
    }
    let (source, events) = match FramePart::decode(&record.value) {
        Ok(part) => match (expected, record.headers.get(FILE)) {
            (Expected::OfItsPartition(..), Some(file)) => (Source::unnumbered(&format!("file:{file}")), part.events),
            _ => (Source::agent(&part.agent_id, part.epoch), part.events),
        },
        Err(FrameError::Magic) => {
            let transaction = accelerator::parse_transaction(&record.value)
                .map_err(|error| refused("malformed document", error.to_string()))?;
            (Source::unnumbered("raw"), vec![(Seq(0), Event::Transaction(transaction))])
        }
        Err(error) => return Err(refused("malformed frame", error.to_string())),
    };
    if let Expected::OfItsPartition(count, _) = expected {
        let count = *count;
        let strange = events.iter().find(|(_, event)| partition_of(event.store_id().get(), count) != place.partition);
        if let Some((_, event)) = strange {
            let store = event.store_id();
            let detail =
                format!("store_id: {store} belongs into partition {} of {count}", partition_of(store.get(), count));
            return Err(refused(FOREIGN_PARTITION, detail));
        }
    }
    Ok((source, events))
}
