//! Kafka keeps what agents were told is durable until processors have read it.

use crate::cloud::Cloud;
use crate::lake_at::LakeAt;
use onhand_tests::sandbox::{binary, run, wait_until, wait_until_none_left};
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

/// Nobody can bring them back; somebody has to be told. Of a processor that was away, and of one that stood still.
#[test]
fn records_that_kafka_removed_before_they_were_read_are_said_to_be_lost() {
    let sandbox = Sandbox::new();
    let lake = LakeAt::folder(&sandbox);
    let mut cloud = Cloud::start(&lake, &sandbox, &["1".to_owned()], 1, &[]);
    let mut till = Till::new(1, 73);
    till.sell(&cloud.agents[0].url(""), 40);
    cloud.settle(&Verdict::of(&till.ledger, sandbox.path("lines.csv")));
    assert_eq!(cloud.processors[0].metric(LOST), Some(0.));

    cloud.processors[0].kill();
    sell_until_kafka_has_it(&cloud, &mut till);
    cloud.kafka.empty_topic("onhand.events", 8);
    cloud.processors[0].restart();
    let lost_while_away = wait_for_loss(&cloud, 0.);

    cloud.processors[0].freeze();
    // A first answer of Kafka's may be on its way to the processor already, with what came first.
    for _ in 0..3 {
        sell_until_kafka_has_it(&cloud, &mut till);
    }
    cloud.kafka.empty_topic("onhand.events", 8);
    cloud.processors[0].thaw();
    sell_until_kafka_has_it(&cloud, &mut till);
    wait_for_loss(&cloud, lost_while_away);
    cloud.remove_processor(0);
    lake.verify();
}

/// Of records, as a processor counts them.
const LOST: &str = "onhand_hub_kafka_lost_records_total";

fn sell_until_kafka_has_it(cloud: &Cloud<'_>, till: &mut Till) {
    let agent = &cloud.agents[0];
    till.sell(&agent.url(""), 40);
    wait_until_none_left("Kafka has it", || agent.log_tail(), || agent.backlog());
}

/// Waits until the processor counts more than `before` as lost, and says so; returns how many it counts.
fn wait_for_loss(cloud: &Cloud<'_>, before: f64) -> f64 {
    let processor = &cloud.processors[0];
    let lost = || processor.metric(LOST).filter(|lost| *lost > before);
    wait_until("it says what is lost", || processor.log_tail(), || lost().is_some());
    assert!(processor.log_of_this_life().contains("LOST: Kafka has removed records"), "{}", processor.log_tail());
    lost().expect("it counts on")
}
