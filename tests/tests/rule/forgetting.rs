//! A hub without room for a day that is still being written: it asks silver for what it may have taken, and takes nothing twice.

use crate::harness::{Harness, block_on};
use crate::model::Reference;
use onhand_common::{Event, Line, Timestamp, TransId, Transaction};
use onhand_hub::actors::ActorLimits;

/// 2021-01-01T00:00:00Z, microseconds.
const NEW_YEAR: i64 = 1_609_459_200_000_000;
const DAY: i64 = 86_400_000_000;
/// Lines of a transaction.
const LINES: i64 = 1_500;
/// Transactions.
const MANY: i64 = 6;
/// What a filter may take for an identity, in identities.
const FILTERED: f64 = 0.26;

fn transaction(store: i64, day: i64, n: i64) -> Event {
    let line = |item: i64| Line { item_id: item.try_into().expect("an item"), quantity: -1 };
    let transaction = Transaction::new(
        TransId::new(&format!("t{n}")).expect("an id"),
        store.try_into().expect("a store"),
        Timestamp::from_micros(NEW_YEAR + day * DAY + n).expect("a time"),
        1_i64.try_into().expect("a change type"),
        (1..=LINES).map(line),
    );
    Event::Transaction(transaction.expect("a good transaction"))
}

async fn hub_with_room_for(identities: usize) -> Harness {
    let stores = [(1, "a".to_owned()), (2, "b".to_owned())].into();
    let reference = Reference { stores, change_types: [(1, "sale".to_owned())].into() };
    Harness::start_within(ActorLimits { identities, ..ActorLimits::default() }, 2, reference).await
}

#[test]
fn days_beyond_the_room_are_written_on_without_a_look_and_taken_once() {
    block_on(async {
        let mut harness = hub_with_room_for(0).await;
        // Two days in turns, as of tills around midnight.
        let nth = |n: i64| transaction(1, n % 2, n);
        for n in 0..MANY {
            harness.send(0, nth(n)).await;
            harness.silver_cut().await;
            let most = LINES as f64 + FILTERED * (n * LINES) as f64 + 16.;
            assert!((harness.identities() as f64) < most, "{} are in memory after {n}", harness.identities());
        }
        // Of 7,500 lines, one in a million and a few is in doubt without a reason.
        let looks = harness.identity_lookups();
        assert!(looks <= 1, "silver was asked {looks} times for lines that are new");
        for n in 0..MANY {
            harness.send(1, nth(n)).await;
            harness.send(0, nth(n)).await;
            harness.silver_cut().await;
        }
        let repeats = harness.identity_lookups() - looks;
        assert!((MANY as u64..=2 * MANY as u64).contains(&repeats), "silver was asked {repeats} times");
        harness.gold_cut().await;
        harness.compare().await.expect("everything once");
        harness.restart().await;
        for n in 0..MANY {
            harness.send(1, nth(n)).await;
            harness.silver_cut().await;
        }
        harness.gold_cut().await;
        harness.compare().await.expect("everything once, after a restart, too");
        harness.end().await;
    });
}

#[test]
fn a_filtered_day_that_comes_again_is_loaded_when_there_is_room() {
    block_on(async {
        let mut harness = hub_with_room_for(20 * LINES as usize).await;
        // The day before has three of them, and is filtered when the next one has outgrown the room.
        for n in 0..21 {
            harness.send(0, transaction(1, i64::from(n >= 3), n)).await;
            harness.silver_cut().await;
        }
        let looks = harness.identity_lookups();
        for n in 0..3 {
            harness.send(1, transaction(1, 0, n)).await;
        }
        let looks = harness.identity_lookups() - looks;
        assert_eq!(looks, 1, "silver was asked {looks} times for three frames of repeats");
        harness.gold_cut().await;
        harness.compare().await.expect("everything once");
        harness.end().await;
    });
}

#[test]
fn a_store_that_sleeps_makes_room_for_one_that_sells() {
    block_on(async {
        let mut harness = hub_with_room_for(8 * LINES as usize).await;
        for n in 0..6 {
            harness.send(0, transaction(1, 0, n)).await;
            harness.silver_cut().await;
        }
        // What the first has takes more than this as it is, and the other's filters and last lines less.
        let mut n = 6;
        while n < 9 || harness.identities() >= 6 * LINES as usize {
            assert!(n < 60, "{} are in memory", harness.identities());
            harness.send(0, transaction(2, 0, n)).await;
            harness.silver_cut().await;
            n += 1;
        }
        harness.gold_cut().await;
        harness.compare().await.expect("everything once");
        harness.end().await;
    });
}
