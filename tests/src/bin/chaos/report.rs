//! What happened, for people and for a file.

use super::findings::{Told, over_all};
use super::options::Options;
use super::schedule::every_point;
use onhand_tests::machine;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Of one run.
pub fn one(told: &Told) -> String {
    let list = |map: &BTreeMap<String, u64>| {
        map.iter().map(|(what, times)| format!("{times} {what}")).collect::<Vec<_>>().join(", ")
    };
    let result =
        if told.findings.is_empty() { "nothing lost, nothing doubled, gold equals the rule" } else { "FAILED" };
    let mut text = format!(
        "faults: {}\npoints: {}\nupkeep: {}; a reader read {} versions\naccepted: {} documents; owed {} lines, {} counts; lost with a disk {}; {} frames damaged, {} rows in \
         quarantine; {} versions of gold, all compared, {} by DuckDB, too; {} rows of the API; {}\n\
         seed {}: {result} ({:.0} s)",
        list(&told.faults),
        list(&told.points),
        list(&told.upkeep),
        told.versions_read,
        told.documents,
        told.lines,
        told.counts,
        told.free,
        told.damaged,
        told.quarantined,
        told.gold_versions,
        told.former_versions,
        told.api_rows,
        if told.from_bronze { "made anew from bronze" } else { "not made anew" },
        told.seed,
        told.seconds
    );
    told.findings.iter().for_each(|finding| write!(text, "\nFOUND: {finding}").expect("as any text"));
    text
}

fn total(done: &[Told], of: impl Fn(&Told) -> u64) -> u64 {
    done.iter().map(of).sum()
}

fn totals(done: &[Told], of: impl Fn(&Told) -> &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (what, times) in done.iter().flat_map(of) {
        *sums.entry(what.clone()).or_default() += times;
    }
    sums
}

/// Of many, for a terminal.
pub fn summary(done: &[Told], options: &Options, took: Duration) -> String {
    let failed: Vec<&Told> = done.iter().filter(|told| !told.findings.is_empty()).collect();
    let upkeep = totals(done, |told| &told.upkeep).into_iter().map(|(what, times)| format!("{times} {what}"));
    let upkeep: Vec<String> = upkeep.collect();
    let mut text = format!(
        "{} runs of {} s in {} form, {} jobs, {:.0} min: {} faults, {} armed points reached, {} documents accepted, {} lines and \
         {} counts owed, meanwhile {}, {} versions of gold read by another reader; {} versions of gold compared ({} by DuckDB, too), {} rows of the API, {} lakes made anew from bronze \
         ({} of them without rows of a lost disk that only silver had), {} failed",
        done.len(),
        options.length().as_secs(),
        options.form,
        options.jobs,
        took.as_secs_f64() / 60.,
        total(done, |told| told.faults.values().sum()),
        total(done, |told| told.points.values().sum()),
        total(done, |told| told.documents),
        total(done, |told| told.lines),
        total(done, |told| told.counts),
        upkeep.join(", "),
        total(done, |told| told.versions_read),
        total(done, |told| told.gold_versions),
        total(done, |told| told.former_versions),
        total(done, |told| told.api_rows),
        total(done, |told| told.from_bronze.into()),
        total(done, |told| told.bronze_lacks.into()),
        failed.len()
    );
    for told in failed {
        let (found, replay) = (told.in_short(), options.replay(told.seed));
        write!(text, "\nseed {}: {found}\n  replay: {replay}", told.seed).expect("as any text");
    }
    for why in over_all(done) {
        write!(text, "\nFOUND over all runs: {why}").expect("as any text");
    }
    text
}

/// Of many, for the repository.
pub fn markdown(done: &[Told], options: &Options, took: Duration) -> String {
    let mut text = format!("# Chaos, {} form\n\n{}\n\n", options.form, summary(done, options, took));
    let mut line = |written: std::fmt::Arguments<'_>| text.write_fmt(written).expect("as any text");
    line(format_args!("- machine: {}\n- commit: {}\n", machine::describe(), machine::commit()));
    // With those that were never reached.
    let mut points: BTreeMap<_, _> = every_point(options.form).into_iter().map(|point| (point, 0)).collect();
    points.extend(totals(done, |told| &told.points));
    for (title, sums) in [
        ("What happened", totals(done, |told| &told.faults)),
        ("Armed points that were reached", points),
        ("Upkeep meanwhile", totals(done, |told| &told.upkeep)),
    ] {
        line(format_args!("\n## {title}\n\n| what | times |\n|---|---|\n"));
        sums.iter().for_each(|(what, times)| line(format_args!("| {what} | {times} |\n")));
    }
    line(format_args!(
        "\n## Runs\n\n| seed | faults | points | documents | lines owed | counts owed | lost with a disk | in quarantine | gold versions | by DuckDB | from bronze | s | result |\n|{}\n",
        "---|".repeat(13)
    ));
    for told in done {
        let result = if told.findings.is_empty() { "equal" } else { "FAILED" };
        let (faults, points): (u64, u64) = (told.faults.values().sum(), told.points.values().sum());
        line(format_args!(
            "| {} | {faults} | {points} | {} | {} | {} | {} | {} | {} | {} | {} | {:.0} | {result} |\n",
            told.seed,
            told.documents,
            told.lines,
            told.counts,
            told.free,
            told.quarantined,
            told.gold_versions,
            told.former_versions,
            match (told.from_bronze, told.bronze_lacks) {
                (true, true) => "without some",
                (true, false) => "yes",
                (false, _) => "",
            },
            told.seconds
        ));
    }
    text
}
