//! The list of items, page by page.

use super::api::{ASKED_AT_A_TIME, not_here, store_gone};
use super::error::{ApiError, ErrorBody};
use super::names::Names;
use super::query::Parameters;
use super::state::{Web, within_limit};
use crate::actors::{ItemView, ListItems};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use futures::stream::{self, StreamExt};
use onhand_common::{ItemId, StoreId};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

const DEFAULT_ROWS: usize = 100;
const MOST_ROWS: usize = 10_000;

/// An item of a store with what the reference data knows of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ItemRow {
    #[serde(flatten)]
    view: ItemView,
    /// Its name; null if the reference data does not know the item.
    item_name: Option<String>,
    /// How many should be there at least; null if the reference data does not know the item.
    safety_stock_quantity: Option<i32>,
    /// On hand are fewer than that.
    below_safety_stock: bool,
}

impl ItemRow {
    pub(super) fn new(view: ItemView, names: &Names) -> Self {
        Self {
            item_name: names.item(view.item_id).map(str::to_owned),
            safety_stock_quantity: names.safety_stock(view.item_id),
            below_safety_stock: names.is_below_safety_stock(view.item_id, view.current_inventory),
            view,
        }
    }
}

/// A page of the inventory.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InventoryPage {
    /// By store, then item.
    items: Vec<ItemRow>,
    /// For the next request, if there are more.
    next_cursor: Option<String>,
}

/// Where a page begins. Clients get it as a text that means nothing to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    store_id: i32,
    item_id: i32,
}

impl Cursor {
    const START: Self = Self { store_id: 0, item_id: 0 };

    fn parse(text: &str) -> Option<Self> {
        let (store, item) = text.split_at_checked(8)?;
        let id = |hex: &str| {
            let digits = hex.len() == 8 && hex.bytes().all(|c| c.is_ascii_hexdigit());
            i32::from_str_radix(hex, 16).ok().filter(|_| digits)
        };
        Some(Self { store_id: id(store)?, item_id: id(item)? })
    }

    fn to_text(self) -> String {
        format!("{:08x}{:08x}", self.store_id, self.item_id)
    }
}

