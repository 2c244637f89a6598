//! Count files in a bucket, loaded by whichever processor has partition 0.

use crate::lake_at::LakeAt;
use onhand_tests::judge::{ask_lake, number_in_lake};
use onhand_tests::sandbox::{Hub, HubOptions, Kafka, Part, S3, wait_until};
use onhand_tests::{Ledger, Sandbox, Verdict, judge};
use serde_json::json;
use std::fmt::Write;
use std::path::Path;

/// Counts of four stores, which lie in four partitions: a file's name and content.
fn counts(ledger: &mut Ledger, number: i32) -> (String, String) {
    let mut text = String::from(",item_id,employee_id,store_id,date_time,quantity\n");
    let at = format!("2021-01-{:02} {:02}:00:00", number / 24 + 1, number % 24);
    for row in 0..80 {
        let (item, store, quantity) = (row / 4 + 1, row % 4 + 1, number * 100 + row);
        writeln!(text, "{row},{item},7,{store},{at},{quantity}").expect("a text grows");
        let at = format!("{}Z", at.replace(' ', "T"));
        ledger.count(&json!({"store_id": store, "item_id": item, "date_time": at, "quantity": quantity}));
    }
    (format!("inventory_snapshot_{number}.txt"), text)
}

fn put(folder: &Path, ledger: &mut Ledger, number: i32) {
    let (name, text) = counts(ledger, number);
    drop_in(folder, &name, &text);
}

/// As an object store would have it: all at once.
pub fn drop_in(folder: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(folder).expect("make a folder");
    let beside = folder.with_extension("being-written");
    std::fs::write(&beside, text).expect("write a file");
    std::fs::rename(&beside, folder.join(name)).expect("put it there");
}

fn they_are_taken_once_each(sandbox: &Sandbox, place: &LakeAt<'_>) {
    let kafka = Kafka::start(sandbox);
    let mut environment = place.environment();
    environment.push(("ONHAND_HUB_COUNT_FILES".to_owned(), place.counts_url()));
    let mut ledger = Ledger::default();
    let put = |ledger: &mut Ledger, number| {
        let (name, text) = counts(ledger, number);
        place.put_counts(&name, &text);
    };
    (0..20).for_each(|number| put(&mut ledger, number));
    place.put_counts("inventory_snapshot_bad.txt", "nobody counted anything here\n");
    let mut processors = [1, 2].map(|number| {
        Part::processor(sandbox, &format!("processor-{number}"), &kafka, &place.url(), environment.clone())
    });
    let logs = |processors: &[Part]| processors.iter().map(|part| part.log_tail()).collect::<String>();
    let counted = || number_in_lake(&place.files(), "SELECT count(*) FROM inventory_snapshot") as u64;
    processors.iter().for_each(Part::wait_ready);
    wait_until("the first counts are in silver", || logs(&processors), || counted() > 0);
    for round in 0..2 {
        processors[round].kill();
        (0..10).for_each(|at| put(&mut ledger, 20 + 10 * round as i32 + at));
        wait_until(
            "who is left has taken all",
            || logs(&processors),
            || {
                std::thread::sleep(std::time::Duration::from_millis(500));
                counted() >= ledger.counts()
            },
        );
        processors[round].restart();
    }
    for part in &mut processors {
        part.wait_ready();
        assert!(part.terminate().success(), "{}", part.log_tail());
    }
    place.verify();
    let lake = place.files();
    judge(&lake, &Verdict::of(&ledger, sandbox.path("lines.csv")));
    let sources = ask_lake(&lake, "SELECT DISTINCT agent_id FROM inventory_snapshot");
    assert_eq!(sources.len(), 40, "each count names its file");
    let files = number_in_lake(&lake, "SELECT count(DISTINCT name) FROM count_files");
    assert_eq!(files, 41, "each file is known to the lake");
    let refused = ask_lake(&lake, "SELECT DISTINCT source, reason FROM quarantine");
    assert_eq!(refused, [["file:inventory_snapshot_bad.txt", "malformed count file"]]);
}

#[test]
fn count_files_in_a_bucket_are_taken_once_each_whoever_loads_them() {
    let sandbox = Sandbox::new();
    they_are_taken_once_each(&sandbox, &LakeAt::s3(&sandbox));
}

#[test]
fn the_bucket_may_be_in_google_storage() {
    let sandbox = Sandbox::new();
    they_are_taken_once_each(&sandbox, &LakeAt::gcs(&sandbox));
}

#[test]
fn a_hub_in_embedded_form_takes_them_from_a_bucket_once() {
    let sandbox = Sandbox::new();
    let s3 = S3::start(&sandbox);
    s3.create_bucket("retail");
    let folder = s3.bucket("retail").join("counts");
    let mut ledger = Ledger::default();
    (0..30).for_each(|number| put(&folder, &mut ledger, number));
    let options = HubOptions::with(&["--count-files", "s3://retail/counts"]);
    let mut hub = Hub::start(&sandbox, HubOptions { environment: s3.environment(), ..options });
    let planned = |sandbox: &Sandbox| number_in_lake(&sandbox.lake(), "SELECT count(*) FROM count_files");
    wait_until("some are taken", || hub.log_tail(), || hub.item(4, 20).is_some());
    hub.kill();
    (30..40).for_each(|number| put(&folder, &mut ledger, number));
    hub.restart();
    let newest = |hub: &Hub| hub.item(4, 20).is_some_and(|item| item["snapshot_quantity"] == 3979);
    wait_until("all are taken", || hub.log_tail(), || newest(&hub));
    hub.wait_settled();
    let before = planned(&sandbox);
    hub.kill();
    hub.restart();
    hub.wait_settled();
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    assert_eq!(planned(&sandbox), before, "what was taken is not planned again");
    judge(&sandbox.lake(), &Verdict::of(&ledger, sandbox.path("lines.csv")));
}

#[test]
fn while_kafka_stands_still_a_count_file_is_planned_once() {
    let sandbox = Sandbox::new();
    let (kafka, lake, folder) = (Kafka::start(&sandbox), LakeAt::folder(&sandbox), sandbox.path("counts"));
    std::fs::create_dir_all(&folder).expect("make a folder");
    let place = folder.to_str().expect("a path of plain characters");
    // The producer gives up soon, the group does not.
    let patience = ["--kafka-set", "message.timeout.ms=1000", "--kafka-set", "session.timeout.ms=45000"];
    let more = [&["--count-files", place][..], &patience].concat();
    let mut processor = Part::processor_with(&sandbox, "processor-1", &kafka, &lake.url(), lake.environment(), &more);
    processor.wait_ready();
    let counted = || number_in_lake(&lake.files(), "SELECT count(*) FROM inventory_snapshot") as u64;
    let mut ledger = Ledger::default();
    put(&folder, &mut ledger, 0);
    wait_until("the first file is taken", || processor.log_tail(), || counted() == ledger.counts());
    kafka.freeze();
    put(&folder, &mut ledger, 1);
    let refused = || processor.log().matches("Kafka did not take a record").count();
    wait_until("the second file was tried often", || processor.log_tail(), || refused() >= 5);
    kafka.thaw();
    wait_until("it is taken", || processor.log_tail(), || counted() == ledger.counts());
    assert!(processor.terminate().success(), "{}", processor.log_tail());
    assert_eq!(number_in_lake(&lake.files(), "SELECT count(*) FROM count_files"), 2, "each file once");
    judge(&lake.files(), &Verdict::of(&ledger, sandbox.path("lines.csv")));
}
