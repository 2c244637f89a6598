//! The table of figures, for people and for BENCHMARKS.md.

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::HumanCount;
use onhand_tests::machine;
use std::fmt::Write;

const HEADER: [&str; 5] = ["what", "measured", "budget", "limit, same run", "of the limit"];

/// Figures, and what could not be measured.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<[String; 5]>,
    missing: Vec<String>,
}

impl Report {
    /// A figure that has no limit to be measured against.
    pub fn figure(&mut self, what: &str, measured: impl Into<String>, budget: &str) {
        self.rows.push([what.into(), measured.into(), budget.into(), "-".into(), "-".into()]);
    }

    /// A figure beside its limit; `share` is what part of the limit it reaches.
    pub fn against(&mut self, what: &str, measured: String, budget: &str, limit: String, share: f64) {
        self.rows.push([what.into(), measured, budget.into(), limit, format!("{share:.2}")]);
    }

    /// A figure that is missing.
    pub fn not_measured(&mut self, what: &str, why: &str) {
        self.missing.push(format!("{what}: {why}"));
    }

    /// Adds another report's figures.
    pub fn add(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.missing.extend(other.missing);
    }

    /// For a terminal.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(HEADER);
        self.rows.iter().for_each(|row| {
            table.add_row(row);
        });
        let missing: String = self.missing.iter().map(|line| format!("\nnot measured: {line}")).collect();
        format!("{table}{missing}")
    }

    /// For the repository.
    pub fn markdown(&self) -> String {
        let mut text =
            String::from("# Benchmarks\n\nMade by `cargo budgets --write`: real processes over loopback.\n\n");
        writeln!(text, "- machine: {}", machine::describe()).expect("writing to a text does not fail");
        writeln!(text, "- commit: {}\n", machine::commit()).expect("as above");
        writeln!(text, "| {} |\n|{}", HEADER.join(" | "), "---|".repeat(HEADER.len())).expect("as above");
        for row in &self.rows {
            writeln!(text, "| {} |", row.join(" | ")).expect("as above");
        }
        if !self.missing.is_empty() {
            text.push_str("\nNot measured:\n");
            self.missing.iter().for_each(|line| text.push_str(&format!("- {line}\n")));
        }
        text
    }
}

/// 1234567 as 1,234,567.
pub fn number(value: f64) -> String {
    HumanCount(value.round() as u64).to_string()
}

/// Bytes as MB, the way the budgets say it.
pub fn megabytes(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1e6)
}

/// The value below which `share` of all lie. Sorts.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    assert!(!values.is_empty(), "nothing was measured");
    values.sort_unstable_by(f64::total_cmp);
    values[((values.len() as f64 * share) as usize).min(values.len() - 1)]
}
