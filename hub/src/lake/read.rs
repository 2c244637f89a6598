//! Reading data files: only the columns asked for, some files ahead, never a whole table in memory.

use super::file_reader::{FileReader, SMALL_FILE_BYTES};
use super::log::{LiveFile, Table};
use super::tables::{ColumnType, TableName};
use anyhow::{Context, Result, anyhow, ensure};
use deltalake::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Int32Array, Int64Array, RecordBatch, RecordBatchOptions,
    StringArray, TimestampMicrosecondArray, new_null_array,
};
use deltalake::arrow::datatypes::{Field, Schema, SchemaRef};
use deltalake::arrow::error::ArrowError;
use deltalake::parquet::arrow::ProjectionMask;
use deltalake::parquet::arrow::arrow_reader::{ArrowPredicate, ArrowPredicateFn, ArrowReaderOptions, RowFilter};
use deltalake::parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use deltalake::parquet::file::metadata::PageIndexPolicy;
use deltalake::parquet::schema::types::SchemaDescriptor;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::ObjectStore;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Rows per batch.
const BATCH_ROWS: usize = 16 * 1024;
/// Rows per batch where one may be a whole frame (256 KiB).
const BATCH_FRAMES: usize = 128;
/// Small files of which only numbers are wanted that are read at the same time: of such there are many, and each is a request.
const FILES_AHEAD: usize = 20;
/// Each other file counts for so many of them, since its batches may be large: four at a time.
const WEIGHT: u32 = 5;
/// Decoded batches that wait per file.
const BATCHES_AHEAD: usize = 2;

impl Table {
    /// The rows of some files, in the files' order and in each file's: a stream of batches with just these columns.
    ///
    /// The partition column may be among them.
    pub fn read(
        &self,
        files: Vec<LiveFile>,
        columns: &[&str],
    ) -> impl Stream<Item = Result<RecordBatch>> + Send + use<> {
        self.read_some(files, columns, None)
    }

    /// The same, but only the wanted rows: of the others little more than their `store_id` is decoded, since rows of one
    /// store stand together (see [`Table::compact`]).
    pub fn read_wanted(
        &self,
        files: Vec<LiveFile>,
        columns: &[&str],
        wanted: Wanted,
    ) -> impl Stream<Item = Result<RecordBatch>> + Send + use<> {
        self.read_some(files, columns, Some(Arc::new(wanted)))
    }

    fn read_some(
        &self,
        files: Vec<LiveFile>,
        columns: &[&str],
        wanted: Option<Arc<Wanted>>,
    ) -> impl Stream<Item = Result<RecordBatch>> + Send + use<> {
        let (store, table) = (self.store(), self.name);
        let columns: Arc<[String]> = columns.iter().map(|c| (*c).to_owned()).collect();
        let numbers =
            !columns.iter().any(|c| table.column(c).is_some_and(|(_, column)| column.kind.is_of_any_length()));
        let room = Arc::new(Semaphore::new(FILES_AHEAD));
        futures::stream::iter(files)
            .then(move |file| {
                let weight = if numbers && file.size <= SMALL_FILE_BYTES { 1 } else { WEIGHT };
                let (store, columns, wanted, room) =
                    (Arc::clone(&store), Arc::clone(&columns), wanted.clone(), Arc::clone(&room));
                async move {
                    // One after the other: the file whose turn it is never waits for one behind it.
                    let place = room.acquire_many_owned(weight).await.expect("it is never closed");
                    start(store, table, file, columns, wanted, place)
                }
            })
            .map(std::future::ready)
            .buffered(FILES_AHEAD)
            .flatten()
    }

    /// The rows of all live files.
    pub fn read_all(&self, columns: &[&str]) -> impl Stream<Item = Result<RecordBatch>> + Send + use<> {
        self.read(self.live_files().cloned().collect(), columns)
    }

    /// Calls `visit` with every row of some files of `silver/inventory_change`, or with the wanted ones.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub async fn visit_changes(
        &self,
        files: Vec<LiveFile>,
        wanted: Option<Wanted>,
        mut visit: impl FnMut(ChangeRow),
    ) -> Result<()> {
        let columns = ["store_id", "item_id", "date_time", "change_type_id", "quantity"];
        let mut batches = std::pin::pin!(self.read_some(files, &columns, wanted.map(Arc::new)));
        while let Some(batch) = batches.try_next().await? {
            let (stores, items) = (ints(&batch, 0)?, ints(&batch, 1)?);
            let (times, kinds, quantities) = (micros(&batch, 2)?, ints(&batch, 3)?, ints(&batch, 4)?);
            for row in 0..batch.num_rows() {
                visit(ChangeRow {
                    store_id: stores[row],
                    item_id: items[row],
                    date_time: times[row],
                    change_type_id: kinds[row],
                    quantity: quantities[row],
                });
            }
        }
        Ok(())
    }
}

