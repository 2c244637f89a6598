//! What a count or a change does to one item in one store. Pure: no actor, no clock, no I/O.
//!
//! An item's state answers the rule (see ARCHITECTURE.md) at any time: the latest count, and the sum of the applicable changes
//! that are not older than it. Changes only ever add up. A count is harder: when one becomes the latest, the changes since
//! *its* time have to be summed. Three ways, cheapest first:
//! 1. No change is as new as the count (the usual case, counts come in order): the sum is zero.
//! 2. The changes since the count's time are still in [`RecentChanges`], which live items keep: they are summed from there.
//! 3. Neither: the item is marked for a *recount*, and the next gold commit sums it from silver.

/// No time: below every time an event can have.
pub const NEVER: i64 = i64::MIN;

/// The latest count of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatestCount {
    /// When, in microseconds since 1970.
    pub at: i64,
    /// How many there were.
    pub quantity: i32,
    /// Who counted.
    pub employee_id: i32,
}

/// One thing that happened to an item, in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemEvent {
    /// An applicable change.
    Change {
        /// When, in microseconds since 1970.
        at: i64,
        /// How many came or went.
        quantity: i32,
    },
    /// A count.
    Count(LatestCount),
}

/// All that is kept of an item while it is passivated. 36 bytes, aligned like the item id that it is kept under: together
/// they take 40 in a map instead of 48.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(Rust, packed(4))]
pub struct ItemState {
    /// Time of the latest count, [`NEVER`] if there is none.
    count_at: i64,
    /// Sum of the applicable changes not older than the latest count (of all, if there is none).
    /// While a recount is due: of those that came after the last gold cut.
    change_quantity: i64,
    /// Newest time among those changes, [`NEVER`] if there are none. After a restart it may be the count's own time instead.
    last_change: i64,
    count_quantity: i32,
    employee_id: i32,
    recount: bool,
}

impl Default for ItemState {
    fn default() -> Self {
        Self {
            count_at: NEVER,
            change_quantity: 0,
            last_change: NEVER,
            count_quantity: 0,
            employee_id: 0,
            recount: false,
        }
    }
}

impl ItemState {
    /// The state that gold and the latest count tell: `change_quantity` and the newest change (or [`NEVER`]).
    pub fn restored(count: Option<LatestCount>, change_quantity: i64, last_change: i64) -> Self {
        let mut state = Self { change_quantity, last_change, ..Self::default() };
        if let Some(count) = count {
            state.set_count(count);
        }
        state
    }

    /// The latest count.
    pub fn count(&self) -> Option<LatestCount> {
        (self.count_at != NEVER).then_some(LatestCount {
            at: self.count_at,
            quantity: self.count_quantity,
            employee_id: self.employee_id,
        })
    }

    /// Sum of the changes since the latest count; `None` while a recount is due.
    pub fn change_quantity(&self) -> Option<i64> {
        (!self.recount).then_some(self.change_quantity)
    }

    /// On hand now; `None` for an item that was never counted, and while a recount is due.
    pub fn current_inventory(&self) -> Option<i64> {
        Some(i64::from(self.count()?.quantity) + self.change_quantity()?)
    }

    /// The newest of the count and the changes since; [`NEVER`] if nothing applicable has happened.
    pub fn date_time(&self) -> i64 {
        self.count_at.max(self.last_change)
    }

    /// The sum has to be made anew from silver.
    pub fn recount_due(&self) -> bool {
        self.recount
    }

    /// Time from which changes count: that of the latest count.
    pub fn counts_from(&self) -> i64 {
        self.count_at
    }

    /// Takes what happened. Returns whether the latest count changed.
    pub fn apply(&mut self, event: ItemEvent, recent: &mut RecentChanges) -> bool {
        match event {
            ItemEvent::Change { at, quantity } => {
                recent.push(at, quantity);
                self.change(at, quantity);
                false
            }
            ItemEvent::Count(count) => self.take_count(count, recent),
        }
    }

    fn change(&mut self, at: i64, quantity: i32) {
        if at >= self.count_at {
            self.change_quantity += i64::from(quantity);
            self.last_change = self.last_change.max(at);
        }
    }

