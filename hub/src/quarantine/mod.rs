//! The way back out of the quarantine: `onhand-hub quarantine list|show|replay`.
//!
//! A replay goes this way:
//! 1. The command reads the row, looks whether its payload (or the mended one) can be taken, and asks for the replay by a row of
//!    ops/quarantine_replay, which holds that payload.
//! 2. The hub that keeps the lake finds it there, takes the events as it takes any others, and waits until they are durable: in
//!    silver, or before Kafka on the topic.
//! 3. Only then it writes the outcome into the same table: now the row of the quarantine is marked. silver/quarantine itself
//!    does not change.
//!
//! A crash anywhere leaves a replay without an outcome, or none at all. One without an outcome is taken again, and identity drops
//! what silver has. So the lake is all that command and hub need to have in common, and who may replay is who may write the lake.

mod ask;
mod list;
mod look;
mod payload;
mod replayer;
mod replays;
mod row_id;

pub use replayer::{Replayer, ReplayerRunning, Way};
pub use replays::{Record, Replays, Standing, Step};
pub use row_id::RowId;

use crate::lake::quarantined::visit_quarantined;
use crate::lake::replay_log::ReplayLog;
use crate::lake::{Lake, Retention};
use crate::rows::QuarantineRow;
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use row_id::Given;
use std::io::{ErrorKind, Write};

/// Rows that an id is compared with before it is called ambiguous in words.
const SHOWN_OF_MANY: usize = 5;

/// What is done with the quarantine.
#[derive(Debug, Clone, Subcommand)]
pub enum QuarantineCommand {
    /// Lists what was refused, the newest first
    List(list::ListArgs),
    /// Shows one row: where it came from, what is wrong, what came, and what became of it
    Show(look::LookArgs),
    /// Hands one row's payload in again, as it is or mended: it goes through the pipeline once, and the row is marked
    ///
    /// The hub that keeps the lake takes it: this command asks for that in the table ops/quarantine_replay, and waits for the
    /// outcome. Exit status 0 if the row was replayed now, 1 if not: the reason is said.
    Replay(ask::ReplayArgs),
}

/// Which lake.
#[derive(Debug, Clone, Args)]
pub struct AtLake {
    /// Where the tables are: a folder, or an object store's URL
    #[arg(long, value_name = "ROOT", env = "ONHAND_HUB_LAKE")]
    lake: String,
}

impl AtLake {
    fn open(&self) -> Result<Lake> {
        Lake::existing(&self.lake, Retention::default())
    }
}

/// Does it.
///
/// # Errors
/// Above all: there is no such row, it was replayed already, or its payload is still refused. An `out` that nobody reads any
/// more is none.
pub async fn run(command: &QuarantineCommand, out: &mut (dyn Write + Send)) -> Result<()> {
    let done = match command {
        QuarantineCommand::List(args) => list::list(args, out).await,
        QuarantineCommand::Show(args) => look::look(args, out).await,
        QuarantineCommand::Replay(args) => ask::replay(args, out).await,
    };
    let closed = |error: &anyhow::Error| {
        error.chain().any(|cause| match cause.downcast_ref::<csv::Error>().map(csv::Error::kind) {
            Some(csv::ErrorKind::Io(io)) => io.kind() == ErrorKind::BrokenPipe,
            _ => cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::BrokenPipe),
        })
    };
    done.or_else(|error| if closed(&error) { Ok(()) } else { Err(error) })
}

/// The one row that somebody means.
async fn find(lake: &Lake, given: &Given) -> Result<(RowId, QuarantineRow)> {
    let mut found: Vec<(RowId, QuarantineRow)> = Vec::new();
    visit_quarantined(lake, |row| {
        let id = RowId::of(&row);
        if given.fits(id) && found.iter().all(|(known, _)| *known != id) && found.len() <= SHOWN_OF_MANY {
            found.push((id, row));
        }
        Ok(())
    })
    .await?;
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => bail!("id: there is no row {given} in silver/quarantine (`onhand-hub quarantine list` shows their ids)"),
        _ => {
            let ids: Vec<String> = found.iter().take(SHOWN_OF_MANY).map(|(id, _)| id.to_string()).collect();
            bail!("id: {given} can be several rows: {}", ids.join(", "))
        }
    }
}

