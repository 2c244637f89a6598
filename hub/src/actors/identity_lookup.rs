//! The way from a store to the identities that silver holds.
//!
//! Most days need no look: silver had no rows of that store and day when this process started, and what came since is in
//! the store's memory. Only a day from before the start, or one that was forgotten for want of memory, is read.

use super::seen::Identity;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Which table's identities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Lines of silver/inventory_change.
    Lines,
    /// Counts of silver/inventory_snapshot.
    Counts,
}

/// A store asks for one day.
#[derive(Debug)]
pub struct DayRequest {
    /// Which table.
    pub kind: Kind,
    /// Whose.
    pub store_id: i32,
    /// Days since 1970.
    pub day: i32,
    /// Where the identities go. Dropped without an answer, if the lake cannot be read for good.
    pub reply: oneshot::Sender<Vec<Identity>>,
}

/// Requests that may wait.
const QUEUE: usize = 4_096;

/// Handle for the stores.
#[derive(Clone)]
pub struct IdentityLookup {
    requests: mpsc::Sender<DayRequest>,
    presence: Arc<Presence>,
}

impl IdentityLookup {
    /// A lookup and the end at which the lake answers. `presence` says where silver has rows.
    pub fn new(presence: Arc<Presence>) -> (Self, mpsc::Receiver<DayRequest>) {
        let (requests, answers) = mpsc::channel(QUEUE);
        (Self { requests, presence }, answers)
    }

    /// Whether silver surely holds nothing of that store and day beyond what the store itself has taken since.
    pub fn surely_empty(&self, kind: Kind, store_id: i32, day: i32) -> bool {
        self.presence.surely_empty(kind, store_id, day)
    }

    /// The store forgets that day: from now on silver has to be asked.
    pub fn forgotten(&self, kind: Kind, store_id: i32, day: i32) {
        self.presence.add(kind, store_id, day);
    }

    /// Reads one day of one store. `None` when the hub stops.
    pub async fn load(&self, kind: Kind, store_id: i32, day: i32) -> Option<Vec<Identity>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(DayRequest { kind, store_id, day, reply }).await.ok()?;
        answer.await.ok()
    }
}

/// Where silver may have rows that are not in a store's memory.
#[derive(Debug, Default)]
pub struct Presence {
    days: Mutex<HashMap<(Kind, i32), DayPresence>>,
}

#[derive(Debug)]
enum DayPresence {
    /// There are rows; of which stores is not known yet.
    SomeStores,
    /// Just these stores.
    Stores(HashSet<i32>),
}

impl Presence {
    /// Silver had rows of that day at the start.
    pub fn day_has_rows(&self, kind: Kind, day: i32) {
        self.days.lock().insert((kind, day), DayPresence::SomeStores);
    }

    /// That day has been read: just these stores had rows (others may have added some since, which they remember). Returns
    /// whether it was the first time: only then does what was read still hold for the stores that have not asked.
    pub fn day_was_read(&self, kind: Kind, day: i32, stores: HashSet<i32>) -> bool {
        let mut days = self.days.lock();
        match days.get_mut(&(kind, day)) {
            Some(presence @ DayPresence::SomeStores) => {
                *presence = DayPresence::Stores(stores);
                true
            }
            _ => false,
        }
    }

    fn add(&self, kind: Kind, store_id: i32, day: i32) {
        let mut days = self.days.lock();
        match days.entry((kind, day)).or_insert_with(|| DayPresence::Stores(HashSet::new())) {
            DayPresence::SomeStores => {}
            DayPresence::Stores(stores) => {
                stores.insert(store_id);
            }
        }
    }

    /// Whether silver surely holds nothing of that store and day that is not in the store's memory.
    pub fn surely_empty(&self, kind: Kind, store_id: i32, day: i32) -> bool {
        match self.days.lock().get(&(kind, day)) {
            None => true,
            Some(DayPresence::SomeStores) => false,
            Some(DayPresence::Stores(stores)) => !stores.contains(&store_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_read_only_where_silver_may_have_rows() {
        let presence = Presence::default();
        assert!(presence.surely_empty(Kind::Lines, 1, 5));
        presence.day_has_rows(Kind::Lines, 5);
        assert!(!presence.surely_empty(Kind::Lines, 1, 5));
        assert!(presence.surely_empty(Kind::Counts, 1, 5));
        assert!(presence.day_was_read(Kind::Lines, 5, HashSet::from([2])));
        assert!(!presence.day_was_read(Kind::Lines, 5, HashSet::from([1, 2])), "others may have taken more since");
        assert!(presence.surely_empty(Kind::Lines, 1, 5) && !presence.surely_empty(Kind::Lines, 2, 5));
        presence.add(Kind::Lines, 1, 5);
        assert!(!presence.surely_empty(Kind::Lines, 1, 5));
        presence.add(Kind::Counts, 1, 6);
        assert!(!presence.surely_empty(Kind::Counts, 1, 6) && presence.surely_empty(Kind::Counts, 2, 6));
    }
}
