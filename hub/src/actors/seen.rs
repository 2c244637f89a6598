//! What a store has already taken: identities of transaction lines and counts, by the day they bear. Pure.
//!
//! A day is either *known*, then every identity that silver holds for it (and every one taken since) is in memory, or it is
//! not, then it has to be loaded before an event of that day may be judged. Memory is bounded by forgetting whole days,
//! the least recently used first, but never one with rows that are not in silver yet.

use hashbrown::{HashMap, HashSet};
use xxhash_rust::xxh3::Xxh3;

/// An identity within a store and day. 128 bits: of a line, a hash; of a count, the thing itself.
pub type Identity = u128;

/// Identity of one line of a transaction: `(trans_id, item_id)`; the store is the owner's.
pub fn line_identity(trans_id: &str, item_id: i32) -> Identity {
    let mut hash = Xxh3::new();
    hash.update(trans_id.as_bytes());
    hash.update(&item_id.to_le_bytes());
    hash.digest128()
}

/// Identity of a count: item, time and quantity. Another quantity at the same time is a correction, so it is part of it.
pub fn count_identity(item_id: i32, at: i64, quantity: i32) -> Identity {
    (u128::from(item_id as u32) << 96) | (u128::from(quantity as u32) << 64) | u128::from(at as u64)
}

/// Not part of any cut yet.
const PENDING: u64 = u64::MAX;

#[derive(Debug, Default)]
struct Day {
    identities: HashSet<Identity>,
    /// Number of the cut that carried the newest identity to silver; [`PENDING`] before.
    carried_by: u64,
    used: u64,
}

/// The days of one store and one kind of event.
#[derive(Debug, Default)]
pub struct Seen {
    days: HashMap<i32, Day>,
    clock: u64,
    len: usize,
}

impl Seen {
    /// Whether events of `day` can be judged.
    pub fn knows(&self, day: i32) -> bool {
        self.days.contains_key(&day)
    }

    /// `day` becomes known: these are its identities in silver.
    pub fn load(&mut self, day: i32, identities: impl IntoIterator<Item = Identity>) {
        let entry = self.days.entry(day).or_default();
        let before = entry.identities.len();
        entry.identities.extend(identities);
        self.len += entry.identities.len() - before;
    }

    /// Takes an event of a known day. Returns whether it is new.
    ///
    /// # Panics
    /// If `day` is not known: whoever asks must have loaded it.
    pub fn take(&mut self, day: i32, identity: Identity) -> bool {
        self.clock += 1;
        let entry = self.days.get_mut(&day).expect("the day was loaded before");
        entry.used = self.clock;
        let new = entry.identities.insert(identity);
        if new {
            entry.carried_by = PENDING;
            self.len += 1;
        }
        new
    }

    /// What was taken up to now is carried to silver by the cut of this number.
    pub fn cut(&mut self, number: u64) {
        for day in self.days.values_mut().filter(|d| d.carried_by == PENDING) {
            day.carried_by = number;
        }
    }

    /// Identities in memory.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Forgets least recently used days until at most `cap` identities are left or nothing more may go: a day may, if all
    /// of it was carried to silver by cut `durable_cut` or before. Returns the days that went.
    pub fn shrink(&mut self, cap: usize, durable_cut: u64) -> Vec<i32> {
        if self.len <= cap {
            return Vec::new();
        }
        let mut order: Vec<(u64, i32)> =
            self.days.iter().filter(|(_, d)| d.carried_by <= durable_cut).map(|(&day, d)| (d.used, day)).collect();
        order.sort_unstable();
        let mut gone = Vec::new();
        for (_, day) in order {
            if self.len <= cap {
                break;
            }
            let entry = self.days.remove(&day).expect("it was listed");
            self.len -= entry.identities.len();
            gone.push(day);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_taken_once() {
        let mut seen = Seen::default();
        assert!(!seen.knows(1));
        seen.load(1, [line_identity("a", 1)]);
        assert!(!seen.take(1, line_identity("a", 1)));
        assert!(seen.take(1, line_identity("a", 2)));
        assert!(!seen.take(1, line_identity("a", 2)));
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn identities_differ_where_things_differ() {
        assert_ne!(line_identity("a1", 2), line_identity("a", 12));
        assert_ne!(count_identity(1, 5, -1), count_identity(1, 5, 1));
        assert_ne!(count_identity(1, 5, 2), count_identity(2, 5, 1));
    }

    #[test]
    fn the_least_recently_used_day_goes_first_and_none_that_is_not_in_silver() {
        let mut seen = Seen::default();
        for day in 1..=3 {
            seen.load(day, []);
            for item in 0..10 {
                seen.take(day, count_identity(item, 0, 0));
            }
            seen.cut(day as u64);
        }
        assert!(seen.shrink(30, 3).is_empty());
        seen.take(1, count_identity(0, 0, 0)); // a repeat: used, but nothing new for silver
        assert_eq!(seen.shrink(15, 2), [2, 1], "day 2 was used longest ago, day 3 is not durable");
        assert!(seen.knows(3) && !seen.knows(1) && seen.len() == 10);
        seen.load(1, (0..10).map(|item| count_identity(item, 0, 0)));
        assert!(!seen.take(1, count_identity(4, 0, 0)));
    }
}
