//! Noise, wrong credentials and damaged frames at the hub's MQTT endpoint: refused or quarantined, and nothing stops.

use onhand_common::frame::{encode_event, seal};
use onhand_common::{AgentId, Epoch, Event, Seq, Timestamp};
use onhand_tests::judge::ask_lake;
use onhand_tests::sandbox::{HubOptions, MqttClient, binary, settle, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};
use serde_json::json;
use std::io::Write;
use std::process::{Command, Stdio};

fn hash_password(password: &str) -> String {
    let mut hashing = Command::new(binary("onhand-hub"))
        .arg("hash-password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start onhand-hub hash-password");
    hashing.stdin.take().expect("it has a standard input").write_all(format!("{password}\n").as_bytes()).unwrap();
    let output = hashing.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

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
    let agents = format!(
        "[[agent]]\nid = \"a\"\npassword_hash = \"{}\"\nstores = [1]\n\n[[agent]]\nid = \"b\"\npassword_hash = \"{}\"\nstores = [2]\n",
        hash_password("secret-a"),
        hash_password("secret-b")
    );
    let agents = sandbox.write("agents.toml", &agents);
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
    let document = json!({
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
    ledger.transaction(&json!({"trans_id": "raw-1", "store_id": 1, "items": [{"item_id": 10, "quantity": -2}]}));
    judge(&sandbox.lake(), &Verdict::of(&ledger, sandbox.path("lines.csv")));
    assert_eq!(ask_lake(&sandbox.lake(), "SELECT reason FROM quarantine").len(), 3);
}
