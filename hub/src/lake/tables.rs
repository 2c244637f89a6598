//! The tables of the lake: names, columns in order, partitions, comments.
//!
//! What holds for all of them:
//! - Protocol (1, 2), columns of plain types, all nullable: every reader of Delta reads them.
//! - Times are UTC, in microseconds.
//! - A partition column stands in its table's column order, but in the files' path instead of in the files.

use deltalake::arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef, TimeUnit};
use deltalake::kernel::{DataType as DeltaType, MetadataValue, StructField};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

/// A table of the lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableName {
    /// `bronze/raw_inventory_change`: documents as received.
    RawInventoryChange,
    /// `silver/inventory_change`: transaction lines.
    InventoryChange,
    /// `silver/inventory_snapshot`: counts.
    InventorySnapshot,
    /// `silver/latest_inventory_snapshot`: the latest count of each item in each store.
    LatestInventorySnapshot,
    /// `silver/store`: reference data.
    Store,
    /// `silver/item`: reference data.
    Item,
    /// `silver/inventory_change_type`: reference data.
    InventoryChangeType,
    /// `silver/quarantine`: what was refused, and why.
    Quarantine,
    /// `gold/inventory_current`: what the rule gives.
    InventoryCurrent,
    /// `ops/event_log`: one row per commit cycle.
    EventLog,
    /// `ops/uncounted_inventory`: items that have changes but were never counted.
    UncountedInventory,
    /// `ops/positions`: how far each agent's events are in silver.
    Positions,
    /// `ops/count_files`: which count files were taken.
    CountFiles,
    /// `ops/quarantine_replay`: which rows of the quarantine were handed in again, and what came of it.
    QuarantineReplay,
}

/// The types that columns have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// 32-bit integer.
    Int,
    /// 64-bit integer.
    Long,
    /// UTF-8.
    String,
    /// Bytes.
    Binary,
    /// UTC, microseconds.
    Timestamp,
    /// A UTC day.
    Date,
}

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: ColumnType,
    /// What it means.
    pub comment: &'static str,
}

/// What a table is.
#[derive(Debug)]
pub struct Definition {
    /// Where it lies below the lake's root.
    pub path: &'static str,
    /// What it holds.
    pub comment: &'static str,
    /// Its property `quality`.
    pub quality: &'static str,
    /// The column it is partitioned by.
    pub partition: Option<&'static str>,
    /// Its columns in order.
    pub columns: &'static [Column],
    /// Columns whose values rarely repeat: written without a dictionary, which is faster and smaller.
    pub unique: &'static [&'static str],
}

impl TableName {
    /// All tables, from bronze to ops.
    pub const ALL: [Self; 14] = [
        Self::RawInventoryChange,
        Self::InventoryChange,
        Self::InventorySnapshot,
        Self::LatestInventorySnapshot,
        Self::Store,
        Self::Item,
        Self::InventoryChangeType,
        Self::Quarantine,
        Self::InventoryCurrent,
        Self::EventLog,
        Self::UncountedInventory,
        Self::Positions,
        Self::CountFiles,
        Self::QuarantineReplay,
    ];

    /// What the table is.
    pub const fn definition(self) -> &'static Definition {
        &DEFINITIONS[self as usize]
    }

    /// Where it lies below the lake's root: `silver/inventory_change`.
    pub const fn path(self) -> &'static str {
        self.definition().path
    }

    /// The last part of its path: `inventory_change`.
    pub fn short(self) -> &'static str {
        let path = self.path();
        path.rsplit_once('/').map_or(path, |(_, last)| last)
    }

    /// The column it is partitioned by.
    pub const fn partition_column(self) -> Option<&'static str> {
        self.definition().partition
    }

    /// The position and description of a column.
    pub fn column(self, name: &str) -> Option<(usize, &'static Column)> {
        self.definition().columns.iter().enumerate().find(|(_, c)| c.name == name)
    }

    /// The schema of its rows, partition column included.
    pub fn arrow_schema(self) -> SchemaRef {
        static SCHEMAS: [OnceLock<SchemaRef>; TableName::ALL.len()] = [const { OnceLock::new() }; TableName::ALL.len()];
        let schema = SCHEMAS[self as usize].get_or_init(|| {
            let fields: Vec<Field> =
                self.definition().columns.iter().map(|c| Field::new(c.name, c.kind.arrow(), true)).collect();
            Arc::new(Schema::new(fields))
        });
        Arc::clone(schema)
    }

    /// Its columns as the Delta log describes them.
    pub(crate) fn delta_columns(self) -> impl Iterator<Item = StructField> {
        self.definition().columns.iter().map(|c| {
            let comment = [("comment", MetadataValue::String(c.comment.to_owned()))];
            StructField::nullable(c.name, c.kind.delta()).with_metadata(comment)
        })
    }

    /// The columns that the log keeps the least and greatest value of: those one prunes files by.
    pub(crate) fn statistics_columns(self) -> String {
        let columns = self.definition().columns.iter();
        let ordered = columns.filter(|c| !matches!(c.kind, ColumnType::String | ColumnType::Binary));
        ordered.map(|c| c.name).collect::<Vec<_>>().join(",")
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path())
    }
}

