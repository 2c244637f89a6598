//! What the gateway's tests share: a sink that remembers, and a client that speaks MQTT byte by byte.
#![allow(dead_code, reason = "each test binary uses its part of it")]
#![allow(unreachable_pub, reason = "a module of test binaries")]

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use onhand_common::topics::{AgentStatus, DurableAck};
use onhand_common::{AgentId, Epoch, Seq, StoreId};
use onhand_hub::gateway::{FrameSink, Sender};
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore, mpsc};

/// Long enough for anything that works.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a sink was given.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    Frame(String, Bytes),
    Raw(i32, Bytes),
    Status(String, Option<AgentStatus>),
    Refused(&'static str, Bytes),
}

/// A sink that remembers, and takes frames only while its gate has permits.
pub struct FakeSink {
    pub gate: Semaphore,
    /// The gate is for this agent alone.
    pub slow: Option<AgentId>,
    seen: mpsc::UnboundedSender<Seen>,
    order: Mutex<mpsc::UnboundedReceiver<Seen>>,
}

impl FakeSink {
    pub fn open() -> Arc<Self> {
        Self::gated(Semaphore::MAX_PERMITS)
    }

    pub fn gated(permits: usize) -> Arc<Self> {
        Arc::new(Self::new(permits, None))
    }

    pub fn slow_for(slow: &str) -> Arc<Self> {
        Arc::new(Self::new(0, Some(agent(slow))))
    }

    fn new(permits: usize, slow: Option<AgentId>) -> Self {
        let (seen, order) = mpsc::unbounded_channel();
        Self { gate: Semaphore::new(permits), slow, seen, order: Mutex::new(order) }
    }

    /// The next thing it was given, status aside.
    pub async fn next(&self) -> Seen {
        loop {
            match self.next_any().await {
                Seen::Status(..) => {}
                other => return other,
            }
        }
    }

    pub async fn next_status(&self) -> (String, Option<AgentStatus>) {
        loop {
            if let Seen::Status(agent, status) = self.next_any().await {
                return (agent, status);
            }
        }
    }

    async fn next_any(&self) -> Seen {
        let next = async { self.order.lock().await.recv().await.expect("the sink lives") };
        tokio::time::timeout(PATIENCE, next).await.expect("the sink is given something")
    }

    pub fn nothing_more(&self) -> bool {
        self.order.try_lock().unwrap().try_recv().is_err()
    }
}

impl FrameSink for FakeSink {
    fn frame(&self, from: &Sender, payload: Bytes) -> BoxFuture<'_, ()> {
        let (gated, agent) = (self.slow.as_ref().is_none_or(|slow| *slow == from.agent), from.agent.to_string());
        async move {
            if gated {
                self.gate.acquire().await.unwrap().forget();
            }
            self.seen.send(Seen::Frame(agent, payload)).unwrap();
        }
        .boxed()
    }

    fn raw(&self, store: StoreId, payload: Bytes) -> BoxFuture<'_, ()> {
        self.seen.send(Seen::Raw(store.get(), payload)).unwrap();
        std::future::ready(()).boxed()
    }

    fn status(&self, agent: &AgentId, status: Option<AgentStatus>) {
        // The last connections may end after the test.
        let _ = self.seen.send(Seen::Status(agent.to_string(), status));
    }

    fn refused(&self, _: String, reason: &'static str, _: String, payload: Bytes) -> BoxFuture<'_, ()> {
        self.seen.send(Seen::Refused(reason, payload)).unwrap();
        std::future::ready(()).boxed()
    }
}

pub fn agent(name: &str) -> AgentId {
    AgentId::new(name).unwrap()
}

pub fn ack(epoch: u64, seq: u64) -> DurableAck {
    DurableAck { epoch: Epoch(epoch), seq: Seq(seq), resend: false, frame: None }
}

pub fn frames_of(name: &str) -> String {
    onhand_common::topics::frames(&agent(name))
}

pub fn ack_topic_of(name: &str) -> String {
    onhand_common::topics::ack(&agent(name))
}

/// A bare connection.
pub struct Wire {
    io: TcpStream,
    buffer: BytesMut,
}