/// Which rows of silver/inventory_change or silver/inventory_snapshot.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Of these stores.
    pub stores: HashSet<i32>,
    /// With a `date_time` in this range, microseconds since 1970; `None`: of any time.
    pub times: Option<Range<i64>>,
}

/// What one of the filters has judged of a file.
#[derive(Debug, Default)]
struct Judged {
    rows: AtomicUsize,
    kept: AtomicUsize,
}

impl Judged {
    fn count(&self, kept: BooleanArray) -> BooleanArray {
        self.rows.fetch_add(kept.len(), Relaxed);
        self.kept.fetch_add(kept.true_count(), Relaxed);
        kept
    }
}

impl Wanted {
    /// By store first: for the stores that are not wanted nothing else is decoded. With what each filter has judged.
    fn filter(self: &Arc<Self>, schema: &SchemaDescriptor) -> (RowFilter, Vec<Arc<Judged>>) {
        let (wanted, judged) = (Arc::clone(self), Arc::new(Judged::default()));
        let mut all_judged = vec![Arc::clone(&judged)];
        let by_store = ArrowPredicateFn::new(ProjectionMask::columns(schema, ["store_id"]), move |batch| {
            // Rows of one store follow one another.
            let (mut store_id, mut keep) = (None, false);
            let values = ints(&batch, 0).map_err(unreadable)?.iter();
            let kept = values.map(|&value| {
                if store_id.replace(value) != Some(value) {
                    keep = wanted.stores.contains(&value);
                }
                Some(keep)
            });
            Ok(judged.count(kept.collect()))
        });
        let mut filters: Vec<Box<dyn ArrowPredicate>> = vec![Box::new(by_store)];
        if let Some(times) = self.times.clone() {
            let judged = Arc::new(Judged::default());
            all_judged.push(Arc::clone(&judged));
            let by_time = ArrowPredicateFn::new(ProjectionMask::columns(schema, ["date_time"]), move |batch| {
                let column = deltalake::arrow::compute::cast(batch.column(0), &ColumnType::Timestamp.arrow())?;
                let batch = RecordBatch::try_from_iter([("date_time", column)])?;
                let values = micros(&batch, 0).map_err(unreadable)?.iter();
                Ok(judged.count(values.map(|at| Some(times.contains(at))).collect()))
            });
            filters.push(Box::new(by_time));
        }
        (RowFilter::new(filters), all_judged)
    }
}

fn unreadable(error: anyhow::Error) -> ArrowError {
    ArrowError::ExternalError(error.into())
}

/// What the rule needs of a row of `silver/inventory_change`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeRow {
    /// The store.
    pub store_id: i32,
    /// The item.
    pub item_id: i32,
    /// When, microseconds since 1970.
    pub date_time: i64,
    /// The kind of change.
    pub change_type_id: i32,
    /// How many, signed.
    pub quantity: i32,
}

/// The values of a 32-bit column of a batch.
///
/// # Errors
/// If the column is of another type, or holds a null.
pub fn ints(batch: &RecordBatch, column: usize) -> Result<&[i32]> {
    let array = typed::<Int32Array>(batch, column)?;
    Ok(array.values())
}

/// The values of a 64-bit column of a batch.
///
/// # Errors
/// If the column is of another type, or holds a null.
pub fn longs(batch: &RecordBatch, column: usize) -> Result<&[i64]> {
    let array = typed::<Int64Array>(batch, column)?;
    Ok(array.values())
}

/// The values of a timestamp column of a batch, in microseconds since 1970.
///
/// # Errors
/// If the column is of another type, or holds a null.
pub fn micros(batch: &RecordBatch, column: usize) -> Result<&[i64]> {
    let array = typed::<TimestampMicrosecondArray>(batch, column)?;
    Ok(array.values())
}

/// A text column of a batch.
///
/// # Errors
/// If the column is of another type.
pub fn strings(batch: &RecordBatch, column: usize) -> Result<&StringArray> {
    batch.column(column).as_string_opt().ok_or_else(|| anyhow!("column {column} is no text"))
}

