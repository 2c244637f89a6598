//! What became of each patch, for a terminal and for the repository.

use crate::patch::Patch;
use onhand_tests::machine;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// What became of one.
pub struct Outcome {
    /// The patch's name.
    pub name: String,
    /// Which protection was gone.
    pub takes_out: String,
    /// Who had to notice.
    pub noticers: Vec<String>,
    /// What it said when it noticed; why not, otherwise.
    pub result: Result<String, String>,
    /// How long it took to build and to run.
    pub took: Duration,
}

impl Outcome {
    /// For a terminal.
    pub fn line(&self) -> String {
        let (word, detail) = match &self.result {
            Ok(detail) => ("good", detail),
            Err(detail) => ("BAD", detail),
        };
        format!("{word}: {} ({}): {detail}, {} s", self.name, self.takes_out, self.took.as_secs())
    }

    fn row(&self, commit: &str) -> String {
        let (word, detail) = match &self.result {
            Ok(detail) => ("noticed", detail.clone()),
            Err(detail) => ("NOT NOTICED", in_a_line(detail)),
        };
        let noticers: Vec<String> = self.noticers.iter().map(|noticer| format!("`{noticer}`")).collect();
        let (takes_out, noticers, detail) = (cell(&self.takes_out), noticers.join(", "), cell(&detail));
        format!("| {} | {takes_out} | {noticers} | {word} | {detail} | {commit} |", self.name)
    }
}

/// What became of those who notice, with nothing taken out.
pub struct Control {
    /// How many there are.
    pub ran: usize,
    /// Who failed, and why.
    pub failed: Vec<String>,
}

/// What the line about it begins with.
const CONTROL: &str = "With nothing taken out, ";

impl Control {
    fn line(&self, commit: &str) -> String {
        let (ran, failed) = (self.ran, self.failed.len());
        let mut line = format!("{CONTROL}built in the same way, {} of these {ran} pass ({commit}).", ran - failed);
        for failed in &self.failed {
            line += &format!(" Failed: {}.", in_a_line(failed));
        }
        line
    }
}

const HEAD: &str = "# What happens without each protection

Written by `cargo sabotage --report`: each protection was taken out of agent or hub by its patch in `tests/sabotage/`, and those
who have to notice, each of them, were run against that. A row stays until its patch is run again.

| patch | takes out | who has to notice | result | what it said | commit |
|---|---|---|---|---|---|
";

/// The commit of the tree, with a plus if anything differs from it. The report itself would, once a row of it is written: ask
/// before that.
pub fn commit() -> String {
    machine::commit() + if machine::has_changes() { "+" } else { "" }
}

/// Writes what became of them at a commit to a file; rows of others that are still there stay.
///
/// # Errors
/// If the file cannot be written.
pub fn write(file: &Path, outcomes: &[Outcome], all: &[Patch], commit: &str) -> std::io::Result<()> {
    let before = std::fs::read_to_string(file).unwrap_or_default();
    let done = outcomes.iter().map(|outcome| (outcome.name.as_str(), outcome.row(commit)));
    std::fs::write(file, merged(&before, done, all.iter().map(|patch| patch.name.as_str())))
}

/// Writes what became of a control run; the rows stay.
///
/// # Errors
/// If the file cannot be written.
pub fn write_control(file: &Path, control: &Control, commit: &str) -> std::io::Result<()> {
    let before = std::fs::read_to_string(file).unwrap_or_else(|_| HEAD.to_owned());
    let rest = before.lines().filter(|line| !line.starts_with(CONTROL));
    let rest: Vec<&str> = rest.collect();
    std::fs::write(file, format!("{}\n\n{}\n", rest.join("\n").trim_end(), control.line(commit)))
}

