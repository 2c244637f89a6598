//! One store that does not exist: its shelves, what happens to them, and what gets written down about it.
//!
//! Two quantities are kept for each item: what is really there, and what the books say. They drift apart (theft,
//! wrong scans) until somebody counts. A store's events come out in the order of their times.

use crate::rhythm;
use onhand_common::{ChangeTypeId, Count, ItemId, Line, StoreId, Timestamp, TransId, Transaction};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::io;

/// Change type of a sale.
pub const SALE: i32 = 1;
/// Change type of a delivery.
pub const RESTOCK: i32 = 2;
/// Change type of what was broken, or lost and noticed.
pub const SHRINKAGE: i32 = 3;
/// Change type of what was bought online and picked up in a store.
pub const BOPIS: i32 = 4;

const DAY: u32 = 86_400;
/// Counts are made before anything else happens.
const COUNT_AT: u32 = 5 * 3600;
const DELIVERY_AT: u32 = 6 * 3600 + 1800;
const WRITE_OFF_AT: u32 = rhythm::CLOSES + 1800;
/// Share of online orders that are picked up in a physical store.
const BOPIS_SHARE: f64 = 0.12;
/// Deliveries come in packs.
const PACK: i32 = 6;

/// An item as one store carries it.
#[derive(Debug, Clone)]
pub struct Shelf {
    /// Which item.
    pub item_id: ItemId,
    /// Below this it is ordered.
    pub safety_stock: i32,
    /// Its share of the store's sales, not normalised.
    pub popularity: f64,
}

/// An order that a physical store has to hand over.
#[derive(Debug, Clone)]
pub struct Pickup {
    /// Seconds since the first day's midnight.
    pub at: u64,
    /// What was ordered; negative quantities.
    pub lines: Vec<Line>,
}

/// Where orders go: a physical store, what it carries, how often it is chosen.
pub struct PickupPoint<'a> {
    /// Its place in the list of stores.
    pub index: usize,
    /// Its shelves, by item.
    pub shelves: &'a [Shelf],
    /// Running sum of the stores' shares of orders.
    pub cumulative: f64,
}

/// What a store is and for how long it is watched.
pub struct StorePlan<'a> {
    /// Its id.
    pub store_id: StoreId,
    /// Whether it is the online store.
    pub online: bool,
    /// First midnight.
    pub start: Timestamp,
    /// Days to simulate.
    pub days: u32,
    /// Days from one full count to the next.
    pub count_every: u32,
    /// Customers on an average day.
    pub customers: f64,
    /// Lines in an average basket.
    pub basket: f64,
    /// What it carries, by item id.
    pub shelves: &'a [Shelf],
}

/// Where a store's events go, in the order of their times.
pub trait Book {
    /// Takes a transaction.
    fn transaction(&mut self, transaction: &Transaction) -> io::Result<()>;
    /// Takes a count.
    fn count(&mut self, count: &Count) -> io::Result<()>;
}

/// What can happen on a day, in the order in which it happens if it happens at the same second.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Count,
    Delivery,
    Handover(usize),
    Customer,
    WriteOff,
}

/// Runs a store through its days. Orders made online for `points` are handed back with the point's store index.
///
/// # Errors
/// Whatever `book` reports.
pub fn run(
    plan: &StorePlan<'_>,
    points: &[PickupPoint<'_>],
    mut pickups: Vec<Pickup>,
    rng: &mut ChaCha8Rng,
    book: &mut impl Book,
) -> io::Result<Vec<(usize, Pickup)>> {
    pickups.sort_by_key(|p| p.at);
    let mut store = Store::open(plan, rng);
    let mut orders = Vec::new();
    let mut next_pickup = 0;
    for day in 0..plan.days {
        let midnight = u64::from(day) * u64::from(DAY);
        let mut happenings = vec![(DELIVERY_AT, Happening::Delivery), (WRITE_OFF_AT, Happening::WriteOff)];
        if day % plan.count_every == 0 {
            happenings.push((COUNT_AT, Happening::Count));
        }
        while let Some(pickup) = pickups.get(next_pickup).filter(|p| p.at < midnight + u64::from(DAY)) {
            happenings.push(((pickup.at - midnight) as u32, Happening::Handover(next_pickup)));
            next_pickup += 1;
        }
        // 1970-01-01 was a Thursday.
        let weekday = (plan.start.day() as u32 + day + 3) % 7;
        let customers = rhythm::around(rng, plan.customers * rhythm::weekday_factor(plan.online, weekday));
        for _ in 0..customers {
            happenings.push((rhythm::time_of_day(rng, plan.online), Happening::Customer));
        }
        happenings.sort();
        for (second, happening) in happenings {
            let at = midnight + u64::from(second);
            match happening {
                Happening::Count => store.count(at, rng, book)?,
                Happening::Delivery => store.deliver(at, rng, book)?,
                Happening::WriteOff => store.write_off(at, rng, book)?,
                Happening::Handover(index) => {
                    let lines = std::mem::take(&mut pickups[index].lines);
                    store.hand_over(at, lines, rng, book)?;
                }
                Happening::Customer if plan.online && !points.is_empty() && rng.random_bool(BOPIS_SHARE) => {
                    orders.extend(store.order(at, points, rng, book)?);
                }
                Happening::Customer => store.sell(at, rng, book)?,
            }
        }
        store.lose(rng);
    }
    Ok(orders)
}

struct Store<'a> {
    plan: &'a StorePlan<'a>,
    /// Running sums of the shelves' popularity.
    cumulative: Vec<f64>,
    actual: Vec<i32>,
    booked: Vec<i32>,
}

