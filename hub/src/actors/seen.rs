//! What a store has already taken: identities of transaction lines and counts. Pure.
//!
//! An identity does not depend on the day that an event bears: a line that comes again under another date is the same line,
//! as long as the day of the first is in memory. A day is in one of three states:
//!
//! - *whole*: every identity that silver holds for it, and every one taken since, is in memory;
//! - *filtered*: those in silver are in a filter only. Of what the filter surely does not hold nobody needs to ask; the rest is
//!   *in doubt*, and silver has to be asked for it, by name, before it may be judged;
//! - *unknown*: all of it has to be loaded before an event of that day may be judged.
//!
//! Memory is bounded by filtering days, the least recently used first, then by forgetting them. What is not in silver yet stays
//! in any case. The day that was used last is never forgotten: a day that outgrows its room is one that is written now, and
//! to load it after each cut would take longer and longer.

use super::scalable_filter::ScalableFilter;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use std::collections::BTreeMap;
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

fn whole(halves: Halves) -> Identity {
    (u128::from(halves[0]) << 64) | u128::from(halves[1])
}

/// What an identity takes in memory, about.
const IDENTITY_BYTES: usize = 32;

/// Where an identity is from.
#[derive(Debug, Clone, Copy)]
struct Origin {
    /// The day it was taken under.
    day: i32,
    /// The store's own cut, counted from 1, that carries it to silver; 0 if it was found there.
    carried_by: u32,
}

/// What is in memory of the identities that silver holds for a day.
#[derive(Debug, Default)]
enum Known {
    /// Some, perhaps.
    #[default]
    Unknown,
    /// All.
    Whole,
    /// All: in the filter, or as they are.
    Filtered(ScalableFilter),
}

#[derive(Debug, Default)]
struct Day {
    known: Known,
    /// Identities from here that are in silver.
    durable: usize,
    /// Identities from here that are not, as far as is known: by the cut that carries them, and how many.
    on_the_way: Vec<(u32, usize)>,
    /// Identities in silver under this day that were first known under another.
    elsewhere: Vec<Halves>,
    used: u64,
}

impl Day {
    /// How many identities go if the day is filtered or forgotten.
    fn may_go(&self) -> usize {
        self.durable + self.elsewhere.len()
    }

    fn is_known(&self) -> bool {
        !matches!(self.known, Known::Unknown)
    }

    /// What its filter takes, in identities.
    fn filter(&self) -> usize {
        match &self.known {
            Known::Filtered(filter) => filter.bytes().div_ceil(IDENTITY_BYTES),
            Known::Unknown | Known::Whole => 0,
        }
    }
}

/// The days of one store and one kind of event.
#[derive(Debug, Default)]
pub struct Seen {
    identities: HashMap<Halves, Origin>,
    days: HashMap<i32, Day>,
    /// The sums over all days.
    elsewhere: usize,
    filters: usize,
    clock: u64,
    /// Cuts of this store, how many of them are surely in silver, and the number of the last.
    cuts: u32,
    durable_cuts: u32,
    last_cut: u64,
}

impl Seen {
    /// Whether events of `day` can be judged, but for those [in doubt](Self::in_doubt).
    pub fn knows(&self, day: i32) -> bool {
        self.days.get(&day).is_some_and(Day::is_known)
    }

    /// Whether there may be identities of `day` that are [in doubt](Self::in_doubt).
    pub fn is_filtered(&self, day: i32) -> bool {
        self.days.get(&day).is_some_and(|entry| matches!(entry.known, Known::Filtered(_)))
    }

    /// Whether silver has to be asked for this one before it may be judged.
    pub fn in_doubt(&self, day: i32, identity: Identity) -> bool {
        match self.days.get(&day).map(|entry| &entry.known) {
            Some(Known::Filtered(filter)) => {
                filter.may_hold(identity) && !self.identities.contains_key(&halves(identity))
            }
            _ => false,
        }
    }

    /// `day` becomes known: these are its identities in silver.
    pub fn load(&mut self, day: i32, identities: impl IntoIterator<Item = Identity>) {
        self.days.entry(day).or_default().known = Known::Whole;
        self.found(day, identities);
    }

