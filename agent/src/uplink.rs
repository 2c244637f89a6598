//! The way to the hub: sends the outbox's frames over MQTT until the hub says that they are durable.
//!
//! What holds:
//! - The outbox is the truth, the client is a pipe: what the client has queued or is told to have delivered counts for
//!   nothing, only the durable ack removes. Every connection is a new client, since a client keeps state of the last one
//!   that can wedge it (packet id collisions), and begins with the oldest frame that is not acknowledged.
//! - Nothing here waits for the hub except the connection itself: publishes are queued or put off, never awaited.

use crate::config::HubConfig;
use crate::metrics::Metrics;
use crate::outbox::{Outbox, OutboxError};
use crate::status::Reporter;
use crate::window::{FrameKey, Limits, Window};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use onhand_common::topics::{self, DurableAck};
use onhand_common::{AgentId, Timestamp, frame};
use rand::Rng;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, DisconnectReasonCode, LastWill, Packet, PubAckReason, Publish, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions, StateError};
use rumqttc::{NetworkOptions, Outgoing, TlsConfiguration, Transport};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A slow uplink needs as long for a frame.
const CONNECTION_TIMEOUT_SECONDS: u64 = 60;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const MAX_PACKET: usize = frame::MAX_BYTES + 1024;
/// Publishes that wait inside the client, at most: memory, and what a rewind comes behind.
const MAX_QUEUED: usize = 32;
/// Bytes of frames that the client holds, at most; one frame may always be there. It keeps each until its PUBACK, which comes
/// within a round trip. After a long outage frames are large: a whole window of them would be 8 MiB, at every ack anew.
const MAX_HELD_BYTES: usize = 1024 * 1024;
const TICK: Duration = Duration::from_millis(250);
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
const FAREWELL: Duration = Duration::from_millis(800);

/// Why a connection ended.
enum End {
    /// It broke, or was never made.
    Lost(String),
    /// Another client with the same id connected.
    TakenOver,
    /// Durable acks stayed away.
    Watchdog,
    /// The agent stops.
    Stop,
}