impl Wire {
    pub async fn open(address: SocketAddr) -> Self {
        Self { io: TcpStream::connect(address).await.unwrap(), buffer: BytesMut::new() }
    }

    /// A v5 client, connected.
    pub async fn v5(address: SocketAddr, id: &str) -> Self {
        let mut wire = Self::open(address).await;
        wire.send_v5(connect_v5(id, 60)).await;
        match wire.receive_v5().await {
            Some(v5::Packet::ConnAck(ack)) => assert_eq!(ack.code, v5::ConnectReturnCode::Success),
            other => panic!("{other:?}"),
        }
        wire
    }

    /// A v3 client, connected.
    pub async fn v3(address: SocketAddr, id: &str) -> Self {
        let mut wire = Self::open(address).await;
        wire.send_v3(v4::Packet::Connect(v4::Connect::new(id))).await;
        match wire.receive_v3().await {
            Some(v4::Packet::ConnAck(ack)) => assert_eq!(ack.code, v4::ConnectReturnCode::Success),
            other => panic!("{other:?}"),
        }
        wire
    }

    /// Sends bytes; that the other side is gone is for `receive` to say.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.io.write_all(bytes).await;
    }

    pub async fn send_v5(&mut self, packet: v5::Packet) {
        let mut out = BytesMut::new();
        packet.write(&mut out, None).unwrap();
        self.send(&out).await;
    }

    pub async fn send_v3(&mut self, packet: v4::Packet) {
        let mut out = BytesMut::new();
        packet.write(&mut out, usize::MAX).unwrap();
        self.send(&out).await;
    }

    /// The next packet; `None` once the connection is closed.
    pub async fn receive_v5(&mut self) -> Option<v5::Packet> {
        self.receive(|buffer| match v5::Packet::read(buffer, None) {
            Ok(packet) => Some(packet),
            Err(rumqttc::v5::mqttbytes::Error::InsufficientBytes(_)) => None,
            Err(e) => panic!("the endpoint sent what cannot be read: {e}"),
        })
        .await
    }

    /// The next packet; `None` once the connection is closed.
    pub async fn receive_v3(&mut self) -> Option<v4::Packet> {
        self.receive(|buffer| match v4::Packet::read(buffer, usize::MAX) {
            Ok(packet) => Some(packet),
            Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => None,
            Err(e) => panic!("the endpoint sent what cannot be read: {e}"),
        })
        .await
    }

    /// The reason of the DISCONNECT that must come now.
    pub async fn receive_reason(&mut self) -> v5::DisconnectReasonCode {
        match self.receive_v5().await {
            Some(v5::Packet::Disconnect(disconnect)) => disconnect.reason_code,
            other => panic!("{other:?}"),
        }
    }

    async fn receive<T>(&mut self, read: impl Fn(&mut BytesMut) -> Option<T>) -> Option<T> {
        loop {
            if let Some(packet) = read(&mut self.buffer) {
                return Some(packet);
            }
            let more = tokio::time::timeout(PATIENCE, self.io.read_buf(&mut self.buffer));
            match more.await.expect("something comes, or the connection is closed") {
                Ok(1..) => {}
                _ => return None,
            }
        }
    }
}

pub fn connect_v5(id: &str, keep_alive: u16) -> v5::Packet {
    let connect = v5::Connect { keep_alive, client_id: id.to_owned(), clean_start: true, properties: None };
    v5::Packet::Connect(connect, None, None)
}

pub fn publish_v5(topic: &str, id: u16, payload: impl Into<Bytes>) -> v5::Packet {
    let mut publish = v5::Publish::new(topic, rumqttc::v5::mqttbytes::QoS::AtLeastOnce, payload, None);
    publish.pkid = id;
    v5::Packet::Publish(publish)
}

pub fn subscribe_v5(topic: &str, id: u16) -> v5::Packet {
    let filter = v5::Filter::new(topic, rumqttc::v5::mqttbytes::QoS::AtLeastOnce);
    v5::Packet::Subscribe(v5::Subscribe { pkid: id, filters: vec![filter], properties: None })
}
