//! Every metric of the hub, by name, with its meaning. Read where it is counted at the moment of a scrape; nothing is kept
//! here. No label depends on stores, items or agents: cardinality is the same for every retailer.

use crate::gateway::{GatewayStats, Intake};
use crate::pipeline::Pipeline;
use crate::stats::HubStats;
use onhand_common::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use tokio::sync::watch;

/// Begins every metric's name.
const PREFIX: &str = "onhand_hub";

/// Where the metrics are read.
pub struct Sources {
    /// The pipeline of now.
    pub pipeline: watch::Receiver<Option<Arc<Pipeline>>>,
    /// Counters of the process.
    pub stats: Arc<HubStats>,
    /// Counters of the MQTT side.
    pub gateway: Arc<GatewayStats>,
    /// What is known of the agents.
    pub intake: Arc<Intake>,
    /// When the process started.
    pub started: Instant,
}

/// The registry of all metrics.
pub struct Metrics(Registry);

impl Metrics {
    /// Registers everything.
    pub fn new(sources: Sources) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register("build", "The hub's version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register_collector(Box::new(sources));
        Self(registry)
    }

    /// All metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// Never, in practice: it is a text that is written.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(16 * 1024);
        prometheus_client::encoding::text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.events(&mut out)?;
        self.commits(&mut out)?;
        self.kafka(&mut out)?;
        self.actors(&mut out)?;
        self.agents(&mut out)?;
        self.gateway(&mut out)?;
        self.process(&mut out)
    }
}

impl Sources {
    fn events(&self, out: &mut Out<'_>) -> fmt::Result {
        let s = &self.stats;
        out.counter("frames_taken", "Frames that were taken", &s.frames_taken)?;
        out.counter("frames_seen", "Frames that had been taken before", &s.frames_seen)?;
        out.counter(
            "frames_behind_gap",
            "Frames that were not taken since one before them is missing",
            &s.frames_behind_gap,
        )?;
        out.counter("changes", "Lines of transactions that were new", &s.changes)?;
        out.counter("counts", "Counts of shelves that were new", &s.counts)?;
        out.counter("duplicates", "Lines and counts that had been taken before", &s.duplicates)?;
        out.counter("quarantined", "Rows put into quarantine", &s.quarantined)?;
        out.counter("replayed", "Rows of the quarantine that were handed in again and taken", &s.replayed)
    }

    fn commits(&self, out: &mut Out<'_>) -> fmt::Result {
        let s = &self.stats;
        out.counter("silver_commits", "Silver commits", &s.silver_commits)?;
        out.counter("silver_rows", "Rows that silver commits appended", &s.silver_rows)?;
        out.seconds("silver_commit", "Time spent in silver commits", &s.silver_micros)?;
        out.counter("gold_commits", "Gold commits", &s.gold_commits)?;
        out.counter("gold_rows", "Rows that gold commits wrote", &s.gold_rows)?;
        out.seconds("gold_commit", "Time spent in gold commits", &s.gold_micros)?;
        out.counter(
            "identity_lookups",
            "Times that a store asked silver what it has taken on a day",
            &s.identity_lookups,
        )?;
        out.counter("recounts", "Items that were summed anew from silver", &s.recounts)?;
        out.counter("commit_retries", "Commits that were tried again", &s.commit_retries)?;
        out.counter(
            "commit_conflicts",
            "Commits of others that came first, so that ours came one later",
            &s.commit_conflicts,
        )?;
        out.counter("pipeline_restarts", "Times that the pipeline was built anew from the lake", &s.pipeline_restarts)?;
        out.gauge("silver_version", "Version of silver/inventory_change", s.silver_version.load(Relaxed))?;
        out.gauge("gold_version", "Version of gold/inventory_current", s.gold_version.load(Relaxed))?;
        out.gauge(
            "gold_dirty_stores",
            "Stores that changed since the last gold commit",
            s.gold_dirty_stores.load(Relaxed),
        )?;
        for (name, help, at) in [
            (
                "last_silver_commit_timestamp",
                "When silver was committed last, since 1970; 0: never",
                &s.last_silver_commit,
            ),
            ("last_gold_commit_timestamp", "When gold was committed last, since 1970; 0: never", &s.last_gold_commit),
        ] {
            out.gauge_of(name, help, Some(Unit::Seconds), at.load(Relaxed) as f64 / 1e6)?;
        }
        Ok(())
    }

    fn kafka(&self, out: &mut Out<'_>) -> fmt::Result {
        let s = &self.stats;
        out.counter("kafka_records", "Records that Kafka took", &s.kafka_records)?;
        out.counter("kafka_failures", "Records that Kafka did not take; they are sent again", &s.kafka_failures)?;
        out.gauge(
            "kafka_lag_records",
            "Records in this process's partitions that it has not read",
            s.kafka_lag.load(Relaxed),
        )?;
        out.gauge("kafka_partitions", "Partitions that this process holds", s.kafka_partitions.load(Relaxed))?;
        out.counter("kafka_rebalances", "Times that this process's partitions changed", &s.kafka_rebalances)?;
        out.counter(
            "kafka_lost_records",
            "Records that Kafka removed before they were read: what they held is lost",
            &s.kafka_lost,
        )?;
        out.counter(
            "kafka_skipped_records",
            "Offsets that were missing in a topic when it was read",
            &s.kafka_skipped,
        )?;
        out.counter("fenced", "Commits that were refused since another owns what they move", &s.fenced)
    }

