//! A folder of count files, on this machine or in object storage: finds what is new by listing, reads whole files.

use crate::lake::cloud;
use anyhow::{Context, Result};
use bytes::Bytes;
use futures::TryStreamExt;
use hashbrown::HashSet;
use object_store::path::{Path as ObjectPath, PathPart};
use object_store::{ObjectStore, ObjectStoreExt};
use onhand_common::accelerator::{FileKind, file_kind};
use std::collections::BinaryHeap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use xxhash_rust::xxh3::Xxh3;

/// A local file that was written to so lately may not be whole yet. (Objects appear whole.)
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// A file as it stood when it was looked at. Older ones come first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundFile {
    /// When it was written to last, microseconds since 1970.
    pub modified: i64,
    /// Its name in the folder.
    pub name: String,
    /// Bytes.
    pub size: u64,
}

/// What stands for a file in memory: sixteen bytes, since there may be millions.
pub type FileHash = u128;

impl FoundFile {
    /// Differs whenever the file does, by its name, its size or its time.
    pub fn hash(&self) -> FileHash {
        hash(&self.name, self.size, self.modified)
    }
}

/// As [`FoundFile::hash`].
pub fn hash(name: &str, size: u64, modified: i64) -> FileHash {
    let mut hasher = Xxh3::new();
    hasher.update(&size.to_le_bytes());
    hasher.update(&modified.to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.digest128()
}

/// See the module.
#[derive(Debug, Clone)]
pub enum Folder {
    /// Of this machine; it need not be there yet.
    Local(PathBuf),
    /// A prefix in a bucket or container.
    Cloud(Arc<dyn ObjectStore>, ObjectPath),
}

impl Folder {
    /// The folder at a path or URL.
    ///
    /// # Errors
    /// If a URL is none that can be reached.
    pub fn open(place: &str) -> Result<Self> {
        match place.split_once("://") {
            None => Ok(Self::Local(PathBuf::from(place))),
            Some(("file", path)) => Ok(Self::Local(PathBuf::from(path))),
            Some(_) => Ok(Self::Cloud(cloud::open(place)?, cloud::path_of(place)?)),
        }
    }

    /// The oldest `most` files that are not among `known`. The listing goes by without being kept, however long it is.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub async fn new_files(&self, known: &Arc<HashSet<FileHash>>, most: usize) -> Result<NewFiles> {
        let mut oldest = Oldest { most, files: BinaryHeap::new(), more: false, strange: None, waited: Duration::ZERO };
        match self {
            Self::Local(folder) => {
                let (folder, known) = (folder.clone(), Arc::clone(known));
                let listing = tokio::task::spawn_blocking(move || list_local(&folder, &known, oldest));
                oldest = listing.await??;
            }
            Self::Cloud(store, prefix) => {
                let mut objects = store.list(Some(prefix));
                while let Some(object) = objects.try_next().await.with_context(|| format!("list {prefix}"))? {
                    let Some(name) = name_below(prefix, &object.location) else { continue };
                    if file_kind(&name) != Some(FileKind::Counts) {
                        oldest.strange = Some(name);
                        continue;
                    }
                    let modified = object.last_modified.timestamp_micros();
                    oldest.offer(FoundFile { modified, name, size: object.size }, known);
                }
            }
        }
        let Oldest { files, more, strange, waited, .. } = oldest;
        Ok(NewFiles { files: files.into_sorted_vec(), more, strange, waited })
    }

    /// A file's content; `None` if it has gone.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn read(&self, name: &str) -> Result<Option<Bytes>> {
        match self {
            Self::Local(folder) => {
                let path = folder.join(name);
                let read = tokio::task::spawn_blocking(move || read_local(&path)).await?;
                Ok(read.with_context(|| format!("read {name}"))?)
            }
            Self::Cloud(store, prefix) => match store.get(&prefix.clone().join(PathPart::parse(name)?)).await {
                Ok(object) => Ok(Some(object.bytes().await.with_context(|| format!("read {name}"))?)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error).with_context(|| format!("read {name}")),
            },
        }
    }
}

