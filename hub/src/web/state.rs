//! What the handlers share.

use super::error::ApiError;
use super::names::Names;
use super::readiness::StallWatch;
use crate::actors::ItemUpdate;
use crate::config::Role;
use crate::gateway::{GatewayStats, Intake};
use crate::metrics::{Metrics, Sources};
use crate::pipeline::Pipeline;
use crate::stats::HubStats;
use onhand_common::ReferenceData;
use parking_lot::Mutex;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore, broadcast, watch};
use tokio_util::sync::CancellationToken;

/// How long stores may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Most clients of the live stream.
pub(super) const MOST_STREAMS: usize = 64;

/// What the API shows, and where it is read.
#[derive(Clone)]
pub struct WebState {
    /// The pipeline of now; none while it is being built.
    pub pipeline: watch::Receiver<Option<Arc<Pipeline>>>,
    /// What is known of the agents.
    pub intake: Arc<Intake>,
    /// Counters of the process.
    pub stats: Arc<HubStats>,
    /// Counters of the MQTT side.
    pub gateway: Arc<GatewayStats>,
    /// Names and safety stocks.
    pub reference: watch::Receiver<Arc<ReferenceData>>,
    /// Someone wants the reference data looked at now.
    pub reload_reference: Arc<Notify>,
    /// What happens to items.
    pub updates: broadcast::Sender<ItemUpdate>,
    /// When the process started.
    pub started: Instant,
    /// Which part of the cloud side this is: a gateway has no pipeline.
    pub role: Role,
    /// Agents come through a broker that runs elsewhere.
    pub external_broker: bool,
}

/// [`WebState`] and what the handlers keep for themselves.
pub(super) struct Web {
    pub(super) state: WebState,
    pub(super) metrics: Metrics,
    pub(super) stall: Mutex<StallWatch>,
    pub(super) streams: Arc<Semaphore>,
    pub(super) stopping: CancellationToken,
    names: Mutex<(Arc<ReferenceData>, Arc<Names>)>,
}

impl Web {
    pub(super) fn new(state: WebState) -> Self {
        let reference = state.reference.borrow().clone();
        let names = Arc::new(Names::new(&reference));
        let metrics = Metrics::new(Sources {
            pipeline: state.pipeline.clone(),
            stats: state.stats.clone(),
            gateway: state.gateway.clone(),
            intake: state.intake.clone(),
            started: state.started,
        });
        Self {
            state,
            metrics,
            stall: Mutex::new(StallWatch::new(Instant::now())),
            streams: Arc::new(Semaphore::new(MOST_STREAMS)),
            stopping: CancellationToken::new(),
            names: Mutex::new((reference, names)),
        }
    }

    /// The pipeline that takes events now, if there is one.
    pub(super) fn running(&self) -> Option<Arc<Pipeline>> {
        self.state.pipeline.borrow().clone().filter(|pipeline| !pipeline.is_over())
    }

    /// The pipeline of now, for a request that needs it.
    pub(super) fn pipeline(&self) -> Result<Arc<Pipeline>, ApiError> {
        self.running().ok_or_else(|| match self.state.role {
            Role::Gateway => ApiError::not_found("a gateway has no stores: ask the processors"),
            Role::Processor if self.state.stats.kafka_spare.load(Relaxed) => {
                ApiError::not_found("this processor stands by, and has no stores: ask the others")
            }
            _ => ApiError::unavailable("the hub is reading its state from the lake; ask again soon"),
        })
    }

    /// The names of now, looked up by id.
    pub(super) fn names(&self) -> Arc<Names> {
        let newest = self.state.reference.borrow().clone();
        let mut names = self.names.lock();
        if !Arc::ptr_eq(&names.0, &newest) {
            *names = (newest.clone(), Arc::new(Names::new(&newest)));
        }
        names.1.clone()
    }
}

/// Waits for answers of stores, but not forever.
pub(super) async fn within_limit<T>(answer: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    match tokio::time::timeout(ANSWER_WITHIN, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(ApiError::unavailable("the stores are too busy to answer; ask again later")),
    }
}
