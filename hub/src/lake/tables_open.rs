//! All tables of a lake, opened for writing by one hub.

use super::commit::{CommitError, CommitRequest};
use super::log::{REFLECTS_KEY, Table};
use super::storage::Lake;
use super::tables::TableName;
use anyhow::Result;
use serde_json::{Value, json};

/// The application id under which a hub in embedded form commits: it is the one source partition of such a lake.
pub const EMBEDDED: &str = "onhand/embedded";

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
        })
    }

    /// Each table, for what is done to all. Gold comes last: what it says it reflects has to be there before.
    pub fn all(&mut self) -> [&mut Table; 12] {
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
            &mut self.gold,
        ]
    }

    /// Takes the lake over: from now on whoever committed under [`EMBEDDED`] before can no longer. Returns the new epoch,
    /// the upper half of all transaction versions to come.
    ///
    /// # Errors
    /// [`CommitError::Fenced`] if another hub takes over at the same time and wins.
    pub async fn take_over(&mut self) -> Result<i64, CommitError> {
        let mut newest = 0;
        for table in self.all() {
            newest = newest.max(table.transaction_version(EMBEDDED).await?.unwrap_or(0));
        }
        let epoch = (newest >> 32) + 1;
        // Gold first: its mark stands still from here on. Then the others; the mark moves on only where nothing but our fence
        // came after what it names.
        self.gold.fence(EMBEDDED, epoch << 32).await?;
        let said = self.gold.reflects().await?.map(|(_, reflects)| reflects);
        let mut mark = said.clone().unwrap_or_else(|| json!({}));
        let mut empty = self.gold.file_count() == 0;
        for table in self.all() {
            if table.name() == TableName::InventoryCurrent {
                continue;
            }
            let before = table.version();
            let fenced = table.fence(EMBEDDED, epoch << 32).await?;
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
        Ok(epoch)
    }

    /// The silver versions of now: what a gold commit made now reflects.
    pub fn reflected(&self) -> Value {
        json!({
            "inventory_change": self.changes.version(),
            "inventory_snapshot": self.counts.version(),
            "latest_inventory_snapshot": self.latest.version(),
            "store": self.stores.version(),
            "inventory_change_type": self.change_types.version(),
            "uncounted_inventory": self.uncounted.version(),
        })
    }
}
