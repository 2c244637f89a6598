//! The cloud side in parts, with a real Kafka between them, and Kafka as a source.

mod count_files;
mod parts;
mod raw_topic;
