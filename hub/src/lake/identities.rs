//! Answers the stores' question which identities silver holds for a day.
//!
//! Nothing is kept here: a look reads the rows of the stores that ask, and what it finds of what they want goes to them.
//! Requests that wait share a look by day, and more gather while it takes place. Beyond what memory should hold, days come as
//! filters.

use super::log::{LiveFile, Table};
use super::read::{Wanted, ints, micros, strings};
use super::silver::day;
use crate::actors::{
    Answer, DayRequest, Found, Identity, IdentityRoom, Kind, Presence, Question, ScalableFilter, count_identity,
    line_identity,
};
use crate::stats::HubStats;
use anyhow::Result;
use futures::{StreamExt, TryStreamExt};
use onhand_common::timestamp::MICROS_PER_DAY;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Requests answered at a time.
const BATCH: usize = 256;
/// Days that are read at the same time.
const DAYS_AT_ONCE: usize = 3;
/// How often a read is tried before whoever asks is given up.
const TRIES: u32 = 8;

/// Live files of the two tables, as of the last commit.
#[derive(Debug, Default, Clone)]
pub struct SilverFiles {
    /// Of silver/inventory_change.
    pub changes: Vec<LiveFile>,
    /// Of silver/inventory_snapshot.
    pub counts: Vec<LiveFile>,
}

/// The answering end. Tables are opened for it alone: it only reads.
pub struct IdentityReader {
    /// silver/inventory_change.
    pub changes: Table,
    /// silver/inventory_snapshot.
    pub counts: Table,
    /// How many identities there may be in memory, which a look brings there; days beyond that it filters.
    pub room: Arc<IdentityRoom>,
    /// Counts what is asked.
    pub stats: Arc<HubStats>,
    /// What is live now.
    pub files: watch::Receiver<Arc<SilverFiles>>,
}

/// What a look is for, by store.
type Sought = HashMap<i32, Question>;

/// What a look finds of what is sought, by store.
struct Look<'a> {
    sought: &'a Sought,
    found: HashMap<i32, Found>,
    /// Identities of whole days, as they are, and how many of such there may be.
    held: usize,
    most_held: usize,
}

impl<'a> Look<'a> {
    fn begin(sought: &'a Sought, most_held: usize) -> Self {
        let nothing = |question: &Question| match question.whole_day {
            true => Found::Day(Vec::new()),
            false => Found::Named(Vec::new()),
        };
        let found = sought.iter().map(|(&store_id, question)| (store_id, nothing(question))).collect();
        Self { sought, found, held: 0, most_held }
    }

    fn add(&mut self, store_id: i32, identity: Identity) {
        let (Some(question), Some(found)) = (self.sought.get(&store_id), self.found.get_mut(&store_id)) else { return };
        let wanted = question.named.contains(&identity);
        match found {
            Found::Named(named) if wanted => named.push(identity),
            Found::Named(_) => {}
            Found::Day(identities) => {
                identities.push(identity);
                self.held += 1;
                if self.held > self.most_held {
                    self.filter_the_largest();
                }
            }
            Found::LargeDay { filter, named } => {
                filter.insert(identity);
                if wanted {
                    named.push(identity);
                }
            }
        }
    }

    fn filter_the_largest(&mut self) {
        let days = self.found.iter_mut().filter_map(|(store_id, found)| match found {
            Found::Day(identities) => Some((identities.len(), *store_id, found)),
            Found::Named(_) | Found::LargeDay { .. } => None,
        });
        let Some((_, store_id, largest)) = days.max_by_key(|&(len, ..)| len) else { return };
        let Found::Day(identities) = std::mem::replace(largest, Found::Named(Vec::new())) else { return };
        self.held -= identities.len();
        let mut filter = ScalableFilter::default();
        filter.reserve(identities.len());
        identities.iter().for_each(|&one| filter.insert(one));
        let wanted = &self.sought[&store_id].named;
        // Into memory of its own: the day's is what is to be given back.
        let named = identities.iter().copied().filter(|one| wanted.contains(one)).collect();
        *largest = Found::LargeDay { filter, named };
    }
}

