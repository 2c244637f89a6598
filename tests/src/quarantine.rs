//! The quarantine as an operator sees it: by `onhand-hub quarantine`.

use crate::sandbox::{binary, run};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// What a command said, and its exit status.
pub type Said = (i32, String);

/// The rows as `list` shows them, the newest first.
pub fn list(lake: &Path, more: &[&str]) -> Vec<Value> {
    let printed = run(command(lake, "list", more).args(["--format", "json"])).expect_success();
    let rows: Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
    rows.as_array().expect("an array of rows").clone()
}

/// The ids of the rows that `list` shows, the newest first.
pub fn ids(lake: &Path, more: &[&str]) -> Vec<String> {
    list(lake, more).iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
}

/// What `show` says of a row.
pub fn show(lake: &Path, id: &str, more: &[&str]) -> String {
    run(command(lake, "show", &[id]).args(more)).expect_success()
}

/// Replays a row.
pub fn replay(lake: &Path, id: &str, more: &[&str]) -> Said {
    let ran = run(command(lake, "replay", &[id]).args(more));
    (ran.code, ran.output())
}

/// Asks for a replay and does not wait: no hub takes it so fast.
///
/// # Panics
/// If it is not asked for.
pub fn ask(lake: &Path, id: &str, more: &[&str]) {
    let (_, said) = replay(lake, id, &[more, &["--wait", "0s"]].concat());
    assert!(said.contains("asked for"), "{said}");
}

fn command(lake: &Path, verb: &str, more: &[&str]) -> Command {
    let mut command = Command::new(binary("onhand-hub"));
    command.args(["quarantine", verb]).args(more).arg("--lake").arg(lake);
    command
}
