//! The live stream: every change of an item, as it happens, as server-sent events.
//!
//! Nobody waits for a client: one that reads too slowly loses updates and is told how many. What it then sees next is newer
//! than what it lost, and each update is an item's whole state, so it is right again about every item that moves on.

use super::error::{ApiError, ErrorBody};
use super::query::Parameters;
use super::state::{MOST_STREAMS, Web};
use crate::actors::ItemUpdate;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures::stream;
use onhand_common::StoreId;
use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::Interval;
use tokio_util::sync::CancellationToken;

/// How often a quiet stream says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Bytes after which what has come together is sent.
const FULL_CHUNK: usize = 64 * 1024;
/// How long a stream rests after a full chunk, so that a flood of updates does not take the machine from those who make them.
const REST: Duration = Duration::from_millis(20);

/// Every change of an item, as it happens.
///
/// Server-sent events: each `data` is an item as in `/v1/stores/{store_id}/items/{item_id}`, without names. A client that is
/// too slow gets `event: lagged` with `data: {"lost": N}`. Comments keep a quiet stream alive.
#[utoipa::path(get, path = "/v1/stream", tag = "inventory",
    params(("store_id" = Option<i32>, Query, description = "Only this store")),
    responses(
        (status = 200, description = "The stream", body = ItemUpdate, content_type = "text/event-stream"),
        (status = 400, description = "A parameter is wrong; `field` names it", body = ErrorBody),
        (status = 503, description = "There are too many streams", body = ErrorBody),
))]
pub(super) async fn stream(web: Data<Web>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let store = Parameters::of(&request, &["store_id"])?.get::<StoreId>("store_id")?.map(StoreId::get);
    let Ok(slot) = web.streams.clone().try_acquire_owned() else {
        return Err(ApiError::unavailable(format!("there are {MOST_STREAMS} streams already, which is the most")));
    };
    let live = Live {
        updates: web.state.updates.subscribe(),
        store,
        heartbeat: tokio::time::interval(HEARTBEAT),
        stopping: web.stopping.clone(),
        rest: false,
        _slot: slot,
    };
    let chunks = stream::unfold(live, |mut live| async move {
        let chunk = live.chunk().await?;
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), live))
    });
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(chunks))
}

struct Live {
    updates: Receiver<ItemUpdate>,
    store: Option<i32>,
    heartbeat: Interval,
    stopping: CancellationToken,
    rest: bool,
    _slot: OwnedSemaphorePermit,
}

impl Live {
    /// The next piece of the stream: at least one update, one message or one heartbeat (the first is at once).
    async fn chunk(&mut self) -> Option<String> {
        if std::mem::take(&mut self.rest) {
            tokio::time::sleep(REST).await;
        }
        let mut chunk = String::new();
        while chunk.is_empty() {
            tokio::select! {
                () = self.stopping.cancelled() => return None,
                _ = self.heartbeat.tick() => chunk.push_str(": the stream is alive\n\n"),
                update = self.updates.recv() => match update {
                    Ok(update) => self.add(&mut chunk, &update),
                    Err(RecvError::Lagged(lost)) => lagged(&mut chunk, lost),
                    Err(RecvError::Closed) => return None,
                },
            }
        }
        while chunk.len() < FULL_CHUNK {
            match self.updates.try_recv() {
                Ok(update) => self.add(&mut chunk, &update),
                Err(TryRecvError::Lagged(lost)) => lagged(&mut chunk, lost),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return Some(chunk),
            }
        }
        self.rest = true;
        Some(chunk)
    }

    fn add(&self, chunk: &mut String, update: &ItemUpdate) {
        if self.store.is_none_or(|store| store == update.0.store_id)
            && let Ok(json) = serde_json::to_string(update)
        {
            let _ = write!(chunk, "data: {json}\n\n");
        }
    }
}

fn lagged(chunk: &mut String, lost: u64) {
    let _ = write!(chunk, "event: lagged\ndata: {{\"lost\":{lost}}}\n\n");
}
