//! deltalake's log store, but for how much of a log is read at once.
//!
//! The kernel opens a thousand log entries side by side, and makes room for a thousand rows of each before it has read one:
//! 2.4 MB an entry, a quarter of a gigabyte for the hundred entries between two checkpoints.

use async_trait::async_trait;
use buoyant_kernel::Engine;
use buoyant_kernel_engine::DefaultEngineBuilder;
use buoyant_kernel_engine::executor::tokio::{TokioBackgroundExecutor, TokioMultiThreadExecutor};
use bytes::Bytes;
use deltalake::DeltaResult;
use deltalake::kernel::Version;
use deltalake::kernel::transaction::TransactionError;
use deltalake::logstore::{CommitOrBytes, LogStore, LogStoreConfig, LogStoreRef};
use object_store::ObjectStore;
use std::num::NonZero;
use std::sync::Arc;
use tokio::runtime::{Handle, RuntimeFlavor};
use uuid::Uuid;

/// Log entries, or parts of a checkpoint, that are read side by side: what object storage takes to answer is waited for so many
/// times less.
const FILES_AT_ONCE: NonZero<usize> = NonZero::new(16).expect("it is not zero");

/// See the module.
#[derive(Debug)]
pub struct BoundedLogStore(LogStoreRef);

impl BoundedLogStore {
    /// All else is as `inner` does it, or by what the trait makes of that.
    pub fn around(inner: LogStoreRef) -> LogStoreRef {
        Arc::new(Self(inner))
    }
}

#[async_trait]
impl LogStore for BoundedLogStore {
    fn engine(&self, operation_id: Option<Uuid>) -> Arc<dyn Engine> {
        let builder = DefaultEngineBuilder::new(self.root_object_store(operation_id)).with_buffer_size(FILES_AT_ONCE);
        let runtime = Handle::current();
        match runtime.runtime_flavor() {
            RuntimeFlavor::MultiThread => {
                Arc::new(builder.with_task_executor(Arc::new(TokioMultiThreadExecutor::new(runtime))).build())
            }
            // It would wait for itself.
            _ => Arc::new(builder.with_task_executor(Arc::new(TokioBackgroundExecutor::new())).build()),
        }
    }

    fn name(&self) -> String {
        self.0.name()
    }

    async fn refresh(&self) -> DeltaResult<()> {
        self.0.refresh().await
    }

    async fn read_commit_entry(&self, version: Version) -> DeltaResult<Option<Bytes>> {
        self.0.read_commit_entry(version).await
    }

    async fn write_commit_entry(
        &self,
        version: Version,
        entry: CommitOrBytes,
        operation_id: Uuid,
    ) -> Result<(), TransactionError> {
        self.0.write_commit_entry(version, entry, operation_id).await
    }

    async fn abort_commit_entry(
        &self,
        version: Version,
        entry: CommitOrBytes,
        operation_id: Uuid,
    ) -> Result<(), TransactionError> {
        self.0.abort_commit_entry(version, entry, operation_id).await
    }

    async fn get_latest_version(&self, start_version: Version) -> DeltaResult<Version> {
        self.0.get_latest_version(start_version).await
    }

    fn object_store(&self, operation_id: Option<Uuid>) -> Arc<dyn ObjectStore> {
        self.0.object_store(operation_id)
    }

    fn root_object_store(&self, operation_id: Option<Uuid>) -> Arc<dyn ObjectStore> {
        self.0.root_object_store(operation_id)
    }

    fn config(&self) -> &LogStoreConfig {
        self.0.config()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltalake::logstore::{StorageConfig, logstore_with};
    use futures::stream::BoxStream;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStoreExt,
        PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    };
    use std::fmt;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;
    use url::Url;

    /// Counts the entries of a log that are being read.
    #[derive(Debug, Clone, Default)]
    struct Counting {
        inner: Arc<InMemory>,
        now: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
        all: Arc<AtomicUsize>,
    }

    impl fmt::Display for Counting {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Counting")
        }
    }

    #[async_trait]
    impl ObjectStore for Counting {
        async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
            self.all.fetch_add(1, SeqCst);
            self.most.fetch_max(self.now.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.now.fetch_sub(1, SeqCst);
            self.inner.get_opts(location, options).await
        }

        async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
            self.inner.put_opts(location, payload, options).await
        }

        async fn put_multipart_opts(
            &self,
            location: &Path,
            options: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>> {
            self.inner.put_multipart_opts(location, options).await
        }

        fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
            self.inner.delete_stream(locations)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            self.inner.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
            self.inner.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
            self.inner.copy_opts(from, to, options).await
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_long_log_is_read_a_few_entries_at_a_time() {
        let store = Counting::default();
        let definition = concat!(
            r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}"#,
            "\n",
            r#"{"metaData":{"id":"t","format":{"provider":"parquet","options":{}},"#,
            r#""schemaString":"{\"type\":\"struct\",\"fields\":[]}","partitionColumns":[],"configuration":{}}}"#,
        );
        for version in 0..100 {
            let entry = if version == 0 { definition } else { r#"{"commitInfo":{"operation":"NOTHING"}}"# };
            let path = Path::from(format!("_delta_log/{version:020}.json"));
            store.inner.put(&path, entry.into()).await.unwrap();
        }
        let location = Url::parse("memory:///").unwrap();
        let inner = logstore_with(Arc::new(store.clone()), &location, StorageConfig::default()).unwrap();
        let log = BoundedLogStore::around(inner);
        let snapshot = deltalake::kernel::Snapshot::try_new(log.as_ref(), None).await.unwrap();
        assert_eq!(snapshot.version(), 99);
        let (all, most) = (store.all.load(SeqCst), store.most.load(SeqCst));
        assert!(all >= 100, "{all} entries were read");
        assert!((2..=FILES_AT_ONCE.get()).contains(&most), "{most} at once");
    }
}
