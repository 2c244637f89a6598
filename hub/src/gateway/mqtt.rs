//! The same interface behind a broker that runs elsewhere (Mosquitto, EMQX, …), as its client by MQTT 5.
//!
//! - The broker keeps the session (fixed client id, no clean start), so what agents publish while the hub is away waits
//!   there, within the broker's own limits. What it drops is sent again by the agents: only durable acks count.
//! - A message is acknowledged to the broker when the sink has taken it. The receive maximum is chosen so that all that
//!   the broker may send unacknowledged fits into the memory that is allowed; the client never has to stop reading.
//! - Each connection gets a client of its own. rumqttc's state from an earlier one is worth nothing here: messages that
//!   were not acknowledged come again from the broker, durable acks come again from the board, and packet ids that an
//!   old connection left behind cannot get in the way of a new one.
//! - Who sent a message is what the topic says. That it can be believed is the work of the broker's access control.

use super::acks::AckBoard;
use super::broker_url::BrokerUrl;
use super::interface::{FrameSink, Sender};
use super::lanes::Lanes;
use super::limits::MAX_PACKET;
use super::stats::{GatewayStats, Gauge, count};
use bytes::Bytes;
use onhand_common::topics::{self, AgentStatus, Topic};
use onhand_common::{AgentId, StoreId};
use rand::Rng;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Requests (acknowledgements, durable acks) that wait for the connection.
const REQUESTS: usize = 256;
/// Durable acks that the broker has not acknowledged.
const ACKS_IN_FLIGHT: u16 = 100;
/// First and longest pause before connecting again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// A connection that held this long was a good one: the next pause is a short one again.
const GOOD: Duration = Duration::from_secs(10);

/// What a client of the broker asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Everything, and the broker keeps it while the hub is away.
    All,
    /// Agents' frames and status; each frame goes to one of the clients of this name. The broker keeps nothing: a session that
    /// outlived its gateway would keep its share of the frames from the others, and agents send again what nobody acknowledged.
    FramesInTurns(String),
    /// Documents of devices without an agent, all of them: nobody sends those again, so the broker keeps them.
    Raw,
}

/// How the broker is used.
#[derive(Debug, Clone)]
pub struct ExternalBrokerConfig {
    /// Where it is.
    pub url: BrokerUrl,
    /// The hub's client id. Its session at the broker hangs on it, so it must stay the same.
    pub client_id: String,
    /// How long the broker keeps the session of a hub that is away.
    pub session_expiry: Duration,
    /// What it is asked for.
    pub wanted: Wanted,
    /// Certificate authorities to trust, PEM; `None`: the system's.
    pub ca: Option<Vec<u8>>,
    /// Most messages that are received and not acknowledged.
    pub receive_maximum: u16,
    /// Most bytes that are received and not acknowledged.
    pub max_bytes: usize,
    /// Where it counts.
    pub stats: Arc<GatewayStats>,
}

impl ExternalBrokerConfig {
    fn keeps_session(&self) -> bool {
        !matches!(self.wanted, Wanted::FramesInTurns(_))
    }

    /// The usual settings for a broker.
    pub fn new(url: BrokerUrl) -> Self {
        Self {
            url,
            client_id: "onhand-hub".to_owned(),
            session_expiry: Duration::from_secs(24 * 3600),
            wanted: Wanted::All,
            ca: None,
            receive_maximum: 1_000,
            max_bytes: 256 * 1024 * 1024,
            stats: Arc::default(),
        }
    }
}

/// A client of an external broker.
pub struct ExternalBroker {
    config: ExternalBrokerConfig,
    options: MqttOptions,
}

/// What the tasks of all connections share.
struct Context {
    sink: Arc<dyn FrameSink>,
    stats: Arc<GatewayStats>,
    lanes: Lanes<Origin, Job>,
    /// Bytes that wait or are worked on.
    bytes: AtomicUsize,
    max_bytes: usize,
    wanted: Wanted,
}

/// What has an order of its own.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Origin {
    Agent(AgentId),
    Store(StoreId),
    Unknown,
}

struct Job {
    publish: Publish,
    topic: String,
    client: AsyncClient,
    _bytes: Held,
}

/// Bytes that count until this is dropped.
struct Held(Arc<Context>, usize);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.bytes.fetch_sub(self.1, Relaxed);
    }
}

