//! The agent's metrics: names, meanings, and the numbers themselves, which `/v1/status` shows too. No label depends on
//! what tills send.

use crate::outbox::Outbox;
use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

/// Everything that is counted.
pub(crate) struct Metrics {
    /// Transactions and counts made durable.
    pub(crate) accepted: Counter,
    /// Transactions and counts answered as duplicates.
    pub(crate) duplicates: Counter,
    /// Entries refused as malformed.
    pub(crate) refused: Counter,
    /// Requests refused for want of room.
    pub(crate) full: Counter,
    /// Seconds from taking up a group to its being durable.
    pub(crate) commits: Histogram,
    /// Files of the drop folder that were taken.
    pub(crate) files_done: Counter,
    /// Files of the drop folder that were rejected.
    pub(crate) files_rejected: Counter,
    /// Frames handed to the connection, repetitions included.
    pub(crate) frames_sent: Counter,
    /// Events that became durable at the hub.
    pub(crate) events_acknowledged: Counter,
    /// Connections made.
    pub(crate) connections: Counter,
    /// Times that durable acks stayed away and the connection was renewed.
    pub(crate) watchdog: Counter,
    /// Publishes that the hub or broker denied.
    pub(crate) denied: Counter,
    /// Whether the hub is connected.
    pub(crate) connected: AtomicBool,
    /// Why the last connection to the hub ended, or was not made; `None` while one stands.
    pub(crate) connection_error: Mutex<Option<String>>,
    /// When the last durable ack came, microseconds since 1970; 0: never.
    pub(crate) last_ack: AtomicI64,
    registry: OnceLock<Registered>,
}

struct Registered {
    registry: Registry,
    gauges: Gauges,
}

#[derive(Default)]
struct Gauges {
    events: Gauge,
    frames: Gauge,
    bytes: Gauge,
    max_bytes: Gauge,
    connected: Gauge,
    rolled_back: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            accepted: Counter::default(),
            duplicates: Counter::default(),
            refused: Counter::default(),
            full: Counter::default(),
            commits: Histogram::new(exponential_buckets(0.000_5, 2.0, 13)),
            files_done: Counter::default(),
            files_rejected: Counter::default(),
            frames_sent: Counter::default(),
            events_acknowledged: Counter::default(),
            connections: Counter::default(),
            watchdog: Counter::default(),
            denied: Counter::default(),
            connected: AtomicBool::new(false),
            connection_error: Mutex::new(None),
            last_ack: AtomicI64::new(0),
            registry: OnceLock::new(),
        }
    }
}

impl Metrics {
    /// All of them, in the text format of Prometheus.
    pub(crate) fn render(self: &Arc<Self>, outbox: &Outbox) -> String {
        let registered = self.registry.get_or_init(|| self.register());
        let gauges = &registered.gauges;
        let backlog = outbox.backlog();
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        gauges.events.set(signed(backlog.events));
        gauges.frames.set(signed(backlog.frames));
        gauges.bytes.set(signed(backlog.bytes));
        gauges.max_bytes.set(signed(outbox.max_bytes()));
        gauges.connected.set(i64::from(self.connected.load(Ordering::Relaxed)));
        gauges.rolled_back.set(i64::from(outbox.rolled_back()));
        let mut text = String::new();
        encode(&mut text, &registered.registry).expect("metrics are encoded into memory");
        text
    }

    fn register(&self) -> Registered {
        let mut r = Registry::with_prefix("onhand_agent");
        let counters = [
            ("events_accepted", "Transactions and counts made durable", &self.accepted),
            ("events_duplicate", "Transactions and counts answered as duplicates", &self.duplicates),
            ("events_refused", "Entries refused as malformed", &self.refused),
            ("requests_full", "Requests and files put off for want of room", &self.full),
            ("drop_files_done", "Files of the drop folder that were taken", &self.files_done),
            ("drop_files_rejected", "Files of the drop folder that were rejected", &self.files_rejected),
            ("frames_sent", "Frames handed to the connection, repetitions included", &self.frames_sent),
            ("events_acknowledged", "Events that became durable at the hub", &self.events_acknowledged),
            ("connections", "Connections made to the hub", &self.connections),
            ("watchdog_alarms", "Times that durable acks stayed away and the connection was renewed", &self.watchdog),
            ("publishes_denied", "Publishes that the hub or broker denied", &self.denied),
        ];
        for (name, help, counter) in counters {
            r.register(name, help, counter.clone());
        }
        r.register("commit_seconds", "From taking up a group of requests to its being durable", self.commits.clone());
        let gauges = Gauges::default();
        let described = [
            ("backlog_events", "Events in the outbox that are not durable at the hub", &gauges.events),
            ("backlog_frames", "Frames in the outbox that are not durable at the hub", &gauges.frames),
            ("backlog_bytes", "Bytes of them", &gauges.bytes),
            ("backlog_bytes_max", "The bound on these bytes (setting max_buffer)", &gauges.max_bytes),
            ("connected", "1 while the hub is connected", &gauges.connected),
            ("rolled_back", "1 if the disk was found to have gone back to an older state", &gauges.rolled_back),
        ];
        for (name, help, gauge) in described {
            r.register(name, help, gauge.clone());
        }
        Registered { registry: r, gauges }
    }
}
