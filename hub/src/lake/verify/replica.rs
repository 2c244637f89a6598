//! Silver and gold of some stores as some versions have them, in memory, and which rows of gold are not what the rule says.
//! Pure: rows of files come and go.
//!
//! Nothing here knows what a commit meant to do. A file that comes brings its rows, one that goes takes them away; a
//! compaction does both, and leaves what was there.

use super::{Key, Row};
use hashbrown::{HashMap, HashSet};
use std::collections::{BTreeMap, BTreeSet};

/// A change, as far as the rule asks: time, change type, quantity. Microseconds.
pub(super) type Change = (i64, i32, i32);
/// A latest count: time, quantity.
pub(super) type Counted = (i64, i32);

/// The rows of one data file.
#[derive(Debug)]
pub(super) enum Rows {
    /// Of silver/store or silver/inventory_change_type: id, name.
    Names(Vec<(i32, String)>),
    /// Of silver/inventory_change.
    Changes(Vec<(Key, Change)>),
    /// Of silver/latest_inventory_snapshot.
    Counts(Vec<(Key, Counted)>),
    /// Of gold/inventory_current.
    Gold(Vec<(Key, Row)>),
}

/// How often each of some things is there.
type Bag<T> = BTreeMap<T, i64>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Replica {
    stores: Bag<(i32, String)>,
    types: Bag<(i32, String)>,
    store_names: HashMap<i32, String>,
    type_names: HashMap<i32, String>,
    changes: HashMap<Key, Bag<Change>>,
    counts: HashMap<Key, Bag<Counted>>,
    gold: HashMap<Key, Bag<Row>>,
    /// Whose rows have to be compared anew.
    touched: HashSet<Key>,
    differing: BTreeSet<Key>,
}

impl Replica {
    /// A file comes (`times` 1) or goes (-1), with the rows of the stores that are meant here.
    pub(super) fn add(&mut self, rows: &Rows, of_types: bool, ours: impl Fn(i32) -> bool, times: i64) {
        match rows {
            Rows::Names(rows) => {
                let (bag, names) = if of_types {
                    (&mut self.types, &mut self.type_names)
                } else {
                    (&mut self.stores, &mut self.store_names)
                };
                rows.iter().for_each(|row| put(bag, row.clone(), times));
                *names = bag.keys().cloned().collect();
                self.touched.extend(self.counts.keys().chain(self.gold.keys()));
            }
            Rows::Changes(rows) => put_all(&mut self.changes, &mut self.touched, rows, ours, times),
            Rows::Counts(rows) => put_all(&mut self.counts, &mut self.touched, rows, ours, times),
            Rows::Gold(rows) => put_all(&mut self.gold, &mut self.touched, rows, ours, times),
        }
    }

    /// The stores and items whose rows of gold are not what the rule gives.
    pub(super) fn differing(&mut self) -> &BTreeSet<Key> {
        for key in std::mem::take(&mut self.touched) {
            if self.of_gold(key) == self.of_rule(key) {
                self.differing.remove(&key);
            } else {
                self.differing.insert(key);
            }
        }
        &self.differing
    }

    /// What gold has for an item: one row, or none, if all is well.
    pub(super) fn of_gold(&self, key: Key) -> Vec<Row> {
        self.gold.get(&key).map(repeated).unwrap_or_default()
    }

    /// What the rule gives for it: a row for each of its latest counts, of which there is one, if all is well.
    pub(super) fn of_rule(&self, key: Key) -> Vec<Row> {
        let none = Bag::new();
        let changes = self.changes.get(&key).unwrap_or(&none);
        let row = |(counted_at, counted): Counted| {
            let (mut changed, mut at) = (0, counted_at);
            for (&(changed_at, kind, quantity), times) in changes.range((counted_at, i32::MIN, i32::MIN)..) {
                // JOIN store, JOIN inventory_change_type: what is not in the reference data does not count yet.
                let names = self.store_names.get(&key.0).zip(self.type_names.get(&kind));
                let Some((store, kind)) = names else { continue };
                if store == "online" && kind == "bopis" {
                    continue;
                }
                changed += i64::from(quantity) * times;
                at = at.max(changed_at);
            }
            (counted, changed, i64::from(counted) + changed, at)
        };
        let mut rows: Vec<Row> = self.counts.get(&key).map(repeated).unwrap_or_default().into_iter().map(row).collect();
        rows.sort_unstable();
        rows
    }
}

fn put_all<T: Copy + Ord>(
    all: &mut HashMap<Key, Bag<T>>,
    touched: &mut HashSet<Key>,
    rows: &[(Key, T)],
    ours: impl Fn(i32) -> bool,
    times: i64,
) {
    for &(key, row) in rows.iter().filter(|((store, _), _)| ours(*store)) {
        let bag = all.entry(key).or_default();
        put(bag, row, times);
        if bag.is_empty() {
            all.remove(&key);
        }
        touched.insert(key);
    }
}