    fn actors(&self, out: &mut Out<'_>) -> fmt::Result {
        let pipeline = self.pipeline.borrow().clone().filter(|pipeline| !pipeline.is_over());
        out.gauge("pipeline_up", "Whether the pipeline takes events", u64::from(pipeline.is_some()))?;
        let (awaiting, most) = pipeline.as_ref().map(|p| p.awaiting_commit()).unwrap_or_default();
        out.gauge("rows_awaiting_commit", "Rows that await a commit", awaiting as u64)?;
        out.gauge("rows_awaiting_commit_limit", "Rows that may await a commit; then senders wait", most as u64)?;
        let shared = pipeline.as_ref().map(|p| p.directory.shared());
        let read = |value: fn(&crate::actors::StoreShared) -> usize| shared.map_or(0, |shared| value(shared) as u64);
        out.gauge("live_items", "Items that have an actor of their own", read(|s| s.live_items.load(Relaxed)))?;
        out.gauge("live_items_limit", "Items that may have one", read(|s| s.limits.live_items))?;
        out.gauge("tracked_items", "Items whose state is in memory", read(|s| s.tracked_items.load(Relaxed)))?;
        out.gauge(
            "identities",
            "Identities of taken events in memory; what is kept in filters, by its room",
            read(|s| s.identities.held()),
        )?;
        out.gauge("identities_limit", "Identities that may be in memory", read(|s| s.limits.identities))?;
        out.gauge("live_streams", "Clients of the live stream", read(|s| s.updates.receiver_count()))
    }

    fn agents(&self, out: &mut Out<'_>) -> fmt::Result {
        let agents = self.intake.agents().all();
        let statuses = || agents.iter().filter_map(|agent| agent.status.as_ref());
        out.gauge("agents", "Agents that were heard of since the start", agents.len() as u64)?;
        let connected = agents.iter().filter(|agent| agent.connected).count();
        out.gauge("agents_connected", "Agents that are connected, as far as is known", connected as u64)?;
        let backlog = statuses().map(|status| status.backlog).sum();
        out.gauge("agents_backlog_events", "Events in the agents' outboxes, as they said last", backlog)?;
        let bytes = statuses().map(|status| status.backlog_bytes).sum::<u64>();
        out.gauge_of(
            "agents_backlog",
            "Size of the agents' outboxes, as they said last",
            Some(Unit::Bytes),
            bytes as f64,
        )?;
        let rolled_back = statuses().filter(|status| status.rolled_back).count();
        out.gauge("agents_rolled_back", "Agents whose disk was found rolled back", rolled_back as u64)
    }

    fn gateway(&self, out: &mut Out<'_>) -> fmt::Result {
        for (name, value) in self.gateway.snapshot() {
            let (metric, help) = (format!("gateway_{name}"), gateway_help(name));
            if name == "connections" {
                out.gauge(&metric, help, value)?;
            } else {
                out.count(&metric, help, value)?;
            }
        }
        Ok(())
    }

    fn process(&self, out: &mut Out<'_>) -> fmt::Result {
        let uptime = self.started.elapsed().as_secs_f64();
        out.gauge_of("uptime", "Time since the hub started", Some(Unit::Seconds), uptime)?;
        let now = Timestamp::now().micros() as f64 / 1e6;
        out.gauge_of("start_timestamp", "When the hub started, since 1970", Some(Unit::Seconds), now - uptime)?;
        match resident_bytes() {
            Some(bytes) => out.gauge_of("resident_memory", "Memory of this process", Some(Unit::Bytes), bytes as f64),
            None => Ok(()),
        }
    }
}

fn gateway_help(name: &str) -> &'static str {
    match name {
        "connections" => "Clients that are connected now, or 1 while connected to another broker",
        "connections_opened" => "Connections that were accepted, or made to another broker",
        "connections_refused" => "Connections turned away because there were too many",
        "handshakes_failed" => "Connections that sent no valid CONNECT in time",
        "refused_credentials" => "CONNECTs with credentials that are not right",
        "refused_topics" => "Publishes and subscriptions to topics that the client may not use",
        "frames" => "Frames that came in",
        "bytes" => "Bytes of frames that came in",
        "raw_documents" => "Documents that came in from devices without an agent",
        "statuses" => "Status messages of agents",
        "refused_payloads" => "Messages that are not understandable",
        "takeovers" => "Sessions ended because the same client connected again",
        "protocol_errors" => "Connections ended because of what MQTT does not allow there",
        "oversized_packets" => "Connections ended because a packet was larger than allowed",
        "over_limit" => "Connections ended because of too many unacknowledged messages",
        "shed" => "Connections ended because the hub did not take messages for too long",
        "keep_alive_timeouts" => "Connections ended because nothing came within the keep-alive",
        "slow_readers" => "Connections ended because the client did not read what it was sent",
        "dropped_messages" => "QoS 0 messages of another broker that found no room",
        "acks_sent" => "Durable acks that were sent",
        _ => "A counter of the MQTT side",
    }
}

/// Resident memory of this process; `None` where the system does not tell in this way.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn write(&mut self, name: &str, help: &str, unit: Option<Unit>, metric: &impl EncodeMetric) -> fmt::Result {
        metric.encode(self.0.encode_descriptor(name, help, unit.as_ref(), metric.metric_type())?)
    }

    fn counter(&mut self, name: &str, help: &str, value: &AtomicU64) -> fmt::Result {
        self.count(name, help, value.load(Relaxed))
    }

    fn count(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.write(name, help, None, &ConstCounter::new(value))
    }

    fn seconds(&mut self, name: &str, help: &str, micros: &AtomicU64) -> fmt::Result {
        self.write(name, help, Some(Unit::Seconds), &ConstCounter::new(micros.load(Relaxed) as f64 / 1e6))
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.write(name, help, None, &ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)))
    }

    fn gauge_of(&mut self, name: &str, help: &str, unit: Option<Unit>, value: f64) -> fmt::Result {
        self.write(name, help, unit, &ConstGauge::new(value))
    }
}
