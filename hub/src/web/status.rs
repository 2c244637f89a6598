//! What concerns operation: health, readiness, metrics, the pipeline's status.

use super::error::{ApiError, ErrorBody};
use super::query::Parameters;
use super::readiness::STALLED_AFTER;
use super::state::Web;
use crate::config::Role;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use onhand_common::Timestamp;
use serde::Serialize;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use utoipa::ToSchema;

/// Everything is fine.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Fine {
    /// Always `ok`.
    status: &'static str,
}

/// It is ready.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ready {
    /// Always `ok`.
    status: &'static str,
    /// What it does not do all the same: events of agents are taken, but a topic that was to be read is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    but: Option<String>,
}

/// The process is up.
#[utoipa::path(get, path = "/healthz", tag = "operation", responses((status = 200, description = "It is up", body = Fine)))]
pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(Fine { status: "ok" })
}

/// The hub takes events, answers for items, and its commits keep up; or it is a processor that stands by for a partition. A topic
/// with raw documents that cannot be read does not change this, since agents are served all the same: then `but` says so.
#[utoipa::path(get, path = "/readyz", tag = "operation", responses(
    (status = 200, description = "It is ready", body = Ready),
    (status = 503, description = "It is not; `error` says why", body = ErrorBody),
))]
pub(super) async fn readyz(web: Data<Web>) -> Result<HttpResponse, ApiError> {
    let state = &web.state;
    if state.role != Role::Gateway && !state.stats.kafka_spare.load(Relaxed) {
        web.pipeline()?;
    }
    if state.external_broker && state.gateway.connections.load(Relaxed) == 0 {
        return Err(ApiError::unavailable("it is not connected to the broker"));
    }
    let waiting = web.waiting(Instant::now());
    if waiting > STALLED_AFTER {
        let waiting = humantime::format_duration(Duration::from_secs(waiting.as_secs()));
        return Err(ApiError::unavailable(format!("rows have been waiting for a silver commit for {waiting}")));
    }
    Ok(HttpResponse::Ok().json(Ready { status: "ok", but: state.stats.raw_topic_unread.lock().clone() }))
}

impl Web {
    /// For how long rows have been waiting with no silver commit.
    pub(super) fn waiting(&self, now: Instant) -> Duration {
        let rows = self.running().map_or(0, |pipeline| pipeline.awaiting_commit().0);
        self.stall.lock().observe(now, rows, self.state.stats.silver_commits.load(Relaxed))
    }
}

/// Metrics in the OpenMetrics text format, which Prometheus reads.
#[utoipa::path(get, path = "/metrics", tag = "operation", responses(
    (status = 200, description = "The metrics", body = String, content_type = "application/openmetrics-text"),
))]
pub(super) async fn metrics(web: Data<Web>) -> Result<HttpResponse, ApiError> {
    let text = web.metrics.encode().map_err(ApiError::internal)?;
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8"))
        .body(text))
}

/// How the pipeline stands. Counters run since the start of the hub.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PipelineStatus {
    /// The pipeline takes events. If not, it is being built from the lake.
    running: bool,
    /// Everything that was taken is in silver and gold.
    settled: bool,
    /// Rows that await a commit, about.
    rows_awaiting_commit: usize,
    /// Rows that may await a commit; then senders wait.
    rows_awaiting_commit_limit: usize,
    /// Stores that changed since the last gold commit.
    gold_dirty_stores: u64,
    /// Version of silver/inventory_change.
    silver_version: u64,
    /// Version of gold/inventory_current.
    gold_version: u64,
    /// When silver was committed last; null: not since the start.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_silver_commit: Option<Timestamp>,
    /// When gold was committed last; null: not since the start.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_gold_commit: Option<Timestamp>,
    /// Mean duration of silver commits, in milliseconds; null if there was none.
    mean_silver_commit_ms: Option<f64>,
    /// Mean duration of gold commits, in milliseconds; null if there was none.
    mean_gold_commit_ms: Option<f64>,
    /// What was counted.
    counters: Counters,
    /// Items that have an actor of their own now.
    live_items: usize,
    /// Items whose state is in memory.
    tracked_items: usize,
    /// Identities of taken events in memory; what is kept in filters, by its room.
    identities: usize,
    /// Seconds since the hub started.
    uptime_seconds: f64,
    /// The hub's version.
    version: &'static str,
}

