//! Which versions of the silver tables a gold commit reflects, as its metadata says.
//!
//! In embedded form one set of versions holds for all of gold. With partitions each has a set of its own: an owner commits gold
//! for its partitions alone, and repeats what the others' commits said before. A lake that was kept in embedded form goes
//! on with partitions: what was said for all of it holds for a partition until its owner says otherwise.

use super::commit::CommitError;
use super::tables::TableName;
use crate::ownership::{OwnedPartitions, Ownership};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Versions by the short name of their table.
pub type Versions = BTreeMap<String, i64>;

/// What gold reflects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reflected {
    /// The same for all stores.
    Whole(Versions),
    /// By partition.
    Partitions(ByPartition),
}

/// What each partition's rows of gold reflect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByPartition {
    /// The topic whose partitions are meant.
    pub topic: String,
    /// How many it has.
    pub partitions: i32,
    /// By partition.
    pub marks: BTreeMap<i32, Versions>,
    /// For partitions that are not in `marks`: what the lake in embedded form reflected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Versions>,
}

/// Gold is marked for another form, or for other partitions. Trying again does not help.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DoesNotFit(String);

impl DoesNotFit {
    /// Whether this is what an error says, also where a commit passes it on.
    pub fn is(error: &anyhow::Error) -> bool {
        let passed_on = match error.downcast_ref::<CommitError>() {
            Some(CommitError::Other(inner)) => inner,
            _ => error,
        };
        passed_on.downcast_ref::<Self>().is_some()
    }
}

impl Reflected {
    /// Reads what a commit's metadata says.
    ///
    /// # Errors
    /// If it is nothing that this program writes.
    pub fn read(said: Value) -> Result<Self> {
        let by_partition = said.get("marks").is_some();
        let read = if by_partition {
            serde_json::from_value(said).map(Self::Partitions)
        } else {
            serde_json::from_value(said).map(Self::Whole)
        };
        read.context("read what the newest gold commit reflects")
    }

    /// Whether whoever owns this may go on with what gold says: in the form that the lake has, and with the partitions over
    /// which its stores are spread.
    ///
    /// # Errors
    /// Says what does not fit, and what to do.
    pub fn check(&self, ownership: &Ownership) -> Result<(), DoesNotFit> {
        match (self, ownership) {
            (Self::Partitions(_), Ownership::Whole) => Err(DoesNotFit(
                "processors keep this lake (its gold is marked by partition): to go on in embedded form, stop them and run \
                 `onhand-hub rebuild` once"
                    .to_owned(),
            )),
            (Self::Partitions(by), Ownership::Partitions(ours))
                if (&by.topic, by.partitions) != (&ours.topic, ours.count) =>
            {
                Err(DoesNotFit(format!(
                    "this lake's stores are spread over the {} partitions of topic {:?}, not over the {} of {:?}: a store \
                     must not move from one partition to another. Drain the old topic, stop all processors and run \
                     `onhand-hub rebuild` once",
                    by.partitions,
                    by.topic,
                    ours.count,
                    ours.topic
                )))
            }
            _ => Ok(()),
        }
    }

    /// Some partitions, parted into those whose rows reflect the same: what one owner committed last.
    pub fn groups(&self, partitions: &OwnedPartitions) -> Vec<(Versions, OwnedPartitions)> {
        let mut groups: BTreeMap<Versions, BTreeSet<i32>> = BTreeMap::new();
        for &partition in &partitions.owned {
            let versions = match self {
                Self::Whole(versions) => versions.clone(),
                Self::Partitions(by) => by.of(partition).cloned().unwrap_or_default(),
            };
            groups.entry(versions).or_default().insert(partition);
        }
        let of = |owned| OwnedPartitions { owned, ..partitions.clone() };
        groups.into_iter().map(|(versions, owned)| (versions, of(owned))).collect()
    }

    /// The version of a table that every owner reflects; -1 before there is one.
    pub fn by_all(&self, table: TableName) -> i64 {
        let version = |versions: &Versions| versions.get(table.short()).copied().unwrap_or(-1);
        match self {
            Self::Whole(versions) => version(versions),
            Self::Partitions(by) => {
                let partitions = (0..by.partitions).map(|partition| by.of(partition).map_or(-1, version));
                partitions.min().unwrap_or(-1)
            }
        }
    }

