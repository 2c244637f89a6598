//! The rule as plainly as it can be said: everything that ever arrived is kept, and summed anew whenever somebody asks.

use onhand_common::{Count, Event, ReferenceData, Transaction};
use std::collections::{BTreeMap, BTreeSet};

/// A row of gold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoldRow {
    pub store_id: i32,
    pub item_id: i32,
    pub snapshot_quantity: i32,
    pub change_quantity: i64,
    pub date_time: i64,
}

/// The reference data, as far as the rule looks at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reference {
    pub stores: BTreeMap<i32, String>,
    pub change_types: BTreeMap<i32, String>,
}

impl Reference {
    /// What the hub knows.
    pub fn of(data: &ReferenceData) -> Self {
        Self {
            stores: data.stores.iter().map(|store| (store.store_id.get(), store.name.clone())).collect(),
            change_types: data.change_types.iter().map(|(id, name)| (id.get(), name.clone())).collect(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Line {
    at: i64,
    change_type: i32,
    quantity: i32,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub reference: Reference,
    lines: BTreeMap<(i32, i32), BTreeMap<String, Line>>,
    counts: BTreeMap<(i32, i32), Vec<(i64, i32)>>,
}

impl Model {
    /// An event arrives.
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Transaction(transaction) => self.transaction(transaction),
            Event::Count(count) => self.count(count),
        }
    }

    fn transaction(&mut self, t: &Transaction) {
        for line in &t.items {
            let key = (t.store_id.get(), line.item_id.get());
            let line = Line { at: t.date_time.micros(), change_type: t.change_type_id.get(), quantity: line.quantity };
            self.lines.entry(key).or_default().entry(t.trans_id.to_string()).or_insert(line);
        }
    }

    fn count(&mut self, c: &Count) {
        let counts = self.counts.entry((c.store_id.get(), c.item_id.get())).or_default();
        let count = (c.date_time.micros(), c.quantity);
        if !counts.contains(&count) {
            counts.push(count);
        }
    }

    fn applies(&self, store: i32, change_type: i32) -> bool {
        match (self.reference.stores.get(&store), self.reference.change_types.get(&change_type)) {
            (Some(name), Some(change_type)) => !(name == "online" && change_type == "bopis"),
            _ => false,
        }
    }

    fn applicable(&self, key: (i32, i32)) -> impl Iterator<Item = &Line> {
        self.lines
            .get(&key)
            .into_iter()
            .flatten()
            .map(|(_, line)| line)
            .filter(move |l| self.applies(key.0, l.change_type))
    }

    /// Gold, by store and item.
    pub fn gold(&self) -> Vec<GoldRow> {
        let row = |(&key, counts): (&(i32, i32), &Vec<(i64, i32)>)| {
            // The newest; of two at one time, the later arrival.
            let &(at, quantity) = counts.iter().max_by_key(|(at, _)| *at)?;
            let since: Vec<&Line> = self.applicable(key).filter(|line| line.at >= at).collect();
            Some(GoldRow {
                store_id: key.0,
                item_id: key.1,
                snapshot_quantity: quantity,
                change_quantity: since.iter().map(|line| i64::from(line.quantity)).sum(),
                date_time: since.iter().map(|line| line.at).max().unwrap_or(at).max(at),
            })
        };
        self.counts.iter().filter_map(row).collect()
    }

    /// Items that have changes that apply, but no count: store, item, sum.
    pub fn uncounted(&self) -> BTreeSet<(i32, i32, i64)> {
        let keys = self.lines.keys().filter(|key| !self.counts.contains_key(key));
        let sum = |key: &(i32, i32)| self.applicable(*key).map(|line| i64::from(line.quantity)).sum();
        keys.filter(|key| self.applicable(**key).next().is_some()).map(|key| (key.0, key.1, sum(key))).collect()
    }

    /// Lines and counts that silver must hold.
    pub fn rows(&self) -> (u64, u64) {
        let lines: usize = self.lines.values().map(BTreeMap::len).sum();
        let counts: usize = self.counts.values().map(Vec::len).sum();
        (lines as u64, counts as u64)
    }
}
