//! What the gateway hands on, and to whom.

use bytes::Bytes;
use futures::future::BoxFuture;
use onhand_common::topics::AgentStatus;
use onhand_common::{AgentId, StoreId};
use std::sync::Arc;

/// Who sent a frame, as the gateway established it; what the frame itself says about its origin is only a claim.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The agent whose credentials were given (own endpoint), or on whose topic the broker let it be published.
    pub agent: AgentId,
    /// The stores it may speak for; `None`: all.
    pub stores: Option<Arc<[StoreId]>>,
    /// The topic it came on.
    pub topic: String,
}

/// Takes what the gateway received. Implemented by the hub's intake.
///
/// The futures may be slow, and should be when there is too much to do: that is what holds the senders back. Once
/// started they are run to their end, even when the connection is lost meanwhile.
pub trait FrameSink: Send + Sync + 'static {
    /// Resolves when the frame has been taken (or refused into quarantine); only then is the PUBACK sent.
    /// Calls for one agent come one after another, in the order of arrival.
    fn frame(&self, from: &Sender, payload: Bytes) -> BoxFuture<'_, ()>;

    /// Takes a JSON document from a device without an agent. Resolves like [`FrameSink::frame`].
    fn raw(&self, store: StoreId, payload: Bytes) -> BoxFuture<'_, ()>;

    /// Takes an agent's status, or the news that it went away (`None`). Must not block.
    fn status(&self, agent: &AgentId, status: Option<AgentStatus>);

    /// Takes bytes that cannot be anything (a foreign topic, a status that cannot be read) for the quarantine.
    fn refused(&self, source: String, reason: &'static str, detail: String, payload: Bytes) -> BoxFuture<'_, ()>;
}