    fn take_count(&mut self, count: LatestCount, recent: &RecentChanges) -> bool {
        if count.at < self.count_at {
            return false;
        }
        let same_time = count.at == self.count_at;
        if same_time && self.count() == Some(count) {
            return false;
        }
        self.set_count(count);
        if same_time {
            return true; // a correction: the same changes count
        }
        if !self.recount && self.last_change < count.at {
            self.change_quantity = 0;
            self.last_change = NEVER;
        } else if let Some((sum, last)) = recent.since(count.at) {
            (self.change_quantity, self.last_change, self.recount) = (sum, last, false);
        } else {
            self.require_recount();
        }
        true
    }

    fn set_count(&mut self, count: LatestCount) {
        self.count_at = count.at;
        self.count_quantity = count.quantity;
        self.employee_id = count.employee_id;
    }

    /// From now on the sum is unknown until [`ItemState::recounted`].
    pub fn require_recount(&mut self) {
        self.recount = true;
        self.change_quantity = 0;
        self.last_change = NEVER;
    }

    /// A gold cut is made here: silver up to this point will be summed, so what comes from now on is added to that.
    pub fn cut_for_recount(&mut self) {
        if self.recount {
            self.change_quantity = 0;
            self.last_change = NEVER;
        }
    }

    /// The sum over silver up to the last gold cut, made for a latest count at `counts_from`. Ignored if another count has
    /// become the latest since: that one's recount is still to come.
    pub fn recounted(&mut self, counts_from: i64, sum: i64, last_change: i64) {
        if self.recount && self.count_at == counts_from {
            self.recount = false;
            self.change_quantity += sum;
            self.last_change = self.last_change.max(last_change);
        }
    }
}

/// The newest applicable changes of a live item, so that a count which is typed in a little late needs no look into silver.
/// At most [`RecentChanges::CAPACITY`], the oldest go first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecentChanges {
    /// All changes at or after this time are in `changes`.
    complete_from: i64,
    changes: Vec<(i64, i32)>,
}

impl RecentChanges {
    /// Most changes that are kept.
    pub const CAPACITY: usize = 32;

    /// For an item that comes (back) to life: nothing is known of changes up to the newest one its state has summed.
    pub fn after(state: &ItemState) -> Self {
        let complete_from = if state.recount {
            i64::MAX
        } else if state.last_change == NEVER {
            state.count_at
        } else {
            state.last_change.saturating_add(1)
        };
        Self { complete_from, changes: Vec::new() }
    }

    /// For an item whose history is not kept at all.
    pub fn unknown() -> Self {
        Self { complete_from: i64::MAX, changes: Vec::new() }
    }

    fn push(&mut self, at: i64, quantity: i32) {
        if at < self.complete_from {
            return;
        }
        if self.changes.len() == Self::CAPACITY {
            self.forget_oldest();
            if at < self.complete_from {
                return;
            }
        }
        self.changes.push((at, quantity));
    }

    fn forget_oldest(&mut self) {
        let oldest = self.changes.iter().map(|&(at, _)| at).min().expect("it is full");
        self.complete_from = oldest + 1;
        self.changes.retain(|&(at, _)| at > oldest);
    }

