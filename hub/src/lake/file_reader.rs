//! Reads ranges of one Parquet file of known size from an object store, for the Parquet decoder.

use bytes::Bytes;
use deltalake::parquet::arrow::arrow_reader::ArrowReaderOptions;
use deltalake::parquet::arrow::async_reader::AsyncFileReader;
use deltalake::parquet::errors::{ParquetError, Result};
use deltalake::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::ops::Range;
use std::sync::Arc;

/// Bytes from a file's end that are read at first: the footer of most files.
const FOOTER_GUESS: usize = 32 * 1024;
/// A file of at most so many bytes is read whole, with one request: what a commit brings is often smaller, and it is the requests
/// that take time.
pub(crate) const SMALL_FILE_BYTES: u64 = 64 * 1024;

/// A Parquet file in an object store.
pub(crate) struct FileReader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    /// All of a small file, once it was read.
    whole: Option<Bytes>,
}

impl FileReader {
    /// Of the file at `path`, whose `size` in bytes the table's log tells.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, path: Path, size: u64) -> Self {
        Self { store, path, size, whole: None }
    }

    /// The file's bytes if it is small.
    async fn whole(&mut self) -> Result<Option<&Bytes>> {
        if self.size <= SMALL_FILE_BYTES && self.whole.is_none() {
            self.whole = Some(self.store.get_range(&self.path, 0..self.size).await.map_err(outside)?);
        }
        Ok(self.whole.as_ref())
    }
}

/// Part of a file; an error where the file is shorter than the log says.
fn part(whole: &Bytes, range: &Range<u64>) -> Result<Bytes> {
    let within = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
    match within {
        Some((start, end)) if start <= end && end <= whole.len() => Ok(whole.slice(start..end)),
        _ => Err(ParquetError::EOF(format!("bytes {range:?} of a file that has {}", whole.len()))),
    }
}

fn outside(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for FileReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move {
            match self.whole().await? {
                Some(whole) => part(whole, &range),
                None => self.store.get_range(&self.path, range).await.map_err(outside),
            }
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move {
            match self.whole().await? {
                Some(whole) => ranges.iter().map(|range| part(whole, range)).collect(),
                None => self.store.get_ranges(&self.path, &ranges).await.map_err(outside),
            }
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            let metadata = reader.with_prefetch_hint(Some(FOOTER_GUESS)).load_and_finish(self, size).await?;
            Ok(Arc::new(metadata))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_small_file_is_read_with_one_request() {
        let (store, path) = (Arc::new(object_store::memory::InMemory::new()), Path::from("a.parquet"));
        for (rows, once) in [(10, true), (100_000, false)] {
            let bytes = parquet(rows);
            let size = bytes.len() as u64;
            assert_eq!(size <= SMALL_FILE_BYTES, once, "{rows} rows take {size} bytes");
            store.put(&path, bytes.into()).await.unwrap();
            let mut reader = FileReader::new(Arc::clone(&store) as Arc<dyn ObjectStore>, path.clone(), size);
            let metadata = reader.get_metadata(None).await.unwrap();
            assert_eq!(metadata.file_metadata().num_rows(), rows);
            store.delete(&path).await.unwrap();
            assert_eq!(reader.get_byte_ranges(vec![0..4, size - 4..size]).await.is_ok(), once);
        }
    }

    /// A file of random numbers, which nothing makes smaller.
    fn parquet(rows: i64) -> Vec<u8> {
        use deltalake::arrow::array::{ArrayRef, Int64Array, RecordBatch};
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|_| rand::random::<i64>())));
        let batch = RecordBatch::try_from_iter([("number", numbers)]).unwrap();
        let mut bytes = Vec::new();
        let mut writer = deltalake::parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes
    }

    #[test]
    fn a_file_that_was_cut_short_is_an_error() {
        let whole = Bytes::from_static(b"0123456789");
        assert_eq!(part(&whole, &(2..10)).unwrap(), "23456789");
        for range in [2..11, 11..12, u64::MAX - 1..u64::MAX] {
            assert!(matches!(part(&whole, &range), Err(ParquetError::EOF(_))), "{range:?}");
        }
    }
}
