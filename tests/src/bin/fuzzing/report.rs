//! The table of a run, for people and for a file.

use super::target::Outcome;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::HumanCount;
use std::fmt::Write;

const HEADER: [&str; 9] = [
    "target",
    "executions",
    "seconds",
    "per second",
    "edges",
    "features",
    "corpus",
    "most memory",
    "most for one input",
];

/// What the runs found.
pub struct Report {
    seed: u32,
    rows: Vec<[String; 9]>,
    notes: Vec<String>,
    found_something: bool,
}

impl Report {
    /// Nothing yet.
    pub fn new(seed: u32) -> Self {
        Self { seed, rows: vec![], notes: vec![], found_something: false }
    }

    /// A target's run.
    pub fn add(&mut self, name: &str, outcome: Outcome) {
        let seconds = outcome.took.as_secs_f64();
        let per_second = outcome.executions as f64 / seconds.max(0.001);
        self.rows.push([
            name.to_owned(),
            HumanCount(outcome.executions).to_string(),
            format!("{seconds:.0}"),
            HumanCount(per_second as u64).to_string(),
            outcome.edges.to_string(),
            outcome.features.to_string(),
            outcome.corpus.to_string(),
            format!("{} MiB", outcome.memory),
            format!("{} KiB", outcome.claimed.div_ceil(1024)),
        ]);
        for caught in outcome.caught {
            self.notes.push(format!("{name}: a panic that the product catches: {caught}"));
        }
        if let Some(found) = outcome.found {
            self.found_something = true;
            self.notes.push(format!("{name}: FOUND something: {found}"));
        }
    }

    /// Whether nothing was run.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether any target panicked, hung or took too much memory.
    pub fn found_something(&self) -> bool {
        self.found_something
    }

    /// For a terminal.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(HEADER);
        self.rows.iter().for_each(|row| {
            table.add_row(row);
        });
        let notes: String = self.notes.iter().map(|note| format!("\n{note}")).collect();
        format!("{table}\nseed {}{notes}", self.seed)
    }

    /// For a file.
    pub fn markdown(&self) -> String {
        let mut text = format!("| {} |\n|{}\n", HEADER.join(" | "), "---|".repeat(HEADER.len()));
        for row in &self.rows {
            writeln!(text, "| {} |", row.join(" | ")).expect("writing to a text does not fail");
        }
        writeln!(text, "\nSeed {}.", self.seed).expect("as above");
        self.notes.iter().for_each(|note| writeln!(text, "- {note}").expect("as above"));
        text
    }
}
