//! Checkpoints that the hub writes are what other engines read when the log entries before them are gone.

use onhand_tests::judge::all_rows;
use onhand_tests::sandbox::{HubOptions, copy_folder, settle, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge, open_with_polars};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The version of a table's newest checkpoint.
fn checkpoint(log: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(log.join("_last_checkpoint")).ok()?;
    serde_json::from_str::<Value>(&text).ok()?["version"].as_u64()
}

fn log_of(lake: &Path, table: &str) -> PathBuf {
    lake.join(table).join("_delta_log")
}

/// Removes the log entries before a table's newest checkpoint; returns how many.
fn remove_entries_before_checkpoint(log: &Path) -> usize {
    let version = checkpoint(log).expect("the table has a checkpoint");
    let entries: Vec<PathBuf> = (0..version).map(|before| log.join(format!("{before:020}.json"))).collect();
    let there: Vec<&PathBuf> = entries.iter().filter(|entry| entry.exists()).collect();
    there.iter().for_each(|entry| std::fs::remove_file(entry).expect("an entry can be removed"));
    there.len()
}

#[test]
fn other_engines_read_the_hubs_checkpoints() {
    let sandbox = Sandbox::new();
    // A checkpoint comes with every hundredth commit, so these come quickly.
    let options = HubOptions::with(&["--silver-interval", "10ms", "--gold-interval", "10ms"]);
    let mut hub = Hub::start(&sandbox, options);
    let agent = Agent::start(&sandbox, "a", "1,2", &hub.mqtt_url());
    let selling = Till::new(1, 24).sell_on(&agent, 100);
    let lake = sandbox.lake();
    let tables = ["silver/inventory_change", "silver/inventory_snapshot", "gold/inventory_current"];
    let logs = tables.map(|table| log_of(&lake, table));
    wait_until(
        "silver and gold have checkpoints",
        || format!("{:?}\n{}", logs.each_ref().map(|log| checkpoint(log)), hub.log_tail()),
        || logs.iter().all(|log| checkpoint(log).is_some()),
    );
    let till = selling.stop();
    settle(&hub, &[&agent]);
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    let expected = Verdict::of(&till.ledger, sandbox.path("lines.csv"));
    judge(&lake, &expected);

    let copy = sandbox.path("copy");
    copy_folder(&lake, &copy);
    for table in tables {
        let removed = remove_entries_before_checkpoint(&log_of(&copy, table));
        assert!(removed > 0, "{table}: no entry lay before the checkpoint");
    }
    judge(&copy, &expected);
    open_with_polars(&copy);
    assert!(all_rows(&copy) == all_rows(&lake), "the checkpoints say something else than the log");
}
