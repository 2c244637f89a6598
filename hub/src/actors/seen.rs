//! What a store has already taken: identities of transaction lines and counts. Pure.
//!
//! An identity does not depend on the day that an event bears: a line that comes again under another date is the same line,
//! as long as the day of the first is in memory, whole. A day is in one of three states:
//!
//! - *whole*: every identity that silver holds for it, and every one taken since, is in memory;
//! - *filtered*: those in silver are in a filter, or as they are. Of what the filter surely does not hold nobody needs to
//!   ask; the rest is *in doubt*, and silver has to be asked for it, by name, before it may be judged;
//! - *unknown*: all of it has to be loaded before an event of that day may be judged.
//!
//! Memory is bounded by filtering days, the least recently used first, and if that is not enough, by forgetting them. What is not
//! in silver yet stays in any case. A day in use is never forgotten: one that outgrows its room is written now, and to load it
//! after each cut would take longer and longer.

use super::scalable_filter::ScalableFilter;
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

fn whole(halves: Halves) -> Identity {
    (u128::from(halves[0]) << 64) | u128::from(halves[1])
}

/// So few take less as they are.
const LEAST_FILTERED: usize = 16;
/// A day is in use for so many cuts, of its store or while it sleeps of others, after it was used.
const IN_USE: u32 = 8;

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
    /// When it was used last, by the store's own clock and by its rounds.
    used: u64,
    used_before: u32,
}

impl Day {
    /// How many identities go if the day is filtered or forgotten.
    fn may_go(&self) -> usize {
        self.durable + self.elsewhere.len()
    }

    fn is_known(&self) -> bool {
        !matches!(self.known, Known::Unknown)
    }

    fn put_into_filter(&mut self, identity: Halves) {
        if let Known::Filtered(filter) = &mut self.known {
            filter.insert(whole(identity));
        }
    }