/// Says where silver has rows, before anything is taken.
pub fn note_presence(files: &SilverFiles, presence: &Presence) {
    for day in files.changes.iter().filter_map(|file| file.partition) {
        presence.days_may_have_rows(Kind::Lines, day as i32..=day as i32);
    }
    for file in &files.counts {
        // A file of which nothing is said may hold rows of any day.
        let days = file.date_time.map_or(i32::MIN..=i32::MAX, |(first, last)| day(first)..=day(last));
        presence.days_may_have_rows(Kind::Counts, days);
    }
}

impl IdentityReader {
    /// Answers until nobody asks any more.
    pub async fn run(self, mut requests: mpsc::Receiver<DayRequest>) {
        let mut batch = Vec::new();
        while requests.recv_many(&mut batch, BATCH).await > 0 {
            let mut days: BTreeMap<(Kind, i32), Vec<DayRequest>> = BTreeMap::new();
            self.stats.identity_lookups.fetch_add(batch.len() as u64, Relaxed);
            for request in batch.drain(..) {
                days.entry((request.kind, request.day)).or_default().push(request);
            }
            let days = futures::stream::iter(days.into_values());
            days.for_each_concurrent(DAYS_AT_ONCE, |requests| self.answer(requests)).await;
        }
    }

    /// Answers those who ask for one day.
    async fn answer(&self, mut requests: Vec<DayRequest>) {
        let (kind, day) = (requests[0].kind, requests[0].day);
        // A store asks for a day once at a time.
        let sought: Sought =
            requests.iter_mut().map(|request| (request.store_id, std::mem::take(&mut request.question))).collect();
        for attempt in 0..TRIES {
            match self.read(kind, day, &sought).await {
                Ok(mut found) => {
                    for request in requests {
                        if let Some(found) = found.remove(&request.store_id) {
                            let _ = request.reply.send(Answer::new(found, &self.room));
                        }
                    }
                    return;
                }
                Err(error) => tracing::warn!(?kind, day, "reading identities: {error:#}; trying again"),
            }
            tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
        }
        // The replies are dropped: the stores give up.
    }

    async fn read(&self, kind: Kind, day: i32, sought: &Sought) -> Result<HashMap<i32, Found>> {
        let stores = sought.keys().copied().collect();
        let files = self.files.borrow().clone();
        let of_stores = |file: &&LiveFile| {
            file.store_id.is_none_or(|(first, last)| sought.keys().any(|store_id| (first..=last).contains(store_id)))
        };
        match kind {
            Kind::Lines => {
                let of_day = files.changes.iter().filter(|file| file.partition == Some(i64::from(day)));
                let files = of_day.filter(of_stores).cloned().collect();
                self.read_lines(files, Wanted { stores, times: None }, sought).await
            }
            Kind::Counts => {
                let start = i64::from(day) * MICROS_PER_DAY;
                let times = start..start + MICROS_PER_DAY;
                let overlaps = |file: &&LiveFile| {
                    file.date_time.is_none_or(|(first, last)| first < times.end && last >= times.start)
                };
                let files = files.counts.iter().filter(overlaps).filter(of_stores).cloned().collect();
                self.read_counts(files, Wanted { stores, times: Some(times) }, sought).await
            }
        }
    }

    async fn read_lines(&self, files: Vec<LiveFile>, wanted: Wanted, sought: &Sought) -> Result<HashMap<i32, Found>> {
        let mut look = Look::begin(sought, self.room.most_of_a_look());
        let columns = ["store_id", "trans_id", "item_id"];
        let mut batches = std::pin::pin!(self.changes.read_wanted(files, &columns, wanted));
        while let Some(batch) = batches.try_next().await? {
            let (store_ids, trans_ids, item_ids) = (ints(&batch, 0)?, strings(&batch, 1)?, ints(&batch, 2)?);
            for row in 0..batch.num_rows() {
                look.add(store_ids[row], line_identity(trans_ids.value(row), item_ids[row]));
            }
        }
        Ok(look.found)
    }

