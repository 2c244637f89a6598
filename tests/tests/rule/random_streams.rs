//! Random streams through the real actors and tables, and after every gold commit the comparison with the model.
//!
//! Little room on purpose: few stores, items, days and times of day, so that ties, repeats, corrections and late events are
//! the rule. A failing stream is made small, printed, and kept in `proptest-regressions.txt`, from where it is tried first.

use crate::harness::{Harness, block_on};
use crate::model::Reference;
use onhand_common::{Count, Event, Line, Timestamp, TransId, Transaction};
use onhand_hub::actors::ActorLimits;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use std::time::Duration;

/// The store a number stands for: online, a plain one, one that the reference data does not know at first.
const STORES: [i32; 3] = [0, 1, 77];
/// Change types: sale, bopis, one that is not known at first.
const CHANGE_TYPES: [i32; 3] = [1, 4, 9];

#[derive(Debug, Clone)]
enum Op {
    Change {
        store: usize,
        at: i64,
        change_type: usize,
        lines: Vec<(i32, i32)>,
    },
    /// An earlier transaction once more, by the same agent or by the other.
    Repeat {
        which: usize,
        other_agent: bool,
    },
    /// An earlier transaction's id with other items, and some of the same: a part of it that was missing, or a till that
    /// gives a number twice. By the same agent or by the other one of the store.
    Another {
        which: usize,
        other_agent: bool,
        lines: Vec<(i32, i32)>,
    },
    /// The id of an earlier transaction of another store, at the same time.
    Twin {
        which: usize,
        store: usize,
        lines: Vec<(i32, i32)>,
    },
    Count {
        store: usize,
        item: i32,
        at: i64,
        quantity: i32,
    },
    /// A count at the very time of an earlier transaction, of an item of it.
    CountAt {
        which: usize,
        quantity: i32,
    },
    RepeatCount {
        which: usize,
    },
    Correct {
        which: usize,
        quantity: i32,
    },
    NewReference {
        variant: u8,
    },
    Silver,
    Gold,
    Stop,
    Die,
    DieCommitting {
        after_micros: u64,
    },
}

/// A time on one of four days, or weeks and months away from them, at one of three times of day: ties are likely.
fn time() -> impl Strategy<Value = i64> {
    let day = prop_oneof![6 => 0_i64..4, 1 => Just(-61_i64), 1 => Just(23_i64)];
    (day, 0_i64..3).prop_map(|(day, slot)| (18_628 + day) * 86_400 + slot * 28_800)
}

/// One of three items; now and then one whose id nobody has ever seen, as large as an id may be.
fn item() -> impl Strategy<Value = i32> {
    prop_oneof![12 => 1..4, 1 => Just(i32::MAX)]
}

/// Small quantities; now and then one so large that a few of them do not fit 32 bits.
fn lines() -> impl Strategy<Value = Vec<(i32, i32)>> {
    let quantity = prop_oneof![16 => -3..3, 1 => Just(700_000_000), 1 => Just(-700_000_000)];
    prop::collection::vec((item(), quantity), 1..4)
}

fn op() -> impl Strategy<Value = Op> {
    let change = (0..3_usize, time(), 0..3_usize, lines()).prop_map(|(store, at, change_type, lines)| Op::Change {
        store,
        at,
        change_type,
        lines,
    });
    let count = (0..3_usize, item(), time(), 0..9).prop_map(|(store, item, at, quantity)| Op::Count {
        store,
        item,
        at,
        quantity,
    });
    prop_oneof![
        12 => change,
        6 => count,
        3 => (any::<usize>(), any::<bool>()).prop_map(|(which, other_agent)| Op::Repeat { which, other_agent }),
        3 => (any::<usize>(), any::<bool>(), lines())
            .prop_map(|(which, other_agent, lines)| Op::Another { which, other_agent, lines }),
        2 => (any::<usize>(), 0..3_usize, lines()).prop_map(|(which, store, lines)| Op::Twin { which, store, lines }),
        3 => (any::<usize>(), 0..9).prop_map(|(which, quantity)| Op::CountAt { which, quantity }),
        2 => any::<usize>().prop_map(|which| Op::RepeatCount { which }),
        2 => (any::<usize>(), 0..9).prop_map(|(which, quantity)| Op::Correct { which, quantity }),
        1 => (0_u8..16).prop_map(|variant| Op::NewReference { variant }),
        3 => Just(Op::Silver),
        3 => Just(Op::Gold),
        1 => Just(Op::Stop),
        1 => Just(Op::Die),
        1 => (0_u64..30_000).prop_map(|after_micros| Op::DieCommitting { after_micros }),
    ]
}

fn reference(variant: u8) -> Reference {
    let has = |bit: u8| variant & bit != 0;
    let mut reference = Reference::default();
    let (first, second) = if has(1) { ("store 0", "online") } else { ("online", "store 1") };
    reference.stores.insert(0, first.to_owned());
    reference.stores.insert(1, second.to_owned());
    if has(2) {
        reference.stores.insert(77, "store 77".to_owned());
    }
    reference.change_types.insert(1, "sale".to_owned());
    reference.change_types.insert(4, if has(4) { "pick-up" } else { "bopis" }.to_owned());
    if has(8) {
        reference.change_types.insert(9, "transfer".to_owned());
    }
    reference
}

/// What was sent so far.
struct Stream {
    harness: Harness,
    transactions: Vec<Transaction>,
    counts: Vec<Count>,
}

/// Each store has an agent of its own; so the order of arrival within a store outlives a death.
fn agent_of(store: i32) -> usize {
    usize::from(store != 0)
}

