//! Makes a dataset in the accelerator's layout: the same bytes for the same plan.
//!
//! Each store has a random stream of its own, so a store's days depend on the plan only, and stores are simulated one
//! after the other in constant memory. The online store goes first: its orders are what physical stores hand over.

use crate::rhythm;
use crate::store_sim::{self, Book, Pickup, PickupPoint, Shelf, StorePlan};
use crate::strange;
use anyhow::{Context, bail, ensure};
use onhand_common::accelerator::{self, ChangeWriter, CountWriter};
use onhand_common::{Count, Item, Store, StoreId, Timestamp, Transaction};
use rand::seq::{SliceRandom, index};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::Path;

/// The file in which a generated dataset says how it was made.
pub const PLAN_FILE: &str = "generated.json";
/// First day of every generated dataset, a Friday.
const START: &str = "2021-01-01 00:00:00";
/// Customers of a store on an average day, unless a total is given.
const CUSTOMERS: f64 = 300.;
/// Random streams that are not a store's.
const CATALOGUE_STREAM: u64 = u64::MAX;

/// What to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
pub struct Plan {
    /// Days of sales.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// Stores; from two on, one of them is the online store.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub stores: u32,
    /// Items in the catalogue.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub items: u32,
    /// The same seed gives the same bytes.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Transactions over all stores and days, about (default: 300 for each store and day).
    #[arg(long)]
    pub transactions: Option<u64>,
    /// Lines in an average basket.
    #[arg(long, default_value_t = 3.2)]
    pub basket: f64,
    /// Items that one store carries (default: all).
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub assortment: Option<u32>,
    /// So many stores make half of all sales.
    #[arg(long, default_value_t = 0)]
    pub hot_stores: u32,
    /// Days from one full count to the next.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub count_every: u32,
    /// Make it strange: late, split and repeated documents, corrections, ids that two stores share, new and renamed stores,
    /// change types and items that nobody knows; how it arrives stands in delivery.ndjson.
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strange: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            days: 30,
            stores: 2,
            items: 1000,
            seed: 42,
            transactions: None,
            basket: 3.2,
            assortment: None,
            hot_stores: 0,
            count_every: 5,
            strange: false,
        }
    }
}

/// What was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Made {
    /// Transactions.
    pub transactions: u64,
    /// Their lines.
    pub lines: u64,
    /// Counts.
    pub counts: u64,
}

