//! The end of a run: is everything that is owed once in silver, as it was said, and nothing else; is gold what the rule says, at
//! each of its versions, and the API what gold says; is there nothing in quarantine that the run did not cause; does bronze
//! make the same lake?

use super::fault::Who;
use super::findings::{Findings, Told};
use super::floor::Floor;
use super::keeper::Keeper;
use super::ledger::{self, Account, Owed};
use super::options::Form;
use super::upkeep;
use super::world::World;
use onhand_tests::Verdict;
use onhand_tests::judge::{ask_lake, judge_so_far, quarantined, verify_every_version};
use onhand_tests::load::number;
use onhand_tests::sandbox::{Process, binary, get_json, run};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Former versions of gold that DuckDB judges.
const FORMER: u64 = 4;

/// Who watched the run, and what is to be done with its lake.
pub struct Watchers {
    /// Reads gold while it is written.
    pub reader: Option<Process>,
    /// Keeps what upkeep deletes.
    pub keeper: Keeper,
    /// In the end the lake is made anew from bronze.
    pub from_bronze: bool,
}

/// What the judge is told to expect.
fn expected(world: &World, account: &Account) -> Verdict {
    let file = |name: &str, list, lines| {
        let path = world.sandbox.path(name);
        ledger::write(list, lines, &path);
        Some(path)
    };
    Verdict {
        lines: file("owed-lines.csv", &account.owed, true),
        free_lines: file("free-lines.csv", &account.free, true),
        count_rows: file("owed-counts.csv", &account.owed, false),
        free_count_rows: file("free-counts.csv", &account.free, false),
        reference: Some(world.sandbox.reference()),
        any_order: world.form == Form::Kafka || world.epochs_may_fall(),
        ..Verdict::default()
    }
}

/// Whether all that is owed is in silver and gold reflects it; if not, what is missing.
pub fn is_there(world: &World, floor: &Floor) -> Result<(), String> {
    let account = floor.ledger().account();
    match judge_so_far(&world.sandbox.lake(), &expected(world, &account)) {
        (0, _) => Ok(()),
        (_, output) => Err(output),
    }
}

/// Copies what disks hold that are gone with this process, for whoever looks at a run that failed.
pub fn keep_disks(world: &World) {
    for (who, disk) in &world.disks {
        let copy = world.sandbox.path(&format!("disk of {who}"));
        run(Command::new("cp").arg("-a").arg(disk.path()).arg(copy));
    }
}

/// Has the processes stop, and judges what they left.
pub fn audit(world: &mut World, floor: &Floor, watchers: Watchers, findings: &Findings, told: &mut Told) {
    let said = world.hub.as_ref().map(|hub| said_by_api(&hub.url("")));
    for who in world.everyone() {
        let stops = match who {
            Who::Hub | Who::Processor(_) | Who::Agent(_) | Who::Gateway(_) => world.program(who).terminate(),
            Who::Broker | Who::Kafka => {
                world.program(who).kill();
                continue;
            }
        };
        if !stops.success() {
            findings.add(format!("{who} did not stop well: {stops}\n{}", world.program(who).log_tail()));
        }
    }
    if let Some(mut reader) = watchers.reader {
        let read = reader.terminate();
        let printed = reader.printed();
        if printed.contains("FOUND") || !read.success() {
            findings.add(format!("the reader: {read}\n{}", reader.log_tail()));
        } else {
            told.versions_read = number(&printed, "versions");
            findings.say(&format!("the reader {}", printed.trim()));
        }
    }
    let account = floor.ledger().account();
    let counts = account.owed.iter().filter(|Owed { entry, .. }| matches!(entry, ledger::Entry::Count { .. })).count();
    (told.counts, told.lines) = (counts as u64, (account.owed.len() - counts) as u64);
    told.free = account.free.len() as u64;
    let lake = world.sandbox.lake();
    let expected = expected(world, &account);
    judge("the judge", &lake, &expected, findings);
    if let Some(said) = said {
        told.api_rows = said.len() as u64;
        compare_api(&said, &lake, findings);
    }
    let whole = world.sandbox.path("whole");
    match watchers.keeper.whole(&whole) {
        Ok(()) => {
            told.upkeep = upkeep::count(&lake, &whole);
            judge_former(&whole, world.form, findings, told);
        }
        Err(error) => findings.add(format!("the lake cannot be read: {error}")),
    }
    for row in quarantined(&lake) {
        told.quarantined += 1;
        if !world.wires.values().any(|wire| wire.meddled().explains(&row.payload)) {
            findings.add(format!("in quarantine, and nobody damaged it: {row:?}"));
        }
    }
    told.damaged = world.wires.values().map(|wire| wire.meddled().damaged.len() as u64).sum();
    if watchers.from_bronze {
        told.from_bronze = true;
        let rebuild = |accept: Option<&str>| {
            let mut command = Command::new(binary("onhand-hub"));
            run(command.args(["rebuild", "--from", "bronze", "--lake"]).arg(&lake).args(accept))
        };
        let mut rebuilt = rebuild(None);
        if rebuilt.code != 0 && rebuilt.output().contains("bronze lacks") {
            // Of a frame that the hub died with, silver may have the rows before bronze has the frame. Its agent sends it again,
            // unless its disk was lost: then nobody owes these rows, and the judge sees that there are no others.
            told.bronze_lacks = true;
            rebuilt = rebuild(Some("--accept-loss"));
        }
        if rebuilt.code == 0 {
            judge("the judge, of what bronze makes", &lake, &expected, findings);
        } else {
            findings.add(format!("rebuild from bronze: {}", rebuilt.output()));
        }
    }
    if told.lines == 0 {
        findings.add("nothing was sold".to_owned());
    }
}