impl ExternalBroker {
    /// Prepares the client; it connects once it runs.
    ///
    /// # Errors
    /// Says that a certificate authority cannot be read.
    pub fn new(config: ExternalBrokerConfig) -> Result<Self, rustls::Error> {
        let url = &config.url;
        let mut options = MqttOptions::new(&config.client_id, &url.host, url.port);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_start(!config.keeps_session())
            .set_manual_acks(true)
            .set_connection_timeout(20);
        options.set_max_packet_size(Some(MAX_PACKET as u32));
        options.set_outgoing_inflight_upper_limit(ACKS_IN_FLIGHT);
        let expiry = if config.keeps_session() { config.session_expiry } else { Duration::ZERO };
        options.set_session_expiry_interval(Some(u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX)));
        let fitting = u16::try_from(config.max_bytes / MAX_PACKET).unwrap_or(u16::MAX);
        options.set_receive_maximum(Some(config.receive_maximum.min(fitting).max(1)));
        if let Some((user, password)) = &url.login {
            options.set_credentials(user, password);
        }
        if url.tls {
            options.set_transport(Transport::tls_with_config(tls_configuration(config.ca.as_deref())?));
        }
        let mut network = rumqttc::NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        Ok(Self { config, options })
    }

    /// Stays connected until `shutdown`, connecting again with growing, jittered pauses.
    pub async fn run(self, sink: Arc<dyn FrameSink>, acks: AckBoard, shutdown: CancellationToken) {
        let context = Arc::new(Context {
            sink,
            stats: self.config.stats.clone(),
            lanes: Lanes::default(),
            bytes: AtomicUsize::new(0),
            max_bytes: self.config.max_bytes.max(MAX_PACKET),
            wanted: self.config.wanted.clone(),
        });
        let broker = format!("{}:{}", self.config.url.host, self.config.url.port);
        let mut pause = PAUSES.0;
        loop {
            let (client, event_loop) = AsyncClient::new(self.options.clone(), REQUESTS);
            let mut connection =
                Connection { context: &context, acks: &acks, broker: &broker, client, publisher: None, since: None };
            let ended = connection.run(event_loop, &shutdown).await;
            let held_since = connection.since;
            drop(connection);
            // What has not been started comes again: over the next connection, or from the agent.
            context.lanes.clear();
            let Some(reason) = ended else {
                return;
            };
            if held_since.is_some_and(|since| since.elapsed() > GOOD) {
                pause = PAUSES.0;
            }
            let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.5));
            tracing::warn!(%broker, again_in = ?jittered, "not connected to the broker: {reason}");
            if shutdown.run_until_cancelled(tokio::time::sleep(jittered)).await.is_none() {
                return;
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}

/// One connection to the broker.
struct Connection<'a> {
    context: &'a Arc<Context>,
    acks: &'a AckBoard,
    broker: &'a str,
    client: AsyncClient,
    publisher: Option<AbortHandle>,
    since: Option<Instant>,
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        if let Some(publisher) = self.publisher.take() {
            publisher.abort();
        }
    }
}

impl Connection<'_> {
    /// Runs to its end; says why it failed, `None` if it was shut down. Never waits for anything but the connection:
    /// requests to it are made by other tasks.
    async fn run(&mut self, mut event_loop: EventLoop, shutdown: &CancellationToken) -> Option<String> {
        let stats = self.context.stats.clone();
        let mut _connected = None;
        loop {
            let event = match shutdown.run_until_cancelled(event_loop.poll()).await {
                Some(event) => event,
                None => {
                    let _ = self.client.try_disconnect();
                    let _ = timeout(Duration::from_secs(1), async { while event_loop.poll().await.is_ok() {} }).await;
                    return None;
                }
            };
            match event {
                Ok(Event::Incoming(Packet::ConnAck(connack))) => {
                    tracing::info!(broker = self.broker, session = connack.session_present, "connected to the broker");
                    count(&stats.connections_opened);
                    _connected = Some(Gauge::new(&stats.connections));
                    self.since = Some(Instant::now());
                    if let Err(e) = self.begin() {
                        return Some(e);
                    }
                }
                Ok(Event::Incoming(Packet::SubAck(suback))) => {
                    let taken = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                    if !suback.return_codes.iter().all(taken) {
                        count(&stats.refused_topics);
                        return Some(format!("it refuses the hub's subscriptions: {:?}", suback.return_codes));
                    }
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    if let Err(e) = self.take(publish) {
                        return Some(e);
                    }
                }
                Ok(_) => {}
                Err(e) => return Some(e.to_string()),
            }
        }
    }

    /// Subscribes, whatever the broker remembers, and publishes all newest durable acks, then those that come.
    fn begin(&mut self) -> Result<(), String> {
        let (frames, status, raw) = (topics::ALL_FRAMES, topics::ALL_STATUS, topics::ALL_RAW);
        let filters = match &self.context.wanted {
            Wanted::All => vec![frames.to_owned(), status.to_owned(), raw.to_owned()],
            // What agents say of themselves is for everybody.
            Wanted::FramesInTurns(name) => vec![format!("$share/{name}/{frames}"), status.to_owned()],
            Wanted::Raw => vec![raw.to_owned()],
        };
        let filters = filters.into_iter().map(|filter| Filter::new(filter, QoS::AtLeastOnce));
        self.client.try_subscribe_many(filters).map_err(|e| e.to_string())?;
        if self.context.wanted == Wanted::Raw {
            return Ok(());
        }
        let (client, stats, mut changes) = (self.client.clone(), self.context.stats.clone(), self.acks.changes());
        let publisher = tokio::spawn(async move {
            loop {
                let (agent, ack) = changes.next().await;
                let payload = serde_json::to_vec(&ack).expect("an ack is plain JSON");
                // The newest word on an epoch is for whoever comes; an ack of a single frame is news only.
                let retain = ack.frame.is_none();
                if client.publish(topics::ack(&agent), QoS::AtLeastOnce, retain, payload).await.is_err() {
                    return;
                }
                count(&stats.acks_sent);
            }
        });
        self.publisher = Some(publisher.abort_handle());
        Ok(())
    }

    /// Puts a message into its lane.
    fn take(&self, publish: Publish) -> Result<(), String> {
        let context = self.context;
        let size = publish.size();
        if context.bytes.fetch_add(size, Relaxed) + size > context.max_bytes {
            context.bytes.fetch_sub(size, Relaxed);
            if publish.qos == QoS::AtMostOnce {
                count(&context.stats.dropped_messages);
                return Ok(());
            }
            // Messages of an earlier connection that are still worked on, or a broker that does not keep to the receive
            // maximum. Unacknowledged, it will come again.
            return Err("more was received unacknowledged than is allowed".to_owned());
        }
        let held = Held(context.clone(), size);
        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
        let origin = match Topic::parse(&topic) {
            Some(Topic::Frames(agent) | Topic::Status(agent) | Topic::Ack(agent)) => Origin::Agent(agent),
            Some(Topic::Raw(store)) => Origin::Store(store),
            None => Origin::Unknown,
        };
        let job = Job { publish, topic, client: self.client.clone(), _bytes: held };
        let worker = context.clone();
        context.lanes.push(origin, job, move |job| {
            let context = worker.clone();
            async move { context.work(job).await }
        });
        Ok(())
    }
}

