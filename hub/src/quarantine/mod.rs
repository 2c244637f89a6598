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
