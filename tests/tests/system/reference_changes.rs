//! New reference data restates what it touches, on demand and across restarts.

use onhand_tests::sandbox::{HubOptions, settle, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};
use serde_json::{Value, json};

fn shown(hub: &Hub, store: i32) -> Value {
    hub.item(store, 10).map(|item| item["current_inventory"].clone()).unwrap_or_default()
}

fn change(trans_id: &str, store: i32, change_type: i32, quantity: i32) -> Value {
    json!({"trans_id": trans_id, "store_id": store, "date_time": "2021-01-02T09:00:00Z", "change_type_id": change_type,
           "items": [{"item_id": 10, "quantity": quantity}]})
}

#[test]
fn a_renamed_store_and_a_new_change_type_restate_gold() {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1,2,9", &hub.mqtt_url());
    let mut till = Till::new(1, 15);
    for store in [1, 2, 9] {
        till.send_count(&agent, &json!({"item_id": 10, "employee_id": 7, "store_id": store, "date_time": "2021-01-01T00:00:00Z", "quantity": 20}));
        till.send(&agent, &change("sale", store, 1, -1));
        till.send(&agent, &change("bopis", store, 4, -2));
        till.send(&agent, &change("transfer", store, 9, -4));
    }
    settle(&hub, &[&agent]);
    assert_eq!(
        [1, 2, 9].map(|store| shown(&hub, store)),
        [json!(17), json!(17), json!(20)],
        "store 9 is not known yet"
    );

    // Store 2 becomes the online store, change type 9 and store 9 become known.
    sandbox.write_stores(&[(1, "store 1"), (2, "online"), (3, "store 3"), (9, "store 9")]);
    sandbox.write_change_types(&[(1, "sale"), (2, "restock"), (3, "shrinkage"), (4, "bopis"), (9, "transfer")]);
    hub.reload_reference();
    let expected = [json!(13), json!(15), json!(13)];
    wait_until("the stores are restated", || hub.log_tail(), || [1, 2, 9].map(|store| shown(&hub, store)) == expected);
    settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict { gold: Some(3), ..Verdict::of(&till.ledger, sandbox.path("lines.csv")) });

    // The folder changes while the hub is dead: it is read at the start.
    hub.kill();
    sandbox.write_stores(&[(1, "online"), (2, "store 2"), (3, "store 3")]);
    hub.restart();
    let expected = [json!(15), json!(13), json!(20)];
    wait_until("the stores are restated", || hub.log_tail(), || [1, 2, 9].map(|store| shown(&hub, store)) == expected);

    // A broken file leaves everything as it is.
    sandbox.write("reference/store.txt", "this is no table\n");
    hub.reload_reference();
    hub.let_work();
    till.send(&agent, &change("after", 1, 1, -1));
    settle(&hub, &[&agent]);
    assert_eq!([1, 2, 9].map(|store| shown(&hub, store)), [json!(14), json!(13), json!(20)]);
    judge(&sandbox.lake(), &Verdict { gold: Some(3), ..Verdict::of(&till.ledger, sandbox.path("lines.csv")) });
}
