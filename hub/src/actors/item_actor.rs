//! One live item of one store: it owns the item's current inventory and answers for it.
//!
//! An item comes to life with the first change after a quiet time and is passivated when it idles: its store drops the
//! address, with which the actor ends, and keeps its [`ItemState`]. What only a live item has is its recent history ([`RecentChanges`]), which lets
//! a count that comes a little late be taken without a look into silver.

use super::item_state::{ItemEvent, ItemState, RecentChanges};
use actix::prelude::*;

/// Messages that may wait. The store sends one and waits for its answer; queries come beside it.
const MAILBOX: usize = 16;

/// See the module.
pub struct ItemActor {
    state: ItemState,
    recent: RecentChanges,
}

impl ItemActor {
    /// Comes (back) to life in the state its store kept.
    pub fn new(state: ItemState) -> Self {
        Self { state, recent: RecentChanges::after(&state) }
    }
}

impl Actor for ItemActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

/// What happened to the item, in the order of arrival. Answers with the new state and whether the latest count changed.
#[derive(Message)]
#[rtype(result = "(ItemState, bool)")]
pub struct Apply(pub Vec<ItemEvent>);

impl Handler<Apply> for ItemActor {
    type Result = MessageResult<Apply>;

    fn handle(&mut self, Apply(events): Apply, _: &mut Self::Context) -> Self::Result {
        let mut counted = false;
        for event in events {
            counted |= self.state.apply(event, &mut self.recent);
        }
        MessageResult((self.state, counted))
    }
}

/// The current inventory, please.
#[derive(Message)]
#[rtype(result = "ItemState")]
pub struct CurrentInventory;

impl Handler<CurrentInventory> for ItemActor {
    type Result = MessageResult<CurrentInventory>;

    fn handle(&mut self, _: CurrentInventory, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.state)
    }
}