impl<'a> Store<'a> {
    fn open(plan: &'a StorePlan<'a>, rng: &mut ChaCha8Rng) -> Self {
        let cumulative = plan.shelves.iter().scan(0., |sum, shelf| {
            *sum += shelf.popularity;
            Some(*sum)
        });
        let actual: Vec<i32> = plan
            .shelves
            .iter()
            .map(|shelf| shelf.safety_stock + rng.random_range(0..=2 * shelf.safety_stock + PACK))
            .collect();
        Self { plan, cumulative: cumulative.collect(), booked: actual.clone(), actual }
    }

    fn time(&self, at: u64) -> Timestamp {
        Timestamp::from_micros(self.plan.start.micros() + at as i64 * 1_000_000)
            .expect("simulated days lie before 2200")
    }

    /// Somebody counts every shelf. Now and then one piece is overlooked.
    fn count(&mut self, at: u64, rng: &mut ChaCha8Rng, book: &mut impl Book) -> io::Result<()> {
        let date_time = self.time(at);
        let team = self.plan.store_id.get().saturating_mul(100) % 1_000_000;
        for (index, shelf) in self.plan.shelves.iter().enumerate() {
            let there = self.actual[index].max(0);
            let counted = if rng.random_ratio(1, 80) { (there - 1).max(0) } else { there };
            let employee_id = (team + 1 + (index / 150) as i32 % 8).try_into().expect("a small positive number");
            book.count(&Count {
                item_id: shelf.item_id,
                employee_id,
                store_id: self.plan.store_id,
                date_time,
                quantity: counted,
            })?;
            (self.actual[index], self.booked[index]) = (there, counted);
        }
        Ok(())
    }

    /// Fills up what the books say is low.
    fn deliver(&mut self, at: u64, rng: &mut ChaCha8Rng, book: &mut impl Book) -> io::Result<()> {
        let mut lines = Vec::new();
        for (index, shelf) in self.plan.shelves.iter().enumerate() {
            // A supplier that has none left sends nothing: such an item stays low for another day.
            if self.booked[index] < shelf.safety_stock && !rng.random_ratio(1, 12) {
                let wanted = 3 * shelf.safety_stock - self.booked[index];
                let quantity = (wanted + PACK - 1) / PACK * PACK;
                lines.push((index, quantity));
            }
        }
        self.record(at, RESTOCK, &lines, rng, book)
    }

    fn sell(&mut self, at: u64, rng: &mut ChaCha8Rng, book: &mut impl Book) -> io::Result<()> {
        let mut lines = Vec::new();
        for _ in 0..rhythm::basket_size(rng, self.plan.basket) {
            let index = self.pick(rng);
            let quantity = rhythm::pieces(rng).min(self.actual[index]);
            if quantity > 0 && lines.iter().all(|(taken, _)| *taken != index) {
                lines.push((index, -quantity));
            }
        }
        self.record(at, SALE, &lines, rng, book)
    }

