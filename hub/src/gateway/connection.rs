//! One client's connection to the own endpoint.
//!
//! Three loops share a [`Session`]: the reader takes packets off the socket and sorts them, the worker (a task of its
//! own, so that a call of the sink survives the connection) hands messages to the sink, the writer sends answers and
//! durable acks. The reader does not wait for the worker as long as the client keeps to its limits, so a PINGREQ is
//! answered however long the sink takes.

use super::agents_file::AgentGrant;
use super::codec::{self, Malformed, Packet, Publish, Qos, Version};
use super::embedded_broker::Context;
use super::handshake::{Admitted, NotAdmitted, admit};
use super::interface::Sender;
use super::limits::MAX_PACKET;
use super::outgoing::{Outgoing, WriteEnd};
use super::stats::{GatewayStats, Gauge, count};
use super::worker::{self, Job, Queued};
use bytes::BytesMut;
use onhand_common::StoreId;
use onhand_common::topics::{self, Topic};
use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// Room that a read is given: little for a client that sends little, more for one that fills it.
const READ_SIZES: std::ops::RangeInclusive<usize> = 4 * 1024..=128 * 1024;
/// How long, and for how many bytes, a connection that the hub ends is read on, so that the reason reaches the client
/// before the reset that unread bytes cause.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// What the loops of one connection share.
pub(super) struct Session {
    pub(super) version: Version,
    pub(super) grant: AgentGrant,
    pub(super) sender: Sender,
    pub(super) status_topic: String,
    pub(super) outgoing: Outgoing,
    client_id: String,
    ack_topic: String,
    in_flight: AtomicUsize,
    in_flight_bytes: AtomicUsize,
    released: Notify,
    denial_was_logged: AtomicBool,
    foreign_stores_were_logged: AtomicBool,
}

impl Session {
    /// A message of `size` bytes is not in flight any more.
    pub(super) fn release(&self, size: usize) {
        self.in_flight.fetch_sub(1, Relaxed);
        self.in_flight_bytes.fetch_sub(size, Relaxed);
        self.released.notify_one();
    }

    /// The agent serves these stores, as it says.
    pub(super) fn note_stores(&self, stores: &[StoreId]) {
        let foreign: Vec<i32> = stores.iter().filter(|s| !self.grant.allows(**s)).map(|s| s.get()).collect();
        if !foreign.is_empty() && !self.foreign_stores_were_logged.swap(true, Relaxed) {
            tracing::warn!(
                agent = %self.grant.agent, stores = ?foreign,
                "the agent serves stores that the agents file does not grant it: their events go into quarantine"
            );
        }
    }
}

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// The client went, with or without saying so.
    Gone,
    TakenOver,
    ShuttingDown,
    KeepAlive,
    Malformed(String),
    TooLarge(usize),
    OverLimit,
    ExactlyOnce,
    TopicAlias,
    Forbidden,
    Stalled,
    SlowReader,
    /// The worker is gone: the sink panicked.
    Failed,
}

impl End {
    /// What a v5 client is told; `None`: nothing.
    fn reason(&self) -> Option<DisconnectReasonCode> {
        use DisconnectReasonCode::*;
        match self {
            Self::Gone | Self::SlowReader => None,
            Self::TakenOver => Some(SessionTakenOver),
            Self::ShuttingDown => Some(ServerShuttingDown),
            Self::KeepAlive => Some(KeepAliveTimeout),
            Self::Malformed(_) => Some(MalformedPacket),
            Self::TooLarge(_) => Some(PacketTooLarge),
            Self::OverLimit => Some(ReceiveMaximumExceeded),
            Self::ExactlyOnce => Some(QoSNotSupported),
            Self::TopicAlias => Some(TopicAliasInvalid),
            Self::Forbidden => Some(NotAuthorized),
            Self::Stalled => Some(ServerBusy),
            Self::Failed => Some(UnspecifiedError),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Gone => "the client went".to_owned(),
            Self::TakenOver => "the same client connected again".to_owned(),
            Self::ShuttingDown => "the hub shuts down".to_owned(),
            Self::KeepAlive => "nothing came for 1.5 times the keep-alive".to_owned(),
            Self::Malformed(detail) => format!("it sent what is not MQTT: {detail}"),
            Self::TooLarge(size) => format!("a packet of {size} bytes, at most {MAX_PACKET} are taken"),
            Self::OverLimit => "it has more unacknowledged messages in flight than it may".to_owned(),
            Self::ExactlyOnce => "it published with QoS 2".to_owned(),
            Self::TopicAlias => "it used a topic alias".to_owned(),
            Self::Forbidden => "it published to a topic that is not its own".to_owned(),
            Self::Stalled => "the hub did not take its messages in time".to_owned(),
            Self::SlowReader => "it did not read what it was sent".to_owned(),
            Self::Failed => "the hub failed to take a message".to_owned(),
        }
    }

