//! `onhand-hub quarantine show`.

use super::list::time;
use super::row_id::Given;
use super::{AtLake, find, payload, replays_of};
use crate::lake::query::Cell;
use crate::show::{for_people, text};
use anyhow::{Context, Result};
use clap::Args;
use onhand_common::{Event, accelerator};
use std::io::Write;

/// Events of a frame that are shown.
const EVENTS_SHOWN: usize = 20;

/// Which row.
#[derive(Debug, Clone, Args)]
pub struct LookArgs {
    /// Its id, or the beginning of it
    id: Given,
    #[command(flatten)]
    lake: AtLake,
    /// Writes the payload as it came, and nothing else: to be mended, and handed in again with `replay --payload`
    #[arg(long)]
    raw: bool,
}

pub(super) async fn look(args: &LookArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let lake = args.lake.open()?;
    let (id, row) = find(&lake, &args.id).await?;
    if args.raw {
        if payload::is_beginning(&row) {
            eprintln!("only the first {} bytes of this file were kept", row.payload.len());
        }
        return out.write_all(&row.payload).context("write the payload");
    }
    let replays = replays_of(&lake).await?;
    let standing = replays.standing(id);
    let shown = |value: &str| for_people(&Cell::Text(value.to_owned()));
    writeln!(out, "id           {id}")?;
    writeln!(out, "received_at  {}", time(row.received_at))?;
    writeln!(out, "source       {}", shown(&row.source))?;
    writeln!(out, "reason       {}", shown(&row.reason))?;
    writeln!(out, "detail       {}", shown(&row.detail))?;
    writeln!(out, "bytes        {}", row.payload.len())?;
    writeln!(out, "state        {}", standing.as_str())?;
    if let Some(record) = standing.record() {
        writeln!(out, "             at {}: {}", time(record.written_at), shown(&record.detail))?;
    }
    let today = payload::events_of_row(&row);
    match &today {
        Ok(events) => writeln!(out, "as it is     can be taken: {}", in_words(events))?,
        Err(error) => writeln!(out, "as it is     is refused: {}", shown(&error.to_string()))?,
    }
    writeln!(out, "payload")?;
    match std::str::from_utf8(&row.payload) {
        // What came from outside may hold what a terminal obeys; line ends are wanted.
        Ok(content) => {
            for line in content.lines() {
                writeln!(out, "{}", shown(line))?;
            }
        }
        Err(_) => writeln!(out, "{}", text(&Cell::Bytes(&row.payload)))?,
    }
    if let (Ok(events), Err(_)) = (&today, std::str::from_utf8(&row.payload)) {
        writeln!(out, "which are these events")?;
        for event in events.iter().take(EVENTS_SHOWN) {
            writeln!(out, "{}", json(event))?;
        }
        if events.len() > EVENTS_SHOWN {
            writeln!(out, "and {} more", events.len() - EVENTS_SHOWN)?;
        }
    }
    Ok(())
}

fn json(event: &Event) -> String {
    match event {
        Event::Transaction(transaction) => accelerator::transaction_to_json(transaction),
        Event::Count(count) => accelerator::count_to_json(count),
    }
}

/// How many of what.
pub(super) fn in_words(events: &[Event]) -> String {
    let transactions: Vec<_> = events.iter().filter(|event| matches!(event, Event::Transaction(_))).collect();
    let lines: usize = transactions.iter().map(|event| event.lines()).sum();
    let counts = events.len() - transactions.len();
    let transactions = many(transactions.len() as u64, "transaction");
    format!("{transactions} with {}, {}", many(lines as u64, "line"), many(counts as u64, "count"))
}

/// One thing, or so many things.
pub(super) fn many(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}