/// What was counted since the start of the hub.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Counters {
    /// Frames that were taken.
    frames_taken: u64,
    /// Frames that had been taken before.
    frames_seen: u64,
    /// Frames that were not taken since one before them is missing.
    frames_behind_gap: u64,
    /// Lines of transactions that were new.
    changes: u64,
    /// Counts that were new.
    counts: u64,
    /// Lines and counts that had been taken before.
    duplicates: u64,
    /// Rows put into quarantine.
    quarantined: u64,
    /// Silver commits.
    silver_commits: u64,
    /// Rows that they appended.
    silver_rows: u64,
    /// Gold commits.
    gold_commits: u64,
    /// Rows that they wrote.
    gold_rows: u64,
    /// Items that were summed anew from silver.
    recounts: u64,
    /// Times that a store asked silver what it has taken on a day.
    identity_lookups: u64,
    /// Commits that were tried again.
    commit_retries: u64,
    /// Times that the pipeline was built anew from the lake.
    pipeline_restarts: u64,
}

/// How the pipeline stands.
#[utoipa::path(get, path = "/v1/pipeline", tag = "operation", responses(
    (status = 200, description = "Its status", body = PipelineStatus),
))]
pub(super) async fn pipeline(web: Data<Web>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Parameters::of(&request, &[])?;
    Ok(HttpResponse::Ok().json(web.pipeline_status()))
}

