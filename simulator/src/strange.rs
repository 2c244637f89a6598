//! Makes a dataset strange: `generate --strange`.
//!
//! A plain dataset is taken, and of each store's events some come weeks late, in parts, twice, through the store's second
//! agent, under an id that another store has used too, with an item that no catalogue knows, or with a change type that the
//! reference data learns of later; counts come behind newer ones, at the very time of a change, and are corrected. A store is
//! called `online` for a while, the online store is not, and one store becomes known at last.
//!
//! The dataset's files are written anew: they say what happened, each line and each count once, in the order in which counts
//! arrive. [`crate::delivery`] says how it arrives. What is avoided is what the contract leaves open: one transaction has one
//! time, and of a line that comes twice both say the same.

use crate::dataset::{Dataset, StoreEvents};
use crate::delivery::{self, Known, Sent, Step};
use anyhow::{Context, ensure};
use onhand_common::accelerator::{self, ChangeWriter, CountWriter};
use onhand_common::{Count, ItemId, Line, StoreId, Timestamp, Transaction};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;
/// The change type that the reference data learns of last.
const TRANSFER: i32 = 9;
const BOPIS: i32 = 4;
/// Items from here on are in no catalogue.
const UNHEARD_OF: i32 = 1_900_000_000;

/// Something that arrives, in the order of `at`; `place` keeps apart what arrives at one time.
struct Arrival {
    at: i64,
    place: usize,
    step: Step,
}

/// What happened in a store, as files say it.
#[derive(Default)]
struct Truth {
    transactions: Vec<Transaction>,
    /// Counts by arrival, each once.
    counts: Vec<(i64, usize, Count)>,
}

/// Makes the plain dataset in `dir` strange. Its reference files stay, but for one change type more.
///
/// # Errors
/// Reports what the disk reports; refuses a dataset without a physical store beside the online one.
pub fn make_strange(dir: &Path, seed: u64) -> anyhow::Result<()> {
    let dataset = Dataset::read(dir)?;
    let open = |name: &str| File::open(dir.join(name)).with_context(|| format!("open {name} in {}", dir.display()));
    let stores = accelerator::read_stores(open("store.txt")?)?;
    ensure!(stores.len() >= 2, "--strange needs at least 2 stores: one of them is renamed");
    let types = accelerator::read_change_types(open("inventory_change_type.txt")?)?;
    let last = Known {
        stores: stores.iter().map(|store| (store.store_id.get(), store.name.clone())).collect(),
        change_types: types
            .iter()
            .map(|(id, name)| (id.get(), name.clone()))
            .chain([(TRANSFER, "transfer".to_owned())])
            .collect(),
    };
    let mut maker = Maker { arrivals: Vec::new(), truth: BTreeMap::new(), rng: ChaCha8Rng::seed_from_u64(seed) };
    maker.rng.set_stream(u64::MAX - 1);
    let ids: Vec<StoreId> = dataset.stores.keys().copied().collect();
    let (begin, end) = span(&dataset);
    for (store, events) in dataset.stores {
        let others: Vec<StoreId> = ids.iter().copied().filter(|other| *other != store).collect();
        maker.store(events, &others);
    }
    maker.reference(&last, begin, end);
    let Maker { mut arrivals, truth, .. } = maker;
    arrivals.sort_by_key(|arrival| (arrival.at, arrival.place));
    let steps: Vec<Step> = arrivals.into_iter().map(|arrival| arrival.step).collect();
    delivery::write(dir, &steps)?;
    last.write(dir)?;
    write_truth(dir, &stores, truth)
}

/// Times of the first and the last event.
fn span(dataset: &Dataset) -> (i64, i64) {
    let times = dataset.stores.values().flat_map(|events| {
        let counts = events.counts.iter().map(|count| count.date_time.micros());
        events.transactions.iter().map(|transaction| transaction.date_time.micros()).chain(counts)
    });
    times.fold((i64::MAX, i64::MIN), |(first, last), time| (first.min(time), last.max(time)))
}

struct Maker {
    arrivals: Vec<Arrival>,
    truth: BTreeMap<StoreId, Truth>,
    rng: ChaCha8Rng,
}