    async fn read_counts(&self, files: Vec<LiveFile>, wanted: Wanted, sought: &Sought) -> Result<HashMap<i32, Found>> {
        let mut look = Look::begin(sought, self.room.most_of_a_look());
        let columns = ["store_id", "item_id", "date_time", "quantity"];
        let mut batches = std::pin::pin!(self.counts.read_wanted(files, &columns, wanted));
        while let Some(batch) = batches.try_next().await? {
            let (store_ids, item_ids) = (ints(&batch, 0)?, ints(&batch, 1)?);
            let (at, quantities) = (micros(&batch, 2)?, ints(&batch, 3)?);
            for row in 0..batch.num_rows() {
                let identity = count_identity(item_ids[row], at[row], quantities[row]);
                look.add(store_ids[row], identity);
            }
        }
        Ok(look.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::{ActorLimits, IdentityLookup};
    use crate::lake::CommitRequest;
    use crate::lake::samples::{Change, NEW_YEAR, changes, counts, lake};
    use crate::lake::tables::TableName;

    const DAY: i64 = 86_400_000_000;
    const FIRST: i32 = 18_628;

    fn all() -> Question {
        Question { whole_day: true, ..Question::default() }
    }

    async fn asked(lookup: &IdentityLookup, kind: Kind, store_id: i32, day: i32, question: Question) -> Option<Found> {
        Some(lookup.ask(kind, store_id, day, question).await?.found)
    }

    fn whole(found: Option<Found>) -> Vec<Identity> {
        let Some(Found::Day(identities)) = found else { panic!("{found:?}") };
        identities
    }

    fn named_ones(found: Option<Found>) -> Vec<Identity> {
        let Some(Found::Named(identities)) = found else { panic!("{found:?}") };
        identities
    }

    #[test]
    fn whole_days_that_are_too_large_together_come_as_filters() {
        let of_store = |store: i32, n: i32| line_identity(&format!("t{n}"), store);
        let question =
            |whole_day| Question { named: [of_store(1, 3), of_store(1, 70)].into_iter().collect(), whole_day };
        let sought = Sought::from([(1, question(true)), (2, question(true)), (3, question(false))]);
        let mut look = Look::begin(&sought, 50);
        (0..45).for_each(|n| look.add(1, of_store(1, n)));
        (0..10).for_each(|n| look.add(2, of_store(2, n)));
        (45..100).for_each(|n| look.add(1, of_store(1, n)));
        (0..100).for_each(|n| look.add(3, of_store(1, n)));
        (10..40).for_each(|n| look.add(2, of_store(2, n)));
        look.add(4, 1);
        let mut found = look.found;
        let Some(Found::LargeDay { filter, named }) = found.remove(&1) else { panic!("it is no filter") };
        assert_eq!(named, [of_store(1, 3), of_store(1, 70)]);
        assert!(named.capacity() < 45, "it holds on to the memory of {}", named.capacity());
        assert!((0..100).all(|n| filter.may_hold(of_store(1, n))) && !filter.may_hold(of_store(1, 100)));
        assert_eq!(whole(found.remove(&2)).len(), 40, "the smaller one stays as it is");
        assert_eq!(named_ones(found.remove(&3)).len(), 2);
        assert!(found.is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_store_is_told_its_own_identities_of_that_day() {
        let (_folder, lake) = lake();
        let mut lines = Table::open_or_create(&lake, TableName::InventoryChange).await.unwrap();
        let mut counted = Table::open_or_create(&lake, TableName::InventorySnapshot).await.unwrap();
        for n in 0..3_i32 {
            let id = format!("t{n}");
            let at = NEW_YEAR + i64::from(n);
            let rows: Vec<Change<'_>> =
                (1..=3).flat_map(|store| [at, at + DAY].map(|at| (&*id, store, at, 1, 10, -1))).collect();
            let adds = lines.write([changes(&rows)]).await.unwrap();
            lines.commit(CommitRequest::append(adds)).await.unwrap();
            let rows: Vec<_> = (1..=3).flat_map(|store| [at, at + DAY].map(|at| (store, 10, at, n))).collect();
            let adds = counted.write([counts(&rows)]).await.unwrap();
            counted.commit(CommitRequest::append(adds)).await.unwrap();
        }
        let mut silver = SilverFiles {
            changes: lines.live_files().cloned().collect(),
            counts: counted.live_files().cloned().collect(),
        };
        silver.counts[1].date_time = None; // as another writer may leave it
        silver.counts[1].store_id = None;
        let presence = Arc::new(Presence::default());
        note_presence(&silver, &presence);
        assert!(!presence.surely_empty(Kind::Counts, 1, 7), "a file without statistics may hold any day");
        assert!(!presence.surely_empty(Kind::Lines, 1, FIRST + 1) && presence.surely_empty(Kind::Lines, 1, FIRST + 2));

        let (lookup, requests) = IdentityLookup::new(presence);
        let (_publish, files) = watch::channel(Arc::new(silver));
        let stats = Arc::new(HubStats::default());
        let room = IdentityRoom::new(&ActorLimits { identities: 200, ..ActorLimits::default() });
        let reader =
            IdentityReader { changes: lines, counts: counted, room: room.clone(), stats: stats.clone(), files };
        let reader = tokio::spawn(reader.run(requests));
        let places = [(1, FIRST), (2, FIRST), (2, FIRST + 1), (9, FIRST), (2, FIRST + 7)];
        let asked_all = places.map(|(store, day)| {
            let lookup = lookup.clone();
            async move {
                let mut lines = whole(asked(&lookup, Kind::Lines, store, day, all()).await);
                let mut counts = whole(asked(&lookup, Kind::Counts, store, day, all()).await);
                lines.sort_unstable();
                counts.sort_unstable();
                (lines, counts)
            }
        });
        let told = futures::future::join_all(asked_all).await;
        let sorted = |identity: &dyn Fn(i32) -> Identity| {
            let mut all: Vec<Identity> = (0..3).map(identity).collect();
            all.sort_unstable();
            all
        };
        let lines = sorted(&|n| line_identity(&format!("t{n}"), 10));
        let on = |at: i64| sorted(&|n| count_identity(10, at + i64::from(n), n));
        assert_eq!(told[0], (lines.clone(), on(NEW_YEAR)));
        assert_eq!(told[1], told[0]);
        assert_eq!(told[2], (lines, on(NEW_YEAR + DAY)));
        assert_eq!(told[3], (Vec::new(), Vec::new()), "a store without rows");
        assert_eq!(told[4], (Vec::new(), Vec::new()), "a day without rows");
        // Some of them, while another store asks for all of that day.
        let (line, count) = (line_identity("t1", 10), count_identity(10, NEW_YEAR + 1, 1));
        let named_of_all = |one: Identity| Question { named: [one, 4].into_iter().collect(), whole_day: true };
        let named = |one: Identity| Question { named: [one, 4, 5].into_iter().collect(), whole_day: false };
        let (two, three, counted, other_day) = futures::join!(
            asked(&lookup, Kind::Lines, 2, FIRST, named(line)),
            asked(&lookup, Kind::Lines, 3, FIRST, all()),
            asked(&lookup, Kind::Counts, 2, FIRST, named(count)),
            asked(&lookup, Kind::Counts, 2, FIRST + 1, named(count)),
        );
        assert_eq!((named_ones(two), whole(three).len()), (vec![line], 3));
        assert_eq!((named_ones(counted), named_ones(other_day)), (vec![count], Vec::new()));
        assert_eq!(stats.identity_lookups.load(Relaxed), 14);
        assert_eq!(room.held(), 0, "what was read takes no room");
        let _taken = room.place_on_the_way(198);
        let found = asked(&lookup, Kind::Lines, 2, FIRST, named_of_all(line)).await;
        let Some(Found::LargeDay { named, .. }) = found else { panic!("there is no room for {found:?}") };
        assert_eq!(named, [line]);
        drop(lookup);
        reader.await.unwrap();
    }
}