/// No table has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no table {0:?}; the tables are: {known}", known = known_names())]
pub struct UnknownTable(pub String);

fn known_names() -> String {
    TableName::ALL.iter().map(|t| t.path()).collect::<Vec<_>>().join(", ")
}

impl FromStr for TableName {
    type Err = UnknownTable;

    /// Takes a whole path (`gold/inventory_current`) or its last part (`inventory_current`).
    fn from_str(name: &str) -> Result<Self, UnknownTable> {
        let wanted = name.trim_matches('/');
        let found = Self::ALL.into_iter().find(|t| t.path() == wanted || t.short() == wanted);
        found.ok_or_else(|| UnknownTable(name.to_owned()))
    }
}

impl ColumnType {
    /// Whether one value may be much longer than another.
    pub fn is_of_any_length(self) -> bool {
        matches!(self, Self::String | Self::Binary)
    }

    /// The type in Arrow.
    pub fn arrow(self) -> ArrowType {
        match self {
            Self::Int => ArrowType::Int32,
            Self::Long => ArrowType::Int64,
            Self::String => ArrowType::Utf8,
            Self::Binary => ArrowType::Binary,
            Self::Timestamp => ArrowType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Date => ArrowType::Date32,
        }
    }

    fn delta(self) -> DeltaType {
        match self {
            Self::Int => DeltaType::INTEGER,
            Self::Long => DeltaType::LONG,
            Self::String => DeltaType::STRING,
            Self::Binary => DeltaType::BINARY,
            Self::Timestamp => DeltaType::TIMESTAMP,
            Self::Date => DeltaType::DATE,
        }
    }
}

const fn column(name: &'static str, kind: ColumnType, comment: &'static str) -> Column {
    Column { name, kind, comment }
}

const STORE_ID: Column = column("store_id", ColumnType::Int, "The store");
const ITEM_ID: Column = column("item_id", ColumnType::Int, "The item");
const EMPLOYEE_ID: Column = column("employee_id", ColumnType::Int, "Who counted");
const CHANGE_TYPE_ID: Column =
    column("change_type_id", ColumnType::Int, "What kind of change: see inventory_change_type");
const COUNTED_AT: Column = column("date_time", ColumnType::Timestamp, "When it was counted, UTC");
const COUNTED: Column = column("quantity", ColumnType::Int, "How many were counted");
const AGENT_ID: Column = column("agent_id", ColumnType::String, "Lineage: the agent that sent it");
const EPOCH: Column = column("epoch", ColumnType::Long, "Lineage: the epoch of the agent's outbox");
const SEQ: Column = column("seq", ColumnType::Long, "Lineage: the event's number within the epoch");