fn typed<A: Array + 'static>(batch: &RecordBatch, column: usize) -> Result<&A> {
    let array = batch.column(column);
    let name = || batch.schema().field(column).name().clone();
    if array.null_count() > 0 {
        return Err(anyhow!("column {} holds nulls", name()));
    }
    array.as_any().downcast_ref().ok_or_else(|| anyhow!("column {} is a {}", name(), array.data_type()))
}

/// Begins to read a file: decoding takes a thread of its own, and waits when nobody takes what it has.
fn start(
    store: Arc<dyn ObjectStore>,
    table: TableName,
    file: LiveFile,
    columns: Arc<[String]>,
    wanted: Option<Arc<Wanted>>,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<RecordBatch>> + Send + use<> {
    let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        runtime.block_on(async {
            let read = read_file(store, table, &file, &columns, wanted, &sender).await;
            let end = read.map(|()| None).with_context(|| format!("read {table}/{}", file.path));
            // If nobody listens any more, nobody wants to know.
            let _ = sender.send(end).await;
        });
    });
    // The place is free when the last batch was taken, not when it was decoded: what waits takes memory.
    until_the_end(receiver).map(move |batch| {
        let _held = &place;
        batch
    })
}

/// Batches, until one says that there are no more. Where a decoder panics nobody says it: that must not look like the end.
fn until_the_end(
    receiver: mpsc::Receiver<Result<Option<RecordBatch>>>,
) -> impl Stream<Item = Result<RecordBatch>> + Send + use<> {
    futures::stream::try_unfold(receiver, async |mut receiver| match receiver.recv().await {
        Some(Ok(batch)) => Ok(batch.map(|batch| (batch, receiver))),
        Some(Err(error)) => Err(error),
        None => Err(anyhow!("reading a file stopped before its end, as after a panic")),
    })
}

async fn read_file(
    store: Arc<dyn ObjectStore>,
    table: TableName,
    file: &LiveFile,
    columns: &[String],
    wanted: Option<Arc<Wanted>>,
    sender: &mpsc::Sender<Result<Option<RecordBatch>>>,
) -> Result<()> {
    let reader = FileReader::new(store, file.location(), file.size);
    let mut options = ArrowReaderOptions::new();
    if wanted.is_some() {
        // Where pages begin: those without a wanted row are not even fetched.
        options = options.with_offset_index_policy(PageIndexPolicy::Optional);
    }
    let mut builder = ParquetRecordBatchStreamBuilder::new_with_options(reader, options).await?;
    let rows = usize::try_from(builder.metadata().file_metadata().num_rows())?;
    let mut filters = Vec::new();
    if let Some(wanted) = wanted {
        let (filter, judged) = wanted.filter(builder.parquet_schema());
        builder = builder.with_row_filter(filter);
        filters = judged;
    }
    let stored = columns.iter().filter(|c| table.partition_column() != Some(c.as_str()));
    let mask = ProjectionMask::columns(builder.parquet_schema(), stored.map(String::as_str));
    let frames = columns.iter().any(|c| table.column(c).is_some_and(|(_, column)| column.kind == ColumnType::Binary));
    let batch_rows = if frames { BATCH_FRAMES } else { BATCH_ROWS };
    let mut batches = builder.with_projection(mask).with_batch_size(batch_rows).build()?;
    let schema = projected_schema(table, columns)?;
    let mut read = 0;
    while let Some(batch) = batches.try_next().await? {
        read += batch.num_rows();
        let arranged = arrange(table, file, columns, &schema, &batch)?;
        if sender.send(Ok(Some(arranged))).await.is_err() {
            return Ok(());
        }
    }
    // A column that ends early ends the reading without an error.
    let mut expected = rows;
    for judged in filters {
        complete(judged.rows.load(Relaxed), expected)?;
        expected = judged.kept.load(Relaxed);
    }
    complete(read, expected)
}

fn complete(read: usize, expected: usize) -> Result<()> {
    ensure!(read == expected, "{read} rows could be read of {expected}");
    Ok(())
}

fn projected_schema(table: TableName, columns: &[String]) -> Result<SchemaRef> {
    let fields: Result<Vec<Field>> = columns
        .iter()
        .map(|name| {
            let (_, column) = table.column(name).with_context(|| format!("{table} has no column {name}"))?;
            Ok(Field::new(column.name, column.kind.arrow(), true))
        })
        .collect();
    Ok(Arc::new(Schema::new(fields?)))
}

