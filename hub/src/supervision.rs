//! Starts the hub's parts in their order, leads one life of the pipeline after another (see `life.rs`), and stops all of it
//! so that nothing taken is left uncommitted.

use crate::config::{HubConfig, Role};
use crate::count_files::{CountFiles, CountFilesRunning, Destination, Folder, Leading};
use crate::gateway::{AckBoard, GatewayStats, Intake};
use crate::kafka::raw;
use crate::lake::Lake;
use crate::lake::commit::CommitError;
use crate::lake::commit_cycle::CycleConfig;
use crate::lake::count_file_log::CountFileLog;
use crate::lake::marks::DoesNotFit;
use crate::life::{Habits, Life, Surroundings};
use crate::mqtt_side;
use crate::ownership::Ownership;
use crate::pipeline::Pipeline;
use crate::quarantine::{Replayer, ReplayerRunning, Way};
use crate::stats::HubStats;
use crate::web::{self, WebState};
use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

/// Updates that a slow reader of the live stream may be behind.
const UPDATES: usize = 4_096;
/// Pause before a pipeline is built anew.
const PAUSE: Duration = Duration::from_secs(1);

/// What lives as long as the process.
struct Hub {
    config: HubConfig,
    around: Surroundings,
    acks: AckBoard,
    pipeline: watch::Sender<Option<Arc<Pipeline>>>,
    /// The same, for the loader of count files and for replays.
    leads: watch::Sender<Option<Leading>>,
    /// There has been a pipeline: from now on trouble is waited out.
    came_up: AtomicBool,
}

/// Runs a whole cloud side until SIGTERM or SIGINT (or, with `once`, until everything that lies ready is in gold).
///
/// # Errors
/// If it cannot start, or another hub takes its lake over.
pub async fn run(config: HubConfig) -> Result<()> {
    let acks = AckBoard::default();
    let (pipeline, pipelines) = watch::channel(None);
    let around = surroundings(&config, pipelines, acks.clone()).await?;
    let hub = Hub { config, around, acks, pipeline, leads: watch::Sender::default(), came_up: AtomicBool::new(false) };
    hub.run().await
}

/// What outlives the lives of a process with a lake.
pub(crate) async fn surroundings(
    config: &HubConfig,
    pipelines: watch::Receiver<Option<Arc<Pipeline>>>,
    acks: AckBoard,
) -> Result<Surroundings> {
    let stats = Arc::new(HubStats::default());
    let lake = Lake::open(&config.lake, config.retention)?;
    lake.check_put_if_absent().await?;
    Ok(Surroundings {
        lake,
        intake: Arc::new(Intake::new(pipelines, acks, Arc::clone(&stats))),
        stats,
        reference: watch::Sender::new(Arc::default()),
        reload_reference: Arc::new(Notify::new()),
        updates: broadcast::Sender::new(UPDATES),
    })
}

/// Writes the bound addresses where somebody asked for them.
pub(crate) fn say_addresses(config: &HubConfig, mqtt: &str, http: &str) -> Result<()> {
    let Some(file) = &config.addr_file else { return Ok(()) };
    let addresses = serde_json::json!({ "mqtt": mqtt, "http": http });
    std::fs::write(file, addresses.to_string()).with_context(|| format!("write {}", file.display()))
}

/// How the lives of a process are led.
pub(crate) fn habits(config: &HubConfig) -> Habits {
    Habits {
        limits: config.limits.clone(),
        bronze: config.bronze,
        most_awaiting_rows: config.most_awaiting_rows,
        threads: std::thread::available_parallelism().map_or(2, usize::from),
        cycle: CycleConfig {
            silver_interval: config.silver_interval,
            gold_interval: config.gold_interval,
            reference: config.reference.clone(),
            reference_interval: config.reference_interval,
        },
        topic_partitions: Vec::new(),
    }
}