    /// Each version of a table that is reflected by somebody, the oldest first.
    pub fn each(&self, table: TableName) -> Vec<i64> {
        let version = |versions: &Versions| versions.get(table.short()).copied();
        let each: BTreeSet<i64> = match self {
            Self::Whole(versions) => version(versions).into_iter().collect(),
            Self::Partitions(by) => by.marks.values().chain(&by.before).filter_map(version).collect(),
        };
        each.into_iter().collect()
    }
}

impl ByPartition {
    /// All of the topic's partitions.
    pub fn all(&self) -> OwnedPartitions {
        OwnedPartitions { topic: self.topic.clone(), count: self.partitions, owned: (0..self.partitions).collect() }
    }

    /// What holds for a partition's rows; `None` if nothing was committed for it yet.
    fn of(&self, partition: i32) -> Option<&Versions> {
        self.marks.get(&partition).or(self.before.as_ref())
    }
}

/// What the owner of some partitions has to say.
#[derive(Debug, Clone)]
pub struct OwnMarks {
    /// Its partitions.
    pub partitions: OwnedPartitions,
    /// What its rows reflect.
    pub versions: Versions,
}

impl OwnMarks {
    /// Says only that gold is marked by these partitions from now on, and of none of them what it reflects.
    pub fn of_the_form(partitions: &OwnedPartitions) -> Self {
        let partitions = OwnedPartitions { owned: BTreeSet::new(), ..partitions.clone() };
        Self { partitions, versions: Versions::new() }
    }

    /// What the next commit says, after what was said before.
    pub(super) fn merged_into(&self, said: Option<Value>) -> Value {
        let mut all = match said.and_then(|said| Reflected::read(said).ok()) {
            Some(Reflected::Partitions(by)) => by,
            Some(Reflected::Whole(versions)) => ByPartition { before: Some(versions), ..ByPartition::default() },
            None => ByPartition::default(),
        };
        all.topic.clone_from(&self.partitions.topic);
        all.partitions = self.partitions.count;
        for &partition in &self.partitions.owned {
            all.marks.insert(partition, self.versions.clone());
        }
        if (0..all.partitions).all(|partition| all.marks.contains_key(&partition)) {
            // Nobody asks for it any more, and what it names need not be kept for its sake.
            all.before = None;
        }
        serde_json::to_value(all).expect("plain data has a JSON form")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn own(owned: &[i32], version: i64) -> OwnMarks {
        let owned = owned.iter().copied().collect();
        OwnMarks {
            partitions: OwnedPartitions { topic: "t".to_owned(), count: 2, owned },
            versions: [("inventory_change".to_owned(), version)].into(),
        }
    }

    #[test]
    fn an_owner_speaks_for_its_partitions_alone() {
        let version = |said: &Value, partition: i32| {
            let Reflected::Partitions(by) = Reflected::read(said.clone()).unwrap() else {
                panic!("it is by partition")
            };
            by.of(partition).map(|versions| versions["inventory_change"])
        };
        let said = own(&[0], 5).merged_into(Some(json!({"inventory_change": 3})));
        assert_eq!(
            (version(&said, 0), version(&said, 1)),
            (Some(5), Some(3)),
            "3 is from before there were partitions"
        );
        let said = own(&[1], 9).merged_into(Some(said));
        assert_eq!((version(&said, 0), version(&said, 1)), (Some(5), Some(9)));
        let reflected = Reflected::read(said).unwrap();
        assert_eq!(reflected.by_all(TableName::InventoryChange), 5);
        assert_eq!(reflected.each(TableName::InventoryChange), [5, 9], "each partition has a version of its own now");
        assert_eq!(reflected.groups(&own(&[0, 1], 0).partitions).len(), 2);
        let same = Reflected::read(own(&[0, 1], 9).merged_into(None)).unwrap();
        assert_eq!(same.groups(&own(&[0, 1], 0).partitions).len(), 1);
        let fresh = Reflected::read(own(&[1], 9).merged_into(None)).unwrap();
        assert_eq!(fresh.by_all(TableName::InventoryChange), -1, "partition 0 has nothing yet");
    }
}