/// What a look into the folder found.
#[derive(Debug)]
pub struct NewFiles {
    /// The oldest first.
    pub files: Vec<FoundFile>,
    /// There are more.
    pub more: bool,
    /// The name of one that is none of a count file, if there is one.
    pub strange: Option<String>,
    /// How long of this look files that may still grow were waited for.
    pub waited: Duration,
}

struct Oldest {
    most: usize,
    /// The newest of them on top.
    files: BinaryHeap<FoundFile>,
    more: bool,
    /// One whose name says nothing.
    strange: Option<String>,
    /// How long files that may still grow were waited for.
    waited: Duration,
}

impl Oldest {
    fn offer(&mut self, file: FoundFile, known: &HashSet<FileHash>) {
        if known.contains(&file.hash()) {
            return;
        }
        self.files.push(file);
        if self.files.len() > self.most {
            self.files.pop();
            self.more = true;
        }
    }
}

/// The name of an object that lies right in the folder.
fn name_below(prefix: &ObjectPath, object: &ObjectPath) -> Option<String> {
    let mut parts = object.prefix_match(prefix)?;
    let (name, deeper) = (parts.next()?, parts.next());
    let name = name.as_ref();
    deeper.is_none().then(|| name.to_owned())
}

impl Folder {
    /// Whether a file is what it was when it was found. (An object is never half of another.)
    pub fn is_still(&self, file: &FoundFile) -> bool {
        match self {
            Self::Local(folder) => stat(folder, file.name.clone()).is_some_and(|now| now == *file),
            _ => true,
        }
    }
}

fn list_local(folder: &Path, known: &HashSet<FileHash>, mut oldest: Oldest) -> Result<Oldest> {
    let cannot = || format!("list {}", folder.display());
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(oldest),
        Err(error) => return Err(error).with_context(cannot),
    };
    let mut fresh = Vec::new();
    for entry in entries {
        let entry = entry.with_context(cannot)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if file_kind(&name) != Some(FileKind::Counts) {
            oldest.strange = Some(name);
            continue;
        }
        let Some(file) = stat(folder, name) else { continue };
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros() as i64
            - file.modified;
        // A clock that is ahead (of a file server) makes nothing old.
        if age >= SETTLED_AFTER.as_micros() as i64 {
            oldest.offer(file, known);
        } else if !known.contains(&file.hash()) {
            fresh.push(file);
        }
    }
    if !fresh.is_empty() {
        std::thread::sleep(SETTLED_AFTER);
        oldest.waited = SETTLED_AFTER;
    }
    for file in fresh {
        // What still grows is for the next look.
        if stat(folder, file.name.clone()).is_some_and(|now| now == file) {
            oldest.offer(file, known);
        }
    }
    Ok(oldest)
}

/// `None` if it has gone meanwhile, or is no file.
fn stat(folder: &Path, name: String) -> Option<FoundFile> {
    let metadata = std::fs::metadata(folder.join(&name)).ok().filter(std::fs::Metadata::is_file)?;
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let modified = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros() as i64;
    Some(FoundFile { modified, name, size: metadata.len() })
}