fn make(trans_id: &str, store: i32, at: Timestamp, change_type: i32, lines: &[(i32, i32)]) -> Transaction {
    let line = |&(item, quantity): &(i32, i32)| Line { item_id: item.try_into().unwrap(), quantity };
    let (trans_id, store_id) = (TransId::new(trans_id).unwrap(), store.try_into().unwrap());
    Transaction::new(trans_id, store_id, at, change_type.try_into().unwrap(), lines.iter().map(line)).unwrap()
}

fn make_count(store: i32, item: i32, date_time: Timestamp, quantity: i32) -> Count {
    let (store_id, item_id) = (store.try_into().unwrap(), item.try_into().unwrap());
    Count { item_id, employee_id: 7.try_into().unwrap(), store_id, date_time, quantity }
}

impl Stream {
    async fn apply(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Change { store, at, change_type, lines } => {
                let id = format!("t{}", self.transactions.len());
                let at = Timestamp::from_micros(at * 1_000_000).unwrap();
                self.transaction(make(&id, STORES[*store], at, CHANGE_TYPES[*change_type], lines), false).await;
            }
            Op::Repeat { which, other_agent } => {
                if let Some(transaction) = pick(&self.transactions, *which) {
                    self.transaction(transaction, *other_agent).await;
                }
            }
            Op::Another { which, other_agent, lines } => {
                if let Some(t) = pick(&self.transactions, *which) {
                    let id = t.trans_id.as_str();
                    let other = make(id, t.store_id.get(), t.date_time, t.change_type_id.get(), lines);
                    self.transaction(other, *other_agent).await;
                }
            }
            Op::Twin { which, store, lines } => {
                if let Some(t) = pick(&self.transactions, *which).filter(|t| t.store_id.get() != STORES[*store]) {
                    let id = t.trans_id.as_str();
                    self.transaction(make(id, STORES[*store], t.date_time, t.change_type_id.get(), lines), false).await;
                }
            }
            Op::CountAt { which, quantity } => {
                if let Some(t) = pick(&self.transactions, *which) {
                    let (item, store) = (t.items[0].item_id.get(), t.store_id.get());
                    self.count(make_count(store, item, t.date_time, *quantity)).await;
                }
            }
            Op::Count { store, item, at, quantity } => {
                let at = Timestamp::from_micros(at * 1_000_000).unwrap();
                self.count(make_count(STORES[*store], *item, at, *quantity)).await;
            }
            Op::RepeatCount { which } => {
                if let Some(count) = pick(&self.counts, *which) {
                    self.count(count).await;
                }
            }
            Op::Correct { which, quantity } => {
                if let Some(count) = pick(&self.counts, *which) {
                    self.count(Count { quantity: *quantity, ..count }).await;
                }
            }
            Op::NewReference { variant } => {
                self.harness.new_reference(reference(*variant)).await;
                return self.harness.compare().await;
            }
            Op::Silver => self.harness.silver_cut().await,
            Op::Gold => {
                self.harness.gold_cut().await;
                return self.harness.compare().await;
            }
            Op::Stop => self.harness.restart().await,
            Op::Die => self.harness.die().await,
            Op::DieCommitting { after_micros } => {
                self.harness.die_committing(Duration::from_micros(*after_micros)).await;
            }
        }
        Ok(())
    }

    async fn transaction(&mut self, transaction: Transaction, other_agent: bool) {
        let agent = agent_of(transaction.store_id.get());
        self.transactions.push(transaction.clone());
        if other_agent {
            self.harness.silver_cut().await;
        }
        self.harness.send(if other_agent { 1 - agent } else { agent }, Event::Transaction(transaction)).await;
        // What two agents of a store sent is in silver before either goes on; otherwise which of the two comes first after a
        // death would decide.
        if other_agent {
            self.harness.silver_cut().await;
        }
    }

    async fn count(&mut self, count: Count) {
        self.counts.push(count);
        self.harness.send(agent_of(count.store_id.get()), Event::Count(count)).await;
    }
}

fn pick<T: Clone>(earlier: &[T], which: usize) -> Option<T> {
    (!earlier.is_empty()).then(|| earlier[which % earlier.len()].clone())
}

async fn run(ops: &[Op], live_items: usize, forgetful: bool) -> Result<(), String> {
    let mut limits = ActorLimits { live_items, ..ActorLimits::default() };
    if forgetful {
        limits.identities = 0;
    }
    let harness = Harness::start_within(limits, 2, reference(0)).await;
    let mut stream = Stream { harness, transactions: Vec::new(), counts: Vec::new() };
    for (step, op) in ops.iter().enumerate() {
        stream.apply(op).await.map_err(|difference| format!("after step {step}, {op:?}: {difference}"))?;
    }
    stream.harness.gold_cut().await;
    stream.harness.compare().await.map_err(|difference| format!("at the end: {difference}"))?;
    stream.harness.restart().await;
    stream.harness.gold_cut().await;
    let after = stream.harness.compare().await.map_err(|difference| format!("after a restart: {difference}"));
    stream.harness.end().await;
    after
}

proptest! {
    #![proptest_config(Config {
        // PROPTEST_CASES asks for more.
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(32),
        max_shrink_iters: 300,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("proptest-regressions.txt"))),
        ..Config::default()
    })]

    #[test]
    fn gold_equals_the_rule_whatever_comes(
        ops in prop::collection::vec(op(), 1..60),
        live_items in prop_oneof![Just(1_usize), Just(2), Just(1_000)],
        forgetful in any::<bool>(),
    ) {
        let outcome = block_on(run(&ops, live_items, forgetful));
        prop_assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
    }
}
