//! All tables of a lake, opened for writing.

use super::commit::{CommitError, CommitRequest};
use super::log::{REFLECTS_KEY, Table};
use super::marks::{OwnMarks, Reflected, Versions};
use super::storage::Lake;
use super::tables::TableName;
use crate::ownership::{EMBEDDED, OwnedPartitions, Ownership};
use anyhow::Result;
use onhand_common::Failpoint;
use serde_json::{Value, json};

/// Every table, open.
pub struct Tables {
    /// bronze/raw_inventory_change.
    pub bronze: Table,
    /// silver/inventory_change.
    pub changes: Table,
    /// silver/inventory_snapshot.
    pub counts: Table,
    /// silver/latest_inventory_snapshot.
    pub latest: Table,
    /// silver/store.
    pub stores: Table,
    /// silver/item.
    pub items: Table,
    /// silver/inventory_change_type.
    pub change_types: Table,
    /// silver/quarantine.
    pub quarantine: Table,
    /// gold/inventory_current.
    pub gold: Table,
    /// ops/uncounted_inventory.
    pub uncounted: Table,
    /// ops/positions.
    pub positions: Table,
    /// ops/event_log.
    pub event_log: Table,
    /// ops/count_files.
    pub count_files: Table,
    /// ops/quarantine_replay.
    pub replays: Table,
}

impl Tables {
    /// Opens all, creating those that are not there.
    ///
    /// # Errors
    /// If one cannot be read or created.
    pub async fn open(lake: &Lake) -> Result<Self> {
        let table = |name| Table::open_or_create(lake, name);
        let (bronze, changes, counts, latest, stores, items, change_types) = futures::try_join!(
            table(TableName::RawInventoryChange),
            table(TableName::InventoryChange),
            table(TableName::InventorySnapshot),
            table(TableName::LatestInventorySnapshot),
            table(TableName::Store),
            table(TableName::Item),
            table(TableName::InventoryChangeType),
        )?;
        let (quarantine, gold, uncounted, positions, event_log, count_files, replays) = futures::try_join!(
            table(TableName::Quarantine),
            table(TableName::InventoryCurrent),
            table(TableName::UncountedInventory),
            table(TableName::Positions),
            table(TableName::EventLog),
            table(TableName::CountFiles),
            table(TableName::QuarantineReplay),
        )?;
        Ok(Self {
            bronze,
            changes,
            counts,
            latest,
            stores,
            items,
            change_types,
            quarantine,
            gold,
            uncounted,
            positions,
            event_log,
            count_files,
            replays,
        })
    }

    /// Each table, for what is done to all. Gold comes last: what it says it reflects has to be there before.
    pub fn all(&mut self) -> [&mut Table; 14] {
        [
            &mut self.bronze,
            &mut self.changes,
            &mut self.counts,
            &mut self.latest,
            &mut self.stores,
            &mut self.items,
            &mut self.change_types,
            &mut self.quarantine,
            &mut self.uncounted,
            &mut self.positions,
            &mut self.event_log,
            &mut self.count_files,
            &mut self.replays,
            &mut self.gold,
        ]
    }

    /// Takes over what is owned: from now on whoever committed under these application ids before can no longer. Returns the
    /// new epoch, the upper half of all transaction versions to come.
    ///
    /// A lake has one form at a time, and gold's marks say which: a hub in embedded form refuses a lake that processors keep,
    /// before it changes anything; a processor puts an end to a hub in embedded form.
    ///
    /// # Errors
    /// [`CommitError::Fenced`] if another takes the same over at the same time and wins.
    pub async fn take_over(&mut self, ownership: &Ownership) -> Result<i64, CommitError> {
        self.check_form(ownership).await?;
        match ownership {
            Ownership::Whole => {
                let (epoch, app_ids) = (self.next_epoch(&ownership.app_ids()).await?, ownership.app_ids());
                self.gold.fence(&app_ids, epoch << 32).await?;
                Failpoint::TakeoverFencing.pass();
                self.check_form(ownership).await?;
                self.fence_and_move_mark(&app_ids, epoch << 32).await?;
                Ok(epoch)
            }
            Ownership::Partitions(partitions) => loop {
                match self.take_partitions_over(partitions).await {
                    // Another processor was about to put an end to the same hub in embedded form.
                    Err(CommitError::Fenced { app_id, .. }) if app_id == EMBEDDED => self.check_form(ownership).await?,
                    ended => return ended,
                }
            },
        }
    }

