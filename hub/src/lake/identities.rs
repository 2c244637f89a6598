//! Answers the stores' question which identities silver holds for a day.
//!
//! Requests are answered in batches: those that ask for the same day share one read, and what the read brought for other
//! stores is kept for a while, since they usually ask next.

use super::log::{LiveFile, Table};
use super::read::{ints, micros, strings};
use super::silver::day;
use crate::actors::{DayRequest, Identity, Kind, Presence, count_identity, line_identity};
use anyhow::Result;
use futures::TryStreamExt;
use onhand_common::timestamp::MICROS_PER_DAY;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Requests answered at a time.
const BATCH: usize = 1_024;
/// Identities kept for stores that have not asked yet.
const KEPT: usize = 4_000_000;
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
    /// What is live now.
    pub files: watch::Receiver<Arc<SilverFiles>>,
    /// What is learned of days goes here.
    pub presence: Arc<Presence>,
}

type OfStores = HashMap<i32, Vec<Identity>>;

/// Says where silver has rows, before anything is taken.
pub fn note_presence(files: &SilverFiles, presence: &Presence) {
    for file in &files.changes {
        if let Some(day) = file.partition {
            presence.day_has_rows(Kind::Lines, day as i32);
        }
    }
    for (first, last) in files.counts.iter().filter_map(|file| file.date_time) {
        for day in day(first)..=day(last) {
            presence.day_has_rows(Kind::Counts, day);
        }
    }
}

impl IdentityReader {
    /// Answers until nobody asks any more.
    pub async fn run(self, mut requests: mpsc::Receiver<DayRequest>) {
        let mut kept = Kept::default();
        let mut batch = Vec::new();
        while requests.recv_many(&mut batch, BATCH).await > 0 {
            batch.sort_by_key(|request| (request.kind as u8, request.day));
            for request in batch.drain(..) {
                let key = (request.kind, request.day);
                // The read for another store may have told since.
                if self.presence.surely_empty(request.kind, request.store_id, request.day) {
                    let _ = request.reply.send(Vec::new());
                    continue;
                }
                let identities = match kept.take(key, request.store_id) {
                    Some(identities) => identities,
                    None => match self.read_patiently(request.kind, request.day).await {
                        Some((mut stores, first)) => {
                            let identities = stores.remove(&request.store_id).unwrap_or_default();
                            if first {
                                kept.put(key, stores);
                            }
                            identities
                        }
                        None => continue, // the reply is dropped: the store gives up
                    },
                };
                let _ = request.reply.send(identities);
            }
        }
    }

    async fn read_patiently(&self, kind: Kind, day: i32) -> Option<(OfStores, bool)> {
        for attempt in 0..TRIES {
            match self.read(kind, day).await {
                Ok(stores) => {
                    let first = self.presence.day_was_read(kind, day, stores.keys().copied().collect());
                    return Some((stores, first));
                }
                Err(error) => tracing::warn!(?kind, day, "reading identities: {error:#}; trying again"),
            }
            tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
        }
        None
    }

    async fn read(&self, kind: Kind, day: i32) -> Result<OfStores> {
        let files = self.files.borrow().clone();
        match kind {
            Kind::Lines => {
                let files = files.changes.iter().filter(|f| f.partition == Some(i64::from(day))).cloned().collect();
                self.read_lines(files).await
            }
            Kind::Counts => {
                let start = i64::from(day) * MICROS_PER_DAY;
                let overlaps = |f: &&LiveFile| {
                    f.date_time.is_none_or(|(first, last)| first < start + MICROS_PER_DAY && last >= start)
                };
                self.read_counts(files.counts.iter().filter(overlaps).cloned().collect(), day).await
            }
        }
    }

    async fn read_lines(&self, files: Vec<LiveFile>) -> Result<OfStores> {
        let mut stores = OfStores::new();
        let mut batches = std::pin::pin!(self.changes.read(files, &["store_id", "trans_id", "item_id"]));
        while let Some(batch) = batches.try_next().await? {
            let (store_ids, trans_ids, item_ids) = (ints(&batch, 0)?, strings(&batch, 1)?, ints(&batch, 2)?);
            for row in 0..batch.num_rows() {
                stores.entry(store_ids[row]).or_default().push(line_identity(trans_ids.value(row), item_ids[row]));
            }
        }
        Ok(stores)
    }

    async fn read_counts(&self, files: Vec<LiveFile>, wanted: i32) -> Result<OfStores> {
        let mut stores = OfStores::new();
        let mut batches = std::pin::pin!(self.counts.read(files, &["store_id", "item_id", "date_time", "quantity"]));
        while let Some(batch) = batches.try_next().await? {
            let (store_ids, item_ids) = (ints(&batch, 0)?, ints(&batch, 1)?);
            let (at, quantities) = (micros(&batch, 2)?, ints(&batch, 3)?);
            for row in (0..batch.num_rows()).filter(|&row| day(at[row]) == wanted) {
                let identity = count_identity(item_ids[row], at[row], quantities[row]);
                stores.entry(store_ids[row]).or_default().push(identity);
            }
        }
        Ok(stores)
    }
}

/// What the first read of a day brought for stores that have not asked yet. A store has to ask before it takes anything of
/// that day, and is answered from here once: what it takes afterwards only the store itself and silver know. So nothing of a
/// later read may get here, since by then stores have taken more.
#[derive(Default)]
struct Kept {
    days: HashMap<(Kind, i32), OfStores>,
    order: VecDeque<(Kind, i32)>,
    len: usize,
}

impl Kept {
    fn take(&mut self, key: (Kind, i32), store_id: i32) -> Option<Vec<Identity>> {
        let identities = self.days.get_mut(&key)?.remove(&store_id)?;
        self.len -= identities.len();
        Some(identities)
    }

    fn put(&mut self, key: (Kind, i32), stores: OfStores) {
        self.len += stores.values().map(Vec::len).sum::<usize>();
        match self.days.insert(key, stores) {
            Some(before) => self.len -= before.values().map(Vec::len).sum::<usize>(),
            None => self.order.push_back(key),
        }
        while self.len > KEPT {
            let Some(stores) = self.order.pop_front().and_then(|oldest| self.days.remove(&oldest)) else { break };
            self.len -= stores.values().map(Vec::len).sum::<usize>();
        }
    }
}
