//! What a store has already taken: identities of transaction lines and counts. Pure.
//!
//! An identity does not depend on the day that an event bears: a line that comes again under another date is the same line,
//! as long as the day of the first is in memory. A day is either *known*, then every identity that silver holds for it (and
//! every one taken since) is in memory, or it is not, then it has to be loaded before an event of that day may be judged.
//! Memory is bounded by forgetting days, the least recently used first. Of a forgotten day only what is not in silver yet
//! stays; the rest comes back when it is loaded.

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};
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

/// An identity as the map keeps it: in halves it needs no padding beside its origin.
type Halves = [u64; 2];

fn halves(identity: Identity) -> Halves {
    [(identity >> 64) as u64, identity as u64]
}

/// Where an identity is from.
#[derive(Debug, Clone, Copy)]
struct Origin {
    /// The day it was taken under.
    day: i32,
    /// The store's own cut, counted from 1, that carries it to silver; 0 if it was found there.
    carried_by: u32,
}

#[derive(Debug, Default)]
struct Day {
    /// Whether every identity of the day is in memory. If not, some that are not in silver yet may be.
    known: bool,
    /// Identities from here that are in silver.
    durable: usize,
    /// Identities from here that are not, as far as is known: by the cut that carries them, and how many.
    on_the_way: Vec<(u32, usize)>,
    /// Identities in silver under this day that were first known under another.
    elsewhere: Vec<Halves>,
    used: u64,
}

impl Day {
    /// How many identities go if the day is forgotten.
    fn may_go(&self) -> usize {
        self.durable + self.elsewhere.len()
    }
}

/// The days of one store and one kind of event.
#[derive(Debug, Default)]
pub struct Seen {
    identities: HashMap<Halves, Origin>,
    days: HashMap<i32, Day>,
    /// The sum over all days.
    elsewhere: usize,
    clock: u64,
    /// Cuts of this store, how many of them are surely in silver, and the number of the last.
    cuts: u32,
    durable_cuts: u32,
    last_cut: u64,
}

impl Seen {
    /// Whether events of `day` can be judged.
    pub fn knows(&self, day: i32) -> bool {
        self.days.get(&day).is_some_and(|entry| entry.known)
    }

