//! Which path is answered by what, and the answers about stores, items and agents. (The list of the inventory has a file of
//! its own, as have the live stream and what concerns operation.)

use super::error::{ApiError, ErrorBody};
use super::inventory::{self, ItemRow};
use super::openapi;
use super::query::Parameters;
use super::state::{Web, within_limit};
use super::{live, status};
use crate::actors::{GetItem, GetSummary, StoreSummary};
use crate::gateway::AgentView;
use actix_web::http::Method;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Route};
use futures::stream::{self, StreamExt, TryStreamExt};
use onhand_common::{AgentId, ItemId, StoreId};
use serde::Serialize;
use std::fmt::Display;
use std::str::FromStr;
use utoipa::ToSchema;

/// Stores that are asked at a time.
pub(super) const ASKED_AT_A_TIME: usize = 8;
const DEFAULT_AGENTS: usize = 1_000;
const MOST_AGENTS: usize = 10_000;

/// Every route; the OpenAPI document describes each (a test compares).
pub(super) fn routes() -> Vec<(Method, &'static str, Route)> {
    vec![
        (Method::GET, "/healthz", web::get().to(status::healthz)),
        (Method::GET, "/readyz", web::get().to(status::readyz)),
        (Method::GET, "/metrics", web::get().to(status::metrics)),
        (Method::GET, "/v1/stores", web::get().to(stores)),
        (Method::GET, "/v1/stores/{store_id}/items/{item_id}", web::get().to(item)),
        (Method::GET, "/v1/inventory", web::get().to(inventory::inventory)),
        (Method::GET, "/v1/agents", web::get().to(agents)),
        (Method::GET, "/v1/pipeline", web::get().to(status::pipeline)),
        (Method::GET, "/v1/stream", web::get().to(live::stream)),
        (Method::POST, "/v1/reference/reload", web::post().to(reload_reference)),
        (Method::GET, "/v1/openapi.json", web::get().to(openapi::document)),
    ]
}

/// Sets the routes up. Each path has one method.
pub(super) fn configure(config: &mut ServiceConfig) {
    for (_, path, route) in routes() {
        let other_methods = web::to(|| async { Err::<HttpResponse, _>(ApiError::method_not_allowed()) });
        config.service(web::resource(path).route(route).default_service(other_methods));
    }
    config.default_service(web::to(|| async {
        Err::<HttpResponse, _>(ApiError::not_found("there is no such path; /v1/openapi.json lists those there are"))
    }));
}

/// A store's numbers and its name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StoreRow {
    #[serde(flatten)]
    summary: StoreSummary,
    /// Its name; null if the reference data does not know the store.
    name: Option<String>,
}

/// All stores.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StoreList {
    /// By id.
    stores: Vec<StoreRow>,
}

/// Every store that anything was heard of, with a few numbers.
#[utoipa::path(get, path = "/v1/stores", tag = "inventory", responses(
    (status = 200, description = "The stores, by id", body = StoreList),
    (status = 503, description = "The hub is not ready", body = ErrorBody),
))]
pub(super) async fn stores(web: Data<Web>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Parameters::of(&request, &[])?;
    let (pipeline, names) = (web.pipeline()?, web.names());
    let asked = stream::iter(pipeline.directory.all()).map(|(store_id, address)| {
        let names = names.clone();
        async move {
            let summary = address.send(GetSummary).await.map_err(|error| store_gone(store_id, error))?;
            Ok(StoreRow { summary, name: names.store(store_id).map(str::to_owned) })
        }
    });
    let stores = within_limit(asked.buffered(ASKED_AT_A_TIME).try_collect()).await?;
    Ok(HttpResponse::Ok().json(StoreList { stores }))
}

/// A store's actor has ended: the pipeline is being built anew.
pub(super) fn store_gone(store_id: i32, error: impl Display) -> ApiError {
    ApiError::unavailable(format!("store {store_id} does not answer ({error}); ask again soon"))
}

/// A store of a partition that another processor holds, or nobody just now.
pub(super) fn not_here(store_id: i32) -> ApiError {
    ApiError::not_found(format!("store {store_id} is not with this processor: ask the others"))
}

