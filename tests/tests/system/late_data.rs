//! Late changes, late counts, corrections: nothing is dropped for being late, and the live API says what gold says.

use onhand_tests::sandbox::{HubOptions, settle};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};
use serde_json::{Value, json};

fn sale(trans_id: &str, at: &str, item: i32, quantity: i32) -> Value {
    json!({"trans_id": trans_id, "store_id": 1, "date_time": at, "change_type_id": 1, "items": [{"item_id": item, "quantity": quantity}]})
}

fn count(at: &str, item: i32, quantity: i32) -> Value {
    json!({"item_id": item, "employee_id": 7, "store_id": 1, "date_time": at, "quantity": quantity})
}

#[test]
fn late_changes_late_counts_and_corrections_are_taken_however_late() {
    let sandbox = Sandbox::new();
    // A cap of one live item: every item but one is passivated all the time.
    let mut hub = Hub::start(&sandbox, HubOptions::with(&["--live-items", "1"]));
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let mut till = Till::new(1, 14);
    let shown =
        |hub: &Hub, item: i32| hub.item(1, item).map(|item| item["current_inventory"].clone()).unwrap_or_default();

    till.send_count(&agent, &count("2021-01-01T00:00:00Z", 10, 20));
    till.send(&agent, &sale("t1", "2021-01-25T09:00:00Z", 10, -1));
    till.send(&agent, &sale("u1", "2021-01-25T09:00:00Z", 11, -4));
    settle(&hub, &[&agent]);
    assert_eq!(shown(&hub, 10), json!(19));
    assert_eq!(hub.item(1, 11).expect("it is known")["uncounted"], json!(true));

    // Three weeks late, and the hub has been restarted meanwhile.
    hub.kill();
    hub.restart();
    till.send(&agent, &sale("t2", "2021-01-02T09:00:00Z", 10, -5));
    settle(&hub, &[&agent]);
    assert_eq!(shown(&hub, 10), json!(14));

    // A count that comes late: changes since its own time are summed again, from silver.
    till.send_count(&agent, &count("2021-01-10T00:00:00Z", 10, 50));
    settle(&hub, &[&agent]);
    assert_eq!(shown(&hub, 10), json!(49));
    // Behind a newer one: history only. A correction of the newest: it wins.
    till.send_count(&agent, &count("2021-01-05T00:00:00Z", 10, 99));
    till.send_count(&agent, &count("2021-01-10T00:00:00Z", 10, 60));
    till.send(&agent, &sale("t3", "2021-01-09T23:59:59Z", 10, -7));
    settle(&hub, &[&agent]);
    assert_eq!(shown(&hub, 10), json!(59));
    // No reference data knows this one.
    till.send(&agent, &sale("t4", "2021-01-12T09:00:00Z", 99_999, -2));
    till.send_count(&agent, &count("2021-01-11T00:00:00Z", 99_999, 30));
    settle(&hub, &[&agent]);
    assert_eq!(shown(&hub, 99_999), json!(28));
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    judge(&sandbox.lake(), &Verdict { gold: Some(2), ..Verdict::of(&till.ledger, sandbox.path("lines.csv")) });
}
