//! Events and outboxes for tests.
use super::*;
use onhand_common::{Count, Event, Line, TransId, Transaction};

/// An outbox in `dir`.
pub(crate) fn outbox(dir: &Path, max: u64) -> Outbox {
    Outbox::open(&dir.join("outbox"), max).unwrap()
}

/// A sale of one piece of `item` in store 1.
pub(crate) fn transaction(id: &str, item: i64) -> Event {
    let at = Timestamp::parse("2021-01-01 09:30:00").unwrap();
    let line = Line { item_id: item.try_into().unwrap(), quantity: -1 };
    let one = 1_i64.try_into().unwrap();
    Event::Transaction(Transaction::new(TransId::new(id).unwrap(), one, at, 1_i64.try_into().unwrap(), [line]).unwrap())
}

/// The same sale with other lines: with none, or with very many, no frame can hold it.
pub(crate) fn with_items(id: &str, items: Vec<Line>) -> Event {
    match transaction(id, 1) {
        Event::Transaction(t) => Event::Transaction(Transaction { items, ..t }),
        count @ Event::Count(_) => count,
    }
}

/// A count in store 1.
pub(crate) fn count(item: i64, quantity: i32) -> Event {
    Event::Count(Count {
        item_id: item.try_into().unwrap(),
        employee_id: 7_i64.try_into().unwrap(),
        store_id: 1_i64.try_into().unwrap(),
        date_time: Timestamp::parse("2021-01-01 09:30:00").unwrap(),
        quantity,
    })
}

/// A frame with events that are recognised by `id`.
pub(crate) fn frame(id: &str, count: u32) -> NewFrame {
    let body = (0..count).flat_map(|n| frame::encode_event(&transaction(&format!("{id}-{n}"), 1))).collect();
    NewFrame { count, body }
}
