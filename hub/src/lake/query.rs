//! Rows of any table, for people: filtered, in a stable order, cell by cell.

use super::log::{LiveFile, Table};
use super::read::{ints, longs, strings};
use super::storage::Lake;
use super::tables::TableName;
use anyhow::{Context, Result, bail};
use deltalake::arrow::array::types::{Date32Type, Int32Type, Int64Type, TimestampMicrosecondType};
use deltalake::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, RecordBatch, StringArray};
use deltalake::arrow::compute::{
    SortColumn, concat_batches, filter_record_batch, lexsort_to_indices, take_record_batch,
};
use deltalake::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::TryStreamExt;
use onhand_common::{ItemId, StoreId, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;

/// Most rows that are brought in order, which takes them all in memory; more come as the files have them.
const MOST_SORTED_ROWS: u64 = 2_000_000;

/// Which state of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Moment {
    /// The newest.
    #[default]
    Now,
    /// A version.
    Version(i64),
    /// The newest version at that time.
    AsOf(Timestamp),
}

/// Which rows.
#[derive(Debug, Clone)]
pub struct Query {
    /// Of which table.
    pub table: TableName,
    /// In which state.
    pub moment: Moment,
    /// Only of this store.
    pub store: Option<StoreId>,
    /// Only of this item.
    pub item: Option<ItemId>,
    /// Only items of which there are fewer than the safety stock; adds the item's name and safety stock.
    pub below_safety_stock: bool,
    /// At most so many.
    pub limit: Option<usize>,
}

/// Some rows of the answer.
#[derive(Debug, Clone)]
pub struct Rows(RecordBatch);

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    /// None.
    Null,
    /// A number.
    Number(i64),
    /// A text, time or day.
    Text(String),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl Rows {
    /// The columns' names.
    pub fn columns(&self) -> Vec<String> {
        self.0.schema().fields().iter().map(|f| f.name().clone()).collect()
    }

    /// Whether a column holds numbers.
    pub fn is_number(&self, column: usize) -> bool {
        self.0.column(column).data_type().is_integer()
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.0.num_rows()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A value; times in RFC 3339, days as `yyyy-mm-dd`.
    pub fn cell(&self, row: usize, column: usize) -> Cell<'_> {
        let array = self.0.column(column);
        if array.is_null(row) {
            return Cell::Null;
        }
        match array.data_type() {
            DataType::Int32 => Cell::Number(array.as_primitive::<Int32Type>().value(row).into()),
            DataType::Int64 => Cell::Number(array.as_primitive::<Int64Type>().value(row)),
            DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(row).to_owned()),
            DataType::Binary => Cell::Bytes(array.as_binary::<i32>().value(row)),
            DataType::Date32 => {
                let days = array.as_primitive::<Date32Type>().value(row);
                let day = chrono::NaiveDate::from_epoch_days(days);
                Cell::Text(day.map_or_else(|| format!("day {days}"), |day| day.to_string()))
            }
            DataType::Timestamp(..) => {
                let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
                let time = Timestamp::from_micros(micros);
                Cell::Text(time.map_or_else(|_| format!("{micros} µs"), |time| time.to_string()))
            }
            other => Cell::Text(format!("({other})")),
        }
    }
}

impl Query {
    /// Hands the rows to `sink`, at least once (so that it learns the columns), and returns how many there are in all,
    /// beyond the limit too.
    ///
    /// # Errors
    /// If the table cannot be read, the question does not fit it, or `sink` fails.
    pub async fn run(&self, lake: &Lake, sink: &mut (dyn FnMut(&Rows) -> Result<()> + Send)) -> Result<u64> {
        let name = self.table;
        if self.store.is_some() && name.column("store_id").is_none() {
            bail!("{name} has no column store_id");
        }
        if self.item.is_some() && name.column("item_id").is_none() {
            bail!("{name} has no column item_id");
        }
        if self.below_safety_stock && name != TableName::InventoryCurrent {
            bail!("only {} knows what is below the safety stock", TableName::InventoryCurrent);
        }
        let table = match self.moment {
            Moment::Now => Table::open(lake, name).await?,
            Moment::Version(version) => Table::open_at(lake, name, version).await?,
            Moment::AsOf(time) => Table::open_as_of(lake, name, time).await?,
        };
        let items = if self.below_safety_stock { Some(Items::read(lake).await?) } else { None };
        let schema = match &items {
            Some(_) => Items::extend(&name.arrow_schema()),
            None => name.arrow_schema(),
        };
        let files: Vec<LiveFile> = table.live_files().filter(|file| self.may_have(file)).cloned().collect();
        let sorted = files.iter().map(|f| f.rows).sum::<u64>() <= MOST_SORTED_ROWS;
        let columns: Vec<&str> = name.definition().columns.iter().map(|c| c.name).collect();
        let mut answer = Answer { limit: self.limit.unwrap_or(usize::MAX), sent: 0, total: 0, sink };
        let mut kept = Vec::new();
        let mut batches = std::pin::pin!(table.read(files, &columns));
        while let Some(batch) = batches.try_next().await? {
            let batch = self.matching(batch)?;
            let batch = match &items {
                Some(items) => items.below_safety_stock(&batch, &schema)?,
                None => batch,
            };
            if sorted {
                kept.push(batch);
            } else {
                answer.add(batch)?;
            }
        }
        if sorted {
            answer.add(in_order(&concat_batches(&schema, &kept)?)?)?;
        } else if answer.total == 0 {
            answer.add(RecordBatch::new_empty(schema))?;
        }
        Ok(answer.total)
    }

