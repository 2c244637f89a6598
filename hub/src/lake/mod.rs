//! The lake: Delta tables, how they are written, read, kept small and checked. Only this module knows deltalake.

pub mod commit;
mod durable_local;
mod file_reader;
pub mod files;
pub mod log;
pub mod read;
#[cfg(test)]
mod samples;
pub mod storage;
pub mod tables;

pub use commit::{CommitError, CommitRequest};
pub use files::PendingAdd;
pub use log::{LiveFile, Table};
pub use storage::{Lake, Retention};
pub use tables::TableName;
