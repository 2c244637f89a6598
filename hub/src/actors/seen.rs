//! What a store has already taken: identities of transaction lines and counts. Pure.
//!
//! An identity does not depend on the day that an event bears: a line that comes again under another date is the same line,
//! as long as the day of the first is in memory. A day is either *known*, then every identity that silver holds for it (and
//! every one taken since) is in memory, or it is not, then it has to be loaded before an event of that day may be judged.
//! Memory is bounded by forgetting whole days, the least recently used first, but never one with rows that are not in silver
//! yet.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use xxhash_rust::xxh3::Xxh3;

/// An identity within a store. 128 bits: of a line, a hash; of a count, the thing itself.
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

/// An identity as the map keeps it: in halves it needs no padding beside its day.
type Halves = [u64; 2];

fn halves(identity: Identity) -> Halves {
    [(identity >> 64) as u64, identity as u64]
}

#[derive(Debug, Default)]
struct Day {
    /// Identities in silver under this day that were first known under another.
    elsewhere: Vec<Halves>,
    /// Number of the cut that carried the newest identity to silver; [`PENDING`] before.
    carried_by: u64,
    used: u64,
}

/// The days of one store and one kind of event.
#[derive(Debug, Default)]
pub struct Seen {
    /// The known days' identities, each with the day it was taken under.
    identities: HashMap<Halves, i32>,
    days: HashMap<i32, Day>,
    clock: u64,
}

impl Seen {
    /// Whether events of `day` can be judged.
    pub fn knows(&self, day: i32) -> bool {
        self.days.contains_key(&day)
    }

    /// `day` becomes known: these are its identities in silver.
    pub fn load(&mut self, day: i32, identities: impl IntoIterator<Item = Identity>) {
        let entry = self.days.entry(day).or_default();
        for identity in identities.into_iter().map(halves) {
            if *self.identities.entry(identity).or_insert(day) != day {
                entry.elsewhere.push(identity);
            }
        }
    }

    /// Takes an event of a known day. Returns whether it is new.
    ///
    /// # Panics
    /// If `day` is not known: whoever asks must have loaded it.
    pub fn take(&mut self, day: i32, identity: Identity) -> bool {
        self.clock += 1;
        let entry = self.days.get_mut(&day).expect("the day was loaded before");
        entry.used = self.clock;
        match self.identities.entry(halves(identity)) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(day);
                entry.carried_by = PENDING;
                true
            }
        }
    }

    /// What was taken up to now is carried to silver by the cut of this number.
    pub fn cut(&mut self, number: u64) {
        for day in self.days.values_mut().filter(|d| d.carried_by == PENDING) {
            day.carried_by = number;
        }
    }

    /// Identities in memory.
    pub fn len(&self) -> usize {
        self.identities.len()
    }

    /// Forgets least recently used days until at most `cap` identities are left or nothing more may go: a day may, if all
    /// of it was carried to silver by cut `durable_cut` or before. Returns the days that went.
    pub fn shrink(&mut self, cap: usize, durable_cut: u64) -> Vec<i32> {
        if self.len() <= cap {
            return Vec::new();
        }
        let mut sizes: HashMap<i32, usize> = HashMap::new();
        for &day in self.identities.values() {
            *sizes.entry(day).or_default() += 1;
        }
        let mut order: Vec<(u64, i32)> =
            self.days.iter().filter(|(_, d)| d.carried_by <= durable_cut).map(|(&day, d)| (d.used, day)).collect();
        order.sort_unstable();
        let mut left = self.len();
        let mut gone = Vec::new();
        for (_, day) in order {
            if left <= cap {
                break;
            }
            left -= sizes.get(&day).copied().unwrap_or(0);
            self.days.remove(&day);
            gone.push(day);
        }
        self.identities.retain(|_, day| !gone.contains(day));
        for (&day, entry) in &mut self.days {
            entry.elsewhere.retain(|&identity| *self.identities.entry(identity).or_insert(day) != day);
        }
        self.identities.shrink_to_fit();
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
    fn the_same_line_under_another_date_is_the_same_line() {
        let line = line_identity("a", 1);
        let mut seen = Seen::default();
        seen.load(1, []);
        seen.load(2, []);
        assert!(seen.take(1, line));
        assert!(!seen.take(2, line));
        seen.cut(1);
        assert_eq!(seen.shrink(0, 1), [1]);
        assert!(seen.take(2, line), "the first is no longer in memory");
        seen = Seen::default();
        // Both days hold it in silver, one is forgotten: the other still knows.
        seen.load(1, [line]);
        seen.load(2, [line]);
        seen.take(2, line);
        seen.load(3, (0..9).map(|item| count_identity(item, 0, 0)));
        seen.take(3, count_identity(0, 0, 0));
        assert_eq!(seen.shrink(9, 1), [1]);
        assert!(!seen.take(2, line));
    }

    #[test]
    fn the_least_recently_used_day_goes_first_and_none_that_is_not_in_silver() {
        let mut seen = Seen::default();
        for day in 1..=3 {
            seen.load(day, []);
            for item in 0..10 {
                seen.take(day, count_identity(item, day.into(), 0));
            }
            seen.cut(day as u64);
        }
        assert!(seen.shrink(30, 3).is_empty());
        seen.take(1, count_identity(0, 1, 0)); // a repeat: used, but nothing new for silver
        assert_eq!(seen.shrink(15, 2), [2, 1], "day 2 was used longest ago, day 3 is not durable");
        assert!(seen.knows(3) && !seen.knows(1) && seen.len() == 10);
        seen.load(1, (0..10).map(|item| count_identity(item, 1, 0)));
        assert!(!seen.take(1, count_identity(4, 1, 0)));
    }
}
