//! Noise, wrong credentials and damaged frames at the hub's MQTT endpoint: refused or quarantined, and nothing stops.

use onhand_common::frame::{encode_event, seal};
use onhand_common::{AgentId, Epoch, Event, Seq, Timestamp};
use onhand_tests::judge::{ask_lake, number_in_lake};
use onhand_tests::sandbox::{HubOptions, MqttClient, settle, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};
use serde_json::json;

fn frame(agent: &str, store: i32, trans_id: &str) -> Vec<u8> {
    let count = onhand_common::Count {
        item_id: 1.try_into().unwrap(),
        employee_id: 1.try_into().unwrap(),
        store_id: store.try_into().unwrap(),
        date_time: Timestamp::parse("2021-01-01 00:00:00").unwrap(),
        quantity: trans_id.len() as i32,
    };
    let body = encode_event(&Event::Count(count));
    seal(&AgentId::new(agent).unwrap(), Epoch(7), Seq(0), Seq(1), 1, &body)
}

#[test]
fn noise_and_strangers_change_nothing_but_the_quarantine() {
    let sandbox = Sandbox::new();
    let agents = sandbox.write_agents(&[("a", "secret-a", 1), ("b", "secret-b", 2)]);
    let mut hub = Hub::start(&sandbox, HubOptions::with(&["--agents", agents.to_str().unwrap()]));
    let endpoint = hub.mqtt_address().to_owned();
    let agent = Agent::start_with(&sandbox, "a", "1", &hub.mqtt_url(), &["--password", "secret-a"]);
    let mut till = Till::new(1, 13);
    till.sell(&agent.url(""), 20);

    // Who may not come is told so.
    for login in [Some(("a", "wrong")), Some(("nobody", "secret-a")), Some(("", "")), None] {
        let code = MqttClient::open(&endpoint).connect("x", login);
        assert!(matches!(code, None | Some(4 | 5)), "{login:?}: {code:?}");
        assert!(code.is_some() || login.is_none(), "{login:?}: no CONNACK");
    }
    // Bytes that are no MQTT: the connection ends, no more.
    for noise in [
        &b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n"[..],
        &[0xff; 600],
        &[0x10, 0xff, 0xff, 0xff, 0x7f],
        &[0x30, 0],
        &[0; 64],
    ] {
        let mut client = MqttClient::open(&endpoint);
        client.send(noise);
        assert!(client.is_hung_up(), "{noise:?}");
    }
    let mut client = MqttClient::open(&endpoint);
    assert_eq!(client.connect("b-device", Some(("b", "secret-b"))), Some(0));
    client.send(&[0x32, 0x05, 0xff, 0xff, 1, 2, 3]);
    assert!(client.is_hung_up(), "a publish whose topic is longer than the packet");
    // Half a packet, and then nothing: must not hold up anyone.
    let mut silent = MqttClient::open(&endpoint);
    silent.send(&[0x10, 40, 0, 4, b'M']);

    // A frame that is damaged, of an unknown version, of another agent, for a store that is not granted.
    let mut damaged = frame("b", 2, "damaged");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x40;
    let mut newer = frame("b", 2, "newer!");
    newer[3] = 200;
    for (what, payload) in [
        ("damaged", damaged),
        ("newer", newer),
        ("another agent's", frame("a", 1, "forged")),
        ("a foreign store's", frame("b", 1, "foreign")),
        ("a text", b"hello".to_vec()),
    ] {
        let mut client = MqttClient::open(&endpoint);
        assert_eq!(client.connect("b", Some(("b", "secret-b"))), Some(0));
        assert!(client.publish("onhand/v1/agents/b/frames", &payload), "{what}: no PUBACK");
    }
    // Another agent's topic.
    let mut client = MqttClient::open(&endpoint);
    assert_eq!(client.connect("b", Some(("b", "secret-b"))), Some(0));
    client.publish("onhand/v1/agents/a/frames", &frame("a", 1, "stolen"));

    let reasons = || ask_lake(&sandbox.lake(), "SELECT reason, detail FROM quarantine ORDER BY ALL");
    wait_until(
        "what was refused is in quarantine",
        || format!("{:?}\n{}", reasons(), hub.log_tail()),
        || reasons().len() >= 5,
    );
    till.sell(&agent.url(""), 20);
    settle(&hub, &[&agent]);
    drop(silent);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
    assert!(hub.runs());
}

