//! A local file system whose Delta log survives a power cut.
//!
//! `object_store`'s local files are atomic between processes but never synced: after a power cut, a log entry may be
//! there with no bytes (which loads as a silent empty version) or with zeros (which makes the table unreadable).
//! What holds here:
//! - An object below `_delta_log` (entry, checkpoint, `_last_checkpoint`) becomes visible only after its bytes are on the
//!   drive, and its writer hears of success only after its name is, too.
//! - `PutMode::Create` links the finished file to its name, which fails if the name is taken: one winner per version.
//! - Data files are written plainly; [`DurableLocal::sync`] puts many of them on the drive at once, before the log entry
//!   that names them is written.

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Threads that sync data files side by side. 457 files of 30 kB in as many folders, ext4 on a virtual disk:
/// 1 thread 185 ms, 4 threads 90 ms, 8 threads 60 ms, 32 threads 70 ms (one `syncfs` 20 ms, but it waits for whatever
/// else is being written to the disk, and needs a crate of its own).
const SYNC_THREADS: usize = 8;

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct DurableLocal {
    inner: Arc<LocalFileSystem>,
}

impl DurableLocal {
    /// A store whose paths are absolute ones of this machine, as the kernel asks for them.
    pub(crate) fn new() -> Self {
        Self { inner: Arc::new(LocalFileSystem::new()) }
    }

    /// Puts files, and their names, on the drive. `root` is the folder down to which names are synced.
    ///
    /// # Errors
    /// If one of them cannot be synced. Then none may be counted on.
    pub(crate) async fn sync(&self, root: &FilePath, files: Vec<PathBuf>) -> io::Result<()> {
        let mut folders = BTreeSet::new();
        for file in &files {
            for folder in file.ancestors().skip(1).take_while(|f| f.starts_with(root)) {
                if !folders.insert(folder.to_path_buf()) {
                    break;
                }
            }
        }
        sync_all(files).await?;
        sync_all(folders.into_iter().collect()).await
    }

    async fn put_log(&self, location: &Path, payload: PutPayload, mode: PutMode) -> Result<PutResult> {
        let path = self.inner.path_to_filesystem(location)?;
        let result = tokio::task::spawn_blocking(move || put_durably(&path, &payload, &mode)).await?;
        result.map_err(|source| match source.kind() {
            ErrorKind::AlreadyExists => Error::AlreadyExists { path: location.to_string(), source: source.into() },
            _ => Error::Generic { store: "DurableLocal", source: source.into() },
        })?;
        Ok(PutResult { e_tag: None, version: None })
    }
}

fn is_log(location: &Path) -> bool {
    location.parts().any(|part| part.as_ref() == "_delta_log")
}

async fn sync_all(paths: Vec<PathBuf>) -> io::Result<()> {
    let paths = Arc::new(paths);
    let tasks: Vec<_> = (0..SYNC_THREADS.min(paths.len()))
        .map(|first| {
            let paths = Arc::clone(&paths);
            tokio::task::spawn_blocking(move || {
                paths.iter().skip(first).step_by(SYNC_THREADS).try_for_each(|path| sync_path(path))
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

fn sync_path(path: &FilePath) -> io::Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|e| io::Error::new(e.kind(), format!("sync {}: {e}", path.display())))
}

fn put_durably(path: &FilePath, payload: &PutPayload, mode: &PutMode) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("a log entry lies in a folder"))?;
    create_folders(folder)?;
    let (mut file, staged) = stage(path)?;
    let put = (|| {
        payload.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()?;
        match mode {
            PutMode::Create => fs::hard_link(&staged, path),
            _ => fs::rename(&staged, path),
        }
    })();
    // After a rename there is nothing left to remove; after a crash here, a name that no reader looks at is left.
    let _ = fs::remove_file(&staged);
    match put {
        // It may be ours, of a try that could not sync its name: whoever reads it takes it for durable.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => sync_path(folder).and(Err(e)),
        Err(e) => Err(e),
        Ok(()) => sync_path(folder),
    }
}

/// A new file beside `path`. `#` and digits at its end hide it from listings, as `object_store`'s own staged files.
fn stage(path: &FilePath) -> io::Result<(File, PathBuf)> {
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("#{}", rand::random::<u64>()));
        let staged = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).open(&staged) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (file, staged)),
        }
    }
}

/// Creates a folder and those above it, and puts the name of each new one on the drive.
pub(crate) fn create_folders(folder: &FilePath) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        create_folders(above)?;
        match fs::create_dir(folder) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
            // The next try would find it there, and take its name for durable.
            _ => sync_path(above).inspect_err(|_| drop(fs::remove_dir(folder)))?,
        }
    }
    Ok(())
}

/// Removes staged files of at least this age, in all folders below.
pub(crate) fn remove_staged(folder: &FilePath, age: Duration) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_staged(&entry.path(), age)?;
            continue;
        }
        let name = entry.file_name();
        let suffix = name.to_str().and_then(|name| name.rsplit_once('#')).map_or("", |(_, suffix)| suffix);
        if suffix.is_empty() || !suffix.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        // Whoever finished it meanwhile has renamed it.
        let old = entry.metadata().and_then(|m| m.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|a| a >= age));
        if old {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableLocal({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if is_log(location) && !matches!(options.mode, PutMode::Update(_)) {
            self.put_log(location, payload, options.mode).await
        } else {
            self.inner.put_opts(location, payload, options).await
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if is_log(location) {
            Ok(Box::new(LogUpload { store: self.clone(), location: location.clone(), parts: Vec::new() }))
        } else {
            self.inner.put_multipart_opts(location, options).await
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A large object of the log (a checkpoint): kept in memory until it is complete, then put as any other.
#[derive(Debug)]
struct LogUpload {
    store: DurableLocal,
    location: Path,
    parts: Vec<PutPayload>,
}

#[async_trait]
impl MultipartUpload for LogUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.push(data);
        Box::pin(std::future::ready(Ok(())))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let payload: PutPayload = std::mem::take(&mut self.parts).iter().flat_map(|p| p.iter().cloned()).collect();
        self.store.put_log(&self.location, payload, PutMode::Overwrite).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.clear();
        Ok(())
    }
}
