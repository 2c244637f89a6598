//! Names and safety stocks from the reference data, by id.

use onhand_common::ReferenceData;
use std::collections::HashMap;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Names {
    stores: HashMap<i32, String>,
    items: HashMap<i32, (String, i32)>,
}

impl Names {
    pub(super) fn new(reference: &ReferenceData) -> Self {
        Self {
            stores: reference.stores.iter().map(|s| (s.store_id.get(), s.name.clone())).collect(),
            items: reference
                .items
                .iter()
                .map(|i| (i.item_id.get(), (i.name.clone(), i.safety_stock_quantity)))
                .collect(),
        }
    }

    pub(super) fn store(&self, store_id: i32) -> Option<&str> {
        self.stores.get(&store_id).map(String::as_str)
    }

    pub(super) fn item(&self, item_id: i32) -> Option<&str> {
        self.items.get(&item_id).map(|(name, _)| name.as_str())
    }

    pub(super) fn safety_stock(&self, item_id: i32) -> Option<i32> {
        self.items.get(&item_id).map(|&(_, quantity)| quantity)
    }

    /// Whether that is known to be less than what should be there.
    pub(super) fn is_below_safety_stock(&self, item_id: i32, current_inventory: Option<i64>) -> bool {
        match (current_inventory, self.safety_stock(item_id)) {
            (Some(on_hand), Some(safety_stock)) => on_hand < i64::from(safety_stock),
            _ => false,
        }
    }
}
