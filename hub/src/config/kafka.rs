//! How Kafka is reached, as far as it is a matter of settings.

/// Checked settings of Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// `HOST:PORT`, several separated by commas.
    pub bootstrap: String,
    /// The topic between gateways and processors.
    pub topic: String,
    /// How many partitions the topic gets if it is not there yet.
    pub partitions: i32,
    /// The processors' consumer group.
    pub group: String,
    /// A name that outlives a restart: a processor that comes back soon under it keeps its partitions.
    pub instance: Option<String>,
    /// A topic with the accelerator's JSON documents, for a hub in embedded form.
    pub raw_topic: Option<String>,
    /// Settings of librdkafka, as they are.
    pub settings: Vec<(String, String)>,
}
