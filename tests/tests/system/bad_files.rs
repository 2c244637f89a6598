//! Broken files, in the drop folder of an agent and in the hub's folder of count files: rejected with a reason, as a whole.

use onhand_tests::judge::ask_lake;
use onhand_tests::sandbox::{HubOptions, settle, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};
use serde_json::json;
use std::path::Path;

const CHANGES: &str = "trans_id,item_id,store_id,date_time,quantity,change_type_id\n";
const COUNTS: &str = "item_id,employee_id,store_id,date_time,quantity\n";

fn names(folder: &Path) -> Vec<String> {
    let entries: Vec<std::fs::DirEntry> =
        std::fs::read_dir(folder).map(|entries| entries.filter_map(Result::ok).collect()).unwrap_or_default();
    entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_drop_folders_files_are_taken_whole_or_rejected_with_a_reason() {
    let sandbox = Sandbox::new();
    let drop = sandbox.path("drop");
    std::fs::create_dir_all(&drop).unwrap();
    let hub = Hub::start(&sandbox, HubOptions::default());
    let more = ["--drop-folder", drop.to_str().unwrap()];
    let agent = Agent::start_with(&sandbox, "a", "1", &hub.mqtt_url(), &more);
    let bad = [
        ("inventory_change_text.txt", "Dear Sir or Madam,\nthe till is broken.\n".to_owned()),
        ("inventory_change_zip.txt", "\u{1f}\u{8b}\u{8}".to_owned()),
        (
            "inventory_change_line.txt",
            format!("{CHANGES}{{ok}},10,1,2021-01-02 09:00:00,-1,1\n{{bad}},10,1,2021-01-02 09:00:00,-9999999999,1\n"),
        ),
        ("inventory_snapshot_year.txt", format!("{COUNTS}10,7,1,0000-01-01 00:00:00,5\n")),
        ("inventory_change_foreign.txt", format!("{CHANGES}{{f}},10,2,2021-01-02 09:00:00,-1,1\n")),
    ];
    for (name, content) in &bad {
        std::fs::write(drop.join(name), content).unwrap();
    }
    std::fs::write(
        drop.join("inventory_change_good.txt"),
        format!("{CHANGES}{{d-1}},10,1,2021-01-02 09:00:00,-1,1\n{{d-1}},11,1,2021-01-02 09:00:00,-4,1\n{{d-1}},10,1,2021-01-02 09:00:00,-2,1\n"),
    )
    .unwrap();
    std::fs::write(drop.join("inventory_snapshot_good.txt"), format!("{COUNTS}10,7,1,2021-01-01 00:00:00,50\n"))
        .unwrap();
    wait_until(
        "all files were looked at",
        || agent.log_tail(),
        || {
            names(&drop.join("done")).len() >= 2
                && bad.iter().all(|(name, _)| names(&drop.join("rejected")).iter().any(|n| n == name))
        },
    );
    let rejected = names(&drop.join("rejected"));
    for (name, _) in &bad {
        let beside = rejected.iter().find(|other| other.starts_with(name) && *other != name);
        let beside = beside.unwrap_or_else(|| panic!("no reason beside {name}: {rejected:?}"));
        let reason = std::fs::read_to_string(drop.join("rejected").join(beside)).unwrap();
        assert!(reason.contains("reason: ") && !reason.contains("line: 0"), "{name}: {reason}");
    }
    let mut till = Till::new(1, 11);
    till.ledger.transaction(&json!({
        "trans_id": "d-1", "store_id": 1, "date_time": "2021-01-02T09:00:00Z", "change_type_id": 1,
        "items": [{"item_id": 10, "quantity": -3}, {"item_id": 11, "quantity": -4}]
    }));
    till.ledger.count(&json!({"store_id": 1, "item_id": 10, "date_time": "2021-01-01T00:00:00Z", "quantity": 50}));
    let sale = till.document();
    till.send(&agent, &sale);
    settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}

#[test]
fn broken_count_files_go_into_quarantine_by_name_and_good_ones_are_taken() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("counts");
    std::fs::create_dir_all(&folder).unwrap();
    let hub = Hub::start(&sandbox, HubOptions::with(&["--count-files", folder.to_str().unwrap()]));
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let bad = [
        ("inventory_snapshot_1_20210101", "nobody counted anything here\n".to_owned()),
        ("inventory_snapshot_1_20210102", format!(",{COUNTS}0,10,7,1,9999-01-01 00:00:00,5\n")),
        ("inventory_snapshot_zip.txt", "\u{1f}\u{8b}\u{8}".to_owned()),
    ];
    for (name, content) in &bad {
        std::fs::write(folder.join(name), content).unwrap();
    }
    std::fs::write(
        folder.join("inventory_snapshot_1_20210103"),
        format!(",{COUNTS}0,10,7,1,2021-01-03 00:00:00,5\n1,11,7,1,2021-01-03 00:00:00,6\n"),
    )
    .unwrap();
    wait_until("the good file's counts are there", || hub.log_tail(), || hub.item(1, 11).is_some());
    let mut till = Till::new(1, 12);
    for (item, quantity) in [(10, 5), (11, 6)] {
        till.ledger
            .count(&json!({"store_id": 1, "item_id": item, "date_time": "2021-01-03T00:00:00Z", "quantity": quantity}));
    }
    let sale = till.document();
    till.send(&agent, &sale);
    let quarantined = || {
        let rows = ask_lake(&sandbox.lake(), "SELECT source, reason, detail FROM quarantine");
        rows.into_iter()
            .map(|row| row.iter().filter_map(|v| v.as_str()).collect::<Vec<_>>().join(" | "))
            .collect::<Vec<_>>()
    };
    wait_until(
        "all broken files are in quarantine",
        || format!("{:?}\n{}", quarantined(), hub.log_tail()),
        || {
            let rows = quarantined();
            bad.iter().all(|(name, _)| rows.iter().any(|row| row.contains(name)))
        },
    );
    settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
    assert_eq!(quarantined().len(), bad.len(), "{:?}", quarantined());
}