impl Context {
    async fn work(&self, job: Job) {
        let Job { publish, topic, client, _bytes } = job;
        let payload = publish.payload.clone();
        match Topic::parse(&topic) {
            Some(Topic::Frames(agent)) => {
                self.stats.bytes.fetch_add(payload.len() as u64, Relaxed);
                self.sink.frame(&Sender { agent, stores: None, topic }, payload).await;
                count(&self.stats.frames);
            }
            Some(Topic::Raw(store)) => {
                self.sink.raw(store, payload).await;
                count(&self.stats.raw_documents);
            }
            // A retained status that was deleted has no payload: nothing is known of the agent any more.
            Some(Topic::Status(agent)) if payload.is_empty() => self.sink.status(&agent, None),
            Some(Topic::Status(agent)) => match serde_json::from_slice::<AgentStatus>(&payload) {
                Ok(status) => {
                    count(&self.stats.statuses);
                    // The last will says that it is not online.
                    self.sink.status(&agent, Some(status).filter(|status| status.online));
                }
                Err(e) => self.refuse(topic, "status", e.to_string(), payload).await,
            },
            Some(Topic::Ack(_)) | None => {
                let detail = format!("{:?} is no topic of onhand's", topic.chars().take(256).collect::<String>());
                self.refuse(topic, "topic", detail, payload).await;
            }
        }
        if publish.qos != QoS::AtMostOnce {
            // It fails if the connection is gone; then the message comes again, from the broker or from the agent.
            let _ = client.ack(&publish).await;
        }
    }

    async fn refuse(&self, source: String, reason: &'static str, detail: String, payload: Bytes) {
        count(&self.stats.refused_payloads);
        self.sink.refused(source, reason, detail, payload).await;
    }
}

fn tls_configuration(ca: Option<&[u8]>) -> Result<TlsConfiguration, rustls::Error> {
    let provider = rustls::crypto::ring::default_provider();
    let Some(mut pem) = ca else {
        // rumqttc asks for the process's provider; a second one that is linked would make the choice ambiguous.
        let _ = provider.install_default();
        return Ok(TlsConfiguration::default());
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut pem) {
        roots.add(certificate.map_err(|e| rustls::Error::General(format!("certificate authority: {e}")))?)?;
    }
    if roots.is_empty() {
        return Err(rustls::Error::General("certificate authority: the file holds no certificate".to_owned()));
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_broker_may_send_fits_into_the_memory_that_is_allowed() {
        let mut config = ExternalBrokerConfig::new("mqtt://h".parse().unwrap());
        let broker = ExternalBroker::new(config.clone()).unwrap();
        assert_eq!(broker.options.receive_maximum(), Some(1_000));
        config.max_bytes = 10 * MAX_PACKET + 1;
        let broker = ExternalBroker::new(config.clone()).unwrap();
        assert_eq!(broker.options.receive_maximum(), Some(10));
        config.url.tls = true;
        config.ca = Some(b"no certificate".to_vec());
        assert!(ExternalBroker::new(config).is_err());
    }
}
