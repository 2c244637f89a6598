//! `onhand-hub quarantine list`.

use super::replays::{Replays, Standing};
use super::{AtLake, RowId, replays_of};
use crate::lake::quarantined::visit_quarantined;
use crate::lake::query::Cell;
use crate::rows::QuarantineRow;
use crate::show::{Format, for_people};
use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{Table, presets};
use onhand_common::Timestamp;
use serde_json::json;
use std::io::Write;

/// Rows that a table for people has, where nobody says otherwise.
const ROWS_FOR_PEOPLE: usize = 50;

/// Which rows.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    #[command(flatten)]
    lake: AtLake,
    /// Only rows whose reason holds this text
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only rows whose source holds this text: a topic, an agent, a file
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// Only rows that were received at this time or later (2021-01-01T09:30:00Z)
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Only rows that were replayed
    #[arg(long, conflicts_with = "open")]
    replayed: bool,
    /// Only rows that were not
    #[arg(long)]
    open: bool,
    /// At most so many rows [default: 50 for a table, all for csv and json]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// How to write them
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl ListArgs {
    fn wants(&self, row: &QuarantineRow, standing: Standing<'_>) -> bool {
        let holds = |text: &str, wanted: &Option<String>| wanted.as_ref().is_none_or(|wanted| text.contains(wanted));
        let replayed = matches!(standing, Standing::Taken(_));
        holds(&row.reason, &self.reason)
            && holds(&row.source, &self.source)
            && self.since.is_none_or(|since| row.received_at >= since.micros())
            && (replayed || !self.replayed)
            && !(replayed && self.open)
    }
}

/// A row without its payload.
struct Listed {
    id: RowId,
    row: QuarantineRow,
    bytes: usize,
}

pub(super) async fn list(args: &ListArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let lake = args.lake.open()?;
    let replays = replays_of(&lake).await?;
    let limit = args.limit.or((args.format == Format::Table).then_some(ROWS_FOR_PEOPLE)).unwrap_or(usize::MAX);
    let mut newest = Newest { rows: Vec::new(), limit };
    let mut total = 0;
    visit_quarantined(&lake, |row| {
        let id = RowId::of(&row);
        if args.wants(&row, replays.standing(id)) {
            total += 1;
            let bytes = row.payload.len();
            newest.add(Listed { id, row: QuarantineRow { payload: bytes::Bytes::new(), ..row }, bytes });
        }
        Ok(())
    })
    .await?;
    let rows = newest.finish();
    match args.format {
        Format::Table => write_table(&rows, total, &replays, out),
        Format::Csv => write_csv(&rows, &replays, out),
        Format::Json => write_json(&rows, &replays, out),
    }
}

/// The newest so many of all that are added; little more is held.
struct Newest {
    rows: Vec<Listed>,
    limit: usize,
}

impl Newest {
    fn add(&mut self, listed: Listed) {
        self.rows.push(listed);
        if self.rows.len() > self.limit.saturating_mul(2).saturating_add(1_024) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.rows.sort_by_key(|listed| (std::cmp::Reverse(listed.row.received_at), listed.id));
        self.rows.truncate(self.limit);
    }

    fn finish(mut self) -> Vec<Listed> {
        self.cut();
        self.rows
    }
}

fn write_table(rows: &[Listed], total: usize, replays: &Replays, out: &mut (dyn Write + Send)) -> Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["id", "received_at", "source", "reason", "detail", "bytes", "state"]);
    for Listed { id, row, bytes } in rows {
        let text = |text: &str| for_people(&Cell::Text(text.to_owned()));
        table.add_row([
            id.short(),
            time(row.received_at),
            text(&row.source),
            text(&row.reason),
            text(&row.detail),
            bytes.to_string(),
            replays.standing(*id).as_str().to_owned(),
        ]);
    }
    writeln!(out, "{table}")?;
    let noun = if rows.len() == 1 { "row" } else { "rows" };
    match total - rows.len() {
        0 => writeln!(out, "{} {noun}", rows.len())?,
        more => writeln!(out, "{} {noun}, {more} more (--limit)", rows.len())?,
    }
    Ok(())
}

fn write_csv(rows: &[Listed], replays: &Replays, out: &mut (dyn Write + Send)) -> Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record([
        "id",
        "received_at",
        "source",
        "reason",
        "detail",
        "bytes",
        "state",
        "state_at",
        "state_detail",
    ])?;
    for Listed { id, row, bytes } in rows {
        let standing = replays.standing(*id);
        let record = standing.record();
        writer.write_record([
            id.to_string(),
            time(row.received_at),
            row.source.clone(),
            row.reason.to_string(),
            row.detail.clone(),
            bytes.to_string(),
            standing.as_str().to_owned(),
            record.map(|record| time(record.written_at)).unwrap_or_default(),
            record.map(|record| record.detail.clone()).unwrap_or_default(),
        ])?;
    }
    writer.flush().context("write CSV")
}

fn write_json(rows: &[Listed], replays: &Replays, out: &mut (dyn Write + Send)) -> Result<()> {
    let mut between = "[\n";
    for Listed { id, row, bytes } in rows {
        let standing = replays.standing(*id);
        let record = standing.record();
        let line = json!({
            "id": id.to_string(), "received_at": time(row.received_at), "source": row.source, "reason": row.reason,
            "detail": row.detail, "bytes": bytes, "state": standing.as_str(),
            "state_at": record.map(|record| time(record.written_at)), "state_detail": record.map(|record| &record.detail),
        });
        write!(out, "{between}{line}")?;
        between = ",\n";
    }
    let end = if rows.is_empty() { "[]\n" } else { "\n]\n" };
    out.write_all(end.as_bytes()).context("write JSON")
}

/// In RFC 3339.
pub(super) fn time(micros: i64) -> String {
    Timestamp::from_micros(micros).map_or_else(|_| format!("{micros} µs"), |time| time.to_string())
}
