//! The accelerator's documents on a Kafka topic, put there by another client.

use onhand_tests::judge::ask_lake;
use onhand_tests::sandbox::{HubOptions, Kafka, wait_until};
use onhand_tests::{Hub, Ledger, Sandbox, Verdict, judge};
use serde_json::{Value, json};

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
    first.push(("poison".to_owned(), "this is no document".to_owned()));
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

    let quarantined = ask_lake(&sandbox.lake(), "SELECT source, reason FROM quarantine");
    assert_eq!(quarantined.len(), 1, "{quarantined:?}");
    let (source, reason) = (&quarantined[0][0], &quarantined[0][1]);
    assert!(source.as_str().is_some_and(|source| source.starts_with("kafka:pos/")), "{quarantined:?}");
    assert_eq!(reason, "malformed document");
}