/// One item of one store.
#[utoipa::path(get, path = "/v1/stores/{store_id}/items/{item_id}", tag = "inventory",
    params(("store_id" = i32, Path, description = "The store"), ("item_id" = i32, Path, description = "The item")),
    responses(
        (status = 200, description = "The item as it stands now", body = ItemRow),
        (status = 400, description = "An id is none; `field` names it", body = ErrorBody),
        (status = 404, description = "Nothing was heard of this item in this store", body = ErrorBody),
        (status = 503, description = "The hub is not ready", body = ErrorBody),
))]
pub(super) async fn item(web: Data<Web>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Parameters::of(&request, &[])?;
    let store: StoreId = path_parameter(&request, "store_id")?;
    let item: ItemId = path_parameter(&request, "item_id")?;
    let pipeline = web.pipeline()?;
    let Some(address) = pipeline.directory.get(store.get()) else {
        let reason = match pipeline.ownership.owns(store.get()) {
            true => format!("nothing was heard of store {store}"),
            false => return Err(not_here(store.get())),
        };
        return Err(ApiError::not_found(reason));
    };
    let asked = async { address.send(GetItem(item.get())).await.map_err(|error| store_gone(store.get(), error)) };
    match within_limit(asked).await? {
        Some(view) => Ok(HttpResponse::Ok().json(ItemRow::new(view, &web.names()))),
        None => Err(ApiError::not_found(format!("nothing was heard of item {item} in store {store}"))),
    }
}

fn path_parameter<T: FromStr<Err: Display>>(request: &HttpRequest, name: &str) -> Result<T, ApiError> {
    request.match_info().query(name).parse().map_err(|reason| ApiError::parameter(name, reason))
}

/// Some of the agents.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AgentList {
    /// By id.
    agents: Vec<AgentView>,
    /// For the next request, if there are more.
    next_cursor: Option<String>,
}

/// Every agent that was heard of since the hub started.
#[utoipa::path(get, path = "/v1/agents", tag = "operation",
    params(
        ("limit" = Option<usize>, Query, description = "Most agents in the answer, 1 to 10000; 1000 by default"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the answer before"),
    ),
    responses(
        (status = 200, description = "The agents, by id", body = AgentList),
        (status = 400, description = "A parameter is wrong; `field` names it", body = ErrorBody),
))]
pub(super) async fn agents(web: Data<Web>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let parameters = Parameters::of(&request, &["limit", "cursor"])?;
    let limit = parameters.limit(DEFAULT_AGENTS, MOST_AGENTS)?;
    let mut agents = web.state.intake.agents().all();
    if let Some(cursor) = parameters.text("cursor") {
        let from = AgentId::new(cursor).map_err(|_| ApiError::parameter("cursor", "was not given by this path"))?;
        agents.drain(..agents.partition_point(|agent| agent.agent_id < from));
    }
    let next_cursor = agents.get(limit).map(|agent| agent.agent_id.to_string());
    agents.truncate(limit);
    Ok(HttpResponse::Ok().json(AgentList { agents, next_cursor }))
}

/// A request was taken.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    /// Always true.
    accepted: bool,
}

/// Looks at the reference data now, rather than when its interval is over.
#[utoipa::path(post, path = "/v1/reference/reload", tag = "operation", responses(
    (status = 202, description = "It is looked at soon; stores that a change touches are restated. Of several processors the one \
        with partition 0 looks, and the others follow what it commits; a gateway has none", body = Accepted),
))]
pub(super) async fn reload_reference(web: Data<Web>) -> HttpResponse {
    web.state.reload_reference.notify_one();
    HttpResponse::Accepted().json(Accepted { accepted: true })
}

#[cfg(test)]
mod tests {
    use crate::web::test_hub::{TestHub, count, sale};
    use serde_json::json;
    use std::time::Duration;

    #[tokio::test]
    async fn stores_come_with_their_names_and_numbers() {
        let hub = TestHub::start().await;
        hub.take(vec![count(1, 10, 5), count(1, 11, 5), sale("t", 1, 12, -1), sale("u", 7, 10, -1)]).await;
        let stores = hub.get("/v1/stores").await.json(200)["stores"].clone();
        assert_eq!(stores.as_array().unwrap().len(), 2);
        assert_eq!((&stores[0]["store_id"], &stores[0]["name"]), (&json!(1), &json!("Market Street")));
        assert_eq!(
            (&stores[0]["items"], &stores[0]["uncounted"], &stores[0]["rows_awaiting_commit"]),
            (&json!(2), &json!(1), &json!(3))
        );
        assert_eq!((&stores[1]["store_id"], &stores[1]["name"]), (&json!(7), &json!(null)));
        hub.stop().await;
    }

