//! What the API shows of stores and items.

use super::item_state::ItemState;
use onhand_common::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// An item of a store, as it stands now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ItemView {
    /// Which store.
    pub store_id: i32,
    /// Which item.
    pub item_id: i32,
    /// On hand now; null for an item that was never counted, and while its sum is being made anew (`recount_due`).
    pub current_inventory: Option<i64>,
    /// What the latest count said; null if there is none.
    pub snapshot_quantity: Option<i32>,
    /// Sum of the changes since the latest count (of all, if there is none).
    pub change_quantity: Option<i64>,
    /// Newest of the count and the changes since.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub date_time: Option<Timestamp>,
    /// It has changes but was never counted.
    pub uncounted: bool,
    /// Its changes are being summed from silver; the next gold commit ends that.
    pub recount_due: bool,
    /// It has an actor of its own now.
    pub live: bool,
}

impl ItemView {
    pub(super) fn new(store_id: i32, item_id: i32, state: &ItemState, live: bool) -> Self {
        Self {
            store_id,
            item_id,
            current_inventory: state.current_inventory(),
            snapshot_quantity: state.count().map(|count| count.quantity),
            change_quantity: state.change_quantity(),
            date_time: Timestamp::from_micros(state.date_time()).ok(),
            uncounted: state.count().is_none(),
            recount_due: state.recount_due(),
            live,
        }
    }
}

/// An item has changed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ItemUpdate(pub ItemView);

/// A few numbers of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct StoreSummary {
    /// Which store.
    pub store_id: i32,
    /// Items with a count.
    pub items: usize,
    /// Items that have changes but were never counted.
    pub uncounted: usize,
    /// Items that have an actor of their own now.
    pub live_items: usize,
    /// Rows that the next silver commit will carry.
    pub rows_awaiting_commit: usize,
    /// Time of the newest event.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub newest_event: Option<Timestamp>,
}