impl Maker {
    /// Names change three times; in the end all is known.
    fn reference(&mut self, last: &Known, begin: i64, end: i64) {
        let online = last.stores.iter().find(|(_, name)| *name == "online").map(|(id, _)| *id);
        let physical = last.stores.keys().copied().find(|id| Some(*id) != online);
        let newest = last.stores.keys().copied().next_back();
        let mut first = last.clone();
        for (id, name) in [(online, "store 0"), (physical, "online")] {
            id.map(|id| first.stores.insert(id, name.to_owned()));
        }
        // With two stores, the newest is the one that is renamed.
        if newest != physical {
            newest.map(|id| first.stores.remove(&id));
        }
        first.change_types.remove(&TRANSFER);
        first.change_types.remove(&BOPIS);
        let mut second = first.clone();
        second.stores.clone_from(&last.stores);
        if newest != physical {
            newest.map(|id| second.stores.remove(&id));
        }
        let mut third = last.clone();
        third.change_types.remove(&TRANSFER);
        let part = |share: i64| begin + (end - begin) / 10 * share;
        for (at, known) in [(i64::MIN, first), (part(3), second), (part(5), third), (part(8), last.clone())] {
            self.arrive(at, Step::Reference(known));
        }
    }

    fn store(&mut self, events: StoreEvents, others: &[StoreId]) {
        for transaction in events.transactions {
            self.transaction(transaction, others);
        }
        for count in events.counts {
            self.count(count);
        }
    }

    fn one_in(&mut self, many: u32) -> bool {
        self.rng.random_range(0..many) == 0
    }

    /// When something arrives that happened at `time`: mostly at once, now and then weeks later.
    fn arrival(&mut self, time: Timestamp) -> i64 {
        let late = if self.one_in(12) { self.rng.random_range(10 * DAY..45 * DAY) } else { 0 };
        time.micros() + late
    }

    fn arrive(&mut self, at: i64, step: Step) {
        let place = self.arrivals.len();
        self.arrivals.push(Arrival { at, place, step });
    }

    fn transaction(&mut self, mut transaction: Transaction, others: &[StoreId]) {
        if self.one_in(25) {
            transaction.change_type_id = TRANSFER.try_into().expect("an id");
        }
        if self.one_in(30) {
            let id = UNHEARD_OF + self.rng.random_range(0..20);
            let quantity = if self.one_in(4) { -1_500_000_000 } else { -1 };
            transaction.items.push(Line { item_id: id.try_into().expect("an id"), quantity });
        }
        if self.one_in(20) {
            let item = transaction.items[0].item_id;
            self.count_exactly_at(&transaction, item);
        }
        if self.one_in(30) && !others.is_empty() {
            let store_id = others[self.rng.random_range(0..others.len())];
            let line = Line { quantity: transaction.items[0].quantity - 1, ..transaction.items[0] };
            let twin = Transaction { store_id, items: vec![line], ..transaction.clone() };
            self.send_whole(&twin);
            self.truth.entry(store_id).or_default().transactions.push(twin);
        }
        if transaction.items.len() > 1 && self.one_in(8) {
            self.send_in_parts(&transaction);
        } else {
            self.send_whole(&transaction);
        }
        if self.one_in(10) {
            // Again: whole, though it may have come in parts; by the other agent, or by the same.
            self.send_whole(&transaction);
        }
        self.truth.entry(transaction.store_id).or_default().transactions.push(transaction);
    }

    fn send_whole(&mut self, transaction: &Transaction) {
        let at = self.arrival(transaction.date_time);
        self.send(transaction, at);
    }

    /// Two documents with different items, at times of their own.
    fn send_in_parts(&mut self, transaction: &Transaction) {
        let middle = self.rng.random_range(1..transaction.items.len());
        let (front, back) = transaction.items.split_at(middle);
        for items in [back, front] {
            self.send_whole(&Transaction { items: items.to_vec(), ..transaction.clone() });
        }
    }

    fn send(&mut self, transaction: &Transaction, at: i64) {
        let mut document = parse(&accelerator::transaction_to_json(transaction));
        if self.one_in(15) {
            scan_in_pieces(&mut document);
        }
        let second = self.one_in(6);
        self.arrive(at, Step::Transaction(Sent { store: transaction.store_id.get(), second, document }));
    }

