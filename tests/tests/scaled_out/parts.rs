//! Gateways and processors are killed while tills sell.

use crate::cloud::Cloud;
use crate::lake_at::LakeAt;
use onhand_tests::sandbox::{Part, wait_until};
use onhand_tests::{Ledger, Sandbox, Till, Verdict};
use std::time::Duration;

const STORES: i32 = 6;
/// Longer than any wait of a test.
const SESSION: &str = "session.timeout.ms=300000";

fn kill_them(sandbox: &Sandbox, lake: &LakeAt<'_>) {
    let stores: Vec<(i32, String)> = (1..=STORES).map(|id| (id, format!("store {id}"))).collect();
    let named: Vec<(i32, &str)> = stores.iter().map(|(id, name)| (*id, name.as_str())).collect();
    sandbox.write_stores(&named);
    let lists: Vec<String> = (1..=STORES).map(|store| store.to_string()).collect();
    let mut cloud = Cloud::start(lake, sandbox, &lists, 3, &[]);
    let selling: Vec<_> =
        (1..).zip(&cloud.agents).map(|(store, agent)| Till::new(store, 9).sell_on(agent, 60)).collect();
    std::thread::sleep(Duration::from_secs(4));
    for round in 0..3 {
        cloud.processors[round].kill();
        std::thread::sleep(Duration::from_secs(2));
        cloud.gateways[round % 2].kill();
        cloud.processors[round].restart();
        cloud.gateways[round % 2].restart();
        std::thread::sleep(Duration::from_secs(3));
    }
    let mut ledger = Ledger::default();
    for selling in selling {
        ledger.add(selling.stop().ledger);
    }
    assert!(ledger.lines() > 1_000, "the tills sold next to nothing: {}", ledger.lines());
    cloud.end(&Verdict::of(&ledger, sandbox.path("lines.csv")));
}

#[test]
fn gateways_and_processors_are_killed_and_nothing_is_lost_or_doubled() {
    let sandbox = Sandbox::new();
    kill_them(&sandbox, &LakeAt::folder(&sandbox));
}

#[test]
fn the_lake_may_be_in_s3() {
    let sandbox = Sandbox::new();
    kill_them(&sandbox, &LakeAt::s3(&sandbox));
}

#[test]
fn the_lake_may_be_in_azure() {
    let sandbox = Sandbox::new();
    kill_them(&sandbox, &LakeAt::azure(&sandbox));
}

#[test]
fn the_lake_may_be_in_google_storage() {
    let sandbox = Sandbox::new();
    kill_them(&sandbox, &LakeAt::gcs(&sandbox));
}

#[test]
fn a_processor_that_stops_tells_the_group_which_need_not_miss_it_first() {
    let sandbox = Sandbox::new();
    let lake = LakeAt::folder(&sandbox);
    let mut cloud = Cloud::without_agents(&lake, &sandbox, &[], 1, &["--kafka-set", SESSION]);
    cloud.wait_for_shares(8.);
    // More than once: whether the process ends before the group has heard is a race.
    for _ in 0..4 {
        cloud.add_processor();
        cloud.wait_for_shares(4.);
        cloud.remove_processor(1);
        cloud.wait_for_shares(8.);
    }
    cloud.remove_processor(0);
}

#[test]
fn a_processor_that_stops_while_kafka_stands_still_ends_all_the_same() {
    let sandbox = Sandbox::new();
    let lake = LakeAt::folder(&sandbox);
    let mut cloud = Cloud::start(&lake, &sandbox, &["1".to_owned()], 1, &[]);
    let selling = Till::new(1, 10).sell_on(&cloud.agents[0], 60);
    cloud.wait_for_shares(8.);
    cloud.kafka.freeze();
    // It waits for the group, and not for ever: a wait has a bound.
    let ended = cloud.processors[0].terminate();
    assert!(ended.success(), "{ended}\n{}", cloud.processors[0].log_tail());
    let gave_up = cloud.processors[0].log().contains("the consumer group may not have heard");
    assert!(gave_up, "{}", cloud.processors[0].log_tail());
    cloud.kafka.thaw();
    cloud.processors[0].restart();
    let till = selling.stop();
    cloud.end(&Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}

#[test]
fn parts_that_start_before_kafka_does_wait_for_it() {
    let sandbox = Sandbox::new();
    let lake = LakeAt::folder(&sandbox);
    let mut cloud = Cloud::start(&lake, &sandbox, &["1".to_owned()], 1, &[]);
    let selling = Till::new(1, 11).sell_on(&cloud.agents[0], 60);
    std::thread::sleep(Duration::from_secs(2));
    cloud.kafka.kill();
    for part in cloud.gateways.iter_mut().chain(&mut cloud.processors) {
        part.kill();
        part.start_process();
    }
    cloud.gateways.iter().chain(&cloud.processors).for_each(waits_for_kafka);
    cloud.kafka.restart();
    cloud.wait_for_shares(8.);
    let till = selling.stop();
    cloud.end(&Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}

#[test]
fn a_processor_that_waits_for_kafka_stops_when_it_is_asked_to() {
    let sandbox = Sandbox::new();
    let lake = LakeAt::folder(&sandbox);
    let mut cloud = Cloud::without_agents(&lake, &sandbox, &[], 1, &[]);
    cloud.kafka.kill();
    stops_while_it_waits(&mut cloud.processors[0]);
}

#[test]
fn a_gateway_that_waits_for_kafka_stops_when_it_is_asked_to() {
    let sandbox = Sandbox::new();
    let lake = LakeAt::folder(&sandbox);
    let mut cloud = Cloud::without_agents(&lake, &sandbox, &[], 1, &[]);
    cloud.kafka.kill();
    stops_while_it_waits(&mut cloud.gateways[0]);
}

fn stops_while_it_waits(part: &mut Part) {
    part.kill();
    part.start_process();
    waits_for_kafka(part);
    let ended = part.terminate();
    assert!(ended.success(), "{ended}\n{}", part.log_tail());
}

fn waits_for_kafka(part: &Part) {
    let asks = || part.log_of_this_life().contains("Kafka does not answer yet");
    wait_until("it asks again", || part.log_tail(), asks);
}
