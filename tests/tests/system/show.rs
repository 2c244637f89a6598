//! `onhand-hub show` answers for any table, in three formats, also of the past.

use onhand_tests::sandbox::{HubOptions, binary, run, settle};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

fn show(lake: &Path, arguments: &[&str]) -> String {
    run(Command::new(binary("onhand-hub")).arg("show").args(arguments).arg("--lake").arg(lake)).expect_success()
}

fn count(item: i32, quantity: i32) -> Value {
    json!({"item_id": item, "employee_id": 7, "store_id": 1, "date_time": "2021-01-01T00:00:00Z", "quantity": quantity})
}

#[test]
fn tables_are_shown_as_table_csv_and_json() {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1,2", &hub.mqtt_url());
    let mut till = Till::new(1, 20);
    for item in 1..=9 {
        till.send_count(&agent, &count(item, item));
    }
    settle(&hub, &[&agent]);
    assert!(hub.terminate().success());
    let lake = sandbox.lake();

    let table = show(&lake, &["inventory_current", "--store", "1", "--limit", "5"]);
    assert!(table.contains("current_inventory") && table.lines().count() >= 6, "{table}");
    let csv = show(&lake, &["inventory_current", "--store", "1", "--format", "csv"]);
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows.len(), 10, "{csv}");
    assert_eq!(rows[0], "store_id,item_id,snapshot_quantity,change_quantity,current_inventory,date_time");
    assert!(rows.iter().any(|row| row.starts_with("1,7,7,0,7,2021-01-01")), "{csv}");
    let json = show(&lake, &["gold/inventory_current", "--item", "7", "--format", "json"]);
    let parsed: Value = serde_json::from_str(&json).unwrap_or_else(|_| {
        // One object a line is JSON too.
        Value::Array(json.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect())
    });
    assert_eq!(parsed.as_array().map(Vec::len), Some(1), "{json}");
    assert_eq!((&parsed[0]["item_id"], &parsed[0]["current_inventory"]), (&json!(7), &json!(7)));
    // Items below their safety stock, which is 5 for all.
    let low = show(&lake, &["inventory_current", "--below-safety-stock", "--format", "csv"]);
    assert_eq!(low.lines().count(), 5, "{low}");
    let unsold = show(&lake, &["inventory_change", "--format", "csv"]);
    assert!(unsold.starts_with("trans_id,store_id,date_time,change_type_id,item_id,quantity"), "{unsold}");
    for table in [
        "raw_inventory_change",
        "inventory_snapshot",
        "latest_inventory_snapshot",
        "store",
        "item",
        "inventory_change_type",
        "quarantine",
        "quarantine_replay",
        "event_log",
    ] {
        show(&lake, &[table, "--limit", "3"]);
    }

    // The past: version 0 had no row.
    let first = show(&lake, &["inventory_current", "--version", "0", "--format", "csv"]);
    assert_eq!(first.lines().count(), 1, "{first}");
    let wrong = run(Command::new(binary("onhand-hub")).args(["show", "no_such_table"]).arg("--lake").arg(&lake));
    assert!(wrong.code != 0 && wrong.stderr.contains("inventory_current"), "{}", wrong.output());
    judge(&lake, &Verdict { gold: Some(9), ..Verdict::of(&till.ledger, sandbox.path("lines.csv")) });
}
