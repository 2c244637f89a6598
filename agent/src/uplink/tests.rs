//! The uplink against a hub that speaks just enough MQTT, and does as it is told.

use super::*;
use crate::hub_url::HubUrl;
use crate::outbox::test_support::{frame, outbox};
use bytes::BytesMut;
use onhand_common::frame::Frame;
use onhand_common::topics::AckedFrame;
use onhand_common::{Epoch, Seq};
use rumqttc::v5::mqttbytes::v5::{ConnAck, ConnectReturnCode, PubAck, SubAck};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const LIMITS: Limits = Limits { max_frames: 4, max_bytes: 1 << 20, ack_timeout: Duration::from_secs(1) };

/// One connection as the hub sees it.
struct HubSide {
    socket: TcpStream,
    buffer: BytesMut,
    statuses: Vec<serde_json::Value>,
}

impl HubSide {
    /// Accepts the agent and answers its CONNECT and SUBSCRIBE.
    async fn accept(listener: &TcpListener) -> Self {
        let (socket, _) = listener.accept().await.unwrap();
        let mut hub = Self { socket, buffer: BytesMut::new(), statuses: Vec::new() };
        loop {
            match hub.packet().await.expect("the agent goes on") {
                Packet::Connect(..) => {
                    let ok = ConnAck { session_present: false, code: ConnectReturnCode::Success, properties: None };
                    hub.send(Packet::ConnAck(ok)).await;
                }
                Packet::Subscribe(subscribe) => {
                    assert_eq!(subscribe.filters[0].path, "onhand/v1/agents/a-1/ack");
                    let code = SubscribeReasonCode::Success(QoS::AtLeastOnce);
                    let ok = SubAck { pkid: subscribe.pkid, return_codes: vec![code], properties: None };
                    hub.send(Packet::SubAck(ok)).await;
                    return hub;
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    async fn packet(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.buffer, Some(1 << 20)) {
                Ok(packet) => return Some(packet),
                Err(rumqttc::v5::mqttbytes::Error::InsufficientBytes(_)) => {}
                // A DISCONNECT without properties, which this parser cannot read.
                Err(rumqttc::v5::mqttbytes::Error::PayloadRequired) => return None,
                Err(error) => panic!("{error}"),
            }
            if self.socket.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn send(&mut self, packet: Packet) {
        let mut out = BytesMut::new();
        packet.write(&mut out, None).unwrap();
        // An agent that stops does not wait for the answer to its goodbye.
        let _ = self.socket.write_all(&out).await;
    }

    /// The next frame, acknowledged only as far as MQTT goes; `None` when the agent has gone.
    async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Packet::Publish(publish) = self.packet().await? {
                self.send(Packet::PubAck(PubAck::new(publish.pkid, None))).await;
                if publish.topic.ends_with(b"/frames") {
                    return Some(Frame::decode(&publish.payload).unwrap());
                }
                assert!(publish.retain, "a status is retained");
                self.statuses.push(serde_json::from_slice(&publish.payload).unwrap());
            }
        }
    }

    async fn frames(&mut self, count: usize) -> Vec<u64> {
        let mut firsts = Vec::new();
        while firsts.len() < count {
            firsts.push(self.frame().await.unwrap().first_seq.0);
        }
        firsts
    }

    async fn ack(&mut self, epoch: Epoch, seq: u64, resend: bool) {
        self.say(DurableAck { epoch, seq: Seq(seq), resend, frame: None }).await;
    }

    async fn ack_frame(&mut self, epoch: Epoch, first: u64, last: u64) {
        let frame = Some(AckedFrame { first: Seq(first), last: Seq(last) });
        self.say(DurableAck { epoch, seq: Seq(0), resend: false, frame }).await;
    }

    async fn say(&mut self, ack: DurableAck) {
        let ack = serde_json::to_vec(&ack).unwrap();
        let publish = Publish::new("onhand/v1/agents/a-1/ack", QoS::AtMostOnce, ack, None);
        self.send(Packet::Publish(publish)).await;
    }
}

struct Sandbox {
    _dir: tempfile::TempDir,
    outbox: Arc<Outbox>,
    metrics: Arc<Metrics>,
    listener: TcpListener,
    stop: watch::Sender<bool>,
    running: tokio::task::JoinHandle<()>,
}

impl Sandbox {
    /// An outbox with `frames` frames of two events, and an uplink that runs.
    async fn start(frames: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Arc::new(outbox(dir.path(), 1 << 30));
        for n in 0..frames {
            outbox.append(&[frame(&n.to_string(), 2)]).unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::default());
        let reporter = Reporter {
            agent_id: AgentId::new("a-1").unwrap(),
            stores: Vec::new().into(),
            outbox: Arc::clone(&outbox),
            metrics: Arc::clone(&metrics),
        };
        let url = HubUrl::parse(&format!("mqtt://{address}")).unwrap();
        let config = HubConfig { url, login: None, tls: None, max_in_flight: 4 };
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(run(config, LIMITS, reporter, stopped));
        Self { _dir: dir, outbox, metrics, listener, stop, running }
    }

    /// Waits until the outbox holds so many events.
    async fn until_backlog(&self, events: u64) {
        while self.outbox.backlog().events != events {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn frames_go_within_the_window_and_only_durable_acks_remove_them() {
    let s = Sandbox::start(6).await;
    let epoch = s.outbox.epoch();
    let mut hub = HubSide::accept(&s.listener).await;
    assert_eq!(hub.frames(4).await, [1, 3, 5, 7]);
    assert_eq!(s.outbox.backlog().events, 12, "MQTT's own acknowledgement removes nothing");
    hub.ack(epoch, 4, false).await;
    let next = hub.frame().await.unwrap();
    assert_eq!((next.first_seq, next.acked_seq), (Seq(9), Seq(4)), "the window moved on, and the frame says how far");
    assert_eq!(hub.frames(1).await, [11]);
    hub.ack(epoch, 12, false).await;
    s.until_backlog(0).await;
    s.outbox.append(&[frame("new", 1)]).unwrap();
    assert_eq!(hub.frames(1).await, [13], "new frames go at once");
    assert_eq!(hub.statuses[0]["online"], true);
    s.stop.send(true).unwrap();
    assert!(hub.frame().await.is_none());
    assert_eq!(hub.statuses.last().unwrap()["online"], false, "it says goodbye");
    s.running.await.unwrap();
}

#[tokio::test]
async fn after_a_reconnect_everything_not_durable_is_sent_again() {
    let s = Sandbox::start(3).await;
    let epoch = s.outbox.epoch();
    let mut hub = HubSide::accept(&s.listener).await;
    assert_eq!(hub.frames(3).await, [1, 3, 5]);
    hub.ack(epoch, 2, false).await;
    s.until_backlog(4).await;
    drop(hub);
    let mut hub = HubSide::accept(&s.listener).await;
    assert_eq!(hub.frames(2).await, [3, 5]);
    assert_eq!(s.metrics.connections.get(), 2);
}

#[tokio::test]
async fn a_hub_that_misses_something_gets_it_again() {
    let s = Sandbox::start(4).await;
    let epoch = s.outbox.epoch();
    let mut hub = HubSide::accept(&s.listener).await;
    assert_eq!(hub.frames(4).await, [1, 3, 5, 7]);
    // One wish for each frame behind the gap.
    for _ in 0..3 {
        hub.ack(epoch, 2, true).await;
    }
    assert_eq!(hub.frames(3).await, [3, 5, 7]);
    hub.ack(epoch, 8, false).await;
    s.until_backlog(0).await;
    assert_eq!(s.metrics.frames_sent.get(), 7);
}

#[tokio::test]
async fn frames_acknowledged_one_by_one_are_not_sent_again_and_a_hole_can_be_got_over() {
    let s = Sandbox::start(6).await;
    let epoch = s.outbox.epoch();
    let mut hub = HubSide::accept(&s.listener).await;
    assert_eq!(hub.frames(4).await, [1, 3, 5, 7]);
    hub.ack_frame(epoch, 5, 6).await;
    let next = hub.frame().await.unwrap();
    assert_eq!(
        (next.first_seq, next.acked_seq),
        (Seq(9), Seq(0)),
        "the window moved on, but there is no way past the hole"
    );
    hub.ack_frame(epoch, 1, 2).await;
    let next = hub.frame().await.unwrap();
    assert_eq!((next.first_seq, next.acked_seq), (Seq(11), Seq(2)));
    s.until_backlog(8).await;
    drop(hub);
    let mut hub = HubSide::accept(&s.listener).await;
    assert_eq!(hub.frames(4).await, [3, 7, 9, 11], "only what is still in the outbox");
    // A hub that wants every number in its place has 3 and 4, and waits for 5 and 6, which are durable elsewhere.
    hub.ack(epoch, 4, true).await;
    let again = hub.frame().await.unwrap();
    assert!(again.epoch > epoch && again.first_seq == Seq(1));
    assert_eq!(hub.frames(2).await, [3, 5]);
    assert!(!s.outbox.rolled_back());
    hub.ack(again.epoch, 6, false).await;
    s.until_backlog(0).await;
}

#[tokio::test]
async fn when_durable_acks_stay_away_the_connection_is_renewed() {
    let s = Sandbox::start(1).await;
    let mut deaf = HubSide::accept(&s.listener).await;
    assert_eq!(deaf.frames(1).await, [1]);
    let mut hub = HubSide::accept(&s.listener).await;
    assert_eq!(hub.frames(1).await, [1]);
    assert_eq!(s.metrics.watchdog.get(), 1);
    hub.ack(s.outbox.epoch(), 2, false).await;
    s.until_backlog(0).await;
}

#[tokio::test]
async fn a_disk_that_was_set_back_is_said_and_its_events_go_in_a_new_epoch() {
    let s = Sandbox::start(2).await;
    let old = s.outbox.epoch();
    let mut hub = HubSide::accept(&s.listener).await;
    hub.ack(old, 100, false).await;
    let again = loop {
        let frame = hub.frame().await.unwrap();
        if frame.epoch != old {
            break frame;
        }
    };
    assert!(again.epoch > old && again.first_seq == Seq(1));
    assert!(s.outbox.rolled_back());
    hub.frame().await.unwrap();
    hub.ack(again.epoch, 4, false).await;
    s.until_backlog(0).await;
}

#[tokio::test]
async fn an_agent_whose_id_another_one_uses_says_so() {
    let s = Sandbox::start(1).await;
    let mut hub = HubSide::accept(&s.listener).await;
    // A DISCONNECT with this reason and no properties; what this library writes, it cannot read itself.
    hub.socket.write_all(&[0xE0, 2, DisconnectReasonCode::SessionTakenOver as u8, 0]).await.unwrap();
    while s.metrics.connected.load(Ordering::Relaxed) || s.metrics.connection_error.lock().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(s.metrics.connection_error.lock().as_deref(), Some("another agent uses the id a-1"));
    s.stop.send(true).unwrap();
    s.running.await.unwrap();
}

#[tokio::test]
async fn it_stops_at_once_while_the_hub_is_away() {
    let s = Sandbox::start(1).await;
    drop(s.listener);
    s.stop.send(true).unwrap();
    s.running.await.unwrap();
}

#[test]
fn what_the_client_holds_is_bounded_by_number_and_bytes() {
    let mut held = Held::default();
    assert!(held.has_room(2 * MAX_HELD_BYTES), "one frame may always go");
    for _ in 0..4 {
        held.add(MAX_HELD_BYTES / 4);
        held.left();
    }
    assert!(held.has_room(0) && !held.has_room(1), "what has left is held until its PUBACK");
    held.acknowledged();
    assert!(held.has_room(MAX_HELD_BYTES / 4) && !held.has_room(MAX_HELD_BYTES / 4 + 1));
    // A status is small, but it counts.
    (0..MAX_QUEUED).for_each(|_| held.add(0));
    assert!(!held.has_room(0));
    (0..MAX_QUEUED).for_each(|_| held.left());
    (0..MAX_QUEUED + 3).for_each(|_| held.acknowledged());
    // PUBACKs of nothing do no harm.
    held.acknowledged();
    assert_eq!((held.queued, held.sizes.len(), held.bytes), (0, 0, 0));
}
