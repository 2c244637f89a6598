//! What goes out to one client: answers in the order in which they were made, and between them durable acks.
//!
//! Bounded in every direction: answers, because the reader waits while too many are unwritten; durable acks, because
//! they stay conflated on the board until the client has read what it was sent before; a client that reads nothing,
//! because a write may take only so long.

use super::acks::AckSubscription;
use super::codec::{self, Qos, Version};
use super::stats::{GatewayStats, count};
use bytes::BytesMut;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Bytes of answers beyond which the reader waits.
const HIGH_WATER: usize = 64 * 1024;
/// Most durable acks that the client has not acknowledged.
const UNACKNOWLEDGED_ACKS: u16 = 16;

/// The way out to one client.
pub(super) struct Outgoing {
    version: Version,
    ack_topic: String,
    /// Most QoS 1 messages the client takes at a time.
    receive_maximum: usize,
    /// Largest packet the client takes.
    max_packet: usize,
    state: Mutex<State>,
    changed: Notify,
    written: Notify,
}

#[derive(Default)]
struct State {
    bytes: BytesMut,
    /// A subscription that the writer has not taken over yet; `Some(None)`: unsubscribed.
    change: Option<Option<(AckSubscription, Qos)>>,
    /// Packet ids of durable acks that wait for their PUBACK.
    unacknowledged: HashSet<u16>,
    last_id: u16,
    finished: bool,
}

/// Why writing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteEnd {
    /// All is written, and no more will come.
    Finished,
    /// The connection is gone.
    Closed,
    /// The client did not read for too long.
    Slow,
}

impl Outgoing {
    pub(super) fn new(version: Version, ack_topic: String, receive_maximum: u16, max_packet: usize) -> Self {
        Self {
            version,
            ack_topic,
            receive_maximum: usize::from(receive_maximum.clamp(1, UNACKNOWLEDGED_ACKS)),
            max_packet,
            state: Mutex::default(),
            changed: Notify::new(),
            written: Notify::new(),
        }
    }

    /// Adds an answer.
    pub(super) fn put(&self, write: impl FnOnce(&mut BytesMut)) {
        write(&mut self.state.lock().bytes);
        self.changed.notify_one();
    }

    /// Adds a SUBACK or UNSUBACK and, with it, what it changed.
    pub(super) fn put_subscription(
        &self,
        change: Option<Option<(AckSubscription, Qos)>>,
        write: impl FnOnce(&mut BytesMut),
    ) {
        let mut state = self.state.lock();
        write(&mut state.bytes);
        if change.is_some() {
            state.change = change;
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The client has acknowledged a durable ack.
    pub(super) fn acknowledged(&self, id: u16) {
        if self.state.lock().unacknowledged.remove(&id) {
            self.changed.notify_one();
        }
    }

    /// Waits until few enough answers are unwritten.
    pub(super) async fn room(&self) {
        while self.state.lock().bytes.len() > HIGH_WATER {
            self.written.notified().await;
        }
    }

    /// Says that nothing more will come.
    pub(super) fn finish(&self) {
        self.state.lock().finished = true;
        self.changed.notify_one();
    }

    /// Writes until it is finished or fails.
    pub(super) async fn write_to(
        &self,
        io: &mut (impl AsyncWrite + Unpin),
        limit: Duration,
        stats: &GatewayStats,
    ) -> WriteEnd {
        let mut subscription: Option<(AckSubscription, Qos)> = None;
        let mut chunk = BytesMut::new();
        loop {
            let (finished, acks_open) = {
                let mut state = self.state.lock();
                std::mem::swap(&mut state.bytes, &mut chunk);
                if let Some(change) = state.change.take() {
                    subscription = change;
                }
                (state.finished, state.unacknowledged.len() < self.receive_maximum)
            };
            if !chunk.is_empty() {
                let write = async {
                    io.write_all(&chunk).await?;
                    io.flush().await
                };
                match timeout(limit, write).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return WriteEnd::Closed,
                    Err(_) => return WriteEnd::Slow,
                }
                chunk.clear();
                self.written.notify_one();
                continue;
            }
            if finished {
                return WriteEnd::Finished;
            }
            let next_ack = async {
                match &mut subscription {
                    Some((acks, qos)) if acks_open || *qos == Qos::AtMostOnce => {
                        let (ack, retained) = acks.next_with_origin().await;
                        (ack, retained, *qos)
                    }
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                (ack, retained, qos) = next_ack => {
                    let payload = serde_json::to_vec(&ack).expect("an ack is plain JSON");
                    if self.put_ack(payload, retained, qos) {
                        count(&stats.acks_sent);
                    }
                }
            }
        }
    }

    fn put_ack(&self, payload: Vec<u8>, retained: bool, qos: Qos) -> bool {
        let mut state = self.state.lock();
        let State { bytes, unacknowledged, last_id, .. } = &mut *state;
        let id = (qos == Qos::AtLeastOnce).then(|| {
            loop {
                *last_id = last_id.checked_add(1).unwrap_or(1);
                // A handful are taken, so one is free.
                if !unacknowledged.contains(last_id) {
                    break *last_id;
                }
            }
        });
        let before = bytes.len();
        let written = codec::write_publish(bytes, self.version, &self.ack_topic, id, retained, payload);
        if written > self.max_packet {
            // A packet that the client does not take must not be sent, and counts as sent (MQTT 5, 3.1.2.11.4).
            bytes.truncate(before);
            return false;
        }
        unacknowledged.extend(id);
        true
    }
}
