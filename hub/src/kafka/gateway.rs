//! A gateway's side of the topic: frames go to the partitions of their stores, and each is acknowledged on its own once Kafka
//! has all of it.
//!
//! A gateway keeps no progress of agents. Several may serve one agent at once, so none sees all of its numbers; and none needs
//! to: what comes twice is dropped by identity behind Kafka, and what never came is sent again, because the agent keeps each
//! frame until that very frame is acknowledged.
//!
//! A frame may be larger than the topic allows, by the topic's own setting: it goes in pieces then. An event that is too large
//! all alone stays at its agent, and with it its frame, until the setting is raised; the others go on.

use super::event_topic::{DETAIL, EventTopic, NotTaken, REASON, SOURCE, TOPIC};
use crate::gateway::refused::RecentlyRefused;
use crate::gateway::{AckBoard, AgentBook, FrameSink, Position, Sender};
use crate::stats::HubStats;
use bytes::Bytes;
use futures::future::BoxFuture;
use onhand_common::frame::{Frame, FramePart};
use onhand_common::topics::{self, AckedFrame, AgentStatus, DurableAck};
use onhand_common::{AgentId, Event, Failpoint, Seq, StoreId, accelerator};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The sink that stands before Kafka.
pub struct KafkaSink {
    /// Where it leads to.
    pub topic: EventTopic,
    /// Tells the agents.
    pub acks: AckBoard,
    /// What is known of the agents.
    pub agents: Arc<AgentBook>,
    /// Counters of the process.
    pub stats: Arc<HubStats>,
    /// What was refused lately: an agent sends it again with each connection.
    pub refused: Mutex<RecentlyRefused>,
}

impl KafkaSink {
    async fn take_frame(&self, from: &Sender, payload: Bytes) {
        let source = format!("mqtt:{}", from.topic);
        let frame = match Frame::decode(&payload) {
            Ok(frame) => frame,
            Err(error) => return self.quarantine(source, "malformed frame", error.to_string(), payload).await,
        };
        if frame.agent_id != from.agent {
            let detail = format!("agent_id: the frame says {}, it was sent by {}", frame.agent_id, from.agent);
            return self.quarantine(source, "foreign agent", detail, payload).await;
        }
        let (epoch, first, last, sent) = (frame.epoch, frame.first_seq, frame.last_seq(), frame.events.len());
        let acked = Position { epoch, seq: frame.acked_seq };
        let mut kept = Vec::with_capacity(sent);
        for (seq, event) in (first.0..).map(Seq).zip(frame.events) {
            let store = event.store_id();
            if from.stores.as_ref().is_some_and(|granted| !granted.contains(&store)) {
                let detail = format!("store_id: {} may not speak for store {store}", from.agent);
                self.quarantine(source.clone(), "foreign store", detail, json_of(&event)).await;
            } else {
                kept.push((seq, event));
            }
        }
        let by_partition = self.topic.by_partition(kept);
        let whole = by_partition.len() == 1 && by_partition.values().all(|events| events.len() == sent);
        let records = by_partition.into_iter().map(|(partition, events)| {
            // One store is the usual case, and its id is the key; several of one partition share the first one's.
            let key = events[0].1.store_id().to_string();
            let part = FramePart { agent_id: from.agent.clone(), epoch, events };
            let payload = payload.clone();
            async move {
                if whole {
                    match self.topic.put(partition, &key, &payload, &[]).await {
                        Err(NotTaken::TooLarge) => {}
                        put => return put,
                    }
                }
                self.topic.put_on(partition, part, &[]).await
            }
        });
        if !futures::future::join_all(records).await.into_iter().all(|put| put.is_ok()) {
            return;
        }
        Failpoint::GatewayDelivered.pass();
        self.stats.frames_taken.fetch_add(1, Relaxed);
        self.agents.frame_taken(&from.agent, epoch, last);
        self.agents.durable(&from.agent, acked);
        let frame = Some(AckedFrame { first, last });
        self.acks.publish(&from.agent, DurableAck { epoch, seq: Seq(0), resend: false, frame });
    }

    async fn take_raw(&self, store: StoreId, payload: Bytes) {
        let topic = topics::raw(store);
        match accelerator::parse_transaction(&payload) {
            Ok(transaction) if transaction.store_id == store => {
                let partition = self.topic.partition_of(store.get());
                // The PUBACK is all that a device without an agent gets: it waits until Kafka has the document.
                loop {
                    match self.topic.put(partition, &store.to_string(), &payload, &[(TOPIC, &topic)]).await {
                        Ok(()) => return,
                        Err(NotTaken::ThisTime) => {}
                        Err(NotTaken::TooLarge) => {
                            let detail = format!("{} bytes are more than the topic allows", payload.len());
                            return self.quarantine(format!("mqtt:{topic}"), "too large", detail, payload).await;
                        }
                    }
                }
            }
            Ok(transaction) => {
                let detail = format!("store_id: the document says {}, the topic {store}", transaction.store_id);
                self.quarantine(format!("mqtt:{topic}"), "foreign store", detail, payload).await;
            }
            Err(error) => {
                self.quarantine(format!("mqtt:{topic}"), "malformed document", error.to_string(), payload).await;
            }
        }
    }

    /// Sends what cannot be taken to the quarantine, which is behind Kafka, too.
    async fn quarantine(&self, source: String, reason: &'static str, detail: String, mut payload: Bytes) {
        if self.refused.lock().knows(&payload) {
            return;
        }
        let whole = payload.clone();
        self.stats.quarantined.fetch_add(1, Relaxed);
        tracing::warn!(%source, reason, %detail, bytes = payload.len(), "sent to the quarantine");
        let headers = [(SOURCE, source.as_str()), (REASON, reason), (DETAIL, detail.as_str())];
        loop {
            match self.topic.put(0, &source, &payload, &headers).await {
                Ok(()) => break,
                Err(NotTaken::TooLarge) if payload.is_empty() => break,
                // The beginning of it says more than nothing.
                Err(NotTaken::TooLarge) => payload.truncate(payload.len() / 2),
                Err(NotTaken::ThisTime) => {}
            }
        }
        self.refused.lock().is_new(&whole);
    }
}

fn json_of(event: &Event) -> Bytes {
    match event {
        Event::Transaction(transaction) => accelerator::transaction_to_json(transaction).into(),
        Event::Count(count) => accelerator::count_to_json(count).into(),
    }
}

impl FrameSink for KafkaSink {
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
