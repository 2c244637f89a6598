//! Kafka, by its own console clients and by librdkafka.

use hashbrown::HashMap;
use onhand_tests::Sandbox;
use onhand_tests::sandbox::Kafka;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::future_producer::Delivery;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use std::time::{Duration, Instant};

const PARTITIONS: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn lines_with_keys_outlive_a_kill_and_a_stop() {
    let sandbox = Sandbox::new();
    let mut kafka = Kafka::start(&sandbox);
    kafka.create_topic("sales", PARTITIONS);
    let lines: Vec<(String, String)> = (0..20).map(|at| (format!("store-{}", at % 4), format!("line {at}"))).collect();
    kafka.produce("sales", &lines[..15]);
    assert_eq!(by_key(kafka.consume("sales", 15)), by_key(lines[..15].to_vec()));

    kafka.kill();
    kafka.restart();
    kafka.produce("sales", &lines[15..]);
    kafka.terminate();
    kafka.restart();
    assert_eq!(by_key(kafka.consume("sales", 20)), by_key(lines));
}

#[test]
fn librdkafka_sends_each_once_over_a_killed_broker() {
    let sandbox = Sandbox::new();
    let mut kafka = Kafka::start(&sandbox);
    kafka.create_topic("counts", PARTITIONS);
    let producer: FutureProducer = client(&kafka)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "zstd")
        .create()
        .expect("a producer");
    // It would be refused if librdkafka came without TLS or without SCRAM.
    client(&kafka)
        .set("security.protocol", "sasl_ssl")
        .set("sasl.mechanism", "SCRAM-SHA-512")
        .set("sasl.username", "u")
        .set("sasl.password", "p")
        .create::<BaseConsumer>()
        .expect("librdkafka with TLS and SCRAM");

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut ends = [0; PARTITIONS as usize];
    for half in 0..2 {
        let sent: Vec<_> = (0..500)
            .map(|at| {
                let (key, value) = (format!("store-{}", at % 7), format!("{half}-{at}"));
                let record = FutureRecord::to("counts").key(&key).payload(&value);
                producer.send_result(record).map_err(|(error, _)| error).expect("there is room in the queue")
            })
            .collect();
        if half == 0 {
            kafka.kill();
            kafka.restart();
        }
        for delivery in sent {
            let Delivery { partition, offset, .. } =
                runtime.block_on(delivery).expect("the producer lives").expect("it was acknowledged");
            ends[partition as usize] = ends[partition as usize].max(offset + 1);
        }
    }
    assert_eq!(ends.iter().sum::<i64>(), 1000, "each once, no gap: {ends:?}\n{}", kafka.log_tail());

    let consumer: BaseConsumer = client(&kafka)
        .set("group.id", "readers")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    consumer.subscribe(&["counts"]).expect("it subscribes");
    let mut values: Vec<String> = read(&consumer, 1000, &kafka).into_iter().map(|(_, value)| value).collect();
    values.sort_unstable();
    values.dedup();
    assert_eq!(values.len(), 1000, "no value twice");
    consumer.commit_consumer_state(rdkafka::consumer::CommitMode::Sync).expect("it commits");
    assert_eq!(kafka.group_offsets("readers", "counts"), ends.map(|end| (end, end)));

    // What was deleted is gone for a reader that comes later.
    let partition = (0..PARTITIONS as usize).find(|&partition| ends[partition] > 10).expect("one got some");
    kafka.delete_records("counts", partition as i32, 10);
    let found = consumer.fetch_watermarks("counts", partition as i32, PATIENCE).expect("watermarks");
    assert_eq!(found, (10, ends[partition]));
    let mut assigned = TopicPartitionList::new();
    assigned.add_partition_offset("counts", partition as i32, Offset::Beginning).expect("an assignment");
    let late: BaseConsumer = client(&kafka).set("group.id", "late").create().expect("a consumer");
    late.assign(&assigned).expect("it is assigned");
    let offsets: Vec<i64> = read(&late, 1, &kafka).into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(offsets, [10]);
}

#[test]
fn no_topic_comes_by_itself() {
    let sandbox = Sandbox::new();
    let kafka = Kafka::start(&sandbox);
    let producer: FutureProducer = client(&kafka)
        .set("allow.auto.create.topics", "true")
        .set("topic.metadata.propagation.max.ms", "1000")
        .create()
        .expect("a producer");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let sent = producer.send(FutureRecord::to("nobody-made-it").key("k").payload("v"), Timeout::Never);
    let (error, _) = runtime.block_on(sent).expect_err("there is no such topic");
    // The broker's word, or librdkafka's when it has asked the broker before.
    let unknown = [RDKafkaErrorCode::UnknownTopicOrPartition, RDKafkaErrorCode::UnknownTopic];
    assert!(error.rdkafka_error_code().is_some_and(|code| unknown.contains(&code)), "{error}");
    kafka.create_topic("made", PARTITIONS);
    let found = producer_metadata(&producer);
    assert_eq!(found, [("made".to_owned(), PARTITIONS as usize)]);
}

fn client(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.address());
    config
}

/// The next `count` records: offset and value.
fn read(consumer: &BaseConsumer, count: usize, kafka: &Kafka) -> Vec<(i64, String)> {
    let began = Instant::now();
    let mut found = Vec::new();
    while found.len() < count {
        assert!(began.elapsed() < PATIENCE, "{} of {count} records came\n{}", found.len(), kafka.log_tail());
        if let Some(message) = consumer.poll(Duration::from_millis(200)) {
            let message = message.expect("a record");
            let value = message.payload_view::<str>().expect("a value").expect("it is text");
            found.push((message.offset(), value.to_owned()));
        }
    }
    found
}

fn producer_metadata(producer: &FutureProducer) -> Vec<(String, usize)> {
    use rdkafka::producer::Producer;
    let metadata = producer.client().fetch_metadata(None, PATIENCE).expect("metadata");
    metadata.topics().iter().map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect()
}

fn by_key(lines: Vec<(String, String)>) -> HashMap<String, Vec<String>> {
    let mut found: HashMap<String, Vec<String>> = HashMap::new();
    for (key, value) in lines {
        found.entry(key).or_default().push(value);
    }
    found
}