fn put<T: Ord>(bag: &mut Bag<T>, what: T, times: i64) {
    use std::collections::btree_map::Entry;
    match bag.entry(what) {
        Entry::Vacant(entry) => {
            entry.insert(times);
        }
        Entry::Occupied(mut entry) => {
            *entry.get_mut() += times;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// Each as often as it is there, in order.
fn repeated<T: Copy>(bag: &Bag<T>) -> Vec<T> {
    bag.iter().flat_map(|(&what, &times)| (0..times).map(move |_| what)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEM: Key = (1, 10);

    fn all(_store: i32) -> bool {
        true
    }

    fn names(rows: &[(i32, &str)]) -> Rows {
        Rows::Names(rows.iter().map(|(id, name)| (*id, (*name).to_owned())).collect())
    }

    /// A shop, sales and bopis, a count of 50 at 100, a sale of 2 at 100, one of 100 at 99, one of an unknown type.
    fn silver() -> Replica {
        let mut replica = Replica::default();
        replica.add(&names(&[(1, "a shop")]), false, all, 1);
        replica.add(&names(&[(1, "sale"), (4, "bopis")]), true, all, 1);
        replica.add(&Rows::Counts(vec![(ITEM, (100, 50))]), false, all, 1);
        let changes = [(100, 1, -2), (99, 1, -100), (200, 9, -7), (150, 4, -1)];
        replica.add(&Rows::Changes(changes.map(|change| (ITEM, change)).to_vec()), false, all, 1);
        replica
    }

    #[test]
    fn the_rule_is_what_the_rows_say() {
        let mut replica = silver();
        assert_eq!(replica.of_rule(ITEM), [(50, -3, 47, 150)]);
        assert_eq!(replica.differing().len(), 1, "gold has no row");
        let gold = Rows::Gold(vec![(ITEM, (50, -3, 47, 150))]);
        replica.add(&gold, false, all, 1);
        assert!(replica.differing().is_empty());
        replica.add(&gold, false, all, 1);
        assert_eq!(replica.differing().len(), 1, "twice");
        replica.add(&gold, false, all, -1);
        replica.add(&Rows::Gold(vec![((1, 11), (1, 0, 1, 1))]), false, all, 1);
        assert_eq!(replica.differing().iter().collect::<Vec<_>>(), [&(1, 11)], "never counted");
    }

    #[test]
    fn what_comes_late_counts_and_what_a_compaction_moves_stays() {
        let mut replica = silver();
        let two = Rows::Changes(vec![(ITEM, (300, 1, -1)), (ITEM, (300, 1, -1))]);
        replica.add(&two, false, all, 1);
        assert_eq!(replica.of_rule(ITEM), [(50, -5, 45, 300)], "two of the same are two");
        let merged = Rows::Changes(vec![(ITEM, (300, 1, -1)), (ITEM, (300, 1, -1)), (ITEM, (301, 1, -4))]);
        replica.add(&two, false, all, -1);
        replica.add(&merged, false, all, 1);
        assert_eq!(replica.of_rule(ITEM), [(50, -9, 41, 301)]);
        // A count takes the place of the other.
        replica.add(&Rows::Counts(vec![(ITEM, (100, 50))]), false, all, -1);
        replica.add(&Rows::Counts(vec![(ITEM, (301, 7))]), false, all, 1);
        assert_eq!(replica.of_rule(ITEM), [(7, -4, 3, 301)]);
    }

    #[test]
    fn reference_data_changes_what_counts() {
        let mut replica = silver();
        replica.add(&Rows::Gold(vec![(ITEM, (50, -3, 47, 150))]), false, all, 1);
        assert!(replica.differing().is_empty());
        let (shop, online) = (names(&[(1, "a shop")]), names(&[(1, "online")]));
        replica.add(&shop, false, all, -1);
        replica.add(&online, false, all, 1);
        assert_eq!(replica.differing().len(), 1);
        assert_eq!(replica.of_rule(ITEM), [(50, -2, 48, 100)]);
        replica.add(&names(&[(9, "theft")]), true, all, 1);
        assert_eq!(replica.of_rule(ITEM), [(50, -9, 41, 200)]);
        replica.add(&online, false, all, -1);
        assert_eq!(replica.of_rule(ITEM), [(50, 0, 50, 100)], "an unknown store");
    }

    #[test]
    fn other_stores_rows_are_not_taken() {
        let mut replica = silver();
        replica.differing();
        replica.add(&Rows::Gold(vec![((2, 10), (1, 0, 1, 1))]), false, |store| store == 1, 1);
        assert!(replica.of_gold((2, 10)).is_empty() && replica.differing().len() == 1);
    }
}
