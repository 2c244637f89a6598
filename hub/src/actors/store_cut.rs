//! What a store hands to the commit cycle.

use super::item_state::ItemState;
use crate::rows::{ChangeRow, CountRow, GoldRow, LatestRow, UncountedRow};

/// Everything a store took since the cut before. Rows of gold are `None` if they are not asked for or have not changed.
#[derive(Debug)]
pub struct StoreCut {
    /// Whose.
    pub store_id: i32,
    /// For silver/inventory_change.
    pub changes: Vec<ChangeRow>,
    /// For silver/inventory_snapshot.
    pub counts: Vec<CountRow>,
    /// All rows of the store for gold/inventory_current, but for those in `recounts`, by item.
    pub gold: Option<Vec<GoldRow>>,
    /// All rows of the store for ops/uncounted_inventory, but for those in `recounts`, by item.
    pub uncounted: Option<Vec<UncountedRow>>,
    /// All rows of the store for silver/latest_inventory_snapshot, by item; `None` if none changed.
    pub latest: Option<Vec<LatestRow>>,
    /// Items whose changes have to be summed from silver, cut included, before their row can be written.
    pub recounts: Vec<Recount>,
}

impl StoreCut {
    pub(super) fn new(store_id: i32, changes: Vec<ChangeRow>, counts: Vec<CountRow>) -> Self {
        Self { store_id, changes, counts, gold: None, uncounted: None, latest: None, recounts: Vec::new() }
    }

    /// Puts rows into the order of their items again.
    pub fn sort(&mut self) {
        self.gold.as_mut().into_iter().for_each(|rows| rows.sort_unstable_by_key(|row| row.item_id));
        self.uncounted.as_mut().into_iter().for_each(|rows| rows.sort_unstable_by_key(|row| row.item_id));
    }

    /// Takes the sum of an item's changes since `state.counts_from()` into the rows.
    pub fn recounted(&mut self, recount: &Recount, sum: i64, last_change: i64) {
        let mut state = recount.state;
        state.recounted(state.counts_from(), sum, last_change);
        let (item_id, change_quantity, date_time) = (recount.item_id, sum, state.date_time());
        match state.count() {
            Some(count) => self.gold.get_or_insert_default().push(GoldRow {
                item_id,
                snapshot_quantity: count.quantity,
                change_quantity,
                date_time,
            }),
            None => self.uncounted.get_or_insert_default().push(UncountedRow { item_id, change_quantity, date_time }),
        }
    }
}

/// An item to be summed from silver.
#[derive(Debug, Clone, Copy)]
pub struct Recount {
    /// Which item.
    pub item_id: i32,
    /// Its state at the cut.
    pub state: ItemState,
}
