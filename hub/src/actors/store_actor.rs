//! One store: takes its events once each, keeps the rows that await the next commit, and its items' states. What it remembers of
//! what it took is in `store_memory.rs`.
//!
//! Invariants:
//! - `items` holds the state of every item at any time, whether it is live or not: a live item's answer is written back
//!   before the store takes another message. So a cut sees exactly what was taken before it.
//! - A change wakes its item, a count does not: it is judged on the passivated state, and only if that is not enough does the
//!   next gold commit sum the item from silver.
//! - Memory is bounded: live items and remembered identities have caps over all stores, rows that await a commit are counted
//!   by whoever sends them (see gateway/intake.rs).

use super::identity_lookup::IdentityLookup;
use super::identity_room::IdentityRoom;
use super::item_actor::{Apply, CurrentInventory, ItemActor};
use super::item_state::{ItemEvent, ItemState, LatestCount, NEVER, RecentChanges};
use super::limits::ActorLimits;
use super::store_cut::{Recount, StoreCut};
use super::store_memory::StoreMemory;
use super::views::{ItemUpdate, ItemView, StoreSummary};
use crate::reference::Applicability;
use crate::rows::{ChangeRow, CountRow, GoldRow, LatestRow, Source, UncountedRow};
use actix::prelude::*;
use onhand_common::{Event, Seq, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::broadcast;

/// Messages that may wait.
const MAILBOX: usize = 64;
/// How often idle items are looked for.
const IDLE_CHECK: Duration = Duration::from_secs(10);

/// What all stores of a process share.
pub struct StoreShared {
    /// Caps.
    pub limits: ActorLimits,
    /// The way to identities in silver.
    pub lookup: IdentityLookup,
    /// What the live stream shows.
    pub updates: broadcast::Sender<ItemUpdate>,
    /// Live items now.
    pub live_items: AtomicUsize,
    /// Remembered identities.
    pub identities: Arc<IdentityRoom>,
    /// Items with a state now.
    pub tracked_items: AtomicUsize,
}

impl StoreShared {
    /// Nothing lives yet.
    pub fn new(limits: ActorLimits, lookup: IdentityLookup, updates: broadcast::Sender<ItemUpdate>) -> Self {
        Self {
            identities: IdentityRoom::new(&limits),
            limits,
            lookup,
            updates,
            live_items: AtomicUsize::new(0),
            tracked_items: AtomicUsize::new(0),
        }
    }
}

struct LiveItem {
    address: Addr<ItemActor>,
    used: Instant,
}

/// See the module.
pub struct StoreActor {
    store_id: i32,
    shared: Arc<StoreShared>,
    applicability: Arc<Applicability>,
    items: hashbrown::HashMap<i32, ItemState>,
    live: HashMap<i32, LiveItem>,
    memory: StoreMemory,
    changes: Vec<ChangeRow>,
    counts: Vec<CountRow>,
    gold_dirty: bool,
    latest_dirty: bool,
    newest: i64,
}

impl StoreActor {
    /// A store with the items that recovery found in the lake. `behind`: gold does not show all of them as they are.
    pub fn new(
        store_id: i32,
        items: hashbrown::HashMap<i32, ItemState>,
        behind: bool,
        applicability: Arc<Applicability>,
        shared: Arc<StoreShared>,
    ) -> Self {
        shared.tracked_items.fetch_add(items.len(), Relaxed);
        let memory = StoreMemory::new(store_id, shared.lookup.clone(), &shared.identities);
        Self {
            store_id,
            shared,
            applicability,
            newest: items.values().map(ItemState::date_time).max().unwrap_or(NEVER),
            gold_dirty: behind,
            items,
            live: HashMap::new(),
            memory,
            changes: Vec::new(),
            counts: Vec::new(),
            latest_dirty: behind,
        }
    }

    /// Takes what is new: rows for silver, and what happened to which item, in the order of arrival.
    fn take(&mut self, source: &Arc<Source>, events: Vec<(Seq, Event)>) -> (Vec<(i32, ItemEvent)>, Taken) {
        let mut happened = Vec::new();
        let mut taken = Taken::default();
        for (seq, event) in events {
            match event {
                Event::Transaction(t) => {
                    let trans_id: Arc<str> = t.trans_id.as_str().into();
                    let (at, day) = (t.date_time.micros(), t.date_time.day());
                    let applies = self.applicability.applies(self.store_id, t.change_type_id.get());
                    for line in &t.items {
                        let item_id = line.item_id.get();
                        if !self.memory.take_line(day, &trans_id, item_id) {
                            taken.duplicates += 1;
                            continue;
                        }
                        taken.changes += 1;
                        self.newest = self.newest.max(at);
                        self.changes.push(ChangeRow {
                            trans_id: trans_id.clone(),
                            store_id: self.store_id,
                            date_time: at,
                            change_type_id: t.change_type_id.get(),
                            item_id,
                            quantity: line.quantity,
                            source: source.clone(),
                            seq: seq.0,
                        });
                        if applies {
                            happened.push((item_id, ItemEvent::Change { at, quantity: line.quantity }));
                        } else {
                            self.track(item_id);
                        }
                    }
                }
                Event::Count(c) => {
                    let (item_id, at) = (c.item_id.get(), c.date_time.micros());
                    if !self.memory.take_count(c.date_time.day(), item_id, at, c.quantity) {
                        taken.duplicates += 1;
                        continue;
                    }
                    taken.counts += 1;
                    self.newest = self.newest.max(at);
                    let count = LatestCount { at, quantity: c.quantity, employee_id: c.employee_id.get() };
                    self.counts.push(CountRow {
                        item_id,
                        employee_id: count.employee_id,
                        store_id: self.store_id,
                        date_time: at,
                        quantity: c.quantity,
                        source: source.clone(),
                        seq: seq.0,
                    });
                    happened.push((item_id, ItemEvent::Count(count)));
                }
            }
        }
        self.memory.report();
        self.gold_dirty |= taken.changes + taken.counts > 0;
        (happened, taken)
    }

    fn track(&mut self, item_id: i32) -> &mut ItemState {
        self.items.entry(item_id).or_insert_with(|| {
            self.shared.tracked_items.fetch_add(1, Relaxed);
            ItemState::default()
        })
    }

    /// Hands each item what happened to it. Counts of passivated items are judged here; the rest is sent to live items,
    /// whose answers are still to come.
    fn hand_out(&mut self, mut happened: Vec<(i32, ItemEvent)>) -> Vec<(i32, Request<ItemActor, Apply>)> {
        happened.sort_by_key(|&(item_id, _)| item_id); // stable: the order of arrival stays within an item
        let now = Instant::now();
        let mut sent = Vec::new();
        for group in happened.chunk_by(|a, b| a.0 == b.0) {
            let item_id = group[0].0;
            let wakes = group.iter().any(|(_, event)| matches!(event, ItemEvent::Change { .. }));
            if !wakes && !self.live.contains_key(&item_id) {
                let state = self.track(item_id);
                let mut counted = false;
                for &(_, event) in group {
                    counted |= state.apply(event, &mut RecentChanges::after(state));
                }
                let state = *state;
                self.settle(item_id, state, counted);
                continue;
            }
            let address = self.wake(item_id, now);
            sent.push((item_id, address.send(Apply(group.iter().map(|&(_, event)| event).collect()))));
        }
        sent
    }

    fn wake(&mut self, item_id: i32, now: Instant) -> Addr<ItemActor> {
        if let Some(item) = self.live.get_mut(&item_id) {
            item.used = now;
            return item.address.clone();
        }
        if self.shared.live_items.load(Relaxed) >= self.shared.limits.live_items {
            self.passivate_oldest(self.live.len() / 8 + 1);
        }
        let address = ItemActor::new(*self.track(item_id)).start();
        self.shared.live_items.fetch_add(1, Relaxed);
        self.live.insert(item_id, LiveItem { address: address.clone(), used: now });
        address
    }

    fn settle(&mut self, item_id: i32, state: ItemState, counted: bool) {
        self.items.insert(item_id, state);
        self.latest_dirty |= counted;
        if self.shared.updates.receiver_count() > 0 {
            let live = self.live.contains_key(&item_id);
            let _ = self.shared.updates.send(ItemUpdate(ItemView::new(self.store_id, item_id, &state, live)));
        }
    }

    fn passivate(&mut self, item_id: i32) {
        if self.live.remove(&item_id).is_some() {
            self.shared.live_items.fetch_sub(1, Relaxed);
        }
    }

    fn passivate_oldest(&mut self, how_many: usize) {
        let mut order: Vec<(Instant, i32)> = self.live.iter().map(|(&id, item)| (item.used, id)).collect();
        order.sort_unstable();
        for (_, item_id) in order.into_iter().take(how_many) {
            self.passivate(item_id);
        }
    }

    fn passivate_idle(&mut self) {
        let idle_after = self.shared.limits.idle_after;
        let idle: Vec<i32> =
            self.live.iter().filter(|(_, item)| item.used.elapsed() >= idle_after).map(|(&id, _)| id).collect();
        for item_id in idle {
            self.passivate(item_id);
        }
    }

    fn gold_rows(&mut self, cut: &mut StoreCut) {
        let mut ids: Vec<i32> = self.items.keys().copied().collect();
        ids.sort_unstable();
        let (mut gold, mut uncounted, mut latest) = (Vec::with_capacity(ids.len()), Vec::new(), Vec::new());
        for item_id in ids {
            let state = self.items.get_mut(&item_id).expect("it was listed");
            if let Some(count) = state.count() {
                latest.push(LatestRow {
                    item_id,
                    employee_id: count.employee_id,
                    date_time: count.at,
                    quantity: count.quantity,
                });
            }
            if state.recount_due() {
                state.cut_for_recount();
                cut.recounts.push(Recount { item_id, state: *state });
                if let Some(item) = self.live.remove(&item_id) {
                    drop(item); // its history does not know of the cut; it comes back with the next change
                    self.shared.live_items.fetch_sub(1, Relaxed);
                }
                continue;
            }
            let change_quantity = state.change_quantity().expect("no recount is due");
            match state.count() {
                Some(count) => gold.push(GoldRow {
                    item_id,
                    snapshot_quantity: count.quantity,
                    change_quantity,
                    date_time: state.date_time(),
                }),
                None => uncounted.push(UncountedRow { item_id, change_quantity, date_time: state.date_time() }),
            }
        }
        (cut.gold, cut.uncounted) = (Some(gold), Some(uncounted));
        if std::mem::take(&mut self.latest_dirty) {
            cut.latest = Some(latest);
        }
    }

    fn view(&self, item_id: i32) -> Option<ItemView> {
        let state = self.items.get(&item_id)?;
        Some(ItemView::new(self.store_id, item_id, state, self.live.contains_key(&item_id)))
    }
}

impl Actor for StoreActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(IDLE_CHECK, |store, _| store.passivate_idle());
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.shared.live_items.fetch_sub(self.live.len(), Relaxed);
        self.shared.tracked_items.fetch_sub(self.items.len(), Relaxed);
    }
}

