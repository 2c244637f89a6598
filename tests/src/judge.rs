//! The judges of a lake: `onhand-hub verify`, DuckDB, Polars.

use crate::load::number;
use crate::sandbox::{binary, run, target_folder};
use crate::tills::Ledger;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is expected of a lake, beside that gold equals the rule.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Lines in silver.
    pub changes: Option<u64>,
    /// Counts in silver.
    pub counts: Option<u64>,
    /// Rows in gold.
    pub gold: Option<u64>,
    /// Just these lines: a CSV file.
    pub lines: Option<PathBuf>,
    /// Beside those, lines that may be there once: a CSV file.
    pub free_lines: Option<PathBuf>,
    /// Just these counts: a CSV file.
    pub count_rows: Option<PathBuf>,
    /// Beside those, counts that may be there once: a CSV file.
    pub free_count_rows: Option<PathBuf>,
    /// Rows in quarantine.
    pub quarantine: Option<u64>,
    /// Frames of an agent need not have arrived in order, as where gateways share a broker.
    pub any_order: bool,
    /// The folder whose files silver's reference data shall be.
    pub reference: Option<PathBuf>,
    /// So many former versions of gold are judged, too.
    pub former: Option<u64>,
    /// What this dataset's own files say.
    pub dataset: Option<PathBuf>,
}

impl Verdict {
    /// Just what a ledger holds, which is written to this file and one beside it.
    pub fn of(ledger: &Ledger, file: PathBuf) -> Self {
        let count_rows = file.with_extension("counts.csv");
        ledger.write_lines(&file);
        ledger.write_counts(&count_rows);
        let (changes, counts) = (Some(ledger.lines()), Some(ledger.counts()));
        Self { changes, counts, lines: Some(file), count_rows: Some(count_rows), ..Self::default() }
    }
}

/// Has `onhand-hub verify`, DuckDB and Polars look at a lake at rest. Returns what DuckDB said.
///
/// # Panics
/// If one of them finds something.
pub fn judge(lake: &Path, expected: &Verdict) -> String {
    let (code, output) = verify(lake);
    assert!(code == 0, "verify: status {code}\n{output}");
    run(&mut judging(lake, expected)).expect_success()
}

/// What DuckDB has to say of a lake that may not be at rest yet: its exit status and words.
pub fn judge_so_far(lake: &Path, expected: &Verdict) -> (i32, String) {
    let ran = run(&mut judging(lake, expected));
    (ran.code, ran.said())
}

fn judging(lake: &Path, expected: &Verdict) -> Command {
    let mut command = python("judge.py");
    command.arg(lake);
    if expected.any_order {
        command.arg("--any-order");
    }
    for (flag, number) in [
        ("--expect-changes", expected.changes),
        ("--expect-counts", expected.counts),
        ("--expect-gold", expected.gold),
        ("--expect-quarantine", expected.quarantine),
        ("--former", expected.former),
    ] {
        if let Some(number) = number {
            command.args([flag, &number.to_string()]);
        }
    }
    for (flag, path) in [
        ("--expect-lines", &expected.lines),
        ("--free-lines", &expected.free_lines),
        ("--expect-count-rows", &expected.count_rows),
        ("--free-count-rows", &expected.free_count_rows),
        ("--reference", &expected.reference),
        ("--dataset", &expected.dataset),
    ] {
        if let Some(path) = path {
            command.arg(flag).arg(path);
        }
    }
    command
}

/// Runs `onhand-hub verify`: its exit status and what it printed.
pub fn verify(lake: &Path) -> (i32, String) {
    let ran = run(Command::new(binary("onhand-hub")).arg("verify").arg("--lake").arg(lake));
    (ran.code, ran.output())
}

/// As [`verify`], with every version of gold that can still be opened.
pub fn verify_every_version(lake: &Path) -> (i32, String) {
    let ran = run(Command::new(binary("onhand-hub")).args(["verify", "--every-version", "--lake"]).arg(lake));
    (ran.code, ran.output())
}

/// Has every version of gold compared: none may differ, and none be skipped. Returns how many there are.
///
/// # Panics
/// If it is otherwise.
pub fn judge_every_version(lake: &Path) -> u64 {
    let (code, output) = verify_every_version(lake);
    let compared = output.lines().find_map(|line| line.strip_suffix(" gold versions compared, 0 skipped, 0 differing"));
    let compared = compared.filter(|_| code == 0).unwrap_or_else(|| panic!("verify --every-version: {output}"));
    compared.parse().expect("a number of versions")
}

