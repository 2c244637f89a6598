//! Kafka keeps what agents were told is durable until processors have read it.

use crate::cloud::Cloud;
use crate::lake_at::LakeAt;
use onhand_tests::sandbox::{binary, run};
use onhand_tests::{Sandbox, Till, Verdict};
use serde_json::{Value, json};
use std::process::Command;

/// Two weeks, by Kafka's own clock: what a gateway dates whose clock is behind would be old when it comes.
#[test]
fn the_topic_is_made_so_that_kafka_keeps_events_for_two_weeks_by_its_own_clock() {
    let sandbox = Sandbox::new();
    let lake = LakeAt::folder(&sandbox);
    let cloud = Cloud::start(&lake, &sandbox, &["1".to_owned()], 1, &[]);
    let mut till = Till::new(1, 71);
    till.sell(&cloud.agents[0].url(""), 40);
    let settings = cloud.kafka.settings_of_topic("onhand.events");
    for wanted in ["retention.ms=1209600000", "retention.bytes=-1", "cleanup.policy=delete"] {
        assert!(settings.lines().any(|line| line.trim().starts_with(&format!("{wanted} "))), "{wanted}: {settings}");
    }
    cloud.end(&Verdict::of(&till.ledger, sandbox.path("lines.csv")));
    let mut show = Command::new(binary("onhand-hub"));
    show.args(["show", "raw_inventory_change", "--format", "json", "--lake"]).arg(sandbox.lake());
    let records: Vec<Value> = serde_json::from_str(&run(&mut show).expect_success()).expect("an array of rows");
    assert!(!records.is_empty());
    for record in records {
        assert_eq!(record["timestampType"], json!(1), "0 is what the producer says: {record}");
    }
}

#[test]
fn a_topic_that_keeps_only_the_newest_of_each_store_is_refused() {
    let sandbox = Sandbox::new();
    let lake = LakeAt::folder(&sandbox);
    let mut cloud = Cloud::without_agents(&lake, &sandbox, &[], 1, &[]);
    cloud.kafka.set_of_topic("onhand.events", "cleanup.policy", "compact");
    for part in cloud.gateways.iter_mut().chain(&mut cloud.processors) {
        assert!(part.terminate().success(), "{}", part.log_tail());
        part.start_process();
        assert_eq!(part.wait().code(), Some(1), "{}", part.log_tail());
        assert!(part.log().contains("has cleanup.policy=compact"), "{}", part.log_tail());
    }
}
