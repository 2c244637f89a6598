//! Garbage at an agent's HTTP gets a clear answer and changes nothing.

use onhand_tests::judge::number_in_lake;
use onhand_tests::sandbox::{HubOptions, post, settle};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};
use serde_json::{Value, json};

fn document() -> Value {
    json!({
        "trans_id": "g-1", "store_id": 1, "date_time": "2021-01-05T10:00:00Z", "change_type_id": 1,
        "items": [{"item_id": 10, "quantity": -2}]
    })
}

fn with(field: &str, value: Value) -> Vec<u8> {
    let mut document = document();
    document[field] = value;
    document.to_string().into_bytes()
}

#[test]
fn garbage_is_refused_by_field_and_reason_and_what_is_good_beside_it_is_taken() {
    let sandbox = Sandbox::new();
    let hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let mut till = Till::new(1, 10);
    till.sell(&agent.url(""), 5);

    let large = {
        let items: Vec<Value> = (0..12_000).map(|id| json!({"item_id": id, "quantity": -1})).collect();
        with("items", Value::Array(items))
    };
    assert!(large.len() > 300 * 1024);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a text file", b"Dear Sir or Madam,\nthe till is broken.\n".to_vec(), ""),
        ("a truncated gzip", vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xcb, 0x48], ""),
        ("a negative id", with("store_id", json!(-1)), "store_id"),
        ("a negative item", with("items", json!([{"item_id": -10, "quantity": -1}])), "item_id"),
        ("a long trans_id", with("trans_id", json!("x".repeat(2_000))), "trans_id"),
        ("the year 0", with("date_time", json!("0000-01-01T00:00:00Z")), "date_time"),
        ("the year 9999", with("date_time", json!("9999-12-31T23:59:59Z")), "date_time"),
        ("too large a quantity", with("items", json!([{"item_id": 10, "quantity": 3_000_000_000_i64}])), "quantity"),
        ("no items", with("items", json!([])), "items"),
        ("300 KiB", large, ""),
        ("a foreign store", with("store_id", json!(2)), "store_id"),
        ("nothing", Vec::new(), ""),
    ];
    for (what, body, field) in &cases {
        let answer = agent.transactions(body);
        assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
        assert!(answer.text.contains(field), "{what}: the answer does not name {field}: {answer:?}");
        assert!(answer.json()["error"].is_string(), "{what}: {answer:?}");
    }
    // Beside good ones, a bad one is named and the others are taken.
    let batch = json!([document(), {"trans_id": "g-2"}, 7]);
    let answer = agent.transactions(batch.to_string());
    assert_eq!((answer.status, answer.json()["accepted"].as_u64()), (200, Some(1)), "{answer:?}");
    let refused: Vec<u64> = answer.json()["refused"]
        .as_array()
        .map(|entries| entries.iter().filter_map(|entry| entry["index"].as_u64()).collect())
        .unwrap_or_default();
    assert_eq!(refused, [1, 2], "{answer:?}");
    till.ledger.transaction(&document());

    let count =
        json!({"item_id": 10, "employee_id": 1, "store_id": 1, "date_time": "9999-01-01T00:00:00Z", "quantity": 1});
    assert_eq!(agent.counts(count.to_string()).status, 400);
    let csv = "item_id,employee_id,store_id,date_time,quantity\n10,1,1,2021-01-06 00:00:00,many\n";
    assert_eq!(post(&agent.url("/v1/counts"), "text/csv", csv).expect("the agent answers").status, 400);

    // An unknown change type is no garbage: silver keeps it.
    let mut unknown_type = document();
    (unknown_type["trans_id"], unknown_type["change_type_id"]) = (json!("g-3"), json!(77));
    till.send(&agent, &unknown_type);

    till.sell(&agent.url(""), 5);
    settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
    let kept = number_in_lake(&sandbox.lake(), "SELECT count(*) FROM inventory_change WHERE change_type_id = 77");
    assert_eq!(kept, 1);
}
