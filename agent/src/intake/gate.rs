//! What every way in has in common: only events of this agent's stores that a hub can read pass, and everything is counted.

use crate::committer::{Committer, Ready, Refusal, Taken};
use crate::metrics::Metrics;
use crate::status::Reporter;
use onhand_common::accelerator::FieldError;
use onhand_common::{Event, StoreId};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Request bodies in memory, all together, in KiB.
pub(crate) const BODIES_KIB: usize = 64 * 1024;

/// The common part of all ways in.
#[derive(Clone)]
pub(crate) struct Intake {
    committer: Committer,
    /// What the agent says about itself.
    pub(crate) reporter: Reporter,
    /// One permit for each KiB of request bodies in memory.
    pub(crate) body_budget: Arc<Semaphore>,
}

impl Intake {
    /// Lets events through to `committer`.
    pub(crate) fn new(committer: Committer, reporter: Reporter) -> Self {
        Self { committer, reporter, body_budget: Arc::new(Semaphore::new(BODIES_KIB)) }
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.reporter.metrics
    }

    /// Lets an event pass if its store is served and a frame can hold it.
    ///
    /// # Errors
    /// Names the stores that are served, or says why no frame can hold it.
    pub(crate) fn admit(&self, event: &Event) -> Result<Ready, FieldError> {
        self.check_store(event.store_id())?;
        Ready::new(event)
    }

    fn check_store(&self, store: StoreId) -> Result<(), FieldError> {
        let stores = &self.reporter.stores;
        if stores.binary_search(&store).is_ok() {
            return Ok(());
        }
        let mut served = stores.iter().take(10).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if stores.len() > 10 {
            served.push_str(", …");
        }
        let reason = format!("store {store} is not served by this agent (it serves {served})");
        Err(FieldError { field: "store_id".into(), reason })
    }

    /// Makes events durable.
    ///
    /// # Errors
    /// When none of them was taken, and why.
    pub(crate) async fn submit(&self, events: Vec<Ready>) -> Result<Taken, Refusal> {
        let result = self.committer.submit(events).await;
        self.counted(result)
    }

    /// As [`Intake::submit`], for a thread that may block.
    ///
    /// # Errors
    /// When none of them was taken, and why.
    pub(crate) fn submit_blocking(&self, events: Vec<Ready>) -> Result<Taken, Refusal> {
        let result = self.committer.submit_blocking(events);
        self.counted(result)
    }

    fn counted(&self, result: Result<Taken, Refusal>) -> Result<Taken, Refusal> {
        match &result {
            Ok(taken) => {
                self.metrics().accepted.inc_by(taken.accepted() as u64);
                self.metrics().duplicates.inc_by(taken.duplicates() as u64);
            }
            Err(Refusal::Full(_)) => {
                self.metrics().full.inc();
            }
            Err(_) => {}
        }
        result
    }
}

#[cfg(test)]
pub(crate) mod test_support {
    //! An intake in a temporary folder.
    use super::*;
    use crate::outbox::test_support::outbox;
    use crate::seen::Seen;
    use onhand_common::AgentId;

    /// An intake of an agent that serves stores 1 and 2.
    pub(crate) fn intake(dir: &std::path::Path, max_buffer: u64) -> Intake {
        let outbox = Arc::new(outbox(dir, max_buffer));
        let metrics = Arc::new(Metrics::default());
        let seen = Seen::open(&dir.join("seen"), 35, outbox.id()).unwrap();
        let (committer, _thread) = Committer::start(Arc::clone(&outbox), seen, Arc::clone(&metrics)).unwrap();
        let stores: Vec<StoreId> = [1_i64, 2].into_iter().map(|s| s.try_into().unwrap()).collect();
        let agent_id = AgentId::new("a-1").unwrap();
        Intake::new(committer, Reporter { agent_id, stores: stores.into(), outbox, metrics })
    }
}
