//! Starts the hub's parts in their order, leads one life of the pipeline after another (see `life.rs`), and stops all of it
//! so that nothing taken is left uncommitted.

use crate::config::{HubConfig, MqttSide, TlsFiles};
use crate::gateway::count_files::{CountFiles, CountFilesRunning};
use crate::gateway::{
    AckBoard, Agents, BrokerConfig, BrokerUrl, EmbeddedBroker, ExternalBroker, ExternalBrokerConfig, FrameSink,
    GatewayStats, Intake,
};
use crate::lake::Lake;
use crate::lake::commit::CommitError;
use crate::lake::commit_cycle::CycleConfig;
use crate::lake::count_file_log::CountFileLog;
use crate::life::{Habits, Life, Surroundings};
use crate::pipeline::Pipeline;
use crate::stats::HubStats;
use crate::web::{self, WebState};
use anyhow::{Context, Result};
use std::path::Path;
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
    /// There has been a pipeline: from now on trouble is waited out.
    came_up: AtomicBool,
}

/// Runs the hub until SIGTERM or SIGINT (or, with `once`, until everything that lies ready is in gold).
///
/// # Errors
/// If it cannot start, or another hub takes its lake over.
pub async fn run(config: HubConfig) -> Result<()> {
    let stats = Arc::new(HubStats::default());
    let acks = AckBoard::default();
    let (pipeline, pipelines) = watch::channel(None);
    let around = Surroundings {
        lake: Lake::open(&config.lake, config.retention)?,
        intake: Arc::new(Intake::new(pipelines, acks.clone(), Arc::clone(&stats))),
        stats,
        reference: watch::Sender::new(Arc::default()),
        reload_reference: Arc::new(Notify::new()),
        updates: broadcast::Sender::new(UPDATES),
    };
    let hub = Hub { config, around, acks, pipeline, came_up: AtomicBool::new(false) };
    hub.run().await
}

impl Hub {
    async fn run(self) -> Result<()> {
        let (stop_intake, stop_cycle) = (CancellationToken::new(), CancellationToken::new());
        let gateway_stats = Arc::new(GatewayStats::default());
        let (mqtt_address, gateway) = self.start_gateway(&gateway_stats, stop_intake.clone()).await?;
        let web_state = WebState {
            pipeline: self.pipeline.subscribe(),
            intake: Arc::clone(&self.around.intake),
            stats: Arc::clone(&self.around.stats),
            gateway: gateway_stats,
            reference: self.around.reference.subscribe(),
            reload_reference: Arc::clone(&self.around.reload_reference),
            updates: self.around.updates.clone(),
            started: Instant::now(),
        };
        let (http_address, web) = web::start(web_state, self.config.http)
            .with_context(|| format!("listen for HTTP on {}", self.config.http))?;
        tracing::info!(lake = self.around.lake.root(), mqtt = %mqtt_address, http = %http_address, "hub started");
        if let Some(file) = &self.config.addr_file {
            let addresses = serde_json::json!({ "mqtt": mqtt_address, "http": http_address.to_string() });
            std::fs::write(file, addresses.to_string()).with_context(|| format!("write {}", file.display()))?;
        }
        let count_files = self.config.count_files.clone().map(|folder| {
            if !folder.is_dir() {
                tracing::warn!(folder = %folder.display(), "count_files: there is no such folder (yet)");
            }
            let log = CountFileLog::new(self.around.lake.clone());
            CountFiles::new(folder, self.pipeline.subscribe(), Arc::clone(&self.around.intake), log)
                .start(stop_intake.clone())
        });
        let ended = {
            let mut lives = std::pin::pin!(self.live(&stop_cycle));
            tokio::select! {
                ended = &mut lives => ended,
                () = self.asked_to_stop(count_files.as_ref()) => {
                    tracing::info!("stopping: no more is taken, what was taken is committed");
                    stop_intake.cancel();
                    if let Some(gateway) = gateway {
                        let _ = tokio::time::timeout(Duration::from_secs(10), gateway).await;
                    }
                    stop_cycle.cancel();
                    lives.await
                }
            }
        };
        stop_intake.cancel();
        web.stop().await;
        ended
    }