impl Hub {
    async fn run(self) -> Result<()> {
        let (stop_intake, stop_cycle) = (CancellationToken::new(), CancellationToken::new());
        let gateway_stats = Arc::new(GatewayStats::default());
        let sink = Arc::clone(&self.around.intake);
        let (mqtt_address, gateway) =
            mqtt_side::start(&self.config, sink, self.acks.clone(), &gateway_stats, stop_intake.clone()).await?;
        let web_state = WebState {
            pipeline: self.pipeline.subscribe(),
            intake: Arc::clone(&self.around.intake),
            stats: Arc::clone(&self.around.stats),
            gateway: gateway_stats,
            reference: self.around.reference.subscribe(),
            reload_reference: Arc::clone(&self.around.reload_reference),
            updates: self.around.updates.clone(),
            started: Instant::now(),
            role: Role::All,
            external_broker: false,
        };
        let (http_address, web) = web::start(web_state, self.config.http)
            .with_context(|| format!("listen for HTTP on {}", self.config.http))?;
        tracing::info!(lake = self.around.lake.root(), mqtt = %mqtt_address, http = %http_address, "hub started");
        say_addresses(&self.config, &mqtt_address, &http_address.to_string())?;
        let count_files = match &self.config.count_files {
            None => None,
            Some(place) => {
                let folder = Folder::open(place).context("count_files")?;
                let log = CountFileLog::new(self.around.lake.clone());
                let leading = self.leads.subscribe();
                let loader = CountFiles { folder, destination: Destination::Stores, log, leading };
                Some(loader.start(stop_intake.clone()))
            }
        };
        let (lake, leading) = (self.around.lake.clone(), self.leads.subscribe());
        let replays = Replayer { lake, way: Way::Stores, leading }.start(stop_intake.clone());
        let ended = {
            let mut lives = std::pin::pin!(self.live(&stop_cycle));
            tokio::select! {
                ended = &mut lives => ended,
                () = self.asked_to_stop(count_files.as_ref(), &replays) => {
                    tracing::info!("stopping: no more is taken, what was taken is committed");
                    stop_intake.cancel();
                    let _ = tokio::time::timeout(Duration::from_secs(10), gateway).await;
                    stop_cycle.cancel();
                    lives.await
                }
            }
        };
        stop_intake.cancel();
        web.stop().await;
        ended
    }

    /// Resolves when the hub should stop.
    async fn asked_to_stop(&self, count_files: Option<&CountFilesRunning>, replays: &ReplayerRunning) {
        if !self.config.once {
            return asked_by_signal(&self.around.reload_reference).await;
        }
        let mut pipeline = self.pipeline.subscribe();
        let _ = pipeline.wait_for(Option::is_some).await;
        if let Some(count_files) = count_files {
            count_files.first_pass().await;
        }
        replays.first_pass().await;
    }

    /// One life of the pipeline after another.
    async fn live(&self, stop: &CancellationToken) -> Result<()> {
        loop {
            match self.one_life(stop).await {
                Ok(()) if stop.is_cancelled() => return Ok(()),
                Ok(()) => tracing::error!("the pipeline is over; it is built anew from the lake"),
                Err(error)
                    if error.downcast_ref::<CommitError>().is_some_and(|e| matches!(e, CommitError::Fenced { .. })) =>
                {
                    return Err(error.context("another hub has taken this lake over; this one stops"));
                }
                Err(error) if DoesNotFit::is(&error) => return Err(error),
                Err(error) if !self.came_up.load(Relaxed) => {
                    return Err(error); // whoever started it should know at once
                }
                Err(error) => {
                    tracing::error!("the pipeline could not go on: {error:#}; it is built anew from the lake")
                }
            }
            self.around.stats.pipeline_restarts.fetch_add(1, Relaxed);
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn one_life(&self, stop: &CancellationToken) -> Result<()> {
        let Life { pipeline, cycle, servants, positions, .. } =
            Life::begin(&self.around, habits(&self.config), Ownership::Whole, stop.clone()).await?;
        let raw = self.config.kafka.clone().and_then(|kafka| Some((kafka.raw_topic.clone()?, kafka)));
        let reading = raw.map(|(topic, kafka)| {
            tokio::spawn(raw::follow(kafka, topic, self.around.lake.clone(), Arc::clone(&pipeline)))
        });
        if self.config.reference.is_none()
            && !self.came_up.load(Relaxed)
            && self.around.reference.borrow().stores.is_empty()
        {
            tracing::warn!(
                "no --reference was given and the lake holds no reference data: no change counts until there are stores \
                 and change types"
            );
        }
        // Whatever was taken but not committed before has to be sent again.
        self.around.intake.acknowledge(&positions, true);
        self.pipeline.send_replace(Some(Arc::clone(&pipeline)));
        self.leads.send_replace(Some(cycle.leading()));
        self.came_up.store(true, Relaxed);
        let ended = cycle.run().await;
        if let Some(reading) = reading {
            reading.abort();
        }
        pipeline.fail("it was stopped".to_owned());
        self.pipeline.send_replace(None);
        self.leads.send_replace(None);
        self.around.intake.forget_refused();
        servants.end().await;
        Ok(ended?)
    }
}

pub(crate) async fn asked_by_signal(reload: &Notify) {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
        tracing::error!("signals cannot be listened to; only SIGKILL will stop this hub");
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
            _ = hangup.recv() => reload.notify_one(),
        }
    }
}