    /// These are in silver under `day`.
    pub fn found(&mut self, day: i32, identities: impl IntoIterator<Item = Identity>) {
        let entry = self.days.entry(day).or_default();
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

    /// Takes an event of a known day, about which silver was asked if it was in doubt. Returns whether it is new.
    ///
    /// # Panics
    /// If `day` is not known: whoever asks must have loaded it.
    pub fn take(&mut self, day: i32, identity: Identity) -> bool {
        self.clock += 1;
        let entry = self.days.get_mut(&day).filter(|entry| entry.is_known()).expect("the day was loaded before");
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

    /// Identities in memory, and those that would have room where the filters are.
    pub fn len(&self) -> usize {
        self.identities.len() + self.elsewhere + self.filters
    }

    /// Filters least recently used days, and then forgets such, until about `cap` identities are left, or only the filter of
    /// the day used last and what is not in silver yet. Returns the days that were forgotten: they have to be loaded again.
    pub fn shrink(&mut self, cap: usize) -> Vec<i32> {
        if self.len() <= cap {
            return Vec::new();
        }
        // What is left of days that went before goes first.
        let mut order: Vec<(bool, u64, i32)> =
            self.days.iter().map(|(&day, entry)| (entry.is_known(), entry.used, day)).collect();
        order.sort_unstable();
        self.filter_days(&order, cap);
        let mut forgotten = Vec::new();
        for &(_, _, day) in &order[..order.len().saturating_sub(1)] {
            let entry = self.days.get_mut(&day).expect("it was listed");
            let filter = entry.filter();
            if self.identities.len() + self.elsewhere + self.filters > cap && filter > 0 {
                self.filters -= filter;
                entry.known = Known::Unknown;
                forgotten.push(day);
            }
        }
        self.days.retain(|_, entry| entry.is_known() || entry.may_go() > 0 || !entry.on_the_way.is_empty());
        self.identities.shrink_to_fit();
        forgotten
    }

    /// Puts what silver holds of these days into their filters, one day after the other until `cap` is reached.
    fn filter_days(&mut self, order: &[(bool, u64, i32)], cap: usize) {
        let mut left = self.len();
        let mut leaving: BTreeMap<i32, Vec<Identity>> = BTreeMap::new();
        for &(_, _, day) in order {
            let entry = self.days.get_mut(&day).expect("it was listed");
            if left <= cap || entry.may_go() == 0 {
                continue;
            }
            left -= entry.may_go() - entry.may_go() / 4; // a filter that has doubled takes so much
            entry.durable = 0;
            let elsewhere = std::mem::take(&mut entry.elsewhere);
            self.elsewhere -= elsewhere.len();
            leaving.insert(day, elsewhere.into_iter().map(whole).collect());
        }
        if leaving.is_empty() {
            return;
        }
        self.identities.retain(|&identity, origin| match leaving.get_mut(&origin.day) {
            Some(leaving) if origin.carried_by <= self.durable_cuts => {
                leaving.push(whole(identity));
                false
            }
            _ => true,
        });
        for (day, identities) in leaving {
            let entry = self.days.get_mut(&day).expect("it was listed");
            self.filters -= entry.filter();
            match &mut entry.known {
                Known::Unknown => {}
                Known::Filtered(filter) => filter.extend(&identities),
                known @ Known::Whole => {
                    let mut filter = ScalableFilter::default();
                    filter.extend(&identities);
                    *known = Known::Filtered(filter);
                }
            }
            self.filters += entry.filter();
        }
        // What went may stand under another day, too, that stays.
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

    /// As whoever takes events does it: silver holds these, and is asked where it has to be. Returns whether it is new.
    fn judged(seen: &mut Seen, silver: &[Identity], day: i32, identity: Identity) -> bool {
        if !seen.knows(day) {
            seen.load(day, silver.iter().copied());
        }
        if seen.in_doubt(day, identity) {
            seen.found(day, silver.iter().copied().filter(|held| *held == identity));
        }
        seen.take(day, identity)
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
        seen.shrink(0);
        assert!(!seen.take(2, line), "it is not in silver yet");
        seen.cut(2, 1);
        assert_eq!(seen.shrink(0), [1]);
        assert!(seen.take(2, line), "the first is no longer in memory");
        seen = Seen::default();
        // Both days hold it in silver, one is filtered: the other still knows.
        seen.load(1, [line]);
        seen.load(2, [line]);
        seen.take(2, line);
        seen.load(3, (0..9).map(|item| count_identity(item, 0, 0)));
        seen.take(3, count_identity(0, 0, 0));
        assert_eq!(seen.len(), 11, "the line under its second day takes room, too");
        seen.filter_days(&[(true, 0, 1)], 10);
        assert!(!seen.in_doubt(2, line) && !seen.take(2, line));
        assert!(!seen.in_doubt(1, line) && !seen.take(1, line), "the second day's memory tells");
    }

    #[test]
    fn the_least_recently_used_day_is_filtered_first_and_what_is_not_in_silver_stays() {
        let mut seen = Seen::default();
        let identity = |day: i32, item: i32| count_identity(item, day.into(), 0);
        for day in 1..=3 {
            seen.load(day, []);
            for item in 0..100 {
                seen.take(day, identity(day, item));
            }
            seen.cut(day as u64, day as u64 - 1);
        }
        assert!(seen.shrink(300).is_empty());
        seen.take(1, identity(1, 0)); // a repeat: used, but nothing new for silver
        assert!(seen.shrink(230).is_empty());
        let exact = |seen: &Seen, day| {
            (0..100).filter(|&item| seen.identities.contains_key(&halves(identity(day, item)))).count()
        };
        assert_eq!([1, 2, 3].map(|day| exact(&seen, day)), [100, 0, 100], "day 2 was used longest ago");
        assert!((0..100).all(|item| seen.in_doubt(2, identity(2, item))));
        assert!((100..200).all(|item| !seen.in_doubt(2, identity(2, item))));
        assert_eq!(seen.shrink(0), [2], "the filter of the day used last stays, and what is not in silver");
        assert_eq!([1, 2, 3].map(|day| exact(&seen, day)), [0, 0, 100]);
        assert!(seen.knows(1) && !seen.knows(2) && seen.knows(3) && seen.len() <= 130, "{}", seen.len());
        let silver: Vec<Identity> = (0..100).flat_map(|item| [identity(1, item), identity(2, item)]).collect();
        assert!(!judged(&mut seen, &silver, 1, identity(1, 4)) && !judged(&mut seen, &silver, 2, identity(2, 4)));
        assert!(judged(&mut seen, &silver, 2, identity(2, 104)));
    }

    #[test]
    fn a_day_that_outgrows_its_room_is_asked_for_by_name() {
        let identity = |n: i32| count_identity(n, 1, 0);
        let mut seen = Seen::default();
        let mut silver = Vec::new();
        seen.load(1, []);
        for cut in 0..20_i32 {
            let asked = (0..(cut + 1) * 100).filter(|&n| {
                let in_doubt = seen.in_doubt(1, identity(n));
                assert_eq!(judged(&mut seen, &silver, 1, identity(n)), n >= cut * 100, "{n} at cut {cut}");
                in_doubt
            });
            let asked = asked.count() as i32;
            assert!(asked <= cut * 100 + 1, "cut {cut}: {asked} were in doubt, of {} that are in silver", cut * 100);
            // The one before is in silver now, and this one on its way.
            seen.cut(cut as u64 + 1, cut as u64);
            assert_eq!(seen.shrink(150), [0; 0]);
            let bound = 150.max(100 + (cut + 1) as usize * 100 / 4 + 20);
            assert!(seen.len() <= bound, "{} are left after cut {cut}", seen.len());
            silver.extend((cut * 100..(cut + 1) * 100).map(identity));
        }
        seen.load(2, []);
        seen.take(2, identity(0));
        seen.cut(21, 20);
        assert_eq!(seen.shrink(0), [1]);
        assert_eq!(seen.shrink(0), [0; 0]);
        assert!(!seen.knows(1) && seen.knows(2) && seen.filters == 0);
        seen.cut(22, 21);
        seen.shrink(0);
        assert!(seen.identities.is_empty() && seen.len() <= 8 && seen.days.len() == 1, "{seen:?}");
    }

    #[test]
    fn nothing_goes_while_cuts_are_under_way() {
        let mut seen = Seen::default();
        seen.load(1, []);
        for number in 1..=3 {
            assert!(seen.take(1, count_identity(number, 1, 0)));
            seen.cut(number as u64 * 5, 0);
        }
        let exact = |seen: &mut Seen| {
            seen.shrink(0);
            (1..=3).filter(|&number| seen.identities.contains_key(&halves(count_identity(number, 1, 0)))).count()
        };
        assert_eq!(exact(&mut seen), 3);
        seen.cut(20, 14); // the one before may be under way
        assert_eq!(exact(&mut seen), 3);
        seen.cut(25, 20);
        assert_eq!(exact(&mut seen), 0);
    }
}