/// Sends until `stop` turns true; then says goodbye, if it can be done quickly.
pub(crate) async fn run(config: HubConfig, limits: Limits, reporter: Reporter, mut stop: watch::Receiver<bool>) {
    let mut uplink = Uplink {
        agent: reporter.agent_id.clone(),
        outbox: Arc::clone(&reporter.outbox),
        metrics: Arc::clone(&reporter.metrics),
        window: Window::new(limits),
        config,
        reporter,
        failures: 0,
        taken_over: false,
    };
    loop {
        let end = uplink.connection(&mut stop).await;
        uplink.metrics.connected.store(false, Ordering::Relaxed);
        uplink.window.restart();
        let again = std::mem::replace(&mut uplink.taken_over, matches!(end, End::TakenOver));
        let pause = match end {
            End::Stop => return,
            End::Watchdog => {
                tracing::warn!("no durable ack for a frame for a long time: connecting anew");
                uplink.metrics.watchdog.inc();
                uplink.pause()
            }
            End::TakenOver => {
                // Each that comes back takes the session from the other one: none may come back soon.
                let pause = LONGEST_PAUSE.mul_f64(rand::rng().random_range(0.5..1.));
                let reason = format!("another agent uses the id {}", uplink.agent);
                if !again {
                    tracing::warn!(
                        hub = %uplink.config.url, next_try_in = ?pause,
                        "{reason}: the hub ended the session of this one. Every agent needs an id of its own"
                    );
                }
                *uplink.metrics.connection_error.lock() = Some(reason);
                pause
            }
            End::Lost(reason) => {
                let pause = uplink.pause();
                tracing::warn!(hub = %uplink.config.url, reason, next_try_in = ?pause, "not connected to the hub");
                *uplink.metrics.connection_error.lock() = Some(reason);
                pause
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

/// Returns once the agent stops. (The value that tokio returns here is a lock on the flag; it must not live on.)
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

struct Uplink {
    agent: AgentId,
    config: HubConfig,
    outbox: Arc<Outbox>,
    metrics: Arc<Metrics>,
    reporter: Reporter,
    window: Window,
    /// Connections in a row without a durable ack.
    failures: u32,
    /// The last connection ended because another agent has the same id; it has been said.
    taken_over: bool,
}

/// A client, and what it holds.
struct Link {
    client: AsyncClient,
    connected: bool,
    held: Held,
    last_status: Instant,
}

/// What the client holds of its publishes.
#[derive(Debug, Default)]
struct Held {
    /// How many have not left yet.
    queued: usize,
    /// Sizes of those without a PUBACK, in their order.
    sizes: VecDeque<usize>,
    bytes: usize,
}

impl Held {
    fn has_room(&self, size: usize) -> bool {
        self.queued < MAX_QUEUED && (self.bytes == 0 || self.bytes + size <= MAX_HELD_BYTES)
    }

    fn add(&mut self, size: usize) {
        self.queued += 1;
        self.sizes.push_back(size);
        self.bytes += size;
    }

    /// The oldest that was queued has left.
    fn left(&mut self) {
        self.queued = self.queued.saturating_sub(1);
    }

    /// The oldest was acknowledged: PUBACKs come in the order of their publishes.
    fn acknowledged(&mut self) {
        self.bytes -= self.sizes.pop_front().unwrap_or(0);
    }
}

impl Uplink {
    /// Exponential, with full jitter: a thousand agents that lost one hub must not come back as one.
    fn pause(&mut self) -> Duration {
        let longest = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(20) + longest.mul_f64(rand::rng().random::<f64>())
    }

    async fn connection(&mut self, stop: &mut watch::Receiver<bool>) -> End {
        let (client, event_loop) = AsyncClient::new(self.options(), MAX_QUEUED * 2);
        // A stream, since a poll that is dropped half-way loses what it was writing.
        let events = futures::stream::unfold(event_loop, |mut event_loop| async move {
            let event = event_loop.poll().await;
            Some((event, event_loop))
        });
        let mut events = std::pin::pin!(events);
        let mut link = Link { client, connected: false, held: Held::default(), last_status: Instant::now() };
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let outbox = Arc::clone(&self.outbox);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => if let Err(reason) = self.on_event(event, &mut link) {
                        return End::Lost(reason);
                    },
                    Some(Err(error)) => return End::of(&error),
                    None => return End::Lost("the client ended".into()),
                },
                () = outbox.changed.notified() => {}
                _ = tick.tick() => {
                    if self.window.rewind_if_put_off(Instant::now()) {
                        tracing::info!("the hub still misses something: sending again from there");
                    }
                    if self.window.overdue(Instant::now()) {
                        return End::Watchdog;
                    }
                    if link.connected && link.last_status.elapsed() >= STATUS_INTERVAL {
                        self.publish_status(&mut link, true);
                    }
                }
                () = stopped(stop) => {
                    if link.connected {
                        self.farewell(&mut link, events).await;
                    }
                    return End::Stop;
                }
            }
            if link.connected
                && let Err(error) = self.send_what_may_go(&mut link)
            {
                tracing::error!(%error, "cannot read the outbox");
                tokio::time::sleep(TICK).await;
            }
        }
    }

    fn on_event(&mut self, event: Event, link: &mut Link) -> Result<(), String> {
        match event {
            Event::Incoming(Packet::ConnAck(connack)) => self.on_connected(&connack, link),
            Event::Incoming(Packet::Publish(publish)) => {
                self.on_publish(&publish);
                Ok(())
            }
            Event::Incoming(Packet::SubAck(suback)) => {
                match suback.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_))) {
                    Some(code) => Err(format!("the subscription to the agent's acks was denied: {code:?}")),
                    None => Ok(()),
                }
            }
            Event::Incoming(Packet::PubAck(ack))
                if !matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers) =>
            {
                self.metrics.denied.inc();
                Err(format!("a publish was denied: {:?}", ack.reason))
            }
            Event::Incoming(Packet::PubAck(_)) => {
                link.held.acknowledged();
                Ok(())
            }
            Event::Outgoing(Outgoing::Publish(_)) => {
                link.held.left();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn on_connected(&mut self, connack: &ConnAck, link: &mut Link) -> Result<(), String> {
        if let Some(max) = connack.properties.as_ref().and_then(|p| p.max_packet_size)
            && (max as usize) < MAX_PACKET
        {
            tracing::warn!(max, "the hub takes only small packets: large frames will not get through");
        }
        tracing::info!(hub = %self.config.url, backlog = self.outbox.backlog().events, "connected to the hub");
        self.metrics.connections.inc();
        self.metrics.connected.store(true, Ordering::Relaxed);
        *self.metrics.connection_error.lock() = None;
        self.window.restart();
        link.connected = true;
        link.client.try_subscribe(topics::ack(&self.agent), QoS::AtLeastOnce).map_err(|e| e.to_string())?;
        self.publish_status(link, true);
        Ok(())
    }

    fn on_publish(&mut self, publish: &Publish) {
        if publish.topic != topics::ack(&self.agent).as_bytes() {
            return;
        }
        let ack: DurableAck = match serde_json::from_slice(&publish.payload) {
            Ok(ack) => ack,
            Err(error) => return tracing::warn!(%error, "an ack that cannot be read"),
        };
        let outcome = match self.outbox.acknowledge(ack) {
            Ok(outcome) => outcome,
            Err(error) => {
                return tracing::error!(%error, "an ack could not be written down; what it covers is sent again");
            }
        };
        let now = Instant::now();
        if outcome.rolled_back {
            tracing::warn!(
                epoch = %ack.epoch, seq = %ack.seq, new_epoch = %self.outbox.epoch(),
                "ROLLED BACK: the hub has more of this agent than its disk ever wrote. The disk was set back or replaced, or \
                 another agent uses the same id. Numbering starts anew; what this disk holds is sent again"
            );
            return self.window.restart();
        }
        self.metrics.last_ack.store(Timestamp::now().micros(), Ordering::Relaxed);
        self.metrics.events_acknowledged.inc_by(outcome.events);
        // Any ack is a sign of life of the hub behind the connection.
        self.failures = 0;
        if outcome.renumbered {
            tracing::info!(
                epoch = %ack.epoch, seq = %ack.seq, new_epoch = %self.outbox.epoch(),
                "the hub waits for frames that are durable elsewhere: what is left gets new numbers"
            );
            return self.window.restart();
        }
        self.window.heard(ack.frame.is_some());
        self.window.acked(ack.epoch, ack.seq, now);
        if let Some(frame) = ack.frame {
            self.window.acked_frame(FrameKey { epoch: ack.epoch, first_seq: frame.first }, frame.last, now);
        }
        if ack.resend && self.window.rewind(ack.epoch, ack.seq, now) {
            tracing::info!(epoch = %ack.epoch, seq = %ack.seq, "the hub misses something: sending again from there");
        }
    }

    fn send_what_may_go(&mut self, link: &mut Link) -> Result<(), OutboxError> {
        while link.held.has_room(0) {
            let Some(info) = self.outbox.next_after(self.window.cursor())? else { return Ok(()) };
            if !self.window.may_send(info.key.epoch, info.len as usize) || !link.held.has_room(info.len as usize) {
                return Ok(());
            }
            let sealed = Bytes::from(self.outbox.seal(&self.agent, &info)?);
            if link.client.try_publish(topics::frames(&self.agent), QoS::AtLeastOnce, false, sealed).is_err() {
                return Ok(());
            }
            link.held.add(info.len as usize);
            self.metrics.frames_sent.inc();
            self.window.sent(info.key, info.last_seq(), info.len as usize, Instant::now());
        }
        Ok(())
    }

    fn publish_status(&self, link: &mut Link, online: bool) {
        link.last_status = Instant::now();
        let status = self.reporter.for_hub(online);
        // A full queue means that more important things are under way.
        if link.client.try_publish(topics::status(&self.agent), QoS::AtLeastOnce, true, status).is_ok() {
            link.held.add(0);
        }
    }

    async fn farewell(&self, link: &mut Link, mut events: impl Stream<Item = Result<Event, ConnectionError>> + Unpin) {
        self.publish_status(link, false);
        let _ = link.client.try_disconnect();
        let goodbye = async {
            while let Some(Ok(event)) = events.next().await {
                if matches!(event, Event::Outgoing(Outgoing::Disconnect)) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(FAREWELL, goodbye).await;
    }

    fn options(&self) -> MqttOptions {
        let mut options = MqttOptions::new(self.agent.as_str(), &self.config.url.host, self.config.url.port);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_start(true);
        options.set_connection_timeout(CONNECTION_TIMEOUT_SECONDS);
        options.set_max_packet_size(Some(u32::try_from(MAX_PACKET).expect("257 KiB fit 32 bits")));
        // The client reserves a slot for each; the hub's own limit, if lower, counts.
        options.set_outgoing_inflight_upper_limit(u16::try_from(self.config.max_in_flight).unwrap_or(u16::MAX));
        options.set_last_will(LastWill::new(
            topics::status(&self.agent),
            self.reporter.for_hub(false),
            QoS::AtLeastOnce,
            true,
            None,
        ));
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(CONNECTION_TIMEOUT_SECONDS);
        options.set_network_options(network);
        if let Some((user, password)) = &self.config.login {
            options.set_credentials(user, password);
        }
        if let Some(tls) = &self.config.tls {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(tls))));
        }
        options
    }
}

impl End {
    fn of(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::MqttState(StateError::ServerDisconnect {
                reason_code: DisconnectReasonCode::SessionTakenOver,
                ..
            }) => Self::TakenOver,
            ConnectionError::ConnectionRefused(code) => Self::Lost(format!("the hub refused the connection: {code:?}")),
            other => Self::Lost(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
