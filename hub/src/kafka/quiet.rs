//! What Kafka's client has to say, so that a log stays readable: while a broker is away it says the same many times a second.

use crate::rarely::Rarely;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use std::time::Instant;

/// See the module.
#[derive(Debug, Default)]
pub struct Quiet(Rarely);

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
        match level {
            Info | Notice | Debug => tracing::debug!(facility, "Kafka's client: {message}"),
            Emerg | Alert | Critical | Error | Warning if self.0.may_say(facility, Instant::now()) => {
                tracing::warn!(facility, "Kafka's client: {message}");
            }
            _ => {}
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if self.0.may_say(&error.to_string(), Instant::now()) {
            tracing::warn!("Kafka's client: {error}: {reason}");
        }
    }
}

impl ConsumerContext for Quiet {}