    /// An order that a physical store hands over later: the online store's own shelves are not touched.
    fn order(
        &mut self,
        at: u64,
        points: &[PickupPoint<'_>],
        rng: &mut ChaCha8Rng,
        book: &mut impl Book,
    ) -> io::Result<Option<(usize, Pickup)>> {
        let chosen = rng.random::<f64>() * points.last().map_or(0., |p| p.cumulative);
        let point = &points[points.partition_point(|p| p.cumulative <= chosen).min(points.len() - 1)];
        let mut lines: Vec<Line> = Vec::new();
        for _ in 0..rhythm::basket_size(rng, self.plan.basket * 0.7) {
            let item_id = self.plan.shelves[self.pick(rng)].item_id;
            let carried = point.shelves.binary_search_by_key(&item_id, |shelf| shelf.item_id).is_ok();
            if carried && lines.iter().all(|line| line.item_id != item_id) {
                lines.push(Line { item_id, quantity: -rhythm::pieces(rng) });
            }
        }
        if lines.is_empty() {
            return Ok(None);
        }
        self.write(at, BOPIS, lines.clone(), rng, book)?;
        Ok(Some((point.index, Pickup { at: pickup_time(at, rng), lines })))
    }

    fn hand_over(&mut self, at: u64, lines: Vec<Line>, rng: &mut ChaCha8Rng, book: &mut impl Book) -> io::Result<()> {
        for line in &lines {
            if let Ok(index) = self.plan.shelves.binary_search_by_key(&line.item_id, |shelf| shelf.item_id) {
                self.actual[index] += line.quantity;
                self.booked[index] += line.quantity;
            }
        }
        self.write(at, BOPIS, lines, rng, book)
    }

    /// What broke or spoiled today.
    fn write_off(&mut self, at: u64, rng: &mut ChaCha8Rng, book: &mut impl Book) -> io::Result<()> {
        let mut lines = Vec::new();
        for _ in 0..rng.random_range(0..=2) {
            let index = self.pick(rng);
            if self.actual[index] > 0 && lines.iter().all(|(taken, _)| *taken != index) {
                lines.push((index, -1));
            }
        }
        self.record(at, SHRINKAGE, &lines, rng, book)
    }

    /// What disappears without anybody noticing before the next count.
    fn lose(&mut self, rng: &mut ChaCha8Rng) {
        for _ in 0..rhythm::around(rng, self.plan.customers / 60.) {
            let index = self.pick(rng);
            self.actual[index] = (self.actual[index] - 1).max(0);
        }
    }

    fn pick(&self, rng: &mut ChaCha8Rng) -> usize {
        let at = rng.random::<f64>() * self.cumulative.last().copied().unwrap_or_default();
        self.cumulative.partition_point(|sum| *sum <= at).min(self.cumulative.len() - 1)
    }

    fn record(
        &mut self,
        at: u64,
        kind: i32,
        moved: &[(usize, i32)],
        rng: &mut ChaCha8Rng,
        book: &mut impl Book,
    ) -> io::Result<()> {
        for (index, quantity) in moved {
            self.actual[*index] += quantity;
            self.booked[*index] += quantity;
        }
        let line =
            |(index, quantity): &(usize, i32)| Line { item_id: self.plan.shelves[*index].item_id, quantity: *quantity };
        self.write(at, kind, moved.iter().map(line).collect(), rng, book)
    }

    fn write(
        &self,
        at: u64,
        kind: i32,
        items: Vec<Line>,
        rng: &mut ChaCha8Rng,
        book: &mut impl Book,
    ) -> io::Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        book.transaction(&Transaction {
            trans_id: trans_id(rng),
            store_id: self.plan.store_id,
            date_time: self.time(at),
            change_type_id: ChangeTypeId::try_from(kind).expect("a small positive number"),
            items,
        })
    }
}

/// Some hours after the order, while the store is open.
fn pickup_time(ordered: u64, rng: &mut ChaCha8Rng) -> u64 {
    let ready = ordered + rng.random_range(2 * 3600..26 * 3600);
    let (midnight, second) = (ready - ready % u64::from(DAY), (ready % u64::from(DAY)) as u32);
    if second < rhythm::OPENS {
        midnight + u64::from(rhythm::OPENS + rng.random_range(0..7200))
    } else if second >= rhythm::CLOSES {
        midnight + u64::from(DAY + rhythm::OPENS + rng.random_range(0..7200))
    } else {
        ready
    }
}

fn trans_id(rng: &mut ChaCha8Rng) -> TransId {
    let bits: u128 = rng.random();
    let text = format!(
        "{:08X}-{:04X}-4{:03X}-{:04X}-{:012X}",
        bits >> 96,
        (bits >> 80) & 0xFFFF,
        (bits >> 64) & 0xFFF,
        (bits >> 48) & 0x3FFF | 0x8000,
        bits & 0xFFFF_FFFF_FFFF
    );
    TransId::new(&text).expect("36 plain characters are an id")
}
