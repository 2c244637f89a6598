//! The real things beside us (Kafka, S3, Azure's storage) do what the other tests lean on: what was acknowledged is kept,
//! and of several writers of one name exactly one wins.

mod kafka;
mod object_stores;
