//! What a store remembers of the events that it took. It judges by this which lines and counts are new, and asks silver where
//! it does not remember.

use super::identity_lookup::{Answer, Found, IdentityLookup, Kind, Question};
use super::identity_room::{IdentityRoom, Place};
use super::seen::{Identity, Seen, count_identity, line_identity};
use onhand_common::{Event, Seq};
use std::collections::BTreeMap;
use std::sync::Arc;

/// So many identities of a batch in doubt are not there by chance.
const MANY: usize = 64;
const KINDS: [Kind; 2] = [Kind::Lines, Kind::Counts];

/// See the module.
pub(super) struct StoreMemory {
    store_id: i32,
    lookup: IdentityLookup,
    lines: Seen,
    counts: Seen,
    place: Place,
    /// Whether events came since the last cut.
    awake: bool,
}

/// What silver has to be asked.
pub(super) struct Questions {
    store_id: i32,
    lookup: IdentityLookup,
    of_days: BTreeMap<(Kind, i32), Question>,
}

/// What silver says of each day.
pub(super) struct Answers(Vec<(Kind, i32, Answer)>);

impl Questions {
    /// Asks, one day after the other. `None` as in [`IdentityLookup::ask`].
    pub(super) async fn ask(self) -> Option<Answers> {
        let mut answers = Vec::with_capacity(self.of_days.len());
        for ((kind, day), question) in self.of_days {
            answers.push((kind, day, self.lookup.ask(kind, self.store_id, day, question).await?));
        }
        Some(Answers(answers))
    }
}

impl StoreMemory {
    /// It remembers nothing.
    pub(super) fn new(store_id: i32, lookup: IdentityLookup, room: &Arc<IdentityRoom>) -> Self {
        let (lines, counts) = (Seen::default(), Seen::default());
        Self { store_id, lookup, lines, counts, place: room.place_of_a_store(), awake: false }
    }

    /// What silver has to be asked before these events can be judged.
    pub(super) fn questions(&mut self, events: &[(Seq, Event)]) -> Questions {
        let mut of_days: BTreeMap<(Kind, i32), Question> = BTreeMap::new();
        for (_, event) in events {
            let (kind, day) = match event {
                Event::Transaction(t) => (Kind::Lines, t.date_time.day()),
                Event::Count(c) => (Kind::Counts, c.date_time.day()),
            };
            let seen = self.seen(kind);
            if seen.is_filtered(day) {
                let mut in_doubt = identities(event).filter(|&identity| seen.in_doubt(day, identity)).peekable();
                if in_doubt.peek().is_some() {
                    of_days.entry((kind, day)).or_default().named.extend(in_doubt);
                }
            } else if !seen.knows(day) {
                if self.lookup.surely_empty(kind, self.store_id, day) {
                    self.seen(kind).load(day, []);
                } else {
                    let question = of_days.entry((kind, day)).or_default();
                    question.whole_day = true;
                    question.named.extend(identities(event));
                }
            }
        }
        let mut most = self.place.room().most_of_a_look();
        for (&(kind, day), question) in &mut of_days {
            let filtered = self.seen(kind).filtered(day);
            if question.named.len() >= MANY && filtered <= most {
                // Old events come again: more of that day will follow.
                question.whole_day = true;
                most -= filtered;
            }
        }
        Questions { store_id: self.store_id, lookup: self.lookup.clone(), of_days }
    }

    /// Silver has answered: the events that it was asked for can be judged, all of them, before anything else happens.
    pub(super) fn learn(&mut self, answers: Answers) {
        self.awake = true;
        for (kind, day, answer) in answers.0 {
            let seen = self.seen(kind);
            match answer.found {
                Found::Named(identities) => seen.found(day, identities),
                Found::Day(identities) => seen.load(day, identities),
                Found::LargeDay { filter, named } => {
                    seen.load_filtered(day, filter);
                    seen.found(day, named);
                }
            }
        }
        self.report();
    }

    /// Takes a line of a transaction of that day. Returns whether it is new.
    pub(super) fn take_line(&mut self, day: i32, trans_id: &str, item_id: i32) -> bool {
        self.lines.take(day, line_identity(trans_id, item_id))
    }

    /// Takes a count at that time, microseconds since 1970, of that day. Returns whether it is new.
    pub(super) fn take_count(&mut self, day: i32, item_id: i32, at: i64, quantity: i32) -> bool {
        self.counts.take(day, count_identity(item_id, at, quantity))
    }

    /// What was taken goes to silver with the cut of this number; all cuts up to number `durable` are there.
    pub(super) fn cut(&mut self, number: u64, durable: u64) {
        KINDS.into_iter().for_each(|kind| self.seen(kind).cut(number, durable));
        self.awake = false;
        self.shrink();
    }

    /// All stores together remember too much: this one gives some of it up, unless it has taken something since its last cut.
    /// Then it has a cut coming, and uses what it remembers.
    pub(super) fn make_room(&mut self, durable: u64) {
        if !self.awake {
            KINDS.into_iter().for_each(|kind| self.seen(kind).settle(durable));
            self.shrink();
        }
    }

