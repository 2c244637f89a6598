//! What stands still holds up what comes before it, and costs no memory: a lake the processors, Kafka the gateways and agents.

use crate::cloud::Cloud;
use crate::lake_at::LakeAt;
use onhand_tests::sandbox::{Kafka, Part, wait_until};
use onhand_tests::{Ledger, Sandbox, Till, Verdict};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use std::time::Duration;

const MEGABYTE: u64 = 1 << 20;
/// What waits in Kafka.
const LAG: u64 = 768 * MEGABYTE;
/// What of it a processor may hold: what librdkafka fetches ahead, the queues of eight partitions, what awaits a commit.
const CAP: u64 = 128 * MEGABYTE;
/// What it may hold while it writes: that, and the files that it makes of it.
const CAP_WHILE_WRITING: u64 = 256 * MEGABYTE;

/// Documents in the accelerator's form, large by the blanks at their end, straight onto the topic.
fn produce(kafka: &Kafka, till: &mut Till, store: i32, bytes: u64) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.address()).set("acks", "all").set("queue.buffering.max.messages", "300");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().expect("a producer");
    let mut sent = 0;
    while sent < bytes {
        let document = till.document();
        till.ledger.transaction(&document);
        let value = format!("{document}{}", " ".repeat(60_000));
        sent += value.len() as u64;
        let key = store.to_string();
        let mut record = BaseRecord::to("onhand.events").partition(store).key(&key).payload(&value);
        while let Err((_, back)) = producer.send(record) {
            record = back;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    producer.flush(Duration::from_secs(60)).expect("Kafka has all of it");
}

#[test]
fn a_lake_that_stands_still_costs_a_processor_no_memory() {
    let sandbox = Sandbox::new();
    let stores: Vec<(i32, String)> = (0..8).map(|id| (id, format!("store {id}"))).collect();
    let named: Vec<(i32, &str)> = stores.iter().map(|(id, name)| (*id, name.as_str())).collect();
    sandbox.write_stores(&named);
    let lake = LakeAt::s3(&sandbox);
    let more = ["--kafka-set", "queued.max.messages.kbytes=16384", "--max-awaiting-rows", "100000"];
    let cloud = Cloud::without_agents(&lake, &sandbox, &[], 1, &more);
    let processor = &cloud.processors[0];
    let mut tills: Vec<Till> = (0..8).map(|store| Till::new(store, 77)).collect();
    let mut fill = |bytes: u64| {
        let mut ledger = Ledger::default();
        for (store, till) in (0..).zip(&mut tills) {
            produce(&cloud.kafka, till, store, bytes / 8);
            ledger.add(till.ledger.clone());
        }
        Verdict::of(&ledger, sandbox.path("lines.csv"))
    };
    let sold = fill(8 * MEGABYTE);
    cloud.settle(&sold);
    let before = processor.memory();

    lake.in_s3().freeze();
    let sold = fill(LAG);
    let filled = || processor.metric("onhand_hub_rows_awaiting_commit").unwrap_or(0.);
    // A document weighs about 470 rows.
    let full = || format!("{} rows await a commit\n{}", filled(), processor.log_tail());
    wait_until("it takes no more", full, || filled() > 99_000.);
    let mut held = 0;
    for _ in 0..150 {
        held = held.max(processor.memory().saturating_sub(before));
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{} MB more than before, with {} MB in Kafka", held / MEGABYTE, LAG / MEGABYTE);
    assert!(held < CAP, "it holds {held} bytes\n{}", processor.log_tail());
    lake.in_s3().thaw();
    let written = || processor.metric("onhand_hub_silver_rows_total").unwrap_or(0.);
    let all = sold.changes.expect("lines were sold") as f64;
    let words = || format!("{} of {all} lines\n{}", written(), processor.log_tail());
    wait_until("it has caught up", words, || {
        held = held.max(processor.memory().saturating_sub(before));
        written() >= all
    });
    println!("{} MB more while it caught up", held / MEGABYTE);
    assert!(held < CAP_WHILE_WRITING, "it held {held} bytes\n{}", processor.log_tail());
    cloud.end(&sold);
}

#[test]
fn while_kafka_stands_still_agents_keep_what_they_take() {
    let sandbox = Sandbox::new();
    let lake = LakeAt::folder(&sandbox);
    let cloud = Cloud::start(&lake, &sandbox, &["1".to_owned(), "2,3".to_owned()], 2, &[]);
    let mut tills = [(1, 0), (2, 1), (3, 1)].map(|(store, agent)| (Till::new(store, 5), &cloud.agents[agent]));
    for (till, agent) in &mut tills {
        till.sell(&agent.url(""), 50);
    }
    cloud.kafka.freeze();
    let taken = |part: &Part| part.metric("onhand_hub_frames_taken_total").unwrap_or(0.);
    let taken = || cloud.gateways.iter().map(taken).sum::<f64>();
    for _ in 0..8 {
        for (till, agent) in &mut tills {
            for _ in 0..20 {
                // Answered at once, whatever is behind.
                let document = till.document();
                let answer = agent.transactions(document.to_string());
                assert_eq!(answer.status, 200, "{answer:?}");
                till.ledger.transaction(&document);
            }
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    let (before, backlogs) = (taken(), [0, 1].map(|agent| cloud.agents[agent].backlog()));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(before, taken(), "acknowledged by a gateway, and Kafka stands still");
    assert!(backlogs[0] >= Some(160) && backlogs[1] >= Some(320), "{backlogs:?}");
    assert_eq!(backlogs, [0, 1].map(|agent| cloud.agents[agent].backlog()));
    cloud.kafka.thaw();
    let mut ledger = Ledger::default();
    tills.into_iter().for_each(|(till, _)| ledger.add(till.ledger));
    cloud.end(&Verdict::of(&ledger, sandbox.path("lines.csv")));
}
