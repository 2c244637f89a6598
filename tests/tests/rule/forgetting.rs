//! A hub without room for a day that is still being written: it asks silver for what it may have taken, and takes nothing twice.

use crate::harness::{Harness, block_on};
use crate::model::Reference;
use onhand_common::{Event, Line, Timestamp, TransId, Transaction};
use onhand_hub::actors::ActorLimits;

/// 2021-01-01T00:00:00Z, microseconds.
const NEW_YEAR: i64 = 1_609_459_200_000_000;
/// Lines of a transaction.
const LINES: i64 = 1_500;
/// Transactions.
const MANY: i64 = 6;
/// What a filter may take for an identity, in identities.
const FILTERED: f64 = 0.26;

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
fn a_day_beyond_the_room_is_written_on_without_a_look_and_taken_once() {
    block_on(async {
        let reference =
            Reference { stores: [(1, "a".to_owned())].into(), change_types: [(1, "sale".to_owned())].into() };
        let limits = ActorLimits { identities: 0, ..ActorLimits::default() };
        let mut harness = Harness::start_within(limits, 2, reference).await;
        for n in 0..MANY {
            harness.send(0, transaction(n)).await;
            harness.silver_cut().await;
            let most = LINES as f64 + FILTERED * (n * LINES) as f64 + 8.;
            assert!((harness.identities() as f64) < most, "{} are in memory after {n}", harness.identities());
        }
        // Of 7,500 lines, one in a million and a few is in doubt without a reason.
        let looks = harness.identity_lookups();
        assert!(looks <= 1, "silver was asked {looks} times for lines that are new");
        for n in 0..MANY {
            harness.send(1, transaction(n)).await;
            harness.send(0, transaction(n)).await;
            harness.silver_cut().await;
        }
        let repeats = harness.identity_lookups() - looks;
        assert!((MANY as u64..=2 * MANY as u64).contains(&repeats), "silver was asked {repeats} times");
        harness.gold_cut().await;
        harness.compare().await.expect("everything once");
        harness.restart().await;
        for n in 0..MANY {
            harness.send(1, transaction(n)).await;
            harness.silver_cut().await;
        }
        harness.gold_cut().await;
        harness.compare().await.expect("everything once, after a restart, too");
        harness.end().await;
    });
}