    /// A count at the time of a change, which then counts; it arrives before the change, or after it.
    fn count_exactly_at(&mut self, transaction: &Transaction, item_id: ItemId) {
        let quantity = self.rng.random_range(0..200);
        let employee_id = 77.try_into().expect("an id");
        let (store_id, date_time) = (transaction.store_id, transaction.date_time);
        let count = Count { item_id, employee_id, store_id, date_time, quantity };
        let at = self.arrival(date_time) + self.rng.random_range(-DAY..DAY);
        self.send_count(count, at);
    }

    fn count(&mut self, count: Count) {
        // Weeks late, it comes behind newer ones.
        let at = self.arrival(count.date_time);
        self.send_count(count, at);
        if self.one_in(20) {
            let quantity = count.quantity + self.rng.random_range(1..9);
            let later = self.rng.random_range(0..3 * DAY);
            self.send_count(Count { quantity, ..count }, at + later);
        }
        if self.one_in(20) {
            let later = self.rng.random_range(0..9 * DAY);
            self.send_count(count, at + later);
        }
    }

    fn send_count(&mut self, count: Count, at: i64) {
        let place = self.arrivals.len();
        self.truth.entry(count.store_id).or_default().counts.push((at, place, count));
        let document = parse(&accelerator::count_to_json(&count));
        // By one agent: of corrections that two agents send, nobody can say which is the later one.
        self.arrive(at, Step::Count(Sent { store: count.store_id.get(), second: false, document }));
    }
}

fn parse(json: &str) -> Value {
    serde_json::from_str(json).expect("what was just written can be read")
}

/// An item that was scanned twice stands in the document twice.
fn scan_in_pieces(document: &mut Value) {
    let Some(items) = document["items"].as_array_mut() else { return };
    let mut piece = items[0].clone();
    let quantity = items[0]["quantity"].as_i64().unwrap_or(0);
    piece["quantity"] = 1.into();
    items[0]["quantity"] = (quantity - 1).into();
    items.push(piece);
}

