//! The topic between gateways and processors, filled without a gateway.
//!
//! What is filled in is one transaction of Kafka: processors see nothing of it before it is shown, and then all of it at once.

use onhand_hub::ownership::partition_of;
use onhand_tests::sandbox::Kafka;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use std::time::Duration;

/// How many partitions it has.
pub const PARTITIONS: i32 = 8;
const PATIENCE: Duration = Duration::from_secs(60);

/// A topic, and a producer of it.
pub struct Topic {
    name: String,
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl Topic {
    /// A new one.
    pub fn create(kafka: &Kafka, name: &str) -> Self {
        kafka.create_topic(name, PARTITIONS as u32);
        let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
            .set("bootstrap.servers", kafka.address())
            .set("transactional.id", format!("budgets-{name}"))
            .set("compression.type", "zstd")
            .set("linger.ms", "5")
            .create()
            .expect("a producer");
        producer.init_transactions(PATIENCE).expect("Kafka takes transactions");
        Self { name: name.to_owned(), producer }
    }

    /// Sends frames, each with the store whose events it holds. Nobody sees them yet.
    pub fn fill<'a>(&self, frames: impl IntoIterator<Item = (i32, &'a [u8])>) {
        self.producer.begin_transaction().expect("no transaction is open");
        for (store, frame) in frames {
            let key = store.to_string();
            let mut record =
                BaseRecord::to(&self.name).partition(partition_of(store, PARTITIONS)).key(&key).payload(frame);
            while let Err((error, back)) = self.producer.send(record) {
                let full = matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
                assert!(full, "the producer does not take a record: {error}");
                std::thread::sleep(Duration::from_millis(5));
                record = back;
            }
        }
        self.producer.flush(PATIENCE).expect("Kafka takes the records");
    }

    /// Shows what was filled in.
    pub fn show(&self) {
        self.producer.commit_transaction(PATIENCE).expect("Kafka has all records");
    }

    /// Fills in and shows.
    pub fn send<'a>(&self, frames: impl IntoIterator<Item = (i32, &'a [u8])>) {
        self.fill(frames);
        self.show();
    }
}