/// As [`verify`], wherever the lake is, with the environment that leads there.
pub fn verify_at(lake: &str, environment: &[(String, String)]) -> (i32, String) {
    let mut command = Command::new(binary("onhand-hub"));
    let ran = run(command.args(["verify", "--lake", lake]).envs(environment.iter().cloned()));
    (ran.code, ran.output())
}

/// The judge's exit status and words, where it may find something.
pub fn judge_says(lake: &Path) -> (i32, String) {
    let ran = run(python("judge.py").arg(lake));
    (ran.code, ran.output())
}

/// Opens every table with Polars, and compares its rows with DuckDB's.
pub fn open_with_polars(lake: &Path) -> String {
    run(python("open_with_polars.py").arg(lake)).expect_success()
}

/// Runs the README's Python examples in a folder that has `onhand-data/lake`; returns what they print.
pub fn run_readme_examples(folder: &Path) -> String {
    run(python("readme_examples.py").current_dir(folder)).expect_success()
}

/// Writes a wrong row into gold, with another Delta writer.
pub fn plant_difference(lake: &Path) {
    run(python("plant_difference.py").arg(lake)).expect_success();
}

/// Has delta-rs make a Delta table somewhere, in so many commits, and read it: its version, and the sum of the numbers from
/// 0 that the commits brought, one each.
pub fn append_commits(uri: &str, environment: &[(String, String)], commits: u32) -> String {
    let mut command = python("append_commits.py");
    command.args([uri, &commits.to_string()]).envs(environment.iter().cloned());
    run(&mut command).expect_success().trim().to_owned()
}

/// Rows of a SQL query over the lake, by DuckDB. Tables go by the last part of their path; times are microseconds.
pub fn ask_lake(lake: &Path, sql: &str) -> Vec<Vec<Value>> {
    let printed = run(python("query.py").arg(lake).arg(sql)).expect_success();
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{sql}: {error}: {printed}"))
}

/// The one number that a SQL query over the lake gives.
pub fn number_in_lake(lake: &Path, sql: &str) -> i64 {
    ask_lake(lake, sql)[0][0].as_i64().unwrap_or_else(|| panic!("{sql} gives no number"))
}

/// Each commit to a table of silver brought only such events of an agent as come after all that it had before. Returns in how
/// many commits they came. Nothing may have been vacuumed.
///
/// # Panics
/// If it is otherwise.
pub fn events_in_order(lake: &Path, agent: &str) -> u64 {
    number(&run(python("order.py").arg(lake).arg(agent)).expect_success(), "commits")
}

/// A row of silver/quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Where it came from.
    pub source: String,
    /// Why it was refused.
    pub reason: String,
    /// The field, or whatever else there is to say.
    pub detail: String,
    /// What was refused.
    pub payload: Vec<u8>,
}

/// All rows of silver/quarantine, the oldest first.
pub fn quarantined(lake: &Path) -> Vec<Quarantined> {
    let rows = ask_lake(lake, "SELECT source, reason, detail, hex(payload) FROM quarantine ORDER BY received_at");
    let row = |row: Vec<Value>| {
        let [source, reason, detail, payload] = row.as_slice() else { panic!("{row:?} has four columns") };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let digits = text(payload);
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
        let payload = (0..digits.len()).step_by(2).map(byte).collect();
        Quarantined { source: text(source), reason: text(reason), detail: text(detail), payload }
    };
    rows.into_iter().map(row).collect()
}

/// Has delta-rs, Polars and DuckDB open a table; they read it, as it was, once `go` is there. The program prints what came
/// of it; `column` is summed.
pub fn slow_reader(table: &Path, column: &str, go: &Path) -> Command {
    let mut command = python("slow_reader.py");
    command.arg(table).arg(column).arg(go);
    command
}

/// All rows of silver's events and of gold, in an order of their own.
pub fn all_rows(lake: &Path) -> Vec<Vec<Vec<Value>>> {
    ["inventory_change", "inventory_snapshot", "inventory_current", "latest_inventory_snapshot"]
        .map(|table| ask_lake(lake, &format!("SELECT * FROM {table} ORDER BY ALL")))
        .into()
}

/// The Python that has what the judges need.
///
/// # Errors
/// If it is not installed: what to do.
pub fn environment() -> Result<PathBuf, String> {
    let python = target_folder().parent().expect("target/release lies in target").join("judge/bin/python");
    if python.is_file() {
        Ok(python)
    } else {
        Err(format!("{} is not there: run tests/run --install", python.display()))
    }
}

/// The command that runs a script of `tests/judge/`.
pub fn python(script: &str) -> Command {
    let mut command = Command::new(environment().unwrap_or_else(|error| panic!("{error}")));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("judge").join(script));
    command
}
