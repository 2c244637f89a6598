//! Kafka between gateways and processors, and as a source of the accelerator's documents.
//!
//! - [`gateway`]: what agents and devices send is put on a topic, keyed by store; the durable ack follows the delivery report.
//! - [`processor`]: one of a consumer group; its partitions' stores, with their actors and files, are its own while it holds them.
//! - [`raw`]: reads JSON documents from any topic into a hub in embedded form.
//!
//! How far a topic has been read stands in the lake, never in Kafka: offsets that a group commits are not asked for.

mod event_topic;
pub mod gateway;
mod lanes;
pub mod processor;
mod pump;
mod quiet;
pub mod raw;
mod record;
mod settings;

pub use event_topic::{EventTopic, NotTaken};
pub use settings::KafkaSettings;
