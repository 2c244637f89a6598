//! Every worked case of the rule: as it stands, with deaths and passivation between any two events, and with the changes in
//! another order.

use crate::harness::{Harness, block_on};
use crate::model::{GoldRow, Reference};
use onhand_common::accelerator::{parse_count, parse_transaction};
use onhand_common::{Event, Timestamp};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Case {
    name: String,
    reference: ReferenceRows,
    events: Vec<Step>,
    gold: Vec<Row>,
    #[serde(default)]
    uncounted: Vec<Uncounted>,
}

#[derive(Deserialize, Clone)]
struct ReferenceRows {
    store: Vec<(i32, String)>,
    change_type: Vec<(i32, String)>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "lowercase")]
enum Step {
    Change(Value),
    Count(Value),
    Reference(ReferenceRows),
}

#[derive(Deserialize)]
struct Row {
    store_id: i32,
    item_id: i32,
    snapshot_quantity: i32,
    change_quantity: i64,
    current_inventory: i64,
    date_time: String,
}

#[derive(Deserialize)]
struct Uncounted {
    store_id: i32,
    item_id: i32,
    change_quantity: i64,
}

impl From<ReferenceRows> for Reference {
    fn from(rows: ReferenceRows) -> Self {
        Self { stores: rows.store.into_iter().collect(), change_types: rows.change_type.into_iter().collect() }
    }
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../../rule-cases.json")).expect("the cases are well-formed")
}

async fn apply(harness: &mut Harness, step: &Step) {
    match step {
        Step::Change(document) => {
            let transaction = parse_transaction(document.to_string().as_bytes()).expect("a good document");
            harness.send(0, Event::Transaction(transaction)).await;
        }
        Step::Count(count) => {
            let count = parse_count(count.to_string().as_bytes()).expect("a good count");
            harness.send(0, Event::Count(count)).await;
        }
        Step::Reference(rows) => harness.new_reference(rows.clone().into()).await,
    }
}

async fn judge(harness: &Harness, case: &Case, how: &str) {
    harness.gold_cut().await;
    let expected: Vec<GoldRow> = case
        .gold
        .iter()
        .map(|row| {
            assert_eq!(row.current_inventory, i64::from(row.snapshot_quantity) + row.change_quantity);
            GoldRow {
                store_id: row.store_id,
                item_id: row.item_id,
                snapshot_quantity: row.snapshot_quantity,
                change_quantity: row.change_quantity,
                date_time: Timestamp::parse(&row.date_time).expect("a time").micros(),
            }
        })
        .collect();
    assert_eq!(harness.model.gold(), expected, "{} ({how}): the model does not know the rule", case.name);
    let uncounted = harness.model.uncounted();
    let named: Vec<_> = case.uncounted.iter().map(|u| (u.store_id, u.item_id, u.change_quantity)).collect();
    assert!(named.iter().all(|row| uncounted.contains(row)), "{} ({how}): {named:?} in {uncounted:?}", case.name);
    if let Err(difference) = harness.compare().await {
        panic!("{} ({how}): {difference}", case.name);
    }
}

#[test]
fn as_they_stand() {
    block_on(stand());
}

async fn stand() {
    for case in cases() {
        let mut harness = Harness::start(1, 1_000, case.reference.clone().into()).await;
        for step in &case.events {
            apply(&mut harness, step).await;
        }
        judge(&harness, &case, "as it stands").await;
        harness.end().await;
    }
}

#[derive(Debug, Clone, Copy)]
enum Between {
    Stop,
    DieBeforeCommit,
    DieBetweenSilverAndGold,
    DieAfterGold,
}

async fn with_deaths(between: Between) {
    for case in cases() {
        let mut harness = Harness::start(1, 1, case.reference.clone().into()).await;
        for step in &case.events {
            apply(&mut harness, step).await;
            match between {
                Between::Stop => harness.restart().await,
                Between::DieBeforeCommit => harness.die().await,
                Between::DieBetweenSilverAndGold => {
                    harness.silver_cut().await;
                    harness.die().await;
                }
                Between::DieAfterGold => {
                    harness.gold_cut().await;
                    harness.die().await;
                }
            }
        }
        judge(&harness, &case, &format!("{between:?} after each event")).await;
        harness.end().await;
    }
}

#[test]
fn with_a_stop_and_a_start_after_each_event() {
    block_on(with_deaths(Between::Stop));
}

#[test]
fn with_a_death_before_each_commit() {
    block_on(with_deaths(Between::DieBeforeCommit));
}

#[test]
fn with_a_death_between_silver_and_gold() {
    block_on(with_deaths(Between::DieBetweenSilverAndGold));
}

#[test]
fn with_a_death_after_gold() {
    block_on(with_deaths(Between::DieAfterGold));
}

/// Changes anywhere, in any order; counts and reference data as they came. (No case has two changes of one identity that
/// differ, so identity allows any order.)
#[test]
fn with_the_changes_in_another_order() {
    block_on(shuffled());
}

async fn shuffled() {
    let mut rng = ChaCha8Rng::seed_from_u64(17);
    for case in cases() {
        let (mut changes, others): (Vec<Step>, Vec<Step>) =
            case.events.iter().cloned().partition(|step| matches!(step, Step::Change(_)));
        for round in 0..3 {
            changes.shuffle(&mut rng);
            let mut steps = others.clone();
            let mut places: Vec<usize> = changes.iter().map(|_| rng.random_range(0..=steps.len())).collect();
            places.sort_unstable_by(|a, b| b.cmp(a));
            for (place, change) in places.into_iter().zip(&changes) {
                steps.insert(place, change.clone());
            }
            let mut harness = Harness::start(1, 1, case.reference.clone().into()).await;
            for step in &steps {
                apply(&mut harness, step).await;
                if rng.random_bool(0.5) {
                    harness.silver_cut().await;
                }
            }
            judge(&harness, &case, &format!("changes in another order, round {round}")).await;
            harness.end().await;
        }
    }
}
