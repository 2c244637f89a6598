//! `onhand-hub show`: rows of any table, as a table for people, CSV or JSON.

use crate::lake::query::{Cell, Moment, Query, Rows};
use crate::lake::{Lake, Retention, Table as LakeTable, TableName};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use onhand_common::{ItemId, StoreId, Timestamp};
use std::fmt::Write as _;
use std::io::{ErrorKind, Write};

/// Rows that a table for people has, where nobody says otherwise.
const ROWS_FOR_PEOPLE: usize = 50;
/// Bytes of a binary value that is no text which a table for people has.
const BYTES_FOR_PEOPLE: usize = 24;

/// What to show.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// The table: inventory_current, silver/store, …
    pub table: String,
    /// Where the lake is: a folder or an object-store URL.
    #[arg(long, value_name = "ROOT", env = "ONHAND_HUB_LAKE")]
    pub lake: String,
    /// Only this store.
    #[arg(long, value_name = "N")]
    pub store: Option<StoreId>,
    /// Only this item.
    #[arg(long, value_name = "N")]
    pub item: Option<ItemId>,
    /// Only items of which there are fewer than the safety stock (inventory_current).
    #[arg(long)]
    pub below_safety_stock: bool,
    /// At most so many rows [default: 50 for a table, all for csv and json].
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// How to write them.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The table as it was at this version.
    #[arg(long, value_name = "N", conflicts_with = "as_of")]
    pub version: Option<i64>,
    /// The table as it was at this time (2021-01-01T09:30:00Z).
    #[arg(long, value_name = "TIME")]
    pub as_of: Option<Timestamp>,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// With a header; null is an empty field.
    Csv,
    /// One array of objects.
    Json,
}

/// Writes the rows that were asked for.
///
/// # Errors
/// If there is no such table or version, it cannot be read, or `out` does not take it. An `out` that nobody reads any
/// more is none.
pub async fn run(args: &ShowArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let written = write(args, out).await;
    let closed = |error: &anyhow::Error| {
        error.chain().any(|cause| match cause.downcast_ref::<csv::Error>().map(csv::Error::kind) {
            Some(csv::ErrorKind::Io(io)) => io.kind() == ErrorKind::BrokenPipe,
            _ => cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::BrokenPipe),
        })
    };
    written.or_else(|error| if closed(&error) { Ok(()) } else { Err(error) })
}

async fn write(args: &ShowArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let table: TableName = args.table.parse()?;
    let lake = Lake::existing(&args.lake, Retention::default())?;
    let moment = match (args.version, args.as_of) {
        (Some(version), _) => {
            let newest = LakeTable::open(&lake, table).await?.version();
            ensure!((0..=newest).contains(&version), "{table} has no version {version}: the newest is {newest}");
            Moment::Version(version)
        }
        (None, Some(time)) => Moment::AsOf(time),
        (None, None) => Moment::Now,
    };
    let query = Query {
        table,
        moment,
        store: args.store,
        item: args.item,
        below_safety_stock: args.below_safety_stock,
        limit: args.limit.or((args.format == Format::Table).then_some(ROWS_FOR_PEOPLE)),
    };
    match args.format {
        Format::Table => write_table(&query, &lake, out).await,
        Format::Csv => write_csv(&query, &lake, out).await,
        Format::Json => write_json(&query, &lake, out).await,
    }
}

async fn write_table(query: &Query, lake: &Lake, out: &mut (dyn Write + Send)) -> Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    let mut shown = 0;
    let total = query
        .run(lake, &mut |rows: &Rows| {
            if table.header().is_none() {
                table.set_header(rows.columns());
                for column in (0..rows.columns().len()).filter(|c| rows.is_number(*c)) {
                    if let Some(column) = table.column_mut(column) {
                        column.set_cell_alignment(CellAlignment::Right);
                    }
                }
            }
            let width = rows.columns().len();
            for row in 0..rows.len() {
                table.add_row((0..width).map(|column| for_people(&rows.cell(row, column))));
            }
            shown += rows.len() as u64;
            Ok(())
        })
        .await?;
    writeln!(out, "{table}")?;
    let rows = if shown == 1 { "row" } else { "rows" };
    match total - shown {
        0 => writeln!(out, "{shown} {rows}")?,
        more => writeln!(out, "{shown} {rows}, {more} more (--limit)")?,
    }
    Ok(())
}

