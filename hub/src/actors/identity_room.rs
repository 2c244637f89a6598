//! How many identities all stores of a process may remember, and how many they do.

use super::limits::ActorLimits;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// So many identities a store keeps of each kind, if all the stores together leave it so many.
const LEAST: usize = 4_096;
/// Few stores are as many as this, so that one of them cannot have it all.
const FEW_STORES: usize = 64;

/// The room, and how much of it is taken.
#[derive(Debug)]
pub struct IdentityRoom {
    most: usize,
    held: AtomicUsize,
    stores: AtomicUsize,
}

impl IdentityRoom {
    /// Nothing is taken yet.
    pub fn new(limits: &ActorLimits) -> Arc<Self> {
        Arc::new(Self { most: limits.identities, held: AtomicUsize::new(0), stores: AtomicUsize::new(0) })
    }

    /// How many identities are in memory; what is kept in filters, by its room.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// How many more may be.
    fn left(&self) -> usize {
        self.most.saturating_sub(self.held())
    }

    /// Whether there are more than may be.
    pub fn is_overfull(&self) -> bool {
        self.held() > self.most
    }

    /// So many a store keeps of each kind even then: of all of them together at most half of the room.
    pub fn least_of_a_store(&self) -> usize {
        (self.most / (4 * self.stores.load(Relaxed).max(FEW_STORES))).min(LEAST)
    }

    /// So many of whole days a look into silver may bring as they are.
    pub fn most_of_a_look(&self) -> usize {
        (self.left() / 4).max(self.least_of_a_store())
    }

    /// A store's place. It holds nothing yet.
    pub fn place_of_a_store(self: &Arc<Self>) -> Place {
        self.stores.fetch_add(1, Relaxed);
        Place { room: Arc::clone(self), holds: 0, of_a_store: true }
    }

    /// The place of what is on its way to a store.
    pub fn place_on_the_way(self: &Arc<Self>, holds: usize) -> Place {
        let mut place = Place { room: Arc::clone(self), holds: 0, of_a_store: false };
        place.holds(holds);
        place
    }
}

/// What a store holds, or what is on its way to one. Gives it back when dropped.
#[derive(Debug)]
pub struct Place {
    room: Arc<IdentityRoom>,
    holds: usize,
    of_a_store: bool,
}

impl Place {
    /// The whole room.
    pub fn room(&self) -> &IdentityRoom {
        &self.room
    }

    /// It holds so many now.
    pub fn holds(&mut self, now: usize) {
        self.room.held.fetch_add(now.wrapping_sub(self.holds), Relaxed);
        self.holds = now;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.holds(0);
        self.room.stores.fetch_sub(usize::from(self.of_a_store), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(identities: usize) -> Arc<IdentityRoom> {
        IdentityRoom::new(&ActorLimits { identities, ..ActorLimits::default() })
    }

    #[test]
    fn what_is_held_is_counted_and_given_back() {
        let room = room(1_000);
        let (mut one, other) = (room.place_of_a_store(), room.place_on_the_way(400));
        one.holds(700);
        assert!(room.is_overfull() && room.left() == 0 && room.held() == 1_100);
        one.holds(100);
        assert_eq!((room.is_overfull(), room.left(), room.most_of_a_look()), (false, 500, 125));
        drop(other);
        assert_eq!((room.held(), room.left()), (100, 900));
    }

    #[test]
    fn what_stores_keep_in_any_case_never_passes_half_of_the_room() {
        for most in [0, 1_000, 16_000_000] {
            let room = room(most);
            let mut places = Vec::new();
            for stores in [1, 64, 900, 10_000] {
                places.resize_with(stores, || room.place_of_a_store());
                let least = room.least_of_a_store();
                assert!(2 * stores * least <= most / 2, "{stores} stores keep {least} of {most}");
            }
            assert_eq!(room.most_of_a_look(), most / 4);
        }
        assert_eq!(room(16_000_000).least_of_a_store(), LEAST);
    }
}
