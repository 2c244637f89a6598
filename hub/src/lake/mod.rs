//! The lake: Delta tables, how they are written, read, kept small and checked. Only this module knows deltalake.

pub mod bench_limit;
pub mod cloud;
mod cloud_url;
pub mod commit;
pub mod commit_cycle;
mod commit_request;
pub mod count_file_log;
mod durable_local;
pub mod event_log;
mod file_reader;
pub mod files;
pub mod gold;
pub mod housekeeping;
pub mod identities;
pub mod insist;
pub mod log;
mod log_store;
pub mod marks;
pub mod positions;
pub mod quarantined;
pub mod query;
pub mod read;
pub mod rebuild;
pub mod recount;
pub mod recovery;
pub mod reference;
mod refusal;
pub mod replay_log;
mod retention;
#[cfg(test)]
pub(crate) mod samples;
pub mod silver;
pub mod sizes;
pub mod storage;
pub mod tables;
pub mod tables_open;
pub mod upkeep;
pub mod verify;

pub use commit::{CommitError, CommitRequest};
pub use files::PendingAdd;
pub use log::{LiveFile, Table};
pub use retention::Retention;
pub use storage::Lake;
pub use tables::TableName;
