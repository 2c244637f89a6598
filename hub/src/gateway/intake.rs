//! From received bytes to stores: decodes frames and documents, judges them, refuses what is malformed into quarantine.

use super::progress::{Position, Verdict};
use super::refused::RecentlyRefused;
use super::{AckBoard, AgentBook, FrameSink, Sender};
use crate::pipeline::{Pipeline, PipelineOver};
use crate::rows::{BronzeRow, LOG_APPEND_TIME, QuarantineRow, Source};
use crate::stats::HubStats;
use bytes::Bytes;
use futures::future::BoxFuture;
use onhand_common::frame::{Frame, FrameError, FramePart};
use onhand_common::topics::{self, AgentStatus, DurableAck};
use onhand_common::{AgentId, Event, Seq, StoreId, Timestamp, accelerator};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::watch;

/// The hub's [`FrameSink`]: it outlives the pipelines, and waits while there is none.
pub struct Intake {
    pipeline: watch::Receiver<Option<Arc<Pipeline>>>,
    acks: AckBoard,
    stats: Arc<HubStats>,
    agents: Arc<AgentBook>,
    refused: Mutex<RecentlyRefused>,
}

impl Intake {
    /// An intake over the pipelines that come on `pipeline`.
    pub fn new(pipeline: watch::Receiver<Option<Arc<Pipeline>>>, acks: AckBoard, stats: Arc<HubStats>) -> Self {
        Self { pipeline, acks, stats, agents: Arc::default(), refused: Mutex::default() }
    }

    /// What is known of the agents.
    pub fn agents(&self) -> &Arc<AgentBook> {
        &self.agents
    }

    /// Tells agents what is durable, and remembers it for their view.
    pub fn acknowledge(&self, positions: &[(AgentId, Position)], resend: bool) {
        for (agent, position) in positions {
            self.agents.durable(agent, *position);
            self.acks.publish(agent, DurableAck { epoch: position.epoch, seq: position.seq, resend, frame: None });
        }
    }

    /// Waits until what was taken or refused up to now is in silver, or the pipeline that took it is over.
    pub async fn until_durable(&self) {
        if let Some(pipeline) = self.pipeline().await {
            pipeline.commit_wanted.notify_one();
            let _ = pipeline.durable().await;
        }
    }

    /// A pipeline has ended: what it had put into quarantine but not committed may come again, and is then kept.
    pub fn forget_refused(&self) {
        *self.refused.lock() = RecentlyRefused::default();
    }

    /// The pipeline of now; waits while it is being built.
    async fn pipeline(&self) -> Option<Arc<Pipeline>> {
        let mut pipeline = self.pipeline.clone();
        let ready = pipeline.wait_for(|p| p.as_ref().is_some_and(|p| !p.is_over())).await.ok()?;
        ready.clone()
    }

    async fn take_frame(&self, from: &Sender, payload: Bytes) {
        let source = format!("mqtt:{}", from.topic);
        let frame = match Frame::decode(&payload) {
            Ok(frame) => frame,
            Err(error) => {
                // What is sent again can be whole: of another version or with a wrong field, it would be the same again.
                if error == FrameError::Checksum
                    && let Some(pipeline) = self.pipeline().await
                {
                    pipeline.came_damaged(&from.agent);
                }
                return self.quarantine(source, "malformed frame", error.to_string(), payload).await;
            }
        };
        if frame.agent_id != from.agent {
            let detail = format!("agent_id: the frame says {}, it was sent by {}", frame.agent_id, from.agent);
            return self.quarantine(source, "foreign agent", detail, payload).await;
        }
        let Some(pipeline) = self.pipeline().await else { return };
        let (verdict, durable) = pipeline.judge(&frame);
        match verdict {
            Verdict::Seen => {
                self.stats.frames_seen.fetch_add(1, Relaxed);
                self.acknowledge(&[(frame.agent_id, Position { epoch: frame.epoch, seq: durable })], false);
            }
            Verdict::Gap { ask } => {
                self.stats.frames_behind_gap.fetch_add(1, Relaxed);
                self.agents.gap(&frame.agent_id);
                if ask {
                    tracing::info!(agent = %frame.agent_id, epoch = %frame.epoch, first_seq = %frame.first_seq, "a frame is missing before this one; asking for it");
                    self.acknowledge(&[(frame.agent_id, Position { epoch: frame.epoch, seq: durable })], true);
                }
            }
            Verdict::Take { skip, acknowledged_elsewhere } => {
                if let Some(seq) = acknowledged_elsewhere {
                    tracing::warn!(agent = %frame.agent_id, epoch = %frame.epoch, %seq, "this agent was acknowledged events that this lake does not hold: it reported to another hub before, or the lake is older than it was");
                }
                if let Err(over) = self.take_events(&pipeline, from, frame, skip, payload).await {
                    tracing::debug!(%over, "a frame was not taken; its agent will send it again");
                }
            }
        }
    }

