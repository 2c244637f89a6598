//! Where the lake is, and how its tables are reached and created.

use super::cloud;
use super::durable_local::{self, DurableLocal};
use super::log_store::BoundedLogStore;
use super::refusal;
use super::retention::Retention;
use super::tables::TableName;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use deltalake::kernel::transaction::TransactionError;
use deltalake::logstore::{CommitOrBytes, LogStoreRef, StorageConfig, default_logstore, logstore_with};
use deltalake::operations::create::CreateBuilder;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use url::Url;
use uuid::Uuid;

/// A lake: a local folder or an object-store URL. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lake(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Without a slash at its end.
    root: String,
    place: Place,
    retention: Retention,
}

#[derive(Debug)]
enum Place {
    /// A folder of this machine, and the store that writes there.
    Local(PathBuf, DurableLocal),
    /// A bucket or container.
    Cloud(Arc<dyn ObjectStore>),
}

impl Lake {
    /// Takes the lake at `root`; creates the folder of a local one.
    ///
    /// # Errors
    /// If the folder can neither be found nor created.
    pub fn open(root: &str, retention: Retention) -> Result<Self> {
        if let Some(folder) = local_folder(root) {
            durable_local::create_folders(&std::path::absolute(&folder)?)
                .with_context(|| format!("create the lake's folder {}", folder.display()))?;
        }
        Self::existing(root, retention)
    }

    /// Takes the lake at `root`, which must be there.
    ///
    /// # Errors
    /// If a local lake's folder does not exist, or a URL is none that can be reached.
    pub fn existing(root: &str, retention: Retention) -> Result<Self> {
        let root = root.trim_end_matches('/');
        let Some(folder) = local_folder(root) else {
            let place = Place::Cloud(cloud::open(root)?);
            return Ok(Self(Arc::new(Inner { root: root.to_owned(), place, retention })));
        };
        let folder = folder.canonicalize().with_context(|| format!("there is no lake at {}", folder.display()))?;
        let root = folder.to_str().with_context(|| format!("{} is no UTF-8", folder.display()))?.to_owned();
        let place = Place::Local(folder, DurableLocal::new());
        Ok(Self(Arc::new(Inner { root, place, retention })))
    }

    /// Makes sure that a local folder has a table, without making one: whoever opens a table makes its folder.
    ///
    /// # Errors
    /// If it has none.
    pub fn check_has(&self, table: TableName) -> Result<()> {
        if let Place::Local(folder, _) = &self.0.place {
            let log = folder.join(table.path()).join("_delta_log");
            ensure!(log.is_dir(), "there is no lake at {}: it has no table {table}", folder.display());
        }
        Ok(())
    }

    /// Makes sure that of two writers of one object one is refused: commits depend on it. A local folder is known to do so.
    ///
    /// # Errors
    /// If the store cannot be written, or lets both write.
    pub async fn check_put_if_absent(&self) -> Result<()> {
        match &self.0.place {
            Place::Local(..) => Ok(()),
            Place::Cloud(store) => self.put_twice(store).await.map_err(|error| self.in_words(error)),
        }
    }

    /// An error of this lake, in words that name settings where it is one that settings explain.
    pub fn in_words(&self, error: anyhow::Error) -> anyhow::Error {
        match &self.0.place {
            Place::Local(..) => error,
            Place::Cloud(_) => refusal::in_words(&self.0.root, error),
        }
    }