    /// Takes over whatever form the lake has, from all who keep it; what gold says of partitions is no reason to stop.
    ///
    /// # Errors
    /// As [`Tables::take_over`].
    pub async fn take_over_from_all(&mut self) -> Result<i64, CommitError> {
        let said = self.gold.reflects().await?.map(|(_, said)| Reflected::read(said)).transpose()?;
        let Some(Reflected::Partitions(by)) = said else { return self.take_over(&Ownership::Whole).await };
        let mut app_ids = Ownership::Partitions(by.all()).app_ids();
        app_ids.push(EMBEDDED.to_owned());
        let epoch = self.next_epoch(&app_ids).await?;
        self.gold.fence(&app_ids, epoch << 32).await?;
        self.fence_all_but_gold(&app_ids, epoch << 32).await?;
        Ok(epoch)
    }

    async fn check_form(&mut self, ownership: &Ownership) -> anyhow::Result<()> {
        match self.gold.reflects().await? {
            Some((_, said)) => Ok(Reflected::read(said)?.check(ownership)?),
            None => Ok(()),
        }
    }

    /// An epoch above all that these application ids had in any table.
    async fn next_epoch(&mut self, app_ids: &[String]) -> anyhow::Result<i64> {
        let known = self.all().map(async |table: &mut Table| {
            table.learn_transactions(app_ids).await?;
            let mut newest = 0;
            for app_id in app_ids {
                newest = newest.max(table.transaction_version(app_id).await?.unwrap_or(0));
            }
            anyhow::Ok(newest)
        });
        let newest = futures::future::try_join_all(known).await?.into_iter().max().unwrap_or(0);
        Ok((newest >> 32) + 1)
    }

    /// Gold first: its marks stand still from here on. Then the others.
    async fn take_partitions_over(&mut self, partitions: &OwnedPartitions) -> Result<i64, CommitError> {
        let app_ids = Ownership::Partitions(partitions.clone()).app_ids();
        // One look for all: on object storage each takes its time.
        let all = [&app_ids[..], &[EMBEDDED.to_owned()]].concat();
        futures::future::try_join_all(self.all().map(|table| table.learn_transactions(&all))).await?;
        let epoch = self.next_epoch(&app_ids).await?;
        let embedded = self.next_epoch(&[EMBEDDED.to_owned()]).await? << 32;
        let fence = CommitRequest::fence(&app_ids, epoch << 32).with_transaction(EMBEDDED, embedded);
        self.gold.commit(CommitRequest { marks: Some(OwnMarks::of_the_form(partitions)), ..fence }).await?;
        Failpoint::TakeoverFencing.pass();
        // A hub in embedded form may be at work, and may not have noticed yet. Each processor fences it for itself, in the entry
        // after which it reads; as a note, since of two that do so neither is the other's enemy.
        let others = self.all().into_iter().filter(|table| table.name() != TableName::InventoryCurrent);
        let fences = others.map(async |table: &mut Table| {
            let fence = CommitRequest::fence(&app_ids, epoch << 32);
            table.commit(fence.with_notes([(EMBEDDED.to_owned(), embedded)])).await
        });
        futures::future::try_join_all(fences).await?;
        Ok(epoch)
    }

    async fn fence_all_but_gold(&mut self, app_ids: &[String], version: i64) -> Result<(), CommitError> {
        let others = self.all().into_iter().filter(|table| table.name() != TableName::InventoryCurrent);
        let fences = others.map(async |table: &mut Table| table.fence(app_ids, version).await);
        futures::future::try_join_all(fences).await?;
        Ok(())
    }

    /// Fences all but gold. Gold's mark moves on only where nothing but our fence came after what it names.
    async fn fence_and_move_mark(&mut self, app_ids: &[String], version: i64) -> Result<(), CommitError> {
        let said = self.gold.reflects().await?.map(|(_, reflects)| reflects);
        let mut mark = said.clone().unwrap_or_else(|| json!({}));
        let mut empty = self.gold.file_count() == 0;
        for table in self.all() {
            if table.name() == TableName::InventoryCurrent {
                continue;
            }
            let before = table.version();
            let fenced = table.fence(app_ids, version).await?;
            empty &= table.file_count() == 0;
            if fenced == before + 1 && mark[table.name().short()] == before {
                mark[table.name().short()] = fenced.into();
            }
        }
        if said.is_none() && empty {
            mark = self.reflected(); // gold without rows is right over silver without rows
        }
        if said.is_some() || empty {
            let mut request = CommitRequest::append(Vec::new()).with_metadata(REFLECTS_KEY, mark);
            request.operation = "REFLECT";
            request.data_change = false;
            // Whoever takes over in between has the last word.
            for app_id in app_ids {
                request = request.guarded_by(app_id, version);
            }
            self.gold.commit(request).await?;
        }
        Ok(())
    }

    /// The silver versions of now: what a gold commit made now reflects.
    pub fn reflected(&self) -> Value {
        serde_json::to_value(self.versions()).expect("plain data has a JSON form")
    }