/// Puts the columns in the order asked for, with the partition's value as a column.
fn arrange(
    table: TableName,
    file: &LiveFile,
    columns: &[String],
    schema: &SchemaRef,
    batch: &RecordBatch,
) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let arrays: Result<Vec<ArrayRef>> = columns
        .iter()
        .zip(schema.fields())
        .map(|(name, field)| {
            if table.partition_column() == Some(name) {
                return partition_array(table, file, field, rows);
            }
            let array = batch.column_by_name(name).with_context(|| format!("the file has no column {name}"))?;
            // Other writers may have stored a timestamp in another unit, a string as a view.
            if array.data_type() == field.data_type() {
                Ok(Arc::clone(array))
            } else {
                Ok(deltalake::arrow::compute::cast(array, field.data_type())?)
            }
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), arrays?, &options)?)
}

fn partition_array(table: TableName, file: &LiveFile, field: &Field, rows: usize) -> Result<ArrayRef> {
    let Some(value) = file.partition else { return Ok(new_null_array(field.data_type(), rows)) };
    let value = i32::try_from(value).with_context(|| format!("{table}: partition {value}"))?;
    let (_, column) = table.column(field.name()).context("a partition is a column")?;
    Ok(match column.kind {
        ColumnType::Date => Arc::new(Date32Array::from_value(value, rows)),
        _ => Arc::new(Int32Array::from_value(value, rows)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::CommitRequest;
    use crate::lake::samples::{NEW_YEAR, changes, lake};
    use deltalake::parquet::arrow::ArrowWriter;
    use deltalake::parquet::file::properties::WriterProperties;
    use object_store::ObjectStoreExt;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn small_and_large_files_come_in_their_order() {
        let (_folder, lake) = lake();
        let mut table = Table::open_or_create(&lake, TableName::InventoryChange).await.unwrap();
        for file in 0..50 {
            let rows = if file % 10 == 3 { 6_000 } else { 2 };
            let ids: Vec<String> = (0..rows).map(|_| format!("{:032x}", rand::random::<u128>())).collect();
            let rows: Vec<_> = ids.iter().map(|id| (id.as_str(), file, NEW_YEAR, 1, 10, -1)).collect();
            let adds = table.write([changes(&rows)]).await.unwrap();
            table.commit(CommitRequest::append(adds)).await.unwrap();
        }
        let files = table.files_since(0);
        assert_eq!(files.iter().filter(|file| file.size > SMALL_FILE_BYTES).count(), 5);
        for columns in [&["store_id"][..], &["store_id", "trans_id"]] {
            let mut stores = Vec::new();
            let mut batches = std::pin::pin!(table.read(files.clone(), columns));
            while let Some(batch) = batches.try_next().await.unwrap() {
                stores.extend_from_slice(ints(&batch, 0).unwrap());
            }
            assert_eq!(stores.len(), 5 * 6_000 + 45 * 2);
            stores.dedup();
            assert_eq!(stores, (0..50).collect::<Vec<_>>());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_a_damaged_file_all_rows_come_or_an_error() {
        let (_folder, lake) = lake();
        let mut table = Table::open_or_create(&lake, TableName::InventoryChange).await.unwrap();
        let ids: Vec<String> = (0..400_u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        let rows: Vec<_> = ids.iter().zip(0..).map(|(id, n)| (id.as_str(), n % 7, NEW_YEAR, 1, 10, -1)).collect();
        let adds = table.write([changes(&rows)]).await.unwrap();
        table.commit(CommitRequest::append(adds)).await.unwrap();
        let files = table.files_since(0);
        let (store, place) = (table.store(), files[0].location());
        let good = store.get(&place).await.unwrap().bytes().await.unwrap();
        let columns = ["trans_id", "store_id", "date_time", "item_id"];
        let wanted = |times| Wanted { stores: [1, 2].into(), times };
        let (mut panics, mut short, mut errors) = (0, [0, 0], 0);
        // Here and there, and wherever the footer says 400 (twice that is 0x320, in groups of seven bits).
        let numbers = (1..good.len()).filter(|&at| good[at - 1..=at] == [0xa0, 0x06]).map(|at| (at, 1));
        for (at, flip) in (0..good.len()).step_by(3).map(|at| (at, 1 << (at % 8))).chain(numbers) {
            let mut bad = good.to_vec();
            bad[at] ^= flip;
            store.put(&place, bad.into()).await.unwrap();
            let all: Result<Vec<RecordBatch>> = table.read(files.clone(), &columns).try_collect().await;
            let some = table.read_wanted(files.clone(), &columns, wanted((at % 2 == 0).then_some(0..i64::MAX)));
            let some: Result<Vec<RecordBatch>> = some.try_collect().await;
            for (batches, filtered) in [(all, 0), (some, 1)] {
                match batches {
                    Ok(batches) => {
                        let read = batches.iter().map(RecordBatch::num_rows).sum::<usize>();
                        assert!(filtered == 1 || read == 400, "damaged at {at}: {read} rows");
                    }
                    Err(error) => {
                        let error = format!("{error:#}");
                        panics += usize::from(error.contains("as after a panic"));
                        short[filtered] += usize::from(error.contains("rows could be read of"));
                        errors += 1;
                    }
                }
            }
        }
        let noticed = errors > 100 && short.iter().all(|&short| short > 0);
        assert!(noticed, "{errors} errors, {panics} of them panics, {short:?} of too few rows");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_wanted_comes_from_each_row_group() {
        let (_folder, lake) = lake();
        let mut table = Table::open_or_create(&lake, TableName::InventoryChange).await.unwrap();
        let ids: Vec<String> = (0..400).map(|n| format!("{n:x}")).collect();
        // Each store's rows together, and mixed.
        for store in [|n: i32| n / 90, |n: i32| n % 5] {
            let rows: Vec<_> =
                ids.iter().zip(0..).map(|(id, n)| (&**id, store(n), NEW_YEAR + i64::from(n), 1, 10, -1)).collect();
            let adds = table.write([changes(&rows)]).await.unwrap();
            table.commit(CommitRequest::append(adds)).await.unwrap();
            let mut file = table.live_files().max_by_key(|file| file.added_version).unwrap().clone();
            let columns = ["trans_id", "store_id", "date_time", "item_id"];
            let batches: Vec<RecordBatch> = table.read(vec![file.clone()], &columns).try_collect().await.unwrap();
            let one = deltalake::arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
            let properties = WriterProperties::builder()
                .set_max_row_group_row_count(Some(50))
                .set_data_page_row_count_limit(10)
                .set_write_batch_size(5)
                .build();
            let mut bytes = Vec::new();
            let mut writer = ArrowWriter::try_new(&mut bytes, one.schema(), Some(properties)).unwrap();
            writer.write(&one).unwrap();
            assert_eq!(writer.close().unwrap().row_groups().len(), 8);
            file.size = bytes.len() as u64;
            table.store().put(&file.location(), bytes.into()).await.unwrap();
            for stores in [vec![], vec![2], vec![0, 4], vec![9], vec![0, 1, 2, 3, 4]] {
                for times in [None, Some(0..200), Some(199..201), Some(390..500), Some(500..600)] {
                    let in_time = |n: &i32| times.as_ref().is_none_or(|times: &Range<i32>| times.contains(n));
                    let expected: Vec<i32> = (0..400).filter(|&n| stores.contains(&store(n)) && in_time(&n)).collect();
                    let micros = |n: i32| NEW_YEAR + i64::from(n);
                    let wanted = Wanted {
                        stores: stores.iter().copied().collect(),
                        times: times.clone().map(|times| micros(times.start)..micros(times.end)),
                    };
                    let mut read = Vec::new();
                    let mut batches = std::pin::pin!(table.read_wanted(vec![file.clone()], &columns, wanted));
                    while let Some(batch) = batches.try_next().await.unwrap() {
                        read.extend(
                            strings(&batch, 0).unwrap().iter().map(|id| i32::from_str_radix(id.unwrap(), 16).unwrap()),
                        );
                    }
                    read.sort_unstable();
                    assert_eq!(read, expected, "{stores:?} {times:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_reader_that_panics_is_not_at_the_files_end() {
        let batch = || Ok(Some(RecordBatch::new_empty(Arc::new(Schema::empty()))));
        for (end, good) in [(Some(Ok(None)), true), (None, false), (Some(Err(anyhow!("unreadable"))), false)] {
            let (sender, receiver) = mpsc::channel(8);
            sender.send(batch()).await.unwrap();
            if let Some(end) = end {
                sender.send(end).await.unwrap();
            }
            drop(sender);
            let all: Result<Vec<RecordBatch>> = until_the_end(receiver).try_collect().await;
            assert_eq!(all.is_ok_and(|all| all.len() == 1), good);
        }
    }
}
