//! Count files from a folder: each once, also when the hub dies in between; `--once` takes what is there and ends.

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
    settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}

#[test]
fn once_takes_what_is_there_and_ends() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("counts");
    std::fs::create_dir_all(&folder).unwrap();
    let mut till = Till::new(1, 19);
    let text = count_file(&mut till, 1, 5);
    let file = folder.join("inventory_snapshot_1_2021-01-05 00:00:00");
    std::fs::write(&file, text).unwrap();
    run(Command::new("touch").args(["-d", "1 hour ago"]).arg(&file)).expect_success();
    for _ in 0..2 {
        let mut command = Command::new(binary("onhand-hub"));
        command.arg("run").arg("--once").arg("--lake").arg(sandbox.lake()).arg("--reference").arg(sandbox.reference());
        command.arg("--count-files").arg(&folder).args(["--listen-mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        run(&mut command).expect_success();
        judge(&sandbox.lake(), &Verdict { gold: Some(120), ..Verdict::of(&till.ledger, sandbox.path("lines.csv")) });
    }
}
