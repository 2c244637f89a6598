//! Which part of the cloud side this process is: all of it (supervision.rs), or one of the two halves when Kafka stands between
//! them, which are put together here.

use crate::config::{HubConfig, MqttSide, Role};
use crate::count_files::{CountFiles, Destination, Folder};
use crate::gateway::{AckBoard, GatewayStats, Intake};
use crate::kafka::gateway::KafkaSink;
use crate::kafka::processor::Processor;
use crate::kafka::{EventTopic, KafkaSettings};
use crate::lake::count_file_log::CountFileLog;
use crate::mqtt_side;
use crate::quarantine::{Replayer, Way};
use crate::stats::HubStats;
use crate::supervision::{self, asked_by_signal, habits, say_addresses, surroundings};
use crate::web::{self, WebState};
use anyhow::{Context, Result, anyhow};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

/// How long a way in may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the part of the cloud side that the configuration asks for.
///
/// # Errors
/// If it cannot start, or cannot go on.
pub async fn run(config: HubConfig) -> Result<()> {
    match config.role {
        Role::All => supervision::run(config).await,
        Role::Gateway => gateway(config).await,
        Role::Processor => processor(config).await,
    }
}

fn kafka(config: &HubConfig) -> Result<KafkaSettings> {
    config.kafka.clone().context("kafka is missing")
}

/// From MQTT to Kafka, until SIGTERM or SIGINT.
///
/// # Errors
/// If it cannot start.
async fn gateway(config: HubConfig) -> Result<()> {
    let (stats, gateway_stats) = (Arc::new(HubStats::default()), Arc::new(GatewayStats::default()));
    let acks = AckBoard::default();
    let (_no_pipeline, pipelines) = watch::channel(None);
    let intake = Arc::new(Intake::new(pipelines.clone(), acks.clone(), Arc::clone(&stats)));
    let settings = kafka(&config)?;
    let nothing = Arc::new(Notify::new());
    let Some(topic) = unless_stopped(EventTopic::connect(&settings, Arc::clone(&stats)), &nothing).await? else {
        return Ok(());
    };
    let (agents, counted) = (Arc::clone(intake.agents()), Arc::clone(&stats));
    let sink =
        KafkaSink { topic: topic.clone(), acks: acks.clone(), agents, stats: counted, refused: Mutex::default() };
    let stop = CancellationToken::new();
    let (mqtt, running) = mqtt_side::start(&config, Arc::new(sink), acks, &gateway_stats, stop.clone()).await?;
    let state = WebState {
        pipeline: pipelines,
        intake,
        stats,
        gateway: gateway_stats,
        reference: watch::Sender::default().subscribe(),
        reload_reference: Arc::clone(&nothing),
        updates: broadcast::Sender::new(1),
        started: Instant::now(),
        role: Role::Gateway,
        external_broker: matches!(config.mqtt, MqttSide::External { .. }),
    };
    let (http, web) = web::start(state, config.http).with_context(|| format!("listen for HTTP on {}", config.http))?;
    tracing::info!(kafka = settings.bootstrap, topic = settings.topic, %mqtt, %http, "gateway started");
    say_addresses(&config, &mqtt, &http.to_string())?;
    let ended = tokio::select! {
        () = asked_by_signal(&nothing) => Ok(()),
        reason = topic.broken() => Err(anyhow!(reason)),
    };
    tracing::info!("stopping: no more is taken");
    stop.cancel();
    let _ = tokio::time::timeout(PATIENCE, running).await;
    web.stop().await;
    ended
}

/// From Kafka to the lake, until SIGTERM or SIGINT.
///
/// # Errors
/// If it cannot start.
async fn processor(config: HubConfig) -> Result<()> {
    let (pipeline, pipelines) = watch::channel(None);
    let around = surroundings(&config, pipelines.clone(), AckBoard::default()).await?;
    let settings = kafka(&config)?;
    let state = WebState {
        pipeline: pipelines,
        intake: Arc::clone(&around.intake),
        stats: Arc::clone(&around.stats),
        gateway: Arc::new(GatewayStats::default()),
        reference: around.reference.subscribe(),
        reload_reference: Arc::clone(&around.reload_reference),
        updates: around.updates.clone(),
        started: Instant::now(),
        role: Role::Processor,
        external_broker: false,
    };
    let (http, web) = web::start(state, config.http).with_context(|| format!("listen for HTTP on {}", config.http))?;
    tracing::info!(lake = around.lake.root(), kafka = settings.bootstrap, topic = settings.topic, %http, "processor started");
    say_addresses(&config, "", &http.to_string())?;
    let stop = CancellationToken::new();
    let reload = Arc::clone(&around.reload_reference);
    let (leads, leading) = watch::channel(None);
    let way = Way::Topic(settings.clone(), Arc::clone(&around.stats));
    Replayer { lake: around.lake.clone(), way, leading: leading.clone() }.start(stop.clone());
    let mut count_topic = None;
    if let Some(place) = &config.count_files {
        let folder = Folder::open(place).context("count_files")?;
        let topic = EventTopic::connect(&settings, Arc::clone(&around.stats));
        let Some(topic) = unless_stopped(topic, &reload).await? else {
            web.stop().await;
            return Ok(());
        };
        let destination = Destination::Topic(count_topic.insert(topic).clone());
        let log = CountFileLog::new(around.lake.clone());
        CountFiles { folder, destination, log, leading }.start(stop.clone());
    }
    let processor = Processor { settings, around, habits: habits(&config), pipeline, leads };
    let mut processing = std::pin::pin!(processor.run(stop.clone()));
    let ended = tokio::select! {
        ended = &mut processing => ended,
        () = asked_by_signal(&reload) => {
            tracing::info!("stopping: what was taken is committed");
            stop.cancel();
            processing.await
        }
        reason = broken(count_topic.as_ref()) => {
            stop.cancel();
            processing.await.and(Err(anyhow!(reason)))
        }
    };
    web.stop().await;
    ended
}

/// Resolves when a topic's client can do no more, and says why; never, where there is none.
async fn broken(topic: Option<&EventTopic>) -> String {
    match topic {
        Some(topic) => topic.broken().await,
        None => std::future::pending().await,
    }
}

/// Does something that may have to wait for Kafka; `None` if SIGTERM or SIGINT came first.
async fn unless_stopped<T>(work: impl Future<Output = Result<T>>, reload: &Notify) -> Result<Option<T>> {
    tokio::select! {
        done = work => done.map(Some),
        () = asked_by_signal(reload) => {
            tracing::info!("stopping: nothing was taken yet");
            Ok(None)
        }
    }
}