    async fn put_twice(&self, store: &Arc<dyn ObjectStore>) -> Result<()> {
        let path = cloud::path_of(&self.0.root)?.join("_onhand").join("put-if-absent");
        let create = || PutOptions::from(PutMode::Create);
        match store.put_opts(&path, "this object is never replaced".into(), create()).await {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error).with_context(|| format!("write to {}", self.0.root)),
        }
        match store.put_opts(&path, "it was replaced".into(), create()).await {
            Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("write to {}", self.0.root)),
            Ok(_) => {
                let _ = store.delete(&path).await;
                let reason =
                    "this store lets two writers create one object (no conditional put), so commits would not be safe";
                Err(anyhow::anyhow!("{}: {reason}", self.0.root))
            }
        }
    }

    /// The root, as it is shown to people.
    pub fn root(&self) -> &str {
        &self.0.root
    }

    /// How long old versions are kept.
    pub fn retention(&self) -> Retention {
        self.0.retention
    }

    /// The log store of a table, whether it exists or not.
    ///
    /// # Errors
    /// If the URL is none that this build can reach.
    pub(crate) fn log_store(&self, table: TableName) -> Result<LogStoreRef> {
        let uri = format!("{}/{table}", self.0.root);
        let store = match &self.0.place {
            Place::Local(_, store) => {
                let location = deltalake::ensure_table_uri(&uri).with_context(|| format!("reach {uri}"))?;
                logstore_with(Arc::new(store.clone()), &location, StorageConfig::default())
                    .with_context(|| format!("reach {uri}"))?
            }
            Place::Cloud(store) => {
                let location = Url::parse(&format!("{uri}/")).with_context(|| format!("{uri} is no URL"))?;
                let table = Arc::new(PrefixStore::new(Arc::clone(store), cloud::path_of(&uri)?));
                default_logstore(table, Arc::clone(store), &location, &StorageConfig::default())
            }
        };
        Ok(BoundedLogStore::around(store))
    }

    /// Creates a table; leaves one that is there as it is.
    ///
    /// deltalake's own commit would write behind a version 0 that came in between, and so a second definition of the table with
    /// an id of its own. So its entry is made in memory, and is version 0 of the table or nothing.
    ///
    /// # Errors
    /// If version 0 can be neither written nor found.
    pub(crate) async fn create_table(&self, table: TableName, log: &LogStoreRef) -> Result<()> {
        let doing = || format!("create the table {table}");
        let entry = self.first_entry(table).await.with_context(doing)?;
        match log.write_commit_entry(0, CommitOrBytes::LogBytes(entry), Uuid::new_v4()).await {
            Ok(()) | Err(TransactionError::VersionAlreadyExists(_)) => Ok(()),
            // An answer that was lost on its way.
            Err(_) if log.is_delta_table_location().await.is_ok_and(|there| there) => Ok(()),
            Err(error) => Err(error).with_context(doing),
        }
    }

    /// The log entry that says what a table is.
    async fn first_entry(&self, table: TableName) -> Result<Bytes> {
        let definition = table.definition();
        let retention = self.0.retention;
        let memory = Url::parse("memory:///").context("it is a URL")?;
        let log = logstore_with(Arc::new(InMemory::new()), &memory, StorageConfig::default())?;
        CreateBuilder::new()
            .with_log_store(Arc::clone(&log))
            .with_table_name(table.short())
            .with_comment(definition.comment)
            .with_columns(table.delta_columns())
            .with_partition_columns(definition.partition)
            .with_configuration([
                ("quality", Some(definition.quality.to_owned())),
                ("delta.logRetentionDuration", Some(interval(retention.log))),
                ("delta.deletedFileRetentionDuration", Some(interval(retention.deleted_files))),
            ])
            // `quality` is a property of ours.
            .with_raise_if_key_not_exists(false)
            .await?;
        log.read_commit_entry(0).await?.context("a new table has a version 0")
    }

    /// Puts data files of a table on the drive, with their names. An object store has done so by itself.
    ///
    /// # Errors
    /// If one of them cannot be synced; then the commit that names them must not be made.
    pub(crate) async fn make_durable(&self, table: TableName, paths: impl Iterator<Item = Path>) -> Result<()> {
        let Place::Local(root, store) = &self.0.place else { return Ok(()) };
        let folder = root.join(table.path());
        let files: Vec<PathBuf> = paths.map(|path| folder.join(path.as_ref())).collect();
        store.sync(root, files).await.with_context(|| format!("put data files of {table} on the drive"))
    }

    /// Removes what crashed writers left half written in a table's local folder, once it is so old. Listings do not
    /// show it, and an object store keeps it out of sight by itself.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub(crate) async fn remove_staged(&self, table: TableName, age: Duration) -> Result<()> {
        let Place::Local(root, _) = &self.0.place else { return Ok(()) };
        let folder = root.join(table.path());
        let removal = tokio::task::spawn_blocking(move || durable_local::remove_staged(&folder, age));
        removal.await?.with_context(|| format!("remove half-written files of {table}"))
    }
}

fn local_folder(root: &str) -> Option<PathBuf> {
    match root.split_once("://") {
        Some(("file", path)) => Some(FilePath::new(path).to_path_buf()),
        Some(_) => None,
        None => Some(FilePath::new(root).to_path_buf()),
    }
}

/// As Delta's table properties write a duration.
fn interval(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds > 0 && seconds % 3600 == 0 => format!("interval {} hours", seconds / 3600),
        seconds => format!("interval {seconds} seconds"),
    }
}
