//! What the reference data makes of changes: which of them apply. Pure.

use onhand_common::ReferenceData;
use std::collections::HashMap;

/// The join conditions of the rule: a change applies if its store and its change type are known, unless the store is the
/// online store and the type is bopis (such an item is taken from the store that hands it over).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Applicability {
    /// Known stores; `true` for those named `online`.
    stores: HashMap<i32, bool>,
    /// Known change types; `true` for those named `bopis`.
    change_types: HashMap<i32, bool>,
}

impl Applicability {
    /// Reads it off the reference data.
    pub fn new(reference: &ReferenceData) -> Self {
        Self {
            stores: reference.stores.iter().map(|s| (s.store_id.get(), s.name == "online")).collect(),
            change_types: reference.change_types.iter().map(|(id, name)| (id.get(), name == "bopis")).collect(),
        }
    }

    /// Whether a change of this store and type is part of its items' inventory.
    pub fn applies(&self, store_id: i32, change_type_id: i32) -> bool {
        match (self.stores.get(&store_id), self.change_types.get(&change_type_id)) {
            (Some(&online), Some(&bopis)) => !(online && bopis),
            _ => false,
        }
    }

    /// Whether the reference data has this store.
    pub fn knows_store(&self, store_id: i32) -> bool {
        self.stores.contains_key(&store_id)
    }

    /// Whether the reference data has this change type.
    pub fn knows_change_type(&self, change_type_id: i32) -> bool {
        self.change_types.contains_key(&change_type_id)
    }

    /// Whether `other` judges any change of this store differently.
    pub fn differs_for(&self, store_id: i32, other: &Self) -> bool {
        self.change_types
            .keys()
            .chain(other.change_types.keys())
            .any(|&change_type| self.applies(store_id, change_type) != other.applies(store_id, change_type))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applicability(stores: &[(i32, bool)], change_types: &[(i32, bool)]) -> Applicability {
        Applicability { stores: stores.iter().copied().collect(), change_types: change_types.iter().copied().collect() }
    }

    #[test]
    fn only_bopis_of_the_online_store_and_unknown_ids_do_not_apply() {
        let a = applicability(&[(0, true), (1, false)], &[(1, false), (4, true)]);
        assert!(a.applies(0, 1) && a.applies(1, 1) && a.applies(1, 4));
        assert!(!a.applies(0, 4) && !a.applies(2, 1) && !a.applies(1, 9));
    }

    #[test]
    fn a_store_is_restated_only_by_what_touches_it() {
        let before = applicability(&[(0, true), (1, false)], &[(1, false), (4, true)]);
        let renamed = applicability(&[(0, true), (1, true)], &[(1, false), (4, true)]);
        assert!(before.differs_for(1, &renamed) && !before.differs_for(0, &renamed));
        let new_type = applicability(&[(0, true), (1, false)], &[(1, false), (4, true), (9, false)]);
        assert!(
            before.differs_for(0, &new_type) && before.differs_for(1, &new_type) && !before.differs_for(7, &new_type)
        );
    }
}