    /// Says what it holds to whom it concerns.
    pub(super) fn report(&mut self) {
        self.place.holds(self.lines.len() + self.counts.len());
    }

    /// While all stores together have too much, this one gives half, by filtering what it can, and if that is not enough for
    /// all, by forgetting what it does not use.
    fn shrink(&mut self) {
        self.report();
        let least = self.place.room().least_of_a_store();
        let caps = KINDS.map(|kind| (self.seen(kind).len() / 2).max(least));
        if self.place.room().is_overfull() {
            KINDS.into_iter().zip(caps).for_each(|(kind, cap)| self.seen(kind).filter(cap));
            self.report();
        }
        if self.place.room().is_overfull() {
            for (kind, cap) in KINDS.into_iter().zip(caps) {
                for day in self.seen(kind).forget(cap) {
                    self.lookup.forgotten(kind, self.store_id, day);
                }
            }
            self.report();
        }
    }

    fn seen(&mut self, kind: Kind) -> &mut Seen {
        match kind {
            Kind::Lines => &mut self.lines,
            Kind::Counts => &mut self.counts,
        }
    }
}

/// What makes an event one that was taken before: each line of a transaction, or the count.
fn identities(event: &Event) -> impl Iterator<Item = Identity> {
    let (lines, count) = match event {
        Event::Transaction(t) => {
            (Some(t.items.iter().map(|line| line_identity(t.trans_id.as_str(), line.item_id.get()))), None)
        }
        Event::Count(c) => (None, Some(count_identity(c.item_id.get(), c.date_time.micros(), c.quantity))),
    };
    lines.into_iter().flatten().chain(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::{ActorLimits, DayRequest, Presence};
    use onhand_common::timestamp::MICROS_PER_DAY;
    use onhand_common::{Line, Timestamp, TransId, Transaction};
    use tokio::sync::mpsc;

    /// A store's memory within room for so many identities. Silver may have lines of the first hundred days.
    fn memory(identities: usize) -> (StoreMemory, Arc<IdentityRoom>, mpsc::Receiver<DayRequest>) {
        let presence = Presence::default();
        presence.days_may_have_rows(Kind::Lines, 0..=99);
        let (lookup, requests) = IdentityLookup::new(Arc::new(presence));
        let room = IdentityRoom::new(&ActorLimits { identities, ..ActorLimits::default() });
        (StoreMemory::new(1, lookup, &room), room, requests)
    }

    fn sale(day: i32) -> (Seq, Event) {
        let at = Timestamp::from_micros(i64::from(day) * MICROS_PER_DAY).unwrap();
        let (store, kind) = (1_i64.try_into().unwrap(), 1_i64.try_into().unwrap());
        let lines = [Line { item_id: 10_i64.try_into().unwrap(), quantity: -1 }];
        let sale = Transaction::new(TransId::new("t").unwrap(), store, at, kind, lines);
        (Seq(1), Event::Transaction(sale.unwrap()))
    }

    #[tokio::test]
    async fn what_silver_says_takes_its_place_when_it_comes() {
        let (mut memory, room, mut requests) = memory(1_000);
        let asked = tokio::spawn(memory.questions(&[1, 2, 3].map(sale)).ask());
        let mut held = Vec::new();
        for day in 1..=3 {
            let request = requests.recv().await.unwrap();
            assert_eq!((request.day, request.question.whole_day), (day, true));
            held.push(room.held());
            let identities = (0..100).map(|n| line_identity(&format!("{day}/{n}"), 10)).collect();
            request.reply.send(Answer::new(Found::Day(identities), &room)).unwrap();
        }
        assert_eq!((held, room.held()), (vec![0, 100, 200], 300), "before the store has any of it");
        let answers = asked.await.unwrap().unwrap();
        memory.learn(answers);
        assert_eq!(room.held(), 300, "once each");
        assert!(memory.take_line(1, "t", 10) && !memory.take_line(1, "1/7", 10));
        drop(memory);
        assert_eq!(room.held(), 0);
    }

    #[tokio::test]
    async fn a_store_that_took_something_makes_no_room_until_its_cut() {
        let (mut memory, room, _requests) = memory(64);
        for (day, awake) in [(200, false), (201, true)] {
            let answers = memory.questions(&[sale(day)]).ask().await.unwrap();
            memory.learn(answers);
            (0..100).for_each(|n| assert!(memory.take_line(day, &format!("{day}/{n}"), 10)));
            if !awake {
                memory.cut(1, 0);
            }
        }
        let held = |memory: &mut StoreMemory| {
            memory.report();
            room.held()
        };
        assert_eq!(held(&mut memory), 200);
        memory.make_room(1);
        assert_eq!(held(&mut memory), 200, "it uses what it remembers");
        memory.cut(2, 1);
        let after_its_cut = held(&mut memory);
        assert!(after_its_cut < 200, "the first day is in silver: {after_its_cut}");
        memory.make_room(2);
        assert!(held(&mut memory) < after_its_cut, "it sleeps");
        assert!(!memory.lines.in_doubt(201, line_identity("201/x", 10)) && memory.lines.is_filtered(201));
    }
}
