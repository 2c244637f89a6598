//! How Kafka is reached, and which settings of its client are ours.

pub use crate::config::KafkaSettings;

use super::quiet::Quiet;
use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::time::{Duration, Instant};

/// What a topic that is made here does not take from the cluster's defaults: what agents were told is durable stays until
/// processors had two weeks to read it, however much it is.
const MADE_WITH: [(&str, &str); 4] =
    [("retention.ms", "1209600000"), ("retention.bytes", "-1"), CLEANUP_POLICY, TIMESTAMP_TYPE];
/// A record's key is its store: compacted, each store would have its newest record, and no other.
const CLEANUP_POLICY: (&str, &str) = ("cleanup.policy", "delete");
/// By a gateway's clock that is behind, what it puts there is old when it comes, and goes.
const TIMESTAMP_TYPE: (&str, &str) = ("message.timestamp.type", "LogAppendTime");
/// Less than this, in milliseconds, and a topic is warned of: a week, Kafka's own default.
const SHORT_RETENTION: i64 = 7 * 86_400_000;
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
        if let Some(topic) = self.look(&self.topic).await? {
            self.see_that_it_keeps(&topic).await?;
            return Ok(topic.partitions);
        }
        // -1: the cluster's own default of replicas.
        let topic = NewTopic::new(&self.topic, self.partitions, TopicReplication::Fixed(-1));
        let topic = MADE_WITH.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let made = self.admin()?.create_topics([&topic], &options).await;
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
            if let Some(topic) = self.look(&self.topic).await? {
                self.see_that_it_keeps(&topic).await?;
                return Ok(topic.partitions);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::bail!("the topic {} was made, but is not there", self.topic)
    }

    fn admin(&self) -> Result<AdminClient<Quiet>> {
        self.client(&[], &[]).create_with_context(Quiet::default()).context("prepare a client of Kafka")
    }

    /// Looks at whether the topic, whoever has made it, keeps what is put there.
    async fn see_that_it_keeps(&self, topic: &TopicShape) -> Result<()> {
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let described = self.admin()?.describe_configs([&ResourceSpecifier::Topic(&self.topic)], &options).await;
        let settings = match described.map(|mut described| described.pop()) {
            Ok(Some(Ok(settings))) => Some(settings),
            // It needs a right of its own, and not every service that speaks Kafka's language knows the question.
            other => {
                let error = other.map_or_else(|error| error.to_string(), |other| format!("{other:?}"));
                tracing::warn!(
                    topic = self.topic,
                    error,
                    "Kafka does not say how long the topic keeps what is put there (it needs the right to describe its \
                     configuration): see to it that it is kept for as long as processors may be away"
                );
                None
            }
        };
        let setting = |name: &str| settings.as_ref()?.get(name)?.value.as_deref();
        let warnings = judge(topic.replicas, setting);
        for warning in warnings.with_context(|| format!("the topic {} cannot be used", self.topic))? {
            tracing::warn!(topic = self.topic, "{warning}");
        }
        Ok(())
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

/// Refuses a topic that does not keep events at all; returns what may take them early. `setting` tells what the topic has.
fn judge<'a>(replicas: usize, setting: impl Fn(&str) -> Option<&'a str>) -> Result<Vec<String>> {
    let (name, wanted) = CLEANUP_POLICY;
    let policy = setting(name).unwrap_or(wanted);
    ensure!(
        !policy.contains("compact"),
        "it has {name}={policy}, with which Kafka keeps the newest record of each store and no other: set it to {wanted}"
    );
    let mut warnings = Vec::new();
    let (name, wanted) = TIMESTAMP_TYPE;
    if let Some(other) = setting(name).filter(|other| *other != wanted) {
        warnings.push(format!(
            "{name} is {other}: what a gateway whose clock is behind puts there is removed early; set it to {wanted}"
        ));
    }
    let number = |name: &str| setting(name).and_then(|value| value.parse::<i64>().ok());
    if let Some(millis) = number("retention.ms").filter(|millis| (0..SHORT_RETENTION).contains(millis)) {
        let kept = humantime::format_duration(Duration::from_millis(millis.unsigned_abs()));
        warnings.push(format!("retention.ms is {millis}: what processors have not read after {kept} is gone"));
    }
    if let Some(bytes) = number("retention.bytes").filter(|bytes| *bytes >= 0) {
        warnings.push(format!(
            "retention.bytes is {bytes}: of more than that in a partition the oldest is gone, read or not"
        ));
    }
    if replicas < 2 {
        warnings.push("one broker alone holds it: what agents are told is durable goes with its disk".to_owned());
    } else if number("min.insync.replicas").is_some_and(|least| least < 2) {
        warnings.push(
            "min.insync.replicas is 1: while the other replicas are away, what agents are told is durable is on one disk"
                .to_owned(),
        );
    }
    if setting("unclean.leader.election.enable") == Some("true") {
        warnings.push("unclean.leader.election.enable is true: a replica that is behind may take over".to_owned());
    }
    Ok(warnings)
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
    fn a_topic_that_does_not_keep_events_is_refused_and_what_may_take_them_early_is_said() {
        let judged = |replicas, settings: &[(&str, &'static str)]| {
            let settings: Vec<(String, &'static str)> =
                settings.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
            judge(replicas, move |name| settings.iter().find(|(other, _)| other == name).map(|(_, value)| *value))
        };
        assert_eq!(judged(3, &[]).unwrap(), Vec::<String>::new(), "of what is not told nothing is said");
        assert_eq!(judged(3, &MADE_WITH).unwrap(), Vec::<String>::new());
        for policy in ["compact", "compact,delete"] {
            let error = judged(3, &[("cleanup.policy", policy)]).unwrap_err().to_string();
            assert!(error.contains(&format!("cleanup.policy={policy},")), "{error}");
        }
        for (replicas, name, value) in [
            (3, "message.timestamp.type", "CreateTime"),
            (3, "retention.ms", "60000"),
            (3, "retention.bytes", "1000"),
            (3, "min.insync.replicas", "1"),
            (3, "unclean.leader.election.enable", "true"),
        ] {
            let warnings = judged(replicas, &[(name, value)]).unwrap();
            assert!(warnings.len() == 1 && warnings[0].starts_with(&format!("{name} is {value}: ")), "{warnings:?}");
        }
        assert_eq!(judged(3, &[("retention.ms", "-1"), ("min.insync.replicas", "2")]).unwrap(), Vec::<String>::new());
        let alone = judged(1, &[("min.insync.replicas", "1")]).unwrap();
        assert!(alone.len() == 1 && alone[0].starts_with("one broker alone"), "{alone:?}");
    }
}
