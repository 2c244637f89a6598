//! Starts the hub's parts in their order, builds the pipeline anew from the lake when one of its actors dies, and stops all
//! of it so that nothing taken is left uncommitted.
//!
//! There is one way to recover, and it is the same after a crash of the process, of an actor, or of a lookup: forget
//! everything, read the lake, and let the agents send again what was not acknowledged.

use crate::actors::{ActorThreads, Directory, IdentityLookup, ItemUpdate, Presence, StoreShared};
use crate::config::{HubConfig, MqttSide, TlsFiles};
use crate::gateway::count_files::{CountFiles, CountFilesRunning};
use crate::gateway::{
    AckBoard, Agents, BrokerConfig, BrokerUrl, EmbeddedBroker, ExternalBroker, ExternalBrokerConfig, FrameSink,
    GatewayStats, Intake,
};
use crate::lake::commit::CommitError;
use crate::lake::commit_cycle::{CommitCycle, CycleConfig};
use crate::lake::count_file_log::CountFileLog;
use crate::lake::housekeeping::Housekeeping;
use crate::lake::identities::{IdentityReader, SilverFiles, note_presence};
use crate::lake::recovery::recover;
use crate::lake::tables_open::Tables;
use crate::lake::{Lake, Table, TableName};
use crate::pipeline::Pipeline;
use crate::reference::Applicability;
use crate::stats::HubStats;
use crate::web::{self, WebState};
use anyhow::{Context, Result};
use onhand_common::ReferenceData;
use std::collections::BTreeSet;
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
    lake: Lake,
    acks: AckBoard,
    stats: Arc<HubStats>,
    pipeline: watch::Sender<Option<Arc<Pipeline>>>,
    intake: Arc<Intake>,
    reference: watch::Sender<Arc<ReferenceData>>,
    reload_reference: Arc<Notify>,
    updates: broadcast::Sender<ItemUpdate>,
    /// There has been a pipeline: from now on trouble is waited out.
    came_up: AtomicBool,
}

/// Runs the hub until SIGTERM or SIGINT (or, with `once`, until everything that lies ready is in gold).
///
/// # Errors
/// If it cannot start, or another hub takes its lake over.
pub async fn run(config: HubConfig) -> Result<()> {
    let lake = Lake::open(&config.lake, config.retention)?;
    let stats = Arc::new(HubStats::default());
    let acks = AckBoard::default();
    let (pipeline, pipelines) = watch::channel(None);
    let intake = Arc::new(Intake::new(pipelines, acks.clone(), Arc::clone(&stats)));
    let hub = Hub {
        lake,
        acks,
        stats,
        pipeline,
        intake,
        reference: watch::Sender::new(Arc::default()),
        reload_reference: Arc::new(Notify::new()),
        updates: broadcast::Sender::new(UPDATES),
        came_up: AtomicBool::new(false),
        config,
    };
    hub.run().await
}

