//! Hands one connection's messages to the sink, one after another, and acknowledges each once it has been taken.

use super::codec;
use super::connection::Session;
use super::embedded_broker::Context;
use super::sessions::Lane;
use super::stats::count;
use bytes::Bytes;
use onhand_common::StoreId;
use onhand_common::topics::AgentStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

/// What a message is.
pub(super) enum Job {
    Frame(Bytes),
    Raw(StoreId, Bytes),
    Status(Bytes),
    /// Not allowed (v5): it has its turn because acknowledgements keep the order of the messages.
    Denied,
}

/// A message that waits for its turn.
pub(super) struct Queued {
    pub(super) job: Job,
    /// Packet id; `None`: QoS 0.
    pub(super) id: Option<u16>,
    /// Bytes it counts for.
    pub(super) size: usize,
    /// Its part of what all connections together may have in flight.
    pub(super) _budget: OwnedSemaphorePermit,
}

/// Works until the connection has ended. A call of the sink that runs then is run to its end; what waits is dropped,
/// unacknowledged, so the client will send it again.
pub(super) async fn work(
    mut jobs: mpsc::Receiver<Queued>,
    session: Arc<Session>,
    context: Arc<Context>,
    lane: Arc<Lane>,
    ended: CancellationToken,
) {
    loop {
        let next = async {
            let queued = jobs.recv().await?;
            Some((queued, lane.turn.lock().await))
        };
        let Some(Some((queued, turn))) = ended.run_until_cancelled(next).await else {
            return;
        };
        let Queued { job, id, size, _budget } = queued;
        let authorized = !matches!(job, Job::Denied);
        hand_over(job, &session, &context).await;
        drop((turn, _budget));
        // Before the PUBACK: the client may answer it at once with the next message.
        session.release(size);
        if let Some(id) = id {
            session.outgoing.put(|out| codec::write_puback(out, session.version, id, authorized));
        }
    }
}

async fn hand_over(job: Job, session: &Session, context: &Context) {
    let (sink, stats) = (&context.sink, &context.stats);
    match job {
        Job::Frame(payload) => {
            stats.bytes.fetch_add(payload.len() as u64, Relaxed);
            sink.frame(&session.sender, payload).await;
            count(&stats.frames);
        }
        Job::Raw(store, payload) => {
            sink.raw(store, payload).await;
            count(&stats.raw_documents);
        }
        Job::Status(payload) => match serde_json::from_slice::<AgentStatus>(&payload) {
            Ok(status) => {
                count(&stats.statuses);
                session.note_stores(&status.stores);
                sink.status(&session.grant.agent, Some(status).filter(|status| status.online));
            }
            Err(e) => {
                count(&stats.refused_payloads);
                sink.refused(session.status_topic.clone(), "status", e.to_string(), payload).await;
            }
        },
        Job::Denied => {}
    }
}