    fn count(&self, stats: &GatewayStats) {
        match self {
            // What is counted elsewhere, and what is nobody's fault.
            Self::Gone | Self::ShuttingDown | Self::TakenOver | Self::Forbidden | Self::Failed => {}
            Self::KeepAlive => count(&stats.keep_alive_timeouts),
            Self::Malformed(_) | Self::ExactlyOnce | Self::TopicAlias => count(&stats.protocol_errors),
            Self::TooLarge(_) => count(&stats.oversized_packets),
            Self::OverLimit => count(&stats.over_limit),
            Self::Stalled => count(&stats.shed),
            Self::SlowReader => count(&stats.slow_readers),
        }
    }
}

/// Serves one connection to its end. `slot` is its part of the cap on connections.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, context: Arc<Context>, slot: OwnedSemaphorePermit) {
    // Small answers must not wait for the delayed acknowledgement of the ones before.
    let _ = stream.set_nodelay(true);
    let deadline = Instant::now() + context.limits.handshake;
    match &context.tls {
        None => serve_over(stream, peer, deadline, context, slot).await,
        Some(tls) => match timeout_at(deadline, tls.accept(stream)).await {
            Ok(Ok(stream)) => serve_over(stream, peer, deadline, context, slot).await,
            _ => count(&context.stats.handshakes_failed),
        },
    }
}

async fn serve_over(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    deadline: Instant,
    context: Arc<Context>,
    slot: OwnedSemaphorePermit,
) {
    let shutdown = context.shutdown.clone();
    match shutdown.run_until_cancelled(timeout_at(deadline, admit(&mut io, peer, &context))).await {
        Some(Ok(Ok(admitted))) => run(io, peer, admitted, context, slot).await,
        Some(Ok(Err(NotAdmitted::Answered))) => {
            tracing::debug!(%peer, "client was refused");
            linger(&mut io).await;
        }
        Some(Ok(Err(NotAdmitted::Silent)) | Err(_)) => count(&context.stats.handshakes_failed),
        None => {}
    }
}