/// Makes the dataset in folder `out`, which appears when it is complete. `progress` is told each store that is done.
///
/// A folder that holds the dataset of the same plan already is left as it is: then the result is `None`.
///
/// # Errors
/// Refuses a folder that holds anything else; reports what the disk reports.
pub fn generate(plan: &Plan, out: &Path, mut progress: impl FnMut(u32)) -> anyhow::Result<Option<Made>> {
    if let Ok(text) = fs::read_to_string(out.join(PLAN_FILE)) {
        let there: Plan =
            serde_json::from_str(&text).with_context(|| format!("read {PLAN_FILE} in {}", out.display()))?;
        ensure!(there == *plan, "{} holds a dataset of another plan: {}", out.display(), text.trim());
        return Ok(None);
    }
    if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is not empty: name a folder that does not exist yet", out.display());
    }
    let name = out.file_name().context("--out: a folder is needed")?.to_string_lossy();
    let partial = out.with_file_name(format!(".{name}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial)
            .with_context(|| format!("remove what a stopped run left in {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("make {}", partial.display()))?;
    let made = write_all(plan, &partial, &mut progress)?;
    fs::rename(&partial, out).with_context(|| format!("rename {} to {}", partial.display(), out.display()))?;
    Ok(Some(made))
}

fn write_all(plan: &Plan, dir: &Path, progress: &mut impl FnMut(u32)) -> anyhow::Result<Made> {
    let create = |name: &str| {
        let path = dir.join(name);
        File::create(&path)
            .map(|f| BufWriter::with_capacity(1 << 18, f))
            .with_context(|| format!("make {}", path.display()))
    };
    let stores = stores(plan)?;
    let catalogue = Catalogue::new(plan);
    accelerator::write_stores(create("store.txt")?, &stores)?;
    accelerator::write_items(create("item.txt")?, &catalogue.items)?;
    let names = ["sale", "restock", "shrinkage", "bopis"];
    let change_types: Vec<_> = (1_i32..)
        .zip(names)
        .map(|(id, name)| Ok((id.try_into()?, name.to_owned())))
        .collect::<Result<_, onhand_common::ids::IdError>>()?;
    accelerator::write_change_types(create("inventory_change_type.txt")?, &change_types)?;

    let shelves: Vec<Vec<Shelf>> = stores.iter().map(|s| catalogue.assortment(plan, s.store_id)).collect();
    let customers = customers(plan, stores.len());
    let mut sum = 0.;
    let points: Vec<PickupPoint<'_>> = (1..stores.len())
        .map(|index| {
            sum += customers[index];
            PickupPoint { index, shelves: &shelves[index], cumulative: sum }
        })
        .collect();
    let mut pickups: Vec<Vec<Pickup>> = vec![Vec::new(); stores.len()];
    let mut made = Made::default();
    for (index, store) in stores.iter().enumerate() {
        let online = store.name == "online";
        let label = if online { "online".to_owned() } else { format!("store{:03}", store.store_id.get()) };
        let mut book = Files {
            changes: ChangeWriter::new(create(&format!("inventory_change_{label}.txt"))?)?,
            counts: CountWriter::new(create(&format!("inventory_snapshot_{label}.txt"))?)?,
            made: &mut made,
        };
        let store_plan = StorePlan {
            store_id: store.store_id,
            online,
            start: Timestamp::parse(START)?,
            days: plan.days,
            count_every: plan.count_every,
            customers: customers[index],
            basket: plan.basket,
            shelves: &shelves[index],
        };
        let mut rng = stream(plan.seed, store.store_id.get() as u64);
        let waiting = std::mem::take(&mut pickups[index]);
        for (to, pickup) in
            store_sim::run(&store_plan, if online { &points } else { &[] }, waiting, &mut rng, &mut book)?
        {
            pickups[to].push(pickup);
        }
        book.changes.finish()?;
        book.counts.finish()?;
        progress(index as u32 + 1);
    }
    if plan.strange {
        strange::make_strange(dir, plan.seed)?;
    }
    serde_json::to_writer_pretty(create(PLAN_FILE)?, plan)?;
    Ok(made)
}

struct Files<'a> {
    changes: ChangeWriter<BufWriter<File>>,
    counts: CountWriter<BufWriter<File>>,
    made: &'a mut Made,
}

impl Book for Files<'_> {
    fn transaction(&mut self, transaction: &Transaction) -> io::Result<()> {
        self.made.transactions += 1;
        self.made.lines += transaction.items.len() as u64;
        self.changes.write(transaction)
    }

    fn count(&mut self, count: &Count) -> io::Result<()> {
        self.made.counts += 1;
        self.counts.write(count)
    }
}

fn stream(seed: u64, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

/// The online store has the id 0; one store alone is a physical one.
fn stores(plan: &Plan) -> anyhow::Result<Vec<Store>> {
    let ids = if plan.stores == 1 { 1..=1 } else { 0..=i64::from(plan.stores) - 1 };
    ids.map(|id| {
        let name = if id == 0 { "online".to_owned() } else { format!("store {id}") };
        Ok(Store { store_id: StoreId::try_from(id)?, name })
    })
    .collect()
}

/// Customers of each store on an average day.
fn customers(plan: &Plan, stores: usize) -> Vec<f64> {
    let days = f64::from(plan.days);
    // Deliveries and write-offs are transactions too: two on most days.
    let total = plan.transactions.map_or(CUSTOMERS * stores as f64 * days, |n| n as f64);
    let sales = (total - 1.6 * stores as f64 * days).max(total / 4.);
    let hot = (plan.hot_stores as usize).min(stores);
    let weights: Vec<f64> = (0..stores)
        .map(|index| match index {
            _ if hot == 0 || hot == stores => 1.,
            _ if index < hot => 0.5 / hot as f64,
            _ => 0.5 / (stores - hot) as f64,
        })
        .collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| sales / days * weight / sum).collect()
}

struct Catalogue {
    items: Vec<Item>,
    /// Items by popularity: places in `items`, the most popular first.
    ranking: Vec<usize>,
}

impl Catalogue {
    fn new(plan: &Plan) -> Self {
        let mut rng = stream(plan.seed, CATALOGUE_STREAM);
        let count = plan.items as usize;
        let mut ranking: Vec<usize> = (0..count).collect();
        ranking.shuffle(&mut rng);
        let carried = plan.assortment.unwrap_or(plan.items).min(plan.items) as usize;
        let all: f64 = (0..carried).map(rhythm::popularity).sum();
        let stores = f64::from(plan.stores);
        let lines_a_day =
            plan.transactions.map_or(CUSTOMERS, |n| n as f64 / stores / f64::from(plan.days)) * plan.basket * 1.4;
        let mut items: Vec<Item> = (0..count)
            .map(|index| Item {
                item_id: (index as i64 + 1).try_into().expect("at most 10 million items"),
                name: name(index),
                supplier_id: rng.random_range(1..=40),
                safety_stock_quantity: 0,
            })
            .collect();
        for (rank, index) in ranking.iter().enumerate() {
            let a_day = lines_a_day * rhythm::popularity(rank) / all;
            items[*index].safety_stock_quantity = (2. * a_day).ceil().max(2.) as i32 + rng.random_range(0..3);
        }
        Self { items, ranking }
    }

    /// What a store carries: the best sellers, which everyone has, and a random part of the others.
    fn assortment(&self, plan: &Plan, store: StoreId) -> Vec<Shelf> {
        let count = self.items.len();
        let carried = plan.assortment.map_or(count, |n| n as usize).min(count);
        let common = if carried == count { count } else { carried / 2 };
        let mut rng = stream(plan.seed, (1 << 40) + store.get() as u64);
        let mut ranks: Vec<usize> = (0..common).collect();
        ranks.extend(index::sample(&mut rng, count - common, carried - common).into_iter().map(|i| common + i));
        ranks.sort_unstable();
        let mut shelves: Vec<Shelf> = (0..)
            .zip(ranks)
            .map(|(place, rank)| {
                let item = &self.items[self.ranking[rank]];
                let taste = rng.random_range(0.5..1.5);
                let popularity = rhythm::popularity(place) * taste;
                Shelf { item_id: item.item_id, safety_stock: item.safety_stock_quantity, popularity }
            })
            .collect();
        shelves.sort_unstable_by_key(|shelf| shelf.item_id);
        shelves
    }
}

fn name(index: usize) -> String {
    const KINDS: [&str; 16] = [
        "organic", "classic", "family", "mini", "spicy", "mild", "whole", "smoked", "fresh", "frozen", "salted",
        "sweet", "light", "double", "country", "garden",
    ];
    const GOODS: [&str; 25] = [
        "oat milk",
        "coffee",
        "black tea",
        "rye bread",
        "butter",
        "apple juice",
        "olive oil",
        "pasta",
        "rice",
        "tomatoes",
        "beans",
        "soup",
        "yoghurt",
        "cheddar",
        "ham",
        "salmon",
        "crackers",
        "honey",
        "jam",
        "muesli",
        "chocolate",
        "peanuts",
        "mustard",
        "soap",
        "candles",
    ];
    let name = format!("{} {}", KINDS[index % KINDS.len()], GOODS[index % GOODS.len()]);
    // 16 and 25 have no common divisor: names repeat after 400.
    match index / (KINDS.len() * GOODS.len()) {
        0 => name,
        series => format!("{name} no. {}", series + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, HashMap, HashSet};

    fn small() -> Plan {
        Plan { days: 8, items: 60, transactions: Some(2_000), ..Plan::default() }
    }

    fn make(plan: &Plan) -> (tempfile::TempDir, Made) {
        let dir = tempfile::tempdir().unwrap();
        let made = generate(plan, &dir.path().join("d"), |_| ()).unwrap().unwrap();
        (dir, made)
    }

    fn bytes(plan: &Plan) -> BTreeMap<String, Vec<u8>> {
        let (dir, _) = make(plan);
        let entries = fs::read_dir(dir.path().join("d")).unwrap().map(Result::unwrap);
        entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect()
    }

    fn changes(dir: &Path, name: &str) -> Vec<Transaction> {
        accelerator::read_changes(File::open(dir.join("d").join(name)).unwrap()).unwrap()
    }

    #[test]
    fn one_seed_gives_the_same_bytes_and_another_seed_others() {
        let first = bytes(&small());
        assert_eq!(
            first.keys().collect::<Vec<_>>(),
            [
                "generated.json",
                "inventory_change_online.txt",
                "inventory_change_store001.txt",
                "inventory_change_type.txt",
                "inventory_snapshot_online.txt",
                "inventory_snapshot_store001.txt",
                "item.txt",
                "store.txt",
            ]
        );
        assert!(first == bytes(&small()));
        let other = bytes(&Plan { seed: 43, ..small() });
        assert_ne!(first["inventory_change_online.txt"], other["inventory_change_online.txt"]);
    }

    #[test]
    fn all_four_change_types_occur_and_stores_keep_their_hours() {
        let (dir, made) = make(&small());
        assert!((1_600..2_400).contains(&made.transactions), "{made:?}");
        let physical = changes(dir.path(), "inventory_change_store001.txt");
        let kinds: HashSet<i32> = physical.iter().map(|t| t.change_type_id.get()).collect();
        assert_eq!(kinds, HashSet::from([1, 2, 3, 4]));
        assert!(physical.is_sorted_by_key(|t| t.date_time));
        let second = |t: &Transaction| (t.date_time.micros() / 1_000_000 % 86_400) as u32;
        for t in physical.iter().filter(|t| matches!(t.change_type_id.get(), store_sim::SALE | store_sim::BOPIS)) {
            assert!((rhythm::OPENS..rhythm::CLOSES).contains(&second(t)), "{t:?}");
        }
        let ids: HashSet<&str> = physical.iter().map(|t| t.trans_id.as_str()).collect();
        assert_eq!(ids.len(), physical.len());
        // 2021-01-02 was a Saturday, the 3rd a Sunday.
        let sold =
            |day| physical.iter().filter(|t| t.date_time.day() == 18_628 + day && t.change_type_id.get() == 1).count();
        assert!(sold(1) > 2 * sold(2), "{} {}", sold(1), sold(2));
    }

    #[test]
    fn both_stores_see_a_pickup_each_under_an_id_of_its_own() {
        let (dir, _) = make(&small());
        let bopis = |name| changes(dir.path(), name).into_iter().filter(|t| t.change_type_id.get() == store_sim::BOPIS);
        let mut ordered: HashMap<Vec<_>, Vec<Timestamp>> = HashMap::new();
        let mut ids = HashSet::new();
        for order in bopis("inventory_change_online.txt") {
            ids.insert(order.trans_id.clone());
            ordered.entry(order.items).or_default().push(order.date_time);
        }
        let handed: Vec<_> = bopis("inventory_change_store001.txt").collect();
        assert!(handed.len() > 20);
        for pickup in handed {
            assert!(!ids.contains(&pickup.trans_id));
            let orders = ordered.get(&pickup.items).expect("somebody ordered this");
            assert!(orders.iter().any(|at| *at < pickup.date_time));
        }
    }

    #[test]
    fn counts_come_every_five_days_and_differ_from_the_books() {
        let (dir, made) = make(&small());
        assert_eq!(made.counts, 2 * 2 * 60);
        let file = File::open(dir.path().join("d/inventory_snapshot_store001.txt")).unwrap();
        let counts: Vec<Count> = accelerator::read_counts(file).map(Result::unwrap).collect();
        let times: HashSet<String> = counts.iter().map(|c| c.date_time.to_file_format()).collect();
        assert_eq!(times, HashSet::from(["2021-01-01 05:00:00".to_owned(), "2021-01-06 05:00:00".to_owned()]));
        let mut book: HashMap<_, i64> = counts[..60].iter().map(|c| (c.item_id, i64::from(c.quantity))).collect();
        for t in changes(dir.path(), "inventory_change_store001.txt") {
            for line in t.items.iter().filter(|_| t.date_time < counts[60].date_time) {
                *book.get_mut(&line.item_id).unwrap() += i64::from(line.quantity);
            }
        }
        let differing = counts[60..].iter().filter(|c| book[&c.item_id] != i64::from(c.quantity)).count();
        assert!((1..40).contains(&differing), "{differing}");
    }

    #[test]
    fn hot_stores_and_assortments_are_as_planned() {
        let plan =
            Plan { stores: 10, items: 500, assortment: Some(80), hot_stores: 2, transactions: Some(6_000), ..small() };
        let (dir, made) = make(&plan);
        assert_eq!(made.counts, 10 * 80 * 2);
        let hot = changes(dir.path(), "inventory_change_store001.txt").len();
        let cold = changes(dir.path(), "inventory_change_store007.txt").len();
        assert!(hot > 2 * cold, "{hot} {cold}");
    }

    #[test]
    fn a_folder_with_something_else_in_it_is_left_alone() {
        let (dir, _) = make(&small());
        let out = dir.path().join("d");
        assert_eq!(generate(&small(), &out, |_| ()).unwrap(), None);
        assert!(generate(&Plan { seed: 1, ..small() }, &out, |_| ()).unwrap_err().to_string().contains("another plan"));
        fs::remove_file(out.join(PLAN_FILE)).unwrap();
        assert!(generate(&small(), &out, |_| ()).unwrap_err().to_string().contains("not empty"));
    }

    #[test]
    fn names_do_not_repeat() {
        let names: HashSet<String> = (0..5_000).map(name).collect();
        assert_eq!(names.len(), 5_000);
    }
}