    #[tokio::test]
    async fn an_item_is_shown_as_it_stands() {
        let hub = TestHub::start().await;
        hub.take(vec![count(1, 10, 5), sale("t", 1, 10, -3), sale("u", 1, 99, -1)]).await;
        let item = hub.get("/v1/stores/1/items/10").await.json(200);
        assert_eq!(
            (&item["current_inventory"], &item["snapshot_quantity"], &item["change_quantity"]),
            (&json!(2), &json!(5), &json!(-3))
        );
        assert_eq!((&item["item_name"], &item["safety_stock_quantity"]), (&json!("tea"), &json!(4)));
        assert_eq!(
            (&item["below_safety_stock"], &item["live"], &item["date_time"]),
            (&json!(true), &json!(true), &json!("2021-01-01T00:00:01.000Z"))
        );
        let unknown = hub.get("/v1/stores/1/items/99").await.json(200);
        assert_eq!((&unknown["current_inventory"], &unknown["uncounted"]), (&json!(null), &json!(true)));
        assert_eq!((&unknown["item_name"], &unknown["below_safety_stock"]), (&json!(null), &json!(false)));
        hub.stop().await;
    }

    #[tokio::test]
    async fn errors_are_json_and_name_the_field() {
        let hub = TestHub::start().await;
        hub.take(vec![count(1, 10, 5)]).await;
        for (path, status, field) in [
            ("/v1/stores/1/items/11", 404, None),
            ("/v1/stores/2/items/10", 404, None),
            ("/v1/stores/x/items/10", 400, Some("store_id")),
            ("/v1/stores/1/items/-1", 400, Some("item_id")),
            ("/v1/stores/1/items/2147483648", 400, Some("item_id")),
            ("/v1/stores?x=1", 400, Some("x")),
            ("/v1/inventory?limit=10001", 400, Some("limit")),
            ("/v1/inventory?store_id=one", 400, Some("store_id")),
            ("/v1/inventory?item_id=", 400, Some("item_id")),
            ("/v1/inventory?below_safety_stock=maybe", 400, Some("below_safety_stock")),
            ("/v1/inventory?cursor=%00", 400, Some("cursor")),
            ("/v1/agents?cursor=a/b", 400, Some("cursor")),
            ("/v1/stream?store_id=x", 400, Some("store_id")),
            ("/v2", 404, None),
            ("/v1/reference/reload", 405, None),
        ] {
            let body = hub.get(path).await.json(status);
            assert!(body["error"].as_str().is_some_and(|text| !text.is_empty()), "{path}: {body}");
            assert_eq!(body.get("field").and_then(|field| field.as_str()), field, "{path}: {body}");
        }
        hub.stop().await;
    }

    #[tokio::test]
    async fn agents_come_page_by_page() {
        let hub = TestHub::start().await;
        for agent in ["b", "a", "c"] {
            hub.agent_says(agent, 3);
        }
        let page = hub.get("/v1/agents?limit=2").await.json(200);
        assert_eq!((&page["agents"][0]["agent_id"], &page["agents"][1]["agent_id"]), (&json!("a"), &json!("b")));
        assert_eq!(
            (&page["agents"][0]["connected"], &page["agents"][0]["status"]["backlog"]),
            (&json!(true), &json!(3))
        );
        let cursor = page["next_cursor"].as_str().unwrap();
        let page = hub.get(&format!("/v1/agents?cursor={cursor}")).await.json(200);
        assert_eq!((&page["agents"][0]["agent_id"], &page["next_cursor"]), (&json!("c"), &json!(null)));
        hub.stop().await;
    }

    #[tokio::test]
    async fn a_reload_is_asked_for() {
        let hub = TestHub::start().await;
        hub.request("POST", "/v1/reference/reload").await.json(202);
        tokio::time::timeout(Duration::from_secs(30), hub.reload_reference.notified()).await.unwrap();
        hub.stop().await;
    }
}