    /// What its filter takes, in identities.
    fn filter(&self) -> usize {
        match &self.known {
            Known::Filtered(filter) => filter.size(),
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
    /// How often it was told what is in silver.
    rounds: u32,
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

    /// How many a filtered day holds, about.
    pub fn filtered(&self, day: i32) -> usize {
        match self.days.get(&day).map(|entry| &entry.known) {
            Some(Known::Filtered(filter)) => filter.held(),
            _ => 0,
        }
    }

    /// `day` becomes known: these are its identities in silver.
    pub fn load(&mut self, day: i32, identities: impl IntoIterator<Item = Identity>) {
        self.become_known(day, Known::Whole);
        self.found(day, identities);
    }

    /// `day` becomes known: its identities in silver are in `filter`.
    pub fn load_filtered(&mut self, day: i32, filter: ScalableFilter) {
        self.become_known(day, Known::Filtered(filter));
    }

    fn become_known(&mut self, day: i32, known: Known) {
        let entry = self.days.entry(day).or_default();
        self.filters -= entry.filter();
        entry.known = known;
        self.filters += entry.filter();
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
        (entry.used, entry.used_before) = (self.clock, self.rounds + 1);
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
        self.settle(durable);
        self.cuts += 1;
        self.last_cut = number;
    }

    /// All cuts up to this number are in silver.
    pub fn settle(&mut self, durable: u64) {
        self.rounds += 1;
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
    }

    /// Identities in memory, and those that would have room where the filters are.
    pub fn len(&self) -> usize {
        self.identities.len() + self.elsewhere + self.filters
    }

    /// Filters days, the least recently used first, until about `cap` identities are left.
    pub fn filter(&mut self, cap: usize) {
        let (mut left, mut leaving) = (self.len(), HashSet::new());
        for day in self.least_recently_used() {
            let entry = self.days.get_mut(&day).expect("it was listed");
            let going = entry.may_go();
            if left <= cap || going == 0 || (going < LEAST_FILTERED && matches!(entry.known, Known::Whole)) {
                continue;
            }
            if matches!(entry.known, Known::Whole) {
                entry.known = Known::Filtered(ScalableFilter::default());
            }
            self.filters -= entry.filter();
            if let Known::Filtered(filter) = &mut entry.known {
                filter.reserve(going);
                left += going / 4; // as much as a layer that is twice as large as it needs to be
            }
            left -= going;
            leaving.insert(day);
        }
        self.leave(&leaving);
        self.filters += leaving.iter().filter_map(|day| self.days.get(day)).map(Day::filter).sum::<usize>();
    }

    /// Forgets days that are no longer in use, the least recently used first, until `cap` identities are left. Returns which:
    /// they have to be loaded again.
    pub fn forget(&mut self, cap: usize) -> Vec<i32> {
        let (mut left, mut leaving) = (self.len(), HashSet::new());
        for day in self.least_recently_used() {
            let entry = self.days.get_mut(&day).expect("it was listed");
            let (filter, going) = (entry.filter(), entry.may_go());
            if left <= cap || filter + going == 0 || entry.used_before + IN_USE > self.rounds || !entry.is_known() {
                continue;
            }
            left -= filter + going;
            self.filters -= filter;
            entry.known = Known::Unknown;
            leaving.insert(day);
        }
        self.leave(&leaving);
        leaving.into_iter().collect()
    }

    /// What is left of days that were forgotten comes first.
    fn least_recently_used(&self) -> Vec<i32> {
        let mut order: Vec<(bool, u64, i32)> =
            self.days.iter().map(|(&day, entry)| (entry.is_known(), entry.used, day)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, _, day)| day).collect()
    }

    /// What silver holds of these days leaves memory, into the filter of a day that has one.
    fn leave(&mut self, leaving: &HashSet<i32>) {
        if leaving.is_empty() {
            return;
        }
        for day in leaving {
            let entry = self.days.get_mut(day).expect("it was listed");
            entry.durable = 0;
            self.elsewhere -= entry.elsewhere.len();
            for identity in std::mem::take(&mut entry.elsewhere) {
                entry.put_into_filter(identity);
            }
        }
        let (days, durable_cuts) = (&mut self.days, self.durable_cuts);
        self.identities.retain(|&identity, origin| {
            let stays = origin.carried_by > durable_cuts || !leaving.contains(&origin.day);
            if !stays {
                days.get_mut(&origin.day).expect("it was listed").put_into_filter(identity);
            }
            stays
        });
        self.days.retain(|_, entry| entry.is_known() || entry.may_go() > 0 || !entry.on_the_way.is_empty());
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
        self.identities.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        for number in 1..=u64::from(IN_USE) + 1 {
            assert!(seen.forget(0).is_empty() && !seen.take(2, line), "it is not in silver yet, or its day in use");
            seen.cut(number, number - 1);
        }
        assert_eq!(seen.forget(0), [1]);
        assert!(seen.take(2, line), "the first is no longer in memory");
        seen = Seen::default();
        // Both days hold it in silver, one is filtered: the other still knows.
        seen.load(1, [line]);
        seen.load(2, [line]);
        seen.take(2, line);
        seen.load(3, (0..9).map(|item| count_identity(item, 0, 0)));
        seen.take(3, count_identity(0, 0, 0));
        assert_eq!(seen.len(), 11, "the line under its second day takes room, too");
        seen.days.get_mut(&1).unwrap().known = Known::Filtered(ScalableFilter::default());
        seen.leave(&HashSet::from([1]));
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
        seen.filter(300);
        assert_eq!(seen.filters, 0);
        seen.take(1, identity(1, 0)); // a repeat: used, but nothing new for silver
        seen.filter(230);
        let exact = |seen: &Seen| {
            let exact = |day| (0..100).filter(|&n| seen.identities.contains_key(&halves(identity(day, n)))).count();
            [1, 2, 3].map(exact)
        };
        assert_eq!(exact(&seen), [100, 0, 100], "day 2 was used longest ago");
        assert!((0..100).all(|item| seen.in_doubt(2, identity(2, item))));
        assert!((100..200).filter(|&item| seen.in_doubt(2, identity(2, item))).count() <= 2);
        seen.filter(0);
        assert_eq!(exact(&seen), [0, 0, 100], "day 3 is not in silver");
        let silver: Vec<Identity> = (0..100).flat_map(|item| [identity(1, item), identity(2, item)]).collect();
        assert!(!judged(&mut seen, &silver, 2, identity(2, 4)) && judged(&mut seen, &silver, 2, identity(2, 104)));
    }

    #[test]
    fn days_in_use_are_not_forgotten_however_large_they_are() {
        let identity = |day: i32, n: i32| count_identity(n, day.into(), 0);
        let mut seen = Seen::default();
        seen.load(1, (0..5).map(|n| identity(1, n)));
        for cut in 0..10_i32 {
            for day in [2, 3] {
                assert!(seen.knows(day) == (cut > 0), "day {day} at cut {cut}");
                if cut == 0 {
                    seen.load(day, []);
                }
                assert!((0..100).all(|n| judged(&mut seen, &[], day, identity(day, cut * 100 + n))));
            }
            seen.cut(cut as u64 + 1, cut as u64);
            seen.filter(0);
            // The small one was never used, and goes as it is.
            assert_eq!(seen.forget(0), if cut == 7 { vec![1] } else { vec![] }, "at cut {cut}");
        }
        // It falls asleep.
        for cut in 10..18 {
            seen.cut(cut + 1, cut);
            seen.filter(0);
            let mut forgotten = seen.forget(0);
            forgotten.sort_unstable();
            assert_eq!(forgotten, if cut == 17 { vec![2, 3] } else { vec![] });
        }
        assert!(seen.len() == 0 && seen.days.is_empty(), "{seen:?}");
    }

    #[test]
    fn a_day_that_outgrows_its_room_is_asked_for_by_name() {
        let identity = |n: i32| count_identity(n, 1, 0);
        let mut seen = Seen::default();
        let mut silver = Vec::new();
        seen.load(1, []);
        let mut in_vain = 0;
        for cut in 0..20_i32 {
            for n in 0..(cut + 1) * 100 {
                in_vain += i32::from(n >= cut * 100 && seen.in_doubt(1, identity(n)));
                assert_eq!(judged(&mut seen, &silver, 1, identity(n)), n >= cut * 100, "{n} at cut {cut}");
            }
            // The one before is in silver now, and this one on its way.
            seen.cut(cut as u64 + 1, cut as u64);
            seen.filter(150);
            let bound = 150.max(100 + (cut + 1) as usize * 100 / 4 + 20);
            assert!(seen.len() <= bound, "{} are left after cut {cut}", seen.len());
            silver.extend((cut * 100..(cut + 1) * 100).map(identity));
        }
        assert!(in_vain <= 2, "{in_vain} of 2,000 that are new were in doubt");
        assert!((1_890..=1_900).contains(&seen.filtered(1)), "{}", seen.filtered(1));
        seen.load(1, silver.iter().copied());
        assert!(!seen.is_filtered(1) && seen.filters == 0 && seen.len() == 2_000);
    }

    #[test]
    fn nothing_goes_while_cuts_are_under_way() {
        let mut seen = Seen::default();
        let identity = |n: i32| count_identity(n, 1, 0);
        seen.load(1, []);
        for number in 1..=30 {
            assert!(seen.take(1, identity(number)));
            seen.cut(number as u64 * 5, 0);
        }
        let exact = |seen: &mut Seen| {
            seen.filter(0);
            (1..=30).filter(|&number| seen.identities.contains_key(&halves(identity(number)))).count()
        };
        assert_eq!(exact(&mut seen), 30);
        seen.cut(200, 14); // those before may be under way
        assert_eq!(exact(&mut seen), 30);
        seen.cut(205, 200);
        assert_eq!(exact(&mut seen), 0);
    }

    /// Everything that can happen to it, with a silver that takes each cut in one, two or three cuts' time.
    #[derive(Debug, Clone)]
    enum Op {
        Event { day: i32, n: i32 },
        Cut { lag: u64 },
        Settle,
        Sleep,
        Reload { day: i32, large: bool },
        Filter { cap: usize },
        Forget { cap: usize },
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            12 => (1..4, 0..60).prop_map(|(day, n)| Op::Event { day, n }),
            3 => (0..3_u64).prop_map(|lag| Op::Cut { lag }),
            1 => Just(Op::Sleep),
            2 => Just(Op::Settle),
            1 => (1..4, any::<bool>()).prop_map(|(day, large)| Op::Reload { day, large }),
            2 => (0..40_usize).prop_map(|cap| Op::Filter { cap }),
            2 => (0..40_usize).prop_map(|cap| Op::Forget { cap }),
        ]
    }