impl Hub {
    async fn run(self) -> Result<()> {
        let (stop_intake, stop_cycle) = (CancellationToken::new(), CancellationToken::new());
        let gateway_stats = Arc::new(GatewayStats::default());
        let (mqtt_address, gateway) = self.start_gateway(&gateway_stats, stop_intake.clone()).await?;
        let web_state = WebState {
            pipeline: self.pipeline.subscribe(),
            intake: Arc::clone(&self.intake),
            stats: Arc::clone(&self.stats),
            gateway: gateway_stats,
            reference: self.reference.subscribe(),
            reload_reference: Arc::clone(&self.reload_reference),
            updates: self.updates.clone(),
            started: Instant::now(),
        };
        let (http_address, web) = web::start(web_state, self.config.http)
            .with_context(|| format!("listen for HTTP on {}", self.config.http))?;
        tracing::info!(lake = self.lake.root(), mqtt = %mqtt_address, http = %http_address, "hub started");
        if let Some(file) = &self.config.addr_file {
            let addresses = serde_json::json!({ "mqtt": mqtt_address, "http": http_address.to_string() });
            std::fs::write(file, addresses.to_string()).with_context(|| format!("write {}", file.display()))?;
        }
        let count_files = self.config.count_files.clone().map(|folder| {
            let log = CountFileLog::new(self.lake.clone());
            CountFiles::new(folder, self.pipeline.subscribe(), Arc::clone(&self.intake), log).start(stop_intake.clone())
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
        let sink: Arc<dyn FrameSink> = Arc::clone(&self.intake) as _;
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
            return asked_by_signal(&self.reload_reference).await;
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
            self.stats.pipeline_restarts.fetch_add(1, Relaxed);
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn one_life(&self, stop: &CancellationToken) -> Result<()> {
        let started = Instant::now();
        let mut tables = Tables::open(&self.lake).await?;
        let epoch = tables.take_over().await?;
        let recovered = recover(&mut tables).await.context("recover from the lake")?;
        let progress = recovered.progress();
        let applicability = Arc::new(Applicability::new(&recovered.reference));
        self.reference.send_replace(Arc::new(recovered.reference));

        let files = SilverFiles {
            changes: tables.changes.live_files().cloned().collect(),
            counts: tables.counts.live_files().cloned().collect(),
        };
        let presence = Arc::new(Presence::default());
        note_presence(&files, &presence);
        let (files, live_files) = watch::channel(Arc::new(files));
        let (lookup, requests) = IdentityLookup::new(presence);
        let reader = IdentityReader {
            changes: Table::open(&self.lake, TableName::InventoryChange).await?,
            counts: Table::open(&self.lake, TableName::InventorySnapshot).await?,
            files: live_files,
        };
        let reader = tokio::spawn(reader.run(requests));

        let threads = ActorThreads::start(std::thread::available_parallelism().map_or(2, usize::from)).await?;
        let shared = Arc::new(StoreShared::new(self.config.limits.clone(), lookup, self.updates.clone()));
        let directory = Directory::new(threads.arbiters(), shared, Arc::clone(&applicability));
        let behind: BTreeSet<i32> = recovered.behind.iter().copied().collect();
        let (mut stores, mut items) = (0, 0);
        for (store_id, states) in recovered.states {
            stores += 1;
            items += states.len();
            directory.restore(store_id, states, behind.contains(&store_id));
        }
        let pipeline = Arc::new(Pipeline::new(
            directory,
            progress,
            self.config.bronze,
            self.config.most_awaiting_rows,
            Arc::clone(&self.stats),
        ));
        self.stats.silver_version.store(tables.changes.version() as u64, Relaxed);
        self.stats.gold_version.store(tables.gold.version() as u64, Relaxed);
        self.stats.gold_dirty_stores.store(behind.len() as u64, Relaxed);
        tracing::info!(stores, items, behind = behind.len(), epoch, took = ?started.elapsed(), "recovered from the lake");

        // Whatever was taken but not committed before has to be sent again.
        self.intake.acknowledge(&recovered.positions, true);
        self.pipeline.send_replace(Some(Arc::clone(&pipeline)));
        self.came_up.store(true, Relaxed);
        let cycle = CommitCycle {
            tables,
            epoch,
            pipeline: Arc::clone(&pipeline),
            intake: Arc::clone(&self.intake),
            config: CycleConfig {
                silver_interval: self.config.silver_interval,
                gold_interval: self.config.gold_interval,
                reference: self.config.reference.clone(),
                reference_interval: self.config.reference_interval,
            },
            applicability,
            reference: self.reference.clone(),
            reload_reference: Arc::clone(&self.reload_reference),
            files,
            behind,
            shutdown: stop.clone(),
            housekeeping: Housekeeping::default(),
        };
        let ended = cycle.run().await;
        pipeline.fail("it was stopped".to_owned());
        self.pipeline.send_replace(None);
        self.intake.forget_refused();
        reader.abort();
        threads.stop().await;
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
