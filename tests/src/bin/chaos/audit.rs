//! The end of a run: is everything that is owed once in silver, with its quantity, and nothing else; is gold what the rule
//! says; is there nothing in quarantine that the run did not cause?

use super::fault::Who;
use super::findings::{Findings, Told};
use super::floor::Floor;
use super::ledger::{self, Account};
use super::options::Form;
use super::world::World;
use onhand_tests::Verdict;
use onhand_tests::judge::{judge_so_far, quarantined, verify_every_version};
use onhand_tests::sandbox::{Process, run};
use std::path::Path;
use std::process::Command;

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
        any_order: world.form == Form::Kafka || !world.clocks.is_empty(),
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
pub fn audit(world: &mut World, floor: &Floor, reader: Option<Process>, findings: &Findings, told: &mut Told) {
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
    if let Some(mut reader) = reader {
        let read = reader.terminate();
        let printed = reader.printed();
        if printed.contains("FOUND") || !read.success() {
            findings.add(format!("the reader: {read}\n{}", reader.log_tail()));
        } else {
            findings.say(&format!("the reader {}", printed.trim()));
        }
    }
    let account = floor.ledger().account();
    let counts = account.owed.iter().filter(|(entry, _)| matches!(entry, ledger::Entry::Count { .. })).count();
    (told.counts, told.lines) = (counts as u64, (account.owed.len() - counts) as u64);
    told.free = account.free.len() as u64;
    let lake = world.sandbox.lake();
    let (code, output) = judge_so_far(&lake, &expected(world, &account));
    if code == 0 {
        findings.say(output.lines().find(|line| line.starts_with("equal")).unwrap_or_default());
    } else {
        findings.add(format!("the judge: {output}"));
    }
    let (code, output) = verify_every_version(&lake);
    if code == 0 {
        findings.say(output.lines().rfind(|line| line.contains("differing")).unwrap_or(&output));
    } else {
        findings.add(format!("verify: {output}"));
    }
    for row in quarantined(&lake) {
        told.quarantined += 1;
        if !world.wires.iter().any(|wire| wire.meddled().explains(&row.payload)) {
            findings.add(format!("in quarantine, and nobody damaged it: {row:?}"));
        }
    }
    told.damaged = world.wires.iter().map(|wire| wire.meddled().damaged.len() as u64).sum();
    told.gold_versions = gold_versions(&lake);
    if world.form == Form::Embedded && told.lines == 0 {
        findings.add("nothing was sold".to_owned());
    }
}

/// Commits to gold that its log still has.
fn gold_versions(lake: &Path) -> u64 {
    let log = lake.join("gold/inventory_current/_delta_log");
    let entries = std::fs::read_dir(log).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json")).count() as u64
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
