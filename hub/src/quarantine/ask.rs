//! `onhand-hub quarantine replay`: asks the hub that keeps the lake, by a row of ops/quarantine_replay, and waits.

use super::list::time;
use super::row_id::Given;
use super::{AtLake, Record, Standing, Step, find, payload};
use crate::lake::replay_log::ReplayLog;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use onhand_common::Timestamp;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Time between two looks for an outcome.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Which row, and what to hand in.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// Its id, or the beginning of it
    id: Given,
    #[command(flatten)]
    lake: AtLake,
    /// What to hand in in the place of the row's payload: a mended one; - for standard input
    #[arg(long, value_name = "FILE")]
    payload: Option<PathBuf>,
    /// How long to wait for a hub to take it; it stays asked for
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    wait: Duration,
}

pub(super) async fn replay(args: &ReplayArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let lake = args.lake.open()?;
    let (id, row) = find(&lake, &args.id).await?;
    let Some(mut log) = ReplayLog::open(&lake).await? else {
        bail!(
            "there is no table ops/quarantine_replay in this lake yet: a hub of this version makes it when it starts"
        );
    };
    let replays = log.read().await?;
    if let Standing::Taken(taken) = replays.standing(id) {
        bail!(
            "{} was replayed already, at {} ({}); nothing was done",
            id.short(),
            time(taken.written_at),
            taken.detail
        );
    }
    let (handed_in, events) = match &args.payload {
        None => (row.payload.clone(), payload::events_of_row(&row)),
        Some(file) => {
            let given = read(file).with_context(|| format!("payload: read {}", file.display()))?;
            let events = payload::events_of(&given);
            (given, events)
        }
    };
    let events = events.with_context(|| format!("this payload is refused, too, and {} stays open", id.short()))?;
    let number = match replays.standing(id) {
        Standing::Asked(asked) => {
            let (at, number) = (time(asked.written_at), asked.replay);
            if log.payload(number).await? != handed_in {
                bail!("{}: a replay with another payload was asked for at {at}, and has no outcome yet", id.short());
            }
            writeln!(out, "this was asked for at {at} already")?;
            number
        }
        _ => {
            let asked = Record {
                row: id,
                received_at: row.received_at,
                source: row.source,
                replay: Uuid::new_v4(),
                written_at: Timestamp::now().micros(),
                step: Step::Asked,
                detail: super::look::in_words(&events),
            };
            log.ask(&asked, &handed_in).await.context("ask for the replay")?;
            writeln!(out, "asked for: {}", asked.detail)?;
            asked.replay
        }
    };
    out.flush()?;
    let outcome = outcome(&mut log, id, number, args.wait).await?;
    match outcome {
        Some(Record { step: Step::Taken, detail, .. }) => {
            writeln!(out, "replayed: {detail}")?;
            Ok(())
        }
        Some(refused) => bail!("{} was not replayed: {}", id.short(), refused.detail),
        None => bail!(
            "no hub has taken it within {}: is one running on this lake? It stays asked for: the next hub takes it, and \
             `onhand-hub quarantine show {}` says so",
            humantime::format_duration(args.wait),
            id.short()
        ),
    }
}

/// At most one byte more than is taken.
fn read(file: &Path) -> std::io::Result<Bytes> {
    let most = payload::MAX_PAYLOAD as u64 + 1;
    let mut content = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_end(&mut content)?;
    } else {
        std::fs::File::open(file)?.take(most).read_to_end(&mut content)?;
    }
    Ok(content.into())
}

/// What came of a replay; `None` if nothing did in that time.
async fn outcome(log: &mut ReplayLog, row: super::RowId, replay: Uuid, patience: Duration) -> Result<Option<Record>> {
    let until = Instant::now() + patience;
    let mut known = None;
    loop {
        log.catch_up().await?;
        if known != Some(log.version()) {
            known = Some(log.version());
            match log.read().await?.standing(row) {
                Standing::Taken(outcome) if outcome.replay == replay => return Ok(Some(outcome.clone())),
                Standing::Taken(other) => {
                    let at = time(other.written_at);
                    bail!("{}: another replay was taken, at {at}; nothing of this one was", row.short());
                }
                Standing::Refused(outcome) if outcome.replay == replay => return Ok(Some(outcome.clone())),
                _ => {}
            }
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
