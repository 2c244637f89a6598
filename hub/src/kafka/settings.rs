//! How Kafka is reached, and which settings of its client are ours.

pub use crate::config::KafkaSettings;

use super::quiet::Quiet;
use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::time::{Duration, Instant};

/// What a topic that is made here does not take from the cluster's defaults: what agents were told is durable stays until
/// processors had two weeks to read it.
const TOPIC: [(&str, &str); 4] = [("retention.ms", "1209600000"), ("retention.bytes", "-1"), COMPACTED, BY_WHOSE_CLOCK];
/// A record's key is its store: compacted, each store would have its newest record, and no other.
const COMPACTED: (&str, &str) = ("cleanup.policy", "delete");
/// By a gateway's clock that is behind, what it puts there is old when it comes, and goes.
const BY_WHOSE_CLOCK: (&str, &str) = ("message.timestamp.type", "LogAppendTime");
/// Longest wait for an answer about the cluster.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a cluster that does not answer is waited for at the start: after a power cut everything starts at once.
const STARTING: Duration = Duration::from_mins(1);
/// Pause between two questions then.
const PAUSE: Duration = Duration::from_secs(1);

/// What the cluster says of a topic.
struct TopicShape {
    partitions: i32,
    /// Of the partition that has the fewest.
    replicas: usize,
}

impl KafkaSettings {
    /// A client's configuration: ours first, so that what somebody set wins; what correctness hangs on last.
    pub fn client(&self, ours: &[(&str, &str)], fixed: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("client.id", "onhand-hub");
        for (key, value) in ours {
            config.set(*key, *value);
        }
        for (key, value) in &self.settings {
            config.set(key, value);
        }
        for (key, value) in fixed {
            config.set(*key, *value);
        }
        config
    }

    /// How many partitions the topic between gateways and processors has; it is made if it is not there.
    ///
    /// # Errors
    /// If the cluster does not answer for a minute, or does not let us make the topic.
    pub async fn ensure_topic(&self) -> Result<i32> {
        let began = Instant::now();
        loop {
            match self.find_or_make_topic().await {
                Err(error) if is_away(&error) && began.elapsed() < STARTING => {
                    tracing::warn!(
                        "Kafka does not answer yet (if this goes on, look at kafka and kafka_set, login and TLS too): \
                         {error:#}; asking again"
                    );
                    tokio::time::sleep(PAUSE).await;
                }
                found => return found,
            }
        }
    }

