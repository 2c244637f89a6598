//! The hub's side of a replay: looks for what is asked for, takes it, and says what came of it.

use super::look::{in_words, many};
use super::payload::{self, Unusable};
use super::replays::{Record, Step};
use crate::actors::Taken;
use crate::count_files::Leading;
use crate::kafka::{EventTopic, KafkaSettings, NotTaken};
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
                let said = format!("{} on the topic {}", in_words(&events), settings.topic);
                let mut all_taken = true;
                for part in payload::parts(&name, events) {
                    match topic.put_part(part, &[]).await {
                        Ok(()) => {}
                        Err(NotTaken::TooLarge) => all_taken = false,
                        Err(error @ NotTaken::ThisTime) => return Err(Trouble::Later(error.into())),
                    }
                }
                if !all_taken {
                    return Err(Trouble::Refused(format!(
                        "payload: an event alone is more than the topic {} allows (max.message.bytes). What else was there is \
                         on the topic, and is not taken again with another replay",
                        settings.topic
                    )));
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
        let (lines, counts) = (many(all.changes, "line"), many(all.counts, "count"));
        Ok(format!("{lines} and {counts} were new, {} known", all.duplicates))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::{ActorLimits, ActorThreads, DayRequest, Directory, IdentityLookup, StoreShared};
    use crate::lake::samples::lake;
    use crate::pipeline::Pipeline;
    use crate::quarantine::{RowId, Standing};
    use crate::reference::Applicability;
    use onhand_common::ReferenceData;
    use std::sync::atomic::AtomicU32;
    use tokio::sync::{broadcast, mpsc};
    use uuid::Uuid;

    const SALE: &str = r#"{"trans_id":"t","store_id":1,"date_time":"2021-01-01T00:00:00.000Z","change_type_id":1,"items":[{"item_id":10,"quantity":-2}]}"#;

    /// A pipeline that commits when it is told to.
    struct Life {
        pipeline: Arc<Pipeline>,
        threads: ActorThreads,
        _requests: mpsc::Receiver<DayRequest>,
    }

    impl Life {
        async fn begin() -> Self {
            let threads = ActorThreads::start(1).await.unwrap();
            let (lookup, requests) = IdentityLookup::new(Arc::default());
            let shared = Arc::new(StoreShared::new(ActorLimits::default(), lookup, broadcast::Sender::new(8)));
            let applicability = Arc::new(Applicability::new(&ReferenceData::default()));
            let directory = Directory::new(threads.arbiters(), shared, applicability);
            let pipeline = Pipeline::new(directory, Default::default(), true, 10_000, Arc::default());
            Self { pipeline: Arc::new(pipeline), threads, _requests: requests }
        }

        fn leading(&self, epoch: i64) -> Leading {
            let (app_ids, plans) = (vec!["p0".to_owned()], Arc::new(AtomicU32::new(0)));
            Leading { pipeline: Arc::clone(&self.pipeline), app_ids, epoch, plans }
        }

        async fn taken(&self, changes: u64) {
            until(async || self.pipeline.stats.changes.load(Relaxed) == changes).await;
        }

        async fn end(self) {
            self.pipeline.fail("it was ended".to_owned());
            self.threads.stop().await;
        }
    }

    async fn until(mut done: impl AsyncFnMut() -> bool) {
        for _ in 0..3_000 {
            if done().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited in vain");
    }

    fn asked(row: RowId, replay: u128) -> Record {
        let (replay, step) = (Uuid::from_u128(replay), Step::Asked);
        Record { row, received_at: 1, source: "s".to_owned(), replay, written_at: 2, step, detail: String::new() }
    }

    async fn standing(log: &mut ReplayLog, row: RowId) -> (String, String) {
        log.catch_up().await.unwrap();
        let replays = log.read().await.unwrap();
        let standing = replays.standing(row);
        let detail = standing.record().map(|record| record.detail.clone()).unwrap_or_default();
        (standing.as_str().to_owned(), detail)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_row_is_marked_once_its_events_are_durable_and_a_life_that_ended_before_is_made_up_for() {
        let (_folder, lake) = lake();
        let mut log = ReplayLog::open_or_create(&lake).await.unwrap();
        let row: RowId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        log.ask(&asked(row, 1), SALE.as_bytes()).await.unwrap();
        let (leads, leading) = watch::channel(None);
        let stop = CancellationToken::new();
        let running = Replayer { lake, way: Way::Stores, leading }.start(stop.clone());

        // This life takes the events, and ends before they are durable.
        let life = Life::begin().await;
        leads.send_replace(Some(life.leading(1)));
        life.taken(1).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(standing(&mut log, row).await.0, "asked for");
        leads.send_replace(None);
        life.end().await;

        let life = Life::begin().await;
        leads.send_replace(Some(life.leading(2)));
        life.taken(1).await;
        assert_eq!(standing(&mut log, row).await.0, "asked for");
        until(async || {
            let cut = life.pipeline.begin_cut();
            life.pipeline.committed(&cut);
            standing(&mut log, row).await.0 == "replayed"
        })
        .await;
        running.first_pass().await;
        assert_eq!(standing(&mut log, row).await.1, "1 line and 0 counts were new, 0 known");

        // Another one that was asked for at the same time, with another payload: nothing of it is taken.
        log.ask(&asked(row, 2), SALE.replace("\"t\"", "\"other\"").as_bytes()).await.unwrap();
        until(async || {
            log.catch_up().await.unwrap();
            log.read().await.unwrap().next_due().is_none()
        })
        .await;
        assert!(
            matches!(log.read().await.unwrap().standing(row), Standing::Taken(taken) if taken.replay == Uuid::from_u128(1))
        );
        assert_eq!(life.pipeline.stats.changes.load(Relaxed), 1);
        stop.cancel();
        life.end().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_this_hub_cannot_take_is_refused_and_does_not_hold_up_others() {
        let (_folder, lake) = lake();
        let mut log = ReplayLog::open_or_create(&lake).await.unwrap();
        let [bad, good] = ["0", "1"].map(|digit| digit.repeat(32).parse::<RowId>().unwrap());
        // A command of another version took it for good.
        log.ask(&asked(bad, 1), b"{\"trans_id\":\"t\"}").await.unwrap();
        log.ask(&asked(good, 2), SALE.as_bytes()).await.unwrap();
        let (leads, leading) = watch::channel(None);
        let stop = CancellationToken::new();
        Replayer { lake, way: Way::Stores, leading }.start(stop.clone());
        let life = Life::begin().await;
        leads.send_replace(Some(life.leading(1)));
        life.taken(1).await;
        let (state, detail) = standing(&mut log, bad).await;
        assert_eq!((state.as_str(), detail.as_str()), ("refused again", "store_id: is missing"));
        stop.cancel();
        life.end().await;
    }
}
