//! The cloud side in parts, with a real Kafka between them, and Kafka as a source.

mod parts;
mod raw_topic;