fn merged<'a>(
    before: &str,
    done: impl Iterator<Item = (&'a str, String)>,
    all: impl Iterator<Item = &'a str>,
) -> String {
    let name = |row: &str| row.strip_prefix("| ")?.split_once(" | ").map(|(name, _)| name.to_owned());
    let mut rows: BTreeMap<_, _> = before.lines().filter_map(|row| Some((name(row)?, row.to_owned()))).collect();
    rows.extend(done.map(|(name, row)| (name.to_owned(), row)));
    let table = all.filter_map(|name| rows.get(name)).fold(HEAD.to_owned(), |mut text, row| {
        writeln!(text, "{row}").expect("as any text");
        text
    });
    let control = before.lines().find(|line| line.starts_with(CONTROL));
    control.map_or_else(|| table.clone(), |control| format!("{table}\n{control}\n"))
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// What tests start that is not onhand's: if one of them does not start, nothing was noticed.
const PARTS: [&str; 5] = ["kafka", "mosquitto", "azurite", "s3", "gcs"];

/// Of what a test or a chaos run said, what it failed of: one line.
///
/// # Errors
/// If it says nothing of that, or not what it should.
pub fn reason(said: &str, should: Option<&str>) -> Result<String, String> {
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    let panic = lines.iter().position(|line| line.contains("panicked at "));
    let seeds = lines.iter().filter(|line| line.starts_with("seed ")).count();
    // The judge's verdict says more than who called it; a panic's message stands below its place; a chaos run says "seed N: …".
    let verdict = lines.iter().find(|line| match should {
        Some(should) => line.contains(should),
        None => line.starts_with("DIFFERS: "),
    });
    let found: Vec<&str> = match (verdict, panic) {
        (Some(verdict), _) => vec![*verdict],
        (None, Some(at)) => lines[at + 1..]
            .iter()
            .take(3)
            .take_while(|line| !line.starts_with("note: ") && *line != &"stack backtrace:")
            .copied()
            .collect(),
        (None, None) => lines.iter().filter(|line| line.starts_with("seed ")).take(1).copied().collect(),
    };
    let found = in_a_line(&found.join(" "));
    match should {
        _ if PARTS.iter().any(|part| did_not_start(part, &found)) => Err(found),
        Some(should) if verdict.is_none() => Err(format!("does not say \"{should}\", but: {found}")),
        _ if found.is_empty() => Err("gave no reason".to_owned()),
        _ if seeds > 1 => Ok(format!("{seeds} seeds fail, one of them: {found}")),
        _ => Ok(found),
    }
}

fn did_not_start(part: &str, found: &str) -> bool {
    ["is not up after", "ended instead of starting"].iter().any(|why| found.starts_with(&format!("{part} {why}")))
}

/// A line of bounded length, without where on this machine things lay.
pub fn in_a_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().map(nameless).collect();
    words.join(" ").chars().take(240).collect()
}

/// A word; of a path of this machine, its last part.
fn nameless(word: &str) -> &str {
    let temporary = std::env::temp_dir();
    let of_this_machine = word.contains(temporary.to_string_lossy().as_ref()) || word.contains("/target/");
    if of_this_machine { word.rsplit('/').next().unwrap_or(word) } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_what_it_should_say_a_verdict_a_panics_message_or_the_first_seed() {
        let said =
            "running 1 test\nthread 'x' (7) panicked at tests/a.rs:3:5:\nrow 7 of /tmp/x/lake is\ndoubled\nnote: run\n";
        assert_eq!(reason(said, None).unwrap(), "row 7 of lake is doubled");
        assert_eq!(reason("panicked at x:1:\npython judge.py\nDIFFERS: 3 rows", None).unwrap(), "DIFFERS: 3 rows");
        let seeds = "runs and their logs: x\nseed 3: the hub ended\nseed 4: bad\nDIFFERS: 2 lines missing";
        let one = "runs and their logs: x\nseed 3: the hub ended";
        assert_eq!(reason(one, None).unwrap(), "seed 3: the hub ended");
        assert_eq!(reason(seeds, None).unwrap(), "2 seeds fail, one of them: DIFFERS: 2 lines missing");
        assert_eq!(reason(seeds, Some("hub ended")).unwrap(), "2 seeds fail, one of them: seed 3: the hub ended");
        let other = reason(seeds, Some("gold")).unwrap_err();
        assert_eq!(other, "does not say \"gold\", but: seed 3: the hub ended");
        assert!(reason("panicked at x:1:\nkafka is not up after 75s\nlog", None).is_err());
        assert!(reason("panicked at x:1:\nthe agent is not up after 75s\nlog", None).is_ok());
        assert_eq!(reason("error: cannot bind", None).unwrap_err(), "gave no reason");
    }

    #[test]
    fn a_row_stays_until_its_patch_is_run_again_or_is_gone() {
        let row = |name: &str, word: &str| (name.to_owned(), format!("| {name} | {word} |"));
        let write = |before: &str, done: &[(String, String)], all: &[&str]| {
            let done = done.iter().map(|(name, row)| (name.as_str(), row.clone()));
            merged(before, done.collect::<Vec<_>>().into_iter(), all.iter().copied())
        };
        let first = write("", &[row("a", "old"), row("b", "old"), row("c", "old")], &["a", "b", "c"]);
        let then = write(&first, &[row("b", "new")], &["a", "b"]);
        assert_eq!(then, format!("{HEAD}| a | old |\n| b | new |\n"));
        let control =
            |failed: &[&str]| Control { ran: 3, failed: failed.iter().map(|&name| name.to_owned()).collect() };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report.md");
        std::fs::write(&file, &then).unwrap();
        write_control(&file, &control(&["`x`: bad"]), "c1").unwrap();
        write_control(&file, &control(&[]), "c2").unwrap();
        let written = std::fs::read_to_string(&file).unwrap();
        assert_eq!(written, format!("{then}\n{}\n", control(&[]).line("c2")));
        assert_eq!(write(&written, &[row("a", "new")], &["a", "b"]), written.replace("| a | old |", "| a | new |"));
    }
}