    /// What is counted, counted anew.
    fn check_sums(seen: &Seen) {
        for (&day, entry) in &seen.days {
            let of_day = || seen.identities.values().filter(|origin| origin.day == day);
            let waiting: usize = entry.on_the_way.iter().map(|&(_, count)| count).sum();
            assert_eq!((entry.durable, waiting), {
                let waits = of_day().filter(|origin| origin.carried_by > seen.durable_cuts).count();
                (of_day().count() - waits, waits)
            });
        }
        assert!(seen.identities.values().all(|origin| seen.days.contains_key(&origin.day)));
        assert_eq!(seen.elsewhere, seen.days.values().map(|entry| entry.elsewhere.len()).sum::<usize>());
        assert_eq!(seen.filters, seen.days.values().map(Day::filter).sum::<usize>());
    }

    proptest! {
        #[test]
        fn whatever_is_filtered_and_forgotten_a_days_identities_are_taken_once(
            ops in proptest::collection::vec(op(), 1..300),
        ) {
            let mut seen = Seen::default();
            // By day: what was taken, and in which cut.
            let mut taken: HashMap<i32, Vec<(Identity, u64)>> = HashMap::new();
            let mut anywhere = HashSet::new();
            let (mut number, mut durable) = (1, 0);
            for op in ops {
                match op {
                    Op::Event { day, n } => {
                        let identity = count_identity(n, 0, 0);
                        let of_day = taken.entry(day).or_default();
                        let silver: Vec<Identity> =
                            of_day.iter().filter(|(_, cut)| *cut <= durable).map(|(identity, _)| *identity).collect();
                        let new = judged(&mut seen, &silver, day, identity);
                        prop_assert!(!new || of_day.iter().all(|(known, _)| *known != identity), "taken twice");
                        prop_assert!(new || anywhere.contains(&identity), "lost");
                        if new {
                            of_day.push((identity, number));
                            anywhere.insert(identity);
                        }
                    }
                    Op::Cut { lag } => {
                        durable = durable.max((number - 1).saturating_sub(lag));
                        seen.cut(number, durable);
                        number += 1;
                    }
                    Op::Settle => {
                        // What was taken since the last cut is not carried by any.
                        durable = number - 1;
                        seen.settle(durable);
                    }
                    Op::Sleep => {
                        for _ in 0..IN_USE {
                            durable = number - 1;
                            seen.cut(number, durable);
                            number += 1;
                        }
                    }
                    Op::Reload { day, large } => {
                        let of_day = taken.get(&day).into_iter().flatten();
                        let silver = of_day.filter(|(_, cut)| *cut <= durable).map(|(identity, _)| *identity);
                        if large {
                            let mut filter = ScalableFilter::default();
                            silver.for_each(|identity| filter.insert(identity));
                            seen.load_filtered(day, filter);
                        } else {
                            seen.load(day, silver);
                        }
                    }
                    Op::Filter { cap } => seen.filter(cap),
                    Op::Forget { cap } => drop(seen.forget(cap)),
                }
                check_sums(&seen);
            }
        }
    }
}