async fn write_csv(query: &Query, lake: &Lake, out: &mut (dyn Write + Send)) -> Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    let mut header = false;
    query
        .run(lake, &mut |rows: &Rows| {
            if !header {
                header = true;
                writer.write_record(rows.columns())?;
            }
            let width = rows.columns().len();
            for row in 0..rows.len() {
                writer.write_record((0..width).map(|column| text(&rows.cell(row, column))))?;
            }
            Ok(())
        })
        .await?;
    writer.flush().context("write CSV")
}

async fn write_json(query: &Query, lake: &Lake, out: &mut (dyn Write + Send)) -> Result<()> {
    let mut between = "[\n";
    query
        .run(lake, &mut |rows: &Rows| {
            let columns = rows.columns();
            let mut line = String::new();
            for row in 0..rows.len() {
                line.clear();
                line.push_str(between);
                for (index, name) in columns.iter().enumerate() {
                    let value = match rows.cell(row, index) {
                        Cell::Null => serde_json::Value::Null,
                        Cell::Number(number) => number.into(),
                        cell => text(&cell).into(),
                    };
                    let before = if index == 0 { '{' } else { ',' };
                    let name = serde_json::Value::from(name.as_str());
                    write!(line, "{before}{name}:{value}")?;
                }
                line.push('}');
                out.write_all(line.as_bytes())?;
                between = ",\n";
            }
            Ok(())
        })
        .await?;
    let end = if between.starts_with('[') { "[]\n" } else { "\n]\n" };
    out.write_all(end.as_bytes()).context("write JSON")
}

pub(crate) fn text(cell: &Cell<'_>) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Number(number) => number.to_string(),
        Cell::Text(text) => text.clone(),
        Cell::Bytes(bytes) => std::str::from_utf8(bytes).map_or_else(|_| hex(bytes), str::to_owned),
    }
}

