//! Which store is where. A store's actor, and with it its items', lives on one of the arbiters' threads.

use super::item_state::ItemState;
use super::store_actor::{StoreActor, StoreShared};
use crate::reference::Applicability;
use actix::prelude::*;
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// All stores of the process. Cheap to clone.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    arbiters: Vec<ArbiterHandle>,
    shared: Arc<StoreShared>,
    stores: RwLock<Stores>,
}

struct Stores {
    addresses: BTreeMap<i32, Addr<StoreActor>>,
    applicability: Arc<Applicability>,
    /// Stores that took events since the last [`Directory::take_touched`].
    touched: HashSet<i32>,
}

impl Directory {
    /// A directory without stores. `arbiters` must not be empty.
    pub fn new(arbiters: Vec<ArbiterHandle>, shared: Arc<StoreShared>, applicability: Arc<Applicability>) -> Self {
        assert!(!arbiters.is_empty(), "actors need a thread to live on");
        let stores = Stores { addresses: BTreeMap::new(), applicability, touched: HashSet::new() };
        Self(Arc::new(Inner { arbiters, shared, stores: RwLock::new(stores) }))
    }

    /// Starts a store with the items that recovery found. `behind`: gold does not show all of them as they are, so the
    /// next cut looks at it.
    pub fn restore(&self, store_id: i32, items: hashbrown::HashMap<i32, ItemState>, behind: bool) {
        let mut stores = self.0.stores.write();
        if behind {
            stores.touched.insert(store_id);
        }
        self.start(&mut stores, store_id, items, behind);
    }

    /// The store that events are for; started if it is new. Whoever sends it events calls [`Directory::touched`] once they
    /// are taken.
    pub fn address(&self, store_id: i32) -> Addr<StoreActor> {
        if let Some(address) = self.get(store_id) {
            return address;
        }
        let mut stores = self.0.stores.write();
        match stores.addresses.get(&store_id) {
            Some(address) => address.clone(),
            None => self.start(&mut stores, store_id, hashbrown::HashMap::new(), false),
        }
    }

    /// The store has taken events that no cut has seen yet.
    pub fn touched(&self, store_id: i32) {
        if !self.0.stores.read().touched.contains(&store_id) {
            self.0.stores.write().touched.insert(store_id);
        }
    }

    fn start(
        &self,
        stores: &mut Stores,
        store_id: i32,
        items: hashbrown::HashMap<i32, ItemState>,
        behind: bool,
    ) -> Addr<StoreActor> {
        let arbiter = &self.0.arbiters[store_id as usize % self.0.arbiters.len()];
        let actor = StoreActor::new(store_id, items, behind, stores.applicability.clone(), self.0.shared.clone());
        let address = StoreActor::start_in_arbiter(arbiter, |_| actor);
        stores.addresses.insert(store_id, address.clone());
        address
    }

    /// A store, if it is known.
    pub fn get(&self, store_id: i32) -> Option<Addr<StoreActor>> {
        self.0.stores.read().addresses.get(&store_id).cloned()
    }

    /// All stores, by id.
    pub fn all(&self) -> Vec<(i32, Addr<StoreActor>)> {
        self.0.stores.read().addresses.iter().map(|(&id, address)| (id, address.clone())).collect()
    }

    /// Stores that took events since the last call.
    pub fn take_touched(&self) -> HashSet<i32> {
        std::mem::take(&mut self.0.stores.write().touched)
    }

    /// New stores will judge changes by this; the ones that live are told by message.
    pub fn set_applicability(&self, applicability: Arc<Applicability>) {
        self.0.stores.write().applicability = applicability;
    }

    /// What the stores share.
    pub fn shared(&self) -> &Arc<StoreShared> {
        &self.0.shared
    }
}