    async fn take_events(
        &self,
        pipeline: &Pipeline,
        from: &Sender,
        frame: Frame,
        skip: usize,
        payload: Bytes,
    ) -> Result<(), PipelineOver> {
        let (epoch, first_seq, last_seq) = (frame.epoch, frame.first_seq, frame.last_seq());
        let sent = frame.events.len();
        let mut events: Vec<_> = (first_seq.0..).map(Seq).zip(frame.events).collect();
        if let Some(granted) = &from.stores {
            let (kept, foreign) = events.into_iter().partition(|(_, event)| granted.contains(&event.store_id()));
            events = kept;
            for (_, event) in foreign {
                self.quarantine_event(&from.topic, &event).await;
            }
        }
        // Bronze holds what silver may be made of again: the frame as it came, but for what was refused.
        let value = match events.len() {
            0 => None,
            kept if kept == sent => Some(payload.clone()),
            _ => {
                let part = FramePart { agent_id: frame.agent_id, epoch, events: events.clone() };
                Some(part.encode().into())
            }
        };
        events.retain(|(seq, _)| seq.0 >= first_seq.0 + skip as u64);
        pipeline.take(&Source::agent(&from.agent, epoch), events, payload.len()).await?;
        let now = Timestamp::now();
        let row = value.map(|value| BronzeRow {
            key: from.agent.to_string().into(),
            value,
            topic: from.topic.clone(),
            offset: first_seq.0 as i64,
            timestamp: now.micros(),
            partition: 0,
            timestamp_type: LOG_APPEND_TIME,
        });
        pipeline.advance(&from.agent, epoch, last_seq, row);
        self.stats.frames_taken.fetch_add(1, Relaxed);
        self.agents.frame_taken(&from.agent, epoch, last_seq);
        Ok(())
    }

    async fn quarantine_event(&self, topic: &str, event: &Event) {
        let json = match event {
            Event::Transaction(transaction) => accelerator::transaction_to_json(transaction),
            Event::Count(count) => accelerator::count_to_json(count),
        };
        let detail = format!("store_id: {} is not one of the stores this agent may speak for", event.store_id());
        self.quarantine(format!("mqtt:{topic}"), "foreign store", detail, json.into()).await;
    }

    async fn take_raw(&self, store: StoreId, payload: Bytes) {
        let topic = topics::raw(store);
        let transaction = match accelerator::parse_transaction(&payload) {
            Ok(transaction) if transaction.store_id == store => transaction,
            Ok(transaction) => {
                let detail = format!("store_id: the document says {}, the topic {store}", transaction.store_id);
                self.quarantine(format!("mqtt:{topic}"), "foreign store", detail, payload).await;
                return self.until_durable().await;
            }
            Err(error) => {
                self.quarantine(format!("mqtt:{topic}"), "malformed document", error.to_string(), payload).await;
                return self.until_durable().await;
            }
        };
        // No durable ack here: the PUBACK is all that the sender gets, so it waits for the commit. If this pipeline ends
        // before, the next one takes the document again, by identity once.
        while let Some(pipeline) = self.pipeline().await {
            let events = vec![(Seq(0), Event::Transaction(transaction.clone()))];
            let taken = pipeline.take(&Source::unnumbered("raw"), events, payload.len()).await;
            if taken.is_ok() {
                pipeline.keep_raw(|| BronzeRow {
                    key: store.to_string().into(),
                    value: payload.clone(),
                    topic: topic.clone(),
                    offset: 0,
                    timestamp: Timestamp::now().micros(),
                    partition: 0,
                    timestamp_type: LOG_APPEND_TIME,
                });
                pipeline.commit_wanted.notify_one();
                if pipeline.durable().await.is_ok() {
                    return;
                }
            }
        }
    }

    /// Puts something that cannot be taken into quarantine, once; what was refused lately is not kept again.
    pub async fn quarantine(&self, source: String, reason: &'static str, detail: String, payload: Bytes) {
        if !self.refused.lock().is_new(&payload) {
            return;
        }
        tracing::warn!(%source, reason, %detail, bytes = payload.len(), "put into quarantine");
        let row =
            QuarantineRow { received_at: Timestamp::now().micros(), source, reason: reason.into(), detail, payload };
        while let Some(pipeline) = self.pipeline().await {
            if pipeline.quarantine(row.clone()).await.is_ok() {
                return;
            }
        }
    }
}

impl FrameSink for Intake {
    fn frame(&self, from: &Sender, payload: Bytes) -> BoxFuture<'_, ()> {
        let from = from.clone();
        Box::pin(async move { self.take_frame(&from, payload).await })
    }

    fn raw(&self, store: StoreId, payload: Bytes) -> BoxFuture<'_, ()> {
        Box::pin(self.take_raw(store, payload))
    }

    fn status(&self, agent: &AgentId, status: Option<AgentStatus>) {
        self.agents.status(agent, status);
    }

    fn refused(&self, source: String, reason: &'static str, detail: String, payload: Bytes) -> BoxFuture<'_, ()> {
        Box::pin(self.quarantine(source, reason, detail, payload))
    }
}