#[test]
fn a_device_without_an_agent_sends_the_accelerators_json() {
    let sandbox = Sandbox::new();
    let hub = Hub::start(&sandbox, HubOptions::default());
    let mut device = MqttClient::open(hub.mqtt_address());
    assert_eq!(device.connect("device", None), Some(0));
    let mut document = json!({
        "trans_id": "{raw-1}", "store_id": 1, "date_time": "2021-01-01T00:00:00.000Z", "change_type_id": 1,
        "items": [{"item_id": 10, "quantity": -2}]
    });
    for _ in 0..2 {
        assert!(device.publish("onhand/v1/raw/1", document.to_string().as_bytes()));
    }
    for garbage in ["not json", "{\"trans_id\": 1}"] {
        assert!(device.publish("onhand/v1/raw/1", garbage.as_bytes()), "{garbage}: no PUBACK");
    }
    assert!(device.publish("onhand/v1/raw/2", document.to_string().as_bytes()), "for another store than the topic's");
    hub.wait_settled();
    let mut ledger = onhand_tests::Ledger::default();
    // The braces are the accelerator's way to write an id.
    document["trans_id"] = "raw-1".into();
    ledger.transaction(&document);
    judge(&sandbox.lake(), &Verdict::of(&ledger, sandbox.path("lines.csv")));
    assert_eq!(ask_lake(&sandbox.lake(), "SELECT reason FROM quarantine").len(), 3);
}

#[test]
fn what_was_acknowledged_to_a_device_is_there_after_the_hub_was_killed() {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let mut ledger = onhand_tests::Ledger::default();
    for number in 0..5 {
        let document = json!({
            "trans_id": format!("raw-{number}"), "store_id": 1, "date_time": "2021-01-01T00:00:00.000Z",
            "change_type_id": 1, "items": [{"item_id": 10, "quantity": -2}]
        });
        let mut device = MqttClient::open(hub.mqtt_address());
        assert_eq!(device.connect("device", None), Some(0));
        assert!(device.publish("onhand/v1/raw/1", document.to_string().as_bytes()), "no PUBACK\n{}", hub.log_tail());
        hub.kill();
        ledger.transaction(&document);
        hub.restart();
    }
    hub.wait_settled();
    judge(&sandbox.lake(), &Verdict::of(&ledger, sandbox.path("lines.csv")));
}

#[test]
fn a_document_that_is_too_large_gets_its_answer_and_changes_nothing() {
    let sandbox = Sandbox::new();
    let hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let mut till = Till::new(1, 22);
    till.sell(&agent.url(""), 20);
    let small = till.document();
    let mut device = MqttClient::open(hub.mqtt_address());
    assert_eq!(device.connect_v5("device"), Some(0));
    assert!(device.publish("onhand/v1/raw/1", small.to_string().as_bytes()));
    till.ledger.transaction(&small);

    // Good but for its size; a client of MQTT 5 is told that (0x95, packet too large), an older one cannot be.
    let large = format!("{}{}", till.document(), " ".repeat(300 * 1024));
    device.send_publish("onhand/v1/raw/1", large.as_bytes());
    assert_eq!(device.disconnect_reason(), Some(0x95));
    assert!(device.is_hung_up());
    let mut older = MqttClient::open(hub.mqtt_address());
    assert_eq!(older.connect("older-device", None), Some(0));
    assert!(!older.publish("onhand/v1/raw/1", large.as_bytes()));
    assert!(older.is_hung_up());
    // A connection is counted when it is over, which may be after its client has heard of it.
    let counted = || hub.metric("onhand_hub_gateway_oversized_packets_total");
    wait_until("both are counted", || format!("{}\n{}", counted(), hub.log_tail()), || counted() == 2.);

    till.sell(&agent.url(""), 20);
    settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
    assert_eq!(number_in_lake(&sandbox.lake(), "SELECT count(*) FROM quarantine"), 0);
    let statuses = agent.status();
    assert_eq!(statuses["connected"], true, "{statuses}");
}
