//! Count files from a folder: each once, also when the hub dies in between; `--once` takes what is there and ends.

use onhand_tests::judge::{all_rows, number_in_lake};
use onhand_tests::sandbox::{HubOptions, binary, run, settle, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};
use serde_json::json;
use std::fmt::Write;
use std::process::Command;

fn count_file(till: &mut Till, store: i32, day: u32) -> String {
    let mut text = String::from(",item_id,employee_id,store_id,date_time,quantity\n");
    for item in 1..=120 {
        let quantity = item * 3 + day as i32;
        writeln!(text, "{item},{item},7,{store},2021-01-{day:02} 00:00:00,{quantity}").unwrap();
        let at = format!("2021-01-{day:02}T00:00:00Z");
        till.ledger.count(&json!({"store_id": store, "item_id": item, "date_time": at, "quantity": quantity}));
    }
    text
}

#[test]
fn count_files_are_taken_once_each_through_a_kill() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("counts");
    std::fs::create_dir_all(&folder).unwrap();
    let mut hub = Hub::start(&sandbox, HubOptions::with(&["--count-files", folder.to_str().unwrap()]));
    let agent = Agent::start(&sandbox, "a", "1,2", &hub.mqtt_url());
    let mut till = Till::new(1, 18);
    for (store, day) in [(1, 5), (2, 5), (1, 2)] {
        let text = count_file(&mut till, store, day);
        std::fs::write(folder.join(format!("inventory_snapshot_{store}_2021-01-{day:02} 00:00:00")), text).unwrap();
    }
    for _ in 0..5 {
        till.sell(&agent.url(""), 20);
    }
    wait_until(
        "the first counts are there",
        || hub.log_tail(),
        || hub.item(2, 120).is_some_and(|item| item["uncounted"] == false),
    );
    hub.kill();
    let text = count_file(&mut till, 2, 9);
    std::fs::write(folder.join("inventory_snapshot_2_2021-01-09 00:00:00"), text).unwrap();
    hub.restart();
    wait_until(
        "the last counts are there",
        || hub.log_tail(),
        || {
            hub.item(2, 119).is_some_and(|item| item["snapshot_quantity"].as_i64().is_some_and(|q| q == 119 * 3 + 9))
                || hub
                    .item(2, 120)
                    .is_some_and(|item| item["snapshot_quantity"].as_i64().is_some_and(|q| q == 120 * 3 + 9))
        },
    );
    // All that is in the lake by now; the last file is behind the others, of which the next hub takes none again.
    settle(&hub, &[&agent]);
    hub.kill();
    let text = count_file(&mut till, 3, 12);
    std::fs::write(folder.join("inventory_snapshot_3_2021-01-12 00:00:00"), text).unwrap();
    hub.restart();
    wait_until(
        "the count of after the second kill is there",
        || hub.log_tail(),
        || hub.item(3, 120).is_some_and(|item| item["uncounted"] == false),
    );
    settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}

fn run_once(sandbox: &Sandbox, more: &[&str]) {
    let mut command = Command::new(binary("onhand-hub"));
    command.arg("run").arg("--once").arg("--lake").arg(sandbox.lake()).arg("--reference").arg(sandbox.reference());
    command.args(["--listen-mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]).args(more);
    run(&mut command).expect_success();
}

#[test]
fn once_takes_what_is_there_and_ends() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("counts");
    std::fs::create_dir_all(&folder).unwrap();
    let mut till = Till::new(1, 19);
    for (store, day) in [(1, 5), (2, 6)] {
        let text = count_file(&mut till, store, day);
        let file = folder.join(format!("inventory_snapshot_{store}_2021-01-{day:02} 00:00:00"));
        std::fs::write(&file, text).unwrap();
        run(Command::new("touch").args(["-d", "1 hour ago"]).arg(&file)).expect_success();
    }
    let lake = sandbox.lake();
    let expected = Verdict { gold: Some(240), ..Verdict::of(&till.ledger, sandbox.path("lines.csv")) };
    run_once(&sandbox, &["--count-files", folder.to_str().unwrap()]);
    judge(&lake, &expected);
    for (table, count) in [("store", 4), ("inventory_change_type", 4), ("item", 500), ("quarantine", 0)] {
        assert_eq!(number_in_lake(&lake, &format!("SELECT count(*) FROM {table}")), count, "{table}");
    }

    let before = all_rows(&lake);
    run_once(&sandbox, &["--count-files", folder.to_str().unwrap()]);
    judge(&lake, &expected);
    assert!(before == all_rows(&lake), "nothing lay ready, and rows changed");
}

#[test]
fn once_restates_gold_from_reference_data_that_lies_ready() {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let mut agent = Agent::start(&sandbox, "a", "9", &hub.mqtt_url());
    let mut till = Till::new(9, 23);
    let at = "2021-01-01T00:00:00Z";
    till.send_count(&agent, &json!({"item_id": 10, "employee_id": 7, "store_id": 9, "date_time": at, "quantity": 20}));
    let sale = json!({"trans_id": "s", "store_id": 9, "date_time": at, "change_type_id": 1,
                      "items": [{"item_id": 10, "quantity": -3}]});
    till.send(&agent, &sale);
    settle(&hub, &[&agent]);
    assert!(agent.terminate().success() && hub.terminate().success(), "{}", hub.log_tail());
    let lake = sandbox.lake();
    let on_hand = || number_in_lake(&lake, "SELECT current_inventory FROM inventory_current");
    assert_eq!(on_hand(), 20, "store 9 is not known yet");

    sandbox.write_stores(&[(0, "online"), (9, "store 9")]);
    run_once(&sandbox, &[]);
    assert_eq!(on_hand(), 17);
    judge(&lake, &Verdict { gold: Some(1), ..Verdict::of(&till.ledger, sandbox.path("lines.csv")) });
    let before = all_rows(&lake);
    run_once(&sandbox, &[]);
    judge(&lake, &Verdict::default());
    assert!(before == all_rows(&lake), "nothing lay ready, and rows changed");
}