/// What became of rows; nothing where no hub has kept the lake since there are replays.
async fn replays_of(lake: &Lake) -> Result<Replays> {
    match ReplayLog::open(lake).await? {
        Some(log) => log.read().await,
        None => Ok(Replays::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::samples::{NEW_YEAR, lake};
    use crate::lake::{CommitRequest, Table, TableName, silver};
    use bytes::Bytes;
    use clap::Parser;

    const SALE: &str = r#"{"trans_id":"t","store_id":1,"date_time":"2021-01-01T00:00:00.000Z","change_type_id":1,"items":[{"item_id":10,"quantity":-2}]}"#;

    #[derive(Parser)]
    struct Command {
        #[command(subcommand)]
        command: QuarantineCommand,
    }

    fn row(seconds: i64, source: &str, reason: &'static str, payload: &[u8]) -> QuarantineRow {
        QuarantineRow {
            received_at: NEW_YEAR + seconds * 1_000_000,
            source: source.to_owned(),
            reason: reason.into(),
            detail: "store_id: \u{1b}[31m is not an integer".to_owned(),
            payload: Bytes::copy_from_slice(payload),
        }
    }

    /// A lake with these rows, and their ids.
    async fn filled(rows: &[QuarantineRow]) -> (tempfile::TempDir, Lake, Vec<String>) {
        let (folder, lake) = lake();
        let mut table = Table::open_or_create(&lake, TableName::Quarantine).await.unwrap();
        for row in rows {
            let adds = table.write(silver::quarantine(std::slice::from_ref(row)).unwrap()).await.unwrap();
            table.commit(CommitRequest::append(adds)).await.unwrap();
        }
        (folder, lake, rows.iter().map(|row| RowId::of(row).to_string()).collect())
    }

    async fn said(lake: &Lake, words: &[&str]) -> Result<String> {
        let words = [&["quarantine"], words, &["--lake", lake.root()]].concat();
        let command = Command::try_parse_from(words)?;
        let mut out = Vec::new();
        run(&command.command, &mut out).await?;
        Ok(String::from_utf8(out)?)
    }

    async fn refusal(lake: &Lake, words: &[&str]) -> String {
        format!("{:#}", said(lake, words).await.unwrap_err())
    }

    fn samples_of_all() -> Vec<QuarantineRow> {
        vec![
            row(1, "mqtt:onhand/v1/raw/1", "malformed document", b"{\"trans_id\":\"t\"}"),
            row(2, "mqtt:onhand/v1/agents/b/frames", "foreign store", SALE.as_bytes()),
            row(3, "kafka:pos/0/7", "malformed frame", &[0xff, 0, 7]),
        ]
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rows_are_listed_the_newest_first_and_filtered() {
        let (_folder, lake, ids) = filled(&samples_of_all()).await;
        let listed = async |words: &str| {
            let words: Vec<&str> = ["list", "--format", "json"].into_iter().chain(words.split_whitespace()).collect();
            let rows: Vec<serde_json::Value> = serde_json::from_str(&said(&lake, &words).await.unwrap()).unwrap();
            rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let [a, b, c] = [0, 1, 2].map(|at| ids[at].clone());
        assert_eq!(listed("").await, [c.clone(), b.clone(), a.clone()]);
        assert_eq!(listed("--limit 2").await, [c.clone(), b.clone()]);
        assert_eq!(listed("--reason malformed").await, [c.clone(), a.clone()]);
        assert_eq!(listed("--source agents/b/").await, std::slice::from_ref(&b));
        assert_eq!(listed("--since 2021-01-01T00:00:02Z").await, [c.clone(), b.clone()]);
        assert_eq!(listed("--open").await.len(), 3);
        assert!(listed("--replayed").await.is_empty());
        let table = said(&lake, &["list", "--limit", "1"]).await.unwrap();
        assert!(table.contains(&c[..12]) && table.ends_with("1 row, 2 more (--limit)\n"), "{table}");
        assert!(!table.contains('\u{1b}'), "{table}");
        let csv = said(&lake, &["list", "--format", "csv"]).await.unwrap();
        assert!(csv.starts_with("id,received_at,source,reason,detail,bytes,state,state_at,state_detail\n"), "{csv}");
        assert!(said(&lake, &["list", "--open", "--replayed"]).await.is_err());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_row_is_shown_and_its_payload_written_as_it_came() {
        let (_folder, lake, ids) = filled(&samples_of_all()).await;
        let shown = said(&lake, &["show", &ids[0][..12]]).await.unwrap();
        for part in [
            &ids[0][..],
            "mqtt:onhand/v1/raw/1",
            "is refused: store_id: is missing",
            "state        open",
            "{\"trans_id\":\"t\"}",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let shown = said(&lake, &["show", &ids[1]]).await.unwrap();
        assert!(shown.contains("can be taken: 1 transaction with 1 line, 0 counts"), "{shown}");
        assert!(said(&lake, &["show", &ids[2]]).await.unwrap().contains("0xff0007"));
        assert_eq!(said(&lake, &["show", "--raw", &ids[1]]).await.unwrap(), SALE);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_cannot_be_replayed_is_refused_by_name_and_nothing_is_asked() {
        let (folder, lake, ids) = filled(&samples_of_all()).await;
        let error = refusal(&lake, &["replay", &ids[1]]).await;
        assert!(error.contains("ops/quarantine_replay"), "a lake that no hub has opened since: {error}");
        let log = ReplayLog::open_or_create(&lake).await.unwrap();
        let error = refusal(&lake, &["replay", "0000000000"]).await;
        assert!(error.starts_with("id: there is no row 0000000000"), "{error}");
        assert!(refusal(&lake, &["replay", "xyz"]).await.contains("hexadecimal digits"));
        let error = refusal(&lake, &["replay", &ids[0]]).await;
        assert!(error.ends_with("stays open: store_id: is missing"), "{error}");
        let mended = folder.path().join("mended");
        std::fs::write(&mended, SALE.replace("-2", "\"two\"")).unwrap();
        let error = refusal(&lake, &["replay", &ids[0], "--payload", mended.to_str().unwrap()]).await;
        assert!(error.contains("stays open: items[0].quantity: "), "{error}");
        let error = refusal(&lake, &["replay", &ids[0], "--payload", "/no/such/file"]).await;
        assert!(error.starts_with("payload: read /no/such/file"), "{error}");
        assert_eq!(log.version(), ReplayLog::open(&lake).await.unwrap().unwrap().version());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_replay_that_nobody_takes_stays_asked_for_and_is_not_asked_for_twice() {
        let (folder, lake, ids) = filled(&samples_of_all()).await;
        let mut log = ReplayLog::open_or_create(&lake).await.unwrap();
        let error = refusal(&lake, &["replay", &ids[1], "--wait", "0s"]).await;
        assert!(error.contains("no hub has taken it"), "{error}");
        log.catch_up().await.unwrap();
        let asked = log.version();
        assert!(said(&lake, &["list"]).await.unwrap().contains("asked for"));
        assert!(refusal(&lake, &["replay", &ids[1], "--wait", "0s"]).await.contains("no hub has taken it"));
        let other = folder.path().join("other");
        std::fs::write(&other, SALE.replace("-2", "-3")).unwrap();
        let error = refusal(&lake, &["replay", &ids[1], "--payload", other.to_str().unwrap(), "--wait", "0s"]).await;
        assert!(error.contains("with another payload was asked for"), "{error}");
        log.catch_up().await.unwrap();
        assert_eq!(log.version(), asked);

        let asked = log.read().await.unwrap().next_due().unwrap().clone();
        assert_eq!(log.payload(asked.replay).await.unwrap(), SALE);
        let outcome = Record { step: Step::Taken, detail: "1 lines".to_owned(), ..asked };
        log.answer(&outcome, &["p0".to_owned()], 1).await.unwrap();
        let error = refusal(&lake, &["replay", &ids[1]]).await;
        assert!(
            error.contains("was replayed already, at ") && error.ends_with("(1 lines); nothing was done"),
            "{error}"
        );
        assert!(said(&lake, &["show", &ids[1]]).await.unwrap().contains("state        replayed"));
        let replayed = said(&lake, &["list", "--replayed", "--format", "csv"]).await.unwrap();
        assert!(replayed.lines().count() == 2 && replayed.contains(&ids[1]), "{replayed}");
        assert_eq!(said(&lake, &["list", "--open", "--format", "csv"]).await.unwrap().lines().count(), 3);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_id_that_fits_several_rows_is_said_to() {
        // Four digits are the fewest: some hundred rows have two that share them.
        let rows: Vec<_> = (0..600).map(|second| row(second, "s", "r", b"x")).collect();
        let mut prefixes = std::collections::HashMap::new();
        let ids: Vec<String> = rows.iter().map(|row| RowId::of(row).to_string()).collect();
        let shared = ids.iter().find_map(|id| prefixes.insert(&id[..4], id).map(|other| (id, other)));
        let (one, other) = shared.expect("600 ids of 65,536");
        let picked: Vec<_> = rows.into_iter().zip(&ids).filter(|(_, id)| *id == one || *id == other).collect();
        let picked: Vec<_> = picked.into_iter().map(|(row, _)| row).collect();
        let (_folder, lake, _) = filled(&picked).await;
        let error = refusal(&lake, &["show", &one[..4]]).await;
        assert!(error.contains("can be several rows") && error.contains(one) && error.contains(other), "{error}");
    }
}
