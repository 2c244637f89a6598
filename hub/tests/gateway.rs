//! The hub's own MQTT endpoint, from outside.

mod support;

use bytes::Bytes;
use onhand_common::topics::{self, AgentStatus};
use onhand_common::{Epoch, StoreId};
use onhand_hub::gateway::{
    AckBoard, Agents, BrokerConfig, EmbeddedBroker, GatewayStats, Limits, MAX_PACKET, hash_password,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use support::*;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use v5::DisconnectReasonCode as Reason;

struct Endpoint {
    address: SocketAddr,
    sink: Arc<FakeSink>,
    acks: AckBoard,
    stats: Arc<GatewayStats>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

async fn start(config: BrokerConfig, sink: Arc<FakeSink>) -> Endpoint {
    let stats = config.stats.clone();
    let broker = EmbeddedBroker::bind("127.0.0.1:0", config).await.unwrap();
    let (address, acks, shutdown) = (broker.local_addr(), AckBoard::new(), CancellationToken::new());
    let running = tokio::spawn(broker.run(sink.clone(), acks.clone(), shutdown.clone()));
    Endpoint { address, sink, acks, stats, shutdown, running }
}

async fn start_open() -> Endpoint {
    start(BrokerConfig::default(), FakeSink::open()).await
}

fn limited(limits: Limits) -> BrokerConfig {
    BrokerConfig { limits, ..BrokerConfig::default() }
}

fn listed() -> BrokerConfig {
    let entry = |id: &str, stores: &str| {
        format!("[[agent]]\nid = \"{id}\"\npassword_hash = \"{}\"\n{stores}\n", hash_password(&format!("{id}-secret")))
    };
    let text = entry("a", "stores = [1, 2]") + &entry("b", "");
    BrokerConfig { agents: Agents::parse(&text).unwrap(), ..BrokerConfig::default() }
}

/// Polls until the condition holds.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came true: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_and_acks_make_the_round_trip_in_version_3() {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
    let endpoint = start(listed(), FakeSink::open()).await;
    endpoint.acks.publish(&agent("a"), ack(1, 5));
    let mut options = MqttOptions::new("till-7", "127.0.0.1", endpoint.address.port());
    options.set_credentials("a", "a-secret").set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut events) = AsyncClient::new(options, 10);
    client.subscribe(ack_topic_of("a"), QoS::AtLeastOnce).await.unwrap();
    let sender = tokio::spawn(async move {
        for n in 0..300_u32 {
            client.publish(frames_of("a"), QoS::AtLeastOnce, false, n.to_be_bytes()).await.unwrap();
        }
        client
    });
    let (mut pubacks, mut acks) = (0, vec![]);
    while pubacks < 300 || acks.len() < 2 {
        match events.poll().await.unwrap() {
            Event::Incoming(Packet::PubAck(_)) => pubacks += 1,
            Event::Incoming(Packet::Publish(p)) => {
                assert_eq!(p.topic, ack_topic_of("a"));
                acks.push((serde_json::from_slice(&p.payload).unwrap(), p.retain));
                endpoint.acks.publish(&agent("a"), ack(1, 6));
            }
            _ => {}
        }
    }
    assert_eq!(acks[..2], [(ack(1, 5), true), (ack(1, 6), false)]);
    for n in 0..300_u32 {
        assert_eq!(endpoint.sink.next().await, Seen::Frame("a".to_owned(), n.to_be_bytes().to_vec().into()));
    }
    drop(sender.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_acks_and_status_make_the_round_trip_in_version_5() {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::{AsyncClient, Event, Incoming, MqttOptions};
    let endpoint = start(listed(), FakeSink::open()).await;
    endpoint.acks.publish(&agent("b"), ack(1, 5));
    let mut options = MqttOptions::new("b", "127.0.0.1", endpoint.address.port());
    options.set_credentials("b", "b-secret").set_session_expiry_interval(Some(3_600));
    let (client, mut events) = AsyncClient::new(options, 10);
    client.subscribe(ack_topic_of("b"), QoS::AtLeastOnce).await.unwrap();
    let status = AgentStatus {
        online: true,
        version: "1".to_owned(),
        stores: vec![StoreId::try_from(1_i64).unwrap()],
        epoch: Epoch(7),
        backlog: 3,
        backlog_bytes: 100,
        rolled_back: false,
    };
    let json = serde_json::to_vec(&status).unwrap();
    client.publish(topics::status(&agent("b")), QoS::AtLeastOnce, true, json).await.unwrap();
    client.publish(topics::status(&agent("b")), QoS::AtLeastOnce, true, "no status").await.unwrap();
    let frame = vec![7; 256 * 1024];
    client.publish(frames_of("b"), QoS::AtLeastOnce, false, frame.clone()).await.unwrap();
    client.publish(topics::raw(9_i64.try_into().unwrap()), QoS::AtLeastOnce, false, "{}").await.unwrap();
    let (mut pubacks, mut acks) = (0, 0);
    while pubacks < 4 || acks < 1 {
        match events.poll().await.unwrap() {
            Event::Incoming(Incoming::ConnAck(connack)) => {
                let told = connack.properties.unwrap();
                assert_eq!(told.receive_max, Some(Limits::default().unacknowledged));
                assert_eq!(told.max_packet_size, Some(MAX_PACKET as u32));
                assert_eq!((told.max_qos, told.session_expiry_interval), (Some(1), Some(0)));
            }
            Event::Incoming(Incoming::PubAck(p)) => {
                assert_eq!(p.reason, v5::PubAckReason::Success);
                pubacks += 1;
            }
            Event::Incoming(Incoming::Publish(p)) => {
                assert_eq!((&*p.payload, p.retain), (&br#"{"epoch":1,"seq":5}"#[..], true));
                acks += 1;
            }
            _ => {}
        }
    }
    assert_eq!(endpoint.sink.next_status().await, ("b".to_owned(), Some(status)));
    assert_eq!(endpoint.sink.next().await, Seen::Refused("status", "no status".into()));
    assert_eq!(endpoint.sink.next().await, Seen::Frame("b".to_owned(), frame.into()));
    assert_eq!(endpoint.sink.next().await, Seen::Raw(9, "{}".into()));
    // However it goes: the agent is away.
    drop(events);
    assert_eq!(endpoint.sink.next_status().await, ("b".to_owned(), None));
}

#[tokio::test]
async fn wrong_credentials_get_their_code() {
    let endpoint = start(listed(), FakeSink::open()).await;
    for (user, password, old, new) in [
        ("a", "b-secret", 4, v5::ConnectReturnCode::BadUserNamePassword),
        ("nobody", "x", 4, v5::ConnectReturnCode::BadUserNamePassword),
        ("", "", 5, v5::ConnectReturnCode::NotAuthorized),
    ] {
        let mut wire = Wire::open(endpoint.address).await;
        let mut connect = v4::Connect::new("a");
        connect.set_login(user, password);
        wire.send_v3(v4::Packet::Connect(connect)).await;
        match wire.receive_v3().await {
            Some(v4::Packet::ConnAck(connack)) => assert_eq!(connack.code as u8, old),
            other => panic!("{other:?}"),
        }
        assert!(wire.receive_v3().await.is_none(), "and is closed");

        let mut wire = Wire::open(endpoint.address).await;
        let v5::Packet::Connect(connect, will, _) = connect_v5("a", 10) else { unreachable!() };
        let login = (!user.is_empty()).then(|| v5::Login::new(user, password));
        wire.send_v5(v5::Packet::Connect(connect, will, login)).await;
        match wire.receive_v5().await {
            Some(v5::Packet::ConnAck(connack)) => assert_eq!(connack.code, new),
            other => panic!("{other:?}"),
        }
        assert!(wire.receive_v5().await.is_none(), "and is closed");
    }
    assert_eq!(endpoint.stats.refused_credentials.load(Relaxed), 6);
    // Other protocol levels are told so, in the form of the nearest version that is spoken.
    let mut wire = Wire::open(endpoint.address).await;
    wire.send(b"\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x00").await;
    match wire.receive_v3().await {
        Some(v4::Packet::ConnAck(connack)) => assert_eq!(connack.code, v4::ConnectReturnCode::RefusedProtocolVersion),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn topics_of_others_are_refused() {
    let endpoint = start(listed(), FakeSink::open()).await;
    let mut wire = Wire::open(endpoint.address).await;
    let v5::Packet::Connect(connect, will, _) = connect_v5("a", 10) else { unreachable!() };
    wire.send_v5(v5::Packet::Connect(connect, will, Some(v5::Login::new("a", "a-secret")))).await;
    assert!(matches!(wire.receive_v5().await, Some(v5::Packet::ConnAck(_))));
    let foreign = [
        frames_of("b"),
        ack_topic_of("a"),
        topics::status(&agent("b")),
        "onhand/v1/raw/3".to_owned(),
        "x".to_owned(),
        "$SYS/broker".to_owned(),
    ];
    for topic in &foreign {
        wire.send_v5(publish_v5(topic, 1, "forged")).await;
        match wire.receive_v5().await {
            Some(v5::Packet::PubAck(puback)) => assert_eq!(puback.reason, v5::PubAckReason::NotAuthorized, "{topic}"),
            other => panic!("{other:?}"),
        }
    }
    for topic in ["#", "onhand/v1/agents/+/ack", &ack_topic_of("b"), "$share/g/onhand/v1/agents/a/ack", &frames_of("a")]
    {
        wire.send_v5(subscribe_v5(topic, 2)).await;
        match wire.receive_v5().await {
            Some(v5::Packet::SubAck(suback)) => {
                assert_eq!(suback.return_codes, [v5::SubscribeReasonCode::NotAuthorized], "{topic}");
            }
            other => panic!("{other:?}"),
        }
    }
    // What is its own still works.
    wire.send_v5(publish_v5("onhand/v1/raw/2", 3, "{}")).await;
    assert!(matches!(wire.receive_v5().await, Some(v5::Packet::PubAck(p)) if p.reason == v5::PubAckReason::Success));
    assert_eq!(endpoint.sink.next().await, Seen::Raw(2, "{}".into()));
    assert_eq!(endpoint.stats.refused_topics.load(Relaxed), 11);

    let open = start_open().await;
    let mut wire = Wire::v3(open.address, "a").await;
    wire.send_v3(v4::Packet::Subscribe(v4::Subscribe::new("#", rumqttc::QoS::AtLeastOnce))).await;
    match wire.receive_v3().await {
        Some(v4::Packet::SubAck(suback)) => assert_eq!(suback.return_codes, [v4::SubscribeReasonCode::Failure]),
        other => panic!("{other:?}"),
    }
    let mut publish = v4::Publish::new(frames_of("b"), rumqttc::QoS::AtLeastOnce, "forged");
    publish.pkid = 1;
    wire.send_v3(v4::Packet::Publish(publish)).await;
    assert!(wire.receive_v3().await.is_none(), "version 3 cannot be told, its connection ends");
    assert!(matches!(open.sink.next_status().await, (_, None)));
    assert!(open.sink.nothing_more());
}

#[tokio::test]
async fn a_client_that_does_not_acknowledge_gets_few_acks_and_in_the_end_the_newest() {
    let endpoint = start_open().await;
    let mut wire = Wire::v5(endpoint.address, "a").await;
    wire.send_v5(subscribe_v5(&ack_topic_of("a"), 9)).await;
    assert!(matches!(wire.receive_v5().await, Some(v5::Packet::SubAck(_))));
    for seq in 1..=1_000 {
        endpoint.acks.publish(&agent("a"), ack(1, seq));
        tokio::task::yield_now().await;
    }
    let (mut received, mut last) = (0, 0);
    while last < 1_000 {
        let Some(v5::Packet::Publish(publish)) = wire.receive_v5().await else { panic!("an ack was due") };
        last = serde_json::from_slice::<topics::DurableAck>(&publish.payload).unwrap().seq.0;
        assert!(!publish.retain);
        received += 1;
        if received >= 16 {
            // Sixteen are on their way unacknowledged, never more.
            wire.send_v5(v5::Packet::PubAck(v5::PubAck::new(publish.pkid, None))).await;
        }
    }
    assert!(received < 500, "{received} acks were sent, they are not conflated");
    // A second subscription delivers what is there, retained.
    wire.send_v5(subscribe_v5(&ack_topic_of("a"), 10)).await;
    assert!(matches!(wire.receive_v5().await, Some(v5::Packet::SubAck(_))));
    for id in 1..=16 {
        wire.send_v5(v5::Packet::PubAck(v5::PubAck::new(id, None))).await;
    }
    let Some(v5::Packet::Publish(publish)) = wire.receive_v5().await else { panic!("an ack was due") };
    assert!(publish.retain);
}

#[tokio::test]
async fn a_client_that_connects_again_ends_its_older_session() {
    let sink = FakeSink::gated(0);
    let endpoint = start(BrokerConfig::default(), sink.clone()).await;
    let mut older = Wire::v5(endpoint.address, "a").await;
    older.send_v5(publish_v5(&frames_of("a"), 1, "one")).await;
    older.send_v5(publish_v5(&frames_of("a"), 2, "two")).await;
    older.send_v5(v5::Packet::PingReq(v5::PingReq)).await;
    assert!(matches!(older.receive_v5().await, Some(v5::Packet::PingResp(_))));
    let mut newer = Wire::v5(endpoint.address, "a").await;
    assert_eq!(older.receive_reason().await, Reason::SessionTakenOver);
    assert!(older.receive_v5().await.is_none());
    assert_eq!(endpoint.stats.takeovers.load(Relaxed), 1);
    // The sink still has "one". What the newer session sends comes after it, and "two" comes from nowhere else.
    newer.send_v5(publish_v5(&frames_of("a"), 1, "two again")).await;
    newer.send_v5(v5::Packet::PingReq(v5::PingReq)).await;
    assert!(matches!(newer.receive_v5().await, Some(v5::Packet::PingResp(_))));
    sink.gate.add_permits(10);
    assert!(matches!(newer.receive_v5().await, Some(v5::Packet::PubAck(p)) if p.pkid == 1));
    assert_eq!(sink.next().await, Seen::Frame("a".to_owned(), "one".into()));
    assert_eq!(sink.next().await, Seen::Frame("a".to_owned(), "two again".into()));
    assert!(sink.nothing_more(), "the agent is not away: its newer session is there");
    drop(newer);
    assert_eq!(sink.next_status().await, ("a".to_owned(), None));
    // Another agent with that client id is another client.
    let other = start(listed(), FakeSink::open()).await;
    let mut wires = vec![];
    for user in ["a", "b"] {
        let mut wire = Wire::open(other.address).await;
        let v5::Packet::Connect(connect, will, _) = connect_v5("same", 10) else { unreachable!() };
        let login = v5::Login::new(user, format!("{user}-secret"));
        wire.send_v5(v5::Packet::Connect(connect, will, Some(login))).await;
        assert!(matches!(wire.receive_v5().await, Some(v5::Packet::ConnAck(_))));
        wires.push(wire);
    }
    assert_eq!(other.stats.connections.load(Relaxed), 2);
}

#[tokio::test]
async fn a_port_in_use_is_an_error() {
    let endpoint = start_open().await;
    let error = EmbeddedBroker::bind(endpoint.address, BrokerConfig::default()).await.err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn an_oversized_packet_is_refused_by_its_length_alone() {
    let endpoint = start_open().await;
    let mut wire = Wire::v5(endpoint.address, "a").await;
    wire.send_v5(publish_v5(&frames_of("a"), 1, vec![0; 300 * 1024])).await;
    assert_eq!(wire.receive_reason().await, Reason::PacketTooLarge);
    let mut wire = Wire::v3(endpoint.address, "b").await;
    // A PUBLISH that announces 256 MiB, and a CONNECT that announces 1 MiB: nobody waits for the rest.
    wire.send(b"\x32\xff\xff\xff\x7f").await;
    assert!(wire.receive_v3().await.is_none());
    let mut wire = Wire::open(endpoint.address).await;
    wire.send(b"\x10\x80\x80\x40").await;
    assert!(wire.receive_v3().await.is_none());
    assert_eq!(endpoint.stats.oversized_packets.load(Relaxed), 2);
}

#[tokio::test]
async fn a_puback_waits_for_the_sink_and_a_pingresp_does_not() {
    let sink = FakeSink::gated(0);
    let endpoint = start(BrokerConfig::default(), sink.clone()).await;
    let mut wire = Wire::v5(endpoint.address, "a").await;
    for id in 1..=3 {
        wire.send_v5(publish_v5(&frames_of("a"), id, vec![id as u8; 200_000])).await;
    }
    for _ in 0..3 {
        wire.send_v5(v5::Packet::PingReq(v5::PingReq)).await;
        assert!(matches!(wire.receive_v5().await, Some(v5::Packet::PingResp(_))));
    }
    for id in 1..=3 {
        sink.gate.add_permits(1);
        assert!(matches!(wire.receive_v5().await, Some(v5::Packet::PubAck(p)) if p.pkid == id));
        wire.send_v5(v5::Packet::PingReq(v5::PingReq)).await;
        assert!(matches!(wire.receive_v5().await, Some(v5::Packet::PingResp(_))));
    }
    assert_eq!(endpoint.stats.frames.load(Relaxed), 3);
}

#[tokio::test]
async fn a_client_beyond_its_limits_is_told_and_ended() {
    let limits = Limits { unacknowledged: 4, ..Limits::default() };
    let endpoint = start(limited(limits), FakeSink::gated(0)).await;
    let mut wire = Wire::v5(endpoint.address, "a").await;
    for id in 1..=5 {
        wire.send_v5(publish_v5(&frames_of("a"), id, "x")).await;
    }
    assert_eq!(wire.receive_reason().await, Reason::ReceiveMaximumExceeded);
    assert_eq!(endpoint.stats.over_limit.load(Relaxed), 1);

    let mut wire = Wire::v5(endpoint.address, "b").await;
    let mut publish = v5::Publish::new(frames_of("b"), rumqttc::v5::mqttbytes::QoS::ExactlyOnce, "x", None);
    publish.pkid = 1;
    wire.send_v5(v5::Packet::Publish(publish)).await;
    assert_eq!(wire.receive_reason().await, Reason::QoSNotSupported);
}

#[tokio::test]
async fn all_connections_together_stay_within_the_total_and_each_gets_its_turn() {
    let limits = Limits { total_bytes: MAX_PACKET, ..Limits::default() };
    let sink = FakeSink::gated(0);
    let endpoint = start(limited(limits), sink.clone()).await;
    let mut wires = vec![];
    for name in ["a", "b", "c"] {
        let mut wire = Wire::v5(endpoint.address, name).await;
        for id in 1..=2 {
            wire.send_v5(publish_v5(&frames_of(name), id, vec![0; 200_000])).await;
        }
        wires.push(wire);
    }
    sink.gate.add_permits(6);
    for wire in &mut wires {
        for id in 1..=2 {
            assert!(matches!(wire.receive_v5().await, Some(v5::Packet::PubAck(p)) if p.pkid == id));
        }
    }
    // A hub that takes nothing at all sheds whoever waits for it.
    let limits = Limits { total_bytes: MAX_PACKET, stall: Duration::from_millis(100), ..Limits::default() };
    let endpoint = start(limited(limits), FakeSink::gated(0)).await;
    let mut wire = Wire::v5(endpoint.address, "a").await;
    for id in 1..=2 {
        wire.send_v5(publish_v5(&frames_of("a"), id, vec![0; 200_000])).await;
    }
    assert_eq!(wire.receive_reason().await, Reason::ServerBusy);
    assert_eq!(endpoint.stats.shed.load(Relaxed), 1);
}

#[tokio::test]
async fn qos_0_waits_for_room_and_loses_nothing() {
    let limits = Limits { unacknowledged: 2, ..Limits::default() };
    let sink = FakeSink::gated(0);
    let endpoint = start(limited(limits), sink.clone()).await;
    let mut wire = Wire::v3(endpoint.address, "a").await;
    for n in 0..50_u8 {
        let publish = v4::Publish::new(frames_of("a"), rumqttc::QoS::AtMostOnce, [n]);
        wire.send_v3(v4::Packet::Publish(publish)).await;
    }
    sink.gate.add_permits(50);
    for n in 0..50_u8 {
        assert_eq!(sink.next().await, Seen::Frame("a".to_owned(), Bytes::copy_from_slice(&[n])));
    }
}

#[tokio::test]
async fn whoever_says_nothing_is_not_waited_for() {
    let limits = Limits { handshake: Duration::from_millis(100), connections: 2, ..Limits::default() };
    let endpoint = start(limited(limits), FakeSink::open()).await;
    let mut silent = Wire::open(endpoint.address).await;
    let mut half = Wire::open(endpoint.address).await;
    half.send(b"\x10\x10\x00\x04MQ").await;
    eventually("both are accepted", || endpoint.stats.connections_opened.load(Relaxed) == 2).await;
    let mut third = Wire::open(endpoint.address).await;
    assert!(third.receive_v5().await.is_none(), "there is no room for a third");
    assert_eq!(endpoint.stats.connections_refused.load(Relaxed), 1);
    assert!(silent.receive_v5().await.is_none());
    assert!(half.receive_v5().await.is_none());
    eventually("both are counted", || endpoint.stats.handshakes_failed.load(Relaxed) == 2).await;
    Wire::v5(endpoint.address, "a").await;
    // Once connected, the keep-alive is what counts.
    let mut wire = Wire::open(endpoint.address).await;
    wire.send_v5(connect_v5("b", 1)).await;
    assert!(matches!(wire.receive_v5().await, Some(v5::Packet::ConnAck(_))));
    assert_eq!(wire.receive_reason().await, Reason::KeepAliveTimeout);
}

#[tokio::test]
async fn packets_may_come_byte_by_byte() {
    let endpoint = start_open().await;
    let mut wire = Wire::open(endpoint.address).await;
    let mut bytes = bytes::BytesMut::new();
    connect_v5("a", 60).write(&mut bytes, None).unwrap();
    publish_v5(&frames_of("a"), 1, vec![3; 300]).write(&mut bytes, None).unwrap();
    for byte in bytes {
        wire.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert!(matches!(wire.receive_v5().await, Some(v5::Packet::ConnAck(_))));
    assert!(matches!(wire.receive_v5().await, Some(v5::Packet::PubAck(_))));
    // A goodbye without a body, as most clients send it.
    wire.send(&[0xE0, 0]).await;
    assert!(wire.receive_v5().await.is_none());
    assert_eq!(endpoint.stats.protocol_errors.load(Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_harms_nobody_else() {
    let seed: u64 = std::env::var("ONHAND_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("ONHAND_SEED={seed} replays this run");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let endpoint = start_open().await;
    let mut witness = Wire::v5(endpoint.address, "witness").await;
    for round in 0..1_500_u32 {
        let mut bytes = bytes::BytesMut::new();
        let version_5 = random.random();
        if random.random_ratio(7, 8) {
            // Behind a proper CONNECT, packets of each type: pure noise, or good ones with a few bytes changed.
            if version_5 {
                connect_v5(&format!("n{round}"), 60).write(&mut bytes, None).unwrap();
            } else {
                v4::Packet::Connect(v4::Connect::new(format!("n{round}"))).write(&mut bytes, usize::MAX).unwrap();
            }
            if random.random() {
                let start = bytes.len();
                let name = format!("n{round}");
                publish_v5(&frames_of(&name), 1, "x").write(&mut bytes, None).unwrap();
                subscribe_v5(&ack_topic_of(&name), 2).write(&mut bytes, None).unwrap();
                for _ in 0..random.random_range(1..5) {
                    let at = random.random_range(start..bytes.len());
                    bytes[at] = random.random();
                }
            } else {
                let len = random.random_range(0..120_u8);
                bytes.extend_from_slice(&[random.random_range(0..16_u8) << 4 | random.random_range(0..16), len]);
                bytes.extend(
                    (0..len).map(|_| if random.random() { random.random_range(0..4) } else { random.random() }),
                );
            }
        } else {
            bytes.extend((0..random.random_range(1..200)).map(|_| random.random::<u8>()));
        }
        let mut wire = Wire::open(endpoint.address).await;
        wire.send(&bytes).await;
        if round % 100 == 0 {
            witness.send_v5(v5::Packet::PingReq(v5::PingReq)).await;
            assert!(matches!(witness.receive_v5().await, Some(v5::Packet::PingResp(_))));
        }
    }
    let mut next = Wire::v5(endpoint.address, "a").await;
    next.send_v5(publish_v5(&frames_of("a"), 1, "after all")).await;
    assert!(matches!(next.receive_v5().await, Some(v5::Packet::PubAck(_))));
    drop((witness, next));
    eventually("all connections are gone", || endpoint.stats.connections.load(Relaxed) == 0).await;
    assert!(endpoint.stats.protocol_errors.load(Relaxed) > 100);
}

#[tokio::test]
async fn shutdown_tells_the_clients_and_returns() {
    let endpoint = start_open().await;
    let mut five = Wire::v5(endpoint.address, "a").await;
    let mut three = Wire::v3(endpoint.address, "b").await;
    endpoint.shutdown.cancel();
    assert_eq!(five.receive_reason().await, Reason::ServerShuttingDown);
    assert!(three.receive_v3().await.is_none());
    drop((five, three));
    tokio::time::timeout(PATIENCE, endpoint.running).await.unwrap().unwrap();
    // The port is free again.
    EmbeddedBroker::bind(endpoint.address, BrokerConfig::default()).await.unwrap();
}