/// In the order of [`TableName`]'s variants.
static DEFINITIONS: [Definition; TableName::ALL.len()] = [
    Definition {
        path: "bronze/raw_inventory_change",
        comment: "Inventory change and count documents as they were received",
        quality: "bronze",
        partition: None,
        columns: &[
            column("key", ColumnType::Binary, "The message's key"),
            column("value", ColumnType::Binary, "The document as received"),
            column("topic", ColumnType::String, "The topic it came on"),
            column("partition", ColumnType::Int, "The topic's partition"),
            column("offset", ColumnType::Long, "Its place within the partition"),
            column("timestamp", ColumnType::Timestamp, "When it was received, UTC"),
            column(
                "timestampType",
                ColumnType::Int,
                "Whose clock gave the timestamp: 0 the sender's, 1 the receiver's",
            ),
        ],
        unique: &["key", "value", "offset"],
    },
    Definition {
        path: "silver/inventory_change",
        comment: "Inventory changes, one row per item of a transaction, each once",
        quality: "silver",
        partition: Some("date"),
        columns: &[
            column("trans_id", ColumnType::String, "The transaction; unique within its store"),
            STORE_ID,
            column("date_time", ColumnType::Timestamp, "When it happened, UTC"),
            CHANGE_TYPE_ID,
            ITEM_ID,
            column("quantity", ColumnType::Int, "How many came (positive) or went (negative)"),
            AGENT_ID,
            EPOCH,
            SEQ,
            column("date", ColumnType::Date, "The UTC day of date_time"),
        ],
        unique: &["trans_id", "seq"],
    },
    Definition {
        path: "silver/inventory_snapshot",
        comment: "Counts of items in stores, each once",
        quality: "silver",
        partition: None,
        columns: &[ITEM_ID, EMPLOYEE_ID, STORE_ID, COUNTED_AT, COUNTED, AGENT_ID, EPOCH, SEQ],
        unique: &["seq"],
    },
    Definition {
        path: "silver/latest_inventory_snapshot",
        comment: "The latest count of each item in each store",
        quality: "silver",
        partition: Some("store_id"),
        columns: &[STORE_ID, ITEM_ID, EMPLOYEE_ID, COUNTED_AT, COUNTED],
        unique: &["item_id"],
    },
    Definition {
        path: "silver/store",
        comment: "The stores",
        quality: "silver",
        partition: None,
        columns: &[
            STORE_ID,
            column("name", ColumnType::String, "Its name; the store named online takes no bopis changes"),
        ],
        unique: &["store_id", "name"],
    },
    Definition {
        path: "silver/item",
        comment: "The items",
        quality: "silver",
        partition: None,
        columns: &[
            ITEM_ID,
            column("name", ColumnType::String, "Its name"),
            column("supplier_id", ColumnType::Int, "Who supplies it"),
            column("safety_stock_quantity", ColumnType::Int, "Below this many, it should be ordered"),
        ],
        unique: &["item_id", "name"],
    },
    Definition {
        path: "silver/inventory_change_type",
        comment: "The kinds of inventory change",
        quality: "silver",
        partition: None,
        columns: &[
            CHANGE_TYPE_ID,
            column("change_type", ColumnType::String, "Its name: sale, restock, shrinkage, bopis"),
        ],
        unique: &["change_type_id", "change_type"],
    },
    Definition {
        path: "silver/quarantine",
        comment: "What was refused, with the reason",
        quality: "silver",
        partition: None,
        columns: &[
            column("received_at", ColumnType::Timestamp, "When it came, UTC"),
            column("source", ColumnType::String, "Where it came from"),
            column("reason", ColumnType::String, "Why it was refused: a short, fixed word"),
            column("detail", ColumnType::String, "The same in full, with field and value"),
            column("payload", ColumnType::Binary, "What came, as it came"),
        ],
        unique: &["detail", "payload"],
    },
    Definition {
        path: "gold/inventory_current",
        comment: "Current inventory: the latest count of each item in each store and the changes since",
        quality: "gold",
        partition: Some("store_id"),
        columns: &[
            STORE_ID,
            ITEM_ID,
            column("snapshot_quantity", ColumnType::Int, "The latest count"),
            column("change_quantity", ColumnType::Long, "The sum of the changes since it"),
            column("current_inventory", ColumnType::Long, "How many there are: the two together"),
            column("date_time", ColumnType::Timestamp, "The newest of them, UTC"),
        ],
        unique: &["item_id"],
    },
    Definition {
        path: "ops/event_log",
        comment: "What the hub committed, one row per commit cycle",
        quality: "ops",
        partition: None,
        columns: &[
            column("started_at", ColumnType::Timestamp, "When the cycle began, UTC"),
            column("finished_at", ColumnType::Timestamp, "When it ended, UTC"),
            column("kind", ColumnType::String, "silver, gold, upkeep, restatement, …"),
            column("rows_appended", ColumnType::Long, "Rows that were added"),
            column("rows_replaced", ColumnType::Long, "Rows that were written anew"),
            column("stores", ColumnType::Int, "How many stores it touched"),
            column("silver_version", ColumnType::Long, "The version of inventory_change afterwards"),
            column("gold_version", ColumnType::Long, "The version of inventory_current afterwards"),
            column("duplicates", ColumnType::Long, "Lines and counts that were already known"),
            column("quarantined", ColumnType::Long, "Documents that were refused"),
            column("expectations", ColumnType::String, "Results of the expectations, as JSON"),
            column("error", ColumnType::String, "What went wrong, if anything did"),
        ],
        unique: &["started_at", "finished_at"],
    },
    Definition {
        path: "ops/uncounted_inventory",
        comment: "Items that have changes but were never counted",
        quality: "ops",
        partition: Some("store_id"),
        columns: &[
            STORE_ID,
            ITEM_ID,
            column("change_quantity", ColumnType::Long, "The sum of all changes"),
            column("date_time", ColumnType::Timestamp, "The newest of them, UTC"),
        ],
        unique: &["item_id"],
    },
    Definition {
        path: "ops/positions",
        comment: "How far the events of each agent are in silver",
        quality: "ops",
        partition: None,
        columns: &[
            column("agent_id", ColumnType::String, "The agent"),
            column("epoch", ColumnType::Long, "The epoch of its outbox"),
            column("store_id", ColumnType::Int, "The store, where the position is a store's"),
            column("seq", ColumnType::Long, "The last event that is in silver"),
            column("silver_version", ColumnType::Long, "The version of inventory_change that this holds for"),
        ],
        unique: &[],
    },
    Definition {
        path: "ops/count_files",
        comment: "The count files that were taken or refused, by the batches they were taken in",
        quality: "ops",
        partition: None,
        columns: &[
            column("name", ColumnType::String, "The file's name in its folder"),
            column("size", ColumnType::Long, "Bytes"),
            column("modified", ColumnType::Timestamp, "When it was written to last, UTC"),
            column("rows", ColumnType::Long, "Counts it held; 0 if it was refused"),
            column("planned_at", ColumnType::Timestamp, "When it became part of its batch, UTC"),
            column("error", ColumnType::String, "Why it was refused"),
            column(
                "batch",
                ColumnType::Long,
                "Its batch; the newest that was taken is the version of onhand/count-files in inventory_snapshot",
            ),
            column("after", ColumnType::Long, "The newest batch that had been taken when this one was planned"),
        ],
        unique: &[],
    },
    Definition {
        path: "ops/quarantine_replay",
        comment: "Rows of the quarantine that were handed in again: what was asked for, and what came of it",
        quality: "ops",
        partition: None,
        columns: &[
            column("quarantine_id", ColumnType::String, "The row, by the id that `onhand-hub quarantine list` shows"),
            column("received_at", ColumnType::Timestamp, "The row's own received_at, UTC"),
            column("source", ColumnType::String, "The row's own source"),
            column("replay_id", ColumnType::String, "One replay: asked for and its outcome have the same"),
            column("written_at", ColumnType::Timestamp, "When it was asked for, or came out, UTC"),
            column("state", ColumnType::String, "asked; then taken, or refused, after which the row is open again"),
            column("detail", ColumnType::String, "What was taken, or why it was refused"),
            column("payload", ColumnType::Binary, "Where it is asked for: what is handed in"),
        ],
        unique: &["payload"],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_found_by_both_its_names() {
        for table in TableName::ALL {
            assert_eq!(table.path().parse(), Ok(table));
            assert_eq!(table.short().parse(), Ok(table));
            let definition = table.definition();
            if let Some(partition) = definition.partition {
                assert!(table.column(partition).is_some());
            }
            assert!(definition.unique.iter().all(|c| table.column(c).is_some()), "{table}");
        }
        let error = "inventory".parse::<TableName>().unwrap_err().to_string();
        assert!(error.contains("gold/inventory_current"), "{error}");
    }

    #[test]
    fn columns_stand_in_the_contracts_order() {
        let names = |t: TableName| t.definition().columns.iter().map(|c| c.name).collect::<Vec<_>>().join(" ");
        assert_eq!(
            names(TableName::InventoryChange),
            "trans_id store_id date_time change_type_id item_id quantity agent_id epoch seq date"
        );
        assert_eq!(
            names(TableName::InventoryCurrent),
            "store_id item_id snapshot_quantity change_quantity current_inventory date_time"
        );
    }
}
