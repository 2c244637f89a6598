//! The actors: one per store, one per live item.

mod directory;
mod identity_lookup;
mod identity_room;
mod item_actor;
mod item_state;
mod limits;
mod scalable_filter;
mod seen;
mod store_actor;
mod store_cut;
mod store_memory;
mod threads;
mod views;

pub use directory::Directory;
pub use identity_lookup::{Answer, DayRequest, Found, IdentityLookup, Kind, Presence, Question};
pub use identity_room::IdentityRoom;
pub use item_state::{ItemEvent, ItemState, LatestCount, NEVER, RecentChanges};
pub use limits::ActorLimits;
pub use scalable_filter::ScalableFilter;
pub use seen::{Identity, count_identity, line_identity};
pub use store_actor::{
    Cut, GetItem, GetSummary, ListItems, MakeRoom, NewReference, Recounted, StoreActor, StoreShared, StoreUnavailable,
    TakeEvents, Taken,
};
pub use store_cut::{Recount, StoreCut};
pub use threads::ActorThreads;
pub use views::{ItemUpdate, ItemView, StoreSummary};