impl Web {
    fn pipeline_status(&self) -> PipelineStatus {
        let stats = &self.state.stats;
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        let pipeline = self.running();
        // Rows first, stores second: a commit makes its stores dirty before its rows cease to wait.
        let (awaiting, limit) = pipeline.as_ref().map(|p| p.awaiting_commit()).unwrap_or_default();
        let gold_dirty_stores = stats.gold_dirty_stores.load(std::sync::atomic::Ordering::Acquire);
        let shared = pipeline.as_ref().map(|p| p.directory.shared());
        let time = |at: &AtomicU64| match i64::try_from(read(at)) {
            Ok(micros) if micros > 0 => Timestamp::from_micros(micros).ok(),
            _ => None,
        };
        let mean = |micros: &AtomicU64, commits: &AtomicU64| match read(commits) {
            0 => None,
            commits => Some(read(micros) as f64 / commits as f64 / 1e3),
        };
        PipelineStatus {
            running: pipeline.is_some(),
            settled: pipeline.is_some() && awaiting == 0 && gold_dirty_stores == 0,
            rows_awaiting_commit: awaiting,
            rows_awaiting_commit_limit: limit,
            gold_dirty_stores,
            silver_version: read(&stats.silver_version),
            gold_version: read(&stats.gold_version),
            last_silver_commit: time(&stats.last_silver_commit),
            last_gold_commit: time(&stats.last_gold_commit),
            mean_silver_commit_ms: mean(&stats.silver_micros, &stats.silver_commits),
            mean_gold_commit_ms: mean(&stats.gold_micros, &stats.gold_commits),
            counters: Counters {
                frames_taken: read(&stats.frames_taken),
                frames_seen: read(&stats.frames_seen),
                frames_behind_gap: read(&stats.frames_behind_gap),
                changes: read(&stats.changes),
                counts: read(&stats.counts),
                duplicates: read(&stats.duplicates),
                quarantined: read(&stats.quarantined),
                silver_commits: read(&stats.silver_commits),
                silver_rows: read(&stats.silver_rows),
                gold_commits: read(&stats.gold_commits),
                gold_rows: read(&stats.gold_rows),
                recounts: read(&stats.recounts),
                identity_lookups: read(&stats.identity_lookups),
                commit_retries: read(&stats.commit_retries),
                pipeline_restarts: read(&stats.pipeline_restarts),
            },
            live_items: shared.map_or(0, |s| s.live_items.load(Relaxed)),
            tracked_items: shared.map_or(0, |s| s.tracked_items.load(Relaxed)),
            identities: shared.map_or(0, |s| s.identities.held()),
            uptime_seconds: self.state.started.elapsed().as_secs_f64(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::test_hub::{TestHub, count, sale};
    use serde_json::json;

    #[tokio::test]
    async fn a_hub_without_a_pipeline_is_alive_but_not_ready() {
        let hub = TestHub::start().await;
        hub.get("/healthz").await.json(200);
        hub.get("/readyz").await.json(200);
        hub.pipeline.fail("the test wants it".to_owned());
        for path in ["/readyz", "/v1/stores", "/v1/inventory", "/v1/stores/1/items/1"] {
            let answer = hub.get(path).await;
            assert!(answer.head.to_lowercase().contains("retry-after: 1"), "{}", answer.head);
            assert!(answer.json(503)["error"].as_str().unwrap().contains("the lake"));
        }
        hub.get("/healthz").await.json(200);
        let status = hub.get("/v1/pipeline").await.json(200);
        assert_eq!((&status["running"], &status["settled"]), (&json!(false), &json!(false)));
        hub.stop().await;
    }

    #[tokio::test]
    async fn readiness_says_that_a_topic_is_not_read() {
        let hub = TestHub::start().await;
        assert_eq!(hub.get("/readyz").await.json(200), json!({"status": "ok"}));
        *hub.stats.raw_topic_unread.lock() = Some("there is no topic pos".to_owned());
        assert_eq!(hub.get("/readyz").await.json(200), json!({"status": "ok", "but": "there is no topic pos"}));
        hub.stop().await;
    }

    #[tokio::test]
    async fn rows_that_wait_too_long_make_it_not_ready() {
        let hub = TestHub::start().await;
        let web = Web::new(hub.state.clone());
        let now = Instant::now();
        assert_eq!(web.waiting(now + 2 * STALLED_AFTER), Duration::ZERO);
        hub.take(vec![count(1, 10, 5)]).await;
        assert!(web.waiting(now + 4 * STALLED_AFTER) > STALLED_AFTER);
        hub.stats.silver_commits.fetch_add(1, Relaxed);
        assert_eq!(web.waiting(now + 5 * STALLED_AFTER), Duration::ZERO);
        hub.stop().await;
    }

    #[tokio::test]
    async fn the_pipeline_is_settled_when_nothing_waits() {
        let hub = TestHub::start().await;
        let settled = async || {
            let status = hub.get("/v1/pipeline").await.json(200);
            (status["settled"].as_bool().unwrap(), status["rows_awaiting_commit"].as_u64().unwrap())
        };
        assert_eq!(settled().await, (true, 0));
        hub.take(vec![count(1, 10, 5), sale("t", 1, 10, -1)]).await;
        assert_eq!(settled().await, (false, 2));
        let cut = hub.pipeline.begin_cut();
        hub.stats.gold_dirty_stores.store(1, Relaxed);
        hub.pipeline.committed(&cut);
        assert_eq!(settled().await, (false, 0));
        hub.stats.gold_dirty_stores.store(0, Relaxed);
        assert_eq!(settled().await, (true, 0));
        hub.stop().await;
    }

    #[tokio::test]
    async fn the_status_shows_what_was_counted() {
        let hub = TestHub::start().await;
        hub.take(vec![count(1, 10, 5), sale("t", 1, 10, -1), sale("t", 1, 10, -1)]).await;
        hub.stats.silver_commits.store(4, Relaxed);
        hub.stats.silver_micros.store(6_000, Relaxed);
        hub.stats.last_gold_commit.store(1_609_459_200_000_000, Relaxed);
        let status = hub.get("/v1/pipeline").await.json(200);
        assert_eq!((&status["counters"]["changes"], &status["counters"]["duplicates"]), (&json!(1), &json!(1)));
        assert_eq!((&status["mean_silver_commit_ms"], &status["mean_gold_commit_ms"]), (&json!(1.5), &json!(null)));
        assert_eq!(status["last_gold_commit"], json!("2021-01-01T00:00:00.000Z"));
        assert_eq!(status["last_silver_commit"], json!(null));
        assert_eq!((&status["live_items"], &status["tracked_items"]), (&json!(1), &json!(1)));
        hub.stop().await;
    }

    #[tokio::test]
    async fn metrics_have_names_meanings_and_units() {
        let hub = TestHub::start().await;
        hub.take(vec![count(1, 10, 5), sale("t", 1, 10, -1)]).await;
        hub.stats.silver_micros.store(2_500_000, Relaxed);
        hub.agent_says("a", 3);
        let answer = hub.get("/metrics").await;
        assert!(answer.head.contains("application/openmetrics-text"), "{}", answer.head);
        for line in [
            "# HELP onhand_hub_changes Lines of transactions that were new",
            "# TYPE onhand_hub_changes counter",
            "onhand_hub_changes_total 1",
            "onhand_hub_counts_total 1",
            "# UNIT onhand_hub_silver_commit_seconds seconds",
            "onhand_hub_silver_commit_seconds_total 2.5",
            "onhand_hub_rows_awaiting_commit 2",
            "onhand_hub_pipeline_up 1",
            "onhand_hub_live_items 1",
            "onhand_hub_agents_connected 1",
            "onhand_hub_agents_backlog_events 3",
            "onhand_hub_gateway_connections 0",
            "onhand_hub_gateway_frames_total 0",
            "# EOF",
        ] {
            assert!(answer.body.lines().any(|l| l == line), "{line}\nin\n{}", answer.body);
        }
        let labelled = answer.body.lines().filter(|l| l.contains('{')).collect::<Vec<_>>();
        assert!(matches!(labelled[..], [build] if build.starts_with("onhand_hub_build_info{version=")), "{labelled:?}");
        assert!(!answer.body.contains("A counter of the MQTT side"), "a counter of the gateway lacks its meaning");
        hub.stop().await;
    }
}
