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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::test_hub::{TestHub, count};

    #[tokio::test]
    async fn changes_arrive_as_they_happen_and_only_those_asked_for() {
        let hub = TestHub::start().await;
        let mut all = hub.open("/v1/stream").await;
        let mut one = hub.open("/v1/stream?store_id=2").await;
        for stream in [&mut all, &mut one] {
            let head = stream.read_until(": the stream is alive\n").await;
            assert!(head.contains("text/event-stream"), "{head}");
        }
        hub.take(vec![count(1, 10, 5)]).await;
        hub.take(vec![count(2, 11, 6)]).await;
        let seen = all.read_until("\"item_id\":11").await;
        assert!(seen.contains("data: {\"store_id\":1,\"item_id\":10,\"current_inventory\":5"), "{seen}");
        let seen = one.read_until("\"item_id\":11").await;
        assert!(!seen.contains("\"store_id\":1"), "{seen}");
        hub.stop().await;
    }

    #[tokio::test]
    async fn a_slow_client_loses_updates_and_is_told() {
        let hub = TestHub::start().await;
        let web = Web::new(hub.state.clone());
        let mut live = Live {
            updates: web.state.updates.subscribe(),
            store: None,
            heartbeat: tokio::time::interval(Duration::from_secs(3600)),
            stopping: web.stopping.clone(),
            rest: false,
            _slot: web.streams.clone().try_acquire_owned().unwrap(),
        };
        assert!(live.chunk().await.unwrap().starts_with(':'));
        // The channel of the test holds 64.
        hub.take((0..200).map(|item| count(1, item, 5)).collect()).await;
        let chunk = live.chunk().await.unwrap();
        assert!(
            chunk.starts_with("event: lagged\ndata: {\"lost\":136}\n\ndata: {\"store_id\":1,\"item_id\":136,"),
            "{chunk}"
        );
        assert_eq!(chunk.matches("data: {\"store_id\"").count(), 64);
        web.stopping.cancel();
        assert_eq!(live.chunk().await, None);
        hub.stop().await;
    }

    #[tokio::test]
    async fn there_is_a_most_of_streams_and_a_place_becomes_free_again() {
        let hub = TestHub::start().await;
        let mut streams = Vec::new();
        for _ in 0..MOST_STREAMS {
            let mut stream = hub.open("/v1/stream").await;
            stream.read_until("alive").await;
            streams.push(stream);
        }
        hub.get("/v1/stream").await.json(503);
        streams.pop();
        // The server notices the closed connection when it writes.
        let mut next = 0;
        loop {
            hub.take(vec![count(1, next, 5)]).await;
            next += 1;
            let mut stream = hub.open("/v1/stream").await;
            if stream.read_until("\n").await.contains("200 OK") {
                break;
            }
            assert!(next < 10_000, "no place became free");
        }
        hub.stop().await;
    }

    #[tokio::test]
    async fn stopping_ends_the_streams() {
        let hub = TestHub::start().await;
        let mut stream = hub.open("/v1/stream").await;
        stream.read_until("alive").await;
        hub.stop().await;
        stream.read_to_end().await;
    }
}