fn read_local(path: &Path) -> std::io::Result<Option<Bytes>> {
    let mut content = Vec::new();
    match std::fs::File::open(path) {
        Ok(mut file) => file.read_to_end(&mut content)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(content.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    async fn names(folder: &Folder, known: &Arc<HashSet<FileHash>>, most: usize) -> (Vec<String>, bool) {
        let NewFiles { files, more, .. } = folder.new_files(known, most).await.unwrap();
        (files.into_iter().map(|file| file.name).collect(), more)
    }

    #[tokio::test]
    async fn what_still_grows_is_not_offered_whatever_its_time_and_what_has_changed_is_another() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path().to_str().unwrap()).unwrap();
        let path = place.path().join("inventory_snapshot_a.txt");
        let later = SystemTime::now() + Duration::from_secs(3_600);
        let write = move |content: &str, at: SystemTime| {
            std::fs::write(&path, content).unwrap();
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        };
        write("half", later);
        let growing = {
            let write = write.clone();
            std::thread::spawn(move || {
                std::thread::sleep(SETTLED_AFTER / 2);
                write("half and the rest", later);
            })
        };
        let mut known = Arc::default();
        assert!(names(&folder, &known, 9).await.0.is_empty());
        growing.join().unwrap();
        let NewFiles { files, .. } = folder.new_files(&known, 9).await.unwrap();
        assert!(files.len() == 1 && folder.is_still(&files[0]));
        Arc::make_mut(&mut known).insert(files[0].hash());
        let NewFiles { files: none, waited, .. } = folder.new_files(&known, 9).await.unwrap();
        assert!(none.is_empty() && waited.is_zero(), "what is known is not waited for");
        write("something else", later);
        assert!(!folder.is_still(&files[0]));
    }

    #[tokio::test]
    async fn the_oldest_that_are_new_come_first_and_the_rest_later() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path().to_str().unwrap()).unwrap();
        for (age, name) in [(10, "c"), (30, "a"), (20, "b"), (40, "other.csv")] {
            let name = if name.len() == 1 { format!("inventory_snapshot_{name}.txt") } else { name.to_owned() };
            let file = std::fs::File::create(place.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        std::fs::create_dir(place.path().join("inventory_snapshot_folder.txt")).unwrap();
        let mut known = Arc::new(HashSet::new());
        let NewFiles { files: first, more, strange, waited } = folder.new_files(&known, 2).await.unwrap();
        assert!(more && strange.is_some() && waited.is_zero());
        assert_eq!(
            first.iter().map(|file| &*file.name).collect::<Vec<_>>(),
            ["inventory_snapshot_a.txt", "inventory_snapshot_b.txt"]
        );
        Arc::make_mut(&mut known).extend(first.iter().map(FoundFile::hash));
        assert_eq!(names(&folder, &known, 2).await, (vec!["inventory_snapshot_c.txt".to_owned()], false));
        std::fs::write(place.path().join("inventory_snapshot_a.txt"), "changed").unwrap();
        let NewFiles { files, waited, .. } = folder.new_files(&known, 9).await.unwrap();
        let found: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(found, ["inventory_snapshot_c.txt", "inventory_snapshot_a.txt"]);
        assert_eq!(waited, SETTLED_AFTER, "what was just written may still grow");
        assert_eq!(folder.read("inventory_snapshot_a.txt").await.unwrap().unwrap(), "changed");
        assert_eq!(folder.read("inventory_snapshot_z.txt").await.unwrap(), None);
        assert_eq!(names(&Folder::Local("/nowhere".into()), &known, 9).await, (Vec::new(), false));
    }

    #[tokio::test]
    async fn objects_right_below_the_prefix_are_found() {
        let store = Arc::new(InMemory::new());
        for name in [
            "in/inventory_snapshot_1.txt",
            "in/deep/inventory_snapshot_2.txt",
            "inventory_snapshot_3.txt",
            "in/item.txt",
        ] {
            store.put(&name.into(), "x".into()).await.unwrap();
        }
        let odd = ObjectPath::parse("odd/inventory_snapshot_a~b.txt").unwrap();
        store.put(&odd, "odd".into()).await.unwrap();
        let folder = Folder::Cloud(store.clone(), "odd".into());
        let known = Arc::new(HashSet::new());
        assert_eq!(names(&folder, &known, 9).await.0, ["inventory_snapshot_a~b.txt"]);
        assert_eq!(folder.read("inventory_snapshot_a~b.txt").await.unwrap().unwrap(), "odd");
        let folder = Folder::Cloud(store, "in".into());
        let known = Arc::new(HashSet::new());
        assert_eq!(names(&folder, &known, 9).await, (vec!["inventory_snapshot_1.txt".to_owned()], false));
        assert_eq!(folder.read("inventory_snapshot_1.txt").await.unwrap().unwrap(), "x");
        assert_eq!(folder.read("inventory_snapshot_9.txt").await.unwrap(), None);
    }
}