/// Events of this store from one source, in order. The answer comes when all of it has reached the items.
#[derive(Message)]
#[rtype(result = "Result<Taken, StoreUnavailable>")]
pub struct TakeEvents {
    /// Lineage of the rows.
    pub source: Arc<Source>,
    /// The events with their numbers.
    pub events: Vec<(Seq, Event)>,
}

/// What became of events.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Lines that are new.
    pub changes: u64,
    /// Counts that are new.
    pub counts: u64,
    /// Lines and counts that had been taken before.
    pub duplicates: u64,
}

/// The store cannot go on: an item died, or the lake is gone for good. The pipeline has to be built anew from the lake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("store {store_id} cannot take events: {reason}")]
pub struct StoreUnavailable {
    /// Which store.
    pub store_id: i32,
    /// Why.
    pub reason: String,
}

impl Handler<TakeEvents> for StoreActor {
    type Result = AtomicResponse<Self, Result<Taken, StoreUnavailable>>;

    fn handle(&mut self, TakeEvents { source, events }: TakeEvents, _: &mut Self::Context) -> Self::Result {
        let asked = self.memory.questions(&events).ask();
        let store_id = self.store_id;
        let unavailable = move |reason: String| StoreUnavailable { store_id, reason };
        AtomicResponse::new(Box::pin(asked.into_actor(self).then(move |answers, store, _| {
            let (sent, taken) = match answers {
                Some(answers) => {
                    store.memory.learn(answers);
                    let (happened, taken) = store.take(&source, events);
                    (store.hand_out(happened), Ok(taken))
                }
                None => (Vec::new(), Err(unavailable("silver cannot be read, or the hub stops".to_owned()))),
            };
            let answers = async move {
                let mut answers = Vec::with_capacity(sent.len());
                for (item_id, request) in sent {
                    answers.push((item_id, request.await));
                }
                answers
            };
            answers.into_actor(store).map(move |answers, store, ctx| {
                for (item_id, answer) in answers {
                    match answer {
                        Ok((state, counted)) => store.settle(item_id, state, counted),
                        Err(error) => {
                            // Rows were taken that the states do not show: no cut may be made of this.
                            ctx.terminate();
                            return Err(unavailable(format!("item {item_id}: {error}")));
                        }
                    }
                }
                taken
            })
        })))
    }
}