/// Change and count files, by store, under the names that they had.
fn write_truth(dir: &Path, stores: &[onhand_common::Store], truth: BTreeMap<StoreId, Truth>) -> anyhow::Result<()> {
    for (store_id, mut events) in truth {
        let online = stores.iter().any(|store| store.store_id == store_id && store.name == "online");
        let label = if online { "online".to_owned() } else { format!("store{:03}", store_id.get()) };
        let create = |name: String| {
            let path = dir.join(name);
            File::create(&path).map(BufWriter::new).with_context(|| format!("make {}", path.display()))
        };
        let mut changes = ChangeWriter::new(create(format!("inventory_change_{label}.txt"))?)?;
        events.transactions.sort_by_key(|transaction| transaction.date_time);
        for transaction in &events.transactions {
            changes.write(transaction)?;
        }
        changes.finish()?;
        // The same count again changes nothing, not even which of two corrections is the later one.
        events.counts.sort_by_key(|(at, place, _)| (*at, *place));
        let mut seen = BTreeSet::new();
        let mut counts = CountWriter::new(create(format!("inventory_snapshot_{label}.txt"))?)?;
        for (_, _, count) in &events.counts {
            if seen.insert((count.item_id, count.date_time, count.quantity)) {
                counts.write(count)?;
            }
        }
        counts.finish()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Plan, generate};
    use std::collections::HashMap;

    fn strange() -> (tempfile::TempDir, Vec<Step>, Dataset) {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan { days: 20, stores: 3, items: 80, transactions: Some(3_000), strange: true, ..Plan::default() };
        generate(&plan, &dir.path().join("d"), |_| ()).unwrap().unwrap();
        let steps = delivery::read(&dir.path().join("d")).unwrap().unwrap();
        let dataset = Dataset::read(&dir.path().join("d")).unwrap();
        (dir, steps, dataset)
    }

    fn documents(steps: &[Step], transactions: bool) -> impl Iterator<Item = &Sent> {
        steps.iter().filter_map(move |step| match step {
            Step::Transaction(sent) if transactions => Some(sent),
            Step::Count(sent) if !transactions => Some(sent),
            _ => None,
        })
    }

    #[test]
    fn what_is_sent_is_what_the_files_say_and_each_strangeness_occurs() {
        let (_dir, steps, dataset) = strange();
        let mut told: BTreeMap<(i32, String, i32), i64> = BTreeMap::new();
        for transaction in dataset.stores.values().flat_map(|events| &events.transactions) {
            for line in &transaction.items {
                let key = (transaction.store_id.get(), transaction.trans_id.to_string(), line.item_id.get());
                assert_eq!(told.insert(key, line.quantity.into()), None);
            }
        }
        let (mut sent, mut documents_of, mut pieces, mut again) = (BTreeMap::new(), HashMap::new(), 0, 0);
        let (mut newest, mut late, mut second) = (HashMap::new(), 0, 0);
        for one in documents(&steps, true) {
            let t = accelerator::parse_transaction(one.document.to_string().as_bytes()).unwrap();
            pieces += i32::from(one.document["items"].as_array().unwrap().len() > t.items.len());
            second += i32::from(one.second);
            let newest: &mut i64 = newest.entry(t.store_id).or_default();
            late += i32::from(t.date_time.micros() + 10 * DAY < *newest);
            *newest = (*newest).max(t.date_time.micros());
            *documents_of.entry((t.store_id, t.trans_id.clone())).or_insert(0) += 1;
            for line in &t.items {
                let key = (t.store_id.get(), t.trans_id.to_string(), line.item_id.get());
                again += i32::from(sent.insert(key, i64::from(line.quantity)).is_some());
            }
        }
        assert!(sent == told, "files and delivery differ");
        let twins: BTreeSet<&str> = told
            .keys()
            .filter(|key| told.range((key.0 + 1, key.1.clone(), 0)..).any(|(k, _)| k.1 == key.1))
            .map(|key| key.1.as_str())
            .collect();
        let split = documents_of.values().filter(|count| **count > 1).count();
        let unheard = told.keys().filter(|key| key.2 >= UNHEARD_OF).count();
        for (what, count) in [("pieces", pieces), ("again", again), ("late", late), ("second", second)] {
            assert!(count > 20, "{what}: {count}");
        }
        assert!(twins.len() > 20 && split > 100 && unheard > 20, "{} {split} {unheard}", twins.len());
    }

    #[test]
    fn counts_come_behind_newer_ones_at_changes_and_are_corrected_and_names_change() {
        let (_dir, steps, dataset) = strange();
        let (mut newest, mut behind, mut values) = (HashMap::new(), 0, HashMap::<_, BTreeSet<i32>>::new());
        let mut arrived: HashMap<(i32, i32, Timestamp), i32> = HashMap::new();
        for one in documents(&steps, false) {
            let count = accelerator::parse_count(one.document.to_string().as_bytes()).unwrap();
            let key = (count.store_id.get(), count.item_id.get());
            let newest = newest.entry(key).or_insert(count.date_time);
            behind += i32::from(count.date_time < *newest);
            *newest = count.date_time.max(*newest);
            if values.entry((key, count.date_time)).or_default().insert(count.quantity) {
                arrived.insert((key.0, key.1, count.date_time), count.quantity);
            }
        }
        let corrected = values.values().filter(|values| values.len() > 1).count();
        assert!(behind > 10 && corrected > 10, "{behind} {corrected}");
        // A file's last word of a time is the one that arrives last.
        let mut told = HashMap::new();
        let mut at_a_change = 0;
        for (store, events) in &dataset.stores {
            let times: BTreeSet<Timestamp> = events.transactions.iter().map(|t| t.date_time).collect();
            for count in &events.counts {
                at_a_change += i32::from(times.contains(&count.date_time));
                told.insert((store.get(), count.item_id.get(), count.date_time), count.quantity);
            }
        }
        assert!(told == arrived && at_a_change > 20, "{at_a_change}");
        let known: Vec<&Known> = steps
            .iter()
            .filter_map(|step| if let Step::Reference(known) = step { Some(known) } else { None })
            .collect();
        let names =
            |store: i32| known.iter().map(|k| k.stores.get(&store).map_or("", String::as_str)).collect::<Vec<_>>();
        assert_eq!(names(0), ["store 0", "online", "online", "online"]);
        assert_eq!(names(1), ["online", "store 1", "store 1", "store 1"]);
        assert_eq!(names(2), ["", "", "store 2", "store 2"]);
        let types = |id: i32| known.iter().map(|k| k.change_types.contains_key(&id)).collect::<Vec<_>>();
        assert_eq!((types(4), types(9)), (vec![false, false, true, true], vec![false, false, false, true]));
    }
}