async fn run(
    io: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    admitted: Admitted,
    context: Arc<Context>,
    slot: OwnedSemaphorePermit,
) {
    let Admitted { connect, grant, answer, rest } = admitted;
    let (agent, version) = (grant.agent.clone(), connect.version);
    let ack_topic = topics::ack(&agent);
    let session = Arc::new(Session {
        version,
        sender: Sender { agent: agent.clone(), stores: grant.stores.clone(), topic: topics::frames(&agent) },
        grant,
        status_topic: topics::status(&agent),
        outgoing: Outgoing::new(version, ack_topic.clone(), connect.receive_maximum, connect.max_packet),
        client_id: connect.client_id,
        ack_topic,
        in_flight: AtomicUsize::new(0),
        in_flight_bytes: AtomicUsize::new(0),
        released: Notify::new(),
        denial_was_logged: AtomicBool::new(false),
        foreign_stores_were_logged: AtomicBool::new(false),
    });
    let gauge = Gauge::new(&context.stats.connections);
    let (registration, taken_over, took_over) = context.sessions.enter(&agent, &session.client_id, &context.sink);
    if took_over {
        count(&context.stats.takeovers);
        if context.takeovers_said.may_say(agent.as_str(), Instant::now().into_std()) {
            tracing::warn!(
                %peer, %agent, client = ?session.client_id,
                "took an open session over: its connection was lost, or two agents use one id (logged once a minute)"
            );
        }
    }
    tracing::debug!(%peer, %agent, client = ?session.client_id, ?version, "connected");

    session.outgoing.put(|out| out.unsplit(answer));
    let ended = CancellationToken::new();
    let (jobs, queue) = mpsc::channel(usize::from(context.limits.unacknowledged));
    let lane = context.sessions.lane(&agent);
    let mut worker = tokio::spawn(worker::work(queue, session.clone(), context.clone(), lane, ended.clone()));
    let (mut input, mut output) = tokio::io::split(io);
    let end = {
        let writer = session.outgoing.write_to(&mut output, context.limits.write, &context.stats);
        tokio::pin!(writer);
        let mut writing = true;
        let reader = Reader { session: &session, context: &context, jobs };
        let end = tokio::select! {
            end = reader.read_from(&mut input, rest, connect.keep_alive) => end,
            end = &mut writer => {
                writing = false;
                if end == WriteEnd::Slow { End::SlowReader } else { End::Gone }
            }
            _ = taken_over => End::TakenOver,
            () = context.shutdown.cancelled() => End::ShuttingDown,
            _ = &mut worker => End::Failed,
        };
        if writing && !matches!(end, End::Gone) {
            if let (Version::V5, Some(reason)) = (version, end.reason()) {
                session.outgoing.put(|out| codec::write_disconnect(out, reason));
            }
            session.outgoing.finish();
            let _ = timeout(LINGER, writer).await;
        }
        end
    };
    ended.cancel();
    drop(registration);
    end.count(&context.stats);
    match &end {
        End::Gone | End::ShuttingDown | End::TakenOver => {
            tracing::debug!(%peer, %agent, reason = end.describe(), "disconnected");
        }
        _ => tracing::warn!(%peer, %agent, client = ?session.client_id, "connection ended: {}", end.describe()),
    }
    if !matches!(end, End::Gone) {
        linger(&mut input.unsplit(output)).await;
    }
    drop((gauge, slot));
    if !worker.is_finished() {
        let _ = worker.await;
    }
}

/// Closes the writing side, and reads on for a moment.
async fn linger(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let drain = async {
        let _ = io.shutdown().await;
        let mut scratch = vec![0; 8 * 1024];
        let mut left = LINGER_BYTES;
        while let Ok(read @ 1..) = io.read(&mut scratch).await {
            left = left.saturating_sub(read);
            if left == 0 {
                break;
            }
        }
    };
    let _ = timeout(LINGER, drain).await;
}

struct Reader<'a> {
    session: &'a Session,
    context: &'a Context,
    jobs: mpsc::Sender<Queued>,
}

