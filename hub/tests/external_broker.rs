//! The gateway behind a real Mosquitto, with the access control that production has.

mod support;

use onhand_common::topics;
use onhand_hub::gateway::{AckBoard, ExternalBroker, ExternalBrokerConfig, GatewayStats};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use support::*;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const ACCESS: &str = "\
user hub
topic read onhand/v1/agents/+/frames
topic read onhand/v1/agents/+/status
topic read onhand/v1/raw/+
topic write onhand/v1/agents/+/ack
pattern write onhand/v1/agents/%u/frames
pattern write onhand/v1/agents/%u/status
pattern read onhand/v1/agents/%u/ack
user device
topic write onhand/v1/raw/#
";

/// A Mosquitto of the test's own.
struct Mosquitto {
    folder: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
}

impl Mosquitto {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let passwords = folder.path().join("passwords");
        std::fs::write(&passwords, "").unwrap();
        for user in ["hub", "a", "b", "device"] {
            let status = Command::new("mosquitto_passwd").arg("-b").arg(&passwords).args([user, "secret"]).status();
            assert!(status.expect("mosquitto_passwd is missing: install the package mosquitto").success());
        }
        let access = folder.path().join("access");
        std::fs::write(&access, ACCESS).unwrap();
        let mut config = std::fs::File::create(folder.path().join("config")).unwrap();
        // Its own user would not be allowed to read this folder.
        let user = if is_root() { "user root\n" } else { "" };
        let (passwords, access) = (passwords.display(), access.display());
        write!(
            config,
            "{user}listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nacl_file {access}\n\
             max_inflight_messages 1000\nmax_queued_messages 0\n"
        )
        .unwrap();
        let mut broker = Self { folder, port, process: None };
        broker.run();
        broker
    }

    fn run(&mut self) {
        let mut command = Command::new(program());
        command.arg("-c").arg(self.folder.path().join("config")).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("mosquitto starts"));
    }

    fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}

fn program() -> PathBuf {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&search).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = folders.map(|folder| folder.join("mosquitto")).find(|program| program.is_file());
    found.expect("this test needs the broker Mosquitto: install the package mosquitto")
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id tells the user");
    id.stdout.trim_ascii() == b"0"
}

struct Hub {
    acks: AckBoard,
    stats: Arc<GatewayStats>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Hub {
    async fn start(broker: &Mosquitto, sink: Arc<FakeSink>) -> Self {
        let mut config =
            ExternalBrokerConfig::new(format!("mqtt://hub:secret@127.0.0.1:{}", broker.port).parse().unwrap());
        config.receive_maximum = 100;
        let (acks, stats, shutdown) = (AckBoard::new(), config.stats.clone(), CancellationToken::new());
        let client = ExternalBroker::new(config).unwrap();
        let running = tokio::spawn(client.run(sink, acks.clone(), shutdown.clone()));
        let hub = Self { acks, stats, shutdown, running };
        hub.connected(1).await;
        hub
    }

    async fn connected(&self, times: u64) {
        for _ in 0..2_000 {
            if self.stats.connections_opened.load(Relaxed) >= times && self.stats.connections.load(Relaxed) == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the hub did not connect");
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.running).await.unwrap().unwrap();
    }
}

/// A client whose events are polled for it; what it is sent comes out of the channel.
struct Client {
    client: AsyncClient,
    received: mpsc::UnboundedReceiver<Publish>,
    polling: JoinHandle<()>,
}

impl Client {
    fn connect(broker: &Mosquitto, user: &str) -> Self {
        let mut options = MqttOptions::new(format!("client-{user}"), "127.0.0.1", broker.port);
        options.set_credentials(user, "secret").set_max_packet_size(Some(1 << 20));
        let (client, mut events) = AsyncClient::new(options, 10);
        let (sender, received) = mpsc::unbounded_channel();
        let polling = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::Publish(publish))) => drop(sender.send(publish)),
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        Self { client, received, polling }
    }

    async fn publish(&self, topic: impl Into<String>, payload: impl Into<bytes::Bytes>) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
    }

    async fn received(&mut self) -> Publish {
        tokio::time::timeout(PATIENCE, self.received.recv()).await.expect("a message comes").unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.polling.abort();
    }
}