/// Hand over what awaits a commit. With `gold`, the items' rows too, if anything changed since the last time.
#[derive(Message)]
#[rtype(result = "StoreCut")]
pub struct Cut {
    /// Numbers the cuts of this process, rising.
    pub number: u64,
    /// The last cut that is in silver for good.
    pub durable: u64,
    /// A gold commit follows.
    pub gold: bool,
}

impl Handler<Cut> for StoreActor {
    type Result = MessageResult<Cut>;

    fn handle(&mut self, message: Cut, _: &mut Self::Context) -> Self::Result {
        self.memory.cut(message.number, message.durable);
        let mut cut = StoreCut::new(self.store_id, std::mem::take(&mut self.changes), std::mem::take(&mut self.counts));
        if message.gold && std::mem::take(&mut self.gold_dirty) {
            self.gold_rows(&mut cut);
        }
        MessageResult(cut)
    }
}

/// All stores together remember too much: one that is not in the cut gives some of it up.
#[derive(Message)]
#[rtype(result = "()")]
pub struct MakeRoom {
    /// As in [`Cut`].
    pub durable: u64,
}

impl Handler<MakeRoom> for StoreActor {
    type Result = ();

    fn handle(&mut self, message: MakeRoom, _: &mut Self::Context) {
        self.memory.make_room(message.durable);
    }
}