    /// Whether a file can have such rows, as far as the log tells.
    fn may_have(&self, file: &LiveFile) -> bool {
        let Some(store) = self.store else { return true };
        if self.table.partition_column() == Some("store_id") {
            return file.partition.is_none_or(|p| p == i64::from(store.get()));
        }
        file.store_id.is_none_or(|(least, greatest)| (least..=greatest).contains(&store.get()))
    }

    fn matching(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let wanted = [("store_id", self.store.map(|s| s.get())), ("item_id", self.item.map(|i| i.get()))];
        let mut batch = batch;
        for (column, value) in wanted {
            let Some(value) = value else { continue };
            let array = batch.column_by_name(column).with_context(|| format!("no column {column}"))?;
            let ids = array.as_primitive::<Int32Type>();
            let keep: BooleanArray = ids.iter().map(|id| Some(id == Some(value))).collect();
            batch = filter_record_batch(&batch, &keep)?;
        }
        Ok(batch)
    }
}

struct Answer<'a> {
    limit: usize,
    sent: usize,
    total: u64,
    sink: &'a mut (dyn FnMut(&Rows) -> Result<()> + Send),
}

impl Answer<'_> {
    fn add(&mut self, batch: RecordBatch) -> Result<()> {
        let take = batch.num_rows().min(self.limit - self.sent);
        self.total += batch.num_rows() as u64;
        self.sent += take;
        if take > 0 || self.total == 0 {
            (self.sink)(&Rows(batch.slice(0, take)))?;
        }
        Ok(())
    }
}

/// By store, item and time where there are such columns, then by everything else: the same rows, the same output.
fn in_order(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    let first = ["store_id", "item_id", "date_time", "received_at", "started_at"];
    let mut columns: Vec<usize> = first.iter().filter_map(|name| schema.index_of(name).ok()).collect();
    columns.extend((0..schema.fields().len()).filter(|c| !first.contains(&schema.field(*c).name().as_str())));
    let columns: Vec<SortColumn> =
        columns.into_iter().map(|c| SortColumn { values: Arc::clone(batch.column(c)), options: None }).collect();
    let order = lexsort_to_indices(&columns, None)?;
    Ok(take_record_batch(batch, &order)?)
}

/// Names and safety stocks of the items, by id.
struct Items(HashMap<i32, (String, i32)>);

impl Items {
    async fn read(lake: &Lake) -> Result<Self> {
        let table = Table::open(lake, TableName::Item).await?;
        let mut items = HashMap::new();
        let mut batches = std::pin::pin!(table.read_all(&["item_id", "name", "safety_stock_quantity"]));
        while let Some(batch) = batches.try_next().await? {
            let (ids, names, stocks) = (ints(&batch, 0)?, strings(&batch, 1)?, ints(&batch, 2)?);
            for row in 0..batch.num_rows() {
                items.insert(ids[row], (names.value(row).to_owned(), stocks[row]));
            }
        }
        Ok(Self(items))
    }

    fn extend(schema: &Schema) -> SchemaRef {
        let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        fields.push(Field::new("item_name", DataType::Utf8, true));
        fields.push(Field::new("safety_stock_quantity", DataType::Int32, true));
        Arc::new(Schema::new(fields))
    }

    fn below_safety_stock(&self, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
        let (item, _) = TableName::InventoryCurrent.column("item_id").context("gold has items")?;
        let (on_hand, _) = TableName::InventoryCurrent.column("current_inventory").context("gold has sums")?;
        let rows = ints(batch, item)?.iter().zip(longs(batch, on_hand)?);
        let low: BooleanArray =
            rows.map(|(item, on_hand)| Some(self.0.get(item).is_some_and(|(_, s)| *on_hand < i64::from(*s)))).collect();
        let batch = filter_record_batch(batch, &low)?;
        let known = || ints(&batch, item).map(|ids| ids.iter().map(|id| self.0.get(id)));
        let names: StringArray = known()?.map(|i| i.map(|(name, _)| name.as_str())).collect();
        let stocks: Int32Array = known()?.map(|i| i.map(|(_, stock)| *stock)).collect();
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        columns.push(Arc::new(names));
        columns.push(Arc::new(stocks));
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}