fn frame(agent: &str, n: u32) -> Seen {
    Seen::Frame(agent.to_owned(), n.to_be_bytes().to_vec().into())
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_and_acks_make_the_round_trip_and_survive_the_brokers_death() {
    let mut broker = Mosquitto::start();
    let sink = FakeSink::open();
    let hub = Hub::start(&broker, sink.clone()).await;
    let mut a = Client::connect(&broker, "a");
    a.client.subscribe(ack_topic_of("a"), QoS::AtLeastOnce).await.unwrap();
    for n in 0..500_u32 {
        a.publish(frames_of("a"), n.to_be_bytes().to_vec()).await;
    }
    for n in 0..500 {
        assert_eq!(sink.next().await, frame("a", n));
    }
    let large = vec![9; 256 * 1024];
    a.publish(frames_of("a"), large.clone()).await;
    assert_eq!(sink.next().await, Seen::Frame("a".to_owned(), large.into()));
    a.publish(topics::status(&agent("a")), "no status").await;
    assert_eq!(sink.next().await, Seen::Refused("status", "no status".into()));
    let device = Client::connect(&broker, "device");
    device.publish("onhand/v1/raw/4", "{}").await;
    assert_eq!(sink.next().await, Seen::Raw(4, "{}".into()));
    device.publish("onhand/v1/raw/x", "{}").await;
    assert_eq!(sink.next().await, Seen::Refused("topic", "{}".into()));

    hub.acks.publish(&agent("a"), ack(1, 500));
    let publish = a.received().await;
    assert_eq!(serde_json::from_slice::<topics::DurableAck>(&publish.payload).unwrap(), ack(1, 500));

    // The broker forgets everything, retained acks too; the hub publishes them again.
    drop(a);
    broker.kill();
    broker.run();
    hub.connected(2).await;
    let mut a = Client::connect(&broker, "a");
    a.client.subscribe(ack_topic_of("a"), QoS::AtLeastOnce).await.unwrap();
    let publish = a.received().await;
    assert_eq!(serde_json::from_slice::<topics::DurableAck>(&publish.payload).unwrap(), ack(1, 500));
    a.publish(frames_of("a"), 7_u32.to_be_bytes().to_vec()).await;
    assert_eq!(sink.next().await, frame("a", 7));
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_sink_has_not_taken_comes_again() {
    let broker = Mosquitto::start();
    let stuck = FakeSink::gated(2);
    let hub = Hub::start(&broker, stuck.clone()).await;
    let a = Client::connect(&broker, "a");
    for n in 0..10_u32 {
        a.publish(frames_of("a"), n.to_be_bytes().to_vec()).await;
    }
    assert_eq!(stuck.next().await, frame("a", 0));
    assert_eq!(stuck.next().await, frame("a", 1));
    // Another message's way through the broker and back: the acknowledgements of those two are there by then.
    a.publish(topics::status(&agent("a")), "no status").await;
    while hub.stats.frames.load(Relaxed) < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    hub.stop().await;
    // While the hub is away, the broker keeps what comes.
    a.publish(frames_of("a"), 10_u32.to_be_bytes().to_vec()).await;
    let sink = FakeSink::open();
    let hub = Hub::start(&broker, sink.clone()).await;
    let mut seen = vec![];
    while seen.last() != Some(&frame("a", 10)) {
        match sink.next().await {
            frame @ Seen::Frame(..) => seen.push(frame),
            other => assert_eq!(other, Seen::Refused("status", "no status".into())),
        }
    }
    // An acknowledgement that was still on its way when the hub stopped may have been lost: then its frame comes twice.
    let expected: Vec<_> = (0..=10).map(|n| frame("a", n)).collect();
    assert!(expected.ends_with(&seen) && seen.len() >= 9, "{seen:?}");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_agent_does_not_hold_up_the_others() {
    let broker = Mosquitto::start();
    let sink = FakeSink::slow_for("a");
    let hub = Hub::start(&broker, sink.clone()).await;
    let (a, b) = (Client::connect(&broker, "a"), Client::connect(&broker, "b"));
    for n in 0..50_u32 {
        a.publish(frames_of("a"), n.to_be_bytes().to_vec()).await;
    }
    for n in 0..500_u32 {
        b.publish(frames_of("b"), n.to_be_bytes().to_vec()).await;
    }
    for n in 0..500 {
        assert_eq!(sink.next().await, frame("b", n));
    }
    sink.gate.add_permits(50);
    for n in 0..50 {
        assert_eq!(sink.next().await, frame("a", n));
    }
    hub.stop().await;
}
