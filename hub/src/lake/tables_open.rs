//! All tables of a lake, opened for writing.

use super::commit::{CommitError, CommitRequest};
use super::log::{REFLECTS_KEY, Table};
use super::marks::Versions;
use super::storage::Lake;
use super::tables::TableName;
use crate::ownership::Ownership;
use anyhow::Result;
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
}

impl Tables {
    /// Opens all, creating those that are not there.
    ///
    /// # Errors
    /// If one cannot be read or created.
    pub async fn open(lake: &Lake) -> Result<Self> {
        let table = |name| Table::open_or_create(lake, name);
        Ok(Self {
            bronze: table(TableName::RawInventoryChange).await?,
            changes: table(TableName::InventoryChange).await?,
            counts: table(TableName::InventorySnapshot).await?,
            latest: table(TableName::LatestInventorySnapshot).await?,
            stores: table(TableName::Store).await?,
            items: table(TableName::Item).await?,
            change_types: table(TableName::InventoryChangeType).await?,
            quarantine: table(TableName::Quarantine).await?,
            gold: table(TableName::InventoryCurrent).await?,
            uncounted: table(TableName::UncountedInventory).await?,
            positions: table(TableName::Positions).await?,
            event_log: table(TableName::EventLog).await?,
            count_files: table(TableName::CountFiles).await?,
        })
    }

    /// Each table, for what is done to all. Gold comes last: what it says it reflects has to be there before.
    pub fn all(&mut self) -> [&mut Table; 13] {
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
            &mut self.gold,
        ]
    }

    /// Takes over what is owned: from now on whoever committed under these application ids before can no longer. Returns the
    /// new epoch, the upper half of all transaction versions to come.
    ///
    /// # Errors
    /// [`CommitError::Fenced`] if another takes over at the same time and wins.
    pub async fn take_over(&mut self, ownership: &Ownership) -> Result<i64, CommitError> {
        let app_ids = ownership.app_ids();
        let known = self.all().map(async |table: &mut Table| {
            let mut newest = 0;
            for app_id in &app_ids {
                newest = newest.max(table.transaction_version(app_id).await?.unwrap_or(0));
            }
            anyhow::Ok(newest)
        });
        let newest = futures::future::try_join_all(known).await?.into_iter().max().unwrap_or(0);
        let epoch = (newest >> 32) + 1;
        // Gold first: its mark stands still from here on. Then the others.
        self.gold.fence(&app_ids, epoch << 32).await?;
        match ownership {
            Ownership::Whole => self.fence_and_move_mark(&app_ids, epoch << 32).await?,
            Ownership::Partitions(_) => {
                let others = self.all().into_iter().filter(|table| table.name() != TableName::InventoryCurrent);
                let fences = others.map(async |table: &mut Table| table.fence(&app_ids, epoch << 32).await);
                futures::future::try_join_all(fences).await?;
            }
        }
        Ok(epoch)
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

    /// Learns what others have committed since to the tables that all of them read.
    ///
    /// # Errors
    /// If a log cannot be read.
    pub async fn catch_up(&mut self) -> Result<()> {
        let tables = [&mut self.changes, &mut self.counts, &mut self.stores, &mut self.items, &mut self.change_types];
        futures::future::try_join_all(tables.map(Table::catch_up)).await?;
        Ok(())
    }
}
