//! The accelerator's documents on a Kafka topic, put there by another client.

use onhand_tests::judge::ask_lake;
use onhand_tests::sandbox::{HubOptions, Kafka, binary, run, wait_until};
use onhand_tests::{Hub, Ledger, Sandbox, Verdict, judge};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::Command;

fn document(number: usize) -> Value {
    let items = [json!({"item_id": number % 40 + 1, "quantity": -1}), json!({"item_id": 100, "quantity": -2})];
    json!({
        "trans_id": format!("{{k-{number}}}"), "store_id": number % 3, "change_type_id": 1, "items": items,
        "date_time": format!("2021-01-0{}T10:00:00.000Z", number % 9 + 1),
    })
}

fn ledgered(ledger: &mut Ledger, document: &Value) -> (String, String) {
    let mut known = document.clone();
    let id = known["trans_id"].as_str().expect("an id").trim_matches(['{', '}']).to_owned();
    known["trans_id"] = id.clone().into();
    ledger.transaction(&known);
    (id, document.to_string())
}

#[test]
fn documents_on_a_topic_reach_gold_once_and_what_is_poisonous_is_kept_apart() {
    let sandbox = Sandbox::new();
    let kafka = Kafka::start(&sandbox);
    kafka.create_topic("pos", 3);
    let mut ledger = Ledger::default();
    let mut first: Vec<(String, String)> = (0..200).map(|n| ledgered(&mut ledger, &document(n))).collect();
    first.insert(100, ("poison".to_owned(), "this is no document".to_owned()));
    first.push(("again".to_owned(), document(7).to_string()));
    kafka.produce("pos", &first);

    let bootstrap = kafka.address();
    let mut hub = Hub::start(
        &sandbox,
        HubOptions::with(&["--kafka", &bootstrap, "--kafka-raw-topic", "pos", "--kafka-set", "fetch.wait.max.ms=50"]),
    );
    let taken = |hub: &Hub, lines: u64| {
        wait_until(
            "the topic is read",
            || hub.log_tail(),
            || hub.metric("onhand_hub_silver_rows_total") as u64 >= lines,
        );
    };
    taken(&hub, ledger.lines());
    hub.wait_settled();
    let before = ledger.lines();

    hub.kill();
    let second: Vec<_> = (200..300).map(|n| ledgered(&mut ledger, &document(n))).collect();
    kafka.produce("pos", &second);
    hub.restart();
    taken(&hub, ledger.lines() - before);
    hub.wait_settled();
    judge(&sandbox.lake(), &Verdict::of(&ledger, sandbox.path("lines.csv")));

    // Bronze has each record as Kafka had it, with its key and its place.
    let mut show = Command::new(binary("onhand-hub"));
    show.args(["show", "raw_inventory_change", "--limit", "1000", "--format", "json", "--lake"]).arg(sandbox.lake());
    let stored: Vec<Value> = serde_json::from_str(&run(&mut show).expect_success()).expect("an array of rows");
    let sent: HashMap<&str, &str> =
        first.iter().chain(&second).map(|(key, document)| (key.as_str(), document.as_str())).collect();
    let mut places: Vec<(i64, i64)> = Vec::new();
    for row in &stored {
        assert_eq!(Some(sent[row["key"].as_str().expect("a key")]), row["value"].as_str());
        assert_eq!((&row["topic"], &row["timestampType"]), (&json!("pos"), &json!(0)), "made by the producer: {row}");
        assert!(row["timestamp"].as_str().is_some_and(|at| at > "2021"), "{row}");
        places.push((row["partition"].as_i64().expect("a partition"), row["offset"].as_i64().expect("an offset")));
    }
    // All but the poison, each once: no place twice, and one hole where the poison lies.
    assert_eq!(stored.len(), first.len() + second.len() - 1);
    places.sort_unstable();
    let holes: Vec<(i64, i64)> = (0..3)
        .flat_map(|partition| {
            let offsets: Vec<i64> = places.iter().filter(|place| place.0 == partition).map(|place| place.1).collect();
            let last = offsets.last().copied().unwrap_or(-1);
            (0..=last).filter(move |offset| !offsets.contains(offset)).map(move |offset| (partition, offset))
        })
        .collect();
    let [(partition, offset)] = holes[..] else { panic!("one record is missing from bronze: {holes:?}") };
    let quarantined = ask_lake(&sandbox.lake(), "SELECT source, reason FROM quarantine");
    let expected = [[format!("kafka:pos/{partition}/{offset}"), "malformed document".to_owned()]];
    assert_eq!(quarantined, expected);
}