fn judge(who: &str, lake: &Path, expected: &Verdict, findings: &Findings) {
    let (code, output) = judge_so_far(lake, expected);
    if code == 0 {
        findings.say(output.lines().find(|line| line.starts_with("equal")).unwrap_or_default());
    } else {
        findings.add(format!("{who}: {output}"));
    }
}

/// Every version that gold ever had is the rule over the silver that it names, says verify; of some, DuckDB says so, too.
fn judge_former(whole: &Path, form: Form, findings: &Findings, told: &mut Told) {
    let (code, output) = verify_every_version(whole);
    let all = output.lines().find_map(|line| line.strip_suffix(" gold versions compared, 0 skipped, 0 differing"));
    match all.and_then(|compared| compared.parse().ok()) {
        Some(compared) if code == 0 => {
            told.gold_versions = compared;
            findings.say(&format!("each of gold's {compared} versions is the rule's"));
        }
        _ => findings.add(format!("verify of every version: {output}")),
    }
    if form == Form::Kafka {
        // There each partition reflects versions of its own: verify knows which, the judge does not.
        return;
    }
    let (code, output) = judge_so_far(whole, &Verdict { former: Some(FORMER), any_order: true, ..Verdict::default() });
    let judged = output.lines().find_map(|line| line.strip_prefix("former versions judged: "));
    told.former_versions = judged.map_or(0, |list| list.matches([',', ']']).count() as u64);
    if code == 0 && told.former_versions > 0 {
        findings.say(&format!("former versions judged: {}", judged.unwrap_or_default()));
    } else {
        findings.add(format!("the judge, of former versions: {output}"));
    }
}

/// What the hub's API says of all counted items: rows as gold has them.
fn said_by_api(hub: &str) -> Vec<Value> {
    let (mut rows, mut from) = (Vec::new(), String::new());
    loop {
        let page = get_json(&format!("{hub}/v1/inventory?limit=500{from}")).unwrap_or_default();
        let items = page["items"].as_array().cloned().unwrap_or_default();
        let counted = items.iter().filter(|item| item["uncounted"] == json!(false));
        rows.extend(counted.map(|item| {
            let at = item["date_time"].as_str().and_then(|at| chrono::DateTime::parse_from_rfc3339(at).ok());
            let micros = at.map(|at| at.timestamp_micros());
            let number = |name: &str| item[name].clone();
            json!([
                number("store_id"),
                number("item_id"),
                number("snapshot_quantity"),
                number("change_quantity"),
                number("current_inventory"),
                micros
            ])
        }));
        match page["next_cursor"].as_str() {
            Some(cursor) => from = format!("&cursor={cursor}"),
            None => return rows,
        }
    }
}

fn compare_api(said: &[Value], lake: &Path, findings: &Findings) {
    let sql = "SELECT store_id, item_id, snapshot_quantity, change_quantity, current_inventory, date_time \
               FROM inventory_current ORDER BY store_id, item_id";
    let gold: Vec<Value> = ask_lake(lake, sql).into_iter().map(Value::from).collect();
    if said == gold {
        return findings.say(&format!("the API said the same of {} items", said.len()));
    }
    let differs = |one: &[Value], other: &[Value]| one.iter().find(|row| !other.contains(row)).map(Value::to_string);
    findings.add(format!(
        "the API said {} rows, gold has {}; only the API: {:?}, only gold: {:?}",
        said.len(),
        gold.len(),
        differs(said, &gold),
        differs(&gold, said)
    ));
}

/// No process may have panicked, whatever happened to it.
pub fn look_for_panics(folder: &Path, findings: &Findings) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        let text = std::fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        for line in text.lines().filter(|line| line.contains("panicked at")) {
            findings.add(format!("{}: {line}", path.display()));
        }
    }
}
