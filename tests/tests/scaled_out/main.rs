//! The cloud side in parts, with a real Kafka between them, and Kafka as a source.

mod back_pressure;
mod cloud;
mod conflicts;
mod count_files;
mod dataset;
mod gateways;
mod lake_at;
mod login;
mod order;
mod parts;
mod quarantine;
mod raw_topic;
mod refusals;
mod retention;
mod static_members;
mod topic_anew;
mod trouble;
mod zombie;
