//! The way from a store to the identities that silver holds.
//!
//! A day of which silver had no rows, of any store, when the hub started needs no look: what came since is in the store's
//! memory. Read is a day that silver had rows of, and one that the store has forgotten for want of memory. Of a day that the
//! store has [filtered](super::seen) it asks by name for what is in doubt.

use super::identity_room::{IdentityRoom, Place};
use super::scalable_filter::ScalableFilter;
use super::seen::Identity;
use hashbrown::HashSet;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Which table's identities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Lines of silver/inventory_change.
    Lines,
    /// Counts of silver/inventory_snapshot.
    Counts,
}

/// A store asks for one day, or which identities of it silver holds.
#[derive(Debug)]
pub struct DayRequest {
    /// Which table.
    pub kind: Kind,
    /// Whose.
    pub store_id: i32,
    /// Days since 1970.
    pub day: i32,
    /// What it asks.
    pub question: Question,
    /// Where the answer goes. Dropped without one, if the lake cannot be read for good.
    pub reply: oneshot::Sender<Answer>,
}

/// What a store wants to know of a day.
#[derive(Debug, Default)]
pub struct Question {
    /// Identities that it has to judge now.
    pub named: HashSet<Identity>,
    /// Whether it wants to know of all others, too.
    pub whole_day: bool,
}

/// What silver holds of a store and day.
#[derive(Debug)]
pub enum Found {
    /// Of the named ones, these.
    Named(Vec<Identity>),
    /// All of these, and nothing else.
    Day(Vec<Identity>),
    /// More than should be in memory as they are.
    LargeDay {
        /// All of them.
        filter: ScalableFilter,
        /// Of the named ones, these.
        named: Vec<Identity>,
    },
}

/// An answer, which takes its place in memory before anybody has read it.
#[derive(Debug)]
pub struct Answer {
    /// What silver holds.
    pub found: Found,
    _place: Place,
}

impl Answer {
    /// It takes its place in the room.
    pub fn new(found: Found, room: &Arc<IdentityRoom>) -> Self {
        let place = room.place_on_the_way(found.size());
        Self { found, _place: place }
    }
}

impl Found {
    /// Memory that it takes, in identities that are kept as they are.
    fn size(&self) -> usize {
        match self {
            Self::Named(identities) | Self::Day(identities) => identities.len(),
            Self::LargeDay { filter, named } => filter.size() + named.len(),
        }
    }
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

    /// Asks silver about one day of one store. `None` when silver cannot be read for good, or the hub stops.
    pub async fn ask(&self, kind: Kind, store_id: i32, day: i32, question: Question) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(DayRequest { kind, store_id, day, question, reply }).await.ok()?;
        answer.await.ok()
    }
}

/// Where silver may have rows that are not in a store's memory.
#[derive(Debug, Default)]
pub struct Presence(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    /// Days of which silver had rows at the start: ranges that do not touch one another, first day to last.
    at_start: HashMap<Kind, BTreeMap<i32, i32>>,
    /// What stores have forgotten since, of other days.
    forgotten: HashMap<(Kind, i32), HashSet<i32>>,
}

impl Presence {
    /// Silver may have rows of these days, of any store. Belongs before anything is taken.
    pub fn days_may_have_rows(&self, kind: Kind, days: RangeInclusive<i32>) {
        let (mut first, mut last) = days.into_inner();
        let mut places = self.0.lock();
        let ranges = places.at_start.entry(kind).or_default();
        // Ranges that overlap or touch become one.
        while let Some((&begin, &end)) = ranges.range(..=last.saturating_add(1)).next_back() {
            if end < first.saturating_sub(1) {
                break;
            }
            ranges.remove(&begin);
            (first, last) = (first.min(begin), last.max(end));
        }
        ranges.insert(first, last);
    }

    fn add(&self, kind: Kind, store_id: i32, day: i32) {
        let mut places = self.0.lock();
        if !places.had_rows(kind, day) {
            places.forgotten.entry((kind, day)).or_default().insert(store_id);
        }
    }

    /// Whether silver surely holds nothing of that store and day that is not in the store's memory.
    pub fn surely_empty(&self, kind: Kind, store_id: i32, day: i32) -> bool {
        let places = self.0.lock();
        !places.had_rows(kind, day)
            && places.forgotten.get(&(kind, day)).is_none_or(|stores| !stores.contains(&store_id))
    }
}

impl Places {
    fn had_rows(&self, kind: Kind, day: i32) -> bool {
        let before = self.at_start.get(&kind).and_then(|ranges| ranges.range(..=day).next_back());
        before.is_some_and(|(_, &last)| day <= last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_read_only_where_silver_may_have_rows() {
        let presence = Presence::default();
        assert!(presence.surely_empty(Kind::Lines, 1, 5));
        presence.days_may_have_rows(Kind::Lines, 5..=5);
        assert!(!presence.surely_empty(Kind::Lines, 1, 5));
        assert!(presence.surely_empty(Kind::Counts, 1, 5));
        presence.add(Kind::Counts, 1, 6);
        assert!(!presence.surely_empty(Kind::Counts, 1, 6) && presence.surely_empty(Kind::Counts, 2, 6));
    }

    #[test]
    fn ranges_of_days_are_merged_and_take_no_room_by_day() {
        let presence = Presence::default();
        let days = [(10, 12), (20, 22), (14, 14), (13, 13), (5, 5), (21, 30), (40, 84_000), (41, 50), (i32::MIN, 3)];
        for (first, last) in days {
            presence.days_may_have_rows(Kind::Counts, first..=last);
        }
        let ranges: Vec<(i32, i32)> =
            presence.0.lock().at_start[&Kind::Counts].iter().map(|(&first, &last)| (first, last)).collect();
        assert_eq!(ranges, [(i32::MIN, 3), (5, 5), (10, 14), (20, 30), (40, 84_000)]);
        for day in -10..60 {
            let held = ranges.iter().any(|&(first, last)| (first..=last).contains(&day));
            assert_eq!(presence.surely_empty(Kind::Counts, 1, day), !held, "{day}");
        }
        presence.days_may_have_rows(Kind::Counts, i32::MIN..=i32::MAX);
        assert_eq!(presence.0.lock().at_start[&Kind::Counts], BTreeMap::from([(i32::MIN, i32::MAX)]));
        presence.add(Kind::Counts, 1, 6);
        assert!(presence.0.lock().forgotten.is_empty(), "it has to be asked for anyway");
    }
}