    /// The same as numbers.
    pub fn versions(&self) -> Versions {
        let tables = [&self.changes, &self.counts, &self.latest, &self.stores, &self.change_types, &self.uncounted];
        tables.map(|table| (table.name().short().to_owned(), table.version())).into()
    }

    /// Learns what others have committed since, to the tables that all of them read and to those whose versions gold names.
    ///
    /// # Errors
    /// If a log cannot be read.
    pub async fn catch_up(&mut self) -> Result<()> {
        let all = [
            &mut self.changes,
            &mut self.counts,
            &mut self.latest,
            &mut self.uncounted,
            &mut self.stores,
            &mut self.items,
            &mut self.change_types,
        ];
        futures::future::try_join_all(all.map(Table::catch_up)).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::marks::DoesNotFit;
    use crate::lake::samples::lake;

    fn partitions(owned: &[i32]) -> Ownership {
        let owned = owned.iter().copied().collect();
        Ownership::Partitions(OwnedPartitions { topic: "t".to_owned(), count: 3, owned })
    }

    /// Whether a cycle of this owner would be refused, by table.
    async fn refused(tables: &mut Tables, ownership: &Ownership, epoch: i64) -> Vec<bool> {
        let app_ids = ownership.app_ids();
        let mut refused = Vec::new();
        for table in tables.all() {
            let request = CommitRequest::append(Vec::new()).with_transactions(&app_ids, epoch << 32 | 1);
            refused.push(matches!(table.commit(request).await, Err(CommitError::Fenced { .. })));
        }
        refused
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_those_who_create_the_tables_at_once_one_says_what_they_are() {
        let (_folder, lake) = lake();
        let open = |lake: Lake| tokio::spawn(async move { Tables::open(&lake).await.unwrap() });
        let all: Vec<_> = (0..8).map(|_| open(lake.clone())).collect();
        for tables in all {
            let versions = tables.await.unwrap().all().map(|table| (table.name(), table.version()));
            assert!(versions.iter().all(|(_, version)| *version == 0), "{versions:?}");
        }
        // Also whoever did not see that another was faster.
        for name in Tables::open(&lake).await.unwrap().all().map(|table| table.name()) {
            lake.create_table(name, &lake.log_store(name).unwrap()).await.unwrap();
            assert_eq!(Table::open(&lake, name).await.unwrap().version(), 0, "{name}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hub_in_embedded_form_refuses_a_lake_of_processors_and_changes_nothing() {
        let (_folder, lake) = lake();
        let mut processor = Tables::open(&lake).await.unwrap();
        let epoch = processor.take_over(&partitions(&[0, 2])).await.unwrap();
        let mut hub = Tables::open(&lake).await.unwrap();
        let before = hub.all().map(|table| table.version());
        let refusal = hub.take_over(&Ownership::Whole).await.unwrap_err();
        assert!(refusal.to_string().contains("processors keep this lake"), "{refusal}");
        assert_eq!(Tables::open(&lake).await.unwrap().all().map(|table| table.version()), before);
        assert!(!refused(&mut processor, &partitions(&[0, 2]), epoch).await.contains(&true));
        let other = Ownership::Partitions(OwnedPartitions { topic: "t".to_owned(), count: 4, owned: [1].into() });
        let refusal = hub.take_over(&other).await.unwrap_err();
        assert!(refusal.to_string().contains("spread over the 3 partitions"), "{refusal}");
        assert!(DoesNotFit::is(&refusal.into()), "whoever leads lives has to know that it is for good");
        // Each to its own.
        Tables::open(&lake).await.unwrap().take_over(&partitions(&[1])).await.unwrap();
        assert!(!refused(&mut processor, &partitions(&[0, 2]), epoch).await.contains(&true));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn processors_put_an_end_to_a_hub_in_embedded_form() {
        let (_folder, lake) = lake();
        let mut hub = Tables::open(&lake).await.unwrap();
        let epoch = hub.take_over(&Ownership::Whole).await.unwrap();
        Tables::open(&lake).await.unwrap().take_over(&partitions(&[1])).await.unwrap();
        assert!(!refused(&mut hub, &Ownership::Whole, epoch).await.contains(&false));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_takes_over_from_all_ends_both_forms() {
        let (_folder, lake) = lake();
        let mut processors = [Tables::open(&lake).await.unwrap(), Tables::open(&lake).await.unwrap()];
        let parts = [partitions(&[0, 2]), partitions(&[1])];
        let mut epochs = Vec::new();
        for (tables, ownership) in processors.iter_mut().zip(&parts) {
            epochs.push(tables.take_over(ownership).await.unwrap());
        }
        Tables::open(&lake).await.unwrap().take_over_from_all().await.unwrap();
        for ((tables, ownership), epoch) in processors.iter_mut().zip(&parts).zip(epochs) {
            assert!(!refused(tables, ownership, epoch).await.contains(&false));
        }
    }
}