    async fn start_gateway(
        &self,
        stats: &Arc<GatewayStats>,
        stop: CancellationToken,
    ) -> Result<(String, Option<tokio::task::JoinHandle<()>>)> {
        let sink: Arc<dyn FrameSink> = Arc::clone(&self.around.intake) as _;
        match &self.config.mqtt {
            MqttSide::Embedded { listen, tls } => {
                let agents = match &self.config.agents {
                    Some(file) => Agents::load(file)?,
                    None => {
                        tracing::warn!(
                            "OPEN MODE: no --agents file was given, so any client is taken for the agent it says it is"
                        );
                        Agents::open()
                    }
                };
                let tls = tls.as_ref().map(read_tls).transpose()?;
                let config = BrokerConfig { agents, tls, stats: Arc::clone(stats), ..BrokerConfig::default() };
                let broker = EmbeddedBroker::bind(*listen, config)
                    .await
                    .with_context(|| format!("listen for MQTT on {listen}"))?;
                let address = broker.local_addr().to_string();
                let running = tokio::spawn(broker.run(sink, self.acks.clone(), stop));
                Ok((address, Some(running)))
            }
            MqttSide::External { url, client_id } => {
                let url: BrokerUrl = url.parse().context("mqtt")?;
                let address = format!("{}:{}", url.host, url.port);
                let config = ExternalBrokerConfig {
                    client_id: client_id.clone(),
                    stats: Arc::clone(stats),
                    ..ExternalBrokerConfig::new(url)
                };
                let broker = ExternalBroker::new(config).context("prepare TLS for the broker")?;
                Ok((address, Some(tokio::spawn(broker.run(sink, self.acks.clone(), stop)))))
            }
        }
    }

    /// Resolves when the hub should stop.
    async fn asked_to_stop(&self, count_files: Option<&CountFilesRunning>) {
        if !self.config.once {
            return asked_by_signal(&self.around.reload_reference).await;
        }
        let mut pipeline = self.pipeline.subscribe();
        let _ = pipeline.wait_for(Option::is_some).await;
        if let Some(count_files) = count_files {
            count_files.first_pass().await;
        }
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
        let habits = Habits {
            limits: self.config.limits.clone(),
            bronze: self.config.bronze,
            most_awaiting_rows: self.config.most_awaiting_rows,
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            cycle: CycleConfig {
                silver_interval: self.config.silver_interval,
                gold_interval: self.config.gold_interval,
                reference: self.config.reference.clone(),
                reference_interval: self.config.reference_interval,
            },
        };
        let Life { pipeline, cycle, servants, positions } = Life::begin(&self.around, habits, stop.clone()).await?;
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
        self.came_up.store(true, Relaxed);
        let ended = cycle.run().await;
        pipeline.fail("it was stopped".to_owned());
        self.pipeline.send_replace(None);
        self.around.intake.forget_refused();
        servants.end().await;
        Ok(ended?)
    }
}

fn read_tls(files: &TlsFiles) -> Result<Arc<rustls::ServerConfig>> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("read {}", path.display()));
    let chain = rustls_pemfile::certs(&mut &read(&files.cert)?[..]).collect::<Result<Vec<_>, _>>();
    let chain = chain.with_context(|| format!("tls_cert: read certificates in {}", files.cert.display()))?;
    let key = rustls_pemfile::private_key(&mut &read(&files.key)?[..])
        .with_context(|| format!("tls_key: read {}", files.key.display()))?
        .with_context(|| format!("tls_key: there is no private key in {}", files.key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("prepare TLS")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("tls_cert and tls_key do not go together")?;
    Ok(Arc::new(config))
}

async fn asked_by_signal(reload: &Notify) {
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
