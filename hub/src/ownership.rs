//! Which stores this process moves, and under which application ids it commits them.
//!
//! In embedded form that is all of them. Before Kafka it is the stores of the partitions that the consumer group gave to this
//! process, each partition with an application id of its own: whoever takes a partition over fences that id alone.

use std::collections::BTreeSet;

/// The application id under which a hub in embedded form commits: it is the one source partition of such a lake.
pub const EMBEDDED: &str = "onhand/embedded";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// All stores.
    Whole,
    /// The stores of some partitions.
    Partitions(OwnedPartitions),
}

/// Some partitions of the topic between gateways and processors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedPartitions {
    /// The topic.
    pub topic: String,
    /// How many partitions it has. A store stays where it is only as long as this does not change.
    pub count: i32,
    /// The ones that are owned.
    pub owned: BTreeSet<i32>,
}

/// The partition of a store: its id modulo their number, so that neighbouring stores are spread evenly.
///
/// # Panics
/// If `count` is not positive.
pub fn partition_of(store_id: i32, count: i32) -> i32 {
    store_id.rem_euclid(count)
}

impl OwnedPartitions {
    /// The application id of one partition.
    pub fn app_id(&self, partition: i32) -> String {
        format!("onhand/{}/{partition}", self.topic)
    }

    /// Whether a store's partition is among them.
    pub fn owns(&self, store_id: i32) -> bool {
        self.owned.contains(&partition_of(store_id, self.count))
    }
}

impl Ownership {
    /// The application ids that every commit carries.
    pub fn app_ids(&self) -> Vec<String> {
        match self {
            Self::Whole => vec![EMBEDDED.to_owned()],
            Self::Partitions(partitions) => partitions.owned.iter().map(|&p| partitions.app_id(p)).collect(),
        }
    }

    /// Whether a store is moved here.
    pub fn owns(&self, store_id: i32) -> bool {
        match self {
            Self::Whole => true,
            Self::Partitions(partitions) => partitions.owns(store_id),
        }
    }

    /// Whether this process does what one has to do for all: reference data, count files, compaction. The owner of
    /// partition 0 does.
    pub fn leads(&self) -> bool {
        match self {
            Self::Whole => true,
            Self::Partitions(partitions) => partitions.owned.contains(&0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_store_has_one_owner() {
        let of = |owned: &[i32]| {
            let owned = owned.iter().copied().collect();
            Ownership::Partitions(OwnedPartitions { topic: "t".to_owned(), count: 3, owned })
        };
        let (one, two) = (of(&[0, 2]), of(&[1]));
        assert!((0..100).all(|store| one.owns(store) != two.owns(store)));
        assert_eq!(one.app_ids(), ["onhand/t/0", "onhand/t/2"]);
        assert!(one.leads() && !two.leads() && Ownership::Whole.leads());
    }
}
