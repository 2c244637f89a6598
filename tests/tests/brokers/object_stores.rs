//! S3, Azure's and Google's storage by the object store's clients, as the lake uses them.

use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::azure::{MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, WriteMultipart};
use onhand_tests::Sandbox;
use onhand_tests::judge::append_commits;
use onhand_tests::sandbox::{Azurite, Gcs, S3};
use std::sync::Arc;
use tokio::sync::Barrier;

/// Names that two writers race for.
const RACES: usize = 200;
/// More than a page of them, see [`pages`].
const PAGE: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn s3_lets_one_writer_win_and_keeps_it() {
    let sandbox = Sandbox::new();
    let mut s3 = S3::start(&sandbox);
    s3.create_bucket("lake");
    let store = Arc::new(s3_client(&s3));
    create_is_exclusive(&*store).await;
    one_of_two_wins(&store).await;
    delete_and_multipart(&*store).await;

    let names = pages(&*store, None).await;
    assert_eq!(names.len(), RACES);
    lists_from_a_name_on(&*store, &names).await;

    s3.kill();
    s3.restart();
    assert_eq!(pages(&*store, None).await, names);
    assert!(is_refused(create(&*store, &names[7], "late").await), "it has forgotten\n{}", s3.log_tail());

    let wrong = s3_builder(&s3).with_secret_access_key("wrong").build().expect("a client");
    let refused = wrong.get(&Path::from(names[0].as_str())).await;
    assert!(matches!(refused, Err(Error::PermissionDenied { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_lets_one_writer_win_and_keeps_it() {
    let sandbox = Sandbox::new();
    let mut azurite = Azurite::start(&sandbox);
    azurite.create_container("lake");
    let store = Arc::new(azure_client(&azurite));
    create_is_exclusive(&*store).await;
    one_of_two_wins(&store).await;
    delete_and_multipart(&*store).await;
    let names = pages(&*store, None).await;
    assert_eq!(names.len(), RACES);

    azurite.terminate();
    azurite.restart();
    assert_eq!(pages(&*store, None).await, names);
    assert!(is_refused(create(&*store, &names[7], "late").await), "it has forgotten\n{}", azurite.log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn google_lets_one_writer_win_and_keeps_it() {
    let sandbox = Sandbox::new();
    let mut gcs = Gcs::start(&sandbox);
    gcs.create_bucket("lake");
    let store = Arc::new(google_client(gcs.options()));
    create_is_exclusive(&*store).await;
    one_of_two_wins(&store).await;
    delete_and_multipart(&*store).await;
    let names = pages(&*store, None).await;
    assert_eq!(names.len(), RACES);
    lists_from_a_name_on(&*store, &names).await;

    gcs.terminate();
    gcs.restart();
    assert_eq!(pages(&*store, None).await, names);
    assert!(is_refused(create(&*store, &names[7], "late").await), "it has forgotten\n{}", gcs.log_tail());

    let elsewhere = Sandbox::new();
    let mut options = Gcs::start(&elsewhere).options();
    options.extend(gcs.options().into_iter().filter(|(name, _)| *name == "google_base_url"));
    let refused = google_client(options).get(&Path::from(names[0].as_str())).await;
    assert!(matches!(refused, Err(Error::Unauthenticated { .. })), "{refused:?}");
}

#[test]
fn delta_tables_can_be_written_and_read_in_all() {
    let sandbox = Sandbox::new();
    let (s3, azurite, gcs) = (S3::start(&sandbox), Azurite::start(&sandbox), Gcs::start(&sandbox));
    s3.create_bucket("lake");
    azurite.create_container("lake");
    gcs.create_bucket("lake");
    assert_eq!(append_commits("s3://lake/numbers", &s3.environment(), 12), "11 66");
    assert_eq!(append_commits("az://lake/numbers", &azurite.environment(), 12), "11 66");
    assert_eq!(append_commits("gs://lake/numbers", &gcs.environment(), 12), "11 66");
}

fn s3_builder(s3: &S3) -> AmazonS3Builder {
    let options = s3.options().into_iter();
    options.fold(AmazonS3Builder::new().with_bucket_name("lake"), |builder, (name, value)| {
        builder.with_config(name.parse().expect("an option of S3"), value)
    })
}

fn s3_client(s3: &S3) -> AmazonS3 {
    s3_builder(s3).build().expect("a client")
}

fn azure_client(azurite: &Azurite) -> MicrosoftAzure {
    let options = azurite.options().into_iter();
    let builder = options.fold(MicrosoftAzureBuilder::new().with_container_name("lake"), |builder, (name, value)| {
        builder.with_config(name.parse().expect("an option of Azure"), value)
    });
    builder.build().expect("a client")
}

fn google_client(options: Vec<(&'static str, String)>) -> GoogleCloudStorage {
    let builder = GoogleCloudStorageBuilder::new().with_bucket_name("lake");
    let builder = options
        .into_iter()
        .fold(builder, |builder, (name, value)| builder.with_config(name.parse().expect("an option of Google"), value));
    builder.build().expect("a client")
}

async fn create(store: &dyn ObjectStore, name: &str, content: &str) -> object_store::Result<()> {
    let content = content.to_owned().into();
    store.put_opts(&Path::from(name), content, PutMode::Create.into()).await.map(|_| ())
}

async fn content(store: &dyn ObjectStore, name: &str) -> String {
    let found = store.get(&Path::from(name)).await.expect("it is there");
    String::from_utf8(found.bytes().await.expect("its bytes").to_vec()).expect("it is text")
}

fn is_refused(result: object_store::Result<()>) -> bool {
    matches!(result, Err(Error::AlreadyExists { .. }))
}

async fn create_is_exclusive(store: &dyn ObjectStore) {
    create(store, "log/0.json", "first").await.expect("the first is let in");
    let second = create(store, "log/0.json", "second").await;
    assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{second:?}");
    assert_eq!(content(store, "log/0.json").await, "first");
}

async fn one_of_two_wins<S: ObjectStore>(store: &Arc<S>) {
    let barrier = Arc::new(Barrier::new(2));
    let writers = ["a", "b"].map(|writer| {
        let (store, barrier) = (store.clone(), barrier.clone());
        tokio::spawn(async move {
            let mut won = Vec::new();
            for at in 0..RACES {
                barrier.wait().await;
                let result = create(&*store, &format!("race/{at:04}"), writer).await;
                let refused = matches!(result, Err(Error::AlreadyExists { .. }));
                assert!(result.is_ok() || refused, "{at}: {result:?}");
                won.push(!refused);
            }
            won
        })
    });
    let [a, b] = writers;
    let (a, b) = (a.await.expect("writer a"), b.await.expect("writer b"));
    for (at, (a, b)) in a.into_iter().zip(b).enumerate() {
        assert!(a != b, "{at}: a won: {a}, b won: {b}");
        assert_eq!(content(&**store, &format!("race/{at:04}")).await, if a { "a" } else { "b" });
    }
}

async fn delete_and_multipart(store: &dyn ObjectStore) {
    let path = Path::from("data/part-0.parquet");
    let bytes: Vec<u8> = (0..6 << 20).map(|at: u32| (at % 251) as u8).collect();
    let mut upload = WriteMultipart::new_with_chunk_size(store.put_multipart(&path).await.expect("an upload"), 5 << 20);
    upload.write(&bytes);
    upload.finish().await.expect("the parts become one");
    let range = store.get_range(&path, 5_242_870..5_242_890).await.expect("a range over the seam");
    assert_eq!(range, bytes[5_242_870..5_242_890]);
    store.delete(&path).await.expect("it is deleted");
    let gone = store.head(&path).await;
    assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
}

async fn lists_from_a_name_on<S: ObjectStore + PaginatedListStore>(store: &S, names: &[String]) {
    let offset = &names[150];
    assert_eq!(pages(store, Some(offset.clone())).await, names[151..]);
    let listed = store.list_with_offset(Some(&Path::from("race")), &Path::from(offset.as_str()));
    let mut listed: Vec<String> =
        listed.map_ok(|found| found.location.to_string()).try_collect().await.expect("a list");
    listed.sort_unstable();
    assert_eq!(listed, names[151..]);
}

/// The names that were raced for, in order, page by page, from after `offset` on.
async fn pages(store: &dyn PaginatedListStore, offset: Option<String>) -> Vec<String> {
    let (mut names, mut page_token) = (Vec::new(), None);
    loop {
        let (offset, max_keys) = (offset.clone(), Some(PAGE));
        let options = PaginatedListOptions { offset, max_keys, page_token, ..PaginatedListOptions::default() };
        let page = store.list_paginated(Some("race/"), options).await.expect("a page");
        let found = page.result.objects;
        assert!(found.len() <= PAGE, "a page of {}", found.len());
        names.extend(found.into_iter().map(|found| found.location.to_string()));
        page_token = page.page_token;
        if page_token.is_none() {
            return names;
        }
    }
}