/// Sums over silver up to the last gold cut: item, the time its sum starts at, sum, newest change. Answers whether some
/// item still waits for a sum: then the store belongs into the next gold cut too.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct Recounted(pub Vec<(i32, i64, i64, i64)>);

impl Handler<Recounted> for StoreActor {
    type Result = bool;

    fn handle(&mut self, Recounted(sums): Recounted, _: &mut Self::Context) -> bool {
        for (item_id, counts_from, sum, last_change) in sums {
            // A live item's actor carries the state before the sum; it ends here and comes back with the next change.
            self.passivate(item_id);
            self.track(item_id).recounted(counts_from, sum, last_change);
        }
        let still_due = self.items.values().any(ItemState::recount_due);
        self.gold_dirty |= still_due;
        still_due
    }
}

/// The reference data has changed.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct NewReference(pub Arc<Applicability>);

impl Handler<NewReference> for StoreActor {
    type Result = bool;

    /// Answers whether the store is touched: then all its items are summed anew at the next gold commit.
    fn handle(&mut self, NewReference(applicability): NewReference, _: &mut Self::Context) -> bool {
        let touched = self.applicability.differs_for(self.store_id, &applicability);
        self.applicability = applicability;
        if touched {
            self.passivate_oldest(usize::MAX);
            self.items.values_mut().for_each(ItemState::require_recount);
            self.gold_dirty = true;
        }
        touched
    }
}

/// One item, please: its live actor answers, or the store for a passivated one.
#[derive(Message)]
#[rtype(result = "Option<ItemView>")]
pub struct GetItem(pub i32);

impl Handler<GetItem> for StoreActor {
    type Result = ResponseFuture<Option<ItemView>>;

    fn handle(&mut self, GetItem(item_id): GetItem, _: &mut Self::Context) -> Self::Result {
        let (store_id, view) = (self.store_id, self.view(item_id));
        match self.live.get(&item_id) {
            Some(item) => {
                let answer = item.address.send(CurrentInventory);
                Box::pin(async move {
                    let state = answer.await.ok();
                    state.map(|state| ItemView::new(store_id, item_id, &state, true)).or(view)
                })
            }
            None => Box::pin(std::future::ready(view)),
        }
    }
}

/// Items in the order of their ids, from `from` on, at most `limit` that `keep` says yes to.
#[derive(Message)]
#[rtype(result = "Vec<ItemView>")]
pub struct ListItems {
    /// The first item id.
    pub from: i32,
    /// Most items in the answer.
    pub limit: usize,
    /// Which ones.
    pub keep: Arc<dyn Fn(&ItemView) -> bool + Send + Sync>,
}

impl Handler<ListItems> for StoreActor {
    type Result = Vec<ItemView>;

    fn handle(&mut self, message: ListItems, _: &mut Self::Context) -> Self::Result {
        let mut ids: Vec<i32> = self.items.keys().copied().filter(|&id| id >= message.from).collect();
        ids.sort_unstable();
        ids.into_iter().filter_map(|id| self.view(id)).filter(|v| (message.keep)(v)).take(message.limit).collect()
    }
}

/// A few numbers of the store, please.
#[derive(Message)]
#[rtype(result = "StoreSummary")]
pub struct GetSummary;

impl Handler<GetSummary> for StoreActor {
    type Result = MessageResult<GetSummary>;

    fn handle(&mut self, _: GetSummary, _: &mut Self::Context) -> Self::Result {
        let counted = self.items.values().filter(|state| state.count().is_some()).count();
        MessageResult(StoreSummary {
            store_id: self.store_id,
            items: counted,
            uncounted: self.items.len() - counted,
            live_items: self.live.len(),
            rows_awaiting_commit: self.changes.len() + self.counts.len(),
            newest_event: Timestamp::from_micros(self.newest).ok(),
        })
    }
}
