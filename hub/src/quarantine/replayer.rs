//! The hub's side of a replay: looks for what is asked for, takes it, and says what came of it.

use super::payload::{self, Unusable};
use super::replays::{Record, Step};
use crate::actors::Taken;
use crate::count_files::Leading;
use crate::kafka::event_topic::NotTaken;
use crate::kafka::{EventTopic, KafkaSettings};
use crate::lake::Lake;
use crate::lake::replay_log::ReplayLog;
use crate::rows::{BronzeRow, LOG_APPEND_TIME, Source};
use crate::stats::HubStats;
use anyhow::{Context, Result};
use bytes::Bytes;
use onhand_common::{AgentId, Epoch, Event, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Time between two looks: one request to an object store.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Pause after something that did not work.
const AGAIN: Duration = Duration::from_secs(5);
/// What bronze says of where it came from.
const TOPIC: &str = "silver/quarantine";

/// Where events go.
pub enum Way {
    /// To the stores of this process.
    Stores,
    /// Onto the topic that all processors read.
    Topic(KafkaSettings, Arc<HubStats>),
}

/// See the module.
pub struct Replayer {
    /// Whose quarantine.
    pub lake: Lake,
    /// Where events go.
    pub way: Way,
    /// The life of now, if it is this process that replays.
    pub leading: watch::Receiver<Option<Leading>>,
}

/// The replayer, at work.
pub struct ReplayerRunning {
    looks: watch::Receiver<u64>,
}

impl ReplayerRunning {
    /// Resolves when everything that was asked for at the start has its outcome.
    pub async fn first_pass(&self) {
        let _ = self.looks.clone().wait_for(|&looks| looks > 0).await;
    }
}

/// Why a replay does not go on.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// It never will.
    #[error("{0}")]
    Refused(String),
    /// Another time it may.
    #[error(transparent)]
    Later(#[from] anyhow::Error),
}

impl Replayer {
    /// Looks now and then, until `stop`.
    pub fn start(self, stop: CancellationToken) -> ReplayerRunning {
        let (looked, looks) = watch::channel(0);
        tokio::spawn(async move {
            tokio::select! {
                () = self.replay(&looked) => {}
                () = stop.cancelled() => {}
            }
        });
        ReplayerRunning { looks }
    }

    /// One life after another.
    async fn replay(mut self, looked: &watch::Sender<u64>) {
        loop {
            let alive = |leading: &Option<Leading>| leading.as_ref().is_some_and(|life| !life.pipeline.is_over());
            let Ok(life) = self.leading.wait_for(alive).await.map(|life| life.clone()) else { return };
            let Some(life) = life else { continue };
            tokio::select! {
                ended = self.replay_in(&life, looked) => {
                    if let Err(error) = ended && !life.pipeline.is_over() {
                        tracing::warn!("replays of the quarantine: {error:#}; looking again later");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
                _ = life.pipeline.over_and_why() => {}
            }
        }
    }

    async fn replay_in(&self, life: &Leading, looked: &watch::Sender<u64>) -> Result<()> {
        let mut log = ReplayLog::open_or_create(&self.lake).await?;
        let mut known = None;
        loop {
            log.catch_up().await?;
            if known != Some(log.version()) {
                known = Some(log.version());
                let mut replays = log.read().await?;
                while let Some(asked) = replays.next_due().cloned() {
                    let (step, detail) = match replays.standing(asked.row) {
                        super::Standing::Taken(_) => (Step::Refused, "the row was replayed already".to_owned()),
                        _ => match self.take(life, &log, &asked).await {
                            Ok(detail) => (Step::Taken, detail),
                            Err(Trouble::Refused(detail)) => (Step::Refused, detail),
                            Err(Trouble::Later(error)) => return Err(error),
                        },
                    };
                    let written_at = Timestamp::now().micros();
                    let outcome = Record { written_at, step, detail, ..asked };
                    let version = life.epoch << 32 | i64::from(life.plans.fetch_add(1, Relaxed) + 1);
                    log.answer(&outcome, &life.app_ids, version).await?;
                    life.pipeline.stats.replayed.fetch_add(u64::from(step == Step::Taken), Relaxed);
                    tracing::info!(row = %outcome.row, state = step.as_str(), detail = outcome.detail, "a replay of the quarantine");
                    replays.add(outcome);
                }
            }
            looked.send_modify(|looks| *looks += 1);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Takes the events; returns once they are durable.
    async fn take(&self, life: &Leading, log: &ReplayLog, asked: &Record) -> Result<String, Trouble> {
        let payload = log.payload(asked.replay).await?;
        let parse = move || payload::events_of(&payload);
        let events = tokio::task::spawn_blocking(parse).await.context("read a payload")?;
        let events = events.map_err(|error: Unusable| Trouble::Refused(error.to_string()))?;
        // Silver's lineage: whose row of the quarantine it was.
        let name = AgentId::new(&format!("replay-{}", asked.row)).context("name a replay")?;
        match &self.way {
            Way::Stores => self.take_here(life, &name, events).await,
            Way::Topic(settings, stats) => {
                let topic = EventTopic::connect(settings, Arc::clone(stats)).await?;
                let said = format!("{} on the topic {}", super::look::in_words(&events), settings.topic);
                for part in payload::parts(&name, events) {
                    match topic.put_part(part, &[]).await {
                        Ok(()) => {}
                        Err(NotTaken::TooLarge) => {
                            return Err(Trouble::Refused("payload: more than the topic allows".to_owned()));
                        }
                        Err(error @ NotTaken::ThisTime) => return Err(Trouble::Later(error.into())),
                    }
                }
                Ok(said)
            }
        }
    }

    async fn take_here(&self, life: &Leading, name: &AgentId, events: Vec<Event>) -> Result<String, Trouble> {
        let pipeline = &life.pipeline;
        let source = Source::agent(name, Epoch(0));
        let mut all = Taken::default();
        for part in payload::parts(name, events) {
            let (first, value) = (part.events[0].0, Bytes::from(part.encode()));
            let taken = pipeline.take(&source, part.events, value.len()).await.map_err(anyhow::Error::from)?;
            all.changes += taken.changes;
            all.counts += taken.counts;
            all.duplicates += taken.duplicates;
            pipeline.keep_raw(|| BronzeRow {
                key: name.to_string().into(),
                value,
                topic: TOPIC.to_owned(),
                partition: 0,
                offset: first.0 as i64,
                timestamp: Timestamp::now().micros(),
                timestamp_type: LOG_APPEND_TIME,
            });
        }
        pipeline.commit_wanted.notify_one();
        pipeline.durable().await.map_err(anyhow::Error::from)?;
        Ok(format!("{} lines and {} counts were new, {} known", all.changes, all.counts, all.duplicates))
    }
}