impl Reader<'_> {
    async fn read_from(&self, io: &mut (impl AsyncRead + Unpin), mut buffer: BytesMut, keep_alive: u16) -> End {
        // One and a half times the keep-alive, as both versions demand; 0 turns it off.
        let patience = (keep_alive > 0).then(|| Duration::from_millis(u64::from(keep_alive) * 1_500));
        let mut read_size = *READ_SIZES.start();
        loop {
            loop {
                match codec::read(&mut buffer, self.session.version, MAX_PACKET) {
                    Ok(Some(packet)) => {
                        if let Err(end) = self.take(packet).await {
                            return end;
                        }
                    }
                    Ok(None) => break,
                    Err(Malformed::TooLarge(size)) => return End::TooLarge(size),
                    Err(Malformed::Packet(detail)) => return End::Malformed(detail),
                    Err(Malformed::ProtocolLevel(level)) => return End::Malformed(format!("protocol level {level}")),
                }
            }
            self.session.outgoing.room().await;
            if buffer.capacity() - buffer.len() < read_size / 4 {
                buffer.reserve(read_size);
            }
            let room = buffer.capacity() - buffer.len();
            let read = match patience {
                Some(patience) => match timeout(patience, io.read_buf(&mut buffer)).await {
                    Ok(read) => read,
                    Err(_) => return End::KeepAlive,
                },
                None => io.read_buf(&mut buffer).await,
            };
            match read {
                Ok(0) | Err(_) => return End::Gone,
                Ok(read) if read == room => read_size = (read_size * 2).min(*READ_SIZES.end()),
                Ok(_) => {}
            }
        }
    }

    async fn take(&self, packet: Packet) -> Result<(), End> {
        let Self { session, context, .. } = self;
        match packet {
            Packet::Publish(publish) => self.publish(publish).await?,
            Packet::PubAck(id) => session.outgoing.acknowledged(id),
            Packet::PingReq => session.outgoing.put(codec::write_pingresp),
            Packet::Disconnect => return Err(End::Gone),
            Packet::Subscribe { id, filters } => {
                let mut change = None;
                let grant = |(filter, qos): &(String, Qos)| {
                    if *filter == session.ack_topic {
                        change = Some(Some((context.acks.subscribe(session.grant.agent.clone()), *qos)));
                        return Some(*qos);
                    }
                    self.deny("subscription", filter.as_bytes());
                    None
                };
                let granted: Vec<_> = filters.iter().map(grant).collect();
                session.outgoing.put_subscription(change, |out| {
                    codec::write_suback(out, session.version, id, &granted);
                });
            }
            Packet::Unsubscribe { id, filters } => {
                let existed: Vec<_> = filters.iter().map(|filter| *filter == session.ack_topic).collect();
                let change = existed.contains(&true).then_some(None);
                session.outgoing.put_subscription(change, |out| {
                    codec::write_unsuback(out, session.version, id, &existed);
                });
            }
        }
        Ok(())
    }

    async fn publish(&self, publish: Publish) -> Result<(), End> {
        let Self { session, jobs, .. } = self;
        let Publish { id, exactly_once, topic, payload, size } = publish;
        if exactly_once {
            return Err(End::ExactlyOnce);
        }
        if topic.is_empty() {
            return Err(End::TopicAlias);
        }
        let job = if *topic == *session.sender.topic.as_bytes() {
            Job::Frame(payload)
        } else if *topic == *session.status_topic.as_bytes() {
            Job::Status(payload)
        } else {
            match std::str::from_utf8(&topic).ok().and_then(Topic::parse) {
                Some(Topic::Raw(store)) if session.grant.allows(store) => Job::Raw(store, payload),
                _ => {
                    self.deny("publish", &topic);
                    // A v3 client cannot be told; answered as if all were well, it would never learn.
                    if session.version == Version::V3 {
                        return Err(End::Forbidden);
                    }
                    Job::Denied
                }
            }
        };
        self.wait_for_room(id.is_none(), size).await?;
        let budget = self.budget(size).await?;
        session.in_flight.fetch_add(1, Relaxed);
        session.in_flight_bytes.fetch_add(size, Relaxed);
        // There is room for as many as may be in flight, so this fails only if the worker is gone.
        jobs.try_send(Queued { job, id, size, _budget: budget }).map_err(|_| End::Failed)?;
        Ok(())
    }

    /// A client with QoS 1 knows what is in flight and must keep to its limits. With QoS 0 it cannot know, and waits.
    async fn wait_for_room(&self, may_wait: bool, size: usize) -> Result<(), End> {
        let Self { session, context, .. } = self;
        let limits = &context.limits;
        let has_room = || {
            session.in_flight.load(Relaxed) < usize::from(limits.unacknowledged)
                && session.in_flight_bytes.load(Relaxed) + size <= limits.unacknowledged_bytes.max(size)
        };
        if has_room() {
            return Ok(());
        }
        if !may_wait {
            return Err(End::OverLimit);
        }
        let room = async {
            while !has_room() {
                session.released.notified().await;
            }
        };
        timeout(limits.stall, room).await.map_err(|_| End::Stalled)
    }

    /// This message's part of what all connections may have in flight. Everyone waits in one line for it, so a hub that
    /// takes anything at all serves everyone in turn.
    async fn budget(&self, size: usize) -> Result<OwnedSemaphorePermit, End> {
        let budget = &self.context.budget;
        let size = size as u32;
        match budget.clone().try_acquire_many_owned(size) {
            Ok(permit) => Ok(permit),
            Err(_) => match timeout(self.context.limits.stall, budget.clone().acquire_many_owned(size)).await {
                Ok(Ok(permit)) => Ok(permit),
                _ => Err(End::Stalled),
            },
        }
    }

    fn deny(&self, what: &str, topic: &[u8]) {
        let Self { session, context, .. } = self;
        count(&context.stats.refused_topics);
        if !session.denial_was_logged.swap(true, Relaxed) {
            let (agent, client) = (&session.grant.agent, &session.client_id);
            let topic = String::from_utf8_lossy(&topic[..topic.len().min(128)]);
            tracing::warn!(%agent, ?client, ?topic, "{what} to a topic that is not the client's own; further ones are counted only");
        }
    }
}