    /// `day` becomes known: these are its identities in silver.
    pub fn load(&mut self, day: i32, identities: impl IntoIterator<Item = Identity>) {
        let entry = self.days.entry(day).or_default();
        entry.known = true;
        for identity in identities.into_iter().map(halves) {
            match self.identities.entry(identity) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Origin { day, carried_by: 0 });
                    entry.durable += 1;
                }
                Entry::Occupied(known) if known.get().day != day => {
                    entry.elsewhere.push(identity);
                    self.elsewhere += 1;
                }
                Entry::Occupied(_) => {}
            }
        }
    }

    /// Takes an event of a known day. Returns whether it is new.
    ///
    /// # Panics
    /// If `day` is not known: whoever asks must have loaded it.
    pub fn take(&mut self, day: i32, identity: Identity) -> bool {
        self.clock += 1;
        let entry = self.days.get_mut(&day).filter(|entry| entry.known).expect("the day was loaded before");
        entry.used = self.clock;
        let Entry::Vacant(vacant) = self.identities.entry(halves(identity)) else { return false };
        let carried_by = self.cuts + 1;
        vacant.insert(Origin { day, carried_by });
        match entry.on_the_way.last_mut() {
            Some((cut, count)) if *cut == carried_by => *count += 1,
            _ => entry.on_the_way.push((carried_by, 1)),
        }
        true
    }

    /// What was taken up to now is carried to silver by the cut of this number; all cuts up to number `durable` are there.
    pub fn cut(&mut self, number: u64, durable: u64) {
        if self.last_cut <= durable {
            self.durable_cuts = self.cuts;
            for day in self.days.values_mut() {
                day.on_the_way.retain(|&(cut, count)| {
                    let there = cut <= self.durable_cuts;
                    day.durable += if there { count } else { 0 };
                    !there
                });
            }
        }
        self.cuts += 1;
        self.last_cut = number;
    }

    /// Identities in memory.
    pub fn len(&self) -> usize {
        self.identities.len() + self.elsewhere
    }

    /// Forgets least recently used days until about `cap` identities are left, or only such as are not in silver yet: those
    /// of a forgotten day stay, and the day has to be loaded again. Returns the days that went.
    pub fn shrink(&mut self, cap: usize) -> Vec<i32> {
        let mut left = self.len();
        if left <= cap {
            return Vec::new();
        }
        // What is left of days that went before goes first.
        let mut order: Vec<(bool, u64, i32)> =
            self.days.iter().filter(|(_, d)| d.may_go() > 0).map(|(&day, d)| (d.known, d.used, day)).collect();
        order.sort_unstable();
        let (mut emptied, mut gone) = (HashSet::new(), Vec::new());
        for (known, _, day) in order {
            if left <= cap {
                break;
            }
            let entry = self.days.get_mut(&day).expect("it was listed");
            left -= entry.may_go();
            entry.known = false;
            entry.durable = 0;
            self.elsewhere -= std::mem::take(&mut entry.elsewhere).len();
            emptied.insert(day);
            gone.extend(known.then_some(day));
        }
        if emptied.is_empty() {
            return gone;
        }
        self.identities.retain(|_, origin| origin.carried_by > self.durable_cuts || !emptied.contains(&origin.day));
        self.days.retain(|_, entry| entry.known || entry.may_go() > 0 || !entry.on_the_way.is_empty());
        for (&day, entry) in &mut self.days {
            let before = entry.elsewhere.len();
            entry.elsewhere.retain(|&identity| match self.identities.entry(identity) {
                Entry::Occupied(known) => known.get().day != day,
                Entry::Vacant(vacant) => {
                    vacant.insert(Origin { day, carried_by: 0 });
                    entry.durable += 1;
                    false
                }
            });
            self.elsewhere -= before - entry.elsewhere.len();
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
        seen.cut(1, 0);
        assert!(seen.shrink(0).is_empty());
        seen.cut(2, 1);
        assert_eq!(seen.shrink(0), [1]);
        assert!(seen.take(2, line), "the first is no longer in memory");
        seen = Seen::default();
        // Both days hold it in silver, one is forgotten: the other still knows.
        seen.load(1, [line]);
        seen.load(2, [line]);
        seen.take(2, line);
        seen.load(3, (0..9).map(|item| count_identity(item, 0, 0)));
        seen.take(3, count_identity(0, 0, 0));
        assert_eq!(seen.len(), 11, "the line under its second day takes room, too");
        assert_eq!(seen.shrink(10), [1]);
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
            seen.cut(day as u64, day as u64 - 1);
        }
        assert!(seen.shrink(30).is_empty());
        seen.take(1, count_identity(0, 1, 0)); // a repeat: used, but nothing new for silver
        assert_eq!(seen.shrink(15), [2, 1], "day 2 was used longest ago, day 3 is not durable");
        assert!(seen.knows(3) && !seen.knows(1) && seen.len() == 10);
        seen.load(1, (0..10).map(|item| count_identity(item, 1, 0)));
        assert!(!seen.take(1, count_identity(4, 1, 0)));
    }

    #[test]
    fn a_day_with_new_rows_before_each_cut_is_forgotten_but_for_these() {
        let identity = |n: i32| count_identity(n, 1, 0);
        let mut seen = Seen::default();
        let mut forgotten = 0;
        for cut in 0..20_i32 {
            if !seen.knows(1) {
                // What silver holds by now: the cuts that are durable.
                seen.load(1, (0..(cut - 1) * 10).map(identity));
            }
            for n in 0..(cut + 1) * 10 {
                assert_eq!(seen.take(1, identity(n)), n >= cut * 10, "{n} at cut {cut}");
            }
            seen.cut(cut as u64 + 1, cut as u64);
            forgotten += seen.shrink(15).len();
            assert!(seen.len() <= 15, "{} are left after cut {cut}", seen.len());
        }
        assert!(forgotten >= 10, "{forgotten}");
        seen.cut(21, 20);
        assert!(seen.shrink(0).is_empty() && seen.len() == 0, "the rest of a day that went before");
        assert!(seen.days.is_empty() && !seen.knows(1));
    }

    #[test]
    fn nothing_goes_while_cuts_are_under_way() {
        let mut seen = Seen::default();
        seen.load(1, []);
        for number in 1..=3 {
            assert!(seen.take(1, count_identity(number, 1, 0)));
            seen.cut(number as u64 * 5, 0);
        }
        assert!(seen.shrink(0).is_empty() && seen.knows(1));
        seen.cut(20, 14); // the one before may be under way
        assert!(seen.shrink(0).is_empty());
        seen.cut(25, 20);
        assert_eq!(seen.shrink(0), [1]);
    }
}
