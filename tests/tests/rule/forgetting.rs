//! A hub without room for a day that is still being written: it forgets, asks silver, and takes nothing twice.

use crate::harness::{Harness, block_on};
use crate::model::Reference;
use onhand_common::{Event, Line, Timestamp, TransId, Transaction};
use onhand_hub::actors::ActorLimits;

/// 2021-01-01T00:00:00Z, microseconds.
const NEW_YEAR: i64 = 1_609_459_200_000_000;
/// Lines of a transaction: three have more than a store keeps in any case.
const LINES: i64 = 1_500;

fn transaction(n: i64) -> Event {
    let line = |item: i64| Line { item_id: item.try_into().expect("an item"), quantity: -1 };
    let transaction = Transaction::new(
        TransId::new(&format!("t{n}")).expect("an id"),
        1_i64.try_into().expect("a store"),
        Timestamp::from_micros(NEW_YEAR + n).expect("a time"),
        1_i64.try_into().expect("a change type"),
        (1..=LINES).map(line),
    );
    Event::Transaction(transaction.expect("a good transaction"))
}

#[test]
fn a_day_that_gets_rows_before_each_cut_is_forgotten_and_still_taken_once() {
    block_on(async {
        let reference =
            Reference { stores: [(1, "a".to_owned())].into(), change_types: [(1, "sale".to_owned())].into() };
        let limits = ActorLimits { identities: 0, ..ActorLimits::default() };
        let mut harness = Harness::start_within(limits, 2, reference).await;
        let mut least = usize::MAX;
        for n in 0..6 {
            harness.send(0, transaction(n)).await;
            harness.silver_cut().await;
            least = if n < 2 { usize::MAX } else { least.min(harness.identities()) };
        }
        assert_eq!(least, LINES as usize, "all but what the last cut carries was forgotten");
        for n in 0..6 {
            harness.send(1, transaction(n)).await;
            harness.send(0, transaction(n)).await;
            harness.silver_cut().await;
        }
        assert!(harness.identities() <= 4_096, "{}", harness.identities());
        harness.gold_cut().await;
        harness.compare().await.expect("everything once");
        harness.end().await;
    });
}