    async fn find_or_make_topic(&self) -> Result<i32> {
        let admin: AdminClient<Quiet> =
            self.client(&[], &[]).create_with_context(Quiet::default()).context("prepare a client of Kafka")?;
        if let Some(topic) = self.look(&self.topic).await? {
            if topic.replicas < 2 {
                tracing::warn!(
                    topic = self.topic,
                    "one broker alone holds this topic: what agents are told is durable goes with its disk"
                );
            }
            self.see_that_it_keeps(&admin).await?;
            return Ok(topic.partitions);
        }
        // -1: the cluster's own default of replicas.
        let topic = NewTopic::new(&self.topic, self.partitions, TopicReplication::Fixed(-1));
        let topic = TOPIC.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
        let made = admin.create_topics([&topic], &AdminOptions::new().operation_timeout(Some(PATIENCE))).await;
        for outcome in made.with_context(|| format!("make the topic {}", self.topic))? {
            match outcome {
                // Another gateway or processor may have been faster.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(KafkaError::AdminOp(code)).with_context(|| format!("make the topic {topic}"));
                }
            }
        }
        for _ in 0..50 {
            if let Some(count) = self.partition_count(&self.topic).await? {
                return Ok(count);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::bail!("the topic {} was made, but is not there", self.topic)
    }

    /// Looks at how long a topic that somebody else has made keeps what is put there.
    async fn see_that_it_keeps(&self, admin: &AdminClient<Quiet>) -> Result<()> {
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let described = admin.describe_configs([&ResourceSpecifier::Topic(&self.topic)], &options).await;
        match described.map(|mut described| described.pop()) {
            Ok(Some(Ok(config))) => judge(&self.topic, &config),
            // It needs a right of its own, and not every service that speaks Kafka's language has it.
            other => {
                tracing::debug!(topic = self.topic, ?other, "not told how long the topic keeps what is put there");
                Ok(())
            }
        }
    }

    /// How many partitions a topic has; `None` if there is no such topic.
    ///
    /// # Errors
    /// If the cluster does not answer.
    pub async fn partition_count(&self, topic: &str) -> Result<Option<i32>> {
        Ok(self.look(topic).await?.map(|topic| topic.partitions))
    }

    async fn look(&self, topic: &str) -> Result<Option<TopicShape>> {
        let config = self.client(&[("group.id", "onhand-look")], &[("enable.auto.commit", "false")]);
        let (topic, bootstrap) = (topic.to_owned(), self.bootstrap.clone());
        let look = move || {
            let client: BaseConsumer<Quiet> =
                config.create_with_context(Quiet::default()).context("prepare a client of Kafka")?;
            let metadata = client.fetch_metadata(Some(&topic), PATIENCE);
            let metadata = metadata.with_context(|| format!("ask {bootstrap} about the topic {topic}"))?;
            let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
            match found.error().map(RDKafkaErrorCode::from) {
                Some(RDKafkaErrorCode::UnknownTopicOrPartition) => return Ok(None),
                Some(error) => {
                    return Err(KafkaError::MetadataFetch(error))
                        .with_context(|| format!("the topic {topic} cannot be used"));
                }
                None => {}
            }
            let partitions = i32::try_from(found.partitions().len()).context("a topic has fewer partitions")?;
            ensure!(partitions > 0, "the topic {topic} has no partitions");
            let replicas = found.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
            Ok(Some(TopicShape { partitions, replicas }))
        };
        tokio::task::spawn_blocking(look).await?
    }
}

/// Refuses a topic that does not keep events at all, and warns of what may take them early.
fn judge(topic: &str, config: &ConfigResource) -> Result<()> {
    let value = |name: &str| config.get(name).and_then(|entry| entry.value.as_deref());
    let (name, wanted) = COMPACTED;
    let policy = value(name).unwrap_or(wanted);
    ensure!(
        !policy.contains("compact"),
        "the topic {topic} has {name}={policy}, with which Kafka keeps the newest record of each store and no other: \
         set it to {wanted}"
    );
    let (name, wanted) = BY_WHOSE_CLOCK;
    if let Some(other) = value(name).filter(|value| *value != wanted) {
        tracing::warn!(
            topic,
            "{name} of this topic is {other}: what a gateway whose clock is behind puts there is removed early; set it to \
             {wanted}"
        );
    }
    if let Some(bytes) = value("retention.bytes").filter(|bytes| *bytes != "-1") {
        tracing::warn!(
            topic,
            "retention.bytes of this topic is {bytes}: more than that in a partition is removed, read or not"
        );
    }
    Ok(())
}

/// Whether nobody answered, or a cluster that is only half up, which may be different a moment later.
fn is_away(error: &anyhow::Error) -> bool {
    use RDKafkaErrorCode::{
        AllBrokersDown, BrokerNotAvailable, BrokerTransportFailure, InvalidReplicationFactor, LeaderNotAvailable,
        NotController, OperationTimedOut, RequestTimedOut,
    };
    let code = match error.downcast_ref() {
        // Of these, rdkafka tells no code by its own method.
        Some(KafkaError::AdminOp(code)) => Some(*code),
        other => other.and_then(KafkaError::rdkafka_error_code),
    };
    matches!(
        code,
        Some(
            AllBrokersDown
                | BrokerNotAvailable
                | BrokerTransportFailure
                | InvalidReplicationFactor
                | LeaderNotAvailable
                | NotController
                | OperationTimedOut
                | RequestTimedOut
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_is_half_up_is_asked_again_and_a_refusal_is_not() {
        for (error, away) in [
            (KafkaError::AdminOp(RDKafkaErrorCode::InvalidReplicationFactor), true),
            (KafkaError::AdminOp(RDKafkaErrorCode::TopicAuthorizationFailed), false),
            (KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerTransportFailure), true),
            (KafkaError::MetadataFetch(RDKafkaErrorCode::TopicAuthorizationFailed), false),
        ] {
            let said = format!("{error:?}");
            assert_eq!(is_away(&Err::<(), _>(error).context("make the topic").unwrap_err()), away, "{said}");
        }
        assert!(!is_away(&anyhow::anyhow!("no error of Kafka's")));
    }

    #[test]
    fn a_topic_that_is_compacted_is_refused() {
        use rdkafka::admin::{ConfigEntry, ConfigSource, OwnedResourceSpecifier};
        for (policy, taken) in [("delete", true), ("compact", false), ("compact,delete", false)] {
            let entry = |name: &str, value: &str| ConfigEntry {
                name: name.to_owned(),
                value: Some(value.to_owned()),
                source: ConfigSource::Default,
                is_read_only: false,
                is_default: true,
                is_sensitive: false,
            };
            let entries = vec![entry("cleanup.policy", policy), entry("retention.bytes", "1000")];
            let specifier = OwnedResourceSpecifier::Topic("events".to_owned());
            let judged = judge("events", &ConfigResource { specifier, entries });
            assert_eq!(judged.is_ok(), taken, "{policy}: {judged:?}");
            if let Err(error) = judged {
                assert!(error.to_string().contains(&format!("events has cleanup.policy={policy}")), "{error}");
            }
        }
    }
}
