//! What people see: progress bars while it runs, tables when it is done.

use crate::replay::{Outcome, Speed};
use comfy_table::{Cell, CellAlignment, Table, TableComponent, presets};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use onhand_hub::lake::sizes::TableSize;
use serde_json::Value;
use std::time::Duration;

/// A number with separators: `1,234,567`.
pub fn number(value: u64) -> String {
    HumanCount(value).to_string()
}

/// A size: `12.3 MB`.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000. && unit + 1 < units.len() {
        value /= 1000.;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// How many of something a second.
pub fn per_second(count: u64, elapsed: Duration) -> String {
    number((count as f64 / elapsed.as_secs_f64().max(1e-3)) as u64)
}

/// Names and values, one a line.
pub fn facts<V: AsRef<str>>(rows: &[(&str, V)]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    for (name, value) in rows {
        table.add_row([Cell::new(name), Cell::new(value.as_ref())]);
    }
    table.trim_fmt()
}

/// A table whose columns, but for the first `left`, are numbers.
pub fn grid(header: &[&str], left: usize, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    // A line between any two rows is too many.
    table.remove_style(TableComponent::HorizontalLines).remove_style(TableComponent::MiddleIntersections);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// A bar for `len` of `unit`, with the rate. Without a terminal it is silent.
pub fn rate_bar(unit: &str, len: u64) -> ProgressBar {
    let template =
        format!("{{elapsed:>4}} {{bar:32}} {{human_pos}} of {{human_len}} {unit}, {{per_sec}}, {{eta}} left  {{msg}}");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(len).with_style(style.progress_chars("━╸─"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A line that says what is being waited for.
pub fn waiting(message: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(message.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// What a replay did, as facts.
pub fn outcome_facts(outcome: &Outcome, speed: Speed) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("replayed", speed.to_string()),
        (
            "events",
            format!(
                "{} transactions with {} lines, {} counts",
                number(outcome.transactions),
                number(outcome.lines),
                number(outcome.counts)
            ),
        ),
        ("accepted", format!("{} new, {} known already", number(outcome.accepted), number(outcome.duplicates))),
        (
            "agents took them in",
            format!(
                "{:.1} s: {} rows/s, {} events/s",
                outcome.elapsed.as_secs_f64(),
                per_second(outcome.rows(), outcome.elapsed),
                per_second(outcome.events(), outcome.elapsed)
            ),
        ),
        (
            "request to answer",
            format!("{} ({} requests, safe on disk)", outcome.latencies.in_words(), number(outcome.requests)),
        ),
    ];
    if outcome.retries > 0 {
        rows.push(("sent again", format!("{} requests: an agent was away or full", number(outcome.retries))));
    }
    if outcome.refused > 0 {
        let first = outcome.first_refused.as_deref().unwrap_or_default();
        rows.push(("refused", format!("{}; the first: {first}", number(outcome.refused))));
    }
    rows
}

/// The lake's tables: rows, files, bytes.
pub fn lake_tables(tables: &[TableSize]) -> String {
    let row = |table: &TableSize| {
        vec![
            table.table.to_owned(),
            number(table.rows),
            number(table.files as u64),
            size(table.bytes),
            table.version.to_string(),
        ]
    };
    grid(&["table", "rows", "files", "size", "version"], 1, tables.iter().map(row).collect())
}

/// A page of the hub's inventory.
pub fn low_stock(page: &Value) -> String {
    let Some(rows) = page.get("items").and_then(Value::as_array).filter(|rows| !rows.is_empty()) else {
        return String::new();
    };
    let text = |row: &Value, key: &str| match row.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let keys = ["store_id", "item_id", "item_name", "current_inventory", "safety_stock_quantity"];
    let rows = rows.iter().map(|row| keys.iter().map(|key| text(row, key)).collect()).collect();
    grid(&["store", "item", "name", "on hand", "safety stock"], 3, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_and_sizes_are_readable() {
        assert_eq!([0, 12, 999, 1_000, 1_234_567].map(number), ["0", "12", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 999, 1_500, 12_300_000].map(size), ["0 B", "999 B", "1.5 KB", "12.3 MB"]);
    }

    #[test]
    fn tables_of_the_lake_are_listed_with_their_sizes() {
        let gold = TableSize { table: "gold/inventory_current", version: 3, rows: 2000, files: 2, bytes: 54_321 };
        let text = lake_tables(&[gold]);
        for part in ["gold/inventory_current", "2,000", "54.3 KB"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn low_stock_names_the_items() {
        let row = json!({"store_id": 1, "item_id": 7, "item_name": "green tea", "current_inventory": 2, "safety_stock_quantity": 9});
        let text = low_stock(&json!({"items": [row]}));
        assert!(text.contains("green tea") && text.contains('9'), "{text}");
        assert_eq!(low_stock(&json!({"items": []})), "");
    }
}