    /// Sum and newest time of the changes at or after `from`; `None` if they are not all known.
    fn since(&self, from: i64) -> Option<(i64, i64)> {
        (from >= self.complete_from).then(|| {
            self.changes
                .iter()
                .filter(|&&(at, _)| at >= from)
                .fold((0, NEVER), |(sum, last), &(at, quantity)| (sum + i64::from(quantity), last.max(at)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(at: i64, quantity: i32) -> ItemEvent {
        ItemEvent::Count(LatestCount { at, quantity, employee_id: 7 })
    }

    fn change(at: i64, quantity: i32) -> ItemEvent {
        ItemEvent::Change { at, quantity }
    }

    fn after(events: &[ItemEvent]) -> ItemState {
        let mut state = ItemState::default();
        let mut recent = RecentChanges::after(&state);
        for &event in events {
            state.apply(event, &mut recent);
        }
        state
    }

    #[test]
    fn a_passivated_item_is_small() {
        assert_eq!(size_of::<(i32, ItemState)>(), 40);
    }

    #[test]
    fn a_late_count_sums_the_changes_since_its_own_time() {
        let state = after(&[count(1, 20), change(2, -1), change(4, -2), change(5, -3), count(4, 50)]);
        assert_eq!((state.current_inventory(), state.date_time()), (Some(45), 5));
    }

    #[test]
    fn without_history_a_late_count_asks_for_a_recount_and_an_orderly_one_does_not() {
        let mut state = ItemState::restored(None, -6, 5);
        state.apply(count(4, 50), &mut RecentChanges::unknown());
        assert!(state.recount_due() && state.current_inventory().is_none());
        state.apply(change(9, -1), &mut RecentChanges::unknown()); // before the cut: silver will have it
        state.cut_for_recount();
        state.apply(change(10, -7), &mut RecentChanges::unknown()); // after it
        state.recounted(4, -6, 9);
        assert_eq!((state.current_inventory(), state.date_time()), (Some(50 - 6 - 7), 10));

        let mut state = ItemState::restored(None, -6, 5);
        state.apply(count(6, 50), &mut RecentChanges::unknown());
        assert_eq!(state.current_inventory(), Some(50));
    }

    #[test]
    fn a_recount_for_a_count_that_is_no_longer_the_latest_is_ignored() {
        let mut state = ItemState::restored(None, -6, 5);
        state.apply(count(3, 50), &mut RecentChanges::unknown());
        state.cut_for_recount();
        state.apply(count(4, 60), &mut RecentChanges::unknown());
        state.recounted(3, -6, 5);
        assert!(state.recount_due());
        state.cut_for_recount();
        state.recounted(4, -2, 5);
        assert_eq!(state.current_inventory(), Some(58));
    }

    /// What the rule says of one item, the plain way.
    fn model(events: &[ItemEvent]) -> (Option<LatestCount>, i64, i64) {
        let mut latest: Option<LatestCount> = None;
        for event in events {
            if let ItemEvent::Count(c) = event
                && latest.is_none_or(|l| c.at >= l.at)
            {
                latest = Some(*c);
            }
        }
        let from = latest.map_or(NEVER, |l| l.at);
        let (mut sum, mut last) = (0, from);
        for event in events {
            if let ItemEvent::Change { at, quantity } = *event
                && at >= from
            {
                sum += i64::from(quantity);
                last = last.max(at);
            }
        }
        (latest, sum, last)
    }

    fn any_event() -> impl Strategy<Value = ItemEvent> {
        prop_oneof![
            4 => (0_i64..60, -5_i32..5).prop_map(|(at, q)| change(at, q)),
            1 => (0_i64..60, 0_i32..50).prop_map(|(at, q)| count(at, q)),
        ]
    }

    proptest! {
        /// Any order, passivation anywhere, gold cuts anywhere: in the end the state is what the rule says.
        #[test]
        fn equals_the_rule(events in proptest::collection::vec(any_event(), 0..120), interruptions in proptest::collection::vec(0_u8..12, 120)) {
            let mut state = ItemState::default();
            let mut recent = RecentChanges::after(&state);
            for (index, event) in events.iter().enumerate() {
                state.apply(*event, &mut recent);
                match interruptions[index] {
                    0 => recent = RecentChanges::after(&state),
                    1 => recent = RecentChanges::unknown(),
                    2 if state.recount_due() => {
                        let (_, sum, last) = model(&events[..=index]);
                        state.cut_for_recount();
                        state.recounted(state.counts_from(), sum, last);
                    }
                    _ => {}
                }
            }
            let (latest, sum, last) = model(&events);
            if state.recount_due() {
                state.cut_for_recount();
                state.recounted(state.counts_from(), sum, last);
            }
            prop_assert_eq!(state.count(), latest);
            prop_assert_eq!(state.change_quantity(), Some(sum));
            prop_assert_eq!(state.date_time(), last);
        }
    }
}