pub(crate) fn for_people(cell: &Cell<'_>) -> String {
    match cell {
        Cell::Bytes(bytes) if std::str::from_utf8(bytes).is_err() && bytes.len() > BYTES_FOR_PEOPLE => {
            format!("{}… ({} bytes)", hex(&bytes[..BYTES_FOR_PEOPLE]), bytes.len())
        }
        // What came from outside may hold what a terminal obeys.
        cell => text(cell).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::CommitRequest;
    use crate::lake::samples::{self, NEW_YEAR, batch, changes, gold};
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        show: ShowArgs,
    }

    async fn shown(lake: &Lake, line: &str) -> Result<String> {
        let words = ["show"].into_iter().chain(line.split_whitespace());
        let command = Command::try_parse_from(words.chain(["--lake", lake.root()]))?;
        let mut out = Vec::new();
        run(&command.show, &mut out).await?;
        Ok(String::from_utf8(out)?)
    }

    async fn put(lake: &Lake, table: TableName, rows: samples::RecordBatch) {
        let mut table = LakeTable::open_or_create(lake, table).await.unwrap();
        let adds = table.write([rows]).await.unwrap();
        table.commit(CommitRequest::append(adds)).await.unwrap();
    }

    async fn filled() -> (tempfile::TempDir, Lake) {
        let (folder, lake) = samples::lake();
        put(&lake, TableName::InventoryCurrent, gold(&[(2, 10, 7, -1, NEW_YEAR), (1, 11, 3, 0, NEW_YEAR)])).await;
        put(&lake, TableName::InventoryCurrent, gold(&[(1, 10, 5, 4, NEW_YEAR + 1)])).await;
        let items = vec![
            samples::ints([10, 11]),
            samples::texts(["Tea, green", "Salt"]),
            samples::ints([1, 1]),
            samples::ints([7, 4]),
        ];
        put(&lake, TableName::Item, batch(TableName::Item, items)).await;
        (folder, lake)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rows_come_in_order_in_every_format() {
        let (_folder, lake) = filled().await;
        let header = "store_id,item_id,snapshot_quantity,change_quantity,current_inventory,date_time\n";
        let rows = [
            "1,10,5,4,9,2021-01-01T00:00:00.000001Z\n",
            "1,11,3,0,3,2021-01-01T00:00:00.000Z\n",
            "2,10,7,-1,6,2021-01-01T00:00:00.000Z\n",
        ];
        let csv = shown(&lake, "inventory_current --format csv").await.unwrap();
        assert_eq!(csv, format!("{header}{}", rows.concat()));
        let csv = shown(&lake, "gold/inventory_current --format csv --store 1 --limit 1").await.unwrap();
        assert_eq!(csv, format!("{header}{}", rows[0]));
        let csv = shown(&lake, "inventory_current --format csv --item 10 --version 1").await.unwrap();
        assert_eq!(csv, format!("{header}{}", rows[2]));
        assert_eq!(shown(&lake, "inventory_current --format csv --version 0").await.unwrap(), header);

        let json = shown(&lake, "inventory_current --format json --item 11").await.unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed.as_array().unwrap().len(), 1);
        assert_eq!((&parsed[0]["current_inventory"], &parsed[0]["store_id"]), (&3.into(), &1.into()));
        assert_eq!(shown(&lake, "inventory_current --format json --store 9").await.unwrap(), "[]\n");

        let table = shown(&lake, "inventory_current --limit 2").await.unwrap();
        assert!(table.contains("current_inventory") && table.ends_with("2 rows, 1 more (--limit)\n"), "{table}");
        let table = shown(&lake, "inventory_current --store 9").await.unwrap();
        assert!(table.contains("current_inventory") && table.ends_with("0 rows\n"), "{table}");
        let table = shown(&lake, "inventory_current --store 2").await.unwrap();
        assert!(table.ends_with("\n1 row\n"), "{table}");
    }

    /// What `head` leaves behind.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Err(ErrorKind::BrokenPipe.into())
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nobody_who_reads_is_no_error() {
        let (_folder, lake) = filled().await;
        for format in ["table", "csv", "json"] {
            let words = ["show", "inventory_current", "--format", format, "--lake", lake.root()];
            let command = Command::try_parse_from(words).unwrap();
            run(&command.show, &mut Closed).await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn low_stock_has_the_items_name() {
        let (_folder, lake) = filled().await;
        let csv = shown(&lake, "inventory_current --below-safety-stock --format csv").await.unwrap();
        let rows: Vec<&str> = csv.lines().skip(1).collect();
        assert_eq!(
            rows,
            ["1,11,3,0,3,2021-01-01T00:00:00.000Z,Salt,4", "2,10,7,-1,6,2021-01-01T00:00:00.000Z,\"Tea, green\",7"]
        );
        let error = shown(&lake, "item --below-safety-stock").await.unwrap_err().to_string();
        assert!(error.contains("gold/inventory_current"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_past_is_shown_as_far_as_the_log_goes() {
        let (_folder, lake) = filled().await;
        let error = shown(&lake, "inventory_current --as-of 2021-01-01T00:00:00Z").await.unwrap_err().to_string();
        assert!(error.contains("does not reach back"), "{error}");
        let csv = shown(&lake, "inventory_current --as-of 2199-01-01T00:00:00Z --format csv").await.unwrap();
        assert_eq!(csv.lines().count(), 4);
        let error = shown(&lake, "inventory_current --version 7").await.unwrap_err().to_string();
        assert!(error.ends_with("has no version 7: the newest is 2"), "{error}");
        assert!(shown(&lake, "inventory_current --version 1 --as-of 2199-01-01").await.is_err());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn days_bytes_and_nulls_are_shown() {
        let (_folder, lake) = samples::lake();
        put(&lake, TableName::InventoryChange, changes(&[("a", 1, NEW_YEAR, 1, 10, -2)])).await;
        let csv = shown(&lake, "inventory_change --format csv").await.unwrap();
        assert_eq!(csv.lines().nth(1), Some("a,1,2021-01-01T00:00:00.000Z,1,10,-2,agent,1,0,2021-01-01"));

        let payloads = samples::bytes(vec![Some(b"\x1b[31m{}".as_slice()), Some(&[0xff; 40]), None]);
        let rows = vec![
            samples::times([NEW_YEAR, NEW_YEAR + 1, NEW_YEAR + 2]),
            samples::texts(["mqtt"; 3]),
            samples::texts(["frame"; 3]),
            samples::texts(["x"; 3]),
            payloads,
        ];
        put(&lake, TableName::Quarantine, batch(TableName::Quarantine, rows)).await;
        let table = shown(&lake, "quarantine").await.unwrap();
        assert!(table.contains("\u{fffd}[31m{}") && table.contains("… (40 bytes)"), "{table}");
        let json = shown(&lake, "quarantine --format json").await.unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed[0]["payload"], "\u{1b}[31m{}");
        assert_eq!(parsed[2]["payload"], serde_json::Value::Null);

        let error = shown(&lake, "inventory").await.unwrap_err().to_string();
        assert!(error.contains("silver/inventory_change_type"), "{error}");
        let error = shown(&lake, "event_log").await.unwrap_err();
        assert!(format!("{error:#}").contains("event_log"), "{error:#}");
        assert!(shown(&lake, "quarantine --store 1").await.is_err());
    }
}
