//! Where a test's lake is, and how the judges get at it.

use crate::count_files::drop_in;
use futures::TryStreamExt;
use object_store::azure::{MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::{ObjectStore, ObjectStoreExt};
use onhand_tests::Sandbox;
use onhand_tests::judge::verify_at;
use onhand_tests::sandbox::{Azurite, Gcs, S3};
use std::path::{Path, PathBuf};

/// The bucket or container that the lake is in.
const BUCKET: &str = "retail";

enum Store {
    Folder,
    S3(S3),
    Azure(Azurite, Box<MicrosoftAzure>),
    Google(Gcs, Box<GoogleCloudStorage>),
}

/// A lake: in a folder, in S3, or in Azure's or Google's storage.
pub struct LakeAt<'a> {
    sandbox: &'a Sandbox,
    store: Store,
}

impl<'a> LakeAt<'a> {
    pub fn folder(sandbox: &'a Sandbox) -> Self {
        Self { sandbox, store: Store::Folder }
    }

    pub fn s3(sandbox: &'a Sandbox) -> Self {
        let s3 = S3::start(sandbox);
        s3.create_bucket(BUCKET);
        Self { sandbox, store: Store::S3(s3) }
    }

    pub fn azure(sandbox: &'a Sandbox) -> Self {
        let azurite = Azurite::start(sandbox);
        azurite.create_container(BUCKET);
        let builder = MicrosoftAzureBuilder::new().with_container_name(BUCKET);
        let builder = azurite.options().into_iter().fold(builder, |builder, (key, value)| {
            builder.with_config(key.parse().expect("an option of Azure's store"), value)
        });
        let client = builder.build().expect("a client of Azurite");
        Self { sandbox, store: Store::Azure(azurite, Box::new(client)) }
    }

    pub fn gcs(sandbox: &'a Sandbox) -> Self {
        let gcs = Gcs::start(sandbox);
        gcs.create_bucket(BUCKET);
        let builder = GoogleCloudStorageBuilder::new().with_bucket_name(BUCKET);
        let builder = gcs.options().into_iter().fold(builder, |builder, (key, value)| {
            builder.with_config(key.parse().expect("an option of Google's store"), value)
        });
        let client = builder.build().expect("a client of Google's storage");
        Self { sandbox, store: Store::Google(gcs, Box::new(client)) }
    }

    /// What a processor is told.
    pub fn url(&self) -> String {
        match &self.store {
            Store::Folder => self.sandbox.lake().to_str().expect("a path of plain characters").to_owned(),
            Store::S3(_) => format!("s3://{BUCKET}/lake"),
            Store::Azure(..) => format!("az://{BUCKET}/lake"),
            Store::Google(..) => format!("gs://{BUCKET}/lake"),
        }
    }

    /// The environment that leads there.
    pub fn environment(&self) -> Vec<(String, String)> {
        match &self.store {
            Store::Folder => Vec::new(),
            Store::S3(s3) => s3.environment(),
            Store::Azure(azurite, _) => azurite.environment(),
            Store::Google(gcs, _) => gcs.environment(),
        }
    }

    /// Where count files are, beside a lake in object storage.
    pub fn counts_url(&self) -> String {
        let url = self.url();
        format!("{}/counts", url.strip_suffix("/lake").expect("it is in a bucket"))
    }

    /// Puts a count file there.
    pub fn put_counts(&self, name: &str, content: &str) {
        match &self.store {
            Store::S3(s3) => drop_in(&s3.bucket(BUCKET).join("counts"), name, content),
            Store::Google(gcs, _) => gcs.put(BUCKET, &format!("counts/{name}"), content),
            Store::Folder | Store::Azure(..) => panic!("no test has its count files beside this lake"),
        }
    }

    /// The S3 that it is in.
    pub fn in_s3(&self) -> &S3 {
        match &self.store {
            Store::S3(s3) => s3,
            _ => panic!("this lake is not in S3"),
        }
    }

    /// A folder with what is there now.
    pub fn files(&self) -> PathBuf {
        match &self.store {
            Store::Folder => self.sandbox.lake(),
            // The emulator keeps its objects as files.
            Store::S3(s3) => s3.bucket(BUCKET).join("lake"),
            Store::Azure(_, client) => self.copy(&**client),
            Store::Google(_, client) => self.copy(&**client),
        }
    }

    fn copy(&self, store: &dyn ObjectStore) -> PathBuf {
        let to = self.sandbox.path("copy");
        let _ = std::fs::remove_dir_all(&to);
        download(store, &to);
        to.join("lake")
    }

    /// `onhand-hub verify`, where the lake is: it must find nothing.
    pub fn verify(&self) {
        let (code, output) = verify_at(&self.url(), &self.environment());
        assert!(code == 0 && output.contains(" 0 differing"), "verify: status {code}\n{output}");
    }
}

/// Copies all objects into a folder. Objects that go away meanwhile are left out: data files are never replaced, and log entries
/// come after them.
fn download(store: &dyn ObjectStore, to: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut objects: Vec<_> = store.list(None).try_collect().await.expect("list the objects");
        // Log entries first: what they name is there.
        objects.sort_by_key(|object| !object.location.as_ref().contains("_delta_log"));
        for object in objects {
            let Ok(found) = store.get(&object.location).await else { continue };
            let bytes = found.bytes().await.expect("read an object");
            let file = to.join(object.location.as_ref());
            std::fs::create_dir_all(file.parent().expect("it lies in a folder")).expect("make a folder");
            std::fs::write(file, bytes).expect("write a file");
        }
    });
}
