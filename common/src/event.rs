//! What happens in a store, and what describes it: transactions, counts, reference data.

use crate::ids::{ChangeTypeId, EmployeeId, ItemId, StoreId, TransId};
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// One item of a transaction: how many came (positive) or went (negative).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Line {
    /// Which item.
    pub item_id: ItemId,
    /// How many, in pieces; signed: a sale is negative.
    pub quantity: i32,
}

/// Why lines make no transaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Nothing happened.
    #[error("items: is empty, a transaction has at least one line")]
    NoItems,
    /// The lines of one item add up to more than the table's column holds.
    #[error("items: the quantities of item {item_id} add up to {sum}, which does not fit 32 bits")]
    QuantityOverflow {
        /// The item.
        item_id: ItemId,
        /// Its sum.
        sum: i64,
    },
}

/// An inventory change document: what one till did at one time in one store.
///
/// Each item occurs once: [`Transaction::new`] sums lines of the same item (an item scanned twice is two).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Transaction {
    /// The till's id for it; unique within the store.
    pub trans_id: TransId,
    /// Where.
    pub store_id: StoreId,
    /// When.
    pub date_time: Timestamp,
    /// Sale, restock, shrinkage, …
    pub change_type_id: ChangeTypeId,
    /// What, each item once, in the order of first mention.
    pub items: Vec<Line>,
}

impl Transaction {
    /// Makes a transaction of lines in which an item may occur more than once.
    ///
    /// # Errors
    /// Refuses a transaction without lines, and sums beyond 32 bits.
    pub fn new(
        trans_id: TransId,
        store_id: StoreId,
        date_time: Timestamp,
        change_type_id: ChangeTypeId,
        lines: impl IntoIterator<Item = Line>,
    ) -> Result<Self, TransactionError> {
        Ok(Self { trans_id, store_id, date_time, change_type_id, items: sum_by_item(lines)? })
    }
}

fn sum_by_item(lines: impl IntoIterator<Item = Line>) -> Result<Vec<Line>, TransactionError> {
    let mut sums: Vec<(ItemId, i64)> = Vec::new();
    let mut index: HashMap<ItemId, usize> = HashMap::new();
    for line in lines {
        let at = *index.entry(line.item_id).or_insert_with(|| {
            sums.push((line.item_id, 0));
            sums.len() - 1
        });
        sums[at].1 += i64::from(line.quantity);
    }
    if sums.is_empty() {
        return Err(TransactionError::NoItems);
    }
    sums.into_iter()
        .map(|(item_id, sum)| match i32::try_from(sum) {
            Ok(quantity) => Ok(Line { item_id, quantity }),
            Err(_) => Err(TransactionError::QuantityOverflow { item_id, sum }),
        })
        .collect()
}

/// An inventory snapshot: what someone counted, at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Count {
    /// Which item.
    pub item_id: ItemId,
    /// Who counted.
    pub employee_id: EmployeeId,
    /// Where.
    pub store_id: StoreId,
    /// When.
    pub date_time: Timestamp,
    /// How many there were, in pieces.
    pub quantity: i32,
}

/// What an agent sends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// A till's transaction.
    Transaction(Transaction),
    /// A shelf count.
    Count(Count),
}

impl Event {
    /// The store it happened in.
    pub fn store_id(&self) -> StoreId {
        match self {
            Self::Transaction(t) => t.store_id,
            Self::Count(c) => c.store_id,
        }
    }

    /// How many silver rows it makes: a transaction's items, one for a count.
    pub fn lines(&self) -> usize {
        match self {
            Self::Transaction(t) => t.items.len(),
            Self::Count(_) => 1,
        }
    }
}

/// A row of `store`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// Its id.
    pub store_id: StoreId,
    /// Its name; `online` has a meaning of its own in the rule.
    pub name: String,
}

/// A row of `item`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its id.
    pub item_id: ItemId,
    /// Its name.
    pub name: String,
    /// Who supplies it.
    pub supplier_id: i32,
    /// Below this many pieces, it should be ordered.
    pub safety_stock_quantity: i32,
}

/// The three reference tables as they stood at one time, each in the order of its ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReferenceData {
    /// Table `store`.
    pub stores: Vec<Store>,
    /// Table `item`.
    pub items: Vec<Item>,
    /// Table `inventory_change_type`: id and name (`sale`, `restock`, `shrinkage`, `bopis`, …).
    pub change_types: Vec<(ChangeTypeId, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(item: i64, quantity: i32) -> Line {
        Line { item_id: ItemId::try_from(item).unwrap(), quantity }
    }

    fn transaction(lines: &[Line]) -> Result<Transaction, TransactionError> {
        Transaction::new(
            TransId::new("t").unwrap(),
            StoreId::try_from(1_i64).unwrap(),
            Timestamp::from_micros(0).unwrap(),
            ChangeTypeId::try_from(1_i64).unwrap(),
            lines.iter().copied(),
        )
    }

    #[test]
    fn an_item_scanned_twice_is_two() {
        let t = transaction(&[line(10, -1), line(11, -3), line(10, -1)]).unwrap();
        assert_eq!(t.items, [line(10, -2), line(11, -3)]);
    }

    #[test]
    fn sums_that_do_not_fit_and_empty_documents_are_refused() {
        assert_eq!(transaction(&[]), Err(TransactionError::NoItems));
        let refused = transaction(&[line(10, i32::MAX), line(10, 1)]);
        assert!(matches!(refused, Err(TransactionError::QuantityOverflow { sum: 2_147_483_648, .. })));
        // In between it may leave 32 bits.
        assert!(transaction(&[line(10, i32::MAX), line(10, 1), line(10, -1)]).is_ok());
    }
}