/// The items of all stores, in the order of store and item, page by page.
#[utoipa::path(get, path = "/v1/inventory", tag = "inventory",
    params(
        ("store_id" = Option<i32>, Query, description = "Only this store"),
        ("item_id" = Option<i32>, Query, description = "Only this item"),
        ("below_safety_stock" = Option<bool>, Query, description = "Only items of which fewer are on hand than should be"),
        ("limit" = Option<usize>, Query, description = "Most rows in the answer, 1 to 10000; 100 by default"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the answer before"),
    ),
    responses(
        (status = 200, description = "A page", body = InventoryPage),
        (status = 400, description = "A parameter is wrong; `field` names it", body = ErrorBody),
        (status = 503, description = "The hub is not ready", body = ErrorBody),
))]
pub(super) async fn inventory(web: Data<Web>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let parameters = Parameters::of(&request, &["store_id", "item_id", "below_safety_stock", "limit", "cursor"])?;
    let store = parameters.get::<StoreId>("store_id")?.map(StoreId::get);
    let item = parameters.get::<ItemId>("item_id")?.map(ItemId::get);
    let below_safety_stock = parameters.truth("below_safety_stock")?;
    let limit = parameters.limit(DEFAULT_ROWS, MOST_ROWS)?;
    let from = match parameters.text("cursor") {
        Some(text) => Cursor::parse(text).ok_or_else(|| ApiError::parameter("cursor", "was not given by this path"))?,
        None => Cursor::START,
    };
    let names = web.names();
    let keep: Arc<dyn Fn(&ItemView) -> bool + Send + Sync> = {
        let names = names.clone();
        Arc::new(move |view: &ItemView| {
            item.is_none_or(|item| view.item_id == item)
                && (!below_safety_stock || names.is_below_safety_stock(view.item_id, view.current_inventory))
        })
    };
    let pipeline = web.pipeline()?;
    if let Some(store) = store.filter(|&store| !pipeline.ownership.owns(store)) {
        return Err(not_here(store));
    }
    let mut stores = pipeline.directory.all();
    stores.retain(|&(id, _)| id >= from.store_id && store.is_none_or(|store| id == store));

    // One row beyond the page tells whether there is another page, and where it begins.
    let wanted = limit + 1;
    let asked = stream::iter(stores).map(|(id, address)| {
        let first = if id == from.store_id { from.item_id } else { 0 };
        let request = ListItems { from: first.max(item.unwrap_or(0)), limit: wanted, keep: keep.clone() };
        async move { address.send(request).await.map_err(|error| store_gone(id, error)) }
    });
    let mut answers = asked.buffered(ASKED_AT_A_TIME);
    let collect = async {
        let mut views = Vec::new();
        while views.len() < wanted
            && let Some(answer) = answers.next().await
        {
            views.extend(answer?);
        }
        Ok(views)
    };
    let mut views = within_limit(collect).await?;
    let next_cursor =
        views.get(limit).map(|v: &ItemView| Cursor { store_id: v.store_id, item_id: v.item_id }.to_text());
    views.truncate(limit);
    let items = views.into_iter().map(|view| ItemRow::new(view, &names)).collect();
    Ok(HttpResponse::Ok().json(InventoryPage { items, next_cursor }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::test_hub::{TestHub, count, sale};

    #[test]
    fn a_cursor_is_what_was_given_out() {
        let cursor = Cursor { store_id: 7, item_id: i32::MAX };
        assert_eq!(Cursor::parse(&cursor.to_text()), Some(cursor));
        for wrong in [
            "",
            "7",
            "000000070000000",
            "00000007000000000",
            "0000000g00000000",
            "+0000007+0000000",
            "ffffffff00000000",
            "äääääääää",
        ] {
            assert_eq!(Cursor::parse(wrong), None, "{wrong}");
        }
    }

    /// Follows the cursors; store and item of each row, and the number of pages.
    async fn follow(hub: &TestHub, query: &str) -> (Vec<(i64, i64)>, usize) {
        let (mut rows, mut pages, mut cursor) = (Vec::new(), 0, String::new());
        loop {
            let page = hub.get(&format!("/v1/inventory?{query}{cursor}")).await.json(200);
            let id = |row: &serde_json::Value, name: &str| row[name].as_i64().unwrap();
            rows.extend(page["items"].as_array().unwrap().iter().map(|row| (id(row, "store_id"), id(row, "item_id"))));
            pages += 1;
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return (rows, pages),
            }
        }
    }

    #[tokio::test]
    async fn pages_hold_every_row_once_in_order() {
        let hub = TestHub::start().await;
        let all: Vec<(i64, i64)> = (0..5).flat_map(|store| (10..17).map(move |item| (store, item))).collect();
        hub.take(all.iter().rev().map(|&(store, item)| count(store, item, 5)).collect()).await;
        for (limit, pages) in [(1, 35), (4, 9), (7, 5), (34, 2), (35, 1), (10_000, 1)] {
            assert_eq!(follow(&hub, &format!("limit={limit}")).await, (all.clone(), pages));
        }
        let of_store: Vec<_> = (10..17).map(|item| (3, item)).collect();
        assert_eq!(follow(&hub, "limit=3&store_id=3").await, (of_store, 3));
        let of_item: Vec<_> = (0..5).map(|store| (store, 12)).collect();
        assert_eq!(follow(&hub, "limit=2&item_id=12").await, (of_item, 3));
        assert_eq!(follow(&hub, "store_id=4&item_id=16").await, (vec![(4, 16)], 1));
        assert_eq!(follow(&hub, "store_id=9").await, (vec![], 1));
        hub.stop().await;
    }

    #[tokio::test]
    async fn low_stock_is_what_is_known_to_be_too_little() {
        let hub = TestHub::start().await;
        // Safety stocks: item 10 has 4, item 11 has 0, item 12 is not known to the reference data.
        hub.take(vec![
            count(1, 10, 5),
            sale("t", 1, 10, -2),
            count(2, 10, 4),
            sale("u", 3, 10, -9),
            count(4, 11, 0),
            count(5, 11, -1),
            count(6, 12, -1),
        ])
        .await;
        assert_eq!(follow(&hub, "below_safety_stock=true&limit=1").await, (vec![(1, 10), (5, 11)], 2));
        let page = hub.get("/v1/inventory?below_safety_stock&limit=1").await.json(200);
        let row = &page["items"][0];
        assert_eq!((row["current_inventory"].as_i64(), row["item_name"].as_str()), (Some(3), Some("tea")));
        hub.stop().await;
    }

    #[tokio::test]
    async fn new_reference_data_is_seen_at_once() {
        let hub = TestHub::start().await;
        hub.take(vec![count(1, 12, 5)]).await;
        assert_eq!(follow(&hub, "below_safety_stock=1").await, (vec![], 1));
        hub.know_item(12, "salt", 6);
        assert_eq!(follow(&hub, "below_safety_stock=1").await, (vec![(1, 12)], 1));
        hub.stop().await;
    }
}
